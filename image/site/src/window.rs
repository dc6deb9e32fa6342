//! When the appliance may restart for an update.

use std::fmt;

/// Minutes of a day.
const DAY_MINUTES: u32 = 24 * 60;
/// The days as they are written, Monday first.
pub(crate) const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// A span of the day, UTC; it may go over midnight and belongs to the day on which it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    from_minute: u32,
    until_minute: u32,
    /// Monday first.
    days: [bool; 7],
}

impl Window {
    /// Reads `02:00-04:00` and day words (none: every day).
    pub fn parse(span: &str, days: &[&str]) -> Option<Self> {
        let (from, until) = span.split_once('-')?;
        let (from_minute, until_minute) = (minute(from)?, minute(until)?);
        let mut open = [days.is_empty(); 7];
        for day in days {
            *open.get_mut(DAYS.iter().position(|word| word == day)?)? = true;
        }
        (from_minute != until_minute).then_some(Self { from_minute, until_minute, days: open })
    }

    /// Whether a moment in Unix milliseconds lies in it.
    pub fn is_open(&self, unix_ms: i64) -> bool {
        let minutes = unix_ms.div_euclid(60_000);
        let minute = u32::try_from(minutes.rem_euclid(i64::from(DAY_MINUTES))).unwrap_or(0);
        // 1970-01-01 was a Thursday.
        let weekday = usize::try_from((minutes.div_euclid(i64::from(DAY_MINUTES)) + 3).rem_euclid(7)).unwrap_or(0);
        let on = |day: usize| self.days.get(day % 7).copied().unwrap_or(false);
        if self.from_minute < self.until_minute {
            on(weekday) && (self.from_minute..self.until_minute).contains(&minute)
        } else {
            (on(weekday) && minute >= self.from_minute) || (on(weekday + 6) && minute < self.until_minute)
        }
    }
}

fn minute(text: &str) -> Option<u32> {
    let (hours, minutes) = text.trim().split_once(':')?;
    let two = |text: &str| if text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse::<u32>().ok() } else { None };
    let (hours, minutes) = (two(hours)?, two(minutes)?);
    (hours < 24 && minutes < 60).then_some(hours * 60 + minutes)
}

impl fmt::Display for Window {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (from, until) = (self.from_minute, self.until_minute);
        write!(formatter, "{:02}:{:02}-{:02}:{:02} UTC", from / 60, from % 60, until / 60, until % 60)?;
        if self.days.contains(&false) {
            let words: Vec<_> = DAYS.iter().zip(self.days).filter(|(_, open)| *open).map(|(word, _)| *word).collect();
            write!(formatter, " on {}", words.join(", "))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-22 is a Sunday.
    const SUNDAY_MS: i64 = 1_795_305_600_000;
    const HOUR_MS: i64 = 3_600_000;

    #[test]
    fn a_window_opens_and_closes() {
        let window = Window::parse("02:00-04:00", &[]).unwrap();
        for (hours, open) in [(1, false), (2, true), (3, true), (4, false)] {
            assert_eq!(window.is_open(SUNDAY_MS + hours * HOUR_MS), open, "{hours}");
        }
    }

    #[test]
    fn a_window_over_midnight_belongs_to_the_day_it_begins() {
        let window = Window::parse("23:00-01:00", &["sat"]).unwrap();
        assert!(window.is_open(SUNDAY_MS - HOUR_MS / 2), "Saturday 23:30");
        assert!(window.is_open(SUNDAY_MS + HOUR_MS / 2), "Sunday 00:30");
        assert!(!window.is_open(SUNDAY_MS + 23 * HOUR_MS), "Sunday 23:00");
        assert!(!window.is_open(SUNDAY_MS - 24 * HOUR_MS + HOUR_MS / 2), "Saturday 00:30");
        assert_eq!(window.to_string(), "23:00-01:00 UTC on sat");
    }

    #[test]
    fn what_is_no_window_is_none() {
        for (span, days) in
            [("2-4", vec![]), ("02:00-24:00", vec![]), ("02:00-02:00", vec![]), ("02:00", vec![]), ("02:00-03:00", vec!["someday"])]
        {
            assert_eq!(Window::parse(span, &days), None, "{span}");
        }
    }
}
