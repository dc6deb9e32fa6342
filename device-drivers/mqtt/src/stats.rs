//! What the endpoint counts.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::time::Instant;
use vitalgate_domain::DeviceId;

use crate::bucket::Bucket;
use crate::limits::{REFUSAL_LINES_BURST, REFUSAL_LINES_PER_SECOND_MAX};
use crate::refusal::Refusal;

/// Why connections were refused or ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

/// The counters of the endpoint; clones share them.
#[derive(Debug, Clone, Default)]
pub struct MqttStats(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    connections: Gauge,
    connected: Counter,
    refused: Family<Reason, Counter>,
    messages: Counter,
    bytes: Counter,
    acknowledged: Counter,
    unreadable: Counter,
    throttled: Counter,
    oversize: Counter,
    /// When each device was last heard, in monotonic ms. Only admitted devices get a place.
    heard: Mutex<HashMap<DeviceId, Arc<AtomicU64>>>,
    lines: Mutex<Option<Lines>>,
}

#[derive(Debug)]
struct Lines {
    bucket: Bucket,
    suppressed: u64,
}

/// What one connection counted since it last added it here.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
    pub(crate) acknowledged: u64,
    pub(crate) unreadable: u64,
}

impl MqttStats {
    /// Registers every metric; call it with a registry that prefixes the product's name.
    pub fn register(&self, registry: &mut Registry) {
        let shared = &self.0;
        registry.register("mqtt_connections", "Devices connected now", shared.connections.clone());
        registry.register("mqtt_connects", "Connections taken", shared.connected.clone());
        registry.register("mqtt_refused", "Connections refused or ended by the gateway, by reason", shared.refused.clone());
        registry.register("mqtt_messages", "Messages received", shared.messages.clone());
        registry.register("mqtt_payload_bytes", "Payload bytes received", shared.bytes.clone());
        registry.register("mqtt_acknowledged", "Messages committed and acknowledged, or committed at QoS 0", shared.acknowledged.clone());
        registry.register("mqtt_unreadable", "Messages that became dead letters at decoding", shared.unreadable.clone());
        registry.register("mqtt_throttled", "Times that reading from a device paused for its rate", shared.throttled.clone());
        registry.register("mqtt_oversize", "Packets refused for their size", shared.oversize.clone());
    }

    /// When the device was last heard, in monotonic ms as the clock given to the endpoint counts;
    /// `None` if it never connected since start.
    #[must_use]
    pub fn last_heard_ms(&self, device: &DeviceId) -> Option<u64> {
        let heard = self.0.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.get(device).map(|at| at.load(Ordering::Relaxed))
    }

    /// Devices connected now.
    #[must_use]
    pub fn connections(&self) -> i64 {
        self.0.connections.get()
    }

    /// Messages received since start.
    #[must_use]
    pub fn messages(&self) -> u64 {
        self.0.messages.get()
    }

    /// Messages committed since start.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.0.acknowledged.get()
    }

    /// Messages that became dead letters at decoding since start.
    #[must_use]
    pub fn unreadable(&self) -> u64 {
        self.0.unreadable.get()
    }

    /// Times that a device was throttled since start.
    #[must_use]
    pub fn throttled(&self) -> u64 {
        self.0.throttled.get()
    }

    /// Connections refused or ended since start for the reason with this label.
    #[must_use]
    pub fn refused(&self, reason: &str) -> u64 {
        ALL_REASONS.iter().find(|refusal| refusal.label() == reason).map_or(0, |refusal| {
            let labels = Reason { reason: refusal.label() };
            self.0.refused.get(&labels).map_or(0, |counter| counter.get())
        })
    }

    pub(crate) fn heard_of(&self, device: &DeviceId) -> Arc<AtomicU64> {
        let mut heard = self.0.heard.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(heard.entry(device.clone()).or_default())
    }

    pub(crate) fn opened(&self) {
        self.0.connected.inc();
        self.0.connections.inc();
    }

    pub(crate) fn closed(&self) {
        self.0.connections.dec();
    }

    pub(crate) fn throttle(&self) {
        self.0.throttled.inc();
    }

    /// Adds and empties a connection's tally.
    pub(crate) fn add(&self, tally: &mut Tally) {
        let taken = std::mem::take(tally);
        for (counter, amount) in [
            (&self.0.messages, taken.messages),
            (&self.0.bytes, taken.bytes),
            (&self.0.acknowledged, taken.acknowledged),
            (&self.0.unreadable, taken.unreadable),
        ] {
            if amount > 0 {
                counter.inc_by(amount);
            }
        }
    }

    /// Counts a refusal; `Some` if it may be logged, with how many lines were left out before it.
    pub(crate) fn refuse(&self, refusal: Refusal) -> Option<u64> {
        self.0.refused.get_or_create(&Reason { reason: refusal.label() }).inc();
        if refusal == Refusal::Oversize {
            self.0.oversize.inc();
        }
        let now = Instant::now();
        let mut lines = self.0.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = lines
            .get_or_insert_with(|| Lines { bucket: Bucket::new(REFUSAL_LINES_PER_SECOND_MAX, REFUSAL_LINES_BURST, now), suppressed: 0 });
        if lines.bucket.wait_for(1, now).is_some() {
            lines.suppressed += 1;
            return None;
        }
        lines.bucket.take(1);
        Some(std::mem::take(&mut lines.suppressed))
    }
}

const ALL_REASONS: [Refusal; 24] = [
    Refusal::Malformed,
    Refusal::Protocol,
    Refusal::Version,
    Refusal::Oversize,
    Refusal::TopicAlias,
    Refusal::Authentication,
    Refusal::ReceiveMaximum,
    Refusal::NoClientId,
    Refusal::ForeignClientId,
    Refusal::Credentials,
    Refusal::NotAdmitted,
    Refusal::ForeignTopic,
    Refusal::SecondClient,
    Refusal::ConnectRate,
    Refusal::Full,
    Refusal::GreetingsFull,
    Refusal::Handshake,
    Refusal::Greeting,
    Refusal::PartialPacket,
    Refusal::KeepAlive,
    Refusal::GaveWay,
    Refusal::SlowReader,
    Refusal::StorageFull,
    Refusal::Stopping,
];
