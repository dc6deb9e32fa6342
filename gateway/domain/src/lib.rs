//! The vocabulary of Vitalgate: what a device says, what a reading is, and what may happen to it.
//!
//! Nothing here reads a clock, a file, a socket or a source of randomness. Every other crate
//! depends on this one; this one depends on none of them.

#![forbid(unsafe_code)]

pub mod association;
pub mod catalogue;
pub mod dead_letter;
pub mod delivery;
pub mod entry;
pub mod fault;
pub mod identity;
pub mod keys;
pub mod limits;
pub mod name;
pub mod quantity;
pub mod ranges;
pub mod reading;
pub mod sample;
pub mod time;
pub mod unit;

pub use association::{Association, Associations};
pub use catalogue::{Category, Metric, MetricDefinition};
pub use dead_letter::{DeadLetter, DeadLetterKind, DeadLetterReason, DeadLetterSelector, RejectedReading};
pub use delivery::{Answer, Batch, BatchMode, Item, ItemAnswer};
pub use entry::{Change, DeviceEvent, DeviceEventKind, Entry, Record};
pub use fault::{Fault, Origin, Permanence, Stage};
pub use identity::{BootId, DeviceNamespace, ReadingId, Sequence};
pub use keys::{KeyWrap, KeyWrapError};
pub use name::{DestinationId, DeviceId, GatewayId, NameError};
pub use quantity::Quantity;
pub use ranges::SequenceRanges;
pub use reading::{Flags, NoReading, PatientReference, Reading, Reported, SeenReading, Subject, Value};
pub use sample::{DecodedReading, DecodedSample, RawSample, SourceIdentity};
pub use time::{ClockTrust, DeviceTime, Now, ReadingTime, Received, UnixMs};
pub use unit::{ConversionError, Unit};
