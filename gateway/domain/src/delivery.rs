//! What goes to a destination, and what it may answer.

use std::sync::Arc;

use crate::catalogue::Metric;
use crate::identity::{ReadingId, Sequence};
use crate::reading::{PatientReference, Reading};

/// What becomes one Observation (or one message segment group): a reading, or the parts of a panel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Identity at the destination: the reading's own, or that of the panel.
    pub id: ReadingId,
    /// The panel that the readings are parts of; `None` for a single reading.
    pub panel: Option<Metric>,
    /// The readings with their places; one, or the parts of the panel in the panel's order. A part
    /// that never arrived is simply not here: the encoder says so in the panel.
    pub readings: Vec<(Sequence, Reading)>,
}

/// How the items of a batch stand together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BatchMode {
    /// All or none.
    Together,
    /// Each on its own, so that one that is refused does not hold back the others.
    Separately,
}

/// Items of one patient that go out in one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Whom they are about.
    pub patient: PatientReference,
    /// The items, no identity twice.
    pub items: Vec<Item>,
    /// How they stand together.
    pub mode: BatchMode,
}

/// The answer for one item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ItemAnswer {
    /// It is there, under this id where the destination chose one.
    Accepted {
        /// The id that the destination chose, where it is not ours.
        remote_id: Option<Arc<str>>,
    },
    /// It is there more than once already; reported, not sent again.
    AcceptedWithWarning {
        /// What to tell the EHR's keeper.
        detail: Arc<str>,
    },
    /// It was refused for good.
    Rejected {
        /// What the destination said, for a dead letter alone: it may quote what was sent.
        detail: Arc<str>,
    },
    /// This one may be tried again.
    Transient {
        /// What the destination said.
        detail: Arc<str>,
    },
}

/// The answer to a whole request (facts 2.3), already classified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Each item has its answer, in the order of the batch. The only answer that settles.
    Items(Vec<ItemAnswer>),
    /// May pass: no connection, a time-out, 408, 409, 425, 429, 5xx, or an answer that could not be read.
    Transient {
        /// How long the destination asks us to wait, in milliseconds.
        retry_after_ms: Option<u64>,
        /// What happened.
        detail: Arc<str>,
    },
    /// The batch is too large (413, or a 400 that names a limit): halve it.
    TooLarge {
        /// What the destination said.
        detail: Arc<str>,
    },
    /// Refused as a whole (400, 422): one entry may be to blame; isolate it.
    RejectedWhole {
        /// What the destination said, for a dead letter alone: it may quote what was sent.
        detail: Arc<str>,
    },
    /// Our credentials or rights are refused (401 twice, 403), or the address is wrong (404): pause
    /// and raise an alarm. While that is so for everybody, nothing becomes a dead letter.
    Paused {
        /// What to mend.
        detail: Arc<str>,
    },
    /// The patient is not known there, or not unique: the items are held as unassigned, or wait where nobody is known.
    PatientUnknown {
        /// What to mend.
        detail: Arc<str>,
    },
}
