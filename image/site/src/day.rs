//! A day of the calendar, UTC.

use std::fmt;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

/// A day: the last one on which something is valid, or today.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(Date);

impl Day {
    /// Reads `2026-12-31`; nothing else is a day.
    pub fn parse(text: &str) -> Option<Self> {
        let well_formed = text.len() == "2026-12-31".len() && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
        if well_formed { text.parse().ok().map(Self) } else { None }
    }

    /// The day of a moment in Unix milliseconds; what no calendar holds becomes 1970-01-01.
    pub fn from_unix_ms(unix_ms: i64) -> Self {
        let moment = Timestamp::from_millisecond(unix_ms).unwrap_or(Timestamp::UNIX_EPOCH);
        Self(moment.to_zoned(TimeZone::UTC).date())
    }
}

impl fmt::Display for Day {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_day_of_the_calendar_is_one() {
        assert_eq!(Day::parse("2024-02-29").unwrap().to_string(), "2024-02-29");
        for bad in ["2023-02-29", "2026-1-1", "26-01-01", "2026-12-31T00", "2026-13-01", "", "+02026-1-1", "2026-12-3x"] {
            assert_eq!(Day::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_moment_has_its_day() {
        assert_eq!(Day::from_unix_ms(0).to_string(), "1970-01-01");
        assert_eq!(Day::from_unix_ms(1_798_761_599_999).to_string(), "2026-12-31");
        assert!(Day::parse("2026-12-31").unwrap() < Day::from_unix_ms(1_798_761_600_000));
        assert_eq!(Day::from_unix_ms(i64::MIN).to_string(), "1970-01-01");
    }
}
