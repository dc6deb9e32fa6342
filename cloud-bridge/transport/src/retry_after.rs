//! `Retry-After` (RFC 9110 section 10.2.3): seconds or a date.

use http::HeaderMap;
use http::header::{DATE, RETRY_AFTER};
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;

/// Longest wait that a server can ask for, in milliseconds: an hour. What is longer comes round again.
pub(crate) const RETRY_AFTER_MS_MAX: u64 = 3_600_000;

/// The wait in milliseconds. A date is taken relative to the answer's own `Date`, so that our clock,
/// which may never have been set, does not matter; without it, the date says nothing.
pub(crate) fn retry_after_ms(headers: &HeaderMap) -> Option<u64> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than fit are a very long wait.
        let seconds = text.parse::<u64>().unwrap_or(u64::MAX);
        return Some(seconds.saturating_mul(1_000).min(RETRY_AFTER_MS_MAX));
    }
    let until = instant(text)?;
    let now = instant(headers.get(DATE)?.to_str().ok()?)?;
    let wait = until.as_millisecond().saturating_sub(now.as_millisecond());
    Some(u64::try_from(wait).unwrap_or(0).min(RETRY_AFTER_MS_MAX))
}

fn instant(text: &str) -> Option<Timestamp> {
    static PARSER: DateTimeParser = DateTimeParser::new();
    PARSER.parse_timestamp(text.trim()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(retry: &str, date: Option<&str>) -> Option<u64> {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, retry.parse().unwrap());
        if let Some(date) = date {
            headers.insert(DATE, date.parse().unwrap());
        }
        retry_after_ms(&headers)
    }

    #[test]
    fn a_wait_is_read_as_seconds_or_as_a_date_of_the_servers_own_clock() {
        assert_eq!(wait("7", None), Some(7_000));
        assert_eq!(wait("Sun, 22 Nov 2026 10:00:30 GMT", Some("Sun, 22 Nov 2026 10:00:00 GMT")), Some(30_000));
        assert_eq!(wait("Sun, 22 Nov 2026 09:00:30 GMT", Some("Sun, 22 Nov 2026 10:00:00 GMT")), Some(0), "already past");
        assert_eq!(wait("Sun, 22 Nov 2026 10:00:30 GMT", None), None);
    }

    #[test]
    fn no_server_can_make_us_wait_for_ever() {
        assert_eq!(wait("999999999999999999999999", None), Some(RETRY_AFTER_MS_MAX));
        assert_eq!(wait("Fri, 22 Nov 2999 10:00:30 GMT", Some("Sun, 22 Nov 2026 10:00:00 GMT")), Some(RETRY_AFTER_MS_MAX));
        for bad in ["", "-5", "soon", "1.5"] {
            assert_eq!(wait(bad, Some("Sun, 22 Nov 2026 10:00:00 GMT")), None, "{bad:?}");
        }
    }
}
