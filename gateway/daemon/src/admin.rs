//! The command line's way to the running daemon: HTTP over its Unix socket.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::Request;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

/// How long the daemon may take to answer.
const ANSWER_DEADLINE: Duration = Duration::from_secs(40);
/// Largest answer in bytes.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The way to the daemon.
pub(crate) struct Admin {
    socket: PathBuf,
}

impl Admin {
    /// Prepares to ask over this socket.
    pub(crate) fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// Asks.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str, query: &[(&str, String)]) -> anyhow::Result<T> {
        self.exchange(Request::get(address(path, query)).body(Full::default())?).await
    }

    /// Tells.
    pub(crate) async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> anyhow::Result<T> {
        let body = Bytes::from(serde_json::to_vec(body)?);
        self.exchange(Request::post(address(path, &[])).header("content-type", "application/json").body(Full::new(body))?).await
    }

    async fn exchange<T: DeserializeOwned>(&self, request: Request<Full<Bytes>>) -> anyhow::Result<T> {
        let (code, body) =
            tokio::time::timeout(ANSWER_DEADLINE, self.send(request)).await.context("the gateway does not answer in time")??;
        if !code.is_success() {
            bail!("the gateway refused ({code}): {}", String::from_utf8_lossy(&body));
        }
        serde_json::from_slice(&body).context("the gateway's answer cannot be read; is it of the same version?")
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> anyhow::Result<(hyper::StatusCode, Bytes)> {
        let stream = UnixStream::connect(&self.socket).await.with_context(|| {
            format!(
                "the gateway does not answer on {}; is it running, with this configuration, and may you use its socket?",
                self.socket.display()
            )
        })?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let driver = tokio::spawn(connection);
        let response = sender.send_request(request).await.context("the gateway broke off")?;
        let code = response.status();
        let body =
            Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await.map_err(|error| anyhow::anyhow!("{error}"))?.to_bytes();
        driver.abort();
        Ok((code, body))
    }
}

/// Path and query.
fn address(path: &str, query: &[(&str, String)]) -> String {
    let mut address = path.to_owned();
    for (index, (name, value)) in query.iter().enumerate() {
        address.push(if index == 0 { '?' } else { '&' });
        address.push_str(name);
        address.push('=');
        // Names, numbers and UUIDs only: nothing here needs to be escaped.
        address.push_str(value);
    }
    address
}
