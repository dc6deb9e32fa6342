//! Real sticks: found by udev's links, mounted by the service manager.
//!
//! How a stick is mounted stands in a mount unit a label (`run-sticks-<label>.mount`), which the root
//! hash guards; a step only says that it wants one now. So no step that reads what somebody brought
//! needs the right to mount anything, or sees a device.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::stat::{major, minor};
use nix::sys::statvfs::{FsFlags, statvfs};

use super::port::{Mounted, Plugged, StickError, Sticks};
use crate::command::{Call, Programs, System};
use crate::places::Places;

/// How often to look for a stick.
const LOOK_EVERY_MS: u64 = 1000;
/// What the service manager may take to mount or unmount, in seconds: a slow stick takes what was written.
const MOUNT_DEADLINE_S: u64 = 120;
pub(super) const LABELS: &str = "/dev/disk/by-label";
/// Where the mount units put sticks, by their label.
pub(super) const STICKS: &str = "/run/sticks";
/// What the kernel says of each device, by its name: seen also where no device is.
pub(super) const DEVICES: &str = "/sys/class/block";
/// The file of it that holds the device's number.
pub(super) const NUMBER: &str = "dev";
/// Where `run-recovered.mount` puts the opened data volume.
const RECOVERED: &str = "/run/recovered";
const REMEDY: &str = "plug it in once more";

/// The sticks of the machine, and who mounts them.
#[derive(Debug, Clone)]
pub(crate) struct ManagedSticks<P> {
    places: Places,
    programs: P,
}

impl ManagedSticks<System> {
    /// Those below a root.
    pub(crate) fn of(places: &Places) -> Self {
        Self { places: places.clone(), programs: System }
    }
}

#[cfg(test)]
impl<P> ManagedSticks<P> {
    /// Those that this service manager mounts.
    pub(crate) fn of_manager(places: &Places, programs: P) -> Self {
        Self { places: places.clone(), programs }
    }
}

impl<P: Programs + Clone + 'static> Sticks for ManagedSticks<P> {
    fn find(&self, label: &str) -> Option<Plugged> {
        let link = self.places.at(LABELS).join(label);
        let moment = fs::symlink_metadata(&link).ok()?;
        // By name: a unit that sees the links need not see the devices.
        let device = self.places.at("/dev").join(fs::read_link(&link).ok()?.file_name()?);
        let moment = moment.ctime().saturating_mul(1_000_000_000).saturating_add(moment.ctime_nsec());
        Some(Plugged { label: label.to_owned(), device, moment })
    }

    fn mount(&self, stick: &Plugged) -> Result<Box<dyn Mounted>, StickError> {
        let unit = format!("run-sticks-{}.mount", stick.label);
        let folder = self.places.at(STICKS).join(&stick.label);
        let number = self.places.at(DEVICES).join(stick.device.file_name().unwrap_or_default()).join(NUMBER);
        Ok(Box::new(ManagedMount::start(self.programs.clone(), unit, folder, &stick.device, Some(number))?))
    }

    fn pause(&self) {
        crate::pause::pause(Duration::from_millis(LOOK_EVERY_MS));
    }
}

/// Mounts the opened data volume in a place of its own, for a moment.
///
/// # Errors
/// When it is not mounted.
pub(crate) fn mount_data(places: &Places, mapping: &Path) -> Result<Box<dyn Mounted>, StickError> {
    Ok(Box::new(ManagedMount::start(System, "run-recovered.mount".to_owned(), places.at(RECOVERED), mapping, None)?))
}

/// What the service manager mounted for us.
struct ManagedMount<P: Programs> {
    programs: P,
    unit: String,
    folder: PathBuf,
    /// The mounted folder, held open: a stick that is pulled stays mounted and refuses what is written, which would else go into the
    /// memory below it and pass for written.
    held: Option<File>,
    /// The file that holds the device's number while it is plugged in; none for what cannot be pulled.
    number: Option<PathBuf>,
    mounted: bool,
}

impl<P: Programs> ManagedMount<P> {
    fn start(programs: P, unit: String, folder: PathBuf, device: &Path, number: Option<PathBuf>) -> Result<Self, StickError> {
        let started = programs.run(manager("start", &unit));
        let held = match started {
            Ok(_) => File::open(&folder).ok(),
            Err(error) => {
                crate::cli::say(&error.to_string());
                None
            }
        };
        // A start that came to nothing may still be under way: dropping it stops that too.
        let mount = Self { programs, unit, folder, held, number, mounted: true };
        if !mount.is_there() {
            let reason = io::Error::other("it has no such file system, or was pulled");
            return Err(StickError::Mount { device: device.to_owned(), reason });
        }
        Ok(mount)
    }

    /// Whether the folder is still what was mounted, and its device still plugged in.
    fn is_there(&self) -> bool {
        let known = self.held.as_ref().and_then(|held| held.metadata().ok()).zip(fs::metadata(&self.folder).ok());
        let Some((held, seen)) = known else { return false };
        let numbered = || format!("{}:{}", major(held.dev()), minor(held.dev()));
        let plugged = self.number.as_ref().is_none_or(|file| fs::read_to_string(file).is_ok_and(|number| number.trim() == numbered()));
        (held.dev(), held.ino()) == (seen.dev(), seen.ino()) && plugged
    }

    fn stop(&mut self) -> Result<(), StickError> {
        // What is open is not unmounted.
        self.held = None;
        self.mounted = false;
        self.programs.run(manager("stop", &self.unit)).map_err(|error| StickError::NotWritable(io::Error::other(error)))?;
        Ok(())
    }
}

impl<P: Programs> Mounted for ManagedMount<P> {
    fn folder(&self) -> &Path {
        &self.folder
    }

    fn check_writable(&self) -> Result<(), StickError> {
        let known = statvfs(&self.folder).map_err(|error| StickError::NotWritable(error.into()))?;
        if known.flags().contains(FsFlags::ST_RDONLY) {
            return Err(StickError::NotWritable(io::ErrorKind::ReadOnlyFilesystem.into()));
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<(), StickError> {
        let synchronised = self.held.as_ref().map_or(Ok(()), |held| nix::unistd::syncfs(held).map_err(io::Error::from));
        let there = self.is_there();
        let stopped = self.stop();
        if !there {
            return Err(StickError::Pulled);
        }
        synchronised.map_err(StickError::NotWritable)?;
        stopped
    }
}

impl<P: Programs> Drop for ManagedMount<P> {
    fn drop(&mut self) {
        if !self.mounted {
            return;
        }
        // A stick that was pulled is let go of all the same.
        if let Err(error) = self.stop() {
            crate::cli::say(&error.to_string());
        }
    }
}

fn manager(verb: &str, unit: &str) -> Call {
    Call::new("systemctl", REMEDY).arguments(["--quiet", "--no-ask-password", verb, unit]).deadline(Duration::from_secs(MOUNT_DEADLINE_S))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;
    use crate::command::{Answer, CommandError};
    use crate::stick::rig::plug;

    /// A service manager that mounts, or does not, and remembers what it was asked.
    #[derive(Clone, Default)]
    struct Manager {
        asked: Rc<RefCell<Vec<String>>>,
        refuses: bool,
    }

    impl Programs for Manager {
        fn attempt(&self, call: Call) -> Result<Answer, CommandError> {
            self.asked.borrow_mut().push(call.line().replace("systemctl --quiet --no-ask-password ", ""));
            Ok(Answer { success: !self.refuses, ..Answer::default() })
        }
    }

    fn plugged(folder: &Path, programs: Manager) -> (ManagedSticks<Manager>, Plugged) {
        let places = Places::under(folder);
        plug(&places, "UPDATE");
        let sticks = ManagedSticks { places, programs };
        let found = sticks.find("UPDATE").unwrap();
        (sticks, found)
    }

    /// A stick is found by its label where no device can be seen, and mounted only as its unit says.
    #[test]
    fn a_stick_is_asked_for_by_its_label_and_given_back_once() {
        let folder = tempfile::tempdir().unwrap();
        let manager = Manager::default();
        let (sticks, found) = plugged(folder.path(), manager.clone());
        assert_eq!(found.device, folder.path().join("dev/sdb1"));
        assert_eq!(sticks.find("RESET"), None);

        let mounted = sticks.mount(&found).unwrap();
        assert_eq!(mounted.folder(), folder.path().join("run/sticks/UPDATE"));
        mounted.check_writable().unwrap();
        mounted.finish().unwrap();
        drop(sticks.mount(&found).unwrap());
        let pair = ["start run-sticks-UPDATE.mount", "stop run-sticks-UPDATE.mount"];
        assert_eq!(*manager.asked.borrow(), [pair, pair].concat());
    }

    /// A stick that is no FAT leaves no unit behind that still tries.
    #[test]
    fn a_stick_that_is_not_mounted_is_let_go_of() {
        let folder = tempfile::tempdir().unwrap();
        let manager = Manager { refuses: true, ..Manager::default() };
        let (sticks, found) = plugged(folder.path(), manager.clone());
        assert!(matches!(sticks.mount(&found), Err(StickError::Mount { .. })));
        assert_eq!(*manager.asked.borrow(), ["start run-sticks-UPDATE.mount", "stop run-sticks-UPDATE.mount"]);
    }

    /// A stick that is pulled counts as written in none of the ways in which that can show: another folder in its place (the memory
    /// below it, or another stick), or a device that is gone while it is still mounted. It is let go of all the same.
    #[test]
    fn a_stick_that_was_pulled_has_nothing() {
        let ways: [fn(&Path); 3] = [
            |root| {
                let mounted = root.join("run/sticks/UPDATE");
                fs::rename(&mounted, root.join("pulled")).unwrap();
                fs::create_dir(mounted).unwrap();
            },
            |root| fs::remove_file(root.join("sys/class/block/sdb1/dev")).unwrap(),
            |root| fs::write(root.join("sys/class/block/sdb1/dev"), "8:33\n").unwrap(),
        ];
        for pull in ways {
            let folder = tempfile::tempdir().unwrap();
            let manager = Manager::default();
            let (sticks, found) = plugged(folder.path(), manager.clone());
            let mounted = sticks.mount(&found).unwrap();
            pull(folder.path());
            assert!(matches!(mounted.finish(), Err(StickError::Pulled)));
            assert_eq!(*manager.asked.borrow(), ["start run-sticks-UPDATE.mount", "stop run-sticks-UPDATE.mount"]);
        }
    }

    /// What is mounted from before, of a device that is gone, is not taken for the stick that is plugged in now.
    #[test]
    fn what_another_device_left_mounted_is_not_the_stick() {
        let folder = tempfile::tempdir().unwrap();
        let manager = Manager::default();
        let (sticks, found) = plugged(folder.path(), manager.clone());
        fs::write(folder.path().join("sys/class/block/sdb1/dev"), "8:33\n").unwrap();
        assert!(matches!(sticks.mount(&found), Err(StickError::Mount { .. })));
        assert_eq!(*manager.asked.borrow(), ["start run-sticks-UPDATE.mount", "stop run-sticks-UPDATE.mount"]);
    }
}
