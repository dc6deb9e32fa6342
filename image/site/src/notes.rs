//! What is allowed but weaker than it could be.

use vitalgate_config::DestinationKind;

use crate::hosts::Endpoint;
use crate::site::Site;

/// Most devices that one note names; a report is one page.
const NAMED_MAX: usize = 8;

pub(crate) fn warnings(site: &Site) -> Vec<String> {
    let mut notes = Vec::new();
    let time = &site.time;
    if time.nts.is_empty() && time.ntp.is_empty() {
        notes.push("no time source: readings carry the appliance's own clock, state TIME-UNTRUSTED".to_owned());
    } else if !time.ntp.is_empty() {
        let names: Vec<_> = time.ntp.iter().map(|source| source.host.as_str()).collect();
        notes.push(format!("time without proof of its origin from {}; prefer servers with NTS", names.join(", ")));
    }
    if let Some(reason) = &site.storage.unsealed_reason {
        notes.push(format!("readings may be kept without a sealed disk: {reason}"));
    }
    for destination in &site.destinations {
        let DestinationKind::Fhir(fhir) = &destination.kind else { continue };
        if let Some(reason) = &fhir.plain_reason {
            notes.push(format!("readings reach {} without TLS: {reason}", destination.id));
        }
    }
    if site.destinations.is_empty() {
        notes.push("no destination: readings are kept and sent nowhere".to_owned());
    }
    if site.devices.is_empty() {
        notes.push("no device".to_owned());
    }
    without_patient(site, &mut notes);
    if site.networks.iter().all(|network| !network.dhcp && network.dns.is_empty()) && names_a_host(site) {
        notes.push("servers are given by name, but no name server is".to_owned());
    }
    notes
}

/// Its readings are dead letters from the first one on: nothing of it reaches the EHR.
fn without_patient(site: &Site, notes: &mut Vec<String>) {
    let devices: Vec<_> = site.devices.iter().filter(|device| device.patient.is_none()).map(|device| device.id.as_str()).collect();
    let Some(named) = devices.get(..devices.len().min(NAMED_MAX)).filter(|named| !named.is_empty()) else { return };
    let more = match devices.len() - named.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    notes.push(format!("no patient for {}{more}: readings are kept and never sent; add patient to each [[device]]", named.join(", ")));
}

fn names_a_host(site: &Site) -> bool {
    let is_name = |endpoint: Option<Endpoint>| endpoint.is_some_and(|endpoint| endpoint.address().is_none());
    let urls = site.destinations.iter().filter_map(|destination| match &destination.kind {
        DestinationKind::Fhir(fhir) => Some(fhir.url.as_str()),
        _ => None,
    });
    urls.chain(site.update.iter().map(|update| update.server.as_str())).any(|url| is_name(Endpoint::of_url(url)))
        || site.time.nts.iter().chain(&site.time.ntp).any(|source| source.address().is_none())
}
