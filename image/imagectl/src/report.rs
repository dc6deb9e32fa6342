//! `imagectl report verify`: what an appliance wrote, for the paperwork.

use std::path::Path;

use vitalgate_site::{REPORT_BYTES_MAX, Report, open_report};

use crate::cli;
use crate::failure::{Failure, Outcome};
use crate::say::{self, printable};
use crate::{client_certificate, files};

/// `imagectl report ...`
pub(crate) fn run(command: &cli::Report) -> Outcome {
    let cli::Report::Verify { file, key, csr, certificate } = command;
    let report = verify(file, key.as_deref())?;
    if let Some(chain) = client_certificate::read(&report) {
        say::result("");
        client_certificate::describe(&chain);
    }
    let wanted = [(client_certificate::REQUEST, csr), (client_certificate::CERTIFICATE, certificate)];
    wanted.into_iter().try_for_each(|(kind, to)| to.as_ref().map_or(Ok(()), |to| client_certificate::export(&report, kind, to)))
}

fn refused(what: String) -> Failure {
    Failure::refused(what, "take the file from the stick again; if it stays so, do not accept it")
}

/// A report whose signature holds.
pub(crate) fn opened(file: &Path) -> Outcome<Report> {
    let bytes = files::read(file, REPORT_BYTES_MAX as u64)?;
    open_report(&bytes).map_err(|refusal| refused(format!("{}: {}{}", file.display(), refusal.rejection().meaning(), detail(&refusal))))
}

fn verify(file: &Path, key: Option<&str>) -> Outcome<Report> {
    let report = opened(file)?;
    let fingerprint = report.signed_by.fingerprint();
    if let Some(key) = key {
        let same = key.trim().eq_ignore_ascii_case(&fingerprint) || files::report_key(key).is_ok_and(|key| key == report.signed_by);
        if !same {
            return Err(refused(format!("{} was signed by {fingerprint}, not by {key}", file.display())));
        }
    }
    let verdict = match key {
        Some(_) => format!("OK unchanged since {fingerprint} signed it, which is the appliance"),
        None => format!("OK unchanged since {fingerprint} signed it; compare this with the fingerprint on the appliance's console"),
    };
    let facts: Option<serde_json::Value> = report
        .json
        .then(|| serde_json::from_str(&report.text))
        .transpose()
        .map_err(|error| refused(format!("{} is no JSON ({error})", file.display())))?;
    // Before and after, so that no text pushes it out of sight.
    say::result(format_args!("{verdict}\n"));
    match facts {
        Some(facts) => print(&facts, 0, ""),
        // Indented, so that none of its lines passes for the verdict.
        None => report.text.lines().for_each(|line| say::result(format_args!("  {}", printable(line)))),
    }
    say::result(format_args!("\n{verdict}"));
    Ok(report)
}

fn detail(refusal: &vitalgate_site::SiteRefusal) -> String {
    if refusal.detail().is_empty() { String::new() } else { format!(" ({})", refusal.detail()) }
}

/// One line a fact, folded by depth; a file cannot steer the terminal.
fn print(value: &serde_json::Value, depth: usize, name: &str) {
    /// Deeper facts stay on one line.
    const DEPTH_MAX: usize = 6;
    let space = "  ".repeat(depth);
    let name = printable(name);
    match value {
        serde_json::Value::Object(facts) if depth < DEPTH_MAX => {
            if !name.is_empty() {
                say::result(format_args!("{space}{name}:"));
            }
            let next = if name.is_empty() { depth } else { depth + 1 };
            facts.iter().for_each(|(name, value)| print(value, next, name));
        }
        serde_json::Value::Array(items) if depth < DEPTH_MAX && items.iter().any(|item| item.is_object() || item.is_array()) => {
            for (number, item) in items.iter().enumerate() {
                print(item, depth, &format!("{name} {}", number + 1));
            }
        }
        // What programs read is written to a file; here it would hide the rest.
        serde_json::Value::String(text) if text.starts_with("-----BEGIN ") => {
            say::result(format_args!("{space}{name}: in PEM"));
        }
        serde_json::Value::String(text) => say::result(format_args!("{space}{name}: {}", printable(text))),
        other => say::result(format_args!("{space}{name}: {}", printable(&other.to_string()))),
    }
}
