//! Waiting for a person: a `RECOVERY` stick where storage does not open, a `PROVISION` stick whose site
//! file allows to go without a seal where there is none.

use std::fs;

use vitalgate_layout::{path, stick};

use super::disk::{self, DataPartition};
use super::key_wrap::KeyEncryptionKey;
use super::recovery_key::{RecoveryKey, RecoveryKeyError};
use super::volume::Volume;
use super::{Opened, Partition, Storage, StorageError, of_root};
use crate::state_file::replace;
use crate::stick::{Plugged, read_file};

/// Largest file with a recovery key, in bytes: a line, and what people write around it.
const RECOVERY_FILE_BYTES_MAX: u64 = 16 * 1024;

impl Storage<'_> {
    /// Waits for the stick that mends this error; gives back an error that no stick mends.
    pub(super) fn wait_for_help(&self, error: StorageError) -> Result<Opened, StorageError> {
        match error {
            StorageError::DoesNotOpen(_) => self.wait_for(stick::RECOVERY, &|stick| self.recover(stick)),
            StorageError::NoTpm | StorageError::NotSealed(_) => self.wait_for(stick::PROVISION, &|stick| self.go_without_seal(stick)),
            other => Err(other),
        }
    }

    /// Tries every stick with this label once, until one helps. What a stick gets wrong is said, and the wait goes on.
    fn wait_for(&self, label: &str, help: &dyn Fn(&Plugged) -> Result<Option<Opened>, StorageError>) -> Result<Opened, StorageError> {
        let mut tried: Option<Plugged> = None;
        loop {
            let found = self.sticks.find(label);
            if let Some(stick) = found.as_ref().filter(|stick| tried.as_ref() != Some(*stick)) {
                match help(stick) {
                    Ok(Some(opened)) => return Ok(opened),
                    Ok(None) => {}
                    Err(error) => self.say_tamper(&error)?,
                }
            }
            tried = found;
            self.sticks.pause();
        }
    }

    fn partition(&self) -> Result<DataPartition, StorageError> {
        disk::look(self.programs, &of_root(self.places)?)
    }

    /// Opens with the key of a stick and seals anew.
    fn recover(&self, stick: &Plugged) -> Result<Option<Opened>, StorageError> {
        let DataPartition::Complete(partition) = self.partition()? else { return Ok(None) };
        let mounted = self.sticks.mount(stick)?;
        let file = read_file(mounted.folder(), stick::RECOVERY_KEY, RECOVERY_FILE_BYTES_MAX)?.ok_or(RecoveryKeyError::None)?;
        let recovery = RecoveryKey::parse(&String::from_utf8_lossy(&file))?;
        let volume = self.volume(&partition);
        volume.open_by_key(recovery.text().as_bytes()).map_err(StorageError::WrongKey)?;
        Ok(Some(Opened::Recovered(self.seal_anew(&partition, &recovery))))
    }

    /// Whether the TPM opens everything from now on. That it does not is no reason to keep the data closed.
    fn seal_anew(&self, partition: &Partition, recovery: &RecoveryKey) -> bool {
        let volume = self.volume(partition);
        match volume.unseal(recovery).and_then(|()| volume.seal(recovery)).and_then(|()| self.seal_key(recovery)) {
            Ok(()) => true,
            Err(error) => {
                crate::cli::say(&error.to_string());
                false
            }
        }
    }

    /// Makes the daemon's credential anew from the copy that the recovery key opens.
    fn seal_key(&self, recovery: &RecoveryKey) -> Result<(), StorageError> {
        let mounted = (self.mount)(self.places, &Volume::mapping(self.places))?;
        let at = |file: &str| mounted.folder().join(file.trim_start_matches(path::DATA).trim_start_matches('/'));
        let copy = fs::read(at(path::KEY_COPY)).map_err(|_| StorageError::CopyDamaged)?;
        let credential = KeyEncryptionKey::unwrap(&copy, recovery)?.credential(self.programs, self.places, true)?;
        replace(&at(path::KEY_CREDENTIAL), &credential, 0o600).map_err(StorageError::Synchronise)?;
        crate::identity::seal_anew(self.programs, self.places, &at(path::IDENTITY), recovery);
        Ok(mounted.finish()?)
    }

    /// Makes storage without a seal, if the site file on the stick is signed and allows it.
    fn go_without_seal(&self, stick: &Plugged) -> Result<Option<Opened>, StorageError> {
        let DataPartition::Unfinished(partition) = self.partition()? else { return Ok(None) };
        let mounted = self.sticks.mount(stick)?;
        match (self.unsealed_allowed)(self.places, &*mounted) {
            Some(signer) => self.make_unsealed(&partition, signer).map(Some),
            None => Ok(None),
        }
    }
}
