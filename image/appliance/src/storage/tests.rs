//! The step against a machine that can lose its power at any call, before or after the call took effect.

mod recovery;
mod unsealed;

use std::cell::{Cell, RefCell};
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::*;
use crate::command::{Answer, Call, CommandError};
use crate::stick::drawer::{Drawer, Folder, stick_with};

/// What a disk and a TPM remember, and when the power goes.
#[derive(Default)]
struct Machine {
    /// Name of the data partition in the table.
    name: RefCell<Option<String>>,
    /// The passphrase of the LUKS header.
    passphrase: RefCell<Option<String>>,
    /// The volume is sealed to this TPM.
    sealed_to: Cell<Option<u32>>,
    /// What the file system holds.
    files: RefCell<Option<Vec<String>>>,
    /// Readings written by the daemon after the first boot.
    readings: Cell<u32>,
    /// The TPM of the machine; another number: cleared or swapped.
    tpm: Cell<u32>,
    /// The TPM refuses to seal.
    refuses: Cell<bool>,
    /// The TPM opens nothing, whatever it sealed.
    shut: Cell<bool>,
    /// As often it opens nothing, and then does.
    busy: Cell<u32>,
    /// The opened volume cannot be mounted.
    unmountable: Cell<bool>,
    /// What the look at the file system ends with.
    check_ends: Cell<i32>,
    /// The service manager takes no credential without a seal.
    strict: Cell<bool>,
    calls: Cell<u32>,
    /// The power goes at this call; `true`: after it took effect.
    cut: Cell<Option<(u32, bool)>>,
    root: PathBuf,
}

fn failed(program: &'static str) -> CommandError {
    CommandError::Failed { program, code: Some(1), complaint: "no".into(), remedy: "" }
}

impl Machine {
    fn new(root: &Path) -> Self {
        let places = Places::under(root);
        let device = places.at("/sys/devices/vda/vda2");
        fs::create_dir_all(&device).unwrap();
        fs::write(device.join("partition"), "2").unwrap();
        let mapping = places.at("/sys/class/block/dm-0");
        fs::create_dir_all(mapping.join("dm")).unwrap();
        fs::create_dir_all(mapping.join("slaves/vda2")).unwrap();
        fs::write(mapping.join("dm/name"), "root\n").unwrap();
        symlink(&device, places.at("/sys/class/block/vda2")).unwrap();
        for folder in ["/dev/mapper", "/sys/class/tpmrm/tpmrm0", "/run"] {
            fs::create_dir_all(places.at(folder)).unwrap();
        }
        Self { root: root.to_owned(), ..Self::default() }
    }

    fn places(&self) -> Places {
        Places::under(&self.root)
    }

    /// A restart: memory is empty, the kernel reads the table.
    fn restart(&self, cut: Option<(u32, bool)>) {
        let places = self.places();
        let _ = fs::remove_file(places.at("/dev/mapper/data"));
        let _ = fs::remove_dir_all(places.at("/run"));
        if self.name.borrow().is_some() {
            fs::write(places.at("/dev/vda6"), "").unwrap();
        }
        self.calls.set(0);
        self.cut.set(cut);
    }

    fn mounted(&self) -> Result<Box<dyn Mounted>, StickError> {
        let (device, reason) = (Volume::mapping(&self.places()), io::Error::other("damaged"));
        if self.unmountable.get() {
            return Err(StickError::Mount { device, reason });
        }
        Ok(Box::new(Folder { folder: self.root.join("data"), protected: false }))
    }

    fn does(&self, call: &Call) -> Result<String, CommandError> {
        let line = call.line();
        let given = String::from_utf8_lossy(call.given()).into_owned();
        let words: Vec<&str> = line.split(' ').collect();
        let opened = self.places().at("/dev/mapper/data");
        match (call.program(), words.get(1).copied().unwrap_or_default()) {
            ("sfdisk", "--json") => return Ok(self.table()),
            ("sfdisk", _) if line.contains("--append") => {
                assert!(self.name.borrow().is_none(), "a second data partition");
                *self.name.borrow_mut() = Some(given.split(['=', ',']).nth(1).unwrap().to_owned());
            }
            ("sfdisk", _) => {
                assert!(words.contains(&"6"), "{line}");
                assert!(self.files.borrow().is_some(), "complete without a file system");
                *self.name.borrow_mut() = Some((*words.last().unwrap()).to_owned());
            }
            ("partx", _) => fs::write(self.places().at("/dev/vda6"), "").unwrap(),
            ("cryptsetup", "luksFormat") => {
                assert_eq!(self.readings.get(), 0, "a full partition was made anew");
                assert!(!opened.exists(), "the volume is in use");
                *self.passphrase.borrow_mut() = Some(given);
                self.sealed_to.set(None);
                *self.files.borrow_mut() = None;
            }
            ("cryptsetup", "open") if self.passphrase.borrow().as_ref() != Some(&given) => return Err(failed("cryptsetup")),
            ("cryptsetup", "open") => fs::write(opened, "").unwrap(),
            ("cryptsetup", "close") => fs::remove_file(opened).unwrap(),
            ("systemd-cryptenroll", _) if self.refuses.get() && line.contains("--tpm2-device") => return Err(failed(call.program())),
            ("systemd-creds", "encrypt") if line.contains("--with-key=tpm2-absent") => return Ok("open to all".to_owned()),
            ("systemd-creds", "decrypt") => {
                // A seal wants its TPM, and where there is one, a strict service manager wants a seal.
                let sealed = has_tpm(&self.places()) && given == format!("sealed to {}", self.tpm.get());
                let open = given == "open to all" && !(has_tpm(&self.places()) && self.strict.get());
                return if sealed || open { Ok(String::new()) } else { Err(failed(call.program())) };
            }
            ("systemd-creds", _) if self.refuses.get() => return Err(failed(call.program())),
            // As systemd 252 does: where a seal of the same policy is, whatever TPM made it, it makes none.
            ("systemd-cryptenroll", _) if !line.contains("--tpm2-device") => self.sealed_to.set(None),
            ("systemd-cryptenroll", _) => self.sealed_to.set(self.sealed_to.get().or(Some(self.tpm.get()))),
            ("systemd-creds", _) => return Ok(format!("sealed to {}", self.tpm.get())),
            ("/lib/systemd/systemd-cryptsetup", _) if self.shut.get() || self.sealed_to.get() != Some(self.tpm.get()) => {
                return Err(failed("systemd-cryptsetup"));
            }
            ("/lib/systemd/systemd-cryptsetup", _) if self.busy.get() > 0 => {
                self.busy.set(self.busy.get() - 1);
                return Err(failed("systemd-cryptsetup"));
            }
            ("/lib/systemd/systemd-cryptsetup", _) => fs::write(opened, "").unwrap(),
            ("e2fsck", _) => assert!(self.files.borrow().is_some(), "a check where no file system is yet"),
            ("mkfs.ext4", _) => {
                let folder = PathBuf::from(words[words.len() - 2]).join("appliance");
                let mut names: Vec<_> =
                    fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
                names.sort();
                assert_eq!(self.readings.get(), 0, "a full partition was made anew");
                let inside = self.root.join("data/appliance");
                fs::create_dir_all(&inside).unwrap();
                for name in &names {
                    fs::copy(folder.join(name), inside.join(name)).unwrap();
                }
                *self.files.borrow_mut() = Some(names);
            }
            (other, _) => panic!("nobody should call {other}: {line}"),
        }
        Ok(String::new())
    }

    fn table(&self) -> String {
        let disk = self.places().at("/dev/vda");
        let entry = |number: u32, name: &str| format!(r#"{{"node":"{}{number}","size":4194304,"name":"{name}"}}"#, disk.display());
        let data = self.name.borrow().as_ref().map(|name| format!(",{}", entry(6, name))).unwrap_or_default();
        format!(r#"{{"partitiontable":{{"partitions":[{}{data}]}}}}"#, entry(2, "root-a"))
    }
}

impl Programs for Machine {
    fn attempt(&self, call: Call) -> Result<Answer, CommandError> {
        let number = self.calls.get() + 1;
        self.calls.set(number);
        let cut = self.cut.get();
        if cut.is_some_and(|(at, after)| number > at || number == at && !after) {
            return Err(CommandError::Start { program: call.program(), reason: io::Error::other("no power") });
        }
        let done = self.does(&call);
        if cut == Some((number, true)) {
            return Err(CommandError::Start { program: call.program(), reason: io::Error::other("no power") });
        }
        let code = if call.program() == "e2fsck" { self.check_ends.get() } else { 0 };
        Ok(match done {
            Ok(output) => Answer { success: code == 0, code: Some(code), output: output.into_bytes(), complaint: String::new() },
            Err(_) => Answer { success: false, code: Some(1), output: Vec::new(), complaint: "no".into() },
        })
    }
}

fn boot(machine: &Machine, drawer: &Drawer) -> Result<(), StorageError> {
    let places = machine.places();
    let storage = Storage {
        programs: machine,
        places: &places,
        states: StateFiles::of(&places),
        sticks: drawer,
        mount: &|_, _| machine.mounted(),
        unsealed_allowed: &|_, stick| fs::read_to_string(stick.folder().join("site.provision")).ok(),
        found: Cell::default(),
    };
    storage.open_or_wait()
}

/// What sealed storage begins with.
const FILES: [&str; 4] = ["kek.cred", "kek.cred.copy", "kek.recovery", "recovery-key"];

fn word(machine: &Machine) -> StateWord {
    StateFiles::of(&machine.places()).read(Part::Data).unwrap().word
}

fn assert_complete(machine: &Machine) {
    assert_eq!(machine.name.borrow().as_deref(), Some("data"));
    assert_eq!(machine.sealed_to.get(), Some(machine.tpm.get()));
    assert_eq!(machine.files.borrow().as_deref(), Some(&FILES.map(String::from)[..]));
    assert!(machine.places().at("/dev/mapper/data").exists());
    assert_eq!(word(machine), StateWord::Ready);
}

/// Calls of a first boot without a cut.
fn calls_of_first_boot() -> u32 {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(folder.path());
    boot(&machine, &Drawer::default()).unwrap();
    assert_complete(&machine);
    machine.calls.get()
}

/// The power goes at every call of the first boot, before and after its effect, once and at two boots
/// in a row: the boot after it ends with complete storage that the TPM opens.
#[test]
fn a_first_boot_that_is_cut_anywhere_is_finished_by_the_next() {
    let calls = calls_of_first_boot();
    assert!(calls >= 10, "{calls} calls: the machine does not see every step");
    for (first, second) in (1..=calls).flat_map(|first| [0, first, calls + 1 - first].map(|second| (first, second))) {
        for after in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let machine = Machine::new(folder.path());
            for at in [first, second].into_iter().filter(|at| *at > 0) {
                machine.restart(Some((at, after)));
                let _ = boot_without_help(&machine);
            }
            machine.restart(None);
            boot(&machine, &Drawer::default()).unwrap_or_else(|error| panic!("cut at {first}, {second}: {error}"));
            assert_complete(&machine);
        }
    }
}

/// A boot during which nobody stands by with a stick.
fn boot_without_help(machine: &Machine) -> Result<Opened, StorageError> {
    let places = machine.places();
    let storage = Storage {
        programs: machine,
        places: &places,
        states: StateFiles::of(&places),
        sticks: &Drawer::default(),
        mount: &|_, _| machine.mounted(),
        unsealed_allowed: &|_, _| None,
        found: Cell::default(),
    };
    storage.open_or_make()
}

fn filled(folder: &Path) -> Machine {
    let machine = Machine::new(folder);
    boot(&machine, &Drawer::default()).unwrap();
    machine.readings.set(1);
    machine
}

/// A full partition is never made anew: not when the power goes at any call of a later boot, not
/// when the TPM is another one, not when programs fail.
#[test]
fn a_full_partition_is_never_taken_for_an_empty_one() {
    for at in 1..=6 {
        for after in [false, true] {
            for tpm in [0, 1] {
                let folder = tempfile::tempdir().unwrap();
                let machine = filled(folder.path());
                machine.tpm.set(tpm);
                machine.restart(Some((at, after)));
                // The machine itself fails the test when anything is made anew.
                let _ = boot_without_help(&machine);
                assert_eq!(machine.name.borrow().as_deref(), Some("data"));
                machine.tpm.set(0);
                machine.restart(None);
                boot(&machine, &Drawer::default()).unwrap();
                assert_complete(&machine);
            }
        }
    }
}

/// Without a TPM nothing is stored, until a signed site file allows it; the key then stands beside it
/// and the state says that there is no seal.
#[test]
fn no_tpm_means_no_storage_unless_it_is_signed_for() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(folder.path());
    machine.refuses.set(true);
    assert!(matches!(boot_without_help(&machine), Err(StorageError::NotSealed(_))));
    fs::remove_dir_all(machine.places().at("/sys/class/tpmrm")).unwrap();
    machine.restart(None);
    assert!(matches!(boot_without_help(&machine), Err(StorageError::NoTpm)));
    assert_eq!(machine.name.borrow().as_deref(), Some("data-new"));

    machine.refuses.set(false);
    let drawer = Drawer::of([
        ("PROVISION", stick_with(folder.path(), "unsigned", "other.txt", "")),
        ("PROVISION", stick_with(folder.path(), "signed", "site.provision", "the operator")),
    ]);
    boot(&machine, &drawer).unwrap();
    let said = StateFiles::of(&machine.places()).read(Part::Data).unwrap();
    assert_eq!(said.detail, "storage is encrypted but not sealed (allowed by the operator)");
    assert_eq!(said.facts[fact::SEALED], fact::SEALED_NO);

    machine.readings.set(1);
    machine.restart(None);
    boot(&machine, &Drawer::default()).unwrap();
    assert!(machine.places().at("/dev/mapper/data").exists());
}

/// Storage whose file system stays damaged opens all the same, and whoever shows it is told that it is not in order.
#[test]
fn a_file_system_that_stays_damaged_is_a_fact() {
    let folder = tempfile::tempdir().unwrap();
    let machine = filled(folder.path());
    for (ends, fact) in [(0, None), (1, None), (4, Some("failed: damaged and not mended")), (0, None)] {
        machine.check_ends.set(ends);
        machine.restart(None);
        boot(&machine, &Drawer::default()).unwrap();
        let said = StateFiles::of(&machine.places()).read(Part::Data).unwrap();
        assert_eq!((said.word, said.facts.get(fact::FILE_SYSTEM).map(String::as_str)), (StateWord::Ready, fact), "{ends}");
    }
}
