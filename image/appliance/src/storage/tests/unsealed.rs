//! Storage that was made without a seal, on a machine whose TPM is switched on later.

use super::*;

/// An appliance that stored readings without a TPM, which is there now.
fn with_a_tpm_since(folder: &Path) -> Machine {
    let machine = Machine::new(folder);
    fs::remove_dir_all(machine.places().at("/sys/class/tpmrm")).unwrap();
    boot(&machine, &Drawer::of([("PROVISION", stick_with(folder, "signed", "site.provision", "the operator"))])).unwrap();
    machine.readings.set(1);
    let recovery = RecoveryKey::parse(&machine.passphrase.borrow().clone().unwrap()).unwrap();
    let appliance = folder.join("data/appliance");
    fs::create_dir_all(&appliance).unwrap();
    fs::write(appliance.join("kek.recovery"), KeyEncryptionKey::generate().unwrap().wrapped(&recovery).unwrap()).unwrap();
    fs::write(appliance.join("kek.cred"), "open to all").unwrap();
    fs::create_dir_all(machine.places().at("/sys/class/tpmrm/tpmrm0")).unwrap();
    machine.strict.set(true);
    machine.restart(None);
    machine
}

fn credential(machine: &Machine) -> String {
    fs::read_to_string(machine.root.join("data/appliance/kek.cred")).unwrap()
}

fn key_beside(machine: &Machine) -> bool {
    machine.places().at(path::UNSEALED_KEY).exists()
}

/// Who switches the TPM on, as the status page advises, gets sealed storage, a gateway that starts, and no key beside it any more.
#[test]
fn a_tpm_that_is_switched_on_seals_what_was_stored_without_it() {
    let folder = tempfile::tempdir().unwrap();
    let machine = with_a_tpm_since(folder.path());
    boot(&machine, &Drawer::default()).unwrap();
    let said = StateFiles::of(&machine.places()).read(Part::Data).unwrap();
    assert_eq!((said.word, said.facts[fact::SEALED].as_str()), (StateWord::Ready, fact::SEALED_YES));
    assert_eq!((credential(&machine).as_str(), machine.sealed_to.get(), key_beside(&machine)), ("sealed to 0", Some(0), false));
    machine.restart(None);
    assert_eq!(boot_without_help(&machine).unwrap(), Opened::Sealed);
}

/// The power goes at every call of that start, before and after its effect: the next one opens storage without any help, and the
/// gateway gets a key that it can read.
#[test]
fn a_seal_that_is_cut_anywhere_is_made_by_the_next_start() {
    let calls = {
        let folder = tempfile::tempdir().unwrap();
        let machine = with_a_tpm_since(folder.path());
        boot_without_help(&machine).unwrap();
        machine.calls.get()
    };
    assert!(calls >= 6, "{calls} calls: the machine does not see every step");
    for at in 1..=calls {
        for after in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let machine = with_a_tpm_since(folder.path());
            machine.restart(Some((at, after)));
            let _ = boot_without_help(&machine);
            machine.restart(None);
            boot_without_help(&machine).unwrap_or_else(|error| panic!("cut at {at}: {error}"));
            let kept = (credential(&machine), machine.sealed_to.get(), key_beside(&machine));
            assert_eq!(kept, ("sealed to 0".to_owned(), Some(0), false), "cut at {at}");
        }
    }
}

/// A TPM that seals nothing is told from storage that is in service: nothing is left open for a gateway that would not start, nothing
/// is lost, and switching the TPM off again, as is said, brings all of it back. Where the service manager takes the key as it is,
/// service goes on.
#[test]
fn a_tpm_that_does_not_seal_is_said_to_be_in_the_way() {
    for strict in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let machine = with_a_tpm_since(folder.path());
        machine.refuses.set(true);
        machine.strict.set(strict);
        let opened = boot_without_help(&machine);
        assert_eq!(machine.places().at("/dev/mapper/data").exists(), !strict);
        if strict {
            let error = opened.unwrap_err().to_string();
            assert!(error.ends_with("switch the TPM off in the firmware and start again"), "{error}");
        } else {
            assert_eq!(opened.unwrap(), Opened::Unsealed(None));
        }
        assert_eq!((credential(&machine).as_str(), key_beside(&machine)), ("open to all", true));
        fs::remove_dir_all(machine.places().at("/sys/class/tpmrm")).unwrap();
        machine.restart(None);
        assert_eq!(boot_without_help(&machine).unwrap(), Opened::Unsealed(None));
    }
}

/// Storage whose key still lies beside it is not called sealed.
#[test]
fn a_key_that_stays_beside_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let machine = with_a_tpm_since(folder.path());
    boot_without_help(&machine).unwrap();
    fs::create_dir_all(machine.places().at(path::UNSEALED_KEY)).unwrap();
    machine.restart(None);
    assert_eq!(boot_without_help(&machine).unwrap(), Opened::Unsealed(None));
}

/// The key beside storage goes when the TPM has shown that it opens, not before.
#[test]
fn a_seal_that_does_not_open_takes_no_key_away() {
    let folder = tempfile::tempdir().unwrap();
    let machine = with_a_tpm_since(folder.path());
    machine.shut.set(true);
    for _ in 0..2 {
        assert_eq!(boot_without_help(&machine).unwrap(), Opened::Unsealed(None));
        assert!(machine.places().at("/dev/mapper/data").exists() && key_beside(&machine));
        machine.restart(None);
    }
    // Switched off again, the TPM leaves no gateway behind that cannot start.
    let tpm = machine.places().at("/sys/class/tpmrm");
    fs::rename(&tpm, tpm.with_extension("off")).unwrap();
    assert_eq!(credential(&machine), "sealed to 0");
    assert_eq!((boot_without_help(&machine).unwrap(), credential(&machine).as_str()), (Opened::Unsealed(None), "open to all"));
    fs::rename(tpm.with_extension("off"), &tpm).unwrap();
    machine.restart(None);

    machine.shut.set(false);
    assert_eq!((boot_without_help(&machine).unwrap(), key_beside(&machine)), (Opened::Sealed, false));
}
