//! The device's own time: its formats, and the bounds within which it can be a time at all.

use jiff::civil::DateTime;
use jiff::fmt::temporal::Pieces;
use jiff::tz::Offset;
use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;
use vitalgate_domain::association::KEPT_MOMENT_MARGIN_MS;
use vitalgate_domain::{ClockTrust, DeviceTime, Flags, Received, UnixMs};

use crate::document::{Report, Section};
use crate::json::Scalar;
use crate::number;

/// Longest time text in bytes. It becomes part of the reading's identity.
const TIME_BYTES_MAX: usize = 64;
/// How far a device's clock may run ahead of ours before it is doubted, in milliseconds.
const AHEAD_MS: i64 = 120_000;
/// While our own clock follows no source, it may itself be behind by so much, in milliseconds.
const FREE_AHEAD_MS: i64 = 300_000;
const _: () = assert!(FREE_AHEAD_MS <= KEPT_MOMENT_MARGIN_MS, "a clock that is not doubted is off by less");
/// How old a device's reading may be before its clock is doubted, in days.
const AGE_DAYS: i64 = 30;
const DAY_MS: i64 = 86_400_000;

/// How the device writes its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    /// RFC 3339 with its offset.
    Rfc3339,
    /// Date and time without an offset, at the offset of the profile.
    Local(Offset),
    /// Milliseconds since 1970.
    UnixMs,
    /// Seconds since 1970, with decimals where the device has them.
    UnixSeconds,
}

/// The rule for the time of a message.
#[derive(Debug)]
pub(crate) struct TimeRule {
    formats: Vec<Format>,
    ahead_ms: i64,
    age_ms: i64,
}

impl TimeRule {
    /// Reads the keys of `[publish.time]` but for the field itself.
    pub(crate) fn load(section: &mut Section<'_>, report: &mut Report) -> Self {
        let zone = section.text(report, "zone");
        let offset = zone.as_ref().and_then(|zone| {
            let offset = offset_of(zone.value);
            if offset.is_none() {
                report.at(zone, format!("{:?} is not a fixed offset", zone.value), "write it like \"+01:00\"");
            }
            offset
        });
        let mut formats = Vec::new();
        for text in section.texts(report, "formats") {
            match (text.value, offset) {
                ("rfc3339", _) => formats.push(Format::Rfc3339),
                ("unix_ms", _) => formats.push(Format::UnixMs),
                ("unix_s", _) => formats.push(Format::UnixSeconds),
                ("local", Some(offset)) => formats.push(Format::Local(offset)),
                ("local", None) if zone.is_some() => {}
                ("local", None) => report.at(&text, "local time has no meaning without its offset", "add zone = \"+01:00\""),
                (other, _) => report.at(&text, format!("{other:?} is not a time format"), "use rfc3339, local, unix_ms or unix_s"),
            }
        }
        if formats.is_empty() {
            section.fault(report, "no time format is given", "add formats = [\"rfc3339\"]");
        }
        if formats.contains(&Format::UnixMs) && formats.contains(&Format::UnixSeconds) {
            section.fault(report, "a number cannot be both seconds and milliseconds", "keep one of unix_ms and unix_s");
        }
        let ahead_ms = section.integer(report, "ahead_ms_max", 0..=DAY_MS).map_or(AHEAD_MS, |at| at.value);
        let age_days = section.integer(report, "age_days_max", 1..=3_650).map_or(AGE_DAYS, |at| at.value);
        Self { formats, ahead_ms, age_ms: age_days * DAY_MS }
    }

    /// The time, with its text as the device sent it; `None` where it is not one of the formats or
    /// impossible (before February 2000 or from 2100 on).
    pub(crate) fn read<'a>(&self, sent: &'a Scalar<'_>) -> Option<(DeviceTime, &'a str)> {
        let (text, number) = match sent {
            Scalar::Text(text) => (text.as_ref(), None),
            Scalar::Number(text) => (*text, Some(number::decimal(text)?)),
            _ => return None,
        };
        if text.len() > TIME_BYTES_MAX {
            return None;
        }
        let time = self.formats.iter().find_map(|format| format.read(text, number))?;
        time.unix_ms.can_be_a_devices().then_some((time, text))
    }

    /// The marks of a time as seen from our own clock, where that was set. Nothing else decides about them.
    pub(crate) fn doubts(&self, time: DeviceTime, received: &Received) -> Flags {
        let ahead_ms = match received.trust {
            ClockTrust::Unset => return Flags::default(),
            ClockTrust::Free => self.ahead_ms.max(FREE_AHEAD_MS),
            ClockTrust::Synchronised | ClockTrust::Authenticated => self.ahead_ms,
        };
        let ours = received.wall.0;
        let doubtful = time.unix_ms.0 > ours.saturating_add(ahead_ms) || time.unix_ms.0 < ours.saturating_sub(self.age_ms);
        if doubtful { Flags::CLOCK_DOUBTFUL } else { Flags::default() }
    }
}

impl Format {
    fn read(self, text: &str, number: Option<Decimal>) -> Option<DeviceTime> {
        match self {
            Self::Rfc3339 => written(text, None),
            Self::Local(offset) => written(text, Some(offset)),
            Self::UnixMs => unix(number.or_else(|| number::decimal(text))?, Decimal::ONE),
            Self::UnixSeconds => unix(number.or_else(|| number::decimal(text))?, Decimal::ONE_THOUSAND),
        }
    }
}

fn unix(number: Decimal, factor: Decimal) -> Option<DeviceTime> {
    let unix_ms = number.checked_mul(factor)?.trunc().to_i64()?;
    Some(DeviceTime { unix_ms: UnixMs(unix_ms), offset_minutes: None })
}

/// A written date and time; one that needs an offset and has none is not taken.
fn written(text: &str, profile: Option<Offset>) -> Option<DeviceTime> {
    let pieces = Pieces::parse(text).ok()?;
    if pieces.time_zone_annotation().is_some_and(|zone| zone.is_critical()) {
        return None; // It may contradict the offset, and says that it must not be passed over.
    }
    let sent = pieces.to_numeric_offset();
    if sent.is_none() && pieces.time_zone_annotation().is_some() {
        return None; // It is of that zone, not of the profile's offset.
    }
    let offset = sent.or(profile)?;
    let moment = DateTime::from_parts(pieces.date(), pieces.time()?);
    let unix_ms = UnixMs(offset.to_timestamp(moment).ok()?.as_millisecond());
    let minutes = sent.and_then(|sent| i16::try_from(sent.seconds() / 60).ok());
    Some(DeviceTime { unix_ms, offset_minutes: minutes })
}

/// `+HH:MM` or `-HH:MM`.
fn offset_of(text: &str) -> Option<Offset> {
    let (sign, rest) = match text.split_at_checked(1)? {
        ("+", rest) => (1, rest),
        ("-", rest) => (-1, rest),
        _ => return None,
    };
    let (hours, minutes) = rest.split_once(':')?;
    let two = |part: &str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
    if !two(hours) || !two(minutes) {
        return None;
    }
    let (hours, minutes): (i32, i32) = (hours.parse().ok()?, minutes.parse().ok()?);
    if hours > 14 || minutes > 59 {
        return None;
    }
    Offset::from_seconds(sign * (hours * 3_600 + minutes * 60)).ok()
}

#[cfg(test)]
mod tests {
    use vitalgate_domain::BootId;

    use super::*;

    fn rule(formats: &[Format]) -> TimeRule {
        TimeRule { formats: formats.to_vec(), ahead_ms: AHEAD_MS, age_ms: AGE_DAYS * DAY_MS }
    }

    fn read(rule: &TimeRule, raw: &str) -> Option<(i64, Option<i16>)> {
        rule.read(&Scalar::of(raw)).map(|(time, _)| (time.unix_ms.0, time.offset_minutes))
    }

    #[test]
    fn every_format_gives_the_same_moment() {
        let moment = 1_795_338_000_120;
        let local = Format::Local(offset_of("+01:00").unwrap());
        assert_eq!(read(&rule(&[Format::Rfc3339]), "\"2026-11-22T10:00:00.120+01:00\""), Some((moment, Some(60))));
        assert_eq!(read(&rule(&[Format::Rfc3339]), "\"2026-11-22T09:00:00.120Z\""), Some((moment, Some(0))));
        assert_eq!(read(&rule(&[local]), "\"2026-11-22 10:00:00.120\""), Some((moment, None)));
        assert_eq!(read(&rule(&[Format::UnixMs]), "1795338000120"), Some((moment, None)));
        assert_eq!(read(&rule(&[Format::UnixSeconds]), "1795338000.1209"), Some((moment, None)));
        assert_eq!(read(&rule(&[Format::Rfc3339, Format::UnixMs]), "1795338000120"), Some((moment, None)));
    }

    #[test]
    fn what_cannot_be_a_time_is_none() {
        let both = rule(&[Format::Rfc3339, Format::UnixMs]);
        for raw in [
            "\"\"",
            "\"2026-11-22T10:00:00\"",
            "\"2026-11-22\"",
            "\"2026-02-30T10:00:00Z\"",
            "\"1970-01-01T00:00:12Z\"",
            "\"2000-01-31T23:59:59Z\"",
            "0",
            "1e30",
            "\"9999-12-31T23:59:59Z\"",
            "true",
            "[1]",
            "\"soon\"",
            "-5",
            "\"2026-11-22T25:00:00Z\"",
            "99999999999999999999",
        ] {
            assert_eq!(read(&both, raw), None, "{raw}");
        }
        assert_eq!(read(&both, &format!("\"2026-11-22T10:00:00.{}Z\"", "0".repeat(100))), None);
    }

    /// Promise 2: a time whose zone the profile cannot follow through summer and winter is not taken to be of the profile's offset.
    #[test]
    fn a_local_time_that_names_a_zone_of_its_own_is_no_time() {
        let local = rule(&[Format::Local(offset_of("+01:00").unwrap())]);
        for named in ["[Europe/Berlin]", "[!Europe/Berlin]", "[+02:00]", "[UTC]"] {
            assert_eq!(read(&local, &format!("\"2026-07-22T10:00:00{named}\"")), None, "{named}");
        }
        let with_its_offset = "\"2026-07-22T10:00:00+02:00[Europe/Berlin]\"";
        assert_eq!(read(&local, with_its_offset), read(&local, "\"2026-07-22T10:00:00+02:00\""));
        assert!(read(&local, with_its_offset).is_some());
    }

    /// Promise 2: a text that says itself that it means nothing without its zone (RFC 9557, section 3.4) is not taken by its offset alone,
    /// which may contradict it.
    #[test]
    fn a_time_whose_zone_must_be_heeded_is_no_time() {
        let rule = rule(&[Format::Rfc3339]);
        for critical in
            ["+01:00[!Europe/Berlin]", "+02:00[!Europe/Berlin]", "Z[!Europe/Berlin]", "+02:00[!+02:00]", "+02:00[!u-ca=iso8601]"]
        {
            assert_eq!(read(&rule, &format!("\"2026-07-22T10:00:00{critical}\"")), None, "{critical}");
        }
        let elective = "\"2026-07-22T10:00:00+02:00[Europe/Berlin][u-ca=iso8601]\"";
        assert_eq!(read(&rule, elective), read(&rule, "\"2026-07-22T10:00:00+02:00\""));
        assert!(read(&rule, elective).is_some());
    }

    #[test]
    fn a_clock_is_doubted_only_by_a_clock_that_was_set() {
        let rule = rule(&[Format::UnixMs]);
        let received = |trust| Received { wall: UnixMs(1_795_338_000_000), monotonic_ms: 1, boot: BootId::from_bytes([1; 16]), trust };
        let at = |unix_ms| DeviceTime { unix_ms: UnixMs(unix_ms), offset_minutes: None };
        let now = 1_795_338_000_000;
        for (unix_ms, doubtful) in
            [(now, false), (now + AHEAD_MS, false), (now + AHEAD_MS + 1, true), (now - 30 * DAY_MS, false), (now - 30 * DAY_MS - 1, true)]
        {
            assert_eq!(rule.doubts(at(unix_ms), &received(ClockTrust::Synchronised)).contains(Flags::CLOCK_DOUBTFUL), doubtful);
            assert_eq!(rule.doubts(at(unix_ms), &received(ClockTrust::Unset)), Flags::default());
        }
        let by_a_free_one = |unix_ms| rule.doubts(at(unix_ms), &received(ClockTrust::Free)).contains(Flags::CLOCK_DOUBTFUL);
        assert_eq!([now + FREE_AHEAD_MS, now + FREE_AHEAD_MS + 1].map(by_a_free_one), [false, true]);
        assert_eq!([now - 30 * DAY_MS, now - 30 * DAY_MS - 1].map(by_a_free_one), [false, true]);
    }
}
