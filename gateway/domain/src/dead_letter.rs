//! What cannot go on its way is kept with the reason, and can be replayed or discarded.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::identity::{ReadingId, Sequence};
use crate::name::DeviceId;
use crate::time::{Received, UnixMs};

/// Longest explanation kept with a dead letter, in bytes. Longer text is cut at a character border.
pub const DETAIL_BYTES_MAX: usize = 2_048;

/// Longest name of who replays or discards dead letters, in bytes.
pub const RESOLVED_BY_BYTES_MAX: usize = 512;

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
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Undecodable,
        Self::UnknownDevice,
        Self::UnknownMetric,
        Self::WrongUnit,
        Self::ImpossibleTime,
        Self::Rejected,
        Self::Unassigned,
        Self::TimeUnknown,
        Self::Damaged,
    ];

    /// As it is shown and asked for.
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

    /// Reads a word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }
}

/// Which dead letters are meant: those that are all that is given here; where nothing is given, all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeadLetterSelector {
    /// Of this kind.
    pub kind: Option<DeadLetterKind>,
    /// Of this device.
    pub device: Option<DeviceId>,
    /// Received before this moment.
    pub before: Option<UnixMs>,
}

/// What of a selector cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name} cannot be read: {remedy}")]
pub struct SelectorError {
    /// Its name: `kind`, `device` or `before`.
    pub name: &'static str,
    /// What to write.
    pub remedy: String,
}

impl DeadLetterSelector {
    /// Reads what a person wrote.
    ///
    /// # Errors
    /// [`SelectorError`]
    pub fn parse(kind: Option<&str>, device: Option<&str>, before: Option<&str>) -> Result<Self, SelectorError> {
        let wrong = |name, remedy| SelectorError { name, remedy };
        let kinds = || format!("write one of {}", DeadLetterKind::ALL.map(DeadLetterKind::word).join(", "));
        let moment = || "write a day like 2026-12-31 (UTC), or a moment like 2026-12-31T10:00:00+01:00".to_owned();
        Ok(Self {
            kind: kind.map(|word| DeadLetterKind::parse(word).ok_or_else(|| wrong("kind", kinds()))).transpose()?,
            device: device.map(|name| DeviceId::new(name).map_err(|error| wrong("device", error.to_string()))).transpose()?,
            before: before.map(|text| UnixMs::parse_day_or_rfc3339(text).ok_or_else(|| wrong("before", moment()))).transpose()?,
        })
    }

    /// Whether it means all of them.
    #[must_use]
    pub fn is_all(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for DeadLetterSelector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named: Vec<String> = [
            self.kind.map(|kind| format!("of the kind {}", kind.word())),
            self.device.as_ref().map(|device| format!("of {device}")),
            self.before.map(|before| format!("received before {}", before.rfc3339(0))),
        ]
        .into_iter()
        .flatten()
        .collect();
        formatter.write_str(if named.is_empty() { "all" } else { "those " })?;
        formatter.write_str(&named.join(", "))
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

    /// What is shown is what can be asked for.
    #[test]
    fn every_kind_is_read_as_it_is_shown() {
        for kind in DeadLetterKind::ALL {
            assert_eq!((DeadLetterKind::parse(kind.word()), format!("{kind:?}").as_str()), (Some(kind), kind.word()));
        }
        assert_eq!(DeadLetterKind::parse("undecodable"), None);
    }

    /// Promise 4: what is discarded is what a person named; what cannot be read names nothing.
    #[test]
    fn a_selector_is_read_as_it_was_written() {
        let read = DeadLetterSelector::parse;
        let day = read(Some("Rejected"), Some("monitor-03"), Some("2026-11-01")).unwrap();
        assert_eq!(day.to_string(), "those of the kind Rejected, of monitor-03, received before 2026-11-01T00:00:00.000+00:00");
        assert_eq!(read(None, None, Some("2026-11-01T01:00:00+01:00")).unwrap().before, day.before);
        assert!(read(None, None, None).unwrap().is_all() && !day.is_all());
        for (wrong, name, remedy) in [
            (read(Some("rejected"), None, None), "kind", "Rejected"),
            (read(None, Some("*"), None), "device", "a name"),
            (read(None, None, Some("yesterday")), "before", "2026-12-31"),
            (read(None, None, Some("2026-11-01T10:00:00")), "before", "+01:00"),
        ] {
            let error = wrong.unwrap_err();
            assert!(error.name == name && error.remedy.contains(remedy), "{error}");
        }
    }

    #[test]
    fn a_long_explanation_is_cut_at_a_character() {
        let reason = DeadLetterReason::new(DeadLetterKind::Rejected, &"ä".repeat(DETAIL_BYTES_MAX));
        assert_eq!(reason.detail.len(), DETAIL_BYTES_MAX);
        let odd = DeadLetterReason::new(DeadLetterKind::Rejected, &format!("x{}", "ä".repeat(DETAIL_BYTES_MAX)));
        assert_eq!(odd.detail.len(), DETAIL_BYTES_MAX - 1);
    }
}
