//! The disks of this machine, as the kernel shows them.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::failure::{Failure, Outcome};

/// Where the kernel shows disks and mounts; elsewhere in tests.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    sys: PathBuf,
    proc: PathBuf,
    udev: PathBuf,
}

/// A whole disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Disk {
    /// The kernel's name, such as `sdb`.
    pub(crate) name: String,
    /// Size in bytes.
    pub(crate) bytes: u64,
    /// Whether it can be pulled out: removable medium, USB or memory card.
    pub(crate) removable: bool,
    /// Whether it cannot be written to.
    pub(crate) read_only: bool,
    /// Bytes of its sectors, as the image's partition table would be counted in.
    pub(crate) sector_bytes: u64,
    /// Maker and model.
    pub(crate) model: String,
    /// Serial number; empty when it has none.
    pub(crate) serial: String,
    /// What uses it, where something does.
    pub(crate) used_by: Option<String>,
}

impl fmt::Display for Disk {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or_none = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
        let gb = self.bytes as f64 / 1e9;
        write!(formatter, "/dev/{:<8} {gb:>7.1} GB  {}  serial {}", self.name, or_none(&self.model), or_none(&self.serial))?;
        if let Some(user) = &self.used_by {
            write!(formatter, "  IN USE: {user}")?;
        }
        if self.sector_bytes != IMAGE_SECTOR_BYTES {
            write!(formatter, "  SECTORS OF {} BYTES", self.sector_bytes)?;
        }
        Ok(())
    }
}

/// What the image's partition table counts in (512 bytes): with other sectors no firmware finds it.
pub(crate) const IMAGE_SECTOR_BYTES: u64 = 512;

/// Kinds of block devices that are no disks of their own.
const NO_DISKS: &[&str] = &["loop", "ram", "zram", "dm-", "md", "sr", "fd", "nbd", "drbd"];

impl Machine {
    /// This one.
    pub(crate) fn this() -> Self {
        Self { sys: "/sys".into(), proc: "/proc".into(), udev: "/run/udev/data".into() }
    }

    #[cfg(test)]
    pub(crate) fn in_folder(folder: &Path) -> Self {
        Self { sys: folder.join("sys"), proc: folder.join("proc"), udev: folder.join("udev") }
    }

    /// Every disk, by name.
    pub(crate) fn disks(&self) -> Outcome<Vec<Disk>> {
        let folder = self.sys.join("block");
        let entries = std::fs::read_dir(&folder).map_err(|error| Failure::unreadable(&folder, &error))?;
        let mut names: Vec<_> = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
        names.retain(|name| !NO_DISKS.iter().any(|kind| name.starts_with(kind)));
        names.sort();
        Ok(names.iter().filter_map(|name| self.disk(name)).collect())
    }

    /// One disk; `None` for what is no whole disk.
    pub(crate) fn disk(&self, name: &str) -> Option<Disk> {
        // Boot areas of an eMMC, and paths to a disk that is shown by another name, are no disks.
        if name.starts_with("mmcblk") && (name.contains("boot") || name.contains("rpmb")) {
            return None;
        }
        let folder = self.sys.join("block").join(name);
        if read(&folder.join("hidden")).as_deref() == Some("1") {
            return None;
        }
        let bytes = read(&folder.join("size"))?.parse::<u64>().ok()?.checked_mul(512)?;
        let flag = |file: &str| read(&folder.join(file)).as_deref() == Some("1");
        let path = std::fs::canonicalize(&folder).unwrap_or_else(|_| folder.clone());
        let is_card = name.starts_with("mmcblk") && read(&folder.join("device/type")).as_deref() == Some("SD");
        let pluggable = path.components().any(|part| part.as_os_str().to_string_lossy().starts_with("usb")) || is_card;
        let words = ["device/vendor", "device/model", "device/name"].iter().filter_map(|file| read(&folder.join(file)));
        Some(Disk {
            name: name.to_owned(),
            bytes,
            removable: flag("removable") || pluggable,
            read_only: flag("ro"),
            // The kernel has said it of every disk since Linux 2.6.31.
            sector_bytes: read(&folder.join("queue/logical_block_size")).and_then(|text| text.parse().ok()).unwrap_or(IMAGE_SECTOR_BYTES),
            model: printable(&words.collect::<Vec<_>>().join(" ")),
            serial: printable(&self.serial(&folder).unwrap_or_default()),
            used_by: self.user(name, &folder),
        })
    }

    fn serial(&self, folder: &Path) -> Option<String> {
        let known = || {
            let number = read(&folder.join("dev"))?;
            let known = std::fs::read_to_string(self.udev.join(format!("b{number}"))).ok()?;
            let value = |key: &str| known.lines().find_map(|line| line.strip_prefix(key).map(str::to_owned));
            value("E:ID_SERIAL_SHORT=").or_else(|| value("E:ID_SERIAL="))
        };
        known().or_else(|| read(&folder.join("device/serial"))).or_else(|| read(&folder.join("serial")))
    }

    /// Who uses the disk or a part of it: a mount, swap, or a device on top of it.
    fn user(&self, name: &str, folder: &Path) -> Option<String> {
        let mut parts = vec![(name.to_owned(), folder.to_owned())];
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        parts.extend(names.filter(|part| part.starts_with(name)).map(|part| (part.clone(), folder.join(part))));
        parts.iter().find_map(|(part, folder)| {
            let above = std::fs::read_dir(folder.join("holders")).into_iter().flatten().flatten().next();
            let above = above.map(|entry| format!("{part} is used by {}", entry.file_name().to_string_lossy()));
            self.mount_of(part, read(&folder.join("dev")).as_deref()).or(above)
        })
    }

    fn mount_of(&self, part: &str, number: Option<&str>) -> Option<String> {
        let device = format!("/dev/{part}");
        // proc_pid_mountinfo(5): id parent major:minor root mount-point options... - type source options
        let mounts = std::fs::read_to_string(self.proc.join("self/mountinfo")).unwrap_or_default();
        let mount = mounts.lines().find_map(|line| {
            let (before, after) = line.split_once(" - ")?;
            let mut fields = before.split(' ').skip(2);
            let (found, place) = (fields.next()?, fields.nth(1)?);
            let source = after.split(' ').nth(1)?;
            (Some(found) == number || source == device).then(|| format!("{part} is mounted on {place}"))
        });
        let swaps = std::fs::read_to_string(self.proc.join("swaps")).unwrap_or_default();
        let swap = swaps.lines().any(|line| line.split_whitespace().next() == Some(device.as_str()));
        mount.or_else(|| swap.then(|| format!("{part} is swap space")))
    }
}

fn read(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// What a device says of itself goes to a terminal.
fn printable(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().filter(|one| one.is_ascii_graphic() || *one == ' ').take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::super::target::disk as writable;
    use super::*;

    /// A machine with a system disk, a stick, a mounted stick and one below a volume.
    fn machine(folder: &Path) -> Machine {
        let write = |path: &str, text: &str| {
            let path = folder.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        for (name, number, removable) in [
            ("sda", "8:0", "0"),
            ("sdb", "8:16", "1"),
            ("sdc", "8:32", "1"),
            ("sdd", "8:48", "0"),
            ("sde", "8:64", "1"),
            ("loop0", "7:0", "0"),
        ] {
            write(&format!("sys/block/{name}/size"), "4194304\n");
            write(&format!("sys/block/{name}/dev"), number);
            write(&format!("sys/block/{name}/removable"), removable);
            write(&format!("sys/block/{name}/ro"), "0");
            write(&format!("sys/block/{name}/device/model"), "Flash\u{1b}[2J  Disk \n");
        }
        for (name, kind) in [("mmcblk0", "MMC"), ("mmcblk0boot0", "MMC"), ("mmcblk1", "SD")] {
            write(&format!("sys/block/{name}/size"), "4194304\n");
            write(&format!("sys/block/{name}/device/type"), kind);
        }
        write("sys/block/nvme0c0n1/size", "4194304\n");
        write("sys/block/nvme0c0n1/hidden", "1");
        write("sys/block/sda/sda2/dev", "8:2");
        write("sys/block/sdc/sdc1/dev", "8:33");
        write("sys/block/sdd/sdd1/holders/dm-0", "");
        write("udev/b8:16", "N:sdb\nE:ID_SERIAL=Flash_Disk_AA11\nE:ID_SERIAL_SHORT=AA11\n");
        write("proc/self/mountinfo", "22 1 0:20 / / rw - btrfs /dev/sda2 rw\n23 22 8:33 / /media/stick rw shared:1 - vfat /dev/sdc1 rw\n");
        write("proc/swaps", "Filename Type Size\n/dev/sde partition 1 0 -2\n");
        Machine::in_folder(folder)
    }

    #[test]
    fn disks_say_what_they_are_and_who_uses_them() {
        let folder = tempfile::tempdir().unwrap();
        let disks = machine(folder.path()).disks().unwrap();
        let users: Vec<_> = disks.iter().map(|disk| (disk.name.as_str(), disk.removable, disk.used_by.as_deref())).collect();
        assert_eq!(
            users,
            [
                ("mmcblk0", false, None),
                ("mmcblk1", true, None),
                ("sda", false, Some("sda2 is mounted on /")),
                ("sdb", true, None),
                ("sdc", true, Some("sdc1 is mounted on /media/stick")),
                ("sdd", false, Some("sdd1 is used by dm-0")),
                ("sde", true, Some("sde is swap space")),
            ]
        );
        assert!(disks.iter().all(|disk| disk.sector_bytes == 512));
        assert_eq!(disks[3].to_string(), "/dev/sdb          2.1 GB  Flash[2J Disk  serial AA11");
    }

    /// What shows other sectors than the image is made for would take every byte, give it back, and never start.
    #[test]
    fn a_disk_with_other_sectors_is_not_written_to() {
        let folder = tempfile::tempdir().unwrap();
        let machine = machine(folder.path());
        let place = folder.path().join("sdb");
        std::fs::write(&place, "").unwrap();
        std::fs::create_dir_all(folder.path().join("sys/block/sdb/queue")).unwrap();
        let sector = folder.path().join("sys/block/sdb/queue/logical_block_size");
        std::fs::write(&sector, "512\n").unwrap();
        assert_eq!(writable(&machine, &place).unwrap().name, "sdb");
        std::fs::write(&sector, "4096\n").unwrap();
        let refusal = writable(&machine, &place).unwrap_err();
        assert!(refusal.to_string().contains("sectors of 4096 bytes, the image is made for 512; a USB bridge"), "{refusal}");
        assert_eq!(refusal.exit_code(), std::process::ExitCode::from(3));
        assert!(machine.disk("sdb").unwrap().to_string().ends_with("serial AA11  SECTORS OF 4096 BYTES"));
    }
}
