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
}

impl crate::command::Programs for Programs {
    fn attempt(&self, call: Call) -> Result<Answer, CommandError> {
        let line = call.line();
        if self.cut.is_some_and(|cut| line.starts_with(cut)) {
            return Err(CommandError::Start { program: call.program(), reason: io::Error::other("no power") });
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
    (rig, Programs { device, renamed: RefCell::default(), cut }, key)
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
