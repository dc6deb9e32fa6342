//! The bodies of records: what is sealed. CBOR (RFC 8949) without field names. Whatever is unknown,
//! out of range or left over is refused, but for changes: one that is unknown is passed over, since
//! the others beside it say what must not be done again. The layouts of snapshots are told apart by
//! their shape.

mod blob;
mod decode;
mod encode;
mod snapshot;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use vitalgate_domain::{Change, NoReading};

pub(crate) use decode::entries;
pub(crate) use encode::{EntryEncoder, changes_into};
pub(crate) use snapshot::{state, state_into};

use blob::{Blob, Id};

/// Why a body could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WireError {
    /// It is no CBOR of the expected shape.
    #[error("the body is not what this version writes: {0}")]
    Shape(String),
    /// A number points to nothing or lies outside its range.
    #[error("the body holds an impossible {0}")]
    Range(&'static str),
}

impl From<serde_cbor::Error> for WireError {
    fn from(error: serde_cbor::Error) -> Self {
        Self::Shape(error.to_string())
    }
}

/// Number of an entry's kind in [`WireBlock`].
const READING: u8 = 0;
const DEAD_LETTER: u8 = 1;
const DEVICE_EVENT: u8 = 2;

/// A value's tag from here on is an absence; below it is the number of decimal places.
const ABSENT: u8 = 100;

/// A block of entries. Texts, receptions and subjects that several entries share stand once, in
/// tables; entries name them by place. The order of entries is that of `kinds`; those of one kind
/// stand in their own list.
#[derive(Debug, Serialize, Deserialize)]
struct WireBlock<'a>(
    #[serde(borrow)] Vec<&'a str>,
    Vec<WireReceived>,
    Vec<WireSubject>,
    #[serde(borrow)] Blob<'a>,
    Vec<WireReading>,
    #[serde(borrow)] Vec<WireLetter<'a>>,
    Vec<WireEvent>,
);

/// Wall clock, monotonic milliseconds, boot, trust.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct WireReceived(i64, u64, Id, u8);

/// Kind (0 literal, 1 identifier), text, text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct WireSubject(u8, u32, u32);

/// Decimal places or absence, unit, mantissa low, mantissa high.
#[derive(Debug, Serialize, Deserialize)]
struct WireValue(u8, u16, u64, i64);

/// Id, device, metric, slot, value, received, correction, flags, subject (0 is unassigned, else
/// its place plus 1), what only some readings have.
#[derive(Debug, Serialize, Deserialize)]
struct WireReading(Id, u32, u16, u16, WireValue, u32, i64, u16, u32, WireExtra);

/// Device time and its offset, device's counter, reported value and unit.
#[derive(Debug, Default, Serialize, Deserialize)]
struct WireExtra(Option<(i64, Option<i16>)>, Option<u64>, Option<(u32, u32)>);

/// Device, channel, received, kind, detail, bytes.
#[derive(Debug, Serialize, Deserialize)]
struct WireLetter<'a>(u32, u32, u32, u8, u32, #[serde(borrow)] Blob<'a>);

/// Device, kind, received.
#[derive(Debug, Serialize, Deserialize)]
struct WireEvent(u32, u8, u32);

/// Numbers of variants, fixed for ever by their place.
macro_rules! numbered {
    ($to:ident, $from:ident, $type:ty, [$($variant:path = $number:literal),* $(,)?]) => {
        pub(super) fn $to(value: $type) -> u8 {
            match value { $($variant => $number,)* }
        }
        pub(super) fn $from(number: u8) -> Result<$type, super::WireError> {
            match number { $($number => Ok($variant),)* _ => Err(super::WireError::Range(stringify!($type))) }
        }
    };
}

mod numbers {
    use super::NoReading;
    use vitalgate_domain::{ClockTrust, DeadLetterKind, DeviceEventKind};

    numbered!(
        absence_number,
        absence_from,
        NoReading,
        [
            NoReading::SensorDisconnected = 0,
            NoReading::NotAvailable = 1,
            NoReading::DeviceError = 2,
            NoReading::AboveRange = 3,
            NoReading::BelowRange = 4,
            NoReading::NotANumber = 5,
            NoReading::NotPerformed = 6,
            NoReading::PartMissing = 7,
        ]
    );
    numbered!(
        trust_number,
        trust_from,
        ClockTrust,
        [ClockTrust::Unset = 0, ClockTrust::Free = 1, ClockTrust::Synchronised = 2, ClockTrust::Authenticated = 3,]
    );
    numbered!(
        letter_number,
        letter_from,
        DeadLetterKind,
        [
            DeadLetterKind::Undecodable = 0,
            DeadLetterKind::UnknownDevice = 1,
            DeadLetterKind::UnknownMetric = 2,
            DeadLetterKind::WrongUnit = 3,
            DeadLetterKind::ImpossibleTime = 4,
            DeadLetterKind::Rejected = 5,
            DeadLetterKind::Unassigned = 6,
            DeadLetterKind::TimeUnknown = 7,
            DeadLetterKind::Damaged = 8,
        ]
    );
    numbered!(
        event_number,
        event_from,
        DeviceEventKind,
        [DeviceEventKind::Connected = 0, DeviceEventKind::Disconnected = 1, DeviceEventKind::Lost = 2,]
    );
}

/// Reads a body of changes: CBOR items one after the other (RFC 8742). Gives those that this version
/// knows, and how many it does not: of a later version that was taken back.
///
/// # Errors
/// When it is no CBOR.
pub(crate) fn changes(body: &[u8]) -> Result<(Vec<Change>, usize), WireError> {
    let (mut known, mut unknown, mut rest) = (Vec::new(), 0, body);
    while !rest.is_empty() {
        let mut item = serde_cbor::Deserializer::from_slice(rest);
        let change = Change::deserialize(&mut item);
        if change.is_err() {
            item = serde_cbor::Deserializer::from_slice(rest);
            IgnoredAny::deserialize(&mut item)?;
            unknown += 1;
        }
        known.extend(change);
        rest = rest.get(item.byte_offset()..).unwrap_or_default();
    }
    Ok((known, unknown))
}

#[cfg(test)]
pub(crate) mod tests;
