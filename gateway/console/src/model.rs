//! The read model: what may be asked, and what is answered.

use serde::{Deserialize, Serialize};
use vitalgate_domain::{DeviceId, ReadingId, UnixMs};

/// Most dead letters in one answer.
pub const DEAD_LETTERS_PER_ANSWER_MAX: usize = 1_000;
/// Most readings and dead letters in one trace answer.
pub const TRACES_PER_ANSWER_MAX: usize = 200;
/// Widest window a trace may ask for, in milliseconds before and after the moment (one day).
pub const TRACE_WINDOW_MS_MAX: u64 = 86_400_000;
/// Most ranges of lost entries that a trace answer names; the others are counted.
pub const LOST_RANGES_PER_ANSWER_MAX: usize = 20;

/// Whether the gateway does its work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Readings are taken and stored.
    pub ready: bool,
    /// One state word: `READY`, `STARTING`, `DEGRADED`, `OFFLINE-BUFFERING`, `STORE-FULL`, `STOPPING`.
    pub state: String,
    /// What is wrong, a line each.
    pub problems: Vec<String>,
}

/// One device, without its readings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceStatus {
    /// The device.
    pub id: String,
    /// Its profile.
    pub profile: String,
    /// `mqtt` or `modbus`.
    pub driver: String,
    /// Whether it is connected now; absent for a device that is polled.
    #[serde(default)]
    pub connected: Option<bool>,
    /// Seconds since its last stored reading came; absent when there was none since the start.
    pub last_reading_age_s: Option<u64>,
    /// What its driver says of it.
    pub state: String,
}

/// The store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoreStatus {
    /// Last committed sequence.
    pub committed: u64,
    /// Last sequence that the keyed side holds.
    pub keyed_applied: u64,
    /// Last sequence that a checkpoint of the keyed side covers.
    pub keyed_checkpointed: u64,
    /// State of the keyed side.
    pub keyed_state: String,
    /// Bytes free on its file system.
    pub free_bytes: u64,
    /// Below this many free bytes nothing is acknowledged.
    pub floor_bytes: u64,
    /// Bytes of the journal.
    pub journal_bytes: u64,
    /// Days until the floor at the rate of the last day, or since the start when that is shorter, the buffer's growth counted in;
    /// absent while no rate is known, or nothing grows.
    pub days_left: Option<f64>,
    /// Whether a rate is known: absent days mean then that nothing grows.
    #[serde(default)]
    pub rate_known: bool,
    /// Damage that was found and what was done, a line each.
    pub damage: Vec<String>,
    /// Unresolved dead letters, held and rejected readings included.
    pub dead_letters: u64,
}

/// One destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DestinationStatus {
    /// The destination.
    pub id: String,
    /// Entries that it has not settled.
    pub queued: u64,
    /// Age of the oldest unsettled entry in seconds; absent when there is none, or when no clock can tell.
    pub oldest_age_s: Option<u64>,
    /// Seconds since it last accepted something; absent when it did not since the start.
    pub last_acknowledgement_age_s: Option<u64>,
    /// Readings that it refused since the start.
    #[serde(default)]
    pub refused_readings: u64,
    /// What stands in the way, without patient data.
    pub alarm: Option<String>,
}

/// The whole status.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the daemon.
    pub version: String,
    /// Name of the gateway.
    pub gateway: String,
    /// Seconds since the start.
    pub uptime_s: u64,
    /// The health.
    pub health: Health,
    /// How far the wall clock is trusted.
    pub clock_trust: String,
    /// What the configuration allows and may still not be meant (plain MQTT, no device and the like).
    pub warnings: Vec<String>,
    /// The store.
    pub store: StoreStatus,
    /// The devices.
    pub devices: Vec<DeviceStatus>,
    /// The destinations.
    pub destinations: Vec<DestinationStatus>,
}

/// Which reading is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TraceQuery {
    /// This one.
    Id(ReadingId),
    /// Those of a device around a moment.
    Device {
        /// The device.
        device: DeviceId,
        /// The moment.
        at: UnixMs,
        /// Milliseconds before and after it.
        window_ms: u64,
    },
}

/// Where a reading stands with one destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeliveryState {
    /// Waiting to be sent or under way.
    Queued,
    /// The destination has it.
    Delivered,
    /// Refused or held; the reason says why.
    DeadLetter,
    /// Was refused or held for the reason given, and the dead letter was replayed or discarded since.
    Resolved,
    /// Settled; whether it was taken or refused is not at hand just now.
    Unknown,
}

/// One destination in a trace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceDestination {
    /// The destination.
    pub destination: String,
    /// How it stands.
    pub state: DeliveryState,
    /// The id that the destination knows it by.
    pub remote_id: Option<String>,
    /// Why it is, or was, a dead letter there.
    pub reason: Option<String>,
}

/// Where one reading is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// Its identity.
    pub reading_id: String,
    /// Its place in our order.
    pub sequence: u64,
    /// The device.
    pub device: String,
    /// The metric's key.
    pub metric: String,
    /// The moment, RFC 3339; absent while it is unknown.
    pub at: Option<String>,
    /// When it was received, RFC 3339.
    pub received: String,
    /// Whether the clock was set then; otherwise nobody knows when that was.
    pub dated: bool,
    /// In which copies it is: `journal`, `buffer`.
    pub stored_in: Vec<String>,
    /// How it stands with each destination.
    pub destinations: Vec<TraceDestination>,
    /// As a dead letter: whether it was replayed or discarded, and by whom.
    #[serde(default)]
    pub resolved: Option<String>,
}

/// A message that did not become a reading.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TracedDeadLetter {
    /// What it is, and why.
    #[serde(flatten)]
    pub letter: DeadLetterView,
    /// Nobody has replayed or discarded it yet.
    pub unresolved: bool,
    /// Whether it was replayed or discarded, and by whom, as far as that is still known.
    pub resolved: Option<String>,
}

/// What a trace found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traced {
    /// The readings.
    pub readings: Vec<Trace>,
    /// The messages that did not become readings.
    pub dead_letters: Vec<TracedDeadLetter>,
    /// The window may hold more; these are the nearest to the moment.
    pub cut: bool,
    /// Of the newest [`DEAD_LETTERS_PER_ANSWER_MAX`] dead letters, how many are of the device and came while no clock was set:
    /// no moment finds them.
    #[serde(default)]
    pub undated: u64,
    /// Numbers below this one could not be searched in time; absent when everything was searched.
    pub not_searched_below: Option<u64>,
    /// How many entries cannot be read in any copy; what was asked for may be among them.
    pub lost_entries: u64,
    /// Their numbers, from and to, the oldest first; at most [`LOST_RANGES_PER_ANSWER_MAX`] ranges.
    pub lost: Vec<(u64, u64)>,
}

/// One dead letter in a list, without its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetterView {
    /// Its place in our order.
    pub sequence: u64,
    /// The device.
    pub device: String,
    /// What was observed; absent when it never became a reading.
    #[serde(default)]
    pub metric: Option<String>,
    /// When it was received, RFC 3339.
    pub received: String,
    /// Whether the clock was set then; otherwise nobody knows when that was.
    #[serde(default)]
    pub dated: bool,
    /// The kind.
    pub kind: String,
    /// Further kinds, where destinations refused it for different reasons.
    #[serde(default)]
    pub other_kinds: Vec<String>,
    /// Place and remedy.
    pub detail: String,
    /// The destination that refused it; absent when it never became a reading.
    pub destination: Option<String>,
}

/// What is to be done with dead letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Resolution {
    /// Change nothing, and say which a discarding would take.
    Count,
    /// Decode, admit and send them again.
    Replay,
    /// Keep them on record as discarded.
    Discard,
}

impl Resolution {
    /// What was done.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Count => "counted",
            Self::Replay => "replayed",
            Self::Discard => "discarded",
        }
    }
}

/// Which dead letters, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolveRequest {
    /// Their places; empty means all that are unresolved, as many as one request takes, the oldest first.
    pub sequences: Vec<u64>,
    /// Of all only those from the first to the last of these places.
    #[serde(default)]
    pub among: Option<(u64, u64)>,
    /// What to do.
    pub resolution: Resolution,
    /// Who wants it, at most [`RESOLVED_BY_BYTES_MAX`](vitalgate_domain::dead_letter::RESOLVED_BY_BYTES_MAX) bytes in one line; absent: the
    /// administrator.
    #[serde(default)]
    pub by: Option<String>,
}

impl ResolveRequest {
    /// What is kept with what it resolves.
    #[must_use]
    pub fn note(&self) -> String {
        format!("{} by {}", self.resolution.word(), self.by.as_deref().unwrap_or("the administrator"))
    }
}

/// How many dead letters were resolved.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answered {
    /// Resolved now.
    pub resolved: u64,
    /// Still dead letters, or dead letters again.
    pub remaining: u64,
    /// Those that were resolved or counted: what was asked for, and what goes along with it, as the parts of a panel do.
    #[serde(default)]
    pub places: Vec<u64>,
    /// Between these places lie those that this request did not come to; to be asked for next.
    #[serde(default)]
    pub not_reached: Option<(u64, u64)>,
}

/// Why a question has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadModelError {
    /// The store could not be asked.
    #[error("the store could not be asked: {0}; see the log, and `vitalgate store check` when the daemon is stopped")]
    Store(String),
    /// The gateway is stopping.
    #[error("the gateway is stopping")]
    Stopping,
}

/// What the daemon knows, asked by the listeners. Calls may block for a store read.
pub trait ReadModel: Send + Sync + 'static {
    /// Whether the gateway does its work.
    fn health(&self) -> Health;
    /// The whole status.
    fn status(&self) -> Status;
    /// Metrics in the OpenMetrics text format.
    fn metrics(&self) -> String;
    /// Where readings are; at most [`TRACES_PER_ANSWER_MAX`], those nearest to the moment.
    ///
    /// # Errors
    /// When the store cannot be asked.
    fn trace(&self, query: &TraceQuery) -> Result<Traced, ReadModelError>;
    /// The newest unresolved dead letters, the newest first, or the oldest from a place on, the oldest first; at most
    /// [`DEAD_LETTERS_PER_ANSWER_MAX`].
    ///
    /// # Errors
    /// When the store cannot be asked.
    fn dead_letters(&self, from: Option<u64>) -> Result<Vec<DeadLetterView>, ReadModelError>;
    /// Replays or discards dead letters; returns when that is durable.
    ///
    /// # Errors
    /// When the store cannot be asked or the gateway is stopping.
    fn resolve(&self, request: &ResolveRequest) -> Result<Answered, ReadModelError>;
}
