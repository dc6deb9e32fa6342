//! What was found damaged, and what was done about it.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use vitalgate_domain::Sequence;

use crate::copy::Ordinal;

/// Most findings kept; the oldest give way. Their number is kept beside.
pub(crate) const FINDINGS_MAX: usize = 1_000;

/// Where a record or key was taken from to heal another copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Healer {
    /// The shadow of the journal's segment.
    Shadow,
    /// The keyed store.
    Keyed,
    /// The other copy of a key file.
    OtherCopy,
    /// The header of a segment.
    SegmentHeader,
    /// What is known from elsewhere (the file's name, its records, the state).
    Derived,
}

impl fmt::Display for Healer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Shadow => "the shadow",
            Self::Keyed => "the keyed store",
            Self::OtherCopy => "the other copy",
            Self::SegmentHeader => "a segment's header",
            Self::Derived => "what is known from elsewhere",
        })
    }
}

/// One thing that was not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// The last write before a crash had not ended; nothing of it was acknowledged.
    UnfinishedWrite {
        /// The file.
        file: String,
        /// How many bytes were cut.
        bytes: u64,
    },
    /// A damaged record was restored.
    RecordHealed {
        /// The file.
        file: String,
        /// The record.
        ordinal: Ordinal,
        /// From where.
        from: Healer,
    },
    /// A damaged or missing header of a segment was written anew.
    HeaderHealed {
        /// The file.
        file: String,
        /// From where.
        from: Healer,
    },
    /// The file of a segment was missing and was made again.
    SegmentRestored {
        /// The file.
        file: String,
        /// From where.
        from: Healer,
    },
    /// A damaged or missing key file was restored.
    KeyHealed {
        /// The file.
        file: String,
        /// From where.
        from: Healer,
    },
    /// A shadow was behind or damaged and was written anew from the journal.
    ShadowRebuilt {
        /// The file.
        file: String,
    },
    /// A file was shorter than it was written.
    Shortened {
        /// The file.
        file: String,
        /// Its length.
        bytes: u64,
    },
    /// A damaged file was copied aside before it was mended.
    Quarantined {
        /// The file.
        file: String,
        /// The copy's name in `quarantine/`.
        copy: String,
    },
    /// The newest snapshot of the state could not be used; an older one was, with all changes since.
    OlderSnapshot {
        /// The record that was used, or 0 for none.
        ordinal: Ordinal,
    },
    /// A record holds changes that this version does not know: a later version wrote them.
    UnknownChanges {
        /// The record.
        ordinal: Ordinal,
        /// How many.
        changes: usize,
    },
    /// The keyed store, which may have more, waited for free space or was being rebuilt: what looked like an unfinished write was cut, and
    /// is kept.
    CutUnasked {
        /// The file.
        file: String,
        /// The name in `kept/`; `None` where there was no room for it.
        kept: Option<String>,
    },
    /// Dead letters among these may be in the keyed store, which cannot give them now.
    Unanswered {
        /// The first.
        first: Sequence,
        /// The last.
        last: Sequence,
    },
    /// The disk could not read a part of a file; it was written anew, with what the copies have.
    Unreadable {
        /// The file.
        file: String,
        /// How many bytes.
        bytes: u64,
        /// Whether the journal ends there, and no copy has more: whether something acknowledged stood there is not known.
        at_end: bool,
    },
    /// No copy has these entries.
    Lost {
        /// The first.
        first: Sequence,
        /// The last; before `first` when only changes were lost.
        last: Sequence,
    },
}

impl Finding {
    /// Whether something was damaged, other than what a crash or power cut leaves behind.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        !matches!(self, Self::UnfinishedWrite { .. } | Self::ShadowRebuilt { .. })
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnfinishedWrite { file, bytes } => {
                write!(formatter, "{file}: {bytes} bytes of an unfinished, unacknowledged write were cut")
            }
            Self::RecordHealed { file, ordinal, from } => write!(formatter, "{file}: damaged record {} restored from {from}", ordinal.0),
            Self::HeaderHealed { file, from } => write!(formatter, "{file}: damaged header restored from {from}"),
            Self::SegmentRestored { file, from } => write!(formatter, "{file}: missing file made again from {from}"),
            Self::KeyHealed { file, from } => write!(formatter, "{file}: damaged or missing key file restored from {from}"),
            Self::ShadowRebuilt { file } => write!(formatter, "{file}: shadow was not up to date and was written anew"),
            Self::Shortened { file, bytes } => write!(formatter, "{file}: file was cut to {bytes} bytes"),
            Self::Quarantined { file, copy } => write!(formatter, "{file}: damaged, copied to quarantine/{copy} and mended"),
            Self::OlderSnapshot { ordinal } => {
                write!(formatter, "newest snapshot unusable, state rebuilt from record {} and all changes since", ordinal.0)
            }
            Self::UnknownChanges { ordinal, changes } => {
                let record = ordinal.0;
                write!(formatter, "record {record}: {changes} changes of a later version are passed over; install that version again")
            }
            Self::CutUnasked { file, kept: Some(kept) } => write!(
                formatter,
                "{file}: a write that looked unfinished was cut while the keyed store could not be asked; it is kept in kept/{kept}"
            ),
            Self::CutUnasked { file, kept: None } => {
                write!(formatter, "{file}: a write that looked unfinished was cut, and could not be kept")
            }
            Self::Unanswered { first, last } => write!(
                formatter,
                "dead letters among the entries {first} to {last} are missing; the keyed store, which may have them, cannot give them now: \
                 it lets go of nothing, and is asked again"
            ),
            Self::Unreadable { file, bytes, at_end } => {
                let end = if *at_end { "; the journal ends there, and what was acknowledged last may be lost" } else { "" };
                write!(formatter, "{file}: the disk could not read {bytes} bytes, which were written anew{end}; replace the disk")
            }
            Self::Lost { first, last } if first > last => write!(formatter, "changes before entry {first} are lost in every copy"),
            Self::Lost { first, last } => write!(formatter, "entries {first} to {last} are lost in every copy"),
        }
    }
}

/// What opening the store found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpenReport {
    /// The findings, in order.
    pub findings: Vec<Finding>,
}

impl OpenReport {
    /// Whether something was damaged.
    #[must_use]
    pub fn has_damage(&self) -> bool {
        self.findings.iter().any(Finding::is_damage)
    }
}

impl fmt::Display for OpenReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.findings.is_empty() {
            return formatter.write_str("the store was whole");
        }
        for (place, finding) in self.findings.iter().enumerate() {
            let line_end = if place == 0 { "" } else { "\n" };
            write!(formatter, "{line_end}{finding}")?;
        }
        Ok(())
    }
}

/// Findings as they come, bounded.
#[derive(Debug, Default)]
pub(crate) struct Findings(Mutex<VecDeque<Finding>>);

impl Findings {
    pub(crate) fn add(&self, finding: Finding) {
        let mut list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A range that every reader meets again is told once.
        if list.contains(&finding) {
            return;
        }
        if finding.is_damage() {
            tracing::error!(%finding, "store");
        } else {
            tracing::warn!(%finding, "store");
        }
        if list.len() == FINDINGS_MAX {
            list.pop_front();
        }
        list.push_back(finding);
    }

    pub(crate) fn all(&self) -> Vec<Finding> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}
