//! The clock that certificates are judged by.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;

/// 2026-01-01T00:00:00Z in seconds since 1970. No gateway of this version ran before; a box without a
/// battery-backed clock starts in 1970 or at its build time, and must still know its devices.
pub const FLOOR_UNIX_S: u64 = 1_767_225_600;
/// 2100-01-01T00:00:00Z: a clock beyond it is wrong, and certificates could not be dated by it.
const CEILING_UNIX_S: u64 = 4_102_444_800;

/// The system's wall clock, but never before [`FLOOR_UNIX_S`].
#[derive(Debug)]
pub(crate) struct FlooredClock;

impl TimeProvider for FlooredClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(now_unix_s())))
    }
}

/// A clock that stands still, at these seconds since 1970.
#[derive(Debug)]
pub(crate) struct ClockAt(pub(crate) u64);

impl TimeProvider for ClockAt {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(self.0)))
    }
}

/// Seconds since 1970, from [`FLOOR_UNIX_S`] to the year 2100.
pub(crate) fn now_unix_s() -> u64 {
    bounded(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()))
}

/// A wall clock's seconds since 1970 within these bounds.
pub(crate) fn bounded(shown_unix_s: u64) -> u64 {
    shown_unix_s.clamp(FLOOR_UNIX_S, CEILING_UNIX_S)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_lost_its_battery_does_not_make_every_certificate_too_young() {
        assert_eq!(bounded(0), FLOOR_UNIX_S);
        assert_eq!(bounded(FLOOR_UNIX_S + 7), FLOOR_UNIX_S + 7);
        assert_eq!(bounded(u64::MAX), CEILING_UNIX_S);
    }
}
