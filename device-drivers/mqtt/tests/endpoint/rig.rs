//! An endpoint on a loopback port, with a commit that a test controls.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use vitalgate_domain::{
    BootId, ClockTrust, DeadLetterKind, DeadLetterReason, DecodedReading, DecodedSample, DeviceEventKind, DeviceId, Flags, Metric,
    NoReading, RawSample, Received, SourceIdentity, UnixMs, Value,
};
use vitalgate_intake::{IntakeQueue, Receipt, Submission, Submitted, intake};
use vitalgate_mqtt::{Credentials, Endpoint, EndpointConfig, MqttStats, PeerIdentity, Shown};

/// Within this everything that a test waits for has happened.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Devices whose id begins so are configured.
pub(crate) const CONFIGURED: &str = "monitor-";

/// What the devices' credentials say; a test may change it.
#[derive(Default)]
pub(crate) struct Book {
    pub(crate) revoked: Mutex<HashSet<String>>,
    pub(crate) passwords: Mutex<HashMap<String, Vec<u8>>>,
    stamps: RandomState,
}

impl Book {
    fn stamp(&self, device: &DeviceId) -> Option<[u8; 32]> {
        let number = self.stamps.hash_one(self.passwords.lock().unwrap().get(device.as_str())?);
        let mut stamp = [0; 32];
        stamp[..8].copy_from_slice(&number.to_be_bytes());
        Some(stamp)
    }
}

impl Credentials for Book {
    fn verify_password(&self, device: &DeviceId, password: &[u8]) -> Option<[u8; 32]> {
        let right = self.passwords.lock().unwrap().get(device.as_str()).is_some_and(|known| known == password);
        self.stamp(device).filter(|_| right)
    }
    fn is_admitted(&self, device: &DeviceId, shown: &Shown) -> bool {
        let counts = match shown {
            Shown::Password(stamp) => self.stamp(device).as_ref() == Some(stamp),
            Shown::Nothing | Shown::Certificate(_) => true,
        };
        counts && device.as_str().starts_with(CONFIGURED) && !self.revoked.lock().unwrap().contains(device.as_str())
    }
}

/// A running endpoint.
pub(crate) struct Rig {
    pub(crate) address: SocketAddr,
    pub(crate) stats: MqttStats,
    pub(crate) book: Arc<Book>,
    pub(crate) stop: watch::Sender<bool>,
    pub(crate) served: JoinHandle<()>,
}

fn received(begun: Instant) -> Received {
    let monotonic_ms = u64::try_from(begun.elapsed().as_millis()).unwrap() + 1;
    Received { wall: UnixMs(1_795_341_600_120), monotonic_ms, boot: BootId::from_bytes([1; 16]), trust: ClockTrust::Synchronised }
}

/// Keeps the payload as the reading's identity, so that a test sees what was submitted. `garbage` is
/// unreadable, and a device named `...-unknown` has no profile.
fn decode(device: &DeviceId, sample: RawSample) -> Option<DecodedSample> {
    if device.as_str().ends_with("-unknown") {
        return None;
    }
    let text: Arc<str> = Arc::from(String::from_utf8_lossy(&sample.bytes));
    let unreadable =
        sample.bytes.starts_with(b"garbage").then(|| (DeadLetterReason::new(DeadLetterKind::Undecodable, "garbage"), sample.bytes.clone()));
    let reading = DecodedReading {
        metric: Metric::ALL[0],
        slot: 0,
        value: Value::Absent(NoReading::NotAvailable),
        reported: None,
        device_time: None,
        identity: SourceIdentity::Time(text),
        flags: Flags::default(),
    };
    let readings = if unreadable.is_some() { Vec::new() } else { vec![reading] };
    let RawSample { device, channel, received, .. } = sample;
    Some(DecodedSample { device, channel, received, readings, payload: Vec::new(), unreadable })
}

impl Rig {
    /// An endpoint with a plain listener, and the commit's end of its queue.
    pub(crate) async fn plain(config: EndpointConfig) -> (Self, IntakeQueue) {
        Self::start(config, "127.0.0.1:0", None).await
    }

    /// An endpoint with a plain listener that other machines can reach too.
    pub(crate) async fn plain_beyond_loopback(config: EndpointConfig) -> (Self, IntakeQueue) {
        Self::start(config, "0.0.0.0:0", None).await
    }

    /// An endpoint with a TLS listener.
    pub(crate) async fn tls(
        config: EndpointConfig,
        tls: Arc<tokio_rustls::rustls::ServerConfig>,
        peer: PeerIdentity,
    ) -> (Self, IntakeQueue) {
        Self::start(config, "127.0.0.1:0", Some((tls, peer))).await
    }

    async fn start(
        config: EndpointConfig,
        listen: &str,
        tls: Option<(Arc<tokio_rustls::rustls::ServerConfig>, PeerIdentity)>,
    ) -> (Self, IntakeQueue) {
        let (intake, queue) = intake();
        let (book, stats, begun) = (Arc::new(Book::default()), MqttStats::default(), Instant::now());
        let clock = Arc::new(move || received(begun));
        let credentials: Arc<dyn Credentials> = Arc::clone(&book) as Arc<dyn Credentials>;
        let endpoint = Arc::new(Endpoint::new(config, intake, Arc::new(decode), credentials, clock, stats.clone()));
        let listener = TcpListener::bind(listen).await.unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], listener.local_addr().unwrap().port()));
        let (stop, shutdown) = watch::channel(false);
        let served = match tls {
            None => tokio::spawn(endpoint.serve_plain(listener, shutdown)),
            Some((tls, peer)) => tokio::spawn(endpoint.serve_tls(listener, tls, peer, shutdown)),
        };
        (Self { address, stats, book, stop, served }, queue)
    }

    /// Waits until the metric for refusals with this reason has the value.
    pub(crate) async fn refused(&self, reason: &str, times: u64) {
        eventually(&format!("{times} refusals for {reason}"), || self.stats.refused(reason) >= times).await;
        assert_eq!(self.stats.refused(reason), times, "{reason}");
    }
}

/// Waits until the condition holds.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let mut tick = tokio::time::interval(Duration::from_millis(5));
    let waiting = async {
        while !condition() {
            tick.tick().await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, waiting).await.is_ok(), "never came: {what}");
}

/// What was submitted, as a test speaks of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Seen {
    Reading { device: String, channel: String, text: String },
    DeadLetter { device: String, kind: DeadLetterKind, bytes: Vec<u8> },
    Event { device: String, kind: DeviceEventKind },
}

/// Says what was submitted.
pub(crate) fn seen(submitted: &Submitted) -> Seen {
    match submitted {
        Submitted::Event(event) => Seen::Event { device: event.device.to_string(), kind: event.kind },
        Submitted::Sample(sample) => match (&sample.unreadable, sample.readings.first()) {
            (Some((reason, bytes)), _) => Seen::DeadLetter { device: sample.device.to_string(), kind: reason.kind, bytes: bytes.clone() },
            (None, reading) => {
                let text = match reading.map(|reading| &reading.identity) {
                    Some(SourceIdentity::Time(text)) => text.to_string(),
                    _ => String::new(),
                };
                Seen::Reading { device: sample.device.to_string(), channel: sample.channel.to_string(), text }
            }
        },
    }
}

/// The next submission that is a sample; events before it are committed.
pub(crate) async fn next_sample(queue: &mut IntakeQueue) -> Submission {
    loop {
        let submission = tokio::time::timeout(PATIENCE, queue.next()).await.expect("no sample came").unwrap();
        if matches!(submission.submitted, Submitted::Sample(_)) {
            return submission;
        }
        submission.answer(Receipt::Committed);
    }
}

/// The next event; nothing else may come before it.
pub(crate) async fn next_event(queue: &mut IntakeQueue) -> Seen {
    let submission = tokio::time::timeout(PATIENCE, queue.next()).await.expect("no event came").unwrap();
    let seen = seen(&submission.submitted);
    assert!(matches!(seen, Seen::Event { .. }), "{seen:?} came before the event");
    submission.answer(Receipt::Committed);
    seen
}

/// Commits everything at once, and keeps what it saw.
pub(crate) fn commit_all(mut queue: IntakeQueue) -> Arc<Mutex<Vec<Seen>>> {
    let log = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&log);
    tokio::spawn(async move {
        while let Some(submission) = queue.next().await {
            kept.lock().unwrap().push(seen(&submission.submitted));
            submission.answer(Receipt::Committed);
        }
    });
    log
}

/// The texts of the readings of one device, in order.
pub(crate) fn texts(log: &Mutex<Vec<Seen>>, of: &str) -> Vec<String> {
    let log = log.lock().unwrap();
    log.iter()
        .filter_map(|seen| match seen {
            Seen::Reading { device, text, .. } if device == of => Some(text.clone()),
            _ => None,
        })
        .collect()
}
