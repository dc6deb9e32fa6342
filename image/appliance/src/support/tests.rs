//! The bundle as support finds it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use vitalgate_site::{Action, Signer, SigningKey, sign};

use super::*;
use crate::command::Programs as _;
use crate::command::{Answer, Call, CommandError, System};
use crate::errand::{self, stand_in};
use crate::stick::StickError;
use crate::stick::drawer::{self, Folder};
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
    let short = "[[device]]\nid = \"monitor-02\"\npatient = { system = \"urn:oid:1.2.3\", value = \"17\" }\n";
    rig.put(path::DAEMON_CONFIG, &format!("[[device]]\nid = \"monitor-01\"\npatient = \"Patient/4711\"\n{short}"));
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
    assert!(all.contains("monitor-02") && !all.contains("\"17\""), "{all}");
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
    // A stick that stays in through a restart asks once more by itself: what became of it is still on it.
    let report = fs::read_to_string(stick.join(REPORT)).unwrap();
    assert!(report.contains("only support can open it") && report.contains("carried out already"), "{report}");
}

/// Longest time that the bundle of a test takes.
const SECONDS_MAX: i64 = 120;

/// A stick whose room ends before the bundle does: /dev/full takes no byte.
struct Full(Folder);

impl Mounted for Full {
    fn folder(&self) -> &Path {
        self.0.folder()
    }
    fn check_writable(&self) -> Result<(), StickError> {
        let now_unix_s = now_unix_ms() / 1000;
        let full = |second| symlink("/dev/full", self.folder().join(format!("support-VG-0001-{second}.tar.age")));
        (now_unix_s..now_unix_s + SECONDS_MAX).try_for_each(full).map_err(StickError::NotWritable)
    }
    fn finish(self: Box<Self>) -> Result<(), StickError> {
        Box::new(self.0).finish()
    }
}

/// A bundle that does not fit leaves its reason on the stick, no half bundle, and a request that is still good.
#[test]
fn a_stick_without_room_says_so() {
    let rig = Rig::new();
    let text = Rig::request(Action::Support, 9, 1);
    let folder = drawer::stick_with(rig.folder.path(), "small", stick::SUPPORT_REQUEST, &text);
    let full = Full(Folder { folder: folder.clone(), protected: false });
    let refused = support(&rig.places, &Programs(rig.places.clone()), Box::new(full));
    assert!(refused.is_err());
    let report = fs::read_to_string(folder.join(REPORT)).unwrap();
    assert!(report.contains("NOT DONE: ") && report.contains("more room"), "{report}");
    // The request, the report, and what would have been the bundle in another second.
    assert_eq!(fs::read_dir(&folder).unwrap().count() - 2, usize::try_from(SECONDS_MAX).unwrap() - 1);

    let (folder, mounted) = rig.stick("larger", stick::SUPPORT_REQUEST, &text);
    support(&rig.places, &Programs(rig.places.clone()), mounted).unwrap();
    assert!(bundle(&folder).is_some());
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
