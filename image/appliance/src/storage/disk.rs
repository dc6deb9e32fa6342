//! The disk that the root is on, and the data partition in its table.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use vitalgate_layout::partition;

use super::StorageError;
use crate::command::{Call, Programs};
use crate::places::Places;

/// Type of a LUKS partition (Discoverable Partitions Specification does not name one; this is cryptsetup's).
const LUKS_TYPE: &str = "CA7D7CCB-63ED-4C53-861C-1742536059CC";
const SECTOR_BYTES: u64 = 512;
const SFDISK_REMEDY: &str = "the disk is worn out or its partition table is damaged: flash it anew or replace it";

/// The data partition as the table has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum DataPartition {
    /// Not there: a disk that was just flashed.
    Absent,
    /// Not complete: whatever it holds was never used.
    Unfinished(Partition),
    /// Complete: never to be made anew.
    Complete(Partition),
}

/// One partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Partition {
    /// The disk's device.
    pub(crate) disk: PathBuf,
    /// Its number, from 1.
    pub(crate) number: u32,
    /// Its device.
    pub(crate) device: PathBuf,
}

#[derive(Deserialize)]
struct Listing {
    partitiontable: Table,
}

#[derive(Deserialize)]
struct Table {
    #[serde(default)]
    partitions: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    node: PathBuf,
    size: u64,
    #[serde(default)]
    name: String,
}

/// The disk that holds the verified root.
///
/// # Errors
/// When there is no such disk.
pub(crate) fn of_root(places: &Places) -> Result<PathBuf, StorageError> {
    let blocks = places.at("/sys/class/block");
    let root_name = |block: &Path| fs::read_to_string(block.join("dm/name")).is_ok_and(|name| name.trim() == partition::ROOT_MAPPING);
    let mapping = entries(&blocks).into_iter().find(|block| root_name(block)).ok_or(StorageError::NoRoot)?;
    let below = entries(&mapping.join("slaves")).into_iter().next().ok_or(StorageError::NoRoot)?;
    let part = fs::canonicalize(blocks.join(below.file_name().unwrap_or_default())).map_err(|_| StorageError::NoRoot)?;
    if !part.join("partition").exists() {
        return Err(StorageError::NoRoot);
    }
    let disk = part.parent().and_then(Path::file_name).ok_or(StorageError::NoRoot)?;
    Ok(places.at("/dev").join(disk))
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    found.sort();
    found
}

/// Looks the data partition up in the table on the disk, which is newer than what the kernel knows.
///
/// # Errors
/// When the table cannot be read or has two such partitions.
pub(super) fn look(programs: &dyn Programs, disk: &Path) -> Result<DataPartition, StorageError> {
    let answer = programs.run(Call::new("sfdisk", SFDISK_REMEDY).arguments(["--json"]).arguments([disk]))?;
    let listing: Listing = serde_json::from_slice(&answer.output).map_err(|_| StorageError::TableUnreadable(disk.to_owned()))?;
    let mut ours = listing.partitiontable.partitions.into_iter().filter(|entry| is_ours(&entry.name));
    let Some(entry) = ours.next() else { return Ok(DataPartition::Absent) };
    if ours.next().is_some() {
        return Err(StorageError::TwoDataPartitions(disk.to_owned()));
    }
    let mib = entry.size * SECTOR_BYTES / (1 << 20);
    if mib < partition::DATA_MIB_MIN {
        return Err(StorageError::DiskTooSmall { disk: disk.to_owned(), mib });
    }
    let number = number_of(disk, &entry.node).ok_or_else(|| StorageError::TableUnreadable(disk.to_owned()))?;
    let found = Partition { disk: disk.to_owned(), number, device: entry.node };
    Ok(if entry.name == partition::DATA { DataPartition::Complete(found) } else { DataPartition::Unfinished(found) })
}

fn is_ours(name: &str) -> bool {
    name == partition::DATA || name == partition::DATA_UNFINISHED
}

/// `/dev/vda6` and `/dev/nvme0n1p6` are both number 6.
fn number_of(disk: &Path, node: &Path) -> Option<u32> {
    let rest = node.to_str()?.strip_prefix(disk.to_str()?)?;
    rest.strip_prefix('p').unwrap_or(rest).parse().ok()
}

/// Adds the partition over the rest of the disk, as unfinished.
///
/// # Errors
/// When the disk has no room or refuses.
pub(super) fn append(programs: &dyn Programs, disk: &Path) -> Result<(), StorageError> {
    let line = format!("name={}, type={LUKS_TYPE}\n", partition::DATA_UNFINISHED);
    // The kernel is told about the one new partition below: it would not take a whole new table while the root is in use.
    let call = Call::new("sfdisk", SFDISK_REMEDY).arguments(["--no-reread", "--no-tell-kernel", "--append"]).arguments([disk]);
    programs.run(call.input(line))?;
    Ok(())
}

/// Makes the kernel know the partition, if it does not yet.
///
/// # Errors
/// When the kernel refuses.
pub(super) fn show_to_kernel(programs: &dyn Programs, partition: &Partition) -> Result<(), StorageError> {
    if partition.device.exists() {
        return Ok(());
    }
    let number = partition.number.to_string();
    let call = Call::new("partx", "restart the appliance: the kernel reads the table at its start");
    programs.run(call.arguments(["--add", "--nr", &number]).arguments([&partition.disk]))?;
    Ok(())
}

/// Gives the partition its name, which says whether it is complete.
///
/// # Errors
/// When the table cannot be written.
pub(crate) fn rename(programs: &dyn Programs, partition: &Partition, name: &str) -> Result<(), StorageError> {
    let number = partition.number.to_string();
    let call = Call::new("sfdisk", SFDISK_REMEDY).arguments(["--no-reread", "--no-tell-kernel", "--part-label"]);
    programs.run(call.arguments([&partition.disk]).arguments([number.as_str(), name]))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::command::System;

    /// The data partition goes to the disk that the verified root is on, whatever else is plugged in.
    #[test]
    fn the_disk_is_the_one_below_the_root() {
        let folder = tempfile::tempdir().unwrap();
        let places = Places::under(folder.path());
        let block = places.at("/sys/class/block");
        fs::create_dir_all(&block).unwrap();
        let device = places.at("/sys/devices/pci/nvme0n1/nvme0n1p4");
        fs::create_dir_all(&device).unwrap();
        fs::write(device.join("partition"), "4\n").unwrap();
        symlink(&device, block.join("nvme0n1p4")).unwrap();
        for (name, called) in [("dm-0", "root"), ("dm-1", "data")] {
            let mapping = places.at("/sys/devices/virtual").join(name);
            fs::create_dir_all(mapping.join("dm")).unwrap();
            fs::create_dir_all(mapping.join("slaves/nvme0n1p4")).unwrap();
            fs::write(mapping.join("dm/name"), format!("{called}\n")).unwrap();
            symlink(&mapping, block.join(name)).unwrap();
        }
        assert_eq!(of_root(&places).unwrap(), places.at("/dev/nvme0n1"));
    }

    fn flashed(folder: &Path, mib: u64) -> PathBuf {
        let disk = folder.join("disk");
        fs::File::create(&disk).unwrap().set_len(64 << 20).unwrap();
        let script =
            "label: gpt\nsize=1M, name=esp\nsize=1M, name=root-a\nsize=1M, name=verity-a\nsize=1M, name=root-b\nsize=1M, name=verity-b\n";
        System.run(Call::new("sfdisk", "").arguments(["--quiet"]).arguments([&disk]).input(script)).unwrap();
        // An image is flashed onto a larger disk: the second table is not at its end.
        fs::OpenOptions::new().write(true).open(&disk).unwrap().set_len(mib << 20).unwrap();
        disk
    }

    /// With the real program on a real table: unfinished first, complete by name, over the whole rest.
    #[test]
    fn the_partition_is_unfinished_until_it_is_renamed() {
        let folder = tempfile::tempdir().unwrap();
        let disk = flashed(folder.path(), 1024);
        assert_eq!(look(&System, &disk).unwrap(), DataPartition::Absent);
        append(&System, &disk).unwrap();
        let DataPartition::Unfinished(made) = look(&System, &disk).unwrap() else { panic!("not unfinished") };
        assert_eq!(made.number, 6);
        rename(&System, &made, partition::DATA).unwrap();
        assert_eq!(look(&System, &disk).unwrap(), DataPartition::Complete(made));
    }

    /// A disk without room is said to be too small; nothing is made on it.
    #[test]
    fn a_small_disk_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let disk = flashed(folder.path(), 128);
        append(&System, &disk).unwrap();
        assert!(matches!(look(&System, &disk), Err(StorageError::DiskTooSmall { mib: 115..=128, .. })));
    }

    /// Names of partitions differ from disk to disk.
    #[test]
    fn the_number_is_read_from_any_name() {
        assert_eq!(number_of(Path::new("/dev/vda"), Path::new("/dev/vda6")), Some(6));
        assert_eq!(number_of(Path::new("/dev/nvme0n1"), Path::new("/dev/nvme0n1p16")), Some(16));
        assert_eq!(number_of(Path::new("/dev/vda"), Path::new("/dev/sda6")), None);
    }
}
