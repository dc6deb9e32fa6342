//! A reading: one value of one metric of one device at one moment, or the statement that there was none.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::catalogue::Metric;
use crate::identity::ReadingId;
use crate::name::DeviceId;
use crate::quantity::Quantity;
use crate::time::ReadingTime;

/// Why there is no value. Absence is data: it is stored and sent, never turned into 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum NoReading {
    /// The device says that its sensor is off or not attached, or sent its code for that.
    SensorDisconnected,
    /// The device says that the value is not available just now.
    NotAvailable,
    /// The device says that its value is wrong.
    DeviceError,
    /// The value lies above what the device can show.
    AboveRange,
    /// The value lies below what the device can show.
    BelowRange,
    /// A floating-point "not a number".
    NotANumber,
    /// The device is configured not to take this metric.
    NotPerformed,
    /// The other part of a set (a blood pressure) never arrived.
    PartMissing,
}

/// What the source said of the metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Value {
    /// A value with its unit, in the metric's own unit.
    Quantity(Quantity),
    /// No value, and why.
    Absent(NoReading),
}

impl Value {
    /// A short hash of what was said, to tell a resend from another value under the same identity.
    #[must_use]
    pub fn digest(&self) -> u32 {
        let parts = match self {
            Self::Quantity(quantity) => {
                let mantissa = quantity.value.mantissa();
                let form = u64::from(quantity.value.scale()) << 16 | u64::from(u16::from(quantity.unit));
                [form, mantissa as u64, (mantissa >> 64) as u64]
            }
            Self::Absent(reason) => [u64::MAX, *reason as u64, 0],
        };
        // One part after the other: a plain xor of the halves would take -1 for 0.
        let spread = parts.iter().fold(0, |hash: u64, part| (hash.rotate_left(5) ^ part).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        (spread >> 32) as u32
    }
}

/// What a resend of a reading is told by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SeenReading {
    /// Its identity.
    pub id: ReadingId,
    /// [`Value::digest`] of its value.
    pub value_digest: u32,
}

impl From<&Reading> for SeenReading {
    fn from(reading: &Reading) -> Self {
        Self { id: reading.id, value_digest: reading.value.digest() }
    }
}

/// Marks that travel with a reading to the EHR. A set of bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Flags(pub u16);

impl Flags {
    /// Outside the plausible range of the sensor: sent, marked questionable, never dropped.
    pub const IMPLAUSIBLE: Self = Self(1);
    /// The device itself calls the value questionable.
    pub const QUESTIONABLE: Self = Self(1 << 1);
    /// A test or demonstration value.
    pub const TEST: Self = Self(1 << 2);
    /// The device is calibrating.
    pub const CALIBRATING: Self = Self(1 << 3);
    /// The source has neither time nor counter: it cannot be told from its own resend.
    pub const RESEND_INDISTINCT: Self = Self(1 << 4);
    /// The device's clock differed from ours by more than its profile allows.
    pub const CLOCK_DOUBTFUL: Self = Self(1 << 5);
    /// Replayed from the dead letters.
    pub const REPLAYED: Self = Self(1 << 6);
    /// Moved to the journal's end with what every destination answered: sent from there only to one that came later.
    pub const CARRIED: Self = Self(1 << 7);
    /// The message said no time: its moment is that of its arrival, and the device may have kept it for long.
    pub const DATED_BY_ARRIVAL: Self = Self(1 << 8);
    /// Moved as the rest of its message, and replayed or discarded before that: from here it is sent to nobody.
    pub const RESOLVED: Self = Self(1 << 9);
    /// Part of a panel, of whose parts its message held several and not equally many: which belong together is not known.
    pub const APART: Self = Self(1 << 10);

    /// Whether every mark of `other` is set.
    #[must_use]
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both sets together.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// This set without the marks of `other`.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

/// How an EHR is told which patient is meant.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum PatientReference {
    /// A relative reference, `Patient/4711`.
    Literal(Arc<str>),
    /// An identifier that exactly one patient of the EHR must carry.
    Identifier {
        /// The identifier's system, a URI.
        system: Arc<str>,
        /// The identifier's value.
        value: Arc<str>,
    },
}

/// Whom a reading is about, as known at the moment of the reading.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Subject {
    /// Associated with this patient at the moment of the reading.
    Patient(PatientReference),
    /// No association covered the moment: held and shown, never sent.
    Unassigned,
}

/// The quantity before conversion, where the source gave another unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reported {
    /// The value text as the source gave it.
    pub value: Arc<str>,
    /// The unit text as the source gave it.
    pub unit: Arc<str>,
}

/// An admitted reading.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reading {
    /// Identity over what the source said.
    pub id: ReadingId,
    /// The device that said it.
    pub device: DeviceId,
    /// What was observed.
    pub metric: Metric,
    /// Which of several equal metrics of one message, from 0.
    pub slot: u16,
    /// The value, or why there is none.
    pub value: Value,
    /// The quantity as the source gave it, where it was converted.
    pub reported: Option<Reported>,
    /// The three times.
    pub time: ReadingTime,
    /// The device's own message counter, where it has one.
    pub device_sequence: Option<u64>,
    /// Marks.
    pub flags: Flags,
    /// Whom it is about.
    pub subject: Subject,
}

#[cfg(test)]
mod tests {
    use rust_decimal::Decimal;

    use super::*;
    use crate::unit::Unit;

    /// Two values of one digest would make the second a resend of the first: it would be lost.
    #[test]
    fn near_values_have_different_digests() {
        let mut seen = std::collections::HashSet::new();
        for scale in 0..4 {
            for number in -20_000..20_000 {
                let value = Decimal::new(number, scale);
                assert!(seen.insert(Value::Quantity(Quantity { value, unit: Unit::Celsius }).digest()), "{value}");
            }
        }
        assert!(seen.insert(Value::Absent(NoReading::NotAvailable).digest()));
    }
}
