//! Sealed storage: the data partition, made at the first boot and opened at every later one.
//!
//! The partition's name in the table says which of three conditions holds, and only the last step of
//! making it changes `data-new` to `data`:
//!
//! 1. absent: a partition `data-new` is added over the rest of the disk;
//! 2. `data-new`: whatever it holds was never used; it is made from the beginning: LUKS2 with the
//!    recovery key, sealed to the TPM, opened *by the TPM*, ext4 with its folders and keys, all of it
//!    synchronised, then renamed;
//! 3. `data`: complete. It is opened or it is not; no way leads from here back to making it, except
//!    the signed request of a `RESET` stick, which renames it.
//!
//! So a power cut at any moment leaves a condition that the next start finishes, and a full partition
//! that does not open (another TPM, a damaged header) is never taken for an empty one.

mod check;
mod content;
mod disk;
mod error;
mod help;
mod kept_key;
pub(crate) mod key_wrap;
mod lockout;
mod recovery_key;
mod tpm;
mod volume;

#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use vitalgate_layout::state::{Part, StateWord};
use vitalgate_layout::{fact, partition, path};
use zeroize::Zeroizing;

use crate::command::{Programs, System};
use crate::places::Places;
use crate::state_file::{Said, StateFiles};
use crate::stick::{ManagedSticks, Mounted, StickError, Sticks};

pub(crate) use check::CHECKS_DEADLINE_S;
pub(crate) use disk::{Partition, of_root};
pub(crate) use error::StorageError;
pub(crate) use help::erase_key;
pub(crate) use recovery_key::RecoveryKey;
pub(crate) use volume::has_tpm;

use check::IS_DAMAGED;
use content::{Skeleton, ensure_folders};
use disk::{DataPartition, rename};
use key_wrap::KeyEncryptionKey;
use volume::Volume;

/// How often a new device is looked for before giving up; each look waits for a moment.
const DEVICE_LOOKS_MAX: u32 = 30;
/// Said while the file system is looked at; with damage on a large disk that takes minutes.
const CHECKING: &str = "looking at the file system of the sealed storage";

/// Opens it; at the first boot makes it. Waits for a stick where only a person can help.
pub(crate) fn open() -> anyhow::Result<ExitCode> {
    let places = Places::system();
    let storage = Storage {
        programs: &System,
        places: &places,
        states: StateFiles::of(&places),
        sticks: &ManagedSticks::of(&places),
        mount: &crate::stick::mount_data,
        unsealed_allowed: &signed_leave,
        found: Cell::default(),
    };
    storage.open_or_wait()?;
    Ok(ExitCode::SUCCESS)
}

/// Gives the folders of opened storage to their accounts.
pub(crate) fn folders() -> anyhow::Result<ExitCode> {
    ensure_folders(&Places::system()).context("the folders on sealed storage cannot be made; restart the appliance")?;
    Ok(ExitCode::SUCCESS)
}

/// The data partition, complete or not.
///
/// # Errors
/// When the disk or its table cannot be read.
pub(crate) fn data_partition(places: &Places, programs: &dyn Programs) -> Result<Option<Partition>, StorageError> {
    Ok(match disk::look(programs, &of_root(places)?)? {
        DataPartition::Absent => None,
        DataPartition::Unfinished(partition) | DataPartition::Complete(partition) => Some(partition),
    })
}

/// Calls the data partition unfinished: the next start makes it anew.
///
/// # Errors
/// When it keeps its name.
pub(crate) fn give_up(programs: &dyn Programs, partition: &Partition) -> Result<(), StorageError> {
    // The table may have been written although the program complains.
    let is_unfinished = || matches!(disk::look(programs, &partition.disk), Ok(DataPartition::Unfinished(_)));
    rename(programs, partition, partition::DATA_UNFINISHED).or_else(|error| if is_unfinished() { Ok(()) } else { Err(error) })
}

/// Who signed the site file on a stick, if it allows to go without a seal.
fn signed_leave(places: &Places, stick: &dyn Mounted) -> Option<String> {
    let roots = crate::machine::site_roots(places).ok()?;
    let (site, signed_by) = crate::provision::read_site(places, stick.folder(), &roots).ok()?;
    site.storage.unsealed_allowed.then(|| signed_by.to_string())
}

/// Mounts the opened volume for a moment.
type MountData<'a> = &'a dyn Fn(&Places, &Path) -> Result<Box<dyn Mounted>, StickError>;
/// Who signed that storage may go without a seal, by a site file on a mounted stick.
type UnsealedAllowed<'a> = &'a dyn Fn(&Places, &dyn Mounted) -> Option<String>;

/// The step with what it works on.
struct Storage<'a> {
    programs: &'a dyn Programs,
    places: &'a Places,
    states: StateFiles,
    sticks: &'a dyn Sticks,
    mount: MountData<'a>,
    unsealed_allowed: UnsealedAllowed<'a>,
    /// What was found damaged in it, for a person.
    found: Cell<Option<&'static str>>,
}

/// How storage was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Opened {
    /// By the TPM.
    Sealed,
    /// By the recovery key; `true`: the TPM opens it again from now on.
    Recovered(bool),
    /// By a key beside it, by the leave of whoever is named.
    Unsealed(Option<String>),
    /// By that key for the last time: the TPM that is there now opens it from now on.
    SealedSince,
}

impl Storage<'_> {
    /// Opens or makes it; an error that only a person can mend waits for the stick that mends it.
    fn open_or_wait(&self) -> Result<(), StorageError> {
        let opened = match self.open_or_make() {
            Ok(opened) => opened,
            Err(error) => {
                self.say_tamper(&error)?;
                self.wait_for_help(error)?
            }
        };
        self.say_open(&opened)
    }

    fn open_or_make(&self) -> Result<Opened, StorageError> {
        self.lift_lockout();
        let disk = of_root(self.places)?;
        match disk::look(self.programs, &disk)? {
            DataPartition::Absent => {
                disk::append(self.programs, &disk)?;
                match disk::look(self.programs, &disk)? {
                    DataPartition::Unfinished(partition) => self.make(&partition),
                    _ => Err(StorageError::TableUnreadable(disk)),
                }
            }
            DataPartition::Unfinished(partition) => self.make(&partition),
            DataPartition::Complete(partition) => self.attach(&partition),
        }
    }

    fn lift_lockout(&self) {
        // It may open all the same; if not, that is said then.
        if let Err(error) = lockout::lift(self.places) {
            crate::cli::say(&error.to_string());
        }
    }

    /// Remembers what was found damaged; the last of it is shown.
    fn note(&self, found: &'static str) {
        crate::cli::say(found);
        self.found.set(Some(found));
    }

    /// Looks at the file system of the volume that was just opened.
    fn check(&self, volume: &Volume<'_>) -> Result<(), StorageError> {
        self.states.say(Part::Data, Said::new(StateWord::Selftest, CHECKING)).map_err(StorageError::State)?;
        if let Some(found) = volume.check() {
            self.note(found);
        }
        Ok(())
    }

    fn volume<'v>(&'v self, partition: &'v Partition) -> Volume<'v> {
        Volume { programs: self.programs, places: self.places, device: &partition.device }
    }

    /// Opens a complete partition. Nothing here writes to it but keys, once there is a TPM to seal them to, and what mends it.
    fn attach(&self, partition: &Partition) -> Result<Opened, StorageError> {
        let unsealed = self.places.at(path::UNSEALED_KEY);
        let volume = self.volume(partition);
        if Volume::mapping(self.places).exists() {
            if unsealed.exists() {
                return Ok(Opened::Unsealed(None));
            }
            return self.ready_content().map(|()| Opened::Sealed);
        }
        match volume.attach() {
            Ok(()) => {
                self.check(&volume)?;
                // The power may have gone between the seal and the end of the key beside it.
                let opened = self.without_key_beside(Opened::Sealed);
                self.ready_content().map(|()| opened)
            }
            Err(error) => match std::fs::read_to_string(unsealed).map(Zeroizing::new) {
                Ok(key) => self.open_by_key_beside(partition, &key),
                Err(_) => Err(error),
            },
        }
    }

    /// Makes an unfinished partition from its beginning, sealed.
    fn make(&self, partition: &Partition) -> Result<Opened, StorageError> {
        if !has_tpm(self.places) {
            return Err(StorageError::NoTpm);
        }
        let recovery = RecoveryKey::generate()?;
        let volume = self.begin(partition, &recovery)?;
        volume.seal(&recovery)?;
        volume.attach()?;
        self.complete(partition, &recovery, true)?;
        Ok(Opened::Sealed)
    }

    /// Makes an unfinished partition from its beginning, with its key beside it.
    fn make_unsealed(&self, partition: &Partition, signer: String) -> Result<Opened, StorageError> {
        let recovery = RecoveryKey::generate()?;
        let volume = self.begin(partition, &recovery)?;
        let key = self.places.at(path::UNSEALED_KEY);
        let text = recovery.text();
        let keep = || {
            std::fs::create_dir_all(key.parent().unwrap_or(Path::new("/")))?;
            crate::state_file::replace(&key, text.as_bytes(), 0o600)
        };
        keep().map_err(StorageError::Content)?;
        volume.open_by_key(text.as_bytes())?;
        self.complete(partition, &recovery, false)?;
        Ok(Opened::Unsealed(Some(signer)))
    }

    fn begin<'v>(&'v self, partition: &'v Partition, recovery: &RecoveryKey) -> Result<Volume<'v>, StorageError> {
        disk::show_to_kernel(self.programs, partition)?;
        for _ in 0..DEVICE_LOOKS_MAX {
            if partition.device.exists() {
                break;
            }
            self.sticks.pause();
        }
        let volume = self.volume(partition);
        if Volume::mapping(self.places).exists() {
            volume.close()?;
        }
        volume.format(recovery)?;
        Ok(volume)
    }

    fn complete(&self, partition: &Partition, recovery: &RecoveryKey, sealed: bool) -> Result<(), StorageError> {
        let key = KeyEncryptionKey::generate()?;
        let (credential, copy) = (key.credential(self.programs, self.places, sealed)?, key.wrapped(recovery)?);
        let text = recovery.text();
        let files: [(&str, &[u8]); 4] = [
            (path::KEY_CREDENTIAL, &credential),
            (path::KEY_CREDENTIAL_COPY, &credential),
            (path::KEY_COPY, &copy),
            (path::RECOVERY_KEY, text.as_bytes()),
        ];
        let skeleton = Skeleton::new(self.places, &files)?;
        self.volume(partition).fill(&skeleton.folder())?;
        rename(self.programs, partition, partition::DATA)
    }

    fn say_open(&self, opened: &Opened) -> Result<(), StorageError> {
        let (detail, sealed) = match opened {
            Opened::Sealed => (String::new(), fact::SEALED_YES),
            Opened::Recovered(true) => ("opened with the recovery key and sealed anew".to_owned(), fact::SEALED_YES),
            Opened::Recovered(false) => (
                "opened with the recovery key; the TPM did not take a new seal, the next start needs the stick again".to_owned(),
                "until the next start",
            ),
            Opened::SealedSince => {
                ("sealed to the TPM that is switched on now; the recovery key opens it as well".to_owned(), fact::SEALED_YES)
            }
            Opened::Unsealed(signer) => {
                let by = signer.as_ref().map(|signer| format!(" (allowed by {signer})")).unwrap_or_default();
                (format!("storage is encrypted but not sealed{by}"), fact::SEALED_NO)
            }
        };
        let parts = [detail.as_str(), self.found.get().unwrap_or_default()];
        let detail = parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; ");
        let mut facts = BTreeMap::from([(fact::SEALED.to_owned(), sealed.to_owned())]);
        // Whoever waits for storage goes on: it is open. Whoever shows it says that it is not in order.
        if self.found.get() == Some(IS_DAMAGED) {
            facts.insert(fact::FILE_SYSTEM.to_owned(), format!("{}: damaged and not mended", fact::FAILED));
        }
        let said = Said { word: StateWord::Ready, code: None, detail: &detail, facts };
        self.states.say(Part::Data, said).map_err(StorageError::State)
    }

    fn say_tamper(&self, error: &StorageError) -> Result<(), StorageError> {
        crate::cli::say(&error.to_string());
        self.states.say(Part::Data, Said::new(StateWord::Tamper, &error.to_string())).map_err(StorageError::State)
    }
}
