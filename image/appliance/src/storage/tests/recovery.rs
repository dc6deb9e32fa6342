//! Starts with the recovery key, after the TPM was cleared or changed.

use super::*;
use crate::storage::help::OPEN_AGAIN_LOOKS;

/// A filled appliance whose TPM was cleared, and its recovery key.
fn with_another_tpm(folder: &Path) -> (Machine, String) {
    let machine = filled(folder);
    let right = machine.passphrase.borrow().clone().unwrap();
    let appliance = folder.join("data/appliance");
    fs::create_dir_all(&appliance).unwrap();
    let copy = KeyEncryptionKey::generate().unwrap().wrapped(&RecoveryKey::parse(&right).unwrap()).unwrap();
    fs::write(appliance.join("kek.recovery"), copy).unwrap();
    fs::write(appliance.join("kek.cred"), "sealed to 0").unwrap();
    machine.tpm.set(1);
    machine.restart(None);
    (machine, right)
}

/// What the gateway would get its key from.
fn credential(machine: &Machine) -> String {
    fs::read_to_string(machine.root.join("data/appliance/kek.cred")).unwrap()
}

/// A boot that ends where it would wait for another stick than this one.
fn boot_with(machine: &Machine, label: &'static str, stick: &Path) -> Result<Opened, StorageError> {
    let places = machine.places();
    let drawer = Drawer::of([(label, stick.to_owned())]);
    let storage = Storage {
        programs: machine,
        places: &places,
        states: StateFiles::of(&places),
        sticks: &drawer,
        mount: &|_, _| machine.mounted(),
        unsealed_allowed: &|_, _| None,
        found: Cell::default(),
    };
    storage.open_or_make().or_else(|error| match drawer.find(label) {
        Some(stick) => storage.recover(&stick)?.ok_or(error),
        None => Err(error),
    })
}

/// A cleared TPM: the state word says so, a wrong and a mistyped key change nothing, the right one
/// opens, the daemon's credential is made anew and the next boot needs no stick.
#[test]
fn the_recovery_key_opens_and_seals_anew() {
    let folder = tempfile::tempdir().unwrap();
    let (machine, right) = with_another_tpm(folder.path());
    let wrong = RecoveryKey::generate().unwrap().text().to_string();
    assert!(matches!(boot_without_help(&machine), Err(StorageError::DoesNotOpen(_))));
    let drawer = Drawer::of([
        ("OTHER", folder.path().to_owned()),
        ("RECOVERY", stick_with(folder.path(), "empty", "holiday.txt", "")),
        ("RECOVERY", stick_with(folder.path(), "wrong", "recovery-key.txt", &wrong)),
        ("RECOVERY", stick_with(folder.path(), "right", "recovery-key.txt", format!("Key of VG-0001\r\n{right}\r\n"))),
    ]);
    boot(&machine, &drawer).unwrap();
    assert_complete(&machine);
    assert_eq!(credential(&machine), "sealed to 1");

    machine.restart(None);
    boot(&machine, &Drawer::default()).unwrap();
    assert_complete(&machine);
}

/// The power goes at every call of a start with the recovery key, before and after its effect, once and at two starts in
/// a row: storage that opens by itself after that has a key which the gateway can read, and any other asks for the stick.
#[test]
fn a_recovery_that_is_cut_anywhere_is_finished_by_the_same_stick() {
    let calls = {
        let folder = tempfile::tempdir().unwrap();
        let (machine, key) = with_another_tpm(folder.path());
        boot_with(&machine, "RECOVERY", &stick_with(folder.path(), "right", "recovery-key.txt", key)).unwrap();
        machine.calls.get()
    };
    assert!(calls >= 6, "{calls} calls: the machine does not see every step");
    for (first, second) in (1..=calls).flat_map(|first| [0, first, calls + 1 - first].map(|second| (first, second))) {
        for after in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let (machine, key) = with_another_tpm(folder.path());
            let stick = stick_with(folder.path(), "right", "recovery-key.txt", key);
            for at in [first, second].into_iter().filter(|at| *at > 0) {
                machine.restart(Some((at, after)));
                let _ = boot_with(&machine, "RECOVERY", &stick);
            }
            machine.restart(None);
            if boot_without_help(&machine).is_err() {
                machine.restart(None);
                assert_eq!(boot_with(&machine, "RECOVERY", &stick).unwrap(), Opened::Recovered(true), "cut at {first}, {second}");
            }
            assert_eq!((credential(&machine).as_str(), machine.sealed_to.get()), ("sealed to 1", Some(1)), "cut at {first}, {second}");
        }
    }
}

/// A TPM that seals nothing does not keep the readings closed: the gateway gets a key that it can read, and the next start
/// needs the stick again. Where the service manager would not take such a key, or the client key needs a seal, nothing is
/// left open, and it is said why.
#[test]
fn a_tpm_that_does_not_seal_is_no_end_of_service_unless_it_must_be() {
    for (strict, identified, serves) in [(false, false, true), (true, false, false), (false, true, false)] {
        let folder = tempfile::tempdir().unwrap();
        let (machine, key) = with_another_tpm(folder.path());
        machine.refuses.set(true);
        machine.strict.set(strict);
        if identified {
            fs::create_dir(folder.path().join("data/appliance/identity")).unwrap();
        }
        let stick = stick_with(folder.path(), "right", "recovery-key.txt", key);
        let opened = boot_with(&machine, "RECOVERY", &stick);
        assert_eq!(machine.places().at("/dev/mapper/data").exists(), serves, "{strict} {identified}");
        if serves {
            assert_eq!((opened.unwrap(), credential(&machine).as_str()), (Opened::Recovered(false), "open to all"));
        } else {
            assert!(opened.unwrap_err().to_string().starts_with("storage cannot be sealed: "));
            assert_eq!(credential(&machine), "sealed to 0");
        }
        // The TPM is well again.
        machine.refuses.set(false);
        machine.restart(None);
        assert!(matches!(boot_without_help(&machine), Err(StorageError::DoesNotOpen(_))));
        assert_eq!(boot_with(&machine, "RECOVERY", &stick).unwrap(), Opened::Recovered(true));
        assert_eq!(credential(&machine), "sealed to 1");
    }
}

/// A TPM that refuses, is late or locks itself for a while needs nobody: once it opens again, service goes on by itself. That is
/// said once, not each time.
#[test]
fn a_tpm_that_opens_later_needs_no_stick() {
    let folder = tempfile::tempdir().unwrap();
    let machine = filled(folder.path());
    machine.restart(None);
    machine.busy.set(3);
    assert!(matches!(boot_without_help(&machine), Err(StorageError::DoesNotOpen(_))));
    let looks = usize::try_from(3 * OPEN_AGAIN_LOOKS).unwrap();
    let others = (0..looks).map(|number| ("OTHER", folder.path().join(number.to_string())));
    boot(&machine, &Drawer::of(others)).unwrap();
    assert_complete(&machine);
    assert_eq!(machine.busy.get(), 0);
}

/// Changes a byte of a file, as a disk does.
fn flip(machine: &Machine, file: &str, byte: usize) {
    let file = machine.root.join("data/appliance").join(file);
    let mut bytes = fs::read(&file).unwrap();
    bytes[byte] ^= 1;
    fs::write(file, bytes).unwrap();
}

/// A damaged byte of the gateway's key is mended from the key's other copy, whichever of the two it is in, and that is said.
#[test]
fn a_damaged_key_is_mended_from_its_copy() {
    for damaged in ["kek.cred", "kek.cred.copy"] {
        let folder = tempfile::tempdir().unwrap();
        let machine = filled(folder.path());
        let copy = || fs::read_to_string(machine.root.join("data/appliance/kek.cred.copy")).unwrap();
        flip(&machine, damaged, 2);
        machine.restart(None);
        boot(&machine, &Drawer::default()).unwrap();
        assert_complete(&machine);
        assert_eq!((credential(&machine), copy()), ("sealed to 0".to_owned(), "sealed to 0".to_owned()), "{damaged}");
        let said = StateFiles::of(&machine.places()).read(Part::Data).unwrap();
        assert!(said.detail.contains("replace the disk"), "{}", said.detail);
        // A copy that differs may as well be that of another version: it is not called damaged.
        assert_eq!(said.detail.contains("the gateway's key was damaged"), damaged == "kek.cred", "{}", said.detail);

        // An appliance of before there was a copy gets one, and nothing is called damaged.
        fs::remove_file(machine.root.join("data/appliance/kek.cred.copy")).unwrap();
        machine.restart(None);
        boot(&machine, &Drawer::default()).unwrap();
        assert_eq!((copy(), StateFiles::of(&machine.places()).read(Part::Data).unwrap().detail), ("sealed to 0".to_owned(), String::new()));
    }
}

/// A disk that takes no copy keeps no gateway from a key that is right.
#[test]
fn a_copy_that_cannot_be_kept_stops_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let machine = filled(folder.path());
    let copy = machine.root.join("data/appliance/kek.cred.copy");
    fs::remove_file(&copy).unwrap();
    fs::create_dir(&copy).unwrap();
    machine.restart(None);
    boot(&machine, &Drawer::default()).unwrap();
    assert_complete(&machine);
    assert_eq!(credential(&machine), "sealed to 0");
}

/// Where both copies of the gateway's key are damaged, no gateway is started in vain: that is said, and the recovery key makes it anew.
#[test]
fn a_key_that_is_damaged_for_good_is_made_anew_by_the_recovery_key() {
    let folder = tempfile::tempdir().unwrap();
    let machine = filled(folder.path());
    let key = machine.passphrase.borrow().clone().unwrap();
    flip(&machine, "kek.cred", 2);
    flip(&machine, "kek.cred.copy", 3);
    machine.restart(None);
    assert!(matches!(boot_without_help(&machine), Err(StorageError::KeyNotTaken)));
    // It stays so when the volume is open already.
    let help = [("OTHER", folder.path().to_owned()), ("RECOVERY", stick_with(folder.path(), "right", "recovery-key.txt", key))];
    boot(&machine, &Drawer::of(help)).unwrap();
    assert_complete(&machine);
    assert_eq!(credential(&machine), "sealed to 0");
    machine.restart(None);
    boot(&machine, &Drawer::default()).unwrap();
}

/// Storage that opens and cannot be mounted is not called ready, and is tried again.
#[test]
fn storage_that_cannot_be_mounted_is_not_ready() {
    let folder = tempfile::tempdir().unwrap();
    let machine = filled(folder.path());
    machine.restart(None);
    machine.unmountable.set(true);
    let error = boot_without_help(&machine).unwrap_err();
    assert!(error.to_string().starts_with("sealed storage opens, but cannot be mounted"), "{error}");
    machine.unmountable.set(false);
    boot(&machine, &Drawer::default()).unwrap();
    assert_complete(&machine);
}
