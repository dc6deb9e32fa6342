//! Makes certain that what sled wrote is on disk.
//!
//! sled's own flush only starts the writing of the pages (`sync_file_range`) and never syncs `conf`
//! or the folders. So after each flush the file `db` is synced through a second handle, and once
//! after opening every file and every folder is.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use super::layout::{decode_watermark, encode_watermark, take_u32};
use super::room::free_bytes;
use crate::copy::Watermark;

/// How files and folders are synced, and how much space is left; tests put their own counter or failure here.
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

    /// Bytes that may still be written to the file system that holds this folder.
    ///
    /// # Errors
    /// When the disk does not tell.
    fn free_space(&self, dir: &Path) -> io::Result<u64> {
        free_bytes(dir)
    }
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

/// Beside sled's files: how far the store was certain at the last checkpoint. A damaged `db` can open
/// as an older store; this tells.
pub(super) const NOTE: &str = "checkpoint";

/// What the note of the last checkpoint says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Note {
    /// There is none yet.
    None,
    /// Everything up to here was certain.
    Certain(Watermark),
    /// It does not read.
    Damaged,
}

/// Replaces the note in one step; only after what it says is true.
pub(super) fn write_note(sync: &dyn DiskSync, dir: &Path, certain: Watermark) -> io::Result<()> {
    let mut bytes = encode_watermark(certain).to_vec();
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_be_bytes());
    let new = dir.join("checkpoint.new");
    fs::write(&new, bytes)?;
    sync.sync_all(&new)?;
    fs::rename(&new, dir.join(NOTE))?;
    sync.sync_all(dir)
}

/// Reads the note.
pub(super) fn read_note(dir: &Path) -> io::Result<Note> {
    let bytes = match fs::read(dir.join(NOTE)) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Note::None),
        Err(error) => return Err(error),
    };
    let (body, checksum) = bytes.split_at(bytes.len().min(16));
    let whole = checksum.len() == 4 && take_u32(checksum, 0) == Some(crc32c::crc32c(body));
    Ok(decode_watermark(body).filter(|_| whole).map_or(Note::Damaged, Note::Certain))
}
