//! Fetching one file over HTTPS, by an account that can do nothing else.
//!
//! TLS 1.3 by [`vitalgate_trust`]; HTTP/1.0 requests, so that the answer comes in one piece (RFC 1945,
//! section 5.1). Where to and what is trusted is said by who sends it on this errand, who is root and never reads
//! a byte from the network itself.

use std::fs::{File, Permissions};
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use serde::{Deserialize, Serialize};
use vitalgate_layout::path;
use vitalgate_site::Endpoint;
use vitalgate_trust::{ClientProfile, client_config};

use crate::errand::Errand;
use crate::places::Places;
use crate::room::{self, NoRoom};

/// How long the server may stay silent.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// How long a whole file may take.
const FETCH_DEADLINE: Duration = Duration::from_secs(2 * 3600);
/// Longest head of an answer, in bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Bytes that are passed on at once.
const PIECE_BYTES: usize = 64 * 1024;
/// How often a file lies on sealed storage at its worst: as it was fetched, and as it is taken over.
const COPIES: u64 = 2;
/// Where a file that is fetched is put.
pub(super) const FETCHED: &str = "/data/fetch/fetched.raucb";
/// Mode of that file.
const FILE_MODE: u32 = 0o644;
/// Port of `https`.
const HTTPS_PORT: u16 = 443;

/// What is fetched.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Wanted {
    /// A file, as the answer.
    Text(From),
    /// A file, into [`FETCHED`].
    File(From),
    /// Nothing any more: [`FETCHED`] was taken over and takes no room from now on.
    Nothing,
}

/// Where from.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct From {
    /// An `https://` URL.
    pub(super) url: String,
    /// Most bytes that are taken.
    pub(super) bytes_max: u64,
    /// What a file leaves free, in MiB.
    pub(super) kept_free_mib: u64,
    /// Certificates to trust; none: the system's.
    pub(super) authorities: Option<String>,
}

/// Why nothing was fetched.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    /// Not a URL of ours.
    #[error("{0:?} is no https:// URL; correct [update] server in the site file")]
    Url(String),
    /// No connection.
    #[error("{host} cannot be reached ({reason}); check network, name and firewall of the site")]
    Connect {
        /// The server.
        host: String,
        /// Why.
        reason: io::Error,
    },
    /// What is trusted cannot be used.
    #[error("{0}")]
    Trust(String),
    /// It is not the site's server, or does not speak TLS 1.3.
    #[error("{host} is not believed ({reason}); check ca_pem in [update] of the site file and the server's certificate")]
    Stranger {
        /// The server.
        host: String,
        /// Why.
        reason: rustls::Error,
    },
    /// The server said no.
    #[error("the server answers {0:?}; check that the folder on the update server holds the release")]
    Answer(String),
    /// More than allowed.
    #[error("the server offers more than {0} bytes")]
    TooLarge(u64),
    /// Readings go first.
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
    /// It broke off.
    #[error("the connection broke off ({0}); it is tried again at the next occasion")]
    Broken(io::Error),
    /// It could not be kept.
    #[error("what was fetched cannot be kept ({0}); make room on the data partition")]
    Keep(io::Error),
}

/// Fetches; an errand. Gives the content where it was asked for as the answer.
///
/// # Errors
/// When it does not come.
pub(crate) fn fetch(places: &Places, wanted: &Wanted) -> anyhow::Result<String> {
    let scratch = Errand::Fetch.folder(places);
    let mut text = Vec::new();
    match wanted {
        Wanted::Text(from) => from.get(&scratch, &|_| Ok(()), &mut text)?,
        Wanted::File(from) => {
            clear(places)?;
            let mut file = File::options().write(true).create_new(true).open(places.at(FETCHED)).map_err(FetchError::Keep)?;
            // Whoever installs it is another account.
            file.set_permissions(Permissions::from_mode(FILE_MODE)).map_err(FetchError::Keep)?;
            from.get(&scratch, &|bytes| from.has_room(places, bytes), &mut file)?;
            file.sync_all().map_err(FetchError::Keep)?;
        }
        Wanted::Nothing => clear(places)?,
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Whether so many bytes are taken.
type Takes<'a> = &'a dyn Fn(u64) -> Result<(), FetchError>;

impl From {
    fn get(&self, scratch: &Path, has_room: Takes<'_>, to: &mut dyn Write) -> Result<(), FetchError> {
        let config = Arc::new(configuration(self.authorities.as_deref().unwrap_or_default(), scratch)?);
        let takes = |bytes| if bytes > self.bytes_max { Err(FetchError::TooLarge(self.bytes_max)) } else { has_room(bytes) };
        get(&self.url, config, &takes, to)
    }

    fn has_room(&self, places: &Places, bytes: u64) -> Result<(), FetchError> {
        let free_mib = room::free_mib(&places.at(path::FETCH)).map_err(FetchError::Keep)?;
        Ok(room::check(free_mib, self.kept_free_mib, bytes.saturating_mul(COPIES))?)
    }
}

fn clear(places: &Places) -> Result<(), FetchError> {
    crate::state_file::remove(&places.at(FETCHED)).map_err(FetchError::Keep)
}

/// Trust in the given certificates, or in the system's where none are given.
fn configuration(authorities: &str, scratch: &Path) -> Result<ClientConfig, FetchError> {
    if authorities.trim().is_empty() {
        return client_config(&ClientProfile::default()).map_err(|error| FetchError::Trust(error.to_string()));
    }
    let file = scratch.join(format!("authority-{}.pem", std::process::id()));
    std::fs::write(&file, authorities).map_err(FetchError::Keep)?;
    let profile = ClientProfile { ca_file: Some(file.clone()), ..ClientProfile::default() };
    let config = client_config(&profile).map_err(|error| FetchError::Trust(error.to_string()));
    // A file that stays is overwritten by a later start.
    let _ = std::fs::remove_file(&file);
    config
}

/// Gets a file and passes it on.
fn get(url: &str, config: Arc<ClientConfig>, takes: Takes<'_>, to: &mut dyn Write) -> Result<(), FetchError> {
    let wrong = || FetchError::Url(url.to_owned());
    let rest = url.strip_prefix("https://").ok_or_else(wrong)?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
    if !plain(rest) || authority.contains('@') {
        return Err(wrong());
    }
    let endpoint = Endpoint::parse(authority, Some(HTTPS_PORT)).ok_or_else(wrong)?;
    let name = ServerName::try_from(endpoint.host.clone()).map_err(|_error| wrong())?;
    let tls = ClientConnection::new(config, name).map_err(|error| FetchError::Trust(error.to_string()))?;
    let socket = connect(&endpoint).map_err(|reason| FetchError::Connect { host: endpoint.host.clone(), reason })?;
    let mut stream = StreamOwned::new(tls, socket);
    let path = if path.is_empty() { "/" } else { path };
    let request = format!("GET {path} HTTP/1.0\r\nHost: {authority}\r\nUser-Agent: vitalgate\r\nAccept-Encoding: identity\r\n\r\n");
    let asked = stream.write_all(request.as_bytes()).and_then(|()| stream.flush());
    asked.map_err(|error| unbelieved(&endpoint.host, error))?;
    answer(&mut stream, takes, to)
}

/// What went wrong while hands were shaken: the server itself, or the way to it.
fn unbelieved(host: &str, error: io::Error) -> FetchError {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(reason) => FetchError::Stranger { host: host.to_owned(), reason: reason.clone() },
        None => FetchError::Broken(error),
    }
}

fn connect(endpoint: &Endpoint) -> io::Result<TcpStream> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in (endpoint.host.as_str(), endpoint.port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, SILENCE_MAX) {
            Ok(socket) => {
                socket.set_read_timeout(Some(SILENCE_MAX))?;
                socket.set_write_timeout(Some(SILENCE_MAX))?;
                return Ok(socket);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Reads an answer: its head, then as many bytes as that says.
fn answer(from: &mut dyn Read, takes: Takes<'_>, to: &mut dyn Write) -> Result<(), FetchError> {
    let end = Instant::now() + FETCH_DEADLINE;
    let mut piece = vec![0; PIECE_BYTES];
    let mut head = Vec::new();
    let head_bytes = loop {
        if let Some(found) = head.windows(4).position(|window| window == b"\r\n\r\n") {
            break found + 4;
        }
        if head.len() > HEAD_BYTES_MAX {
            return Err(FetchError::Answer("too much".to_owned()));
        }
        let read = from.read(&mut piece).map_err(FetchError::Broken)?;
        if read == 0 {
            return Err(FetchError::Broken(io::ErrorKind::UnexpectedEof.into()));
        }
        head.extend_from_slice(piece.get(..read).unwrap_or_default());
    };
    let body = head.split_off(head_bytes);
    let length = body_length(&String::from_utf8_lossy(&head))?;
    takes(length)?;
    let mut left = length;
    let mut pass_on = |bytes: &[u8], left: &mut u64| {
        let take = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
        *left -= take as u64;
        to.write_all(bytes.get(..take).unwrap_or_default()).map_err(FetchError::Keep)
    };
    pass_on(&body, &mut left)?;
    while left > 0 {
        let read = from.read(&mut piece).map_err(FetchError::Broken)?;
        if read == 0 || Instant::now() > end {
            return Err(FetchError::Broken(io::ErrorKind::UnexpectedEof.into()));
        }
        pass_on(piece.get(..read).unwrap_or_default(), &mut left)?;
    }
    to.flush().map_err(FetchError::Keep)
}

fn body_length(head: &str) -> Result<u64, FetchError> {
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap_or_default();
    if status.split_ascii_whitespace().nth(1) != Some("200") {
        return Err(FetchError::Answer(status.chars().take(80).collect()));
    }
    let length = lines.filter_map(|line| line.split_once(':')).find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let length = length.and_then(|(_, value)| value.trim().parse().ok());
    length.ok_or_else(|| FetchError::Answer("no content-length".to_owned()))
}

#[cfg(test)]
mod tests;
