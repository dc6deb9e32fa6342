//! Ports of the network: files of systemd-networkd.

use std::collections::BTreeMap;

use crate::network::{Network, Port, Precedence};
use crate::site::Site;

/// Files for systemd-networkd (systemd.network(5), systemd.netdev(5)), by name.
pub fn render_network(site: &Site) -> Vec<(String, String)> {
    // The first file that matches decides.
    let mut ports: BTreeMap<(Precedence, &Port), Vec<&Network>> = BTreeMap::new();
    for network in &site.networks {
        ports.entry((network.port.precedence(), &network.port)).or_default().push(network);
    }
    let mut files = Vec::new();
    for (number, ((_, port), networks)) in ports.into_iter().enumerate() {
        let vlans: Vec<_> = networks.iter().filter_map(|network| network.vlan).collect();
        let untagged = networks.iter().find(|network| network.vlan.is_none());
        let pattern = match port {
            // Loopback and the VLANs below have their own.
            Port::Name(name) if port.is_pattern() => format!("Name={name}\nType=!loopback vlan"),
            Port::Name(name) => format!("Name={name}"),
            Port::Mac(mac) => format!("MACAddress={mac}\nType=ether"),
        };
        files.push((format!("10-site-{number:02}.network"), one_port(&pattern, untagged.copied(), &vlans)));
        for network in networks {
            let Some(vlan) = network.vlan else { continue };
            let netdev = format!("[NetDev]\nName=vlan{vlan}\nKind=vlan\n\n[VLAN]\nId={vlan}\n");
            files.push((format!("10-site-vlan{vlan}.netdev"), netdev));
            files.push((format!("10-site-vlan{vlan}.network"), one_port(&format!("Name=vlan{vlan}"), Some(network), &[])));
        }
    }
    files
}

fn one_port(pattern: &str, network: Option<&Network>, vlans: &[u16]) -> String {
    let mut text = format!("[Match]\n{pattern}\n\n[Network]\nLLMNR=no\nMulticastDNS=no\nLLDP=no\nEmitLLDP=no\n");
    let mut line = |key: &str, value: String| text.push_str(&format!("{key}={value}\n"));
    let Some(network) = network else {
        line("DHCP", "no".to_owned());
        line("LinkLocalAddressing", "no".to_owned());
        line("IPv6AcceptRA", "no".to_owned());
        vlans.iter().for_each(|vlan| line("VLAN", format!("vlan{vlan}")));
        return text;
    };
    let word = |flag: bool| if flag { "yes" } else { "no" }.to_owned();
    line("DHCP", word(network.dhcp));
    line("IPv6AcceptRA", word(network.dhcp));
    line("LinkLocalAddressing", "ipv6".to_owned());
    network.addresses.iter().for_each(|prefix| line("Address", prefix.to_string()));
    network.gateway.iter().for_each(|gateway| line("Gateway", gateway.to_string()));
    network.dns.iter().for_each(|server| line("DNS", server.to_string()));
    if !network.domains.is_empty() {
        line("Domains", network.domains.join(" "));
    }
    vlans.iter().for_each(|vlan| line("VLAN", format!("vlan{vlan}")));
    if network.dhcp {
        // Time comes from the site file alone; name servers only where it names none.
        let dns = word(network.dns.is_empty());
        text.push_str(&format!("\n[DHCPv4]\nUseNTP=no\nUseHostname=no\nUseDNS={dns}\nUseDomains={dns}\nSendHostname=no\n"));
        text.push_str(&format!("\n[DHCPv6]\nUseNTP=no\nUseHostname=no\nUseDNS={dns}\n"));
        text.push_str(&format!("\n[IPv6AcceptRA]\nUseDNS={dns}\n"));
    }
    text
}
