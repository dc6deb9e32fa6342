//! Cuts the power after every step in which keys, authority and registry are written.
//!
//! The steps are recorded while they happen on a real disk. A model says what of them a disk may
//! still hold after a cut, and each such disk is built anew and opened.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use vitalgate_domain::{DeviceId, GatewayId, KeyWrap};

use crate::{DeviceRegistry, FileKeyWrap, LocalAuthority};

/// A change that a file system may keep or lose.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Created(PathBuf),
    Written(PathBuf, Vec<u8>),
    FileSynced(PathBuf),
    Renamed(PathBuf, PathBuf),
    Removed(PathBuf),
    FolderMade(PathBuf),
    FolderSynced(PathBuf),
}

thread_local! {
    static STEPS: RefCell<Vec<Step>> = const { RefCell::new(Vec::new()) };
}

/// Remembers a step of this thread.
pub(crate) fn note(step: Step) {
    STEPS.with_borrow_mut(|steps| steps.push(step));
}

fn steps_so_far() -> usize {
    STEPS.with_borrow(Vec::len)
}

/// What stands under a name: a folder, or a file by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Node {
    Folder,
    File(usize),
}

/// What a disk has been told, and what of it is certain.
#[derive(Debug, Default)]
struct Disk {
    names: BTreeMap<PathBuf, Node>,
    names_certain: BTreeMap<PathBuf, Node>,
    contents: Vec<Vec<u8>>,
    contents_certain: Vec<Vec<u8>>,
}

impl Disk {
    fn after(steps: &[Step]) -> Self {
        let mut disk = Self::default();
        for step in steps {
            disk.take(step.clone());
        }
        disk
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Created(path) => {
                self.names.insert(path, Node::File(self.contents.len()));
                self.contents.push(Vec::new());
                self.contents_certain.push(Vec::new());
            }
            Step::Written(path, bytes) => {
                let file = self.file(&path);
                self.contents[file] = bytes;
            }
            Step::FileSynced(path) => {
                let file = self.file(&path);
                self.contents_certain[file] = self.contents[file].clone();
            }
            Step::Renamed(from, to) => {
                let node = self.names.remove(&from).unwrap();
                self.names.insert(to, node);
            }
            Step::Removed(path) => {
                self.names.remove(&path);
            }
            Step::FolderMade(path) => {
                self.names.insert(path, Node::Folder);
            }
            Step::FolderSynced(folder) => {
                let within = |path: &Path| path.parent() == Some(&folder);
                self.names_certain.retain(|path, _| !within(path));
                let now = self.names.iter().filter(|(path, _)| within(path));
                self.names_certain.extend(now.map(|(path, node)| (path.clone(), *node)));
            }
        }
    }

    fn file(&self, path: &Path) -> usize {
        match self.names.get(path) {
            Some(Node::File(file)) => *file,
            other => panic!("{} is {other:?}", path.display()),
        }
    }

    /// Builds what may be left: names early or late, contents early or late.
    fn build(&self, from: &Path, to: &Path, names_kept: bool, contents_kept: bool) {
        let names = if names_kept { &self.names } else { &self.names_certain };
        let contents = if contents_kept { &self.contents } else { &self.contents_certain };
        let mut there = BTreeSet::from([from.to_owned()]);
        // In the order of paths a folder comes before what lies in it; what lies in a lost folder is lost.
        for (path, node) in names {
            if !there.contains(path.parent().unwrap()) {
                continue;
            }
            there.insert(path.clone());
            let place = to.join(path.strip_prefix(from).unwrap());
            match node {
                Node::Folder => fs::create_dir(place).unwrap(),
                Node::File(file) => fs::write(place, &contents[*file]).unwrap(),
            }
        }
    }
}

/// Does the work in a folder, and looks at every disk that a cut after each of its steps may leave.
/// `look` gets the folder and how many steps were done.
fn cut_everywhere<T>(work: impl FnOnce(&Path) -> T, look: impl Fn(&Path, usize, &T)) {
    let origin = tempfile::tempdir().unwrap();
    STEPS.with_borrow_mut(Vec::clear);
    let told = work(origin.path());
    let steps = STEPS.with_borrow(Clone::clone);
    assert!(!steps.is_empty(), "nothing was recorded");
    for cut in 0..=steps.len() {
        let disk = Disk::after(&steps[..cut]);
        for (names_kept, contents_kept) in [(false, false), (false, true), (true, false), (true, true)] {
            let left = tempfile::tempdir().unwrap();
            disk.build(origin.path(), left.path(), names_kept, contents_kept);
            look(left.path(), cut, &told);
        }
    }
}

/// Promise: a key that has wrapped anything is there after any power cut, and a cut while it is made
/// never leaves a gateway that does not start.
#[test]
fn a_key_that_was_used_survives_a_cut_at_every_step() {
    const DATA_KEY: [u8; 32] = [0x42; 32];
    let path = |folder: &Path| folder.join("keys/store/store.key");
    let work = |folder: &Path| {
        let wrapped = FileKeyWrap::open_or_create(&path(folder)).unwrap().wrap(&DATA_KEY).unwrap();
        (wrapped, steps_so_far())
    };
    cut_everywhere(work, |folder, cut, (wrapped, made)| {
        let opened = FileKeyWrap::open_or_create(&path(folder));
        assert!(opened.is_ok(), "cut after step {cut}: {opened:?}");
        if cut >= *made {
            assert_eq!(opened.unwrap().unwrap(wrapped), Ok(DATA_KEY), "cut after step {cut}");
        }
    });
}

/// Promise: an authority that was handed out is there after any power cut, with its certificate.
#[test]
fn an_authority_that_was_used_survives_a_cut_at_every_step() {
    let gateway = GatewayId::new("gateway-1").unwrap();
    let work = |folder: &Path| {
        let authority = LocalAuthority::open_or_create(&folder.join("authority"), &gateway).unwrap();
        (authority.ca_fingerprint(), steps_so_far())
    };
    cut_everywhere(work, |folder, cut, (fingerprint, made)| {
        let opened = LocalAuthority::open_or_create(&folder.join("authority"), &gateway);
        assert!(opened.is_ok(), "cut after step {cut}: {opened:?}");
        if cut >= *made {
            assert_eq!(opened.unwrap().ca_fingerprint(), *fingerprint, "cut after step {cut}");
        }
    });
}

/// Promise: who was admitted stays admitted and who was shut out stays out, whatever change a power
/// cut falls into.
#[test]
fn what_the_registry_was_told_survives_a_cut_at_every_step() {
    let [first, second] = ["m1", "m2"].map(|text| DeviceId::new(text).unwrap());
    let path = |folder: &Path| folder.join("trust/devices.json");
    let work = |folder: &Path| {
        let registry = DeviceRegistry::open(&path(folder)).unwrap();
        registry.add(&first, Some([1; 32]), None).unwrap();
        let added = steps_so_far();
        registry.revoke(&first).unwrap();
        let revoked = steps_so_far();
        registry.add(&second, Some([2; 32]), None).unwrap();
        (added, revoked, steps_so_far())
    };
    cut_everywhere(work, |folder, cut, &(added, revoked, added_second)| {
        let registry = DeviceRegistry::open(&path(folder));
        assert!(registry.is_ok(), "cut after step {cut}: {registry:?}");
        let registry = registry.unwrap();
        let is_known = registry.list().iter().any(|entry| entry.device == first);
        let is_admitted = registry.is_admitted(&first, Some(&[1; 32]));
        assert!(is_known || cut < added, "cut after step {cut}: an added device is gone");
        assert!(is_admitted || cut != added, "cut after step {cut}: an added device is shut out");
        assert!(!is_admitted || cut < revoked, "cut after step {cut}: a revoked device is admitted again");
        assert!(registry.is_admitted(&second, Some(&[2; 32])) || cut < added_second, "cut after step {cut}: an added device is gone");
    });
}
