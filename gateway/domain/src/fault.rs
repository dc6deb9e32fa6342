//! A fault says where it happened, whose it is, and whether trying again can help.

use serde::{Deserialize, Serialize};

/// The stop on a reading's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Stage {
    /// Taking bytes from a device.
    Acquire,
    /// Reading them by a profile.
    Decode,
    /// Admitting the readings.
    Admit,
    /// Writing them to disk.
    Commit,
    /// Sending them to a destination.
    Deliver,
}

/// Whose fault it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Origin {
    /// The device.
    Device,
    /// This gateway.
    Local,
    /// The destination or the way to it.
    Destination,
}

/// Whether trying again can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Permanence {
    /// It may pass.
    Transient,
    /// It will be the same next time.
    Permanent,
}

/// A classified fault. Decisions match on it, never on text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Fault {
    /// Where.
    pub stage: Stage,
    /// Whose.
    pub origin: Origin,
    /// Whether a retry can help.
    pub permanence: Permanence,
    /// Place and remedy, without values or patient data.
    pub detail: String,
}
