//! What the check says: everything at once, with line and remedy, and nothing that a hostile text could break.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a helper of tests fails loudly")]

use proptest::prelude::*;
use vitalgate_site::{Site, SiteError, SiteFile};

const FULL: &str = include_str!("golden/full.toml");
const SMALL: &str = "[site]\nname = \"x\"\ngateway = \"g\"\nserial = \"any\"\nexpires = 2026-12-31\ntechnician = \"t\"\n";

fn site(text: &str) -> Site {
    SiteFile::check(text, "site").unwrap_or_else(|errors| panic!("{}", lines(&errors)))
}

fn lines(errors: &[SiteError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// The one error of a text, or all of them.
fn errors(text: &str) -> String {
    lines(&SiteFile::check(text, "site").expect_err("an error"))
}

#[test]
fn the_full_file_passes_and_means_what_it_says() {
    let site = site(FULL);
    assert_eq!(site.name, "Practice on the market square");
    assert!(site.serial.matches("VG-0001") && site.serial.matches("VG-2026-77") && !site.serial.matches("VG-0002"));
    assert_eq!(site.device_namespace.as_str(), "clinic-north");
    assert_eq!(site.networks.len(), 3);
    assert_eq!(site.time.nts[1].port, 14460);
    assert_eq!(site.mqtt.as_ref().unwrap().port, 18883);
    assert_eq!(site.publishing_devices().map(ToString::to_string).collect::<Vec<_>>(), ["monitor-01"]);
    assert_eq!(site.destinations.len(), 2);
    assert_eq!(site.authorities.len(), 1);
    assert_eq!(site.client_certificate_for, ["ehr"]);
    assert_eq!(site.same_server_as, [("ehr".to_owned(), "https://ehr.practice.example:443/fhir".to_owned())]);
    assert!(!site.authorities[0].pem.contains("The authority"), "text beside the certificate is dropped");
    assert_eq!(site.warnings().len(), 2, "{:?}", site.warnings());
}

/// The shortest file works with DHCP on every wired port, and says what is missing.
#[test]
fn the_shortest_file_has_defaults_and_warnings() {
    let site = site(SMALL);
    assert!(site.networks[0].dhcp && site.mqtt.is_none() && site.maintenance.is_none());
    assert_eq!(site.warnings().len(), 3);
}

/// Promise 3: devices with one id on two appliances are one device only where both site files say so.
#[test]
fn devices_are_unique_within_the_gateway_unless_it_shares_them() {
    let daemon = |text: &str| vitalgate_config::check(&vitalgate_site::render_daemon_config(&site(text)), "daemon").unwrap().gateway;
    let shared = SMALL.replace("gateway = \"g\"", "gateway = \"g\"\ndevice_namespace = \"clinic-north\"");
    assert_eq!((site(SMALL).device_namespace.as_str(), daemon(SMALL).device_namespace.as_str()), ("g", "g"));
    assert_eq!((site(&shared).device_namespace.as_str(), daemon(&shared).device_namespace.as_str()), ("clinic-north", "clinic-north"));
    for wrong in ["", "a b", "north/south", &"x".repeat(65)] {
        let said = errors(&shared.replace("clinic-north", wrong));
        assert!(said.starts_with("site:4: device_namespace in [site] is \"") && said.contains("; write a name like"), "{said}");
    }
}

/// Promise 2: under another namespace what a device sends again would be stored a second time.
#[test]
fn a_successor_keeps_the_namespace_of_the_devices() {
    let named = |name: &str| site(&SMALL.replace("gateway = \"g\"", &format!("gateway = \"g\"\ndevice_namespace = \"{name}\"")));
    let said = named("h").obstacles_after(&site(SMALL));
    assert!(said.len() == 1 && said[0].starts_with("device_namespace is h: it stays g"), "{said:?}");
    assert_eq!(site(SMALL).obstacles_after(&named("h")).len(), 1, "it may not be left out either");
    assert_eq!(named("g").obstacles_after(&site(SMALL)), Vec::<String>::new(), "said or not, it is the gateway's name");
    assert_eq!(site(SMALL).obstacles_after(&named("g")), Vec::<String>::new());
}

/// Promise 4: a device whose readings nobody will get is named before they are missed, and no page is filled with names.
#[test]
fn a_device_without_a_patient_is_noted_by_name() {
    let device = |number: usize| format!("[[device]]\nid = \"m{number}\"\nprofile = \"vitals-json\"\n");
    let noted = |extra: &str| -> Vec<_> {
        site(&format!("{SMALL}[mqtt]\n{extra}")).warnings().into_iter().filter(|note| note.contains("no patient for")).collect()
    };
    assert_eq!(noted(&format!("{}patient = \"Patient/4711\"\n", device(1))), Vec::<String>::new());
    let one = noted(&format!("{}{}patient = \"Patient/4711\"\n", device(1), device(2)));
    assert!(one.len() == 1 && one[0].starts_with("no patient for m1: ") && !one[0].contains("4711"), "{one:?}");
    let many = noted(&(1..=10).map(device).collect::<String>());
    assert!(many.len() == 1 && many[0].contains("m8 and 2 more:") && !many[0].contains("m9"), "{many:?}");
}

/// What an editor on Windows does to a file changes nothing.
#[test]
fn windows_line_ends_and_a_byte_order_mark_are_taken() {
    let windows = format!("\u{feff}{}", FULL.replace('\n', "\r\n"));
    let (one, two) = (site(FULL), site(&windows));
    assert_eq!(one.authorities, two.authorities);
    assert_eq!(vitalgate_site::render_daemon_config(&one), vitalgate_site::render_daemon_config(&two));
}

/// Promise 3: what waits is for patients of one server; under their ids another one may have somebody else.
#[test]
fn a_successor_moves_no_patient_of_one_server_to_another() {
    let to = |patient: &str, more: &str| {
        let device = format!("[mqtt]\nserver_names = [\"g.local\"]\n[[device]]\nid = \"m\"\nprofile = \"vitals-json\"\n{patient}");
        site(&format!("{SMALL}{device}[ehr]\n{more}\n"))
    };
    let (literal, identifier) = ("patient = \"Patient/4711\"\n", "patient = { system = \"urn:oid:1.2.3\", value = \"A1\" }\n");
    let (here, there) = ("url = \"https://ehr.local/fhir\"", "url = \"https://new.local/fhir\"");
    let before = to(literal, here);
    for there in [there, "url = \"https://ehr.local:8443/fhir\"", "url = \"https://ehr.local/r4\""] {
        let said = to(literal, there).obstacles_after(&before);
        assert!(said.len() == 1 && said[0].starts_with("destination ehr has another url"), "{said:?}");
    }
    // What waits names them as the file of before did, whatever the next one says.
    let said = to("", there).obstacles_after(&before);
    assert!(said.len() == 1 && said[0].contains("name its url of before in same_server_as") && !said[0].contains("4711"), "{said:?}");
    let stated = format!("{there}\nsame_server_as = \"https://ehr.local/fhir/\"");
    // What was stated of one move says nothing of the next.
    let said = to(literal, &stated.replace("new.local", "third.local")).obstacles_after(&to(literal, &stated));
    assert!(said.len() == 1 && said[0].starts_with("destination ehr has another url"), "{said:?}");
    for (next, before) in [
        (to(literal, &stated), &before),
        (to(literal, "url = \"https://EHR.local:443/fhir/\""), &before),
        (to(identifier, there), &to(identifier, here)),
        (to("", there), &to("", here)),
    ] {
        assert_eq!(next.obstacles_after(before), Vec::<String>::new());
    }
}

/// Promise 3: a destination that is new gets what is kept from before, which names patients by ids of the server of then.
#[test]
fn a_successor_gives_no_new_destination_the_patients_of_another_server() {
    let to = |patient: &str, destinations: &str| {
        let device = format!("[mqtt]\nserver_names = [\"g.local\"]\n[[device]]\nid = \"m\"\nprofile = \"vitals-json\"\n{patient}");
        site(&format!("{SMALL}{device}{destinations}"))
    };
    let literal = "patient = \"Patient/4711\"\n";
    let identifier = "patient = { system = \"urn:oid:1.2.3\", value = \"A1\" }\npatient_since = \"2026-11-22T10:00:00Z\"\n";
    let ehr = "[ehr]\nurl = \"https://ehr.local/fhir\"\n";
    let named = |id: &str, more: &str| format!("[[destination]]\nid = \"{id}\"\nurl = \"https://{id}.local/fhir\"\n{more}");
    let (lab, cloud) = (named("lab", ""), named("cloud", "same_patient_ids_as = \"lab\"\n"));
    let lab_as_ehr = named("lab", "same_patient_ids_as = \"ehr\"\n");
    let ehr_as_lab = format!("{ehr}same_patient_ids_as = \"lab\"\n");
    for (next, before, new) in [
        (to(identifier, &format!("{ehr}{lab}")), to(literal, ehr), "lab"),
        (to("", &format!("{ehr}{lab}")), to(literal, ehr), "lab"),
        // Which of the two the ids of before belong to, nobody said.
        (to(identifier, &format!("{ehr}{lab}")), to(literal, ""), "ehr lab"),
        // The same as another one that is new says nothing of the server of before.
        (to(identifier, &format!("{ehr}{lab}{cloud}")), to(literal, ehr), "lab cloud"),
    ] {
        let said = next.obstacles_after(&before);
        let named: Vec<_> = said.iter().filter_map(|one| one.strip_prefix("destination ")?.strip_suffix(NEW)?.split(' ').next()).collect();
        assert_eq!((named.join(" "), named.len()), (new.to_owned(), said.len()), "{said:?}");
    }
    for (next, before) in [
        (to(literal, &format!("{ehr}{lab_as_ehr}")), to(literal, ehr)),
        (to(literal, &format!("{ehr_as_lab}{lab}")), to(literal, ehr)),
        (to(literal, ehr), to(literal, "")),
        (to(identifier, &format!("{ehr}{lab}")), to(identifier, ehr)),
        (to("", &format!("{ehr}{lab}")), to("", ehr)),
    ] {
        assert_eq!(next.obstacles_after(&before), Vec::<String>::new());
    }
}

/// How the obstacle of a destination that is new ends: with all that there is to do.
const NEW: &str = "if it has the ids of a server of before, say so in same_patient_ids_as; otherwise bring first a file that names patients \
                   by identifier, and add it once nothing is queued, no dead letters are listed, and retention_days have passed since then";

/// Promise 3: with several servers an id of one of them is refused on its line, unless they share their ids.
#[test]
fn an_id_of_one_server_is_refused_where_there_are_two() {
    let said = errors(&FULL.replace("same_patient_ids_as = \"ehr\"\n", ""));
    let line = FULL.lines().position(|line| line == "patient = \"Patient/4711\"").unwrap() + 1;
    assert!(
        said.lines().count() == 1 && said.starts_with(&format!("site:{line}: patient of [[device]] monitor-01 is an id of one")),
        "{said}"
    );
}

/// One error a line, each with the line of the site file, whoever found it.
#[test]
fn every_error_is_said_at_once_with_its_line() {
    let text = "[site]\nname = \"\"\ngateway = \"a b\"\nserial = []\nexpires = \"31.12.2026\"\ncolour = 1\n\
                [[network]]\nmatch = \"en 0\"\naddress = [\"192.0.2.10\"]\ngateway = \"x\"\nvlan = 4095\n\
                [mqtt]\nport = 8443\n\
                [[device]]\nid = \"m\"\nprofile = \"vitals-jsn\"\n\
                [[device]]\nid = \"m\"\nprofile = \"vitals-json\"\npatient = \"Tom\"\n\
                [[device]]\nid = \"n\"\nprofile = \"vitals-modbus\"\nmodbus = { address = \"x\", unit = 999, extra = 1 }\n\
                [ehr]\nurl = \"http://192.0.2.1/fhir\"\nca_file = \"x\"\n\
                [[destination]]\nid = \"ehr\"\nurl = \"https://u:p@x/\"\n";
    let said = errors(text);
    for (line, what) in [
        (1, "technician"),
        (2, "name in [site] is empty"),
        (3, "gateway in [site] is \"a b\""),
        (1, "serial in [site] names no appliance"),
        (5, "no day"),
        (6, "unknown key \"colour\""),
        (8, "match in [[network]]"),
        (9, "no address with a prefix"),
        (10, "gateway in [[network]]"),
        (11, "vlan in [[network]] is outside"),
        (12, "port in [mqtt] is the status page's"),
        (16, "did you mean \"vitals-json\""),
        (18, "device m stands twice, first on line 15"),
        (20, "no reference to a FHIR Patient"),
        (24, "address in modbus"),
        (24, "unit in modbus"),
        (24, "unknown key \"extra\""),
        (26, "would cross the network in the clear"),
        (27, "unknown key \"ca_file\" in [ehr]"),
        (29, "destination ehr stands twice"),
        (30, "url in [[destination]]"),
    ] {
        let found = said.lines().any(|one| one.starts_with(&format!("site:{line}: ")) && one.contains(what));
        assert!(found, "line {line}, {what}, in:\n{said}");
    }
    assert!(said.lines().all(|line| line.contains("; ")), "an error without a remedy:\n{said}");
    assert!(!said.contains("u:p"), "a password in a URL is not repeated");
}

/// A name that is wrong is said once.
#[test]
fn an_error_is_not_said_twice() {
    for extra in [
        "[mqtt]\nserver_names = [\"a b\"]\n",
        "[mqtt]\nport = 0\n",
        "[mqtt]\nport = \"x\"\n",
        "[mqtt]\nport = 9464\n",
        "[[network]]\nmatch = \"a\"\naddress = [\"192.0.2.10\"]\n",
        "[storage]\nretention_days = 99999\n",
        "[[device]]\nid = 5\nprofile = \"vitals-modbus\"\nmodbus = { address = \"h:1\", unit = 1 }\n",
    ] {
        let said = errors(&format!("{SMALL}{extra}"));
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(!said.starts_with("site: "), "it has a line: {said}");
    }
}

/// Two ports are the appliance's own: who asks for one is told which key to change, not what a file says that nobody wrote.
#[test]
fn a_port_of_the_appliance_itself_is_refused() {
    for (port, whose) in [(8443, "the status page's"), (9464, "the gateway's own console")] {
        let said = errors(&format!("{SMALL}[mqtt]\nport = {port}\n"));
        assert!(said.contains("port in [mqtt] is ") && said.contains(whose) && said.contains("write another port"), "{said}");
    }
}

/// A name that ends in `.local` is asked only where its domain is named: it is noted before nobody finds the server.
#[test]
fn a_local_name_whose_domain_nobody_names_is_noted() {
    let noted = |domains: &str| -> Vec<_> {
        let text = format!(
            "{SMALL}[[network]]\nmatch = \"a\"\n{domains}[time]\nntp = [\"time.example\", \"clock.LOCAL\"]\n\
             [ehr]\nurl = \"https://ehr.clinic.local/fhir\"\n[[device]]\nid = \"m\"\nprofile = \"vitals-modbus\"\n\
             modbus = {{ address = \"monitor.clinic.local:502\", unit = 1 }}\n"
        );
        site(&text).warnings().into_iter().filter(|note| note.contains(".local is found only")).collect()
    };
    let one = noted("");
    assert!(one.len() == 1 && one[0].contains("clock.LOCAL, ehr.clinic.local, monitor.clinic.local:"), "{one:?}");
    let some = noted("domains = [\"clinic.local\"]\n");
    assert!(some.len() == 1 && some[0].contains(" clock.LOCAL:"), "{some:?}");
    assert!(noted("domains = [\"linic.local\"]\n")[0].contains("ehr.clinic.local"), "only whole labels are a domain");
    assert_eq!(noted("domains = [\"Local\"]\n"), Vec::<String>::new());
}

/// A file for one appliance is not for all of them by a slip: the word for all stands alone, and as it is written.
#[test]
fn the_word_for_every_appliance_stands_alone() {
    for (serial, why) in [
        ("[\"VG-0001\", \"any\"]", "serial in [site] is \"any\" beside serial numbers"),
        ("[\"any\", \"any\"]", "serial in [site] is \"any\" beside serial numbers"),
        ("\"ANY\"", "serial in [site] holds \"ANY\", which is no serial number"),
        ("[\"VG-0001\", \"Any\"]", "serial in [site] holds \"Any\", which is no serial number"),
    ] {
        let said = errors(&SMALL.replace("\"any\"", serial));
        assert!(said.lines().count() == 1 && said.contains(why), "{why}, in: {said}");
    }
    assert!(site(&SMALL.replace("\"any\"", "[\"any\"]")).serial.matches("VG-0001"));
    assert!(!site(&SMALL.replace("\"any\"", "\"any*\"")).serial.matches("VG-0001"), "the rest of a number");
}

/// The gateway has no privileges: a port that it could never listen on is refused before anybody signs it.
#[test]
fn a_port_that_takes_privileges_is_refused() {
    for port in [443, 1023] {
        let said = errors(&format!("{SMALL}[mqtt]\nport = {port}\n"));
        assert!(said.contains("port in [mqtt]") && said.contains("from 1024 to 65535 (unprivileged TCP port)"), "{said}");
    }
    assert_eq!(site(&format!("{SMALL}[mqtt]\nport = 1024\n")).mqtt.unwrap().port, 1024);
}

/// Which section a port follows is decided by the file: two patterns that claim the same port alike are refused,
/// and so is the name that a VLAN of our own bears.
#[test]
fn a_port_that_two_patterns_claim_alike_is_refused() {
    let two = |one: &str, other: &str| format!("{SMALL}[[network]]\nmatch = \"{one}\"\n[[network]]\nmatch = \"{other}\"\n");
    for (one, other) in [("en*", "*s0"), ("en*0", "enp*"), ("en?", "en*"), ("*", "?"), ("e*n", "en*")] {
        for text in [two(one, other), two(other, one)] {
            let said = SiteFile::check(&text, "site").map(|_| ()).map_err(|errors| lines(&errors));
            let said = said.expect_err(&text);
            assert!(said.starts_with("site:9: ") && said.contains("the same port") && said.contains("; "), "{said}");
        }
    }
    for (one, other) in [("en*", "eth*"), ("en*", "wl*"), ("en*", "enp*"), ("*", "en*"), ("enp?s0", "enp?s1"), ("enp2s0", "enp3s0")] {
        site(&two(one, other));
    }
    let said = errors(&format!("{SMALL}[[network]]\nmatch = \"vlan30\"\n"));
    assert!(said.contains("match in [[network]] is \"vlan30\""), "{said}");
}

#[test]
fn a_secret_is_refused_and_not_repeated() {
    for extra in [
        "[mqtt]\npassword = \"hunter22\"\n",
        "[ehr]\nurl = \"https://x/\"\nbearer_token = \"hunter22\"\n",
        "# -----BEGIN PRIVATE KEY-----\n# hunter22\n",
    ] {
        let said = errors(&format!("{SMALL}{extra}"));
        assert!(said.contains("secret") || said.contains("private key"), "{said}");
        assert!(!said.contains("hunter22"), "{said}");
    }
}

#[test]
fn a_file_that_is_too_large_is_refused() {
    assert!(errors(&format!("{SMALL}# {}", "x".repeat(64 * 1024))).contains("65536 bytes"));
}

/// Sections that contradict themselves.
#[test]
fn contradictions_are_found() {
    for (extra, what) in [
        ("[storage]\nunsealed_allowed = true\n", "gives no reason"),
        ("[storage]\nunsealed_reason = \"x\"\n", "is not true"),
        ("[[network]]\nmatch = \"a\"\ndhcp = false\n", "neither address nor dhcp"),
        ("[[network]]\nmatch = \"a\"\naddress = []\n", "neither address nor dhcp"),
        ("[[network]]\nmatch = \"a\"\naddress = \"192.0.2.2/24\"\ngateway = \"192.0.3.1\"\n", "in any of the networks"),
        ("[[network]]\nmatch = \"a\"\naddress = \"192.0.2.2/24\"\ngateway = \"192.0.2.2\"\n", "the appliance's own address"),
        ("[[network]]\nmatch = \"a\"\naddress = \"192.0.2.2/24\"\ngateway = \"192.0.2.255\"\n", "in any of the networks"),
        ("[[network]]\nmatch = \"a\"\naddress = \"192.0.2.0/24\"\n", "holds \"192.0.2.0/24\", which is no address with a prefix length"),
        ("[[network]]\nmatch = \"a\"\n[[network]]\nmatch = \"a\"\n", "stands twice"),
        ("[network]\nmatch = \"a\"\n", "write [[network]]"),
        ("[[device]]\nid = \"a\"\nprofile = \"vitals-json\"\n", "add a section [mqtt]"),
        ("[ehr]\nurl = \"https://x/\"\nca_pem = \"x\"\n", "holds no certificate"),
        ("[ehr]\nurl = \"https://x/\"\nca_pem = \"-----BEGIN CERTIFICATE-----\\nAAAA\\n-----END CERTIFICATE-----\"\n", "number 1"),
        ("[ehr]\nurl = \"https://x/\"\nclient_certificate = \"required\"\n", "write \"own\""),
        ("[ehr]\nurl = \"https://x/\"\nclient_certificate = true\n", "client_certificate in [ehr] must be text"),
        ("[ehr]\nurl = \"http://127.0.0.1/\"\nclient_certificate = \"own\"\n", "has client_certificate, but its url is http://"),
        ("[ehr]\nurl = \"https://x/\"\nclient_certificate_file = \"x\"\n", "unknown key"),
        ("[ehr]\nurl = \"https://x/\"\nsame_server_as = \"https://u:p@y/\"\n", "same_server_as in [ehr] is no URL"),
        (
            "[[device]]\nid = \"a\"\nprofile = \"vitals-modbus\"\nmodbus = { address = \"h:1\", unit = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF }\n",
            "outside its range",
        ),
        ("[update]\nserver = \"http://x/\"\n", "no plain https"),
        ("[maintenance]\nwindow = \"2-4\"\n", "cannot be read"),
        ("[time]\nntp = [\"a;b\"]\n", "no host"),
        ("[[site]]\n", "duplicate key"),
        ("= 5\n", "not valid TOML"),
    ] {
        let said = errors(&format!("{SMALL}{extra}"));
        assert!(said.contains(what), "{what}, in:\n{said}");
    }
}

proptest! {
    /// Whatever stands in a file: an answer, never a panic.
    #[test]
    fn any_text_gets_an_answer(text in "\\PC{0,400}") {
        let _ = SiteFile::check(&text, "site");
    }

    /// The same, with text that looks like a site file until one place.
    #[test]
    fn a_damaged_file_gets_an_answer(at in 0..FULL.len(), length in 0..40_usize, junk in "[\\PC\n\"\\[\\]=\\\\]{0,20}") {
        let mut text = FULL.as_bytes().to_vec();
        let end = (at + length).min(text.len());
        text.splice(at..end, junk.bytes());
        let text = String::from_utf8_lossy(&text);
        if let Err(errors) = SiteFile::check(&text, "site") {
            prop_assert!(!errors.is_empty());
        }
    }

    /// Values from outside never break out of the texts that are made from them.
    #[test]
    fn a_value_stays_a_value(value in "\\PC{1,60}") {
        let text = FULL.replace("urn:oid:1.2.276.0.76.4.8", &value.replace(['"', '\\'], ""));
        if let Ok(site) = SiteFile::check(&text, "site") {
            let rendered = vitalgate_site::render_daemon_config_in(&site, &vitalgate_site::Places { state_dir: "/data".into(), authorities: None, key_credential: None, client_certificate: None });
            prop_assert!(vitalgate_config::check(&rendered, "daemon").is_ok());
        }
    }
}

/// What is nested very deeply would exhaust the stack of a reader that follows it.
#[test]
fn deep_nesting_gets_an_answer() {
    let depth = 30_000;
    for text in [
        format!("{}a = 1\n", "a.".repeat(depth)),
        format!("[{}a]\nb = 1\n", "a.".repeat(depth)),
        format!("[[{}a]]\nb = 1\n", "a.".repeat(depth)),
        format!("a = {}{}\n", "[".repeat(depth), "]".repeat(depth)),
        format!("a = {}{}\n", "{a=".repeat(depth / 2), "}".repeat(depth / 2)),
        format!("{SMALL}[[device]]\nid = \"x\"\nprofile = \"vitals-json\"\npatient.{}a = 1\n", "a.".repeat(depth)),
    ] {
        assert!(SiteFile::check(&text, "site").is_err());
    }
}
