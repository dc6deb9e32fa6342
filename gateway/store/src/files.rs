//! The file-system seam: everything the journal does to a disk goes through [`FileSystem`], so that
//! a test can take the power away between any two steps.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

mod real;

#[cfg(any(test, feature = "fault-injection"))]
pub mod forgetful;

pub use real::RealFiles;

/// What a disk that fails is read in, in bytes: a page, which can also be written without being read.
const PAGE_BYTES: usize = 4096;
/// Most pages of a file that the disk may be unable to read: each may take it seconds, and with more of them it is at its end.
const UNREAD_PAGES_MAX: usize = 256;

/// One open file. All positions and lengths are in bytes.
pub trait StoredFile: Send + Sync {
    /// Reads at a position; fewer bytes than asked for only at the end of the file.
    ///
    /// # Errors
    /// When the disk fails.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all bytes at a position, extending the file where needed.
    ///
    /// # Errors
    /// When the disk fails or is full; a part may have been written.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Cuts or extends (with zeros) to this length.
    ///
    /// # Errors
    /// When the disk fails or is full.
    fn set_len(&self, bytes: u64) -> io::Result<()>;

    /// The length.
    ///
    /// # Errors
    /// When the disk fails.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file has no bytes.
    ///
    /// # Errors
    /// When the disk fails.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// `fdatasync`: the data, and what is needed to read it back, are on disk afterwards.
    ///
    /// # Errors
    /// When the disk fails. What was written before may then be lost: it must not be tried again.
    fn sync_data(&self) -> io::Result<()>;

    /// `fsync`: data and all metadata.
    ///
    /// # Errors
    /// As [`StoredFile::sync_data`].
    fn sync_all(&self) -> io::Result<()>;
}

/// An exclusive claim on a folder, held until it is dropped.
pub trait FolderClaim: Send + Sync {}

/// The operations of a file system that the store uses.
pub trait FileSystem: Send + Sync {
    /// Makes a folder and those above it, readable by the owner only. Not durable before
    /// [`FileSystem::sync_dir`] of the folder above.
    ///
    /// # Errors
    /// When the disk fails.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;

    /// Makes a new empty file with mode 0600, in place of one that may be there.
    ///
    /// # Errors
    /// When the disk fails or is full.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn StoredFile>>;

    /// Opens a file for reading and writing.
    ///
    /// # Errors
    /// When it is not there or the disk fails.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn StoredFile>>;

    /// Moves a file to another name, atomically replacing what is there. Not durable before
    /// [`FileSystem::sync_dir`].
    ///
    /// # Errors
    /// When it is not there or the disk fails.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file. Not durable before [`FileSystem::sync_dir`].
    ///
    /// # Errors
    /// When it is not there or the disk fails.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Removes a folder with everything in it; one that is not there is no error.
    ///
    /// # Errors
    /// When the disk fails.
    fn remove_dir_all(&self, dir: &Path) -> io::Result<()>;

    /// The names of the plain files in a folder, sorted; a folder that is not there has none.
    ///
    /// # Errors
    /// When the disk fails.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Whether anything, file or folder, is in a folder.
    ///
    /// # Errors
    /// When the disk fails.
    fn holds_anything(&self, dir: &Path) -> io::Result<bool>;

    /// `fsync` of a folder: the names in it are on disk afterwards.
    ///
    /// # Errors
    /// When the disk fails.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Bytes that may still be written to the file system that holds this folder.
    ///
    /// # Errors
    /// When the disk fails.
    fn free_space(&self, dir: &Path) -> io::Result<u64>;

    /// Claims a folder for this process alone, by a lock file in it.
    ///
    /// # Errors
    /// `WouldBlock` when another process holds it.
    fn claim(&self, dir: &Path) -> io::Result<Box<dyn FolderClaim>>;
}

/// Reads a whole file of at most `bytes_max`; a longer one is cut there.
///
/// # Errors
/// When it is not there or the disk fails.
pub(crate) fn read_up_to(files: &dyn FileSystem, path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
    let file = files.open(path)?;
    let length = usize::try_from(file.len()?).unwrap_or(usize::MAX).min(bytes_max);
    let mut bytes = vec![0; length];
    let read = read_full(file.as_ref(), &mut bytes, 0)?;
    bytes.truncate(read);
    Ok(bytes)
}

/// What of a file the disk cannot read, in bytes; whole pages, but for the end of the file.
pub(crate) type Unread = Vec<Range<usize>>;

/// The same where the disk cannot read a part: there are zeros, and which parts they are is said.
///
/// # Errors
/// When it is not there, or the disk fails altogether.
pub(crate) fn read_salvaging(files: &dyn FileSystem, path: &Path, bytes_max: usize) -> io::Result<(Vec<u8>, Unread)> {
    let file = files.open(path)?;
    let length = usize::try_from(file.len()?).unwrap_or(usize::MAX).min(bytes_max);
    let mut bytes = vec![0; length];
    let (mut filled, mut unread) = (0, Unread::new());
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        let (read, ended) = read_as_far(file.as_ref(), rest, filled as u64);
        filled += read;
        match ended {
            Ok(()) => break,
            Err(error) if is_bad_place(&error) && unread.len() < UNREAD_PAGES_MAX => {
                let page = filled - filled % PAGE_BYTES..(filled / PAGE_BYTES + 1) * PAGE_BYTES;
                let page = page.start..page.end.min(length);
                bytes.get_mut(page.clone()).into_iter().for_each(|bytes| bytes.fill(0));
                filled = page.end;
                unread.push(page);
            }
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok((bytes, unread))
}

/// Whether the disk cannot read this place, and others perhaps can be read.
pub(crate) fn is_bad_place(error: &io::Error) -> bool {
    error.raw_os_error() == Some(nix::errno::Errno::EIO as i32)
}

/// Reads until the buffer is full or the file ends.
///
/// # Errors
/// When the disk fails.
pub(crate) fn read_full(file: &dyn StoredFile, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let (filled, ended) = read_as_far(file, buffer, offset);
    ended.map(|()| filled)
}

/// The same, and says how much was read also where the disk fails: what stands before a bad place is whole.
pub(crate) fn read_as_far(file: &dyn StoredFile, buffer: &mut [u8], offset: u64) -> (usize, io::Result<()>) {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (filled, Err(error)),
        }
    }
    (filled, Ok(()))
}

/// Replaces a small file so that after a power cut either the old or the new content is there.
///
/// # Errors
/// When the disk fails or is full; then the old content is untouched.
pub(crate) fn replace(files: &dyn FileSystem, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let fresh = PathBuf::from(format!("{}.new", path.display()));
    let file = files.create(&fresh)?;
    file.write_all_at(bytes, 0)?;
    file.sync_all()?;
    files.rename(&fresh, path)?;
    files.sync_dir(path.parent().unwrap_or(path))
}

/// Fills a file with zeros by writing them, so that its blocks are allocated and written and a
/// later `fdatasync` has no metadata to commit (`fallocate` leaves unwritten extents, whose first
/// write costs a metadata commit: 535 against 382 us per commit where this was tried).
///
/// # Errors
/// When the disk fails or is full.
pub(crate) fn fill_with_zeros(file: &dyn StoredFile, from: u64, until: u64) -> io::Result<()> {
    const CHUNK_BYTES: usize = 1024 * 1024;
    let zeros = vec![0; CHUNK_BYTES];
    let mut offset = from;
    while offset < until {
        let step = usize::try_from(until - offset).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
        file.write_all_at(zeros.get(..step).unwrap_or_default(), offset)?;
        offset += step as u64;
    }
    Ok(())
}
