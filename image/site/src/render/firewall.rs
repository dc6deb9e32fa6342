//! Firewall rules: nothing in, out or through but what the site file needs.

use std::collections::BTreeSet;
use std::net::IpAddr;

use vitalgate_config::{DestinationKind, DeviceSource};
use vitalgate_layout::{account, port};

use crate::check::NTP_PORT;
use crate::hosts::Endpoint;
use crate::site::Site;

/// A file for `nft -f`; it replaces everything at once. A server that is given by name is let through
/// by its port alone: the kernel knows no names.
pub fn render_firewall(site: &Site) -> String {
    let mut text = String::from("# Made from the site file at each boot.\nflush ruleset\n\ntable inet vitalgate {\n");
    chain(&mut text, "input", &input(site));
    chain(&mut text, "forward", &[]);
    chain(&mut text, "output", &output(site));
    text.push_str("}\n");
    text
}

fn chain(text: &mut String, name: &str, rules: &[String]) {
    text.push_str(&format!("\tchain {name} {{\n\t\ttype filter hook {name} priority filter; policy drop;\n"));
    rules.iter().for_each(|rule| text.push_str(&format!("\t\t{rule}\n")));
    text.push_str("\t}\n");
}

fn input(site: &Site) -> Vec<String> {
    let mut rules: Vec<String> = [
        "iif \"lo\" accept",
        "ct state invalid drop",
        "ct state { established, related } accept",
        "icmpv6 type { nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert } ip6 hoplimit 255 accept",
        // A switch forgets the groups, those of neighbour discovery too, of whoever does not answer (RFC 4890, 4.4.1; RFC 3810, 5).
        "icmpv6 type mld-listener-query ip6 saddr fe80::/10 ip6 hoplimit 1 accept",
        "icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem } accept",
        "icmp type echo-request limit rate 10/second accept",
        "icmpv6 type echo-request limit rate 10/second accept",
    ]
    .map(str::to_owned)
    .into();
    if site.networks.iter().any(|network| network.dhcp) {
        rules.push("udp sport 67 udp dport 68 accept".to_owned());
        rules.push("ip6 saddr fe80::/10 udp sport 547 udp dport 546 accept".to_owned());
    }
    let mut ports = BTreeSet::from([port::STATUS_HTTPS]);
    ports.extend(site.mqtt.as_ref().map(|mqtt| mqtt.port));
    let ports: Vec<_> = ports.iter().map(u16::to_string).collect();
    rules.push(format!("tcp dport {{ {} }} accept", ports.join(", ")));
    rules
}

fn output(site: &Site) -> Vec<String> {
    let (_, status) = account::STATUS;
    let mut rules = vec![
        "oif \"lo\" accept".to_owned(),
        "ct state { established, related } accept".to_owned(),
        "icmpv6 type { nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert } accept".to_owned(),
        "icmpv6 type { mld-listener-report, mld-listener-done, mld2-listener-report } accept".to_owned(),
        // The status page answers and asks nobody.
        format!("meta skuid {status} drop"),
    ];
    if site.networks.iter().any(|network| network.dhcp) {
        rules.push("udp sport 68 udp dport 67 accept".to_owned());
        rules.push("ip6 daddr { fe80::/10, ff02::1:2 } udp sport 546 udp dport 547 accept".to_owned());
    }
    name_servers(site, &mut rules);
    for source in &site.time.nts {
        rules.push(to(source, "tcp", source.port));
        // Which server then gives the time is said in the key establishment (RFC 8915, 4.1.7).
        rules.push(format!("udp dport {NTP_PORT} accept"));
    }
    rules.extend(site.time.ntp.iter().map(|source| to(source, "udp", source.port)));
    let (_, daemon) = account::DAEMON;
    for endpoint in daemon_peers(site) {
        // The self test reaches devices as the same account.
        rules.push(format!("meta skuid {daemon} {}", to(&endpoint, "tcp", endpoint.port)));
    }
    if let Some(endpoint) = site.update.as_ref().and_then(|update| Endpoint::of_url(&update.server)) {
        rules.push(to(&endpoint, "tcp", endpoint.port));
    }
    rules
}

fn name_servers(site: &Site, rules: &mut Vec<String>) {
    let from_dhcp = site.networks.iter().any(|network| network.dhcp && network.dns.is_empty());
    let servers: BTreeSet<IpAddr> = site.networks.iter().flat_map(|network| network.dns.iter().copied()).collect();
    for protocol in ["udp", "tcp"] {
        if from_dhcp {
            rules.push(format!("{protocol} dport 53 accept"));
        } else {
            rules.extend(servers.iter().map(|server| format!("{} {protocol} dport 53 accept", to_address(server))));
        }
    }
}

/// Whom the daemon speaks to: devices that are polled, destinations.
fn daemon_peers(site: &Site) -> BTreeSet<Endpoint> {
    let devices = site.devices.iter().filter_map(|device| match &device.source {
        DeviceSource::Modbus(modbus) => Endpoint::parse(&modbus.address, None),
        DeviceSource::Mqtt => None,
    });
    let destinations = site.destinations.iter().filter_map(|destination| match &destination.kind {
        DestinationKind::Fhir(fhir) => Endpoint::of_url(&fhir.url),
        _ => None,
    });
    devices.chain(destinations).collect()
}

fn to(endpoint: &Endpoint, protocol: &str, port: u16) -> String {
    match endpoint.address() {
        Some(address) => format!("{} {protocol} dport {port} accept", to_address(&address)),
        None => format!("{protocol} dport {port} accept"),
    }
}

fn to_address(address: &IpAddr) -> String {
    match address {
        IpAddr::V4(address) => format!("ip daddr {address}"),
        IpAddr::V6(address) => format!("ip6 daddr {address}"),
    }
}
