//! A request to discard dead letters names them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a helper of tests fails loudly")]

use vitalgate_domain::DeadLetterSelector;
use vitalgate_site::{Action, Day, Discard, Request, Serial, SignError, Signer, SigningKey, check_request, open_request, sign_request};

const HEAD: &str = "[request]\nid = \"00112233445566778899aabbccddeeff\"\nserial = [\"VG-0001\"]\nexpires = \"2026-11-30\"\n\
                    technician = \"A. Example\"\nreason = \"nothing helps\"\n";

fn root() -> Signer {
    Signer::root(SigningKey::parse(&"01".repeat(32)).unwrap())
}

fn request(action: Action, discard: Option<Discard>) -> Request {
    Request {
        action,
        id: "00112233445566778899aabbccddeeff".to_owned(),
        serial: Serial::OneOf(vec!["VG-0001".to_owned()]),
        expires: Day::parse("2026-11-30").unwrap(),
        technician: "A. Example".to_owned(),
        reason: "nothing helps".to_owned(),
        certificate_pem: None,
        discard,
    }
}

fn named(kind: Option<&str>, device: Option<&str>, before: Option<&str>) -> DeadLetterSelector {
    DeadLetterSelector::parse(kind, device, before).unwrap()
}

/// Promise 4: what is signed is what the appliance discards, be it named by one thing, by several or as all.
#[test]
fn what_is_named_arrives_as_it_was_signed() {
    for selector in [
        named(Some("Undecodable"), Some("monitor-03"), Some("2026-11-01")),
        named(Some("Rejected"), None, None),
        named(None, Some("monitor-03"), None),
        named(None, None, Some("2026-11-01T10:00:00.250+01:00")),
        named(None, None, None),
    ] {
        for count in [false, true] {
            let asked = request(Action::Discard, Some(Discard { selector: selector.clone(), count }));
            let text = sign_request(&asked, &root()).unwrap();
            assert_eq!(text.contains("all = true"), selector.is_all(), "all is said, not left out:\n{text}");
            let opened = open_request(text.as_bytes(), &[root().public()], "VG-0001", Day::parse("2026-11-22").unwrap());
            assert_eq!(opened.unwrap().0, asked);
        }
    }
}

/// Promise 4: a request that names nothing is for nothing, and one to send again never discards.
#[test]
fn what_names_nothing_is_not_signed() {
    let refused = |request: &Request| {
        let Err(SignError::Errors(errors)) = sign_request(request, &root()) else { panic!("it was signed") };
        errors.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let errors = refused(&request(Action::Discard, None));
    assert!(errors.len() == 1 && errors[0].contains("names no dead letters") && errors[0].contains("all = true"), "{errors:?}");
    let whole = Discard { selector: named(Some("Undecodable"), Some("monitor-03"), Some("2026-11-01")), count: true };
    let errors = refused(&request(Action::Replay, Some(whole)));
    assert!(errors.len() == 4 && errors.iter().all(|error| error.contains("belongs to no replay")), "{errors:?}");
}

/// Promise 4: a name that is none names nothing; place and remedy are said.
#[test]
fn a_wrong_name_is_refused_with_its_place() {
    for (lines, why, remedy) in [
        ("kind = \"Unreadable\"", "kind in [request] is \"Unreadable\"", "UnknownMetric"),
        ("kind = \"\"", "kind in [request] is \"\"", "Undecodable"),
        ("kind = 1", "kind in [request] must be text", "write text"),
        ("kind = \"Rejected\"\ndevice = \"*\"", "device in [request] is \"*\"", "a name may hold"),
        ("before = \"yesterday\"", "before in [request] is \"yesterday\"", "2026-12-31"),
        ("kinds = \"Rejected\"\ndevice = \"a\"", "unknown key \"kinds\"", "known are"),
        ("device = \"a\"\ncount = \"yes\"", "count in [request] must be", "true or false"),
        ("device = \"a\"\nall = true", "all dead letters, and some", "or else"),
        ("all = false\ncount = true", "names no dead letters", "all = true"),
    ] {
        let errors = check_request(&format!("{HEAD}action = \"discard\"\n{lines}\n"), "request").unwrap_err();
        let [error] = errors.as_slice() else { panic!("{lines}: {errors:?}") };
        assert!(error.message.contains(why) && error.remedy.contains(remedy), "{error}");
    }
}
