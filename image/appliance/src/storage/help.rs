//! Waiting for a person: a `RECOVERY` stick where storage does not open, a `PROVISION` stick whose site
//! file allows to go without a seal where there is none. Meanwhile storage is opened again and again: a TPM that refused once, came
//! late or had locked itself needs nobody.

use std::cell::RefCell;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;

use vitalgate_layout::state::{Part, StateWord};
use vitalgate_layout::{path, stick};

use super::disk::{self, DataPartition};
use super::kept_key::{inside, keep};
use super::key_wrap::{KeyEncryptionKey, check_taken};
use super::recovery_key::{RecoveryKey, RecoveryKeyError};
use super::volume::{Volume, has_tpm};
use super::{Opened, Partition, Storage, StorageError, of_root};
use crate::state_file::remove;
use crate::stick::{Plugged, read_file};

/// Largest file with a recovery key, in bytes: a line, and what people write around it.
const RECOVERY_FILE_BYTES_MAX: u64 = 16 * 1024;
/// After how many looks for a stick, a second each, storage is opened again.
pub(super) const OPEN_AGAIN_LOOKS: u32 = 60;

/// What a stick does; `None`: it is not the one that helps.
type Help<'a> = &'a dyn Fn(&Plugged) -> Result<Option<Opened>, StorageError>;
/// Whether storage opens by itself meanwhile.
type Again<'a> = &'a dyn Fn() -> Result<Option<Opened>, StorageError>;

impl Storage<'_> {
    /// Waits for the stick that mends this error; gives back an error that no stick mends.
    pub(super) fn wait_for_help(&self, error: StorageError) -> Result<Opened, StorageError> {
        match error {
            StorageError::DoesNotOpen(_) | StorageError::NotMounted(_) | StorageError::KeyNotTaken => {
                let said = RefCell::new(error.to_string());
                self.wait_for(stick::RECOVERY, &|stick| self.recover(stick), &|| self.open_again(&said))
            }
            StorageError::TpmInTheWay(_) => self.wait_for(stick::RECOVERY, &|stick| self.recover(stick), &|| Ok(None)),
            StorageError::NoTpm | StorageError::NotSealed(_) => {
                self.wait_for(stick::PROVISION, &|stick| self.go_without_seal(stick), &|| Ok(None))
            }
            other => Err(other),
        }
    }

    /// Opens storage without help; `said` is what it last failed with, which is not said again.
    fn open_again(&self, said: &RefCell<String>) -> Result<Option<Opened>, StorageError> {
        let DataPartition::Complete(partition) = self.partition()? else { return Ok(None) };
        self.lift_lockout();
        match self.attach(&partition) {
            Ok(opened) => Ok(Some(opened)),
            Err(error) if error.to_string() == *said.borrow() && self.says_tamper() => Ok(None),
            Err(error) => {
                said.replace(error.to_string());
                Err(error)
            }
        }
    }

    /// Tries every stick with this label once, until one helps. What a stick gets wrong is said, and the wait goes on.
    /// `again` is asked in between whether it is needed still.
    fn wait_for(&self, label: &str, help: Help<'_>, again: Again<'_>) -> Result<Opened, StorageError> {
        let mut tried: Option<Plugged> = None;
        let mut looks: u32 = 0;
        loop {
            let found = self.sticks.find(label);
            let outcome = match found.as_ref().filter(|stick| tried.as_ref() != Some(*stick)) {
                Some(stick) => help(stick),
                None if looks >= OPEN_AGAIN_LOOKS => {
                    looks = 0;
                    again()
                }
                None => Ok(None),
            };
            match outcome {
                Ok(Some(opened)) => return Ok(opened),
                Ok(None) => {}
                Err(error) => self.say_tamper(&error)?,
            }
            tried = found;
            looks = looks.saturating_add(1);
            self.sticks.pause();
        }
    }

    fn says_tamper(&self) -> bool {
        self.states.read(Part::Data).is_some_and(|state| state.word == StateWord::Tamper)
    }

    fn partition(&self) -> Result<DataPartition, StorageError> {
        disk::look(self.programs, &of_root(self.places)?)
    }

    /// Opens with the key of a stick and seals anew.
    pub(super) fn recover(&self, stick: &Plugged) -> Result<Option<Opened>, StorageError> {
        let DataPartition::Complete(partition) = self.partition()? else { return Ok(None) };
        let mounted = self.sticks.mount(stick)?;
        let file = read_file(mounted.folder(), stick::RECOVERY_KEY, RECOVERY_FILE_BYTES_MAX)?.ok_or(RecoveryKeyError::None)?;
        let recovery = RecoveryKey::parse(&String::from_utf8_lossy(&file))?;
        let volume = self.volume(&partition);
        if Volume::mapping(self.places).exists() {
            // Opened by the TPM, and something in it is missing.
            volume.close()?;
        }
        volume.open_by_key(recovery.text().as_bytes()).map_err(StorageError::WrongKey)?;
        self.check(&volume)?;
        match self.seal_anew(&partition, &recovery) {
            Ok(sealed) => Ok(Some(Opened::Recovered(sealed))),
            Err(error) => {
                // Open, it would have the gateway started again and again with a key that it cannot read.
                volume.close()?;
                Err(error)
            }
        }
    }

    /// Whether the TPM opens everything from now on. Where it only refuses, the data is not kept closed for that.
    fn seal_anew(&self, partition: &Partition, recovery: &RecoveryKey) -> Result<bool, StorageError> {
        let volume = self.volume(partition);
        volume.unseal(recovery)?;
        match self.renew_keys(recovery, true) {
            // The seal comes last, so that a power cut before it asks for the stick again: storage that opens by itself would
            // leave the gateway with keys of another TPM for good.
            Ok(()) => Ok(volume.seal(recovery).inspect_err(|error| crate::cli::say(&error.to_string())).is_ok()),
            Err(StorageError::NotSealed(refusal)) => match self.renew_keys(recovery, false) {
                Ok(()) => {
                    crate::cli::say(&refusal.to_string());
                    Ok(false)
                }
                Err(error) => {
                    crate::cli::say(&error.to_string());
                    Err(StorageError::NotSealed(refusal))
                }
            },
            Err(other) => Err(other),
        }
    }

    /// Makes the daemon's credentials anew from the copies that the recovery key opens. Those without a seal are no weaker
    /// than the storage that they lie in: nothing but the recovery key opens that then.
    fn renew_keys(&self, recovery: &RecoveryKey, sealed: bool) -> Result<(), StorageError> {
        let mounted = (self.mount)(self.places, &Volume::mapping(self.places))?;
        let at = |file: &str| inside(mounted.folder(), file);
        if !sealed && at(path::IDENTITY).exists() {
            // That credential is made with a seal only; the gateway does not start without it.
            return Err(StorageError::ClientKeyNotSealed);
        }
        let copy = fs::read(at(path::KEY_COPY)).map_err(|_| StorageError::CopyDamaged)?;
        let credential = KeyEncryptionKey::unwrap(&copy, recovery)?.credential(self.programs, self.places, sealed)?;
        keep(mounted.folder(), &credential).map_err(StorageError::Synchronise)?;
        if sealed {
            crate::identity::seal_anew(self.programs, self.places, &at(path::IDENTITY), recovery);
        }
        Ok(mounted.finish()?)
    }

    /// Opens storage without a seal. A TPM that was switched on since seals it: beside a TPM the service manager may take no key
    /// without a seal, and the gateway would not start.
    pub(super) fn open_by_key_beside(&self, partition: &Partition, key: &str) -> Result<Opened, StorageError> {
        let volume = self.volume(partition);
        volume.open_by_key(key.as_bytes()).map_err(StorageError::DoesNotOpen)?;
        self.check(&volume)?;
        if !has_tpm(self.places) {
            self.ready_gateway_s_key(key)?;
            return Ok(Opened::Unsealed(None));
        }
        match self.seal_since(partition, key) {
            Ok(true) => Ok(self.without_key_beside(Opened::SealedSince)),
            Ok(false) => Ok(Opened::Unsealed(None)),
            Err(error) if self.gateway_has_its_key().is_ok() => {
                crate::cli::say(&error.to_string());
                Ok(Opened::Unsealed(None))
            }
            Err(error) => {
                volume.close()?;
                Err(StorageError::TpmInTheWay(error.to_string()))
            }
        }
    }

    /// Whether the TPM opens it from now on, which it shows before anybody relies on it.
    fn seal_since(&self, partition: &Partition, key: &str) -> Result<bool, StorageError> {
        let volume = self.volume(partition);
        if !self.seal_anew(partition, &RecoveryKey::parse(key)?)? {
            return Ok(false);
        }
        volume.close()?;
        let shown = volume.attach();
        if shown.is_err() {
            volume.open_by_key(key.as_bytes()).map_err(StorageError::DoesNotOpen)?;
        }
        shown.map(|()| true)
    }

    /// Gives the gateway a key that opens here, where the one that it has was sealed to a TPM that is off or gone.
    fn ready_gateway_s_key(&self, key: &str) -> Result<(), StorageError> {
        match self.gateway_has_its_key() {
            // There is none before the first service.
            Ok(()) | Err(StorageError::Content(_)) => Ok(()),
            Err(_) => {
                if let Err(error) = self.renew_keys(&RecoveryKey::parse(key)?, false) {
                    crate::cli::say(&error.to_string());
                }
                Ok(())
            }
        }
    }

    /// Whether the service manager takes the key that lies in opened storage for the gateway.
    fn gateway_has_its_key(&self) -> Result<(), StorageError> {
        let mounted = (self.mount)(self.places, &Volume::mapping(self.places))?;
        let credential = fs::read(inside(mounted.folder(), path::KEY_CREDENTIAL)).map_err(StorageError::Content)?;
        check_taken(self.programs, path::KEY_CREDENTIAL_NAME, &credential)
    }

    /// Takes the key beside storage away, since the TPM opens it. While that key stays, storage is as good as not sealed.
    pub(super) fn without_key_beside(&self, opened: Opened) -> Opened {
        let key = self.places.at(path::UNSEALED_KEY);
        match erase_key(&key) {
            Ok(()) => opened,
            Err(error) => {
                crate::cli::say(&format!("the key beside the storage cannot be removed ({error})"));
                Opened::Unsealed(None)
            }
        }
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

/// Takes a key away, and what it was from the free space of the disk.
///
/// # Errors
/// When it stays, or may be left there.
pub(crate) fn erase_key(key: &Path) -> io::Result<()> {
    let mut opened = match OpenOptions::new().write(true).open(key) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    let bytes = usize::try_from(opened.metadata()?.len().min(RECOVERY_FILE_BYTES_MAX)).unwrap_or(0);
    opened.write_all(&vec![0; bytes])?;
    opened.sync_all()?;
    remove(key)
}
