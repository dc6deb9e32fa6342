//! The server on a socket: HTTP/1.1 by hand over TLS, so that a connection can break at any byte, and HTTP/2 by hyper.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::Certificates;
use super::ehr::{Ehr, Ending, Reply, Request};

pub struct Served {
    pub ehr: Arc<Ehr>,
    pub certificates: Certificates,
    pub address: SocketAddr,
    pub connections: Arc<AtomicUsize>,
}

impl Served {
    pub fn url(&self) -> String {
        format!("https://localhost:{}/fhir", self.address.port())
    }

    /// HTTP/1.1 over TLS with faults.
    pub async fn start(ehr: Ehr) -> Self {
        Self::start_with(ehr, Certificates::new(&["localhost"], false)).await
    }

    pub async fn start_with(ehr: Ehr, certificates: Certificates) -> Self {
        let tls = certificates.server(&[b"http/1.1"]);
        Self::start_tls(ehr, certificates, tls).await
    }

    pub async fn start_tls(ehr: Ehr, certificates: Certificates, tls: Arc<rustls::ServerConfig>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let served = Self { ehr: Arc::new(ehr), certificates, address: listener.local_addr().unwrap(), connections: Arc::default() };
        let acceptor = TlsAcceptor::from(tls);
        let (ehr, connections) = (Arc::clone(&served.ehr), Arc::clone(&served.connections));
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::SeqCst);
                let (ehr, acceptor) = (Arc::clone(&ehr), acceptor.clone());
                tokio::spawn(async move {
                    if let Ok(stream) = acceptor.accept(socket).await {
                        connection(stream, &ehr).await;
                    }
                });
            }
        });
        served
    }

    /// HTTP/2 over TLS, without faults of the connection.
    pub async fn start_http2(ehr: Ehr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let certificates = Certificates::new(&["localhost"], false);
        let served = Self { ehr: Arc::new(ehr), certificates, address: listener.local_addr().unwrap(), connections: Arc::default() };
        let acceptor = TlsAcceptor::from(served.certificates.server(&[b"h2"]));
        let (ehr, connections) = (Arc::clone(&served.ehr), Arc::clone(&served.connections));
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::SeqCst);
                let (ehr, acceptor) = (Arc::clone(&ehr), acceptor.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(socket).await else { return };
                    let service = hyper::service::service_fn(move |request| respond(Arc::clone(&ehr), request));
                    let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    // The end of a connection is the client's affair.
                    let _ = builder.http2_only().serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        served
    }
}

async fn respond(ehr: Arc<Ehr>, request: hyper::Request<Incoming>) -> Result<hyper::Response<Full<bytes::Bytes>>, Infallible> {
    assert_eq!(request.version(), hyper::Version::HTTP_2);
    let header = |name: &str| request.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
    let mut parsed = Request {
        method: request.method().to_string(),
        target: request.uri().path_and_query().unwrap().to_string(),
        authorization: header("authorization"),
        accept_encoding: header("accept-encoding"),
        if_none_exist: header("if-none-exist"),
        body: Vec::new(),
    };
    parsed.body = request.into_body().collect().await.unwrap().to_bytes().to_vec();
    let reply = ehr.answer(parsed);
    let mut response = hyper::Response::builder().status(reply.status);
    for (name, value) in reply.headers {
        response = response.header(name, value);
    }
    Ok(response.body(Full::new(reply.body.into())).unwrap())
}

async fn connection<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, ehr: &Ehr) {
    let mut held = Vec::new();
    while let Some(request) = next_request(&mut stream, &mut held).await {
        let Reply { status, headers, body, ending } = ehr.answer(request);
        let mut head = format!("HTTP/1.1 {status} x\r\nContent-Length: {}\r\nContent-Type: application/fhir+json\r\n", body.len());
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        match ending {
            Ending::Whole => {
                let sent = [head.as_bytes(), &body].concat();
                if stream.write_all(&sent).await.is_err() || stream.flush().await.is_err() {
                    return;
                }
            }
            Ending::Half => {
                let sent = [head.as_bytes(), &body[..body.len() / 2]].concat();
                let _ = stream.write_all(&sent).await;
                let _ = stream.flush().await;
                return;
            }
            Ending::HalfThenNever => {
                let sent = [head.as_bytes(), &body[..body.len() / 2]].concat();
                let _ = stream.write_all(&sent).await;
                let _ = stream.flush().await;
                // Until the client gives up.
                let _ = stream.read(&mut [0; 1]).await;
                return;
            }
            Ending::Nothing => return,
            Ending::Never => {
                // Until the client gives up.
                let _ = stream.read(&mut [0; 1]).await;
                return;
            }
        }
    }
}

async fn next_request<S: AsyncRead + Unpin>(stream: &mut S, held: &mut Vec<u8>) -> Option<Request> {
    loop {
        if let Some(end) = held.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8(held[..end].to_vec()).unwrap();
            let header = |name: &str| {
                let found = head.lines().skip(1).filter_map(|line| line.split_once(": ")).find(|(key, _)| key.eq_ignore_ascii_case(name));
                found.map(|(_, value)| value.to_owned())
            };
            let length: usize = header("content-length").map_or(0, |length| length.parse().unwrap());
            if held.len() >= end + 4 + length {
                let mut words = head.lines().next().unwrap().split(' ');
                let request = Request {
                    method: words.next().unwrap().to_owned(),
                    target: words.next().unwrap().to_owned(),
                    authorization: header("authorization"),
                    accept_encoding: header("accept-encoding"),
                    if_none_exist: header("if-none-exist"),
                    body: held[end + 4..end + 4 + length].to_vec(),
                };
                held.drain(..end + 4 + length);
                return Some(request);
            }
        }
        let mut chunk = [0; 16 * 1024];
        match stream.read(&mut chunk).await {
            Ok(0) | Err(_) => return None,
            Ok(count) => held.extend_from_slice(&chunk[..count]),
        }
    }
}
