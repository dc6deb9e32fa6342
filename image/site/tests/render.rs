//! What the appliance's services get to read.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a helper of tests fails loudly")]

use std::collections::BTreeSet;

use vitalgate_site::{
    OwnCertificate, Places, Site, SiteFile, extra_files, render_daemon_config, render_daemon_config_in, render_firewall, render_network,
    render_time,
};

const FULL: &str = include_str!("golden/full.toml");
const SMALL: &str = "[site]\nname = \"x\"\ngateway = \"g\"\nserial = \"any\"\nexpires = \"2026-12-31\"\ntechnician = \"t\"\n";

fn site(text: &str) -> Site {
    SiteFile::check(text, "site").unwrap()
}

/// The daemon accepts what is made for it, with the certificates where it says.
#[test]
fn the_daemon_takes_its_configuration() {
    let site = site(FULL);
    let folder = tempfile::tempdir().unwrap();
    for (path, pem) in extra_files(&site) {
        let name = path.strip_prefix("/run/vitalgate/authorities/").unwrap();
        std::fs::create_dir_all(folder.path().join(name).parent().unwrap()).unwrap();
        std::fs::write(folder.path().join(name), pem).unwrap();
    }
    let places = Places {
        state_dir: folder.path().to_owned(),
        authorities: Some(folder.path().to_owned()),
        key_credential: None,
        client_certificate: Some(OwnCertificate { file: folder.path().join("ehr.pem"), key_credential: "client-key".to_owned() }),
    };
    let config = vitalgate_config::check(&render_daemon_config_in(&site, &places), "daemon").unwrap();
    assert_eq!(config.gateway.name.to_string(), "practice-01");
    assert_eq!(config.store.retention_days, 14);
    assert_eq!(config.mqtt.unwrap().listen.to_string(), "[::]:18883");
    assert_eq!(config.devices.len(), 2);
    let vitalgate_config::DestinationKind::Fhir(ehr) = &config.destinations[0].kind else { panic!("not FHIR") };
    assert_eq!(ehr.ca_file.as_deref(), Some(folder.path().join("ehr.pem").as_path()));
    assert_eq!(ehr.client_certificate_file, ehr.ca_file);
    assert_eq!(ehr.client_key_credential.as_deref(), Some("client-key"));
    let vitalgate_config::DestinationKind::Fhir(cloud) = &config.destinations[1].kind else { panic!("not FHIR") };
    assert_eq!((&cloud.client_certificate_file, &cloud.client_key_credential), (&None, &None), "nobody else is shown the certificate");
}

/// However a port is written, the firewall opens the one that the gateway listens on.
#[test]
fn firewall_and_gateway_mean_the_same_port() {
    for (written, port) in [("8080", 8080_u16), ("0x1000", 4096), ("0o17500", 8000), ("0b1111101000000", 8000), ("1_883", 1883)] {
        let site = site(&format!("{SMALL}[mqtt]\nport = {written}\n"));
        let config = vitalgate_config::check(&render_daemon_config(&site), "daemon").unwrap();
        assert_eq!(config.mqtt.unwrap().listen.port(), port, "{written}");
        assert!(open_ports(&render_firewall(&site)).contains(&port.to_string()), "{written}");
    }
}

/// Packets to an IPv4 address that is written in the way of IPv6 are IPv4: the firewall lets those through.
#[test]
fn an_ipv4_address_is_one_however_it_is_written() {
    let text = |v4: fn(&str) -> String, bare: fn(&str) -> String| {
        format!(
            "{SMALL}[[network]]\nmatch = \"a\"\naddress = \"192.0.2.7/24\"\ndns = \"{}\"\n[time]\nntp = [\"{}\"]\n[update]\nserver = \"https://{}\"\n[ehr]\nurl = \"https://{}/fhir\"\n",
            bare("192.0.2.53"),
            v4("192.0.2.5"),
            v4("192.0.2.6"),
            v4("192.0.2.9")
        )
    };
    let plain = site(&text(str::to_owned, str::to_owned));
    let mapped = site(&text(|v4| format!("[::ffff:{v4}]"), |v4| format!("::ffff:{v4}")));
    assert_eq!(render_firewall(&mapped), render_firewall(&plain));
    assert_eq!(render_network(&mapped), render_network(&plain));
    assert_eq!(render_time(&mapped), render_time(&plain));
}

/// Each text is compared with the one that was read and found right; `UPDATE_GOLDEN=1` writes them anew.
#[test]
fn the_texts_are_those_that_were_reviewed() {
    let site = site(FULL);
    let network: String = render_network(&site).iter().map(|(name, text)| format!("### {name}\n{text}\n")).collect();
    for (name, text) in [
        ("daemon.toml", render_daemon_config(&site)),
        ("nftables.conf", render_firewall(&site)),
        ("chrony.conf", render_time(&site)),
        ("network.txt", network),
    ] {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, &text).unwrap();
        }
        assert_eq!(text, std::fs::read_to_string(&path).unwrap(), "{name}");
    }
}

/// The first matching file decides (systemd.network(5), "files are read in alphanumeric order"): the section for one
/// port stands before every pattern, and a pattern before those that say less, in whatever order the site file has them.
#[test]
fn what_names_one_port_decides_before_any_pattern() {
    let names = ["*", "en*", "enp*", "enp2s*", "eth?", "enp2s0", "eth1", "aux0", "wwan0", "enp9s0", "enp10s0", "enp11s0", "enp12s0"];
    let macs = ["0c:00:00:00:00:01", "02-00-00-00-00-02", "fe:00:00:00:00:03"];
    let mut matches: Vec<&str> = names.into_iter().chain(macs).collect();
    for _ in 0..2 {
        let sections: String = matches.iter().map(|one| format!("[[network]]\nmatch = \"{one}\"\n")).collect();
        let mut files = render_network(&site(&format!("{SMALL}{sections}")));
        files.sort();
        let decided: Vec<&str> = files.iter().map(|(_, text)| text.lines().nth(1).unwrap()).collect();
        let (ports, patterns) = decided.split_at(11);
        assert!(ports[..3].iter().all(|line| line.starts_with("MACAddress=")), "{decided:?}");
        assert!(ports[3..].iter().all(|line| !line.contains(['*', '?'])), "{decided:?}");
        assert_eq!(patterns, ["Name=enp2s*", "Name=enp*", "Name=eth?", "Name=en*", "Name=*"]);
        matches.reverse();
    }
}

/// A pattern for every port means those that wires go into: neither the machine's own one nor the VLANs on a port.
#[test]
fn a_pattern_takes_neither_loopback_nor_vlans() {
    let text = format!("{SMALL}[[network]]\nmatch = \"*\"\n[[network]]\nmatch = \"*\"\nvlan = 20\n");
    let files = render_network(&site(&text));
    let matched = |name: &str| files.iter().find(|(file, _)| file == name).unwrap().1.split("\n\n").next().unwrap();
    assert_eq!(matched("10-site-00.network"), "[Match]\nName=*\nType=!loopback vlan");
    assert_eq!(matched("10-site-vlan20.network"), "[Match]\nName=vlan20");
}

fn open_ports(rules: &str) -> BTreeSet<String> {
    let input = rules.split("chain input").nth(1).unwrap().split("chain forward").next().unwrap();
    input
        .lines()
        .filter_map(|line| line.trim().strip_prefix("tcp dport { ")?.strip_suffix(" } accept"))
        .flat_map(|ports| ports.split(", ").map(str::to_owned))
        .collect()
}

/// From outside the configured ports are open, and no other.
#[test]
fn exactly_the_configured_ports_are_open() {
    let ports = |text: &str| open_ports(&render_firewall(&site(text))).into_iter().collect::<Vec<_>>();
    assert_eq!(ports(FULL), ["18883", "8443"]);
    assert_eq!(ports(&format!("{SMALL}[mqtt]\n")), ["8443", "8883"]);
    assert_eq!(ports(SMALL), ["8443"], "without devices that publish their port stays shut");
    for chain in ["input", "forward", "output"] {
        assert!(render_firewall(&site(SMALL)).contains(&format!("hook {chain} priority filter; policy drop;")), "{chain}");
    }
}

/// RFC 4890, 4.4.1: a switch that watches who listens (MLD snooping) asks, and forgets who does not answer; without the
/// answer nobody on the network finds the appliance's IPv6 address after some minutes.
#[test]
fn questions_for_multicast_listeners_are_answered() {
    let rules = render_firewall(&site(SMALL));
    let (input, output) = rules.split_once("chain output").unwrap();
    assert!(input.contains("icmpv6 type mld-listener-query ip6 saddr fe80::/10 ip6 hoplimit 1 accept"), "{input}");
    for answer in ["mld-listener-report", "mld-listener-done", "mld2-listener-report"] {
        assert!(output.contains(&format!(" {answer}")), "{answer} in:\n{output}");
    }
}

/// Out goes what the site file names, and without DHCP no DHCP.
#[test]
fn only_named_peers_are_reached() {
    let text = format!(
        "{SMALL}[[network]]\nmatch = \"en*\"\naddress = \"192.0.2.2/24\"\ndns = [\"192.0.2.53\", \"2001:db8::53\"]\n[ehr]\nurl = \"https://192.0.2.9/fhir\"\n"
    );
    let rules = render_firewall(&site(&text));
    assert!(rules.contains("ip daddr 192.0.2.53 udp dport 53 accept") && rules.contains("ip6 daddr 2001:db8::53 tcp dport 53 accept"));
    assert!(rules.contains("meta skuid 901 ip daddr 192.0.2.9 tcp dport 443 accept"));
    assert!(!rules.contains("dport 67") && !rules.contains("dport 68") && !rules.contains("dport 123"));
}

/// The kernel's own tool understands the rules of every site.
#[test]
fn nft_takes_the_rules() {
    for text in [FULL, SMALL] {
        let rules = render_firewall(&site(text));
        assert_eq!(vitalgate_test_support::firewall_objections(&rules).unwrap(), "", "{rules}");
    }
    let broken = render_firewall(&site(SMALL)).replacen("policy drop", "policy deny", 1);
    assert_ne!(vitalgate_test_support::firewall_objections(&broken).unwrap(), "", "the fault was not found");
}
