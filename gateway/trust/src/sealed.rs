//! A small file kept in two copies (`path` and `path.copy`), each ending in a checksum over all
//! that stands before it, so that a damaged copy is known and written anew from the other one.
//!
//! The checksum finds damage; it does not stop whoever may write the file.

use std::path::{Path, PathBuf};

use aws_lc_rs::digest;
use zeroize::Zeroizing;

use crate::file::{self, FileError, SECRET_MODE};
use crate::hex;

/// Both copies are of no use.
#[derive(Debug, thiserror::Error)]
pub enum SealedError {
    /// Reading or writing failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// No copy passes its checksum.
    #[error(
        "{path} is damaged and {copy} is damaged or missing; restore one of the two from a backup. \
         Nothing new is made in its place, since that would lock out what depends on it"
    )]
    Damaged {
        /// The first copy.
        path: PathBuf,
        /// The second copy.
        copy: PathBuf,
    },
    /// Both pass, but say different things.
    #[error("{path} and {copy} are both sound but differ; keep the one that belongs to this gateway's data and remove the other")]
    Differ {
        /// The first copy.
        path: PathBuf,
        /// The second copy.
        copy: PathBuf,
    },
}

/// How the checksum stands at the end of the file.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Seal {
    /// A last line `sha256 <hex>`.
    Line,
    /// A last member `"sha256":"<hex>"` of a JSON object whose text is the body without its closing brace.
    Json,
}

/// What to do when both copies are sound and differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WhenDifferent {
    /// The file never changes: a person has to decide.
    Refuse,
    /// The file changes, first copy first: a cut between the two leaves the first one newer.
    FirstIsNewer,
}

/// Where and how a sealed file is kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sealed<'a> {
    pub(crate) path: &'a Path,
    pub(crate) seal: Seal,
    pub(crate) when_different: WhenDifferent,
    pub(crate) bytes_max: u64,
}

/// What was found.
pub(crate) struct Found {
    /// The text before the checksum.
    pub(crate) body: Zeroizing<Vec<u8>>,
    /// The copy that was damaged or missing and has been written anew.
    pub(crate) healed: Option<PathBuf>,
}

/// The second copy's path.
pub(crate) fn copy_of(path: &Path) -> PathBuf {
    file::with_suffix(path, ".copy")
}

impl Seal {
    fn trailer(self, body: &[u8]) -> String {
        let sum = hex(digest::digest(&digest::SHA256, body).as_ref());
        match self {
            Self::Line => format!("sha256 {sum}\n"),
            Self::Json => format!(",\"sha256\":\"{sum}\"}}\n"),
        }
    }

    /// The body, when the file ends in the checksum of it.
    pub(crate) fn open(self, bytes: &[u8]) -> Option<&[u8]> {
        let body = bytes.get(..bytes.len().checked_sub(self.trailer(&[]).len())?)?;
        (bytes.get(body.len()..)? == self.trailer(body).as_bytes()).then_some(body)
    }
}

enum Copy {
    Sound(Zeroizing<Vec<u8>>),
    Damaged,
    Missing,
}

impl Sealed<'_> {
    /// Reads the file from whichever copy is sound and heals the other; `None` when neither exists.
    pub(crate) fn read(self) -> Result<Option<Found>, SealedError> {
        let copy = copy_of(self.path);
        let (body, damaged) = match (self.read_copy(self.path)?, self.read_copy(&copy)?) {
            (Copy::Missing, Copy::Missing) => return Ok(None),
            (Copy::Sound(first), Copy::Sound(second)) if first == second => (first, None),
            (Copy::Sound(first), Copy::Sound(_)) if self.when_different == WhenDifferent::FirstIsNewer => (first, Some(copy)),
            (Copy::Sound(_), Copy::Sound(_)) => return Err(SealedError::Differ { path: self.path.to_owned(), copy }),
            (Copy::Sound(first), _) => (first, Some(copy)),
            (_, Copy::Sound(second)) => (second, Some(self.path.to_owned())),
            _ => return Err(SealedError::Damaged { path: self.path.to_owned(), copy }),
        };
        if let Some(damaged) = &damaged {
            self.heal(damaged, &body);
        }
        Ok(Some(Found { body, healed: damaged }))
    }

    /// Writes both copies, the first one first. Of a file that changes, the first one counts from then on: what is in the way of
    /// the second one does not undo it.
    pub(crate) fn write(self, body: &[u8]) -> Result<(), SealedError> {
        let sealed = self.sealed(body);
        file::replace(self.path, &sealed, SECRET_MODE)?;
        let copy = copy_of(self.path);
        match file::replace(&copy, &sealed, SECRET_MODE) {
            Err(error) if self.when_different == WhenDifferent::FirstIsNewer => {
                tracing::error!(path = %copy.display(), %error, "is older than its other copy and could not be written anew");
                Ok(())
            }
            written => Ok(written?),
        }
    }

    fn sealed(self, body: &[u8]) -> Zeroizing<Vec<u8>> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(body.len() + 128));
        bytes.extend_from_slice(body);
        bytes.extend_from_slice(self.seal.trailer(body).as_bytes());
        bytes
    }

    /// A full or read-only disk must not stop a gateway that still has one sound copy.
    fn heal(self, damaged: &Path, body: &[u8]) {
        match file::replace(damaged, &self.sealed(body), SECRET_MODE) {
            Ok(()) => tracing::warn!(path = %damaged.display(), "was damaged or missing; written anew from its other copy"),
            Err(error) => tracing::error!(path = %damaged.display(), %error, "is damaged or missing and could not be written anew"),
        }
    }

    fn read_copy(self, path: &Path) -> Result<Copy, SealedError> {
        match file::read(path, self.bytes_max) {
            Ok(Some(bytes)) => Ok(self.seal.open(&bytes).map_or(Copy::Damaged, |body| Copy::Sound(Zeroizing::new(body.to_vec())))),
            Ok(None) => Ok(Copy::Missing),
            Err(FileError::TooLarge { .. }) => Ok(Copy::Damaged),
            // A bad sector must not hide the other copy.
            Err(FileError::Io { action: "read", .. }) => Ok(Copy::Damaged),
            Err(error) => Err(error.into()),
        }
    }
}
