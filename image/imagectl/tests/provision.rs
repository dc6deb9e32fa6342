//! From a site's text to the file on the stick, and back from the appliance's reports.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a helper of tests fails loudly")]

mod common;

use std::os::unix::fs::PermissionsExt;

use common::{Folder, answered, ok, refused, run};
use vitalgate_domain::GatewayId;
use vitalgate_site::{Day, PublicKey, Signer, SigningKey, age, open_request, open_signed, seal_report_json, seal_report_text};
use vitalgate_trust::ClientIdentity;

fn today() -> Day {
    Day::parse("2026-11-22").unwrap()
}

fn folder() -> Folder {
    let folder = Folder::new();
    folder.key("root");
    ok(["provision", "new", "--template", "--output", &folder.text("site.toml")]);
    let text = String::from_utf8(folder.read("site.toml")).unwrap();
    folder.write("site.toml", text.replace("2027-12-31", "2099-12-31"));
    folder
}

fn root(folder: &Folder) -> PublicKey {
    PublicKey::parse(&String::from_utf8(folder.read("root.pub")).unwrap()).unwrap()
}

#[test]
fn a_text_becomes_a_file_that_an_appliance_takes() {
    let folder = folder();
    let signed = folder.text("site.provision");
    let said = ok(["provision", "sign", &folder.text("site.toml"), "--key", &folder.text("root.key"), "--output", &signed]);
    assert!(said.contains("gateway practice-01"), "{said}");
    assert!(open_signed(&folder.read("site.provision"), &[root(&folder)], "VG-0001", today()).is_ok());
    let check = ["provision", "check", &signed, "--root", &folder.text("root.pub")];
    assert!(ok(check).contains("root key"));
    refused(1, "PROVISION-REJECTED(16)", check.iter().copied().chain(["--serial", "VG-0002"]));
    let other = folder.key("other").replace(".key", ".pub");
    refused(1, "PROVISION-REJECTED(14)", ["provision", "check", &signed, "--root", &other]);
}

/// Whether an appliance in service would take another site file is known before anybody goes there.
#[test]
fn a_successor_is_held_against_the_file_in_service() {
    let folder = folder();
    let text = String::from_utf8(folder.read("site.toml")).unwrap();
    let check = |file: &str| ["provision".to_owned(), "check".to_owned(), file.to_owned(), "--after".to_owned(), folder.text("site.toml")];
    folder.write("more.toml", format!("{text}\n[[device]]\nid = \"monitor-99\"\nprofile = \"vitals-json\"\n"));
    assert!(ok(check(&folder.text("more.toml")).each_ref().map(String::as_str)).contains("the text is right"));
    folder.write("other.toml", text.replace("\"practice-01\"", "\"practice-02\""));
    let other = check(&folder.text("other.toml"));
    refused(1, "it stays practice-01", other.each_ref().map(String::as_str));
    refused(1, "PROVISION-REJECTED(22)", other.each_ref().map(String::as_str));
}

/// An editor that saves in another character set: the line with the first such character is named.
#[test]
fn a_text_in_another_character_set_is_refused_with_its_line() {
    let folder = folder();
    let file = folder.write("latin.toml", b"[site]\n# \"north\"\nname = \"Praxis M\xfcller\"\n");
    refused(1, "latin.toml:3: is not UTF-8 text", ["provision", "check", &file]);
    refused(1, "latin.toml:3: is not UTF-8 text", ["provision", "sign", &file, "--key", &folder.text("root.key")]);
}

/// `new --from` checks, and signs at once when it gets a key.
#[test]
fn answers_may_come_from_a_file() {
    let folder = folder();
    let output = folder.text("site.provision");
    ok(["provision", "new", "--from", &folder.text("site.toml"), "--key", &folder.text("root.key"), "--output", &output]);
    assert!(open_signed(&folder.read("site.provision"), &[root(&folder)], "VG-0001", today()).is_ok());
    refused(4, "no answer", ["provision", "new", "--output", &folder.text("x.toml")]);
}

/// Answers up to the first device: DHCP, no time servers, no EHR, devices that publish.
const SITE: &str = "Practice\npractice-01\n\n2099-12-31\nA. Example\n\n\n\n\ngateway.example\n";

/// Nobody answers a hundred questions twice: what was answered is in a file, whatever is wrong with it.
#[test]
fn answers_are_never_lost() {
    let folder = Folder::new();
    let new = |name: &str, answers: &str| answered(&format!("{SITE}{answers}"), ["provision", "new", "--output", &folder.text(name)]);
    let read = |name: &str| String::from_utf8(folder.read(name)).unwrap();
    // A wrong answer is said at once, and the part is asked again ...
    let said = new("again.toml", "monitor-01\n\nvitals-jsn\n\n\nmonitor-01\n\nvitals-json\n\n\n\n");
    assert!(said.code == 0 && said.err.contains("did you mean \"vitals-json\""), "{}", said.err);
    assert_eq!(read("again.toml").matches("[[device]]").count(), 1);
    // ... or kept, to be corrected in the file.
    let said = new("kept.toml", "monitor-01\n\nvitals-jsn\n\nno\nbed-2\n192.0.2.9:502\n\n256\nx\n9\n\n\n\n");
    assert!(said.code == 1 && said.err.contains("kept.toml:") && said.err.contains("has 1 error"), "{}", said.err);
    assert!(read("kept.toml").contains("vitals-jsn") && read("kept.toml").contains("unit = 9"), "{}", read("kept.toml"));
    // Whoever leaves keeps what is there.
    let said = new("left.toml", "monitor-01\n\n\n\nbed-2\n");
    assert!(said.code == 4 && said.err.contains("the answers are in") && said.err.contains("no answer came"), "{}", said.err);
    assert!(read("left.toml").contains("monitor-01"));
    // What is signed at once is there as text too.
    let key = folder.key("root");
    let said = answered(&format!("{SITE}\n\n"), ["provision", "new", "--key", &key, "--output", &folder.text("site.provision")]);
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(read("site.provision").starts_with(read("site.toml").trim_end()));
}

/// What somebody wrote or was given is not replaced by an example, by answers or by another delegation.
#[test]
fn a_file_that_is_there_stays() {
    let folder = folder();
    let there = folder.write("there", "mine");
    refused(4, "is there already", ["provision", "new", "--template", "--output", &there]);
    refused(4, "is there already", ["provision", "new", "--from", &folder.text("site.toml"), "--output", &there]);
    let said = answered(SITE, ["provision", "new", "--output", &there]);
    assert!(said.code == 4 && said.err.contains("is there already") && !said.err.contains("Name of the site"), "{}", said.err);
    let key = folder.text("root.key");
    refused(4, "is there already", ["provision", "new", "--from", &folder.text("site.toml"), "--key", &key, "--output", &there]);
    let recipient = folder.write("support.recipient", "mine");
    refused(4, "is there already", ["support", "keygen", recipient.trim_end_matches(".recipient")]);
    assert_eq!(folder.read("support.recipient"), b"mine");
    let delegate = ["provision", "delegate", &folder.text("root.pub"), "--key", &folder.text("root.key"), "--name", "A"];
    refused(4, "is there already", delegate.iter().copied().chain(["--expires", "2099-01-01", "--output", &there]));
    assert_eq!(folder.read("there"), b"mine");
}

/// An old signature is replaced; what was appended behind it is refused and not lost among comments.
#[test]
fn a_device_behind_the_old_signature_is_refused() {
    let folder = folder();
    let signed = folder.text("site.provision");
    ok(["provision", "sign", &folder.text("site.toml"), "--key", &folder.text("root.key"), "--output", &signed]);
    let text = String::from_utf8(folder.read("site.provision")).unwrap();
    let device = "\n[[device]]\nid = \"monitor-99\"\nprofile = \"vitals-json\"\n";
    folder.write("site.provision", format!("{text}{device}"));
    let sign = ["provision", "sign", &signed, "--key", &folder.text("root.key"), "--output", &signed];
    refused(1, "move the text above it, or remove the lines of the old signature", sign);
    folder.write("site.provision", text.replace("\n# -----BEGIN", &format!("{device}\n# -----BEGIN")));
    ok(sign);
    let (site, _) = open_signed(&folder.read("site.provision"), &[root(&folder)], "VG-0001", today()).unwrap();
    assert_eq!(site.devices.len(), 3);
}

#[test]
fn every_error_of_a_text_is_said_and_nothing_is_written() {
    let folder = folder();
    let text = String::from_utf8(folder.read("site.toml")).unwrap();
    folder.write(
        "bad.toml",
        text.replace("vitals-modbus", "vitals-modbu").replace("02:00-04:00", "2-4").replace("[mqtt]", "[mqtt]\npassword = \"x\""),
    );
    let output = folder.text("site.provision");
    let sign = ["provision", "sign", &folder.text("bad.toml"), "--key", &folder.text("root.key"), "--output", &output];
    for why in ["did you mean \"vitals-modbus\"", "window in [maintenance]", "would hold a secret", "has 3 errors"] {
        refused(1, why, sign);
    }
    assert!(!folder.path("site.provision").exists());
    folder.write("old.toml", text.replace("2099-12-31", "2020-01-01"));
    refused(
        1,
        "expired on 2020-01-01",
        ["provision", "sign", &folder.text("old.toml"), "--key", &folder.text("root.key"), "--output", &output],
    );
}

#[test]
fn a_private_key_is_its_owners_alone_and_never_overwritten() {
    let folder = folder();
    let mode = std::fs::metadata(folder.path("root.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    refused(4, "is there already", ["provision", "keygen", &folder.text("root")]);
}

#[test]
fn a_delegated_key_signs() {
    let folder = folder();
    let service = folder.key("service");
    let delegation = folder.text("delegation.txt");
    let delegate = ["provision", "delegate", &folder.text("service.pub"), "--key", &folder.text("root.key"), "--name", "Service north"];
    ok(delegate.iter().copied().chain(["--expires", "2099-01-01", "--output", &delegation]));
    let output = folder.text("site.provision");
    ok(["provision", "sign", &folder.text("site.toml"), "--key", &service, "--delegation", &delegation, "--output", &output]);
    let (_, by) = open_signed(&folder.read("site.provision"), &[root(&folder)], "VG-0001", today()).unwrap();
    assert_eq!(by.delegated.unwrap().0, "Service north");
    refused(1, "has passed", delegate.iter().copied().chain(["--expires", "2020-01-01"]));
    refused(
        1,
        "for another key",
        ["provision", "sign", &folder.text("site.toml"), "--key", &folder.text("root.key"), "--delegation", &delegation],
    );
}

/// What a delegation does not cover is refused here, not by the appliance on site; one that ends before the file is named.
#[test]
fn a_delegation_signs_what_it_is_for() {
    let folder = folder();
    let service = folder.key("service");
    let delegate = |right: &str, expires: &str| {
        let output = folder.text(&format!("{right}-{expires}.txt"));
        let parts = ["provision", "delegate", &folder.text("service.pub"), "--key", &folder.text("root.key"), "--name", "North"];
        ok(parts.into_iter().chain(["--for", right, "--expires", expires, "--output", &output]));
        output
    };
    let (site, request) = (delegate("site", "2099-12-31"), delegate("request", "2098-12-31"));
    let out = folder.text("out");
    let ask = |delegation: &str| {
        let parts = ["request", "reset", "--serial", "VG-0001", "--expires", "2099-01-01", "--technician", "A", "--reason", "moved"];
        let parts = parts.into_iter().chain(["--key", &service, "--delegation", delegation, "--output", &out]);
        parts.map(str::to_owned).collect::<Vec<_>>()
    };
    refused(1, "for site alone", ask(&site));
    let sign = ["provision", "sign", &folder.text("site.toml"), "--key", &service, "--output", &out, "--delegation"];
    refused(1, "for request alone", sign.iter().copied().chain([request.as_str()]));
    assert!(!folder.path("out").exists());
    let said = run(ask(&request));
    assert!(said.code == 0 && said.err.contains("no appliance takes it after 2098-12-31"), "{}", said.err);
    let said = run(sign.iter().copied().chain([site.as_str()]));
    assert!(said.code == 0 && !said.err.contains("no appliance takes it after"), "{}", said.err);
}

/// The key stays where it is kept: another program signs, here openssl for a token.
#[test]
fn a_program_may_sign() {
    let folder = folder();
    let output = folder.text("site.provision");
    let sign = |program: &str, public: &str| {
        let parts =
            ["provision", "sign", &folder.text("site.toml"), "--sign-with", program, "--public", &folder.text(public), "--output", &output];
        parts.map(str::to_owned)
    };
    let program = format!("openssl pkeyutl -sign -rawin -inkey {} -in {{}}", folder.text("root.key"));
    folder.key("other");
    refused(4, "no signature of this key", sign(&program, "other.pub"));
    refused(4, "cannot be used", sign("no-such-program", "root.pub"));
    refused(4, "ended with", sign("false", "root.pub"));
    refused(4, "4 bytes came back, a signature has 64", sign("printf PIN:", "root.pub"));
    // A program that gets a file gets nothing that it could take for the PIN.
    let reader = folder.write("reader", "#!/bin/sh\nread -r pin && printf 'took %s' \"$pin\"\nexit 0\n");
    std::fs::set_permissions(&reader, std::fs::Permissions::from_mode(0o700)).unwrap();
    refused(4, "0 bytes came back", sign(&format!("{reader} {{}}"), "root.pub"));
    assert!(!folder.path("site.provision").exists());
    ok(sign(&program, "root.pub"));
    assert!(open_signed(&folder.read("site.provision"), &[root(&folder)], "VG-0001", today()).is_ok());
    refused(1, "no key is named", ["provision", "sign", &folder.text("site.toml")]);
}

#[test]
fn a_request_is_made_for_named_appliances() {
    let folder = folder();
    let output = folder.text("reset.request");
    let request = |action: &str, serial: &str| {
        let parts = ["request", action, "--serial", serial, "--expires", "2099-01-01", "--technician", "A", "--reason", "moved", "--key"];
        parts.into_iter().map(str::to_owned).chain([folder.text("root.key"), "--output".to_owned(), output.clone()]).collect::<Vec<_>>()
    };
    ok(request("reset", "VG-0001"));
    let (request_read, _) = open_request(&folder.read("reset.request"), &[root(&folder)], "VG-0001", today()).unwrap();
    assert_eq!(request_read.action.word(), "reset");
    refused(1, "for any appliance", request("decommission", "any"));
    let both = || ["--serial", "any"].map(str::to_owned);
    refused(1, "\"any\" beside serial numbers", request("support", "VG-0001").into_iter().chain(both()));
    ok(request("support", "any"));
}

/// Promise 4: a request that discards names what, for one appliance, and no other request does.
#[test]
fn a_request_to_discard_names_dead_letters() {
    let folder = folder();
    let output = folder.text("replay.request");
    let request = |action: &str, serial: &str, more: &[&str]| {
        let parts = ["request", action, "--serial", serial, "--expires", "2099-01-01", "--technician", "A", "--reason", "old", "--key"];
        let files = [folder.text("root.key"), "--output".to_owned(), output.clone()];
        let more = more.iter().map(|&part| part.to_owned());
        parts.into_iter().map(str::to_owned).chain(files).chain(more).collect::<Vec<_>>()
    };
    let discard = || {
        let (read, _) = open_request(&folder.read("replay.request"), &[root(&folder)], "VG-0001", today()).unwrap();
        assert_eq!(read.action.word(), "discard");
        read.discard.unwrap()
    };
    let named = ["--kind", "Undecodable", "--device", "monitor-03", "--before", "2026-11-01", "--count"];
    let said = ok(request("discard", "VG-0001", &named));
    assert!(said.contains("as replay.request to a FAT stick with the label REPLAY"), "{said}");
    assert!(said.contains("counts dead letters: those of the kind Undecodable, of monitor-03, received before 2026-11-01"), "{said}");
    assert!(discard().count && !discard().selector.is_all());
    let said = ok(request("discard", "VG-0001", &["--all"]));
    assert!(said.contains("discards dead letters: all") && discard().selector.is_all() && !discard().count, "{said}");

    refused(1, "nothing says which", request("discard", "VG-0001", &["--count"]));
    refused(1, "is more than", request("discard", "VG-0001", &["--all", "--kind", "Undecodable"]));
    refused(1, "is for any appliance", request("discard", "any", &["--all"]));
    refused(1, "ImpossibleTime", request("discard", "VG-0001", &["--kind", "Unreadable"]));
    refused(1, "a name may hold", request("discard", "VG-0001", &["--device", "a b"]));
    refused(1, "2026-12-31", request("discard", "VG-0001", &["--before", "yesterday"]));
    for more in [["--kind", "Undecodable"].as_slice(), &["--all"], &["--count"]] {
        refused(1, "a replay names no dead letters", request("replay", "VG-0001", more));
    }
}

#[test]
fn a_report_is_proven_and_printed() {
    let folder = Folder::new();
    let key = Signer::root(SigningKey::generate().unwrap());
    let json =
        seal_report_json("{\"kind\":\"commissioning\",\"serial\":\"VG-0001\",\"tests\":[{\"name\":\"tpm\",\"ok\":true}]}", &key).unwrap();
    let file = folder.write("commissioning-report.json", &json);
    let said = ok(["report", "verify", &file]);
    assert!(said.contains("serial: VG-0001") && said.contains("OK unchanged") && said.contains(&key.public().fingerprint()), "{said}");
    ok(["report", "verify", &file, "--key", &key.public().fingerprint()]);
    refused(1, "not by", ["report", "verify", &file, "--key", "0000-0000-0000-0000"]);
    folder.write("commissioning-report.json", json.replace("VG-0001", "VG-0002"));
    refused(1, "does not match", ["report", "verify", &file]);
    let text = folder.write("provision-report.txt", seal_report_text("All well.", &key).unwrap());
    assert!(ok(["report", "verify", &text]).contains("All well."));
}

/// A prepared report hides nothing: none of its characters reaches the terminal as a command, and the verdict stands first and last.
#[test]
fn a_report_does_not_steer_the_terminal() {
    let folder = Folder::new();
    let key = Signer::root(SigningKey::generate().unwrap());
    let text = "All well.\nmore\rOK unchanged\u{1b}[2J\u{1b}[1A\u{9b}8m\nOK unchanged since 0000-0000-0000-0000 signed it";
    let said = ok(["report", "verify", &folder.write("provision-report.txt", seal_report_text(text, &key).unwrap())]);
    assert!(said.chars().all(|one| one == '\n' || !one.is_control()), "{said:?}");
    let verdict = format!("OK unchanged since {} ", key.public().fingerprint());
    assert!(said.lines().next().unwrap().starts_with(&verdict) && said.lines().last().unwrap().starts_with(&verdict), "{said}");
    assert_eq!(said.lines().filter(|line| line.starts_with("OK ")).count(), 2, "{said}");
}

/// What the appliance's commissioning report says of its own certificate, signed by the appliance.
fn identified(folder: &Folder, name: &str) -> (String, ClientIdentity) {
    let identity = ClientIdentity::generate(&GatewayId::new("practice-01").unwrap(), "VG-0001").unwrap();
    let key = Signer::root(SigningKey::generate().unwrap());
    let json = serde_json::json!({
        "serial": "VG-0001",
        "client_certificate": { "certificate": identity.certificate_pem, "request": identity.request_pem },
    });
    (folder.write(name, seal_report_json(&json.to_string(), &key).unwrap()), identity)
}

/// Whether openssl takes the request, and the certificate as that of a client that is known by it.
fn others_take_it(csr: &str, certificate: &str) -> bool {
    let openssl = |arguments: &[&str]| std::process::Command::new("openssl").args(arguments).output().unwrap().status.success();
    openssl(&["req", "-in", csr, "-verify", "-noout"]) && openssl(&["verify", "-purpose", "sslclient", "-CAfile", certificate, certificate])
}

/// The hospital's IT gets request and certificate as files, byte for byte, from either form of a report whose signature holds.
#[test]
fn request_and_certificate_come_out_of_a_report() {
    let folder = Folder::new();
    let (json, identity) = identified(&folder, "report.json");
    let plain = format!("Client certificate\n{}\n{}", identity.certificate_pem, identity.request_pem);
    let text = seal_report_text(&plain, &Signer::root(SigningKey::generate().unwrap())).unwrap().replace('\n', "\r\n");
    let text = folder.write("report.txt", text);
    for report in [&json, &text] {
        let (csr, certificate) = (folder.text("box.csr"), folder.text("box.pem"));
        let said = ok(["report", "verify", report, "--csr", &csr, "--certificate", &certificate]);
        assert!(said.contains("practice-01") && said.contains("issued by itself") && said.contains("SHA-256"), "{said}");
        assert_eq!(String::from_utf8(folder.read("box.csr")).unwrap(), identity.request_pem.replace("\r", ""));
        assert_eq!(String::from_utf8(folder.read("box.pem")).unwrap(), identity.certificate_pem.replace("\r", ""));
        assert!(others_take_it(&csr, &certificate));
    }
    assert!(!ok(["report", "verify", &json]).contains("-----BEGIN"), "the report is buried under base64");
    let none =
        folder.write("none.json", seal_report_json("{\"serial\":\"VG-0001\"}", &Signer::root(SigningKey::generate().unwrap())).unwrap());
    refused(1, "holds no certificate request", ["report", "verify", &none, "--csr", &folder.text("none.csr")]);
    folder.write("report.json", String::from_utf8(folder.read("report.json")).unwrap().replace("VG-0001", "VG-0002"));
    refused(1, "does not match", ["report", "verify", &json, "--csr", &folder.text("other.csr")]);
    assert!(!folder.path("other.csr").exists() && !folder.path("none.csr").exists());
}

/// What an appliance would refuse is refused before anybody drives to it.
#[test]
fn a_certificate_goes_into_a_signed_request() {
    let folder = folder();
    let (report, identity) = identified(&folder, "report.json");
    let (_, other) = identified(&folder, "other.json");
    let certificate = folder.write("box.pem", &identity.certificate_pem);
    let output = folder.text("certificate.request");
    let request = |action: &str, serial: &str, more: &[&str]| {
        let parts = ["request", action, "--serial", serial, "--expires", "2099-01-01", "--technician", "A", "--reason", "EHR", "--key"];
        let more = more.iter().copied().map(str::to_owned);
        parts
            .into_iter()
            .map(str::to_owned)
            .chain([folder.text("root.key"), "--output".to_owned(), output.clone()])
            .chain(more)
            .collect::<Vec<_>>()
    };
    let with = |file: &str| ["--certificate".to_owned(), file.to_owned(), "--report".to_owned(), report.clone()];
    let made = |file: &str| request("certificate", "VG-0001", &with(file).each_ref().map(String::as_str));
    let said = ok(made(&certificate));
    assert!(said.contains("label CERTIFICATE") && said.contains("practice-01"), "{said}");
    let (read, _) = open_request(&folder.read("certificate.request"), &[root(&folder)], "VG-0001", today()).unwrap();
    assert_eq!((read.action.word(), read.certificate_pem), ("certificate", Some(identity.certificate_pem.replace('\r', ""))));

    refused(1, "is for another key", made(&folder.write("theirs.pem", &other.certificate_pem)));
    refused(1, "holds no certificate", made(&folder.write("request.pem", &identity.request_pem)));
    let with_key = format!("{}{}", identity.key_pem.expose(), identity.certificate_pem);
    refused(1, "holds a private key", made(&folder.write("p12.pem", with_key)));
    refused(1, "is for any appliance", request("certificate", "any", &["--certificate", &certificate]));
    refused(1, "brings no certificate", request("reset", "VG-0001", &["--certificate", &certificate]));
    assert_eq!(common::run(request("certificate", "VG-0001", &[])).code, 2, "a request for nothing");
}

#[test]
fn a_support_bundle_opens_for_support_alone() {
    let folder = Folder::new();
    ok(["support", "keygen", &folder.text("support")]);
    let recipient = age::Recipient::parse(&String::from_utf8(folder.read("support.recipient")).unwrap()).unwrap();
    let bundle = folder.write("support.age", age::seal(b"journal", &recipient).unwrap());
    ok(["support", "decrypt", &bundle, "--key", &folder.text("support.key"), "--output", &folder.text("out")]);
    assert_eq!(folder.read("out"), b"journal");
    ok(["support", "keygen", &folder.text("other")]);
    refused(1, "not for this key", ["support", "decrypt", &bundle, "--key", &folder.text("other.key"), "--output", &folder.text("x")]);
    let sealed = std::process::Command::new("age")
        .args(["-r", &recipient.to_string(), "-o", &folder.text("theirs.age"), &folder.text("out")])
        .status();
    assert!(sealed.unwrap().success());
    ok(["support", "decrypt", &folder.text("theirs.age"), "--key", &folder.text("support.key"), "--output", &folder.text("theirs")]);
    assert_eq!(folder.read("theirs"), b"journal");
    let opened = std::process::Command::new("age").args(["-d", "-i", &folder.text("support.key"), &bundle]).output().unwrap();
    assert_eq!(opened.stdout, b"journal", "{}", String::from_utf8_lossy(&opened.stderr));
}
