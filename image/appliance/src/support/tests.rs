//! The bundle as support finds it.

use std::fs;
use std::path::Path;

use vitalgate_site::{Action, Signer, SigningKey, sign};

use super::*;
use crate::command::Programs as _;
use crate::command::{Answer, Call, CommandError, System};
use crate::errand::{self, stand_in};
use crate::stick::rig::Rig;

/// A journal that names a patient, and a clock that does not answer.
struct Programs(Places);

impl crate::command::Programs for Programs {
    fn attempt(&self, call: Call) -> Result<Answer, CommandError> {
        if let Some(errand) = stand_in::started(&call) {
            errand::run(errand, &self.0, self).unwrap();
        }
        let success = call.program() != "chronyc";
        Ok(Answer { success, output: b"{\"MESSAGE\":\"lost Patient/4711 and Patient/9\"}\n".to_vec(), ..Answer::default() })
    }
}

fn bundle(stick: &Path) -> Option<std::path::PathBuf> {
    fs::read_dir(stick).unwrap().map(|entry| entry.unwrap().path()).find(|file| file.extension().is_some_and(|ending| ending == "age"))
}

/// Support opens it and nobody else; no patient is in it, and what is missing is named.
#[test]
fn support_gets_everything_but_patients() {
    let rig = Rig::new();
    let signer = Signer::root(SigningKey::parse(&"01".repeat(32)).unwrap());
    rig.put(path::SITE_FILE, &sign(crate::provision::SITE_EXAMPLE, &signer).unwrap());
    rig.put(path::DAEMON_CONFIG, "[[device]]\nid = \"monitor-01\"\npatient = \"Patient/4711\"\n");
    let (stick, mounted) = rig.stick("support", stick::SUPPORT_REQUEST, &Rig::request(Action::Support, 7, 1));
    support(&rig.places, &Programs(rig.places.clone()), mounted).unwrap();

    let sealed = fs::read(bundle(&stick).unwrap()).unwrap();
    assert!(age::open(&sealed, &age::Identity::generate().unwrap()).is_err(), "a stranger opens the bundle");
    let archive = age::open(&sealed, &rig.support).unwrap();
    let read = |arguments: &[&str]| System.run(Call::new("tar", "").arguments(arguments).input(archive.clone())).unwrap().text();
    let (names, all) = (read(&["-tf", "-"]), read(&["-xOf", "-"]));
    for name in ["about.json", "journal.jsonl", "network.txt", "configuration/vitalgate.toml"] {
        assert!(names.contains(name), "{names}");
    }
    assert!(all.contains("monitor-01") && all.contains("lost Patient/[patient]"), "{all}");
    assert!(!all.contains("4711") && !all.contains("Patient/9"), "{all}");
    assert!(all.contains("time.txt: chronyc failed"), "{all}");
    let report = fs::read_to_string(stick.join(REPORT)).unwrap();
    assert!(report.contains("Missing: time.txt"), "{report}");
    // An appliance that never went back to an earlier version lacks nothing.
    assert!(!report.contains("rollback") && all.contains("rollback.json"), "{report}");

    // The same request again gets nothing.
    fs::remove_file(bundle(&stick).unwrap()).unwrap();
    let (_, again) = rig.stick("support", stick::SUPPORT_REQUEST, &Rig::request(Action::Support, 7, 1));
    assert!(support(&rig.places, &Programs(rig.places.clone()), again).is_err());
    assert!(bundle(&stick).is_none());
    assert!(fs::read_to_string(stick.join(REPORT)).unwrap().contains("carried out already"));
}

/// A stranger's request, one for something else, and garbage get a report with the number, and no bundle.
#[test]
fn a_request_that_is_not_signed_for_gets_nothing() {
    let rig = Rig::new();
    for (name, text, number) in [
        ("stranger", Rig::request(Action::Support, 1, 2), 14),
        ("reset", Rig::request(Action::Reset, 2, 1), 18),
        ("garbage", "\u{1}\u{2}".to_owned(), 12),
    ] {
        let (stick, mounted) = rig.stick(name, stick::SUPPORT_REQUEST, &text);
        assert!(support(&rig.places, &Programs(rig.places.clone()), mounted).is_err());
        let report = fs::read_to_string(stick.join(REPORT)).unwrap();
        assert!(report.contains(&format!("REFUSED ({number})")), "{name}: {report}");
        assert!(bundle(&stick).is_none());
    }
}
