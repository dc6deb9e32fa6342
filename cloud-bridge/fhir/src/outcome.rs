//! What a server says about a refusal, cut down to what may be kept.
//!
//! `diagnostics` and `details.text` may quote what was sent. They are kept, bounded and with patient
//! references blanked, only where they go to a dead letter; everything else sees the codes alone.

use serde::Deserialize;
use vitalgate_domain::PatientReference;

use crate::bounded::First;

/// Longest text that is kept of one issue, in characters.
pub const OUTCOME_TEXT_CHARS_MAX: usize = 240;
/// Issues of one outcome that are looked at.
const ISSUES_MAX: usize = 4;
/// Expressions of one issue that are looked at.
const EXPRESSIONS_MAX: usize = 3;
/// Longest code or expression, in characters.
const CODE_CHARS_MAX: usize = 64;

/// An OperationOutcome (R4); any other resource parses as one without issues.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Outcome {
    #[serde(default)]
    issue: First<Issue, ISSUES_MAX>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Issue {
    severity: Option<String>,
    code: Option<String>,
    diagnostics: Option<String>,
    details: Option<Details>,
    expression: First<String, EXPRESSIONS_MAX>,
    location: First<String, EXPRESSIONS_MAX>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Details {
    text: Option<String>,
    coding: First<DetailCoding, EXPRESSIONS_MAX>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct DetailCoding {
    code: Option<String>,
    display: Option<String>,
}

impl Outcome {
    /// From a whole answer; what is no outcome says nothing.
    pub(crate) fn parse(body: &[u8]) -> Self {
        serde_json::from_slice(body).unwrap_or_default()
    }

    /// Whether it says anything at all.
    pub(crate) fn is_stated(&self) -> bool {
        !self.issue.0.is_empty()
    }

    /// The issues that refuse something. One that does not say how severe it is counts as an error.
    pub(crate) fn errors(&self) -> impl Iterator<Item = &Issue> {
        self.issue.0.iter().filter(|issue| !matches!(issue.severity.as_deref(), Some("warning" | "information")))
    }

    /// Whether any issue has this code (R4 value set `issue-type`).
    pub(crate) fn has_code(&self, code: &str) -> bool {
        self.issue.0.iter().any(|issue| issue.has_code(code))
    }

    /// All words of all issues in lower case, to look for a known phrase.
    pub(crate) fn words(&self) -> String {
        self.issue.0.iter().map(Issue::words).collect()
    }

    /// Severities and codes only: fit for a log line, an alarm or a metric.
    pub(crate) fn codes(&self) -> String {
        let parts: Vec<String> =
            self.issue.0.iter().map(|issue| format!("{}/{}", symbol(issue.severity.as_deref()), symbol(issue.code.as_deref()))).collect();
        parts.join(", ")
    }

    /// Codes, places and bounded texts with patient references blanked: for a dead letter, never for a log.
    pub(crate) fn explanation(&self, patient: &PatientReference) -> String {
        let mut parts = Vec::new();
        for issue in &self.issue.0 {
            let mut part = format!("{}/{}", symbol(issue.severity.as_deref()), symbol(issue.code.as_deref()));
            for place in issue.places() {
                part.push_str(" at ");
                part.push_str(&cleaned(place, patient, CODE_CHARS_MAX));
            }
            for text in issue.texts() {
                part.push_str(": ");
                part.push_str(&cleaned(text, patient, OUTCOME_TEXT_CHARS_MAX));
            }
            parts.push(part);
        }
        parts.join("; ")
    }
}

impl Issue {
    pub(crate) fn has_code(&self, code: &str) -> bool {
        self.code.as_deref() == Some(code)
            || self.details.iter().flat_map(|details| &details.coding.0).any(|coding| coding.code.as_deref() == Some(code))
    }

    /// All its words in lower case, to look for a known phrase.
    pub(crate) fn words(&self) -> String {
        let mut words = String::new();
        for text in self.texts().chain(self.places()) {
            words.extend(text.chars().take(4 * OUTCOME_TEXT_CHARS_MAX).flat_map(char::to_lowercase));
            words.push('\n');
        }
        words
    }

    fn texts(&self) -> impl Iterator<Item = &str> {
        let details = self.details.iter();
        let displays = details.clone().flat_map(|details| &details.coding.0).filter_map(|coding| coding.display.as_deref());
        details.filter_map(|details| details.text.as_deref()).chain(self.diagnostics.as_deref()).chain(displays)
    }

    fn places(&self) -> impl Iterator<Item = &str> {
        self.expression.0.iter().chain(&self.location.0).map(String::as_str)
    }
}

/// Severities and codes of an answer that is an OperationOutcome, fit for a log line; empty for any other.
#[must_use]
pub fn outcome_codes(body: &[u8]) -> String {
    Outcome::parse(body).codes()
}

/// A code as the value sets write them; anything else could carry data and becomes `?`.
fn symbol(code: Option<&str>) -> &str {
    let is_symbol = |code: &&str| {
        !code.is_empty() && code.len() <= CODE_CHARS_MAX && code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')
    };
    code.filter(is_symbol).unwrap_or("?")
}

fn cleaned(text: &str, patient: &PatientReference, chars_max: usize) -> String {
    let mut text = blank_patient_ids(text);
    if let PatientReference::Identifier { value, .. } = patient
        && value.len() >= 3
    {
        text = text.replace(value.as_ref(), "***");
    }
    text.chars().map(|character| if character.is_control() { ' ' } else { character }).take(chars_max).collect()
}

/// `Patient/4711` becomes `Patient/***`, wherever it stands.
fn blank_patient_ids(text: &str) -> String {
    const HEAD: &str = "Patient/";
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(HEAD) {
        let (before, from) = rest.split_at(at);
        let after = from.get(HEAD.len()..).unwrap_or_default();
        out.push_str(before);
        out.push_str("Patient/***");
        rest = after.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_'));
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patient_is_blanked_in_what_is_kept_and_absent_from_what_is_logged() {
        let body = br#"{"resourceType":"OperationOutcome","issue":[{"severity":"error","code":"not-found",
            "diagnostics":"Resource Patient/4711 not found, identifier 1234010180","expression":["Bundle.entry[0].resource.subject"]}]}"#;
        let outcome = Outcome::parse(body);
        let patient = PatientReference::Identifier { system: "urn:oid:1.2".into(), value: "1234010180".into() };
        let kept = outcome.explanation(&patient);
        assert_eq!(kept, "error/not-found at Bundle.entry[0].resource.subject: Resource Patient/*** not found, identifier ***");
        assert_eq!(outcome.codes(), "error/not-found");
    }

    #[test]
    fn a_code_that_is_none_cannot_carry_data_into_a_log() {
        assert_eq!(outcome_codes(br#"{"issue":[{"severity":"Max Muster","code":"invalid"}]}"#), "?/invalid");
        assert_eq!(outcome_codes(b"<html>"), "");
    }

    #[test]
    fn what_is_kept_is_bounded_however_much_was_said() {
        let long = "x".repeat(100_000);
        let issue = format!(r#"{{"severity":"error","code":"invalid","diagnostics":"{long}","expression":["{long}","{long}"]}}"#);
        let body = format!(r#"{{"issue":[{}]}}"#, vec![issue; 50].join(","));
        let outcome = Outcome::parse(body.as_bytes());
        assert!(outcome.explanation(&PatientReference::Literal("Patient/1".into())).len() < 2_048);
    }
}
