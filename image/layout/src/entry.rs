//! Boot entries: the file names under `EFI/Linux` that systemd-boot reads and counts with.
//!
//! `vitalgate-<slot>_<version>+<left>[-<done>].efi` (Automatic Boot Assessment, systemd 252,
//! `AUTOMATIC_BOOT_ASSESSMENT.md`): the loader takes one try off at each start; an entry that has
//! none left goes to the end of its list. A slot that came up well gets all its tries back, so that
//! a slot which breaks later (a worn disk, a flipped bit) is left as well.

use crate::{Slot, Version};

/// Folder of the boot entries on the EFI system partition.
pub const FOLDER: &str = "EFI/Linux";
/// Tries of an entry that is new or came up well.
pub const TRIES: u32 = 3;
/// An installed image that nothing points to yet, on the EFI system partition. In the folder of the
/// entries, so that one rename inside one folder (on FAT: one sector) makes it an entry; by a name
/// that the boot loader does not read.
pub const fn staged(slot: Slot) -> &'static str {
    match slot {
        Slot::A => "EFI/Linux/staged-a",
        Slot::B => "EFI/Linux/staged-b",
    }
}

/// One boot entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BootEntry {
    /// Where its root is.
    pub slot: Slot,
    /// What it boots.
    pub version: Version,
    /// Tries left; `None`: not counted.
    pub left: Option<u32>,
    /// Tries used.
    pub done: u32,
}

impl BootEntry {
    /// An entry with all its tries.
    pub const fn fresh(slot: Slot, version: Version) -> Self {
        Self { slot, version, left: Some(TRIES), done: 0 }
    }

    /// Reads a file name; `None` for one that is none of ours.
    pub fn parse(name: &str) -> Option<Self> {
        let stem = name.strip_prefix("vitalgate-")?.strip_suffix(".efi")?;
        let (slot, rest) = stem.split_once('_')?;
        let (version, tries) = match rest.split_once('+') {
            Some((version, tries)) => (version, Some(tries)),
            None => (rest, None),
        };
        let (left, done) = match tries.map(|tries| tries.split_once('-').unwrap_or((tries, "0"))) {
            Some((left, done)) => (Some(left.parse().ok()?), done.parse().ok()?),
            None => (None, 0),
        };
        Some(Self { slot: Slot::parse(slot)?, version: Version::parse(version)?, left, done })
    }

    /// Whether the loader would still try it before others.
    pub fn is_good(&self) -> bool {
        self.left != Some(0)
    }

    /// The file name.
    pub fn file_name(&self) -> String {
        let Self { slot, version, left, done } = self;
        match (left, done) {
            (None, _) => format!("vitalgate-{slot}_{version}.efi"),
            (Some(left), 0) => format!("vitalgate-{slot}_{version}+{left}.efi"),
            (Some(left), done) => format!("vitalgate-{slot}_{version}+{left}-{done}.efi"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the loader renames is read back; a name of somebody else is left alone.
    #[test]
    fn names_are_read_as_they_are_written() {
        for name in ["vitalgate-a_0.1.0+3.efi", "vitalgate-b_1.20.3+2-1.efi", "vitalgate-b_1.20.3+0-3.efi", "vitalgate-a_0.1.0.efi"] {
            assert_eq!(BootEntry::parse(name).unwrap().file_name(), name);
        }
        for name in ["vitalgate-c_0.1.0+3.efi", "other.efi", "vitalgate-a_0.1+3.efi", "vitalgate-a_0.1.0+x.efi", "vitalgate-a_0.1.0"] {
            assert_eq!(BootEntry::parse(name), None, "{name}");
        }
        assert!(!BootEntry::parse("vitalgate-b_1.20.3+0-3.efi").unwrap().is_good());
    }
}
