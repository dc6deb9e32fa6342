//! Plain HTTP/1.1 on loopback, one request per connection.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

/// Longest wait for one answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// The text that a GET gives.
///
/// # Errors
/// When there is no answer in time or it is neither 2xx nor 503 (a health answer while not ready).
pub async fn get(address: SocketAddr, path: &str) -> anyhow::Result<String> {
    let (status, text) = ask(address, Method::GET, path, None, &[]).await?;
    if !(200..300).contains(&status) && status != 503 {
        bail!("{path}: {status} {text}");
    }
    Ok(text)
}

/// The JSON that a GET gives.
///
/// # Errors
/// As [`get`], or when it is no JSON.
pub async fn get_json(address: SocketAddr, path: &str) -> anyhow::Result<Value> {
    serde_json::from_str(&get(address, path).await?).context("the answer is no JSON")
}

/// Puts JSON there.
///
/// # Errors
/// When there is no answer in time or it is not 2xx.
pub async fn put_json(address: SocketAddr, path: &str, body: &Value) -> anyhow::Result<String> {
    let (status, text) = ask(address, Method::PUT, path, Some(body), &[]).await?;
    if !(200..300).contains(&status) {
        bail!("{path}: {status} {text}");
    }
    Ok(text)
}

/// Sends any request and gives the status and the text of the answer, whatever the status is.
///
/// # Errors
/// When there is no whole answer in time.
pub async fn ask(
    address: SocketAddr,
    method: Method,
    path: &str,
    body: Option<&Value>,
    headers: &[(&str, &str)],
) -> anyhow::Result<(u16, String)> {
    let asking = async {
        let stream = TcpStream::connect(address).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let driver = tokio::spawn(connection);
        let text = body.map(Value::to_string).unwrap_or_default();
        let mut request = Request::builder().method(method).uri(path).header("host", address.to_string());
        request = request.header("content-type", "application/fhir+json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = sender.send_request(request.body(Full::new(Bytes::from(text)))?).await?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await?.to_bytes();
        driver.abort();
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    };
    tokio::time::timeout(ANSWER_WITHIN, asking).await.with_context(|| format!("no answer from {address} in time"))?
}
