//! Erasing a real LUKS2 volume in a file, with the real program.

use std::cell::RefCell;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use vitalgate_layout::path;
use vitalgate_site::open_report;

use super::*;
use crate::command::Programs as _;
use crate::command::{Answer, CommandError, System};
use crate::stick::rig::Rig;
use crate::storage::RecoveryKey;
use crate::tpm::software::SoftwareTpm;

/// The real cryptsetup on a file; the partition table and the restart are remembered.
struct Programs {
    device: PathBuf,
    renamed: RefCell<Vec<String>>,
    cut: Option<&'static str>,
    /// What a program answers that begins like this.
    answers: Option<(&'static str, Answer)>,
}

impl crate::command::Programs for Programs {
    fn attempt(&self, call: Call) -> Result<Answer, CommandError> {
        let line = call.line();
        if self.cut.is_some_and(|cut| line.starts_with(cut)) {
            return Err(CommandError::Start { program: call.program(), reason: io::Error::other("no power") });
        }
        if let Some((_, answer)) = self.answers.as_ref().filter(|(beginning, _)| line.starts_with(beginning)) {
            return Ok(answer.clone());
        }
        match call.program() {
            "cryptsetup" => System.attempt(call),
            "sfdisk" if line.contains("--json") => {
                let table = format!(
                    r#"{{"partitiontable":{{"partitions":[{{"node":"{}","size":4194304,"name":"data"}}]}}}}"#,
                    self.device.display()
                );
                Ok(Answer { success: true, output: table.into_bytes(), ..Answer::default() })
            }
            "sfdisk" | "systemctl" => {
                self.renamed.borrow_mut().push(line);
                Ok(Answer { success: true, ..Answer::default() })
            }
            _ => Ok(Answer::default()),
        }
    }
}

fn appliance(cut: Option<&'static str>) -> (Rig, Programs, RecoveryKey) {
    let rig = Rig::new();
    let part = rig.places.at("/sys/devices/vda/vda2");
    rig.put("/sys/devices/vda/vda2/partition", "2");
    rig.put("/sys/class/block/dm-0/dm/name", "root\n");
    rig.put("/sys/class/block/dm-0/slaves/vda2/x", "");
    symlink(part, rig.places.at("/sys/class/block/vda2")).unwrap();
    fs::create_dir_all(rig.places.at("/dev")).unwrap();
    let device = rig.places.at("/dev/vda6");
    fs::File::create(&device).unwrap().set_len(64 << 20).unwrap();
    let key = RecoveryKey::generate().unwrap();
    let format = Call::new("cryptsetup", "").arguments(["luksFormat", "--batch-mode", "--type", "luks2", "--pbkdf", "pbkdf2"]);
    let format = format.arguments(["--pbkdf-force-iterations", "1000", "--key-file", "-"]).arguments([&device]);
    System.run(format.input(key.text().as_bytes())).unwrap();
    (rig, Programs { device, renamed: RefCell::default(), cut, answers: None }, key)
}

fn opens(device: &Path, key: &RecoveryKey) -> bool {
    let call = Call::new("cryptsetup", "").arguments(["open", "--test-passphrase", "--key-file", "-"]).arguments([device]);
    System.attempt(call.input(key.text().as_bytes())).unwrap().success
}

/// After a reset the recovery key opens nothing, no byte of the header is left, the certificate is
/// signed by the appliance's key, and the appliance restarts; the same request does nothing again.
#[test]
fn a_reset_leaves_nothing_that_opens() {
    let (rig, programs, key) = appliance(None);
    fs::create_dir_all(rig.places.at(path::APPLIANCE)).unwrap();
    let own = report::key(&rig.places).unwrap().public();
    assert!(opens(&programs.device, &key));
    let (stick, mounted) = rig.stick("reset", stick::RESET_REQUEST, &Rig::request(Action::Reset, 3, 1));
    reset(&rig.places, &programs, mounted).unwrap();

    assert!(!opens(&programs.device, &key));
    assert!(fs::read(&programs.device).unwrap().iter().take(HEADER_MIB << 20).all(|byte| *byte == 0));
    let certificate = open_report(&fs::read(stick.join(CERTIFICATE)).unwrap()).unwrap();
    assert_eq!(certificate.signed_by, own);
    assert!(certificate.text.contains("VG-0001") && certificate.text.contains("\"destroyed\""), "{}", certificate.text);
    open_report(&fs::read(stick.join(CERTIFICATE_TEXT)).unwrap()).unwrap();
    let calls = programs.renamed.borrow().clone();
    assert!(calls[0].ends_with("6 data-new") && calls[1] == "systemctl --force reboot", "{calls:?}");

    let (_, again) = rig.stick("reset", stick::RESET_REQUEST, &Rig::request(Action::Reset, 3, 1));
    assert!(reset(&rig.places, &programs, again).is_err());
    assert_eq!(programs.renamed.borrow().len(), 2, "the same request did something again");
    // The stick stays in through the restart: how the erasure ended is still on it.
    let report = fs::read_to_string(stick.join(REPORT)).unwrap();
    assert!(report.contains("done; the certificate is beside this file") && report.contains("REFUSED (19)"), "{report}");
}

/// The TPM signs the certificate although what its key is made from is erased by then; where it does not, another key does.
#[test]
fn the_tpm_certifies_what_is_erased() {
    let (rig, programs, key) = appliance(None);
    let (tpm, _) = SoftwareTpm::in_place(rig.folder.path());
    fs::create_dir_all(rig.places.at(path::APPLIANCE)).unwrap();
    let own = report::key(&rig.places).unwrap();
    assert!(own.public().signs_reports_only());
    let (stick, mounted) = rig.stick("reset", stick::RESET_REQUEST, &Rig::request(Action::Reset, 3, 1));
    reset(&rig.places, &programs, mounted).unwrap();
    assert!(!opens(&programs.device, &key));
    let certificate = || open_report(&fs::read(stick.join(CERTIFICATE)).unwrap()).unwrap();
    assert_eq!(certificate().signed_by, own.public());
    assert!(certificate().text.contains("\"the appliance's own key\""), "{}", certificate().text);

    drop(tpm);
    let (_, mounted) = rig.stick("reset", stick::RESET_REQUEST, &Rig::request(Action::Reset, 4, 1));
    write_certificate(&*mounted, Certificate::default(), &own).unwrap();
    assert!(certificate().signed_by != own.public() && certificate().text.contains(KEY_FOR_THIS), "{}", certificate().text);
}

/// Whatever is cut off, the partition is called unfinished before anything is destroyed: the next start
/// makes it anew and never uses what is left.
#[test]
fn a_reset_that_is_cut_is_finished_by_the_next_start() {
    for cut in ["cryptsetup luksErase", "cryptsetup isLuks"] {
        let (rig, programs, _) = appliance(Some(cut));
        let (_, mounted) = rig.stick("reset", stick::RESET_REQUEST, &Rig::request(Action::Decommission, 4, 1));
        assert!(reset(&rig.places, &programs, mounted).is_err());
        assert!(programs.renamed.borrow()[0].ends_with("6 data-new"), "{cut}");
    }
}

/// What goes wrong is on the stick with its remedy. Nothing goes on storing on a partition that was given up; where it was
/// not, the appliance goes on.
#[test]
fn a_reset_that_fails_says_why() {
    let verbs = [(Action::Reset, "reboot"), (Action::Decommission, "poweroff")];
    for (cut, given_up, why) in [
        ("cryptsetup luksErase", true, "no power"),
        ("cryptsetup isLuks", true, "no power"),
        ("sfdisk --no-reread", false, "nothing was erased"),
    ] {
        for (action, verb) in verbs {
            let (rig, programs, key) = appliance(Some(cut));
            let (stick, mounted) = rig.stick("reset", stick::RESET_REQUEST, &Rig::request(action, 4, 1));
            assert!(reset(&rig.places, &programs, mounted).is_err());
            let report = fs::read_to_string(stick.join(REPORT)).unwrap();
            assert!(report.contains("NOT DONE: ") && report.contains(why) && report.contains(ANOTHER_REQUEST), "{cut}: {report}");
            assert!(!stick.join(CERTIFICATE).exists());
            let left = programs.renamed.borrow().contains(&format!("systemctl --force {verb}"));
            assert_eq!((left, opens(&programs.device, &key)), (given_up, cut != "cryptsetup isLuks"), "{cut}");
        }
    }
}

/// A stick that takes no certificate any more is no reason to go on without storage.
#[test]
fn an_erased_appliance_restarts_without_its_certificate_too() {
    let (rig, programs, key) = appliance(None);
    let (stick, mounted) = rig.stick("reset", stick::RESET_REQUEST, &Rig::request(Action::Reset, 3, 1));
    fs::create_dir(stick.join(CERTIFICATE)).unwrap();
    assert!(reset(&rig.places, &programs, mounted).is_err());
    let report = fs::read_to_string(stick.join(REPORT)).unwrap();
    assert!(report.contains("reset done, but the certificate of it is not on the stick"), "{report}");
    assert!(!opens(&programs.device, &key));
    assert_eq!(programs.renamed.borrow().last().unwrap(), "systemctl --force reboot");
}

/// A request that nobody of ours signed erases nothing.
#[test]
fn a_stranger_erases_nothing() {
    let (rig, programs, key) = appliance(None);
    for (name, text) in [("stranger", Rig::request(Action::Reset, 5, 2)), ("support", Rig::request(Action::Support, 6, 1))] {
        let (stick, mounted) = rig.stick(name, stick::RESET_REQUEST, &text);
        assert!(reset(&rig.places, &programs, mounted).is_err());
        assert!(fs::read_to_string(stick.join(REPORT)).unwrap().contains("REFUSED"));
    }
    assert!(opens(&programs.device, &key));
    assert!(programs.renamed.borrow().is_empty());
}

/// Carries a reset out; gives the certificate for a person.
fn certificate(rig: &Rig, programs: &Programs) -> String {
    let (stick, mounted) = rig.stick("reset", stick::RESET_REQUEST, &Rig::request(Action::Reset, 3, 1));
    reset(&rig.places, programs, mounted).unwrap();
    open_report(&fs::read(stick.join(CERTIFICATE_TEXT)).unwrap()).unwrap().text
}

/// The row of the certificate with this name.
fn row(text: &str, name: &str) -> String {
    text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("no {name}: {text}")).trim().to_owned()
}

/// Who files the certificate reads in it whether its moment is one that the appliance knew.
#[test]
fn the_certificate_says_how_its_moment_is_known() {
    for (word, expected) in [
        (Some("unset\n"), "not set since power-on: the moment above is not known"),
        (Some("free\n"), "ran by itself: the moment above is by its battery"),
        (Some("synchronised\n"), "followed a time source that is not authenticated"),
        (Some("authenticated\n"), "followed authenticated time sources"),
        (None, "not known"),
    ] {
        let (rig, programs, _) = appliance(None);
        word.into_iter().for_each(|word| rig.put(path::CLOCK_TRUST, word));
        let text = certificate(&rig, &programs);
        assert_eq!(row(&text, "Clock"), expected);
        assert!(text.find("Erased").unwrap() < text.find("Clock").unwrap(), "{text}");
    }
}

/// The key of storage without a seal does not stay in the free space of the disk, and the certificate names it.
#[test]
fn the_key_beside_is_overwritten_and_certified() {
    let (rig, programs, key) = appliance(None);
    let beside = rig.places.at(path::UNSEALED_KEY);
    rig.put(path::UNSEALED_KEY, &key.text());
    let sectors = rig.folder.path().join("sectors");
    fs::hard_link(&beside, &sectors).unwrap();
    assert_eq!(row(&certificate(&rig, &programs), "Key beside it"), "overwritten and removed");
    assert!(!beside.exists());
    let left = fs::read(sectors).unwrap();
    assert!(left.len() == key.text().len() && left.iter().all(|byte| *byte == 0), "{} bytes", left.len());

    let (rig, programs, _) = appliance(None);
    assert_eq!(row(&certificate(&rig, &programs), "Key beside it"), "none");
}

/// Only a look that found no header is certified as one: a disk that does not answer any more may still have it.
#[test]
fn a_header_that_cannot_be_looked_for_is_not_certified_as_gone() {
    for code in [Some(0), Some(2), Some(4), None] {
        let (rig, mut programs, _) = appliance(None);
        programs.answers = Some(("cryptsetup isLuks", Answer { success: code == Some(0), code, ..Answer::default() }));
        let (stick, mounted) = rig.stick("reset", stick::RESET_REQUEST, &Rig::request(Action::Reset, 3, 1));
        assert!(reset(&rig.places, &programs, mounted).is_err(), "{code:?}");
        assert!(!stick.join(CERTIFICATE).exists(), "{code:?}");
        let report = fs::read_to_string(stick.join(REPORT)).unwrap();
        assert!(report.contains("NOT DONE: ") && report.contains("header") && report.contains("destroy the disk"), "{report}");
    }
}

/// A disk that cannot forget is told from one that was stopped halfway.
#[test]
fn a_discard_that_failed_is_not_called_unsupported() {
    let ended = |complaint: &str| Answer { code: Some(1), complaint: complaint.to_owned(), ..Answer::default() };
    let refused = "blkdiscard: /dev/vda6: BLKDISCARD ioctl failed: ";
    for (answer, said, in_json) in [
        (Answer { success: true, code: Some(0), ..Answer::default() }, "yes", true),
        (ended(&format!("{refused}Operation not supported\n")), "not supported", false),
        (ended(&format!("{refused}Input/output error\n")), "failed: ", false),
    ] {
        let (rig, mut programs, _) = appliance(None);
        programs.answers = Some(("blkdiscard", answer));
        let discarded = row(&certificate(&rig, &programs), "Disk discarded");
        assert!(discarded == said || said.ends_with(' ') && discarded.starts_with(said), "{said}: {discarded}");
        let json = open_report(&fs::read(rig.folder.path().join("reset").join(CERTIFICATE)).unwrap()).unwrap().text;
        assert!(json.contains(&format!("\"discarded\": {in_json}")), "{json}");
    }
    // One that ran into its deadline, or was not started.
    let (rig, programs, _) = appliance(Some("blkdiscard"));
    assert!(row(&certificate(&rig, &programs), "Disk discarded").starts_with("failed: "));
}
