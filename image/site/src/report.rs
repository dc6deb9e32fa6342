//! Reports that an appliance signs with a key of its own: commissioning, erasure, what became of a file.
//!
//! The signature proves that nothing was changed since the appliance wrote it. That the key is the
//! appliance's is proven by comparing its fingerprint with the one on the console.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use vitalgate_layout::Rejection;

use crate::key::{PublicKey, SIGNATURE_BYTES, from_hex, to_hex};
use crate::refusal::SiteRefusal;
use crate::signature::{Purpose, Signer, normalised, open_any, sign_report, verifies_detached};

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

/// Why a report is not signed.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// It is in no form that is signed.
    #[error("the report is no JSON object ({0})")]
    NotJson(#[from] serde_json::Error),
    /// The key is kept elsewhere and did not sign.
    #[error("the report is not signed: {0}")]
    NotSigned(String),
}

/// Signs a JSON object; the result is JSON as well.
///
/// # Errors
/// [`ReportError`]
pub fn seal_report_json(report: &str, signer: &Signer) -> Result<String, ReportError> {
    let normal = normalised(report);
    let raw: &RawValue = serde_json::from_str(normal.trim())?;
    if !raw.get().starts_with('{') {
        return Err(ReportError::NotJson(serde::de::Error::custom("it is another value")));
    }
    let signature = to_hex(&signer.signature(Purpose::Report, raw.get()).map_err(ReportError::NotSigned)?);
    let envelope = Envelope { format: FORMAT.to_owned(), signed_by: signer.public().to_hex(), signature, report: raw };
    Ok(serde_json::to_string(&envelope)? + "\n")
}

/// Signs a text; the signature stands at its end as comment lines.
///
/// # Errors
/// [`ReportError::NotSigned`]
pub fn seal_report_text(report: &str, signer: &Signer) -> Result<String, ReportError> {
    sign_report(signer, report).map_err(ReportError::NotSigned)
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
    let signed_by = PublicKey::parse_of_report(&envelope.signed_by).map_err(|_| no_signature())?;
    let signature = from_hex::<SIGNATURE_BYTES>(&envelope.signature).ok_or_else(no_signature)?;
    let report = envelope.report.get();
    if envelope.format != FORMAT || !verifies_detached(&signed_by, Purpose::Report, report, &signature) {
        return Err(SiteRefusal::new(Rejection::SignatureWrong, ""));
    }
    Ok(Report { text: report.to_owned(), json: true, signed_by })
}
