//! `[[network]]`

use std::cmp::Reverse;
use std::fmt;
use std::net::IpAddr;

use crate::error::Findings;
use crate::reader::{Section, Text, quoted};
use crate::schema;
use toml::de::DeValue;
use vitalgate_config::is_dns_name;

/// Longest name of a network port (Linux: `IFNAMSIZ` less its end), as a pattern a little more.
const PORT_NAME_CHARS_MAX: usize = 32;

/// Which port of the network.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Port {
    /// By name, with `*` for any rest: `en*`.
    Name(String),
    /// By MAC address, lower case with colons.
    Mac(String),
}

/// Which of several sections decides on a port: the first in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Precedence {
    /// The port itself, wherever it is plugged in.
    Mac,
    /// One name.
    Name,
    /// By characters that are no wildcards.
    Pattern(Reverse<usize>),
}

impl Port {
    const WILDCARDS: [char; 2] = ['*', '?'];

    /// Whether more than one port may be meant.
    pub(crate) fn is_pattern(&self) -> bool {
        matches!(self, Self::Name(name) if name.contains(Self::WILDCARDS))
    }

    pub(crate) fn precedence(&self) -> Precedence {
        match self {
            Self::Mac(_) => Precedence::Mac,
            Self::Name(name) if self.is_pattern() => {
                Precedence::Pattern(Reverse(name.chars().filter(|one| !Self::WILDCARDS.contains(one)).count()))
            }
            Self::Name(_) => Precedence::Name,
        }
    }

    /// Whether nothing decides between two patterns. Those that begin or end unlike match no port in common; all others
    /// count as if they did.
    fn is_rival_of(&self, other: &Self) -> bool {
        let (Self::Name(one), Self::Name(two)) = (self, other) else { return false };
        self != other
            && self.is_pattern()
            && self.precedence() == other.precedence()
            && begin_alike(one.chars(), two.chars())
            && begin_alike(one.chars().rev(), two.chars().rev())
    }

    fn parse(text: &str) -> Option<Self> {
        let pairs: Vec<_> = text.split([':', '-']).collect();
        if pairs.len() == 6 && pairs.iter().all(|pair| pair.len() == 2 && pair.bytes().all(|byte| byte.is_ascii_hexdigit())) {
            return Some(Self::Mac(pairs.join(":").to_ascii_lowercase()));
        }
        let is_name = (1..=PORT_NAME_CHARS_MAX).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'*' | b'?' | b'_' | b'-' | b'.'))
            && text != "lo"
            && !is_vlan_of_ours(text);
        is_name.then(|| Self::Name(text.to_owned()))
    }
}

/// Whether two patterns are the same up to the first wildcard in either.
fn begin_alike(one: impl Iterator<Item = char>, two: impl Iterator<Item = char>) -> bool {
    let is_literal = |one: &char| !Port::WILDCARDS.contains(one);
    one.zip(two).take_while(|(one, two)| is_literal(one) && is_literal(two)).all(|(one, two)| one == two)
}

/// The port that a section with `vlan` makes; it has the settings of that section.
fn is_vlan_of_ours(name: &str) -> bool {
    name.strip_prefix("vlan").is_some_and(|id| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit()))
}

impl fmt::Display for Port {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(text) | Self::Mac(text) => formatter.write_str(text),
        }
    }
}

/// An address with the length of its network's prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    /// The port's own address.
    pub address: IpAddr,
    /// Bits of the network.
    pub bits: u8,
}

impl Prefix {
    /// Reads `192.0.2.10/24`; `None` also where the whole network is meant, or all in it.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, bits) = text.split_once('/')?;
        let address: IpAddr = address.parse().ok()?;
        let bits = if bits.bytes().all(|byte| byte.is_ascii_digit()) { bits.parse::<u8>().ok()? } else { return None };
        let width = if address.is_ipv4() { 32 } else { 128 };
        let usable = !address.is_unspecified() && !address.is_multicast() && !address.is_loopback();
        let prefix = Self { address, bits };
        ((1..=width).contains(&bits) && usable && prefix.is_of_one()).then_some(prefix)
    }

    /// Whether a port can have it. In an IPv4 network of more than two addresses the first and the last are nobody's (RFC 1122,
    /// 3.2.1.3; RFC 3021).
    fn is_of_one(&self) -> bool {
        let IpAddr::V4(address) = self.address else { return true };
        let within = u32::MAX.checked_shr(self.bits.into()).unwrap_or_default();
        within <= 1 || ![0, within].contains(&(u32::from(address) & within))
    }

    /// Whether somebody in this network can have the address.
    fn can_hold(&self, other: IpAddr) -> bool {
        self.contains(other) && Self { address: other, ..*self }.is_of_one()
    }

    /// Whether an address lies in this network.
    pub fn contains(&self, other: IpAddr) -> bool {
        let wide = |address: IpAddr| match address {
            IpAddr::V4(address) => u128::from(u32::from(address)) << 96,
            IpAddr::V6(address) => u128::from(address),
        };
        let mask = u128::MAX << (128 - u32::from(self.bits.clamp(1, 128)));
        self.address.is_ipv4() == other.is_ipv4() && wide(self.address) & mask == wide(other) & mask
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.address, self.bits)
    }
}

/// One port, or one VLAN on a port.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Network {
    /// The port.
    pub port: Port,
    /// Whether addresses come from the network.
    pub dhcp: bool,
    /// Fixed addresses.
    pub addresses: Vec<Prefix>,
    /// The way out.
    pub gateway: Option<IpAddr>,
    /// Name servers.
    pub dns: Vec<IpAddr>,
    /// Domains that these name servers know.
    pub domains: Vec<String>,
    /// VLAN on the port.
    pub vlan: Option<u16>,
}

impl Network {
    /// What is taken when the file names no port: every wired one, by DHCP.
    pub(crate) fn any_wired() -> Self {
        let port = Port::Name("en* eth*".to_owned());
        Self { port, dhcp: true, addresses: Vec::new(), gateway: None, dns: Vec::new(), domains: Vec::new(), vlan: None }
    }
}

/// Reads every `[[network]]`; those that are wrong are reported and left out.
pub(crate) fn read(findings: &mut Findings, root: &Section<'_>) -> Vec<Network> {
    let tables = root.tables(findings, "network");
    if let Some((_, at)) = tables.get(schema::NETWORKS_MAX) {
        findings.at(*at, format!("{} network sections are too many", tables.len()), format!("keep at most {}", schema::NETWORKS_MAX));
        return Vec::new();
    }
    let mut networks: Vec<Network> = Vec::new();
    for (table, at) in tables {
        let section = Section::open(findings, &schema::NETWORK, table, at);
        let Some(network) = network(findings, &section) else { continue };
        let clash = networks.iter().any(|other| match (network.vlan, other.vlan) {
            (Some(one), Some(two)) => one == two,
            (None, None) => network.port == other.port,
            _ => false,
        });
        if clash {
            findings.at(at, "this port or VLAN stands twice", "keep one section for each port, and one for each VLAN id");
        }
        if let Some(other) = networks.iter().find(|other| network.port.is_rival_of(&other.port)) {
            let message = format!("match in [[network]] is {}, which may be the same port as {}", network.port, other.port);
            findings.at(at, message, "write one of them longer, or each port's whole name: the longer pattern decides");
        }
        networks.push(network);
    }
    if networks.is_empty() { vec![Network::any_wired()] } else { networks }
}

const NO_ADDRESS: &str = "is no address with a prefix length, or that of a whole network";

fn network(findings: &mut Findings, section: &Section<'_>) -> Option<Network> {
    let port = section.text(findings, "match").and_then(|text| port(findings, section, text));
    let addresses: Vec<_> = texts(findings, section, "address", NO_ADDRESS, "192.0.2.10/24", Prefix::parse);
    let dhcp = section.boolean(findings, "dhcp").unwrap_or(!section.table.contains_key("address"));
    let written = section.table.get("address").map(|value| value.get_ref());
    if !dhcp && written.is_none_or(|value| matches!(value, DeValue::Array(items) if items.is_empty())) {
        findings.at(section.at, "[[network]] has neither address nor dhcp", "add address = [\"192.0.2.10/24\"], or dhcp = true");
    }
    let dns = texts(findings, section, "dns", "is no IP address", "192.0.2.53", |text| {
        text.parse().ok().map(|server: IpAddr| server.to_canonical())
    });
    let domains =
        texts(findings, section, "domains", "is no DNS domain", "practice.example", |text| is_dns_name(text).then(|| text.to_owned()));
    let gateway = section.text(findings, "gateway").and_then(|text| gateway(findings, section, text, &addresses));
    let vlan = section.integer(findings, "vlan").and_then(|vlan| u16::try_from(vlan).ok());
    Some(Network { port: port?, dhcp, addresses, gateway, dns, domains, vlan })
}

fn port(findings: &mut Findings, section: &Section<'_>, text: Text<'_>) -> Option<Port> {
    let port = Port::parse(text.text);
    if port.is_none() {
        let what = format!("is {}", quoted(text.text));
        section.wrong(findings, text.at, "match", &what, "write a port's name such as \"en*\", or its MAC address \"02:00:00:00:00:01\"");
    }
    port
}

fn gateway(findings: &mut Findings, section: &Section<'_>, text: Text<'_>, addresses: &[Prefix]) -> Option<IpAddr> {
    let Ok(gateway) = text.text.parse::<IpAddr>() else {
        section.wrong(
            findings,
            text.at,
            "gateway",
            &format!("is {}, no IP address", quoted(text.text)),
            "write an address such as \"192.0.2.1\"",
        );
        return None;
    };
    let link_local = matches!(gateway, IpAddr::V6(address) if address.segments().first().is_some_and(|first| first & 0xffc0 == 0xfe80));
    if addresses.iter().any(|prefix| prefix.address == gateway) {
        let what = format!("is {gateway}, which is the appliance's own address");
        section.wrong(findings, text.at, "gateway", &what, "write the router's address");
    }
    if !link_local && !addresses.iter().any(|prefix| prefix.can_hold(gateway)) {
        let what = format!("is {gateway}, no address in any of the networks in address");
        section.wrong(findings, text.at, "gateway", &what, "correct the gateway, or the address and its prefix length");
    }
    Some(gateway)
}

/// Reads a list, each item by `read`; what it does not take is reported.
pub(crate) fn texts<T>(
    findings: &mut Findings,
    section: &Section<'_>,
    name: &'static str,
    wrong: &str,
    example: &str,
    read: impl Fn(&str) -> Option<T>,
) -> Vec<T> {
    let mut items = Vec::new();
    for text in section.list(findings, name) {
        match read(text.text) {
            Some(item) => items.push(item),
            None => section.wrong(
                findings,
                text.at,
                name,
                &format!("holds {}, which {wrong}", quoted(text.text)),
                format!("write {name} = [\"{example}\"]"),
            ),
        }
    }
    items
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_know_their_network() {
        let prefix = Prefix::parse("192.0.2.10/24").unwrap();
        assert!(prefix.contains("192.0.2.1".parse().unwrap()));
        assert!(!prefix.contains("192.0.3.1".parse().unwrap()));
        assert!(!prefix.contains("::1".parse().unwrap()));
        assert!(Prefix::parse("2001:db8::5/64").unwrap().contains("2001:db8::1".parse().unwrap()));
        for bad in ["192.0.2.10", "192.0.2.10/33", "192.0.2.10/0", "0.0.0.0/8", "127.0.0.1/8", "x/8", "192.0.2.1/+8"] {
            assert_eq!(Prefix::parse(bad), None, "{bad}");
        }
        // What means the network, or all in it, is no port's address; where there are but two, or one, each is (RFC 3021).
        for bad in ["192.0.2.0/24", "192.0.2.255/24", "198.51.100.3/30", "10.0.0.0/8"] {
            assert_eq!(Prefix::parse(bad), None, "{bad}");
        }
        for good in ["192.0.2.0/31", "192.0.2.1/31", "192.0.2.0/32", "192.0.3.0/23", "10.0.0.255/8", "2001:db8::/64"] {
            assert!(Prefix::parse(good).is_some(), "{good}");
        }
    }

    #[test]
    fn ports_are_names_or_mac_addresses() {
        assert_eq!(Port::parse("02-00-00-AA-00-01"), Some(Port::Mac("02:00:00:aa:00:01".to_owned())));
        assert_eq!(Port::parse("en*"), Some(Port::Name("en*".to_owned())));
        for bad in ["", "lo", "a b", "en0\n", "[Match]", "!en0"] {
            assert_eq!(Port::parse(bad), None, "{bad}");
        }
    }
}
