//! Nothing of a patient leaves the appliance: references are taken out of everything that is gathered,
//! even though no part writes them.

use vitalgate_site::Site;

/// What stands in their place.
const INSTEAD: &str = "[patient]";
/// What a FHIR reference to a patient begins with.
const REFERENCE: &str = "Patient/";
/// Shortest text that is looked for: shorter ones would hit everything.
const CHARS_MIN: usize = 3;

/// What to take out.
pub(super) struct Redaction {
    words: Vec<String>,
}

impl Redaction {
    /// For a site: what its devices' patients are called. The daemon's configuration is what names them.
    pub(super) fn of(site: Option<&Site>) -> Self {
        let rendered = site.map(vitalgate_site::render_daemon_config).unwrap_or_default();
        let table: toml::Table = rendered.parse().unwrap_or_default();
        let devices = table.get("device").and_then(toml::Value::as_array).cloned().unwrap_or_default();
        let mut words = Vec::new();
        for patient in devices.iter().filter_map(|device| device.get("patient")) {
            match patient {
                toml::Value::String(text) => words.push(text.trim_start_matches(REFERENCE).to_owned()),
                other => words.extend(other.get("value").and_then(toml::Value::as_str).map(str::to_owned)),
            }
        }
        words.retain(|word| word.chars().count() >= CHARS_MIN);
        words.sort_by_key(|word| std::cmp::Reverse(word.len()));
        Self { words }
    }

    /// The text without them.
    pub(super) fn apply(&self, text: &str) -> String {
        let known = self.words.iter().fold(text.to_owned(), |text, word| text.replace(word.as_str(), INSTEAD));
        without_references(&known)
    }
}

/// Takes out references to patients that nobody configured.
fn without_references(text: &str) -> String {
    let mut pieces = text.split(REFERENCE);
    let mut clean = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let end = piece
            .find(|character: char| !(character.is_ascii_alphanumeric() || matches!(character, '-' | '.' | '_')))
            .unwrap_or(piece.len());
        clean.push_str(if piece.starts_with(INSTEAD) { REFERENCE } else { "Patient/[patient]" });
        clean.push_str(piece.get(if piece.starts_with(INSTEAD) { 0 } else { end }..).unwrap_or_default());
    }
    clean
}

#[cfg(test)]
mod tests {
    use vitalgate_site::SiteFile;

    use super::*;

    /// Whoever is configured and whoever is not: neither leaves.
    #[test]
    fn no_patient_is_left() {
        let site = SiteFile::check(crate::provision::SITE_EXAMPLE, "site").unwrap();
        let redaction = Redaction::of(Some(&site));
        let text = "device monitor-01 of Patient/4711 and 4711; Patient/other-1: lost, Patient/";
        assert_eq!(
            redaction.apply(text),
            "device monitor-01 of Patient/[patient] and [patient]; Patient/[patient]: lost, Patient/[patient]"
        );
    }
}
