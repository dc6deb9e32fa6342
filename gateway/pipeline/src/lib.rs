//! Admit, batch, retry and settle as state machines: an event and the present in, actions out.
//!
//! Nothing here reads a clock, a file, a socket or a source of randomness, and nothing waits.
//! [`Admission`] stands before the commit, [`Delivery`] behind it, one per destination; they meet
//! only in the journal.

#![forbid(unsafe_code)]

pub mod admission;
pub mod delivery;
mod recent;

pub use admission::{Admission, AdmissionPolicy, Admitted};
pub use delivery::{
    Alarm, AlarmKind, DAMAGED_LISTED_MAX, Delivery, DeliveryAction, DeliveryEvent, DeliveryPolicy, DeliveryStatus, Lane,
    READ_AHEAD_READINGS_MAX, RequestId,
};
