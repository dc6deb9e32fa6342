//! The gateway's key lies in opened storage twice: what the disk damages in one copy is mended from the other, and only a key that is
//! damaged in both waits for the recovery key.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use vitalgate_layout::path;

use super::key_wrap::check_taken;
use super::volume::Volume;
use super::{Storage, StorageError};
use crate::cli::say;
use crate::state_file::replace;

/// Said where a copy had to be mended.
const WAS_MENDED: &str = "the gateway's key was damaged and is mended from its copy; if it comes again, replace the disk";

/// Said where the key itself was right: the copy may be damaged, or left by a version that did not keep it up.
const WAS_RENEWED: &str = "the copy of the gateway's key was another one and is renewed; if it comes again, replace the disk";

/// Where a file of sealed storage is while that is mounted somewhere else.
pub(super) fn inside(folder: &Path, file: &str) -> PathBuf {
    folder.join(file.trim_start_matches(path::DATA).trim_start_matches('/'))
}

/// Keeps the gateway's key; the service manager reads the first one.
pub(super) fn keep(folder: &Path, credential: &[u8]) -> io::Result<()> {
    [path::KEY_CREDENTIAL, path::KEY_CREDENTIAL_COPY].into_iter().try_for_each(|file| replace(&inside(folder, file), credential, 0o600))
}

impl Storage<'_> {
    /// Sees to it that the storage which the TPM opened can be mounted and has a key for the gateway.
    pub(super) fn ready_content(&self) -> Result<(), StorageError> {
        let mounted = (self.mount)(self.places, &Volume::mapping(self.places)).map_err(StorageError::NotMounted)?;
        self.mend_key(mounted.folder())?;
        // What was not written is mended by the next start.
        mounted.finish().unwrap_or_else(|error| say(&error.to_string()));
        Ok(())
    }

    /// The TPM is asked only where the two differ: which one is right then, nobody else knows.
    fn mend_key(&self, folder: &Path) -> Result<(), StorageError> {
        let [key, copy] = [path::KEY_CREDENTIAL, path::KEY_CREDENTIAL_COPY].map(|file| fs::read(inside(folder, file)).ok());
        if key.is_some() && key == copy {
            return Ok(());
        }
        let taken = |credential: &Vec<u8>| {
            let checked = check_taken(self.programs, path::KEY_CREDENTIAL_NAME, credential);
            checked.inspect_err(|error| say(&error.to_string())).is_ok()
        };
        if let Some(right) = key.filter(taken) {
            // A version that knew of no copy left none.
            if copy.is_some() {
                self.note(WAS_RENEWED);
            }
            // A full or read-only disk is no reason to keep a key that is right from the gateway.
            keep(folder, &right).unwrap_or_else(|error| say(&format!("the gateway's key cannot be kept twice ({error})")));
            return Ok(());
        }
        if let Some(right) = copy.filter(taken) {
            self.note(WAS_MENDED);
            return keep(folder, &right).map_err(|error| {
                say(&format!("the gateway's key cannot be mended ({error})"));
                StorageError::KeyNotTaken
            });
        }
        Err(StorageError::KeyNotTaken)
    }
}
