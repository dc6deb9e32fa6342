//! Drivers, in the order that the build wrote down.
//!
//! `<folder>/list` has a group a line: `<pattern> <file> <file>...`, dependencies first. A group whose
//! pattern is `*` is always loaded, any other only if a PCI device's name (`modalias`) contains it.
//! After each group the disks are looked at, so that a machine loads what it needs and no more.

use std::{
    fs::{self, File},
    io,
    path::Path,
    sync::mpsc,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    kmod::{ModuleInitFlags, finit_module},
};

const PCI_DEVICES: &str = "/sys/bus/pci/devices";
/// Controllers find their disks on their own time: this long after a group.
const GROUP_PATIENCE: Duration = Duration::from_millis(1500);
/// And this long after the last.
const LAST_PATIENCE: Duration = Duration::from_secs(15);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Loads group after group until `found` finds something.
///
/// # Errors
/// The list can not be read, or a module that every machine needs can not be loaded.
pub(crate) fn load_until<T>(folder: &Path, mut found: impl FnMut() -> Option<T>) -> io::Result<Option<T>> {
    let list = fs::read_to_string(folder.join("list"))?;
    let names = device_names(Path::new(PCI_DEVICES));
    for (pattern, files) in groups(&list).filter(|(pattern, _)| *pattern == "*" || names.iter().any(|name| name.contains(pattern))) {
        for file in files.split_ascii_whitespace() {
            let loaded = load(&folder.join(file));
            // A driver of some hardware may refuse: another may still find the disk.
            if pattern == "*" {
                loaded.map_err(|error| io::Error::new(error.kind(), format!("{file}: {error}")))?;
            }
        }
        if pattern != "*"
            && let Some(result) = wait(&mut found, GROUP_PATIENCE)
        {
            return Ok(Some(result));
        }
    }
    Ok(wait(&mut found, LAST_PATIENCE))
}

fn wait<T>(found: &mut impl FnMut() -> Option<T>, patience: Duration) -> Option<T> {
    let deadline = Instant::now() + patience;
    // Nobody ever sends: the wait is the time between two looks.
    let (_sender, never) = mpsc::channel::<()>();
    loop {
        if let Some(result) = found() {
            return Some(result);
        }
        if Instant::now() >= deadline {
            return None;
        }
        let _ = never.recv_timeout(LOOK_AGAIN);
    }
}

fn groups(list: &str) -> impl Iterator<Item = (&str, &str)> {
    list.lines().filter_map(|line| line.split_once(' '))
}

fn device_names(folder: &Path) -> Vec<String> {
    let devices = fs::read_dir(folder).into_iter().flatten().flatten();
    devices.filter_map(|device| fs::read_to_string(device.path().join("modalias")).ok()).collect()
}

fn load(file: &Path) -> io::Result<()> {
    match finit_module(File::open(file)?, c"", ModuleInitFlags::empty()) {
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine without any of the disks waits for none of them in vain and says what is missing.
    #[test]
    fn a_module_that_every_machine_needs_is_named_when_it_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("list"), "no-such-device x.ko\n* dm-mod.ko\n").unwrap();
        let error = load_until(folder.path(), || None::<()>).unwrap_err();
        assert!(error.to_string().starts_with("dm-mod.ko: "), "{error}");
    }

    /// Nothing more is loaded once the slot is there.
    #[test]
    fn groups_are_read_in_their_order() {
        let list = "* a.ko b.ko\nv00001AF4 c.ko\n";
        assert_eq!(groups(list).collect::<Vec<_>>(), [("*", "a.ko b.ko"), ("v00001AF4", "c.ko")]);
        let mut looks = 0;
        let found = wait(
            &mut || {
                looks += 1;
                (looks == 3).then_some(looks)
            },
            LAST_PATIENCE,
        );
        assert_eq!(found, Some(3));
    }
}
