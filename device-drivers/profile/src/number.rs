//! Decimal numbers from text, digit by digit: no binary float in between.

use rust_decimal::Decimal;

/// Longest number text in bytes. A decimal holds 28 digits; the rest is sign, point, zeros and exponent.
const NUMBER_BYTES_MAX: usize = 64;
/// Largest exponent that can still give a value, either way.
const EXPONENT_MAX: i32 = 40;

/// The number as a decimal with the places it was written with (`37.0` keeps one place). `None`
/// when it is no number, or when it cannot be held exactly.
pub(crate) fn decimal(text: &str) -> Option<Decimal> {
    if text.len() > NUMBER_BYTES_MAX {
        return None;
    }
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    let value = plain(mantissa)?;
    match exponent {
        None => Some(value),
        Some(exponent) => shifted(value, exponent_of(exponent)?),
    }
}

/// `-?digits(.digits)?` and nothing else.
fn plain(text: &str) -> Option<Decimal> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').map_or((digits, None), |(whole, fraction)| (whole, Some(fraction)));
    let numeric = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !numeric(whole) || fraction.is_some_and(|fraction| !numeric(fraction)) {
        return None;
    }
    let mut value = Decimal::from_str_exact(text).ok()?;
    if value.is_zero() {
        value.set_sign_positive(true);
    }
    Some(value)
}

fn exponent_of(text: &str) -> Option<i32> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|exponent: &i32| exponent.abs() <= EXPONENT_MAX)
}

/// `value * 10^exponent`, exactly.
fn shifted(mut value: Decimal, exponent: i32) -> Option<Decimal> {
    let scale = i64::from(value.scale()) - i64::from(exponent);
    if let Ok(scale) = u32::try_from(scale) {
        value.set_scale(scale).ok()?;
        return Some(value);
    }
    let zeros = u32::try_from(-scale).ok()?;
    value.set_scale(0).ok()?;
    let factor = Decimal::try_from_i128_with_scale(10_i128.checked_pow(zeros)?, 0).ok()?;
    value.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_places_that_were_written_are_kept() {
        for text in ["37.0", "0.00", "-12.50", "72", "36.999999999999997", "0.0000000000000000000000000001"] {
            assert_eq!(decimal(text).unwrap().to_string(), text);
        }
        assert_eq!(decimal("-0.0").unwrap().to_string(), "0.0");
    }

    #[test]
    fn an_exponent_moves_the_point_and_nothing_else() {
        for (text, plain) in [("3.70e1", "37.0"), ("37e-1", "3.7"), ("1E+2", "100"), ("7.25e2", "725"), ("0e0", "0"), ("1.5e3", "1500")] {
            assert_eq!(decimal(text).unwrap().to_string(), plain);
        }
    }

    #[test]
    fn what_is_no_exact_decimal_is_refused_without_a_panic() {
        for text in [
            "",
            "-",
            "NaN",
            "inf",
            "1e400",
            "1e-30",
            "1e",
            "e1",
            "1_000",
            "+1",
            ".5",
            "1.",
            "0x10",
            "1e99999999999",
            "١",
            "99999999999999999999999999999",
            "0.00000000000000000000000000001",
            "1,5",
            "1 2",
            "--1",
            "1e40",
        ] {
            assert_eq!(decimal(text), None, "{text:?}");
        }
        assert_eq!(decimal(&"9".repeat(100_000)), None);
    }
}
