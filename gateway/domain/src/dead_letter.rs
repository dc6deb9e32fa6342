//! What cannot go on its way is kept with the reason, and can be replayed.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::identity::{ReadingId, Sequence};
use crate::name::DeviceId;
use crate::time::Received;

/// Longest explanation kept with a dead letter, in bytes. Longer text is cut at a character border.
pub const DETAIL_BYTES_MAX: usize = 2_048;

/// Why something became a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum DeadLetterKind {
    /// The payload is not what the device's profile describes.
    Undecodable,
    /// The device has no profile or is not configured here.
    UnknownDevice,
    /// The metric or its unit is not one that the profile allows.
    UnknownMetric,
    /// The unit cannot be converted to the metric's own.
    WrongUnit,
    /// The device's time is impossible (beyond the profile's bounds).
    ImpossibleTime,
    /// The destination refused it for good.
    Rejected,
    /// No patient was associated with the device at that moment; held until one is.
    Unassigned,
    /// The moment is not known while the gateway's clock was never set; held until it is.
    TimeUnknown,
    /// A stored block was damaged beyond both copies.
    Damaged,
}

impl DeadLetterKind {
    /// As it is shown.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Undecodable => "Undecodable",
            Self::UnknownDevice => "UnknownDevice",
            Self::UnknownMetric => "UnknownMetric",
            Self::WrongUnit => "WrongUnit",
            Self::ImpossibleTime => "ImpossibleTime",
            Self::Rejected => "Rejected",
            Self::Unassigned => "Unassigned",
            Self::TimeUnknown => "TimeUnknown",
            Self::Damaged => "Damaged",
        }
    }
}

/// A kind with the words that help to mend it; never a value or a patient's data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetterReason {
    /// The kind.
    pub kind: DeadLetterKind,
    /// Place and remedy, at most [`DETAIL_BYTES_MAX`] bytes.
    pub detail: Arc<str>,
}

impl DeadLetterReason {
    /// A reason with its detail cut to [`DETAIL_BYTES_MAX`].
    #[must_use]
    pub fn new(kind: DeadLetterKind, detail: &str) -> Self {
        let mut end = detail.len().min(DETAIL_BYTES_MAX);
        while !detail.is_char_boundary(end) {
            end -= 1;
        }
        Self { kind, detail: Arc::from(detail.get(..end).unwrap_or_default()) }
    }
}

/// Something that arrived and could not become a reading: stored, acknowledged, shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// The device that sent it.
    pub device: DeviceId,
    /// The channel it came on.
    pub channel: Arc<str>,
    /// When it arrived.
    pub received: Received,
    /// Why it is here.
    pub reason: DeadLetterReason,
    /// The bytes as they came.
    pub bytes: Vec<u8>,
}

/// A reading that one destination refused for good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejectedReading {
    /// Its place in our order.
    pub sequence: Sequence,
    /// Its identity.
    pub id: ReadingId,
    /// What the destination said.
    pub reason: DeadLetterReason,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_explanation_is_cut_at_a_character() {
        let reason = DeadLetterReason::new(DeadLetterKind::Rejected, &"ä".repeat(DETAIL_BYTES_MAX));
        assert_eq!(reason.detail.len(), DETAIL_BYTES_MAX);
        let odd = DeadLetterReason::new(DeadLetterKind::Rejected, &format!("x{}", "ä".repeat(DETAIL_BYTES_MAX)));
        assert_eq!(odd.detail.len(), DETAIL_BYTES_MAX - 1);
    }
}
