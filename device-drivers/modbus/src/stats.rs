//! What the poller tells of itself.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use vitalgate_domain::DeviceId;

use crate::fault::PollFault;

/// Failures in a row after which a device counts as down.
const DOWN_AFTER: u32 = 3;
/// Borders of the response times, in seconds.
const RESPONSE_SECONDS: [f64; 9] = [0.001, 0.002, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 5.0];

/// How a device is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceState {
    /// Not polled yet.
    Waiting,
    /// The last poll counted in full.
    Ok,
    /// The last poll counted in part, or did not count, for the first times in a row.
    Degraded(PollFault),
    /// It cannot be reached, or several polls in a row did not count.
    Down(PollFault),
}

impl DeviceState {
    /// One word for status and logs.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Ok => "ok",
            Self::Degraded(_) => "degraded",
            Self::Down(_) => "down",
        }
    }

    /// What is wrong.
    #[must_use]
    pub fn fault(self) -> Option<PollFault> {
        match self {
            Self::Waiting | Self::Ok => None,
            Self::Degraded(fault) | Self::Down(fault) => Some(fault),
        }
    }
}

/// A device's state with its recent past.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceStatus {
    /// How it is doing.
    pub state: DeviceState,
    /// When the last poll counted, in milliseconds since power-on.
    pub last_success_monotonic_ms: Option<u64>,
    /// Polls in a row that did not count.
    pub failures: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfDevice {
    device: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfPoll {
    device: String,
    outcome: String,
}

#[derive(Debug)]
struct Inner {
    polls: Family<OfPoll, Counter>,
    up: Family<OfDevice, Gauge>,
    readings: Counter,
    connections: Counter,
    response_seconds: Histogram,
    devices: Mutex<BTreeMap<DeviceId, DeviceStatus>>,
}

/// Counters and states of every bus; clones share them.
#[derive(Debug, Clone)]
pub struct ModbusStats(Arc<Inner>);

impl Default for ModbusStats {
    fn default() -> Self {
        Self(Arc::new(Inner {
            polls: Family::default(),
            up: Family::default(),
            readings: Counter::default(),
            connections: Counter::default(),
            response_seconds: Histogram::new(RESPONSE_SECONDS),
            devices: Mutex::default(),
        }))
    }
}

impl ModbusStats {
    /// Adds the metrics to a registry.
    pub fn register(&self, registry: &mut Registry) {
        let inner = &self.0;
        registry.register("modbus_polls", "Polls of a device by outcome; committed is the one that counts", inner.polls.clone());
        registry.register("modbus_device_up", "1 while the device's last poll counted in full", inner.up.clone());
        registry.register("modbus_readings", "Readings that were committed", inner.readings.clone());
        registry.register("modbus_connections", "Connections that were opened", inner.connections.clone());
        let help = "Time from the question to the last answer of a poll, in seconds";
        registry.register("modbus_response_seconds", help, inner.response_seconds.clone());
    }

    /// Every device that is or was polled, by name.
    #[must_use]
    pub fn devices(&self) -> Vec<(DeviceId, DeviceStatus)> {
        self.locked(|devices| devices.iter().map(|(device, status)| (device.clone(), *status)).collect())
    }

    /// One device; `None` where it is not polled.
    #[must_use]
    pub fn device(&self, device: &DeviceId) -> Option<DeviceStatus> {
        self.locked(|devices| devices.get(device).copied())
    }

    fn locked<T>(&self, look: impl FnOnce(&mut BTreeMap<DeviceId, DeviceStatus>) -> T) -> T {
        look(&mut self.0.devices.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn set(&self, device: &DeviceId, change: impl FnOnce(&mut DeviceStatus)) {
        let waiting = DeviceStatus { state: DeviceState::Waiting, last_success_monotonic_ms: None, failures: 0 };
        let (before, after) = self.locked(|devices| {
            let status = devices.entry(device.clone()).or_insert(waiting);
            let before = status.state;
            change(status);
            (before, status.state)
        });
        self.0.up.get_or_create(&OfDevice { device: device.to_string() }).set(i64::from(after == DeviceState::Ok));
        if before != after {
            match after.fault() {
                Some(fault) => tracing::warn!(%device, state = after.word(), reason = fault.word(), "{fault}"),
                None => tracing::info!(%device, state = after.word(), "Modbus device"),
            }
        }
    }

    fn count(&self, device: &DeviceId, outcome: &str) {
        self.0.polls.get_or_create(&OfPoll { device: device.to_string(), outcome: outcome.to_owned() }).inc();
    }

    pub(crate) fn waiting(&self, device: &DeviceId) {
        self.set(device, |_| {});
    }

    pub(crate) fn connected(&self) {
        self.0.connections.inc();
    }

    pub(crate) fn responded(&self, took: Duration) {
        self.0.response_seconds.observe(took.as_secs_f64());
    }

    pub(crate) fn committed(&self, device: &DeviceId, readings: usize, monotonic_ms: u64, in_part: Option<PollFault>) {
        self.count(device, "committed");
        self.0.readings.inc_by(u64::try_from(readings).unwrap_or_default());
        self.set(device, |status| {
            status.failures = 0;
            status.last_success_monotonic_ms = Some(monotonic_ms);
            status.state = in_part.map_or(DeviceState::Ok, DeviceState::Degraded);
        });
    }

    pub(crate) fn failed(&self, device: &DeviceId, fault: PollFault) {
        self.count(device, fault.word());
        self.set(device, |status| {
            status.failures = status.failures.saturating_add(1);
            let at_once = matches!(fault, PollFault::Unreachable | PollFault::Profile | PollFault::WrongDevice);
            let down = at_once || status.failures >= DOWN_AFTER;
            status.state = if down { DeviceState::Down(fault) } else { DeviceState::Degraded(fault) };
        });
    }
}
