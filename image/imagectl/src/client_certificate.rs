//! What an appliance identifies itself with to an EHR, as it stands in its reports.

use std::path::Path;

use vitalgate_site::Report;
use vitalgate_trust::ClientChain;

use crate::digest::hex;
use crate::failure::{Failure, Outcome};
use crate::{files, report, say};

/// The request for an authority (RFC 7468, section 7).
pub(crate) const REQUEST: &str = "CERTIFICATE REQUEST";
/// The certificate (RFC 7468, section 5).
pub(crate) const CERTIFICATE: &str = "CERTIFICATE";
const REMEDY: &str = "an appliance has one when its site file has client_certificate = \"own\"; take its latest report";

/// The certificate in a report whose signature holds.
pub(crate) fn of_report(file: &Path) -> Outcome<ClientChain> {
    let chain = read(&report::opened(file)?);
    chain.ok_or_else(|| Failure::refused(format!("{} holds no certificate of the appliance", file.display()), REMEDY))
}

/// The certificate in a report, if there is one.
pub(crate) fn read(report: &Report) -> Option<ClientChain> {
    ClientChain::read(&all(report, CERTIFICATE)).ok()
}

/// Writes what a report holds of one kind to a file.
pub(crate) fn export(report: &Report, kind: &str, to: &Path) -> Outcome {
    let pem = all(report, kind);
    if pem.is_empty() {
        return Err(Failure::refused(format!("the report holds no {}", kind.to_lowercase()), REMEDY));
    }
    files::write(to, pem.as_bytes())?;
    say::result(format_args!("wrote {}", to.display()));
    Ok(())
}

/// Says whose it is.
pub(crate) fn describe(chain: &ClientChain) {
    let issuer = if chain.self_signed { "itself" } else { &chain.issuer };
    let day = vitalgate_site::Day::from_unix_ms(i64::try_from(chain.ends_unix_s).unwrap_or(i64::MAX).saturating_mul(1000));
    say::result(format_args!("  certificate of {}", say::printable(&chain.subject)));
    say::result(format_args!("  issued by {}, until {day}", say::printable(issuer)));
    say::result(format_args!("  SHA-256 {}", hex(&chain.fingerprint)));
}

/// Every block of a kind. In JSON a line end is written as two characters.
fn all(report: &Report, kind: &str) -> String {
    let text = if report.json { report.text.replace("\\n", "\n") } else { report.text.clone() };
    let (begin, end) = (format!("-----BEGIN {kind}-----"), format!("-----END {kind}-----"));
    let mut blocks = String::new();
    let mut rest = text.as_str();
    while let Some((inner, after)) = rest.split_once(&begin).and_then(|(_, begun)| begun.split_once(&end)) {
        blocks.push_str(&format!("{begin}\n{}\n{end}\n", inner.trim()));
        rest = after;
    }
    blocks
}
