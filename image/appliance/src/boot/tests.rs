//! The boot entries under power cuts, and who is kept, left and put on record.

use std::cell::Cell;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use vitalgate_layout::entry::{self, BootEntry};
use vitalgate_layout::state::StateWord;
use vitalgate_layout::{Slot, Version, fact, path};

use super::answer;
use super::disk::{Disk, Mounted};
use super::esp::{Esp, EspError};
use super::kernel_image::{KernelImage, kernel_image};
use super::mark_good::{describe, keep, undone};
use super::rollback::{Rollback, last_rollback, record};
use super::running::Running;
use crate::places::Places;

/// A disk whose power goes after a number of steps; a file that is being written is then half there.
struct Cut {
    disk: Mounted,
    steps_left: Cell<u32>,
}

impl Cut {
    fn step(&self) -> io::Result<()> {
        let left = self.steps_left.get();
        self.steps_left.set(left.saturating_sub(1));
        if left == 0 { Err(io::Error::other("no power")) } else { Ok(()) }
    }
}

impl Disk for Cut {
    fn names(&self, folder: &str) -> io::Result<Vec<String>> {
        self.disk.names(folder)
    }
    fn open(&self, file: &str) -> io::Result<File> {
        self.disk.open(file)
    }
    fn write(&self, file: &str, from: &mut dyn Read) -> io::Result<()> {
        let half = self.step();
        if half.is_err() {
            self.disk.write(file, &mut from.take(20))?;
        }
        half?;
        self.disk.write(file, from)
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.step()?;
        self.disk.rename(from, to)
    }
    fn remove(&self, file: &str) -> io::Result<()> {
        self.step()?;
        self.disk.remove(file)
    }
    fn sync(&self, folder: &str) -> io::Result<()> {
        self.step()?;
        self.disk.sync(folder)
    }
}

fn version(text: &str) -> Version {
    Version::parse(text).unwrap()
}

/// The root hash that a version's image has here.
fn root_of(version: &str) -> String {
    version.bytes().cycle().take(32).map(|byte| format!("{byte:02x}")).collect()
}

/// An appliance with these entries.
struct Appliance {
    folder: tempfile::TempDir,
}

impl Appliance {
    fn with(names: &[&str]) -> Self {
        let this = Self { folder: tempfile::tempdir().unwrap() };
        fs::create_dir_all(this.esp().join(entry::FOLDER)).unwrap();
        for name in names {
            let version = BootEntry::parse(name).unwrap().version.to_string();
            fs::write(this.esp().join(entry::FOLDER).join(name), kernel_image(&version, &root_of(&version))).unwrap();
        }
        fs::create_dir_all(this.places().at(path::APPLIANCE)).unwrap();
        this
    }
    fn places(&self) -> Places {
        Places::under(self.folder.path())
    }
    fn esp(&self) -> std::path::PathBuf {
        self.places().at(path::ESP)
    }
    fn disk(&self) -> Mounted {
        Mounted::at(&self.esp())
    }
    fn names(&self) -> Vec<String> {
        self.disk().names(entry::FOLDER).unwrap()
    }
    fn runs_from(&self, slot: Slot) {
        let file = self.places().at(path::BOOT_ENV);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, format!("VITALGATE_SLOT={slot}\nVITALGATE_ROOT_HASH=00\n")).unwrap();
    }
    fn ask(&self, line: &str) -> anyhow::Result<Option<String>> {
        let words: Vec<&str> = line.split(' ').collect();
        answer(&self.places(), &Esp::on(&self.disk()), &words)
    }
}

/// The slots' roots, as the updater writes them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Roots {
    a: Option<Version>,
    b: Option<Version>,
}

/// One update from slot a to slot b in the updater's order, until the power goes.
fn install(disk: &dyn Disk, to: &str, roots: &Cell<Roots>) -> Result<(), EspError> {
    let esp = Esp::on(disk);
    esp.stage(Slot::B, &mut kernel_image(to, &root_of(to)).as_slice())?;
    esp.set_bad(Slot::B, Some(Slot::A))?;
    roots.set(Roots { b: None, ..roots.get() });
    // Here the updater writes the root.
    roots.set(Roots { b: Some(version(to)), ..roots.get() });
    esp.set_primary(Slot::B, true)
}

/// What starts first must be an image that is whole and fits its slot's root.
fn starts(esp: &Path, roots: Roots) -> BootEntry {
    let disk = Mounted::at(esp);
    let first = Esp::on(&disk).entries().unwrap().first().copied().expect("an entry to start from");
    let image = KernelImage::read(&disk.open(&format!("{}/{}", entry::FOLDER, first.file_name())).unwrap()).unwrap();
    assert_eq!(image.version, first.version, "the name says what is in it");
    let root = if first.slot == Slot::A { roots.a } else { roots.b };
    assert_eq!(root, Some(first.version), "{} fits its root", first.file_name());
    first
}

fn cut_everywhere(names: &[&str], roots_before: Roots, to: &str) {
    for steps in 0.. {
        let appliance = Appliance::with(names);
        let roots = Cell::new(roots_before);
        let cut = Cut { disk: appliance.disk(), steps_left: Cell::new(steps) };
        let done = install(&cut, to, &roots);
        let first = starts(&appliance.esp(), roots.get());
        if done.is_ok() {
            assert_eq!((first.slot, first.version), (Slot::B, version(to)));
            assert!(steps > 5, "the cut comes within the update");
            return;
        }
        // After the restart the same update is installed once more: where the new version started
        // already, its root is whole and nothing is to be done.
        if first.slot == Slot::A {
            install(&appliance.disk(), to, &roots).unwrap();
            let first = starts(&appliance.esp(), roots.get());
            assert_eq!((first.slot, first.version), (Slot::B, version(to)), "cut after {steps}");
            assert_eq!(appliance.names().len(), 2, "{:?}", appliance.names());
        }
    }
}

/// A power cut between any two steps of an installation leaves an entry that starts, and the same
/// installation afterwards comes to its end.
#[test]
fn a_cut_at_any_step_leaves_something_that_starts() {
    let both = ["vitalgate-a_0.2.0+3.efi", "vitalgate-b_0.1.0+3.efi"];
    let roots = Roots { a: Some(version("0.2.0")), b: Some(version("0.1.0")) };
    cut_everywhere(&both, roots, "0.3.0");
    // Older than what runs: the newer must not win.
    cut_everywhere(&both, roots, "0.1.5");
    cut_everywhere(&both, roots, "0.2.0");
    // What is overwritten would start next: it must be gone before its root is touched.
    cut_everywhere(&["vitalgate-a_0.2.0+3.efi", "vitalgate-b_0.3.0+3.efi"], Roots { b: Some(version("0.3.0")), ..roots }, "0.3.1");
    // The first update of a new disk, and one after an update that died.
    cut_everywhere(&both[..1], Roots { b: None, ..roots }, "0.3.0");
    cut_everywhere(&["vitalgate-a_0.2.0+3.efi", "vitalgate-b_0.3.0+0-3.efi"], Roots { b: Some(version("0.3.0")), ..roots }, "0.3.1");
}

/// Keeping a slot survives a cut as well, and does the same when it is done twice.
#[test]
fn keeping_a_slot_survives_a_cut() {
    for steps in 0..20 {
        let appliance = Appliance::with(&["vitalgate-b_0.2.0+2-1.efi", "vitalgate-a_0.1.0+0-3.efi"]);
        let roots = Roots { a: Some(version("0.1.0")), b: Some(version("0.2.0")) };
        let running = Running { slot: Slot::B, version: version("0.2.0") };
        let cut = Cut { disk: appliance.disk(), steps_left: Cell::new(steps) };
        let _outcome = keep(&appliance.places(), &Esp::on(&cut), running);
        assert_eq!(starts(&appliance.esp(), roots).slot, Slot::B);
        for _ in 0..2 {
            keep(&appliance.places(), &Esp::on(&appliance.disk()), running).unwrap();
            assert_eq!(appliance.names(), ["vitalgate-a_0.1.0+0-3.efi", "vitalgate-b_0.2.0+3.efi"]);
        }
    }
}

/// So does leaving one: the other slot starts, whether it kept its tries or lost them to an older version, once this one
/// has none left; until then there is always one with tries.
#[test]
fn leaving_a_slot_survives_a_cut() {
    for other in ["vitalgate-a_0.2.0+3.efi", "vitalgate-a_0.2.0+0.efi", "vitalgate-a_0.1.0+3.efi"] {
        for steps in 0.. {
            let appliance = Appliance::with(&[other, "vitalgate-b_0.1.5+2-1.efi"]);
            let cut = Cut { disk: appliance.disk(), steps_left: Cell::new(steps) };
            let left = Esp::on(&cut).leave(Slot::B);
            assert!(Esp::on(&appliance.disk()).entries().unwrap().iter().any(BootEntry::is_good), "{other} cut after {steps}");
            if left.is_ok() {
                let entries = Esp::on(&appliance.disk()).entries().unwrap();
                assert_eq!(
                    entries.iter().map(|entry| (entry.slot, entry.is_good())).collect::<Vec<_>>(),
                    [(Slot::A, true), (Slot::B, false)]
                );
                break;
            }
        }
    }
}

/// The updater's questions, in its words.
#[test]
fn the_updater_is_answered() {
    let appliance = Appliance::with(&["vitalgate-a_0.1.0+3.efi", "vitalgate-b_0.2.0+2-1.efi"]);
    appliance.runs_from(Slot::A);
    assert_eq!(appliance.ask("get-primary").unwrap().as_deref(), Some("b"));
    assert_eq!(appliance.ask("get-current").unwrap().as_deref(), Some("a"));
    assert_eq!(appliance.ask("get-state b").unwrap().as_deref(), Some("good"));
    appliance.ask("set-state b bad").unwrap();
    assert_eq!(appliance.names(), ["vitalgate-a_0.1.0+3.efi"]);
    assert_eq!(appliance.ask("get-state b").unwrap().as_deref(), Some("bad"));
    appliance.ask("set-state b bad").unwrap();
    // The running slot and the last entry are never taken away.
    appliance.ask("set-state a bad").unwrap();
    assert_eq!(appliance.names(), ["vitalgate-a_0.1.0+0-3.efi"]);
    appliance.runs_from(Slot::B);
    assert!(appliance.ask("set-state a bad").is_err());
    appliance.ask("set-state a good").unwrap();
    assert_eq!(appliance.names(), ["vitalgate-a_0.1.0+3.efi"]);
    for refused in ["set-state b good", "set-primary b", "set-primary c", "get-state", "", "set-state a maybe"] {
        assert!(appliance.ask(refused).is_err(), "{refused}");
    }
}

/// Going back by hand: the slot that is asked for starts next, whatever the other's version.
#[test]
fn the_slot_that_is_asked_for_starts_next() {
    for (to, other) in [(Slot::A, Slot::B), (Slot::B, Slot::A)] {
        let appliance = Appliance::with(&["vitalgate-a_0.2.0+3.efi", "vitalgate-b_0.3.0+3.efi"]);
        Esp::on(&appliance.disk()).set_primary(to, true).unwrap();
        assert_eq!(Esp::on(&appliance.disk()).primary().unwrap(), to);
        assert!(Esp::on(&appliance.disk()).trial().is_none(), "nothing new to try");
        // The other was left on purpose: nothing to put on record.
        let running = Running { slot: to, version: version(if to == Slot::A { "0.2.0" } else { "0.3.0" }) };
        assert_eq!(keep(&appliance.places(), &Esp::on(&appliance.disk()), running).unwrap(), None, "{other}");
    }
}

/// An update that never came up has a reason on record as well; one whose reason is known keeps it.
#[test]
fn every_version_that_was_left_has_a_reason() {
    let appliance = Appliance::with(&["vitalgate-a_0.2.0+2-1.efi"]);
    let (places, disk) = (appliance.places(), appliance.disk());
    let (esp, old) = (Esp::on(&disk), Running { slot: Slot::A, version: version("0.2.0") });
    esp.stage(Slot::B, &mut kernel_image("0.3.0", &root_of("0.3.0")).as_slice()).unwrap();
    esp.set_primary(Slot::B, true).unwrap();
    assert!(esp.trial().unwrap().is_of(Slot::B, version("0.3.0")));
    // Looked at before the restart: still waiting.
    assert_eq!(keep(&places, &esp, old).unwrap(), None);
    assert!(esp.trial().is_some());

    // Nor does an update that is being installed lose its note before its entry is there: it would start untried.
    let waits = appliance.esp().join(entry::FOLDER).join("vitalgate-b_0.3.0+3.efi");
    let aside = appliance.esp().join("aside");
    fs::rename(&waits, &aside).unwrap();
    assert_eq!(keep(&places, &esp, old).unwrap(), None);
    assert!(esp.trial().is_some());
    fs::rename(&aside, &waits).unwrap();

    // The loader takes a try at each start; nothing ever says a word.
    let folder = appliance.esp().join(entry::FOLDER);
    fs::rename(folder.join("vitalgate-b_0.3.0+3.efi"), folder.join("vitalgate-b_0.3.0+0-3.efi")).unwrap();
    let found = keep(&places, &esp, old).unwrap().unwrap();
    assert_eq!(found.reason, "slot b (0.3.0) did not come up in 3 starts");
    assert_eq!(keep(&places, &esp, old).unwrap(), None, "put on record once");
    assert!(esp.trial().is_none());
    let said = describe(&places, &esp, old, None).unwrap();
    assert_eq!(said.word, StateWord::RolledBack);
    assert!(said.facts[fact::LAST_ROLLBACK].contains("did not come up"), "{:?}", said.facts);

    // A better version goes well: history, no condition any more.
    esp.stage(Slot::B, &mut kernel_image("0.3.1", &root_of("0.3.1")).as_slice()).unwrap();
    esp.set_bad(Slot::B, Some(Slot::A)).unwrap();
    esp.set_primary(Slot::B, true).unwrap();
    let new = Running { slot: Slot::B, version: version("0.3.1") };
    keep(&places, &esp, new).unwrap();
    let said = describe(&places, &esp, new, None).unwrap();
    assert_eq!(said.word, StateWord::Ready);
    assert!(said.facts[fact::LAST_ROLLBACK].contains("did not come up"));
}

/// Power that goes in three starts is no fault of a version that was kept: it is shown, and comes again. What was undone before or after
/// stays undone.
#[test]
fn a_version_that_was_kept_is_not_undone_by_power_cuts() {
    let appliance = Appliance::with(&["vitalgate-a_0.2.0+2-1.efi", "vitalgate-b_0.3.0+0-3.efi"]);
    let (places, disk) = (appliance.places(), appliance.disk());
    let (esp, old) = (Esp::on(&disk), Running { slot: Slot::A, version: version("0.2.0") });
    let forbids = |left: &str| undone(&places, &esp, old).unwrap().is_some_and(|undone| undone.why_undone(version(left)).is_some());
    record(&places, &esp, &Rollback::now(Slot::B, version("0.2.9"), "no reading from m-1".into())).unwrap();
    assert!(!forbids("0.3.0") && forbids("0.2.9"));
    assert!(keep(&places, &esp, old).unwrap().is_some());
    assert!(!forbids("0.3.0") && forbids("0.2.9"));
    let said = describe(&places, &esp, old, None).unwrap();
    assert_eq!(said.word, StateWord::RolledBack);
    assert!(said.facts[fact::LAST_ROLLBACK].contains("slot b (0.3.0) did not come up in 3 starts"), "{:?}", said.facts);
    record(&places, &esp, &Rollback::now(Slot::B, version("0.4.0"), "no reading from m-2".into())).unwrap();
    assert!(!forbids("0.3.0") && forbids("0.2.9") && forbids("0.4.0"));
}

/// A version that was kept comes again once it died; where it dies in that trial too, it is not installed over and over.
#[test]
fn a_version_that_dies_again_on_trial_is_undone() {
    let appliance = Appliance::with(&["vitalgate-a_0.2.0+2-1.efi", "vitalgate-b_0.3.0+0-3.efi"]);
    let (places, disk) = (appliance.places(), appliance.disk());
    let (esp, old) = (Esp::on(&disk), Running { slot: Slot::A, version: version("0.2.0") });
    let is_undone = || undone(&places, &esp, old).unwrap().is_some_and(|undone| undone.why_undone(version("0.3.0")).is_some());
    assert!(keep(&places, &esp, old).unwrap().is_some() && !is_undone());
    let trial = appliance.esp().join("EFI/vitalgate/trial.json");
    fs::create_dir_all(trial.parent().unwrap()).unwrap();
    fs::write(&trial, r#"{"slot":"b","version":"0.3.0","data_was_open":true}"#).unwrap();
    assert!(is_undone());
    keep(&places, &esp, old).unwrap();
    assert!(is_undone());
}

/// While sealed storage is closed the reason waits beside the boot entries.
#[test]
fn a_reason_outlasts_closed_storage() {
    let appliance = Appliance::with(&["vitalgate-a_0.2.0+3.efi", "vitalgate-b_0.3.0+1-2.efi"]);
    let (places, disk) = (appliance.places(), appliance.disk());
    let esp = Esp::on(&disk);
    let data = places.at(path::DATA);
    fs::remove_dir_all(&data).unwrap();
    record(&places, &esp, &Rollback::now(Slot::B, version("0.3.0"), "sealed storage does not open".into())).unwrap();
    esp.exhaust(Slot::B, 3).unwrap();

    fs::create_dir_all(places.at(path::APPLIANCE)).unwrap();
    let old = Running { slot: Slot::A, version: version("0.2.0") };
    assert_eq!(keep(&places, &esp, old).unwrap(), None, "the reason is known");
    assert!(esp.rollback::<Rollback>().is_none(), "kept in sealed storage now");
    assert_eq!(last_rollback(&places, &esp).unwrap().reason, "sealed storage does not open");
}
