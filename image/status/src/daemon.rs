//! The daemon's own status, asked on loopback. Read leniently: a field that is missing is unknown.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;

use crate::text::plain;

/// Longest wait for the daemon's answer.
const ANSWER_DEADLINE: Duration = Duration::from_secs(3);
/// Largest answer in bytes: a full gateway's has some 300 KB.
const ANSWER_BYTES_MAX: usize = 2 * 1024 * 1024;
/// A device that is silent for longer is missing, in seconds.
pub const DEVICE_SILENT_S: u64 = 15 * 60;

/// Whether the gateway does its work.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Health {
    /// Readings are taken and stored.
    pub ready: bool,
    /// The daemon's state word.
    pub state: String,
    /// What is wrong, a line each.
    pub problems: Vec<String>,
}

/// One device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Device {
    /// The device.
    pub id: String,
    /// Its profile.
    pub profile: String,
    /// `mqtt` or `modbus`.
    pub driver: String,
    /// Seconds since its last stored reading.
    pub last_reading_age_s: Option<u64>,
    /// What its driver says of it.
    pub state: String,
    /// Whether its connection is open, where the driver knows.
    pub connected: Option<bool>,
}

/// The store.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Store {
    /// Bytes free on its file system.
    pub free_bytes: Option<u64>,
    /// Below this many free bytes nothing is acknowledged.
    pub floor_bytes: Option<u64>,
    /// Days until that at today's rate.
    pub days_left: Option<f64>,
    /// Whether that rate is known: without days nothing comes in then.
    pub rate_known: bool,
    /// Damage that was found and what was done.
    pub damage: Vec<String>,
    /// Readings that could not be understood or delivered.
    pub dead_letters: Option<u64>,
}

/// One destination.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Destination {
    /// The destination.
    pub id: String,
    /// Entries that it has not settled.
    pub queued: Option<u64>,
    /// Age of the oldest of them in seconds.
    pub oldest_age_s: Option<u64>,
    /// Seconds since it last accepted something.
    pub last_acknowledgement_age_s: Option<u64>,
    /// What stands in the way.
    pub alarm: Option<String>,
}

/// The whole status, as far as the page shows it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DaemonStatus {
    /// Version of the daemon.
    pub version: Option<String>,
    /// Name of the gateway.
    pub gateway: Option<String>,
    /// Seconds since its start.
    pub uptime_s: Option<u64>,
    /// The health.
    pub health: Health,
    /// How far its wall clock is trusted.
    pub clock_trust: Option<String>,
    /// What the configuration allows against the advice.
    pub warnings: Vec<String>,
    /// The store.
    pub store: Store,
    /// The devices.
    pub devices: Vec<Device>,
    /// The destinations.
    pub destinations: Vec<Destination>,
}

/// What is known of the daemon.
#[derive(Debug, Clone, PartialEq)]
pub enum Daemon {
    /// It answers.
    Answers(Box<DaemonStatus>),
    /// It does not.
    Silent {
        /// What happened when it was asked.
        reason: String,
        /// Seconds since it could have been expected to answer, or since its last answer.
        for_s: u64,
        /// Whether it has answered since our start.
        ever: bool,
    },
}

impl Daemon {
    /// Its status, while it answers.
    #[must_use]
    pub fn status(&self) -> Option<&DaemonStatus> {
        match self {
            Self::Answers(status) => Some(status),
            Self::Silent { .. } => None,
        }
    }
}

impl Device {
    /// Why the device counts as missing. A device without a reading yet gets
    /// [`DEVICE_SILENT_S`] from the daemon's start.
    #[must_use]
    pub fn missing(&self, uptime_s: u64) -> Option<String> {
        if self.state == "down" {
            return Some("does not answer".to_owned());
        }
        match self.last_reading_age_s {
            Some(age_s) if age_s > DEVICE_SILENT_S => Some(format!("silent for {} min", age_s / 60)),
            None if uptime_s > DEVICE_SILENT_S => Some("no reading since the start".to_owned()),
            _ => None,
        }
    }
}

/// Asks the daemon for its status.
///
/// # Errors
/// When it does not answer in time, or with anything else than a status.
pub async fn ask(address: SocketAddr) -> anyhow::Result<DaemonStatus> {
    let answer = tokio::time::timeout(ANSWER_DEADLINE, get_status(address));
    answer.await.context("no answer in time")?
}

async fn get_status(address: SocketAddr) -> anyhow::Result<DaemonStatus> {
    let stream = TcpStream::connect(address).await.context("nothing listens on loopback")?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get("/status").header(header::HOST, address.to_string()).body(Empty::<Bytes>::new())?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        if response.status() != StatusCode::OK {
            bail!("it answered {}", response.status());
        }
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        body.map(|body| body.to_bytes()).map_err(|_error| anyhow::anyhow!("its answer broke off or is too long"))
    };
    let body = tokio::select! {
        body = exchange => body?,
        closed = connection => { closed?; bail!("it closed the connection") }
    };
    let status: DaemonStatus = serde_json::from_slice(&body).context("its answer is no status")?;
    Ok(tidy(status))
}

fn tidy(mut status: DaemonStatus) -> DaemonStatus {
    for device in &mut status.devices {
        for text in [&mut device.id, &mut device.profile, &mut device.driver, &mut device.state] {
            *text = plain(text);
        }
    }
    for destination in &mut status.destinations {
        destination.id = plain(&destination.id);
        destination.alarm = destination.alarm.as_deref().map(plain);
    }
    let lists = [&mut status.warnings, &mut status.health.problems, &mut status.store.damage];
    lists.into_iter().flatten().for_each(|line| *line = plain(line));
    let words = [&mut status.version, &mut status.gateway, &mut status.clock_trust];
    words.into_iter().flatten().for_each(|word| *word = plain(word));
    status
}

#[cfg(test)]
mod tests {
    use vitalgate_console as console;

    use super::*;

    /// The page reads what the daemon writes: every field under its name.
    #[test]
    fn the_daemons_own_form_is_understood() {
        let said = console::Status {
            version: "0.1.0".into(),
            gateway: "practice-01".into(),
            uptime_s: 7,
            health: console::Health { ready: true, state: "READY".into(), problems: vec!["p".into()] },
            clock_trust: "Free".into(),
            warnings: vec!["w".into()],
            store: serde_json::from_value(serde_json::json!({
                "committed": 1, "keyed_applied": 1, "keyed_checkpointed": 1, "keyed_state": "running", "free_bytes": 9,
                "floor_bytes": 8, "journal_bytes": 1, "days_left": 1.5, "rate_known": true, "damage": ["d"], "dead_letters": 3
            }))
            .unwrap(),
            devices: serde_json::from_value(serde_json::json!([
                {"id": "m", "profile": "p", "driver": "mqtt", "last_reading_age_s": 4, "state": "seen"}
            ]))
            .unwrap(),
            destinations: serde_json::from_value(serde_json::json!([
                {"id": "ehr", "queued": 2, "oldest_age_s": 3, "last_acknowledgement_age_s": 5, "alarm": "a"}
            ]))
            .unwrap(),
        };
        let read: DaemonStatus = serde_json::from_slice(&serde_json::to_vec(&said).unwrap()).unwrap();
        assert_eq!((read.version.as_deref(), read.gateway.as_deref(), read.uptime_s), (Some("0.1.0"), Some("practice-01"), Some(7)));
        assert_eq!(read.health, Health { ready: true, state: "READY".into(), problems: vec!["p".into()] });
        assert_eq!((read.clock_trust.as_deref(), read.warnings.len()), (Some("Free"), 1));
        let store = &read.store;
        assert_eq!((store.free_bytes, store.floor_bytes, store.days_left), (Some(9), Some(8), Some(1.5)));
        assert_eq!((store.damage.len(), store.dead_letters, store.rate_known), (1, Some(3), true));
        let device = &read.devices[0];
        assert_eq!((device.id.as_str(), device.last_reading_age_s, device.state.as_str()), ("m", Some(4), "seen"));
        let destination = &read.destinations[0];
        assert_eq!((destination.queued, destination.oldest_age_s), (Some(2), Some(3)));
        assert_eq!((destination.last_acknowledgement_age_s, destination.alarm.as_deref()), (Some(5), Some("a")));
    }

    /// A device gets its time to appear; a poller that gave up does not.
    #[test]
    fn a_device_is_missing_when_it_is_silent_for_long() {
        let device = |age_s: Option<u64>, state: &str| Device { last_reading_age_s: age_s, state: state.into(), ..Device::default() };
        assert_eq!(device(Some(DEVICE_SILENT_S), "seen").missing(9_999), None);
        assert!(device(Some(DEVICE_SILENT_S + 1), "seen").missing(9_999).is_some());
        assert_eq!(device(None, "waiting").missing(DEVICE_SILENT_S), None);
        assert!(device(None, "waiting").missing(DEVICE_SILENT_S + 1).is_some());
        assert!(device(Some(1), "down").missing(10).is_some());
    }
}
