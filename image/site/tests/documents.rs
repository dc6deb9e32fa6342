//! The documentation says what the check does.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a helper of tests fails loudly")]

use std::path::Path;

use vitalgate_config::schema::Kind;
use vitalgate_layout::Rejection;
use vitalgate_site::{Action, check_request, schema};

fn document(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name)).unwrap()
}

/// Every key stands in the table of its section with its unit, default and range, and no other key does.
#[test]
fn every_key_is_documented_as_it_is_checked() {
    let text = document("site-file.md");
    let mut wrong = Vec::new();
    for section in schema::SECTIONS.iter().filter(|section| !["[[device]]", "[ehr]"].contains(&section.title)) {
        let heading = text.lines().position(|line| line.starts_with("## ") && line.contains(&format!("`{}`", section.title)));
        let Some(heading) = heading else { panic!("no heading for {}", section.title) };
        let rows: Vec<&str> =
            text.lines().skip(heading + 1).take_while(|line| !line.starts_with("## ")).filter(|line| line.starts_with("| `")).collect();
        let documented: Vec<&str> = rows.iter().map(|row| row.split('`').nth(1).unwrap()).collect();
        assert_eq!(documented, section.keys.iter().map(|key| key.name).collect::<Vec<_>>(), "keys of {}", section.title);
        for (row, key) in rows.iter().zip(section.keys) {
            let end = format!("| {} | {} | {} |", key.unit(), key.default(), key.range()).replace("|  |", "| |");
            if !row.ends_with(&end) {
                wrong.push(format!("{} {}: {end}", section.title, key.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(text.contains(&vitalgate_layout::stick::SITE_FILE_BYTES_MAX.to_string()));
}

/// The unit of the gateway gives it no capability: every port that a site file may give it is one that needs none.
#[test]
fn the_gateway_may_listen_on_every_port_that_is_taken() {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../rootfs/usr/lib/systemd/system/vitalgate.service");
    let unit = std::fs::read_to_string(unit).unwrap();
    assert!(unit.lines().any(|line| line == "CapabilityBoundingSet="), "with CAP_NET_BIND_SERVICE lower ports could be let in");
    assert_eq!((schema::MQTT_PORT.min, schema::MQTT_PORT.max), (1_024, 65_535));
}

/// `domains` means that the name servers of that network are asked: who knows one network from another listens, and is asked by
/// every program.
#[test]
fn names_are_asked_of_the_network_that_knows_them() {
    let image = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let link = std::fs::read_link(image.join("rootfs/etc/resolv.conf")).unwrap();
    assert_eq!(link, Path::new("/run/systemd/resolve/stub-resolv.conf"), "any other list mixes the servers of all networks");
    let resolver = std::fs::read_to_string(image.join("rootfs/usr/lib/systemd/resolved.conf.d/vitalgate.conf")).unwrap();
    assert!(resolver.lines().any(|line| line == "DNSStubListener=yes"), "it names 127.0.0.53, where nobody would listen");
}

/// What a request may ask for stands in its schema, in the order of the manual.
#[test]
fn every_action_of_a_request_is_in_the_schema() {
    let action = schema::REQUEST.keys.iter().find(|key| key.name == "action").unwrap();
    let Kind::OneOf(words) = action.kind else { panic!("the action is one of some words") };
    assert_eq!(words, Action::ALL.map(Action::word));
    let said = check_request("[request]\naction = \"x\"\n", "request").unwrap_err();
    let said = said.iter().find(|error| error.message.contains("action")).unwrap();
    assert!(words.iter().all(|word| said.remedy.contains(&format!("\"{word}\""))), "{said}");
}

/// A number on the console is found in the manual with the words of the program.
#[test]
fn every_refusal_is_in_the_manual() {
    let text = document("imagectl.md");
    for rejection in Rejection::ALL {
        let row = format!("| {} | {} | {} |", rejection.code(), rejection.meaning(), rejection.remedy());
        assert!(text.contains(&row), "{row}");
    }
}
