//! What the journal carries: entries, which take a sequence, and changes, which do not.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::dead_letter::{DeadLetter, RejectedReading};
use crate::identity::Sequence;
use crate::name::{DestinationId, DeviceId};
use crate::reading::Reading;
use crate::time::Received;

/// Something that happened to a device's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DeviceEventKind {
    /// It connected.
    Connected,
    /// It took its leave.
    Disconnected,
    /// It vanished: its will was due.
    Lost,
}

/// A device's coming and going, kept in order with its readings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceEvent {
    /// The device.
    pub device: DeviceId,
    /// What happened.
    pub kind: DeviceEventKind,
    /// When we noticed.
    pub received: Received,
}

/// One place in our order. Everything here is on disk before it is acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Entry {
    /// A reading, on its way to every destination.
    Reading(Reading),
    /// Something that could not become a reading.
    DeadLetter(DeadLetter),
    /// A device's coming or going.
    DeviceEvent(DeviceEvent),
}

impl Entry {
    /// The device and the arrival: what the entries of one sample have in common.
    #[must_use]
    pub fn origin(&self) -> (&DeviceId, &Received) {
        match self {
            Self::Reading(reading) => (&reading.device, &reading.time.received),
            Self::DeadLetter(letter) => (&letter.device, &letter.received),
            Self::DeviceEvent(event) => (&event.device, &event.received),
        }
    }
}

/// A change of what is known about entries; it must survive as they do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// A destination has settled these entries: it took them, or refused those that are named.
    Settled {
        /// The destination.
        destination: DestinationId,
        /// Inclusive ranges of sequences, ascending.
        ranges: Vec<(Sequence, Sequence)>,
        /// Those among them that it refused for good, or that are held back.
        rejected: Vec<RejectedReading>,
        /// The ids that the destination gave, where they differ from ours.
        remote_ids: Vec<(Sequence, Arc<str>)>,
    },
    /// Dead letters were replayed or discarded by an entitled person.
    DeadLettersResolved {
        /// The sequences of their entries.
        sequences: Vec<Sequence>,
        /// What was done and by whom, without patient data.
        note: Arc<str>,
    },
    /// A destination was added or taken away by the configuration.
    Destinations {
        /// All that are configured now, and those that are not and keep their place; each new one starts at `from`.
        present: Vec<DestinationId>,
        /// Where a new destination starts.
        from: Sequence,
    },
    /// From now on entries may be at a destination under ids that it chose when they were created there: written
    /// in another way they would be there twice.
    WrittenConditionally {
        /// The destination.
        destination: DestinationId,
    },
}

/// An entry with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The place.
    pub sequence: Sequence,
    /// The entry.
    pub entry: Entry,
}
