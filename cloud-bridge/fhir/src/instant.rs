//! A moment as FHIR's `dateTime` and `instant`, straight into the buffer.

use vitalgate_domain::UnixMs;

const DAY_MS: i64 = 86_400_000;
/// Two days inside the years 1 to 9999, so that any offset still gives a four-digit year.
const FIRST_MS: i64 = -62_135_596_800_000 + 2 * DAY_MS;
const LAST_MS: i64 = 253_402_300_799_999 - 2 * DAY_MS;
/// Largest offset from UTC that FHIR's `dateTime` can carry, in minutes (R4 datatypes: 14:00).
const OFFSET_MINUTES_MAX: u16 = 14 * 60;

/// Appends RFC 3339 with milliseconds. An offset that FHIR cannot carry is shown as UTC: the moment stays the same.
pub(crate) fn push_instant(out: &mut Vec<u8>, moment: UnixMs, offset_minutes: i16) {
    let offset = if offset_minutes.unsigned_abs() <= OFFSET_MINUTES_MAX { i64::from(offset_minutes) } else { 0 };
    let local_ms = moment.0.clamp(FIRST_MS, LAST_MS) + offset * 60_000;
    let (year, month, day) = civil(local_ms.div_euclid(DAY_MS));
    let of_day = local_ms.rem_euclid(DAY_MS);
    digits::<4>(out, year);
    out.push(b'-');
    digits::<2>(out, month);
    out.push(b'-');
    digits::<2>(out, day);
    out.push(b'T');
    digits::<2>(out, of_day / 3_600_000);
    out.push(b':');
    digits::<2>(out, of_day / 60_000 % 60);
    out.push(b':');
    digits::<2>(out, of_day / 1_000 % 60);
    out.push(b'.');
    digits::<3>(out, of_day % 1_000);
    out.push(if offset < 0 { b'-' } else { b'+' });
    digits::<2>(out, offset.abs() / 60);
    out.push(b':');
    digits::<2>(out, offset.abs() % 60);
}

/// Year, month and day of a count of days since 1970-01-01 in the proleptic Gregorian calendar,
/// by eras of 400 years that begin in March.
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

fn digits<const WIDTH: usize>(out: &mut Vec<u8>, value: i64) {
    let mut text = [b'0'; WIDTH];
    let mut rest = value.unsigned_abs();
    for place in text.iter_mut().rev() {
        *place = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
    }
    out.extend_from_slice(&text);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(moment: i64, offset: i16) -> String {
        let mut out = Vec::new();
        push_instant(&mut out, UnixMs(moment), offset);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_offset_beyond_what_fhir_carries_is_shown_as_utc() {
        assert_eq!(text(1_795_341_600_120, 60), "2026-11-22T11:00:00.120+01:00");
        assert_eq!(text(1_795_341_600_120, 841), "2026-11-22T10:00:00.120+00:00");
        assert_eq!(text(951_782_400_000, -840), "2000-02-28T10:00:00.000-14:00");
    }

    proptest! {
        /// Our own formatter writes what the domain's slower one writes, for every instant and offset.
        #[test]
        fn the_text_is_the_one_of_the_calendar(moment in any::<i64>(), near in -70_000_000_000_000_i64..260_000_000_000_000, offset in -840_i16..=840) {
            prop_assert_eq!(text(moment, offset), UnixMs(moment).rfc3339(offset));
            prop_assert_eq!(text(near, offset), UnixMs(near).rfc3339(offset));
        }
    }
}
