//! `[[destination]]`

use std::collections::BTreeMap;

use toml::de::DeTable;
use vitalgate_domain::DestinationId;
use vitalgate_domain::limits::DESTINATIONS_MAX;

use crate::address;
use crate::config::{Destination, DestinationKind, Fhir, WriteMode};
use crate::schema;
use crate::section::{Secrecy, Section, Text, quoted};
use crate::sections::{Walk, credential_name};

/// What has been given away already, with its line.
#[derive(Default)]
struct Taken {
    ids: BTreeMap<DestinationId, u32>,
    urls: BTreeMap<String, u32>,
}

/// Reads every destination; those that are wrong are reported and left out.
pub(crate) fn read(walk: &mut Walk<'_>, tables: &[(&DeTable<'_>, usize)]) -> Vec<Destination> {
    if let Some((_, at)) = tables.get(DESTINATIONS_MAX) {
        let message = format!("{} destinations are too many", tables.len());
        walk.report.at(*at, message, format!("keep at most {DESTINATIONS_MAX}"));
        return Vec::new();
    }
    let mut taken = Taken::default();
    let mut destinations = Vec::new();
    let mut sections = Vec::new();
    for (table, at) in tables {
        let section = Section::open(walk.report, &schema::DESTINATION, table, *at);
        destinations.extend(destination(walk, &section, &mut taken));
        sections.push(section);
    }
    patient_ids(walk, tables, &sections);
    destinations
}

/// An id of one server may be somebody else's on another: it goes to several only where they are said to share their ids.
fn patient_ids(walk: &mut Walk<'_>, tables: &[(&DeTable<'_>, usize)], sections: &[Section<'_>]) {
    const KEY: &str = "same_patient_ids_as";
    let with_own = tables.iter().filter(|(table, _)| !table.contains_key(KEY));
    let of_own: Vec<_> = with_own.map(|(table, _)| table.get("id").and_then(|id| id.get_ref().as_str())).collect();
    for section in sections {
        let Some(same) = section.text(walk.report, KEY) else { continue };
        if !of_own.contains(&Some(same.text)) {
            let message = format!("{KEY} in {} is {}, no other destination with patient ids of its own", section.place, quoted(same.text));
            walk.report.at(same.at, message, format!("write the id of a destination that has no {KEY} itself"));
        }
    }
    if of_own.len() > 1 {
        for (at, device) in std::mem::take(&mut walk.literal_patients) {
            let message = format!("patient of {device} is an id of one server, but {} destinations have ids of their own", of_own.len());
            let remedy =
                format!("write {{ system = \"...\", value = \"...\" }}, or {KEY} where a server has the ids of another destination");
            walk.report.at(at, message, remedy);
        }
    }
}

fn destination(walk: &mut Walk<'_>, section: &Section<'_>, taken: &mut Taken) -> Option<Destination> {
    let line = walk.report.line(section.at);
    let id = section.text(walk.report, "id").and_then(|text| destination_id(walk, text, taken));
    let kind = section.one_of(walk.report, "kind");
    let fhir = fhir(walk, section, taken);
    if kind != "fhir" {
        return None; // Reported: missing or none of the words.
    }
    Some(Destination { id: id?, kind: DestinationKind::Fhir(fhir?), line })
}

fn destination_id(walk: &mut Walk<'_>, text: Text<'_>, taken: &mut Taken) -> Option<DestinationId> {
    match DestinationId::new(text.text) {
        Ok(id) => {
            if let Some(first) = taken.ids.get(&id) {
                let message = format!("destination {id} stands twice, first on line {first}");
                walk.report.at(text.at, message, "give each destination its own id");
            } else {
                taken.ids.insert(id.clone(), walk.report.line(text.at));
            }
            if let Some(at) = walk.given_up.get(&id) {
                let message = format!("given_up in [store] names {id}, which is a destination on line {}", walk.report.line(text.at));
                walk.report.at(*at, message, "remove it there: what waits for it is delivered");
            }
            Some(id)
        }
        Err(error) => {
            let message = format!("id in [[destination]] is {}: {error}", quoted(text.text));
            walk.report.at(text.at, message, "write an id like \"ehr\"");
            None
        }
    }
}

fn fhir(walk: &mut Walk<'_>, section: &Section<'_>, taken: &mut Taken) -> Option<Fhir> {
    let url = section.text(walk.report, "url");
    let ca_file = section.file(walk.report, "ca_file", &walk.base, Secrecy::Public);
    let client_certificate_file = section.file(walk.report, "client_certificate_file", &walk.base, Secrecy::Public);
    let client_key_file = section.file(walk.report, "client_key_file", &walk.base, Secrecy::Secret);
    let bearer_token_file = section.file(walk.report, "bearer_token_file", &walk.base, Secrecy::Secret);
    let credential = section.text(walk.report, "client_key_credential");
    let client_key_credential = credential.and_then(|text| credential_name(walk, section, "client_key_credential", text));
    if let Err(message) = one_key(client_certificate_file.is_some(), client_key_file.is_some(), credential.is_some()) {
        let message = format!("{} has {message}", section.place);
        walk.report.at(section.at, message, "set client_certificate_file and one of client_key_file and client_key_credential, or none");
    }
    let plain_reason = plain_reason(walk, section, url);
    let url = url.and_then(|url| checked_url(walk, section, url, taken));
    if url.as_ref().is_some_and(|url| url.starts_with("http://")) && (ca_file.is_some() || client_certificate_file.is_some()) {
        let message = format!("{} has certificates, but its url is http:// and uses none", section.place);
        walk.report.at(section.at, message, "write https://, or remove ca_file and client_certificate_file");
    }
    let write = match section.one_of(walk.report, "write") {
        "put" => WriteMode::Put,
        "conditional" => WriteMode::Conditional,
        _ => WriteMode::Auto,
    };
    let mut number = |name| section.integer(walk.report, name);
    let (batch_items_max, batch_bytes_max) = (number("batch_items_max"), number("batch_bytes_max"));
    let (requests_in_flight_max, request_timeout_ms) = (number("requests_in_flight_max"), number("request_timeout_ms"));
    let join_window_ms = number("join_window_ms");
    Some(Fhir {
        url: url?,
        ca_file,
        client_certificate_file,
        client_key_file,
        client_key_credential,
        bearer_token_file,
        plain_reason,
        write,
        batch_items_max,
        batch_bytes_max,
        requests_in_flight_max,
        request_timeout_ms,
        join_window_ms,
    })
}

/// A certificate has one key, in a file or in a credential.
fn one_key(certificate: bool, file: bool, credential: bool) -> Result<(), &'static str> {
    match (certificate, file, credential) {
        (_, true, true) => Err("both client_key_file and client_key_credential"),
        (true, false, false) => Err("a client_certificate_file, but no key for it"),
        (false, true, _) | (false, _, true) => Err("a key, but no client_certificate_file"),
        _ => Ok(()),
    }
}

fn checked_url(walk: &mut Walk<'_>, section: &Section<'_>, url: Text<'_>, taken: &mut Taken) -> Option<String> {
    if let Err(wrong) = address::url(url.text) {
        // A password in it must not reach a log: the value is not repeated.
        walk.report.at(url.at, format!("url in {} {wrong}", section.place), "write https://host[:port][/path]");
        return None;
    }
    let canonical = address::canonical_url(url.text)?;
    if let Some(first) = taken.urls.get(&canonical) {
        let message = format!("{} has the same url as the destination on line {first}", section.place);
        walk.report.at(url.at, message, "remove one of the two");
    } else {
        taken.urls.insert(canonical, walk.report.line(url.at));
    }
    // As it stands: a server may take readings only with the slash at its end.
    Some(url.text.to_owned())
}

/// The reason for speaking to another machine without TLS, where that is wanted and allowed.
fn plain_reason(walk: &mut Walk<'_>, section: &Section<'_>, url: Option<Text<'_>>) -> Option<String> {
    let allowed = section.boolean(walk.report, "allow_plain_beyond_loopback");
    let reason = section.text(walk.report, "plain_reason").filter(|reason| !reason.text.trim().is_empty());
    let (crosses, parts) = url.and_then(|url| Some((url, address::url(url.text).ok()?)))?;
    if parts.tls || address::is_loopback(parts.host) {
        return None;
    }
    match (allowed, reason) {
        (true, Some(reason)) => return Some(reason.text.to_owned()),
        (true, None) => {
            let message = format!("{} is written to without TLS and gives no reason", section.place);
            walk.report.at(crosses.at, message, "add plain_reason = \"...\"; it is shown on the status page");
        }
        (false, _) => {
            let message = format!("url in {} is http:// beyond this machine: readings would cross the network in the clear", section.place);
            walk.report.at(crosses.at, message, "write https://, or set allow_plain_beyond_loopback = true and plain_reason");
        }
    }
    None
}
