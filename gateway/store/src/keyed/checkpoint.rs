//! Makes certain that what sled wrote is on disk.
//!
//! sled's own flush only starts the writing of the pages (`sync_file_range`) and never syncs `conf`
//! or the folders. So after each flush the file `db` is synced through a second handle, and once
//! after opening every file and every folder is.

use std::fs::File;
use std::io;
use std::path::Path;

/// How files and folders are synced; tests put their own counter or failure here.
pub trait DiskSync: Send + Sync {
    /// The data of a file, and what is needed to read it back.
    ///
    /// # Errors
    /// When the disk refuses.
    fn sync_data(&self, path: &Path) -> io::Result<()>;

    /// A file or folder with everything about it.
    ///
    /// # Errors
    /// When the disk refuses.
    fn sync_all(&self, path: &Path) -> io::Result<()>;
}

/// The real thing: `fdatasync` and `fsync` through a handle of its own.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealSync;

impl DiskSync for RealSync {
    fn sync_data(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_data()
    }

    fn sync_all(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }
}

/// sled's data file.
pub(super) const DB: &str = "db";
/// sled's folder for values that do not fit a segment; it must stay empty.
pub(super) const BLOBS: &str = "blobs";
/// Deepest folder below the store; sled makes one level.
const DEPTH_MAX: usize = 3;

/// Syncs every file and folder of the store and the folder that it lies in.
pub(super) fn sync_everything(sync: &dyn DiskSync, dir: &Path) -> io::Result<()> {
    sync_below(sync, dir, DEPTH_MAX)?;
    dir.parent().map_or(Ok(()), |parent| sync.sync_all(parent))
}

fn sync_below(sync: &dyn DiskSync, dir: &Path, depth: usize) -> io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            if depth > 0 {
                sync_below(sync, &entry.path(), depth - 1)?;
            }
        } else {
            sync.sync_all(&entry.path())?;
        }
    }
    sync.sync_all(dir)
}

/// Whether sled has put a value outside its segments, from where it would not come back.
pub(super) fn has_blobs(dir: &Path) -> io::Result<bool> {
    match std::fs::read_dir(dir.join(BLOBS)) {
        Ok(mut entries) => Ok(entries.next().is_some()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
