//! Nothing of a patient leaves the appliance: references are taken out of everything that is gathered,
//! even though no part writes them.

use vitalgate_site::Site;

/// What stands in their place.
const INSTEAD: &str = "[patient]";
/// What a FHIR reference to a patient begins with.
const REFERENCE: &str = "Patient/";
/// The key of a device's patient in the daemon's configuration.
const PATIENT: &str = "patient";
/// Shortest text that is looked for: shorter ones would hit everything.
const CHARS_MIN: usize = 3;
/// JSON within JSON: a message of the journal that is JSON itself.
const TIMES_ESCAPED_MAX: usize = 2;

/// Why a configuration is left out.
const NOT_READABLE: &str = "it is no TOML, so its patients cannot be taken out";

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
        for patient in devices.iter().filter_map(|device| device.get(PATIENT)) {
            match patient {
                toml::Value::String(text) => words.push(text.trim_start_matches(REFERENCE).to_owned()),
                other => words.extend(other.get("value").and_then(toml::Value::as_str).map(str::to_owned)),
            }
        }
        words.retain(|word| word.chars().count() >= CHARS_MIN);
        let mut words: Vec<String> = words.iter().flat_map(|word| spellings(word)).collect();
        words.sort_by_key(|word| std::cmp::Reverse(word.len()));
        words.dedup();
        Self { words }
    }

    /// The text without them.
    pub(super) fn apply(&self, text: &str) -> String {
        let known = self.words.iter().fold(text.to_owned(), |text, word| text.replace(word.as_str(), INSTEAD));
        without_references(&known)
    }

    /// The daemon's configuration without them: its patients are known by their place, however short or spelt.
    ///
    /// # Errors
    /// When it is no TOML. Why is not said: that would repeat what is in it.
    pub(super) fn apply_to_configuration(&self, text: &str) -> Result<String, String> {
        let mut table: toml::Table = text.parse().map_err(|_quoting| NOT_READABLE)?;
        without_patients(&mut table);
        Ok(self.apply(&toml::to_string(&table).map_err(|_quoting| NOT_READABLE)?))
    }
}

/// The word as it is, and as it stands in texts of JSON and TOML.
fn spellings(word: &str) -> Vec<String> {
    let escaped = |text: &String| {
        let quoted = serde_json::Value::from(text.as_str()).to_string();
        Some(quoted.strip_prefix('"')?.strip_suffix('"')?.to_owned())
    };
    std::iter::successors(Some(word.to_owned()), escaped).take(1 + TIMES_ESCAPED_MAX).collect()
}

/// Takes out whatever stands under the key, at any depth.
fn without_patients(table: &mut toml::Table) {
    for (key, value) in table {
        match value {
            value if key == PATIENT => *value = INSTEAD.into(),
            toml::Value::Table(inner) => without_patients(inner),
            toml::Value::Array(items) => items.iter_mut().filter_map(toml::Value::as_table_mut).for_each(without_patients),
            _ => {}
        }
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

    /// The site with another patient at its first device.
    fn with_patient(patient: &str) -> Site {
        let text = crate::provision::SITE_EXAMPLE.replacen("\"Patient/4711\"", patient, 1);
        assert!(text.contains(patient), "{text}");
        SiteFile::check(&text, "site").unwrap()
    }

    /// An identifier of two characters is a patient's as well, and so is one that TOML and JSON spell otherwise.
    #[test]
    fn no_patient_is_left_in_the_configuration() {
        for patient in
            [r#"{ system = "urn:oid:1.2.3", value = "17" }"#, r#"{ system = "urn:oid:1.2.3", value = "A\"B1" }"#, r#""Patient/17""#]
        {
            let site = with_patient(patient);
            let own = vitalgate_site::render_daemon_config(&site);
            assert!(own.contains("urn:oid:1.2.3") || own.contains("Patient/17"), "{own}");
            // Also where the site file cannot be read any more.
            for redaction in [Redaction::of(Some(&site)), Redaction::of(None)] {
                let clean = redaction.apply_to_configuration(&own).unwrap();
                let patients: Vec<_> = clean.lines().filter(|line| line.contains(PATIENT)).collect();
                assert_eq!(patients, ["patient = \"[patient]\""], "{clean}");
                assert!(clean.contains("id = \"monitor-01\"") && !clean.contains("1.2.3"), "{clean}");
            }
        }
        let no_toml = Redaction::of(None).apply_to_configuration("patient = { value = \"17\"\n");
        assert_eq!(no_toml, Err(NOT_READABLE.to_owned()));
    }

    /// What a program quotes is found however often it was quoted.
    #[test]
    fn no_patient_is_left_in_its_escaped_spelling() {
        let redaction = Redaction::of(Some(&with_patient(r#"{ system = "urn:oid:1.2.3", value = "A\"B1" }"#)));
        let text = r#"A"B1; {"id":"A\"B1"}; {"MESSAGE":"{\"id\":\"A\\\"B1\"}"}"#;
        assert_eq!(redaction.apply(text), r#"[patient]; {"id":"[patient]"}; {"MESSAGE":"{\"id\":\"[patient]\"}"}"#);
    }
}
