//! Figures for people: ages, sizes, days.

use vitalgate_layout::fact;

use super::Language;

const MINUTE_S: u64 = 60;
const HOUR_S: u64 = 60 * MINUTE_S;
const DAY_S: u64 = 24 * HOUR_S;

/// An age in its two largest units.
pub(crate) fn age(seconds: u64, language: Language) -> String {
    let day = language.pick("d", "T");
    let hour = language.pick("h", "Std");
    match seconds {
        0..MINUTE_S => format!("{seconds} s"),
        MINUTE_S..HOUR_S => format!("{} min", seconds / MINUTE_S),
        HOUR_S..DAY_S => format!("{} {hour} {} min", seconds / HOUR_S, seconds % HOUR_S / MINUTE_S),
        _ => format!("{} {day} {} {hour}", seconds / DAY_S, seconds % DAY_S / HOUR_S),
    }
}

/// An age as something that was.
pub(crate) fn ago(seconds: u64, language: Language) -> String {
    let age = age(seconds, language);
    match language {
        Language::English => format!("{age} ago"),
        Language::German => format!("vor {age}"),
    }
}

/// An age as something that lasts.
pub(crate) fn since(seconds: u64, language: Language) -> String {
    format!("{} {}", language.pick("for", "seit"), age(seconds, language))
}

/// A moment in UTC (RFC 3339, to the second) as `2026-11-22 10:00:00 UTC`; any other text as it is.
pub(crate) fn moment(text: &str) -> String {
    let whole = text.len() == "2026-11-22T10:00:00Z".len() && text.ends_with('Z') && text.parse::<jiff::Timestamp>().is_ok();
    if whole { text.replace('T', " ").replace('Z', " UTC") } else { text.to_owned() }
}

/// The name of a fact of a part.
pub(crate) fn fact(name: &str, language: Language) -> String {
    let (english, german) = match name {
        fact::TECHNICIAN => ("Technician", "Techniker"),
        fact::ACCEPTED => ("Accepted", "Angenommen"),
        fact::SIGNED_BY => ("Signed by", "Signiert von"),
        fact::SEALED => ("Sealed to the TPM", "An das TPM gebunden"),
        fact::FILE_SYSTEM => ("File system", "Dateisystem"),
        fact::UNSEALED_REASON => ("May be unsealed because", "Darf ungebunden sein, weil"),
        fact::VERSION => ("New version", "Neue Version"),
        fact::PERCENT => ("Percent", "Prozent"),
        fact::REPORT_KEY => ("Signs reports with", "Signiert Berichte mit"),
        fact::REPORT_KEY_PLACE => ("Key of reports", "Schlüssel der Berichte"),
        fact::TPM => ("TPM", "TPM"),
        fact::DEVICES => ("Devices", "Geräte"),
        other => return other_fact(other, language),
    };
    language.pick(english, german).to_owned()
}

/// Facts that are numbered or named by a device, and those of a later version.
fn other_fact(name: &str, language: Language) -> String {
    if let Some(number) = name.strip_prefix(fact::SOURCE_PREFIX) {
        return format!("{} {number}", language.pick("Source", "Quelle"));
    }
    if let Some(device) = name.strip_prefix(fact::DEVICE_PREFIX) {
        return format!("{} {device}", language.pick("Device", "Gerät"));
    }
    let words = name.replace(['_', '-'], " ");
    let mut letters = words.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

/// A number with its thousands apart.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// Bytes in binary units.
pub(crate) fn size(bytes: u64) -> String {
    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;
    if bytes >= GIB { format!("{}.{} GiB", bytes / GIB, bytes % GIB * 10 / GIB) } else { format!("{} MiB", bytes / MIB) }
}

/// Days until something runs out.
pub(crate) fn days(days: f64, language: Language) -> String {
    /// More is not worth a number.
    const DAYS_SHOWN_MAX: f64 = 365.0;
    let unit = language.pick("days", "Tage");
    match days {
        _ if days > DAYS_SHOWN_MAX => language.pick("more than a year", "mehr als ein Jahr").to_owned(),
        _ if days >= 10.0 => format!("{days:.0} {unit}"),
        _ if days >= 0.0 => format!("{} {unit}", format!("{days:.1}").replace('.', language.pick(".", ","))),
        _ => format!("0 {unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_read_well() {
        let english = |seconds| age(seconds, Language::English);
        assert_eq!([english(59), english(60), english(7_260), english(180_000)], ["59 s", "1 min", "2 h 1 min", "2 d 2 h"]);
        assert_eq!(ago(5, Language::German), "vor 5 s");
        assert_eq!((count(7), count(1_234_567)), ("7".to_owned(), "1\u{202f}234\u{202f}567".to_owned()));
        assert_eq!((size(1_610_612_736), size(5_242_880)), ("1.5 GiB".to_owned(), "5 MiB".to_owned()));
        assert_eq!(moment("2026-11-22T15:07:01Z"), "2026-11-22 15:07:01 UTC");
        assert_eq!([moment(""), moment("ZT-2000Z"), moment("site root 5f1c")], ["", "ZT-2000Z", "site root 5f1c"]);
        let named = |name| fact(name, Language::German);
        assert_eq!([named("source-2"), named("device_m_1"), named("secure_boot"), named("")], ["Quelle 2", "Gerät m_1", "Secure boot", ""]);
        let left = |number| days(number, Language::English);
        assert_eq!([left(4_000.0), left(41.6), left(0.25), left(-1.0)], ["more than a year", "42 days", "0.2 days", "0 days"]);
    }
}
