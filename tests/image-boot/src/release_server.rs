//! A server of updates on the host: an HTTPS folder with a release's files, that misbehaves on demand.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context as _;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::task::AbortHandle;
use tokio_rustls::TlsAcceptor;
use vitalgate_domain::GatewayId;
use vitalgate_trust::{ClientCertificate, LocalAuthority, server_config};

use crate::command;
use crate::practice::HOST;

/// The list that every release has.
pub(crate) const LIST: &str = "SHA256SUMS";
/// The folder in the URL.
const FOLDER: &str = "/releases/";
/// Longest head of a question, in bytes.
const HEAD_BYTES_MAX: u64 = 16 * 1024;

/// What lies in the folder, and what was asked for.
#[derive(Default)]
struct State {
    files: BTreeMap<String, PathBuf>,
    sums: BTreeMap<String, String>,
    cut_after: Option<u64>,
    asked: Vec<String>,
}

/// A running server; it stops when this is dropped.
pub(crate) struct ReleaseServer {
    port: u16,
    authority: String,
    state: Arc<Mutex<State>>,
    task: AbortHandle,
}

impl Drop for ReleaseServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ReleaseServer {
    /// Answers on this port of loopback, with an authority of its own in `folder`.
    ///
    /// # Errors
    /// When the port cannot be listened on or no certificate made.
    pub(crate) async fn start(port: u16, folder: &Path) -> anyhow::Result<Self> {
        let authority = LocalAuthority::open_or_create(folder, &GatewayId::new("releases")?)?;
        let certificate = authority.issue_server(&[HOST.to_owned(), "127.0.0.1".to_owned()])?;
        let config = server_config(certificate.chain, certificate.key, None, ClientCertificate::Optional)?;
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], port))).await.context("the server of updates cannot listen")?;
        let state = Arc::new(Mutex::new(State::default()));
        let task = tokio::spawn(serve(listener, TlsAcceptor::from(config), state.clone())).abort_handle();
        Ok(Self { port, authority: authority.ca_certificate_pem().to_owned(), state, task })
    }

    /// For the site file: its port and its authority.
    pub(crate) fn for_site(&self) -> (u16, String) {
        (self.port, self.authority.clone())
    }

    /// Lists a file under a name, with its checksum or another one.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) async fn offer(&self, name: &str, file: &Path, sum: Option<&str>) -> anyhow::Result<()> {
        let sum = match sum {
            Some(sum) => sum.to_owned(),
            None => sha256(file).await?,
        };
        let mut state = lock(&self.state);
        state.files.insert(name.to_owned(), file.to_owned());
        state.sums.insert(name.to_owned(), sum);
        Ok(())
    }

    /// Takes a file away.
    pub(crate) fn withdraw(&self, name: &str) {
        let mut state = lock(&self.state);
        state.files.remove(name);
        state.sums.remove(name);
    }

    /// Breaks off the next file other than the list after so many bytes.
    pub(crate) fn break_off_after(&self, bytes: u64) {
        lock(&self.state).cut_after = Some(bytes);
    }

    /// What was asked for since the last call.
    pub(crate) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.state).asked)
    }
}

async fn sha256(file: &Path) -> anyhow::Result<String> {
    let printed = command::run("sha256sum", [file]).await?;
    Ok(printed.split_whitespace().next().context("no checksum")?.to_owned())
}

async fn serve(listener: TcpListener, tls: TlsAcceptor, state: Arc<Mutex<State>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (tls, state) = (tls.clone(), state.clone());
        // Who goes away in between asks again.
        tokio::spawn(async move {
            match tls.accept(stream).await {
                Ok(stream) => answer(stream, &state).await,
                Err(error) => Err(error.into()),
            }
        });
    }
}

async fn answer(stream: impl AsyncRead + AsyncWrite + Unpin, state: &Mutex<State>) -> anyhow::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut head = String::new();
    while stream.read_line(&mut head).await? > 2 {
        anyhow::ensure!(head.len() as u64 <= HEAD_BYTES_MAX, "too long a question");
    }
    let path = head.split_whitespace().nth(1).unwrap_or_default();
    let name = path.strip_prefix(FOLDER).unwrap_or_default().to_owned();
    let (file, list, cut) = look_up(&mut lock(state), &name);
    if name == LIST {
        return send(&mut stream, list.len() as u64, list.as_bytes()).await;
    }
    let Some(file) = file else {
        stream.write_all(b"HTTP/1.0 404 Not Found\r\nContent-Length: 0\r\n\r\n").await?;
        return Ok(stream.shutdown().await?);
    };
    let length = std::fs::metadata(&file)?.len();
    let opened = tokio::fs::File::open(&file).await?;
    send(&mut stream, length, opened.take(cut.unwrap_or(length))).await
}

fn look_up(state: &mut State, name: &str) -> (Option<PathBuf>, String, Option<u64>) {
    state.asked.push(name.to_owned());
    let list = state.sums.iter().map(|(name, sum)| format!("{sum}  {name}\n")).collect();
    let cut = if name == LIST { None } else { state.cut_after.take() };
    (state.files.get(name).cloned(), list, cut)
}

async fn send(stream: &mut (impl AsyncWrite + Unpin), length: u64, mut from: impl AsyncRead + Unpin) -> anyhow::Result<()> {
    stream.write_all(format!("HTTP/1.0 200 OK\r\nContent-Length: {length}\r\n\r\n").as_bytes()).await?;
    tokio::io::copy(&mut from, stream).await?;
    Ok(stream.shutdown().await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The list names what is offered; a broken-off answer is promised whole and happens once.
    #[tokio::test]
    async fn what_is_offered_is_listed_and_sent() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("bundle");
        std::fs::write(&file, "0123456789").unwrap();
        let server = ReleaseServer::start(vitalgate_test_support::free_port().unwrap(), &folder.path().join("authority")).await.unwrap();
        server.offer("a.raucb", &file, None).await.unwrap();
        server.offer("b.raucb", &file, Some("5ca1ab1e")).await.unwrap();
        server.break_off_after(3);
        let mut said = Vec::new();
        for name in [LIST, "a.raucb", "a.raucb", "c.raucb"] {
            let (near, far) = tokio::io::duplex(4096);
            let (mut read, mut write) = tokio::io::split(near);
            write.write_all(format!("GET {FOLDER}{name} HTTP/1.0\r\n\r\n").as_bytes()).await.unwrap();
            answer(far, &server.state).await.unwrap();
            let mut text = String::new();
            read.read_to_string(&mut text).await.unwrap();
            said.push(text);
        }
        assert!(
            said[0].contains("84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882  a.raucb\n5ca1ab1e  b.raucb\n"),
            "{said:?}"
        );
        assert!(said[1].contains("Content-Length: 10") && said[1].ends_with("\r\n012"));
        assert!(said[2].ends_with("0123456789") && said[3].contains("404"));
        assert_eq!(server.asked(), [LIST, "a.raucb", "a.raucb", "c.raucb"]);
        server.withdraw("a.raucb");
        assert!(server.asked().is_empty() && !lock(&server.state).sums.contains_key("a.raucb"));
    }
}
