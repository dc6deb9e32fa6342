//! Asking the daemon on the loopback how it is.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde::Deserialize;

/// How long the daemon may take to answer.
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);
/// Longest answer, in bytes.
const ANSWER_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// What the daemon says of itself, as far as the gate asks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Status {
    /// Seconds since its start.
    #[serde(default)]
    pub(crate) uptime_s: u64,
    /// Whether it does its work.
    #[serde(default)]
    pub(crate) health: Health,
    /// The devices.
    #[serde(default)]
    pub(crate) devices: Vec<Device>,
    /// The destinations.
    #[serde(default)]
    pub(crate) destinations: Vec<Destination>,
}

/// Whether the daemon does its work.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Health {
    /// Readings are taken and stored.
    #[serde(default)]
    pub(crate) ready: bool,
    /// Its state word.
    #[serde(default)]
    pub(crate) state: String,
}

/// One device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Device {
    /// The device.
    pub(crate) id: String,
    /// Seconds since its last reading.
    #[serde(default)]
    pub(crate) last_reading_age_s: Option<u64>,
}

/// One destination.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Destination {
    /// The destination.
    pub(crate) id: String,
    /// Entries that it has not settled.
    #[serde(default)]
    pub(crate) queued: u64,
    /// Seconds since it last accepted something.
    #[serde(default)]
    pub(crate) last_acknowledgement_age_s: Option<u64>,
    /// Readings that it refused since the start.
    #[serde(default)]
    pub(crate) refused_readings: u64,
    /// What stands in the way.
    #[serde(default)]
    pub(crate) alarm: Option<String>,
}

/// Asks `/status`.
///
/// # Errors
/// When nobody answers, or what answers is not the daemon.
pub(crate) fn status(address: &str) -> io::Result<Status> {
    let address: SocketAddr = address.parse().map_err(io::Error::other)?;
    let mut stream = TcpStream::connect_timeout(&address, ANSWER_DEADLINE)?;
    stream.set_read_timeout(Some(ANSWER_DEADLINE))?;
    stream.set_write_timeout(Some(ANSWER_DEADLINE))?;
    // HTTP/1.0: the answer comes in one piece and ends with the connection.
    stream.write_all(b"GET /status HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    parse(&answer)
}

fn parse(answer: &[u8]) -> io::Result<Status> {
    let no_answer = || io::Error::new(io::ErrorKind::InvalidData, "no answer of the daemon");
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").ok_or_else(no_answer)?;
    let head = String::from_utf8_lossy(answer.get(..end).unwrap_or_default());
    if head.split_ascii_whitespace().nth(1) != Some("200") {
        return Err(no_answer());
    }
    serde_json::from_slice(answer.get(end + 4..).unwrap_or_default()).map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fields that the daemon adds later do not stop the gate, and garbage is an error.
    #[test]
    fn an_answer_is_read_as_far_as_it_matters() {
        let body = br#"{"version":"0.1.0","uptime_s":12,"health":{"ready":true,"state":"READY","problems":[]},
            "devices":[{"id":"m-1","profile":"p","driver":"mqtt","last_reading_age_s":3,"state":"seen"},{"id":"m-2","last_reading_age_s":null}],
            "destinations":[{"id":"ehr","queued":7,"oldest_age_s":1,"last_acknowledgement_age_s":null,"alarm":"refused"}]}"#;
        let status = parse(&[b"HTTP/1.0 200 OK\r\ncontent-type: application/json\r\n\r\n".as_slice(), body].concat()).unwrap();
        assert!(status.health.ready && status.uptime_s == 12);
        assert_eq!(status.devices.iter().map(|device| device.last_reading_age_s).collect::<Vec<_>>(), [Some(3), None]);
        assert_eq!(status.destinations[0].alarm.as_deref(), Some("refused"));
        for garbage in [&b""[..], b"HTTP/1.0 503 x\r\n\r\n{}", b"HTTP/1.0 200 OK\r\n\r\n", b"\r\n\r\n{}", b"HTTP/1.0 200 OK\r\n\r\n[1"] {
            assert!(parse(garbage).is_err(), "{garbage:?}");
        }
    }
}
