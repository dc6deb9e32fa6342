//! What goes into and comes out of a delivery.

use std::sync::Arc;

use vitalgate_domain::{Answer, Batch, Record, RejectedReading, Sequence};

/// Which of the two ways through the outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Lane {
    /// What was committed just now; goes first.
    Live,
    /// What an outage or a restart left behind; takes the rest of the capacity.
    Backlog,
}

/// Names one request to the destination within this run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// What happened.
#[derive(Debug, Clone)]
pub enum DeliveryEvent {
    /// Everything up to this sequence is on disk; it is the end of a commit.
    Committed(Sequence),
    /// The answer to [`DeliveryAction::Read`].
    Read {
        /// The lane that asked.
        lane: Lane,
        /// What is there, ascending. A sequence that is looked at and not here is damaged beyond
        /// every copy, and is settled as such.
        records: Vec<Record>,
        /// Every sequence from the asked one up to here was looked at.
        reached: Sequence,
    },
    /// The read failed; it is asked again a little later.
    ReadFailed {
        /// The lane that asked.
        lane: Lane,
        /// Why, in codes and our own words.
        detail: Arc<str>,
    },
    /// Nothing was read, for a reason that is shown elsewhere; it is asked again a little later.
    ReadPutOff {
        /// The lane that asked.
        lane: Lane,
    },
    /// The destination answered, or the attempt failed.
    Answered {
        /// The request.
        request: RequestId,
        /// The classified answer.
        answer: Answer,
    },
    /// Time passed, or the delivery starts: send one right after [`super::Delivery::new`].
    Tick,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeliveryAction {
    /// Read records from the journal; at most one read per lane is under way.
    Read {
        /// For this lane.
        lane: Lane,
        /// From here, inclusive.
        from: Sequence,
        /// Up to here, inclusive.
        until: Sequence,
        /// At most so many records.
        entries_max: usize,
    },
    /// Send the batch and report with the same id. At most
    /// [`super::DeliveryPolicy::requests_in_flight_max`] are under way, one per patient.
    Send {
        /// The request's name.
        request: RequestId,
        /// What to send.
        batch: Batch,
    },
    /// Write to the journal that these are settled. Until that is durable, a crash sends them
    /// again under the same identities.
    Settle {
        /// Inclusive ranges, ascending, disjoint.
        ranges: Vec<(Sequence, Sequence)>,
        /// Those among them that were refused for good or are held back.
        rejected: Vec<RejectedReading>,
        /// Where the destination knows a reading under another id than its own.
        remote_ids: Vec<(Sequence, Arc<str>)>,
    },
    /// Send [`DeliveryEvent::Tick`] at this moment of the monotonic clock, in milliseconds. It
    /// replaces every earlier one.
    WakeAt {
        /// Milliseconds since power-on.
        monotonic_ms: u64,
    },
    /// Something needs a person, or something else than before in the place of the alarm of this kind.
    Alarm(Alarm),
    /// It does not any more.
    Cleared(Alarm),
}

/// What needs a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AlarmKind {
    /// The destination does not answer, or only with faults of its own: the circuit breaker is open.
    Unreachable,
    /// The destination refuses our credentials, our rights or our address.
    Paused,
    /// The destination refused many readings in a row and took none.
    OnlyRejections,
    /// One patient's requests keep being refused while others' are taken, or keep failing, memory is full of them, and
    /// they are kept as dead letters.
    PatientFailing,
    /// A reading alone keeps failing while others are taken.
    ReadingFailing,
    /// The destination knew no patient for a while, and took nothing meanwhile.
    PatientsUnknown,
    /// What waits cannot be read from the journal.
    Unreadable,
}

/// An alarm with the words that help to mend it: codes and our own, never what the destination said, which may quote a patient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alarm {
    /// The kind; at most one alarm of a kind is raised at a time.
    pub kind: AlarmKind,
    /// Place and remedy.
    pub detail: Arc<str>,
}
