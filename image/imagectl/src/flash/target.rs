//! What is written to: a whole disk that nobody uses, or a file.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::unistd::{Whence, lseek};

use super::confirm::Erased;
use super::disks::{Disk, IMAGE_SECTOR_BYTES, Machine};
use super::image::{PIECE, is_zero};
use crate::failure::{Failure, Outcome};

/// Bytes at the start of an old file that tell a disk from something else.
const HEAD_BYTES: usize = 64 * 1024;

/// A target that may be written to.
pub(crate) struct Target {
    path: PathBuf,
    file: File,
    bytes: u64,
    disk: Option<Disk>,
    /// Grows to this before the first write.
    grow_to: Option<u64>,
}

/// What can be said of a target without opening it for writing.
pub(crate) fn check(machine: &Machine, path: &Path, image: &Path, size: Option<u64>) -> Outcome {
    let Ok(about) = std::fs::metadata(path) else {
        return match size {
            Some(_) => Ok(()),
            None => Err(Failure::target(
                format!("{} does not exist", path.display()),
                "name a disk of imagectl flash --list, or give a new file its size with --size 2GiB",
            )),
        };
    };
    if std::fs::metadata(image).is_ok_and(|image| (image.dev(), image.ino()) == (about.dev(), about.ino())) {
        return Err(Failure::target("image and target are the same file", "name another target"));
    }
    if about.file_type().is_block_device() {
        return disk(machine, path).map(drop);
    }
    if !about.is_file() {
        return Err(Failure::target(
            format!("{} is neither a disk nor a file", path.display()),
            "name a whole disk such as /dev/sdb, or a file",
        ));
    }
    not_something_else(path)
}

/// The disk behind a path, if it may be written to.
pub(super) fn disk(machine: &Machine, path: &Path) -> Outcome<Disk> {
    let real = std::fs::canonicalize(path).map_err(|error| Failure::unreadable(path, &error))?;
    let name = real.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let Some(disk) = machine.disk(&name) else {
        return Err(Failure::target(
            format!("{} is no whole disk", path.display()),
            "name the disk, not a part of it: /dev/sdb, not /dev/sdb1",
        ));
    };
    if let Some(user) = &disk.used_by {
        let remedy = "unmount it; if it is the disk of this machine, it is the wrong one: compare imagectl flash --list";
        return Err(Failure::target(format!("{} is in use: {user}", path.display()), remedy));
    }
    if disk.read_only {
        return Err(Failure::target(format!("{} is write-protected", path.display()), "open the write protection of the card or stick"));
    }
    if disk.sector_bytes != IMAGE_SECTOR_BYTES {
        let what = format!("{} has sectors of {} bytes, the image is made for {IMAGE_SECTOR_BYTES}", path.display(), disk.sector_bytes);
        return Err(Failure::target(what, "a USB bridge that shows other sectors: use another, or connect the disk directly"));
    }
    Ok(disk)
}

/// A file that holds something other than a disk is not overwritten.
fn not_something_else(path: &Path) -> Outcome {
    let mut head = Vec::new();
    let file = File::open(path).map_err(|error| Failure::unreadable(path, &error))?;
    file.take(HEAD_BYTES as u64).read_to_end(&mut head).map_err(|error| Failure::unreadable(path, &error))?;
    let is_disk = head.get(510..512) == Some(&[0x55, 0xaa]);
    if is_disk || head.iter().all(|byte| *byte == 0) {
        return Ok(());
    }
    Err(Failure::target(format!("{} holds something that is no disk", path.display()), "name another file, or remove this one yourself"))
}

/// Whether a file holds anything but zeros; its holes are not looked through.
fn holds_something(file: &File) -> io::Result<bool> {
    let mut piece = vec![0; PIECE];
    let mut at = 0_u64;
    loop {
        match lseek(file, i64::try_from(at).unwrap_or(i64::MAX), Whence::SeekData) {
            Ok(data) => at = u64::try_from(data).unwrap_or(at),
            Err(nix::errno::Errno::ENXIO) => return Ok(false),
            // A file system that does not know holes: everything is looked through.
            Err(_) => {}
        }
        let read = file.read_at(&mut piece, at)?;
        if read == 0 {
            return Ok(false);
        }
        if !is_zero(piece.get(..read).unwrap_or_default()) {
            return Ok(true);
        }
        at += read as u64;
    }
}

impl Target {
    /// Opens a target that [`check`] let through; nothing is changed yet but that a new file exists.
    pub(crate) fn open(machine: &Machine, path: &Path, size: Option<u64>, image_bytes: u64) -> Outcome<Self> {
        let too_small = |bytes: u64| {
            let what = format!("{} has {} MiB, the image needs {}", path.display(), bytes >> 20, image_bytes.div_ceil(1 << 20));
            Failure::target(what, "take a larger disk, or a larger --size")
        };
        let is_disk = std::fs::metadata(path).is_ok_and(|about| about.file_type().is_block_device());
        if is_disk {
            let disk = disk(machine, path)?;
            // The kernel itself refuses a disk in use when it is opened for oneself alone (open(2), O_EXCL).
            let opened = OpenOptions::new().read(true).write(true).custom_flags(OFlag::O_EXCL.bits()).open(path);
            let mut file = opened.map_err(|error| {
                Failure::target(
                    format!("{} cannot be opened ({error})", path.display()),
                    "unmount it, and start imagectl with the rights for it (sudo)",
                )
            })?;
            let bytes = file.seek(SeekFrom::End(0)).map_err(|error| Failure::unreadable(path, &error))?;
            if bytes < image_bytes {
                return Err(too_small(bytes));
            }
            return Ok(Self { path: path.to_owned(), file, bytes, disk: Some(disk), grow_to: None });
        }
        let there = std::fs::metadata(path).map_or(0, |about| about.len());
        let bytes = size.unwrap_or(there).max(there);
        if bytes < image_bytes {
            return Err(too_small(bytes));
        }
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let file = opened.map_err(|error| Failure::unwritable(path, &error))?;
        if file.try_lock().is_err() {
            return Err(Failure::target(
                format!("{} is in use by another program", path.display()),
                "stop the virtual machine that runs from it",
            ));
        }
        Ok(Self { path: path.to_owned(), file, bytes, disk: None, grow_to: (bytes > there).then_some(bytes) })
    }

    /// The disk, where it is one.
    pub(crate) fn disk(&self) -> Option<&Disk> {
        self.disk.as_ref()
    }

    /// What is lost by writing to it: a disk always, a file where it holds something.
    pub(crate) fn erased(&self) -> Outcome<Option<Erased>> {
        if let Some(disk) = &self.disk {
            return Ok(Some(Erased::disk(disk)));
        }
        let holds = holds_something(&self.file).map_err(|error| Failure::unreadable(&self.path, &error))?;
        Ok(holds.then(|| Erased::file(&self.path)))
    }

    /// Makes a new file as large as it shall be.
    pub(crate) fn begin(&mut self) -> Outcome {
        match self.grow_to.take() {
            Some(bytes) => self.file.set_len(bytes).map_err(|error| Failure::unwritable(&self.path, &error)),
            None => Ok(()),
        }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}
