//! Accepting connections, and cutting them all.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto::Builder;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use super::{Shared, request};

/// HTTP/2 flow control windows in bytes: a bundle fits without waiting for an update.
const WINDOW_BYTES: u32 = 4 * 1024 * 1024;

/// The task that accepts and everything that it accepted.
pub(crate) struct Listening {
    task: JoinHandle<()>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Listening {
    pub(crate) async fn start(address: SocketAddr, tls: Option<Arc<ServerConfig>>, shared: Arc<Shared>) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(address).await.with_context(|| format!("the EHR cannot listen on {address}"))?;
        Ok(Self { task: tokio::spawn(accept(listener, tls, shared)) })
    }

    /// Returns when the port is free again and every connection is cut.
    pub(crate) async fn stop(mut self) {
        self.task.abort();
        // Aborted: it has nothing to say.
        let _ = (&mut self.task).await;
    }
}

async fn accept(listener: TcpListener, tls: Option<Arc<ServerConfig>>, shared: Arc<Shared>) {
    // Dropped when this task is aborted, and every connection with it.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                connections.spawn(connection(stream, tls.clone(), shared.clone()));
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(stream: TcpStream, tls: Option<Arc<ServerConfig>>, shared: Arc<Shared>) {
    // A client that goes away in between is the client's affair.
    let _ = stream.set_nodelay(true);
    match tls {
        None => serve(TokioIo::new(stream), shared).await,
        Some(config) => {
            if let Ok(stream) = TlsAcceptor::from(config).accept(stream).await {
                serve(TokioIo::new(stream), shared).await;
            }
        }
    }
}

async fn serve<I>(io: I, shared: Arc<Shared>)
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let executor = Tracked::default();
    let mut builder = Builder::new(executor.clone());
    builder.http2().initial_stream_window_size(WINDOW_BYTES).initial_connection_window_size(WINDOW_BYTES);
    let service = service_fn(move |incoming| {
        let shared = shared.clone();
        async move { request::answer(incoming, &shared).await }
    });
    // An error here is a connection that broke, often on purpose.
    let _ = builder.serve_connection(io, service).await;
}

/// Runs the streams of one HTTP/2 connection, and ends them with it: an outage must cut them too.
#[derive(Clone, Default)]
struct Tracked {
    streams: Arc<std::sync::Mutex<JoinSet<()>>>,
}

impl<F> hyper::rt::Executor<F> for Tracked
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let mut streams = self.streams.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        while streams.try_join_next().is_some() {}
        streams.spawn(stream);
    }
}
