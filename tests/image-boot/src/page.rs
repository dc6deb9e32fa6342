//! The status page, over HTTPS with its certificate pinned: the fingerprint is what a technician compares.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::Request;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;
use vitalgate_test_support::pinned;

/// Longest wait for an answer of a machine without hardware virtualisation.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// A client that trusts one certificate.
#[derive(Clone)]
pub(crate) struct Page {
    address: SocketAddr,
    config: Arc<ClientConfig>,
}

/// The SHA-256 in a text: 64 hexadecimal digits in a row, colons and spaces between pairs or groups left out.
pub(crate) fn fingerprint_in(text: &str) -> Option<[u8; 32]> {
    let after = text.to_ascii_lowercase();
    let after = ["sha-256", "sha256", "fingerprint"].iter().find_map(|word| after.split_once(word)).map(|(_, rest)| rest)?;
    let digits: Vec<u8> = after
        .trim_start_matches(|character: char| !character.is_ascii_hexdigit())
        .chars()
        .take_while(|character| character.is_ascii_hexdigit() || matches!(character, ':' | ' ' | '-'))
        .filter_map(|character| character.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect();
    let bytes: Vec<u8> = digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect();
    bytes.get(..32)?.try_into().ok()
}

impl Page {
    /// The page behind a port of this host.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub(crate) fn new(port: u16, fingerprint: [u8; 32]) -> anyhow::Result<Self> {
        Ok(Self { address: SocketAddr::from(([127, 0, 0, 1], port)), config: pinned::client_config(fingerprint)? })
    }

    /// What a GET of `path` gives.
    ///
    /// # Errors
    /// When there is no answer in time, the certificate is another one, or the status is not 200.
    pub(crate) async fn get(&self, path: &str) -> anyhow::Result<Bytes> {
        let asking = async {
            let stream = TcpStream::connect(self.address).await?;
            let name = ServerName::try_from("gateway.test")?;
            let stream = TlsConnector::from(self.config.clone()).connect(name, stream).await?;
            let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
            let driver = tokio::spawn(connection);
            let request = Request::get(path).header("host", "gateway.test").body(Empty::<Bytes>::new())?;
            let response = sender.send_request(request).await?;
            let status = response.status();
            let body = response.into_body().collect().await?.to_bytes();
            driver.abort();
            if !status.is_success() {
                bail!("{path}: {status} {}", String::from_utf8_lossy(&body));
            }
            anyhow::Ok(body)
        };
        tokio::time::timeout(ANSWER_WITHIN, asking).await.context("the status page gives no answer")?
    }

    /// The page's contents as JSON.
    ///
    /// # Errors
    /// As [`Page::get`], or when it is no JSON.
    pub(crate) async fn status(&self) -> anyhow::Result<Value> {
        serde_json::from_slice(&self.get("/status.json").await?).context("/status.json is no JSON")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_read_as_people_write_it() {
        let hex = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
        let expected: Vec<u8> = (0..64).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
        let colons: Vec<String> = expected.iter().map(|byte| format!("{byte:02X}")).collect();
        let colons = colons.join(":");
        for text in [format!("VITALGATE PAGE https://10.0.2.15:8443 SHA-256 {colons} (temporary)"), format!("fingerprint {hex}")] {
            assert_eq!(fingerprint_in(&text).map(|bytes| bytes.to_vec()), Some(expected.clone()), "{text}");
        }
        assert_eq!(fingerprint_in("sha256 0011"), None);
        assert_eq!(fingerprint_in(hex), None);
    }
}
