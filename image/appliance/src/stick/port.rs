//! Sticks as the steps see them; tests put folders in their place.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::command::CommandError;

/// A stick that is plugged in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plugged {
    /// Its label.
    pub(crate) label: String,
    /// Its device.
    pub(crate) device: PathBuf,
    /// Tells one plugging from the next (nanoseconds when its link was made).
    pub(crate) moment: i64,
}

/// Why a stick cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StickError {
    /// Not mounted.
    #[error("{device} cannot be mounted ({reason}); format the stick as FAT with the right label and copy the file again")]
    Mount {
        /// The device.
        device: PathBuf,
        /// Why.
        reason: io::Error,
    },
    /// Not writable.
    #[error("the stick cannot be written to ({0}); open the write protection or take another stick")]
    NotWritable(io::Error),
    /// Not there any more.
    #[error("the stick was pulled before it had everything")]
    Pulled,
    /// A file cannot be read.
    #[error("{name} cannot be read from the stick ({reason}); copy it again and eject the stick before pulling it")]
    Read {
        /// The file.
        name: String,
        /// Why.
        reason: io::Error,
    },
    /// A file has more bytes than any of its kind.
    #[error("{name} has more than {bytes_max} bytes; check that the right file was copied")]
    TooLarge {
        /// The file.
        name: String,
        /// The limit.
        bytes_max: u64,
    },
    /// A program that is needed failed.
    #[error(transparent)]
    Program(#[from] CommandError),
}

/// Where sticks come from.
pub(crate) trait Sticks {
    /// The stick with this label, if it is plugged in.
    fn find(&self, label: &str) -> Option<Plugged>;

    /// Mounts a stick: vfat, no devices, no programs.
    ///
    /// # Errors
    /// When it is no such file system.
    fn mount(&self, stick: &Plugged) -> Result<Box<dyn Mounted>, StickError>;

    /// Waits a moment before looking again.
    fn pause(&self);
}

/// A mounted stick; unmounted when dropped.
pub(crate) trait Mounted {
    /// Where its files are.
    fn folder(&self) -> &Path;

    /// Whether it takes files.
    ///
    /// # Errors
    /// When the stick is protected.
    fn check_writable(&self) -> Result<(), StickError>;

    /// Waits until the stick has everything and lets go of it.
    ///
    /// # Errors
    /// When the stick did not take what was written.
    fn finish(self: Box<Self>) -> Result<(), StickError>;
}

/// Reads a file of a fixed name from a mounted stick; `None` when there is none.
///
/// # Errors
/// When it is no plain file, is too large or cannot be read.
pub(crate) fn read_file(folder: &Path, name: &str, bytes_max: u64) -> Result<Option<Vec<u8>>, StickError> {
    let cannot = |reason| StickError::Read { name: name.to_owned(), reason };
    let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK | nix::libc::O_CLOEXEC;
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(folder.join(name)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(cannot(error)),
    };
    if !file.metadata().map_err(cannot)?.is_file() {
        return Err(cannot(io::Error::other("it is no file")));
    }
    let mut bytes = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > bytes_max {
        return Err(StickError::TooLarge { name: name.to_owned(), bytes_max });
    }
    Ok(Some(bytes))
}

/// Writes a file to a mounted, writable stick and waits until the stick has it.
///
/// # Errors
/// When the stick does not take it.
pub(crate) fn write_file(file: &Path, bytes: &[u8]) -> Result<(), StickError> {
    let write = || {
        if let Some(folder) = file.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let mut opened = File::create(file)?;
        io::Write::write_all(&mut opened, bytes)?;
        opened.sync_all()
    };
    write().map_err(StickError::NotWritable)
}
