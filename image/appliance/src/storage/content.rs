//! What the file system is made with: folders with their owners, and the keys that stay in it.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Uid, chown, geteuid};
use vitalgate_layout::{account, path};

use super::StorageError;
use crate::places::Places;
use crate::state_file::replace;

/// The recovery key until it is taken away.
pub(crate) const RECOVERY_KEY: &str = "/data/appliance/recovery-key";
/// Where the file system's content is put together, in memory.
const SKELETON: &str = "/run/vitalgate-data-skeleton";

/// Folder, owner, mode.
const FOLDERS: [(&str, u32, u32); 6] = [
    (path::DAEMON_STATE, account::DAEMON.1, 0o700),
    (path::STATUS_STATE, account::STATUS.1, 0o700),
    ("/data/chrony", account::CHRONY.1, 0o750),
    (path::APPLIANCE, 0, 0o700),
    ("/data/update", 0, 0o700),
    (path::JOURNAL, 0, 0o755),
];

/// Makes folders that are missing and gives all of them their owner and mode; an update may bring new ones.
///
/// # Errors
/// When the file system refuses.
pub(crate) fn ensure_folders(places: &Places) -> io::Result<()> {
    for (folder, owner, mode) in FOLDERS {
        let folder = places.at(folder);
        match DirBuilder::new().mode(mode).create(&folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        give(&folder, owner)?;
        fs::set_permissions(&folder, fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

/// Hands a file to an account. Only root can; a test that is not root checks the rest.
///
/// # Errors
/// When the file system refuses.
pub(crate) fn give(file: &Path, owner: u32) -> io::Result<()> {
    if !geteuid().is_root() {
        return Ok(());
    }
    chown(file, Some(Uid::from_raw(owner)), Some(Gid::from_raw(owner))).map_err(io::Error::from)
}

/// The content of a new file system, in a folder of its own.
pub(super) struct Skeleton {
    root: PathBuf,
}

impl Skeleton {
    /// Puts it together; files are named by where they will be.
    pub(super) fn new(places: &Places, files: &[(&str, &[u8])]) -> Result<Self, StorageError> {
        Self::write(places.at(SKELETON), files).map_err(StorageError::Content)
    }

    fn write(root: PathBuf, files: &[(&str, &[u8])]) -> io::Result<Self> {
        match fs::remove_dir_all(&root) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let skeleton = Self { root };
        DirBuilder::new().mode(0o700).recursive(true).create(&skeleton.root)?;
        let inner = Places::under(&skeleton.root);
        DirBuilder::new().mode(0o755).create(skeleton.folder())?;
        ensure_folders(&inner)?;
        for (file, bytes) in files {
            replace(&inner.at(file), bytes, 0o600)?;
        }
        Ok(skeleton)
    }

    /// What becomes the root of the file system.
    pub(super) fn folder(&self) -> PathBuf {
        Places::under(&self.root).at(path::DATA)
    }
}

impl Drop for Skeleton {
    fn drop(&mut self) {
        // In memory only; what is left is gone with the next start.
        let _ = fs::remove_dir_all(&self.root);
    }
}
