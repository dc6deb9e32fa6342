//! What the file system is made with: folders with their owners, and the keys that stay in it.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Uid, chown, geteuid};
use vitalgate_layout::{account, path};

use super::StorageError;
use crate::places::Places;
use crate::state_file::replace;

/// Where the file system's content is put together, in memory.
const SKELETON: &str = "/run/vitalgate-data-skeleton";

/// Folder, owner, mode.
const FOLDERS: [(&str, u32, u32); 7] = [
    (path::DAEMON_STATE, account::DAEMON.1, 0o700),
    (path::STATUS_STATE, account::STATUS.1, 0o700),
    ("/data/chrony", account::CHRONY.1, 0o750),
    (path::APPLIANCE, 0, 0o700),
    // Bundles are no secret: whoever installs them is another account than the one that fetches.
    (path::FETCH, account::FETCH.1, 0o755),
    ("/data/update", 0, 0o700),
    (path::JOURNAL, 0, 0o755),
];

/// Makes folders that are missing and gives all of them their owner and mode; an update may bring new ones.
///
/// # Errors
/// When the file system refuses.
pub(crate) fn ensure_folders(places: &Places) -> io::Result<()> {
    FOLDERS.into_iter().try_for_each(|(folder, owner, mode)| {
        let folder = places.at(folder);
        make(&folder, mode)?;
        give(&folder, owner, mode)
    })
}

fn make(folder: &Path, mode: u32) -> io::Result<()> {
    match DirBuilder::new().mode(mode).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Gives a folder its owner and mode. A mode is the owner's to change, also for root where that is its only
/// right; a power cut in between leaves the folder root's, and the next start goes on from there.
fn give(folder: &Path, owner: u32, mode: u32) -> io::Result<()> {
    let known = fs::symlink_metadata(folder)?;
    if !known.is_dir() {
        return Err(io::Error::new(io::ErrorKind::NotADirectory, format!("{} is no folder", folder.display())));
    }
    // Only root gives anything away; a test that is not root sees the modes.
    let root = geteuid().is_root();
    if known.permissions().mode() & 0o7777 != mode {
        if root && known.uid() != 0 {
            own(folder, 0)?;
        }
        fs::set_permissions(folder, fs::Permissions::from_mode(mode))?;
    }
    let known = fs::symlink_metadata(folder)?;
    if root && (known.uid(), known.gid()) != (owner, owner) {
        own(folder, owner)?;
    }
    Ok(())
}

fn own(folder: &Path, owner: u32) -> io::Result<()> {
    chown(folder, Some(Uid::from_raw(owner)), Some(Gid::from_raw(owner))).map_err(io::Error::from)
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
        // Those of other accounts are made when they can be given away.
        let own = FOLDERS.iter().filter(|(_, owner, _)| *owner == 0);
        own.into_iter().try_for_each(|(folder, _, mode)| make(&inner.at(folder), *mode))?;
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever a power cut or an older version left, each folder is its account's afterwards, with its mode.
    #[test]
    fn folders_are_given_to_their_accounts() {
        let folder = tempfile::tempdir().unwrap();
        let places = Places::under(folder.path());
        fs::create_dir_all(places.at(path::DATA)).unwrap();
        let owned = || {
            for (folder, owner, mode) in FOLDERS {
                let known = fs::metadata(places.at(folder)).unwrap();
                assert_eq!(known.permissions().mode() & 0o7777, mode, "{folder}");
                assert!(!geteuid().is_root() || (known.uid(), known.gid()) == (owner, owner), "{folder}");
            }
        };
        ensure_folders(&places).unwrap();
        owned();
        let daemon = places.at(path::DAEMON_STATE);
        fs::set_permissions(&daemon, fs::Permissions::from_mode(0o755)).unwrap();
        fs::remove_dir(places.at(path::FETCH)).unwrap();
        if geteuid().is_root() {
            own(&places.at(path::STATUS_STATE), 0).unwrap();
        }
        ensure_folders(&places).unwrap();
        owned();
    }

    /// A link in place of a folder gives nothing away.
    #[test]
    fn a_link_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let places = Places::under(folder.path());
        fs::create_dir_all(places.at(path::DATA)).unwrap();
        std::os::unix::fs::symlink("/", places.at(path::DAEMON_STATE)).unwrap();
        assert!(ensure_folders(&places).is_err());
    }
}
