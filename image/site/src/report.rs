//! Reports that an appliance signs with a key of its own: commissioning, erasure, what became of a file.
//!
//! The signature proves that nothing was changed since the appliance wrote it. That the key is the
//! appliance's is proven by comparing its fingerprint with the one on the console.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use vitalgate_layout::Rejection;

use crate::key::{PublicKey, SIGNATURE_BYTES, SigningKey, from_hex, to_hex};
use crate::refusal::SiteRefusal;
use crate::signature::{Purpose, normalised, open_any, sign_detached, sign_with_key, verifies_detached};

/// Largest report in bytes (1 MiB).
pub const REPORT_BYTES_MAX: usize = 1024 * 1024;
/// How a signed JSON report calls its own form.
const FORMAT: &str = "vitalgate-report-1";

/// A report whose signature holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// What it says: text, or the JSON as it was signed.
    pub text: String,
    /// Whether it is JSON.
    pub json: bool,
    /// The key; that it is the appliance's is for the reader to compare.
    pub signed_by: PublicKey,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<'a> {
    format: String,
    signed_by: String,
    signature: String,
    #[serde(borrow)]
    report: &'a RawValue,
}

/// Signs a JSON object; the result is JSON as well.
///
/// # Errors
/// Why the text is no JSON object.
pub fn seal_report_json(report: &str, key: &SigningKey) -> Result<String, serde_json::Error> {
    let normal = normalised(report);
    let raw: &RawValue = serde_json::from_str(normal.trim())?;
    if !raw.get().starts_with('{') {
        return Err(serde::de::Error::custom("a report is a JSON object"));
    }
    let signature = to_hex(&sign_detached(key, Purpose::Report, raw.get()));
    let envelope = Envelope { format: FORMAT.to_owned(), signed_by: key.public().to_hex(), signature, report: raw };
    serde_json::to_string(&envelope).map(|text| text + "\n")
}

/// Signs a text; the signature stands at its end as comment lines.
pub fn seal_report_text(report: &str, key: &SigningKey) -> String {
    sign_with_key(key, Purpose::Report, report)
}

/// Opens a signed report of either form.
///
/// # Errors
/// A refusal: not readable, too large, no signature, or one that does not hold.
pub fn open_report(bytes: &[u8]) -> Result<Report, SiteRefusal> {
    if bytes.len() > REPORT_BYTES_MAX {
        return Err(SiteRefusal::new(Rejection::TooLarge, format!("a report has at most {REPORT_BYTES_MAX} bytes")));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| SiteRefusal::new(Rejection::NotReadable, "it is not UTF-8 text"))?;
    let text = normalised(text);
    if !text.trim_start().starts_with('{') {
        let (text, signed_by, _) = open_any(&text, Purpose::Report)?;
        return Ok(Report { text, json: false, signed_by });
    }
    let no_signature = || SiteRefusal::new(Rejection::NoSignature, "it is JSON, but no signed report");
    let envelope: Envelope<'_> = serde_json::from_str(&text).map_err(|_| no_signature())?;
    let signed_by = PublicKey::parse(&envelope.signed_by).map_err(|_| no_signature())?;
    let signature = from_hex::<SIGNATURE_BYTES>(&envelope.signature).ok_or_else(no_signature)?;
    let report = envelope.report.get();
    if envelope.format != FORMAT || !verifies_detached(&signed_by, Purpose::Report, report, &signature) {
        return Err(SiteRefusal::new(Rejection::SignatureWrong, ""));
    }
    Ok(Report { text: report.to_owned(), json: true, signed_by })
}
