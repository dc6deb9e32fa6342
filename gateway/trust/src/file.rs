//! Files that are either wholly old or wholly new, readable by their owner only.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, fchown, lchown};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

#[cfg(test)]
use crate::power_cut::{Step, note};

/// Mode of everything that holds a secret.
pub(crate) const SECRET_MODE: u32 = 0o600;
/// Mode of what everyone may know.
pub(crate) const PUBLIC_MODE: u32 = 0o644;
const DIRECTORY_MODE: u32 = 0o700;

/// A file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The operating system refused.
    #[error("cannot {action} {path}; check that the folder exists, has space, and that the gateway's user may use it")]
    Io {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// The operating system's answer.
        #[source]
        source: io::Error,
    },
    /// Larger than such a file can be.
    #[error("{path} has more than {bytes_max} bytes and is not such a file; put the right file there")]
    TooLarge {
        /// Where.
        path: PathBuf,
        /// The limit in bytes.
        bytes_max: u64,
    },
}

fn failed<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> FileError + 'a {
    move |source| FileError::Io { action, path: path.to_owned(), source }
}

/// Reads a whole file of at most `bytes_max` bytes; `None` when there is none.
pub(crate) fn read(path: &Path, bytes_max: u64) -> Result<Option<Zeroizing<Vec<u8>>>, FileError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("open", path)(error)),
    };
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(failed("read", path))?;
    if bytes.len() as u64 > bytes_max {
        return Err(FileError::TooLarge { path: path.to_owned(), bytes_max });
    }
    Ok(Some(bytes))
}

/// Replaces a file so that after any power cut it is wholly old or wholly new.
pub(crate) fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<(), FileError> {
    let temporary = with_suffix(path, ".new");
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("remove", &temporary)(error)),
        _ => {}
    }
    #[cfg(test)]
    note(Step::Removed(temporary.clone()));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary).map_err(failed("create", &temporary))?;
    belong_to_the_folder(&file, path);
    #[cfg(test)]
    note(Step::Created(temporary.clone()));
    file.write_all(bytes).map_err(failed("write", &temporary))?;
    #[cfg(test)]
    note(Step::Written(temporary.clone(), bytes.to_vec()));
    sync_file(&file, &temporary)?;
    fs::rename(&temporary, path).map_err(failed("replace", path))?;
    #[cfg(test)]
    note(Step::Renamed(temporary, path.to_owned()));
    sync_directory(parent(path))
}

/// Creates a folder for the owner only, with what lies above it, durably.
pub(crate) fn create_directory(path: &Path) -> Result<(), FileError> {
    if path.is_dir() {
        return Ok(());
    }
    create_directory(parent(path))?;
    match DirBuilder::new().mode(DIRECTORY_MODE).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        made => made.map_err(failed("create", path))?,
    }
    #[cfg(test)]
    note(Step::FolderMade(path.to_owned()));
    if let (Ok(own), Ok(above)) = (fs::symlink_metadata(path), fs::metadata(parent(path)))
        && own.uid() != above.uid()
    {
        // Only root may; for anyone else the owner stays.
        let _ = lchown(path, Some(above.uid()), Some(above.gid()));
    }
    sync_directory(parent(path))
}

/// What root makes on the command line must stay usable for the gateway's own user, who owns the folder.
fn belong_to_the_folder(file: &File, path: &Path) {
    if let (Ok(own), Ok(folder)) = (file.metadata(), fs::metadata(parent(path)))
        && own.uid() != folder.uid()
    {
        // Only root may; for anyone else the owner stays.
        let _ = fchown(file, Some(folder.uid()), Some(folder.gid()));
    }
}

/// One process at a time changes what lies beside the lock; dropping the file releases it.
pub(crate) fn lock(path: &Path) -> Result<File, FileError> {
    // Only a file that this call made is given to the folder's owner: an existing one may be a link.
    let file = match OpenOptions::new().write(true).create_new(true).mode(SECRET_MODE).open(path) {
        Ok(file) => {
            belong_to_the_folder(&file, path);
            file
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            OpenOptions::new().write(true).open(path).map_err(failed("open", path))?
        }
        Err(error) => return Err(failed("create", path)(error)),
    };
    file.lock().map_err(failed("lock", path))?;
    Ok(file)
}

/// The folder that a file lies in.
pub(crate) fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The path with something appended to its last part.
pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn sync_file(file: &File, path: &Path) -> Result<(), FileError> {
    file.sync_all().map_err(failed("write", path))?;
    #[cfg(test)]
    note(Step::FileSynced(path.to_owned()));
    Ok(())
}

fn sync_directory(path: &Path) -> Result<(), FileError> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(failed("sync the folder", path))?;
    #[cfg(test)]
    note(Step::FolderSynced(path.to_owned()));
    Ok(())
}
