//! Finds the slot whose hash partition belongs to the signed root hash.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use vitalgate_layout::Slot;

use crate::verity;

const BLOCK_DEVICES: &str = "/sys/class/block";
const DEVICES: &str = "/dev";

/// A slot on a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FoundSlot {
    pub(crate) slot: Slot,
    /// Name of the disk that both are on.
    pub(crate) disk: String,
    /// Partition of the root.
    pub(crate) data: PathBuf,
    /// Partition of its hashes.
    pub(crate) hashes: PathBuf,
}

/// A partition with a label.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Partition {
    /// Folder of its disk in `/sys`, the same for all partitions of a disk.
    disk: PathBuf,
    device: String,
    label: String,
}

/// The first slot, by disk and then by letter, whose hashes belong to `root_hash`.
pub(crate) fn find(root_hash: &[u8; 32]) -> Option<FoundSlot> {
    pairs(&partitions(Path::new(BLOCK_DEVICES)).unwrap_or_default())
        .into_iter()
        .find(|slot| matches!(verity::root_hash_of(&slot.hashes), Ok(Some(found)) if found == *root_hash))
}

/// What there is instead, for the console.
pub(crate) fn describe() -> String {
    let partitions = partitions(Path::new(BLOCK_DEVICES)).unwrap_or_default();
    let slots: Vec<String> = pairs(&partitions)
        .iter()
        .map(|slot| {
            let hash = match verity::root_hash_of(&slot.hashes) {
                Ok(Some(hash)) => verity::hex(&hash),
                Ok(None) => "no hashes".to_owned(),
                Err(error) => error.to_string(),
            };
            format!("slot {} with {hash}", slot.slot)
        })
        .collect();
    if slots.is_empty() { format!("{} partitions, none of them a slot", partitions.len()) } else { slots.join(", ") }
}

fn pairs(partitions: &[Partition]) -> Vec<FoundSlot> {
    let mut found = Vec::new();
    for hashes in partitions {
        let Some(slot) = Slot::ALL.into_iter().find(|slot| slot.verity_label() == hashes.label) else { continue };
        let data = partitions.iter().find(|data| data.label == slot.root_label() && data.disk == hashes.disk);
        if let Some(data) = data {
            let device = |name: &str| Path::new(DEVICES).join(name);
            let disk = hashes.disk.file_name().unwrap_or_default().to_string_lossy().into_owned();
            found.push(FoundSlot { slot, disk, data: device(&data.device), hashes: device(&hashes.device) });
        }
    }
    found
}

fn partitions(folder: &Path) -> io::Result<Vec<Partition>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        // A device may be gone again by now.
        let (Ok(event), Ok(real)) = (fs::read_to_string(path.join("uevent")), fs::canonicalize(&path)) else { continue };
        let value = |key: &str| event.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=').map(str::to_owned));
        if let (Some(device), Some(label), Some(disk)) = (value("DEVNAME"), value("PARTNAME"), real.parent()) {
            found.push(Partition { disk: disk.to_owned(), device, label });
        }
    }
    found.sort_by(|left, right| (&left.disk, &left.label).cmp(&(&right.disk, &right.label)));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(folder: &Path, disk: &str, device: &str, label: Option<&str>) {
        let real = folder.join("devices").join(disk).join(device);
        fs::create_dir_all(&real).unwrap();
        let label = label.map(|label| format!("PARTNAME={label}\n")).unwrap_or_default();
        fs::write(real.join("uevent"), format!("MAJOR=254\nDEVNAME={device}\nDEVTYPE=partition\n{label}")).unwrap();
        fs::create_dir_all(folder.join("class")).unwrap();
        std::os::unix::fs::symlink(&real, folder.join("class").join(device)).unwrap();
    }

    /// Root and hashes of a slot are taken from the same disk; half a slot is none.
    #[test]
    fn a_slot_is_a_pair_on_one_disk() {
        let folder = tempfile::tempdir().unwrap();
        for (disk, device, label) in [
            ("sda", "sda1", Some("verity-a")),
            ("sdb", "sdb1", Some("root-a")),
            ("vda", "vda2", Some("root-a")),
            ("vda", "vda3", Some("verity-a")),
            ("vda", "vda4", Some("root-b")),
            ("vda", "vda5", Some("verity-b")),
            ("vda", "vda", None),
        ] {
            add(folder.path(), disk, device, label);
        }
        let found = pairs(&partitions(&folder.path().join("class")).unwrap());
        let slot = |slot, data: &str, hashes: &str| FoundSlot { slot, disk: "vda".to_owned(), data: data.into(), hashes: hashes.into() };
        assert_eq!(found, [slot(Slot::A, "/dev/vda2", "/dev/vda3"), slot(Slot::B, "/dev/vda4", "/dev/vda5")]);
    }
}
