//! Real sticks: found by udev's links, mounted by the kernel.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::port::{Mounted, Plugged, StickError, Sticks};
use crate::places::Places;

/// How often to look for a stick.
const LOOK_EVERY_MS: u64 = 1000;
const LABELS: &str = "/dev/disk/by-label";
const MOUNT_POINT: &str = "/run/vitalgate-stick";
/// Only root reads what is on a stick.
const OPTIONS: &str = "umask=0077,flush";

/// The sticks of the machine.
#[derive(Debug, Clone)]
pub(crate) struct KernelSticks {
    places: Places,
}

impl KernelSticks {
    /// Those below a root.
    pub(crate) fn of(places: &Places) -> Self {
        Self { places: places.clone() }
    }
}

impl Sticks for KernelSticks {
    fn find(&self, label: &str) -> Option<Plugged> {
        let link = self.places.at(LABELS).join(label);
        let moment = fs::symlink_metadata(&link).ok()?;
        let device = fs::canonicalize(&link).ok()?;
        Some(Plugged { device, moment: moment.ctime().saturating_mul(1_000_000_000).saturating_add(moment.ctime_nsec()) })
    }

    fn mount(&self, device: &Path) -> Result<Box<dyn Mounted>, StickError> {
        let cannot = |reason: io::Error| StickError::Mount { device: device.to_owned(), reason };
        let folder = self.places.at(MOUNT_POINT).join(std::process::id().to_string());
        fs::create_dir_all(&folder).map_err(cannot)?;
        mount(Some(device), &folder, Some("vfat"), flags(true), Some(OPTIONS)).map_err(|error| cannot(error.into()))?;
        Ok(Box::new(KernelMount { folder }))
    }

    fn pause(&self) {
        crate::pause::pause(Duration::from_millis(LOOK_EVERY_MS));
    }
}

/// Mounts the opened data volume in a place of our own, for a moment.
///
/// # Errors
/// When the kernel does not mount it.
pub(crate) fn mount_data(places: &Places, mapping: &Path) -> Result<Box<dyn Mounted>, StickError> {
    let cannot = |reason: io::Error| StickError::Mount { device: mapping.to_owned(), reason };
    let folder = places.at(MOUNT_POINT).join("data");
    fs::create_dir_all(&folder).map_err(cannot)?;
    mount(Some(mapping), &folder, Some("ext4"), flags(false), None::<&str>).map_err(|error| cannot(error.into()))?;
    Ok(Box::new(KernelMount { folder }))
}

struct KernelMount {
    folder: PathBuf,
}

impl Mounted for KernelMount {
    fn folder(&self) -> &Path {
        &self.folder
    }

    fn make_writable(&self) -> Result<(), StickError> {
        let again = flags(false) | MsFlags::MS_REMOUNT;
        let remounted = mount(None::<&str>, &self.folder, None::<&str>, again, Some(OPTIONS));
        remounted.map_err(|error| StickError::NotWritable(error.into()))
    }

    fn finish(self: Box<Self>) -> Result<(), StickError> {
        let folder = fs::File::open(&self.folder).and_then(|folder| nix::unistd::syncfs(&folder).map_err(io::Error::from));
        folder.map_err(StickError::NotWritable)?;
        umount2(&self.folder, MntFlags::empty()).map_err(|error| StickError::NotWritable(error.into()))
    }
}

impl Drop for KernelMount {
    fn drop(&mut self) {
        // Already unmounted after `finish`; a stick that was pulled is let go of all the same.
        let _ = umount2(&self.folder, MntFlags::MNT_DETACH);
        let _ = fs::remove_dir(&self.folder);
    }
}

fn flags(read_only: bool) -> MsFlags {
    let always = MsFlags::MS_NODEV | MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC | MsFlags::MS_NOATIME;
    if read_only { always | MsFlags::MS_RDONLY } else { always }
}
