//! Time is clinical data: what the device said, when we received it, and how far we trust our clock.

use serde::{Deserialize, Serialize};

use crate::identity::BootId;

/// Milliseconds since 1970-01-01T00:00:00 UTC; negative before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
#[serde(transparent)]
pub struct UnixMs(pub i64);

/// 2000-02-01: a device that shows less lost its clock. One whose battery is empty starts at 1970-01-01 or 2000-01-01.
pub const DEVICE_TIME_MIN: UnixMs = UnixMs(949_363_200_000);
/// 2100-01-01: a device that shows this or more never had a clock.
pub const DEVICE_TIME_MAX: UnixMs = UnixMs(4_102_444_800_000);
/// One day in milliseconds: kept from either end, so that any offset still fits.
const DAY_MS: i64 = 86_400_000;
/// Largest instant that can be written as RFC 3339 with a four-digit year.
const UNIX_MS_MAX: i64 = 253_402_300_799_999;

impl UnixMs {
    /// RFC 3339 with milliseconds and the given offset from UTC in minutes, as FHIR's `dateTime`.
    /// An instant outside the years 1 to 9999 is clamped.
    #[must_use]
    pub fn rfc3339(self, offset_minutes: i16) -> String {
        let bounded = self.0.clamp(-62_135_596_800_000 + 2 * DAY_MS, UNIX_MS_MAX - 2 * DAY_MS);
        let timestamp = jiff::Timestamp::from_millisecond(bounded).unwrap_or_default();
        let offset = jiff::tz::Offset::from_seconds(i32::from(offset_minutes) * 60).unwrap_or(jiff::tz::Offset::UTC);
        format!("{:.3}", timestamp.display_with_offset(offset))
    }

    /// Whether a device that shows it has a clock that was ever set.
    #[must_use]
    pub fn can_be_a_devices(self) -> bool {
        (DEVICE_TIME_MIN..DEVICE_TIME_MAX).contains(&self)
    }

    /// From RFC 3339 with an offset; `None` for anything else.
    #[must_use]
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        text.parse::<jiff::Timestamp>().ok().map(|timestamp| Self(timestamp.as_millisecond()))
    }

    /// The same, or the begin of a day (UTC) like `2026-12-31`.
    #[must_use]
    pub fn parse_day_or_rfc3339(text: &str) -> Option<Self> {
        Self::parse_rfc3339(text).or_else(|| Self::parse_rfc3339(&format!("{text}T00:00:00Z")))
    }

    /// The instant `milliseconds` later.
    #[must_use]
    pub fn plus_ms(self, milliseconds: i64) -> Self {
        Self(self.0.saturating_add(milliseconds))
    }
}

/// How far the gateway's own wall clock could be trusted when a reading came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ClockTrust {
    /// Never set since power-on: no wall time may be derived.
    Unset,
    /// Set once, now running on its own crystal.
    Free,
    /// Following a time source that does not prove who it is.
    Synchronised,
    /// Following a time source that proves who it is (NTS).
    Authenticated,
}

/// The device's own statement of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DeviceTime {
    /// The instant that the device's clock showed.
    pub unix_ms: UnixMs,
    /// Offset from UTC in minutes as the device gave it; `None` where the profile had to supply it.
    pub offset_minutes: Option<i16>,
}

/// When and under which clock the gateway received something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Received {
    /// Our wall clock, meaningful as far as `trust` says.
    pub wall: UnixMs,
    /// Milliseconds since power-on.
    pub monotonic_ms: u64,
    /// The power-on that `monotonic_ms` counts from.
    pub boot: BootId,
    /// How far `wall` could be trusted.
    pub trust: ClockTrust,
}

/// The present, handed to every decision; nothing below the daemon reads a clock.
pub type Now = Received;

/// The three times of a reading, kept apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadingTime {
    /// What the device said, unchanged.
    pub device: Option<DeviceTime>,
    /// When it arrived here.
    pub received: Received,
    /// Added to the device's time to get the moment of the reading, in milliseconds; 0 unless a
    /// known offset of the device's clock was applied.
    pub correction_ms: i64,
}

impl ReadingTime {
    /// The moment of the reading: the device's time corrected, else our wall clock. `None` while
    /// neither can be trusted: such a reading is held, not guessed.
    #[must_use]
    pub fn effective(&self) -> Option<UnixMs> {
        match self.device {
            Some(device) => Some(device.unix_ms.plus_ms(self.correction_ms)),
            None if self.received.trust == ClockTrust::Unset => None,
            None => Some(self.received.wall),
        }
    }

    /// Offset from UTC in minutes to show the moment with.
    #[must_use]
    pub fn offset_minutes(&self) -> i16 {
        self.device.and_then(|device| device.offset_minutes).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_written_with_the_offset_the_device_gave() {
        assert_eq!(UnixMs(1_795_341_600_120).rfc3339(60), "2026-11-22T11:00:00.120+01:00");
        assert_eq!(UnixMs(0).rfc3339(0), "1970-01-01T00:00:00.000+00:00");
        assert!(UnixMs(i64::MAX).rfc3339(0).starts_with("9999-"));
        assert!(UnixMs(i64::MIN).rfc3339(0).starts_with("0001-"));
    }

    #[test]
    fn without_device_time_and_without_a_set_clock_there_is_no_moment() {
        let received = Received { wall: UnixMs(5), monotonic_ms: 7, boot: BootId::from_bytes([1; 16]), trust: ClockTrust::Unset };
        let time = ReadingTime { device: None, received, correction_ms: 0 };
        assert_eq!(time.effective(), None);
    }
}
