//! What happened to the keyed store, for the report at start, the log and the status page.

use std::fmt;
use std::path::PathBuf;

use vitalgate_domain::Sequence;

use crate::copy::Ordinal;

/// Something that its keeper should know. No values, no names of devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyedEvent {
    /// The store was damaged and was moved; the new one is filled from the journal.
    Quarantined {
        /// What was found.
        reason: String,
        /// Where the old one is now.
        to: PathBuf,
    },
    /// A snapshot that sled never finished was moved; the store itself is sound.
    SnapshotSetAside {
        /// Where it is now.
        to: PathBuf,
    },
    /// A small file of the store was damaged and is written anew; its content is known.
    FileHealed {
        /// Its name in the store's folder.
        name: &'static str,
    },
    /// Records that the journal has let go of were taken out of the damaged store.
    Salvaged {
        /// How many.
        records: u64,
    },
    /// Settled records that were only here are gone: history, not work to do.
    HistoryLost {
        /// The first record.
        from: Ordinal,
        /// The last record.
        until: Ordinal,
    },
    /// No copy of the journal had these entries.
    Lost {
        /// The first sequence.
        from: Sequence,
        /// The last sequence.
        until: Sequence,
    },
    /// A record does not open; it is kept as it is and lookups pass it over.
    Unreadable {
        /// The record.
        ordinal: Ordinal,
    },
    /// A record was missing or altered here and was taken from the journal again.
    Healed {
        /// The record.
        ordinal: Ordinal,
    },
}

impl fmt::Display for KeyedEvent {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Quarantined { reason, to } => {
                write!(formatter, "the keyed store was damaged ({reason}); it is kept at {} and rebuilt from the journal", to.display())
            }
            Self::SnapshotSetAside { to } => {
                write!(formatter, "an unfinished snapshot of the keyed store was moved to {}; nothing is missing", to.display())
            }
            Self::FileHealed { name } => write!(formatter, "the keyed store's file {name} was damaged and is written anew"),
            Self::Salvaged { records } => write!(formatter, "{records} records of settled history were saved from the damaged keyed store"),
            Self::HistoryLost { from, until } => {
                write!(formatter, "the records {} to {} of settled history are gone; nothing undelivered is missing", from.0, until.0)
            }
            Self::Lost { from, until } => {
                write!(formatter, "the entries {from} to {until} are damaged in every copy; restore them from a backup or the devices")
            }
            Self::Unreadable { ordinal } => write!(formatter, "record {} does not open; check the key files of the store", ordinal.0),
            Self::Healed { ordinal } => write!(formatter, "record {} of the keyed store was taken from the journal again", ordinal.0),
        }
    }
}
