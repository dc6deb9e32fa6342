//! The few things that are ever done to the EFI system partition, each one step.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

/// What a change of the EFI system partition is made of. Paths are relative to it, with `/`.
///
/// Each call is one step: a power cut comes between two of them. A rename inside one folder is one
/// sector there (FAT, 512 bytes, 16 entries; the folder of the boot entries never holds more), so it
/// is whole or not there at all.
pub(crate) trait Disk {
    /// File names in a folder; none where there is no folder.
    ///
    /// # Errors
    /// When the folder cannot be read.
    fn names(&self, folder: &str) -> io::Result<Vec<String>>;
    /// Opens a file for reading.
    ///
    /// # Errors
    /// When there is none, or it cannot be read.
    fn open(&self, file: &str) -> io::Result<File>;
    /// Writes a new file and its bytes to the disk.
    ///
    /// # Errors
    /// When there is no room, or the disk fails.
    fn write(&self, file: &str, from: &mut dyn io::Read) -> io::Result<()>;
    /// Gives a file another name, in place of one that is there.
    ///
    /// # Errors
    /// When the disk fails.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file; one that is not there is removed already.
    ///
    /// # Errors
    /// When the disk fails.
    fn remove(&self, file: &str) -> io::Result<()>;
    /// Makes what was done to a folder's names outlast a power cut.
    ///
    /// # Errors
    /// When the disk fails.
    fn sync(&self, folder: &str) -> io::Result<()>;
}

/// A mounted EFI system partition.
#[derive(Debug, Clone)]
pub(crate) struct Mounted {
    root: PathBuf,
}

impl Mounted {
    /// The one mounted there.
    pub(crate) fn at(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }
}

impl Disk for Mounted {
    fn names(&self, folder: &str) -> io::Result<Vec<String>> {
        let listed = match fs::read_dir(self.root.join(folder)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            listed => listed?,
        };
        let mut names = Vec::new();
        for entry in listed {
            // A name that is no text is none of ours.
            names.extend(entry?.file_name().into_string().ok());
        }
        names.sort();
        Ok(names)
    }

    fn open(&self, file: &str) -> io::Result<File> {
        File::open(self.root.join(file))
    }

    fn write(&self, file: &str, from: &mut dyn io::Read) -> io::Result<()> {
        let path = self.root.join(file);
        fs::create_dir_all(path.parent().unwrap_or(&self.root))?;
        let mut opened = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
        io::copy(from, &mut opened)?;
        opened.sync_all()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let file = File::open(self.root.join(from))?;
        fs::rename(self.root.join(from), self.root.join(to))?;
        // vfat gives the new name a length of 0 until the file itself is written: a power cut before that
        // leaves an empty kernel image.
        file.sync_all()
    }

    fn remove(&self, file: &str) -> io::Result<()> {
        match fs::remove_file(self.root.join(file)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn sync(&self, folder: &str) -> io::Result<()> {
        File::open(self.root.join(folder))?.sync_all()
    }
}
