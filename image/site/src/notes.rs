//! What is allowed but weaker than it could be.

use std::collections::BTreeSet;

use vitalgate_config::{DestinationKind, DeviceSource};

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
    if site.networks.iter().all(|network| !network.dhcp && network.dns.is_empty()) && !named_hosts(site).is_empty() {
        notes.push("servers are given by name, but no name server is".to_owned());
    }
    local_names(site, &mut notes);
    notes
}

/// Its readings are dead letters from the first one on: nothing of it reaches the EHR.
fn without_patient(site: &Site, notes: &mut Vec<String>) {
    let without = site.devices.iter().filter(|device| device.patient.is_none());
    let devices: Vec<_> = without.map(|device| device.id.to_string()).collect();
    let Some(named) = named_first(&devices) else { return };
    notes.push(format!("no patient for {named}: readings are kept and never sent; add patient to each [[device]]"));
}

/// Only the name servers of a network that names the domain are asked for such names (RFC 6762, 3; systemd-resolved(8)).
fn local_names(site: &Site, notes: &mut Vec<String>) {
    let is_below = |name: &str, domain: &str| name == domain || name.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'));
    // Without a name server nobody is asked for names in them.
    let asked_of = || site.networks.iter().filter(|network| network.dhcp || !network.dns.is_empty());
    let domains: Vec<_> = asked_of().flat_map(|network| &network.domains).map(|domain| domain.to_ascii_lowercase()).collect();
    let names: Vec<_> = named_hosts(site)
        .into_iter()
        .filter(|host| {
            let host = host.to_ascii_lowercase();
            is_below(&host, "local") && !domains.iter().any(|domain| is_below(&host, domain))
        })
        .collect();
    let Some(named) = named_first(&names) else { return };
    notes.push(format!(
        "no domains in [[network]] for {named}: a name that ends in .local is found only where they, or DHCP, name its domain"
    ));
}

/// The first of them, with the number of the others.
fn named_first(all: &[String]) -> Option<String> {
    let named = all.get(..all.len().min(NAMED_MAX)).filter(|named| !named.is_empty())?;
    let more = match all.len() - named.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Some(format!("{}{more}", named.join(", ")))
}

/// Servers and polled devices that are given by name.
fn named_hosts(site: &Site) -> BTreeSet<String> {
    let urls = site.destinations.iter().filter_map(|destination| match &destination.kind {
        DestinationKind::Fhir(fhir) => Some(fhir.url.as_str()),
        _ => None,
    });
    let servers = urls.chain(site.update.iter().map(|update| update.server.as_str())).filter_map(Endpoint::of_url);
    let devices = site.devices.iter().filter_map(|device| match &device.source {
        DeviceSource::Modbus(modbus) => Endpoint::parse(&modbus.address, None),
        DeviceSource::Mqtt => None,
    });
    let all = servers.chain(devices).chain(site.time.nts.iter().chain(&site.time.ntp).cloned());
    all.filter(|endpoint| endpoint.address().is_none()).map(|endpoint| endpoint.host).collect()
}
