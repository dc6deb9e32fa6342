//! The boot entries on the EFI system partition, and who is on trial.
//!
//! Every change is one rename or one removal and a folder that is written to the disk after it; the
//! order is such that a power cut between any two leaves an entry to start from.

use std::io;

use serde::{Deserialize, Serialize};
use vitalgate_layout::entry::{self, BootEntry};
use vitalgate_layout::{Slot, Version};

use super::disk::Disk;
use super::kernel_image::{ImageError, KernelImage};

/// Folder of our own notes on the EFI system partition.
pub(crate) const NOTES: &str = "EFI/vitalgate";
/// Which version waits to show that it is healthy.
const TRIAL: &str = "EFI/vitalgate/trial.json";
/// Why the last rollback happened, while sealed storage could not be written.
const ROLLBACK: &str = "EFI/vitalgate/rollback.json";
/// Largest note that is read, in bytes.
const NOTE_BYTES_MAX: u64 = 16 * 1024;

/// Why a boot entry was not changed or found.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EspError {
    /// The disk failed.
    #[error("the EFI system partition cannot be {doing} ({reason}); if this stays after a restart, replace the disk")]
    Disk {
        /// What was done.
        doing: &'static str,
        /// Why it failed.
        reason: io::Error,
    },
    /// Neither entry nor installed image.
    #[error("slot {0} has neither a boot entry nor an installed image; install an update first")]
    Empty(Slot),
    /// Nothing to start at all.
    #[error("no boot entry is left on the EFI system partition; flash the appliance anew")]
    NothingBoots,
    /// The last entry is kept.
    #[error("slot {0} holds the only boot entry and keeps it")]
    LastEntry(Slot),
    /// What was installed is no image of ours.
    #[error("what was installed to slot {slot} does not start: {reason}")]
    Installed {
        /// The slot.
        slot: Slot,
        /// Why.
        reason: ImageError,
    },
}

/// A version that was installed and has not yet shown that it is healthy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Trial {
    /// The slot's letter.
    pub(crate) slot: String,
    /// Its version.
    pub(crate) version: String,
    /// Whether sealed storage was open when it was installed.
    pub(crate) data_was_open: bool,
}

impl Trial {
    /// Whether it is this slot and version that is on trial.
    pub(crate) fn is_of(&self, slot: Slot, version: Version) -> bool {
        self.slot == slot.letter() && self.version == version.to_string()
    }
}

/// The EFI system partition.
pub(crate) struct Esp<'d> {
    disk: &'d dyn Disk,
}

fn failed(doing: &'static str) -> impl Fn(io::Error) -> EspError {
    move |reason| EspError::Disk { doing, reason }
}

impl<'d> Esp<'d> {
    /// The one on this disk.
    pub(crate) const fn on(disk: &'d dyn Disk) -> Self {
        Self { disk }
    }

    /// All boot entries, the one that starts next first.
    ///
    /// The order is the boot loader's: entries with tries left, then the higher version, then (by
    /// file name, downwards) slot b.
    pub(crate) fn entries(&self) -> Result<Vec<BootEntry>, EspError> {
        let names = self.disk.names(entry::FOLDER).map_err(failed("listed"))?;
        let mut entries: Vec<BootEntry> = names.iter().filter_map(|name| BootEntry::parse(name)).collect();
        entries.sort_by_key(|entry| std::cmp::Reverse((entry.is_good(), entry.version, entry.slot, entry.left)));
        Ok(entries)
    }

    /// The entry of a slot.
    pub(crate) fn entry(&self, slot: Slot) -> Result<Option<BootEntry>, EspError> {
        Ok(self.entries()?.into_iter().find(|entry| entry.slot == slot))
    }

    /// The slot that starts next.
    pub(crate) fn primary(&self) -> Result<Slot, EspError> {
        self.entries()?.first().map(|entry| entry.slot).ok_or(EspError::NothingBoots)
    }

    /// Whether a slot has an entry with tries left.
    pub(crate) fn is_good(&self, slot: Slot) -> Result<bool, EspError> {
        Ok(self.entry(slot)?.is_some_and(|entry| entry.is_good()))
    }

    /// Whether a slot can be gone back to: it has tries left, or lost them only because an older version was asked for.
    pub(crate) fn can_go_back_to(&self, slot: Slot) -> Result<bool, EspError> {
        Ok(self.entry(slot)?.is_some_and(|entry| entry.is_good() || is_set_aside(&entry)))
    }

    /// Leaves a slot for the other one.
    pub(crate) fn leave(&self, slot: Slot) -> Result<(), EspError> {
        if self.entry(slot.other())?.is_some_and(|entry| is_set_aside(&entry)) {
            self.set_good(slot.other())?;
        }
        self.exhaust(slot, entry::TRIES)
    }

    /// Gives a slot all its tries back.
    pub(crate) fn set_good(&self, slot: Slot) -> Result<(), EspError> {
        let entry = self.entry(slot)?.ok_or(EspError::Empty(slot))?;
        self.rename(&entry, &BootEntry::fresh(slot, entry.version))?;
        self.remove_others(slot, &BootEntry::fresh(slot, entry.version))
    }

    /// Leaves a slot without tries: it starts only when nothing else does.
    pub(crate) fn exhaust(&self, slot: Slot, done: u32) -> Result<(), EspError> {
        let entry = self.entry(slot)?.ok_or(EspError::Empty(slot))?;
        self.rename(&entry, &BootEntry { left: Some(0), done, ..entry })
    }

    /// Takes a slot's entries away, since its root is about to be written; the running slot only
    /// loses its tries, and the last entry stays.
    pub(crate) fn set_bad(&self, slot: Slot, running: Option<Slot>) -> Result<(), EspError> {
        let entries = self.entries()?;
        if !entries.iter().any(|entry| entry.slot == slot) {
            return Ok(());
        }
        if running == Some(slot) {
            return self.exhaust(slot, entry::TRIES);
        }
        if entries.iter().all(|entry| entry.slot == slot) {
            return Err(EspError::LastEntry(slot));
        }
        for entry in entries.iter().filter(|entry| entry.slot == slot) {
            self.disk.remove(&place(entry)).map_err(failed("written"))?;
        }
        self.disk.sync(entry::FOLDER).map_err(failed("written"))
    }

    /// Puts an image beside the entries, under a name that the boot loader does not read.
    pub(crate) fn stage(&self, slot: Slot, image: &mut dyn io::Read) -> Result<(), EspError> {
        let unfinished = format!("{}.new", entry::staged(slot));
        self.disk.write(&unfinished, image).map_err(failed("written"))?;
        self.disk.rename(&unfinished, entry::staged(slot)).map_err(failed("written"))?;
        self.disk.sync(entry::FOLDER).map_err(failed("written"))
    }

    /// Lets a slot start next, with its installed image where there is one, on trial.
    pub(crate) fn set_primary(&self, slot: Slot, data_is_open: bool) -> Result<(), EspError> {
        let installed = match self.disk.open(entry::staged(slot)) {
            Ok(file) => Some(KernelImage::read(&file).map_err(|reason| EspError::Installed { slot, reason })?.version),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(reason) => return Err(EspError::Disk { doing: "read", reason }),
        };
        let version = match installed {
            Some(version) => version,
            None => self.entry(slot)?.ok_or(EspError::Empty(slot))?.version,
        };
        let fresh = BootEntry::fresh(slot, version);
        if installed.is_some() {
            // Known to be on trial before it can start.
            self.set_trial(&Trial { slot: slot.to_string(), version: version.to_string(), data_was_open: data_is_open })?;
            self.disk.rename(entry::staged(slot), &place(&fresh)).map_err(failed("written"))?;
            self.disk.sync(entry::FOLDER).map_err(failed("written"))?;
            self.remove_others(slot, &fresh)?;
        } else {
            self.set_good(slot)?;
        }
        if self.primary()? != slot {
            // An older version was asked for. No starts used: not to be taken for one that failed.
            self.exhaust(slot.other(), 0)?;
        }
        Ok(())
    }

    /// Who is on trial.
    pub(crate) fn trial(&self) -> Option<Trial> {
        self.note(TRIAL)
    }

    /// Nobody is on trial any more.
    pub(crate) fn end_trial(&self) -> Result<(), EspError> {
        self.remove_note(TRIAL)
    }

    /// Why the last rollback happened, if it was noted here.
    pub(crate) fn rollback<T: serde::de::DeserializeOwned>(&self) -> Option<T> {
        self.note(ROLLBACK)
    }

    /// Notes here why a rollback happens.
    pub(crate) fn set_rollback(&self, rollback: &impl Serialize) -> Result<(), EspError> {
        self.set_note(ROLLBACK, rollback)
    }

    /// The note is kept elsewhere now.
    pub(crate) fn forget_rollback(&self) -> Result<(), EspError> {
        self.remove_note(ROLLBACK)
    }

    fn set_trial(&self, trial: &Trial) -> Result<(), EspError> {
        self.set_note(TRIAL, trial)
    }

    fn note<T: serde::de::DeserializeOwned>(&self, file: &str) -> Option<T> {
        let opened = self.disk.open(file).ok()?;
        // A note that is no note (half written, of another version) says nothing.
        serde_json::from_reader(io::Read::take(opened, NOTE_BYTES_MAX)).ok()
    }

    fn set_note(&self, file: &str, content: &impl Serialize) -> Result<(), EspError> {
        let text = serde_json::to_vec(content).map_err(|error| EspError::Disk { doing: "written", reason: error.into() })?;
        let unfinished = format!("{file}.new");
        self.disk.write(&unfinished, &mut text.as_slice()).map_err(failed("written"))?;
        self.disk.rename(&unfinished, file).map_err(failed("written"))?;
        self.disk.sync(NOTES).map_err(failed("written"))
    }

    fn remove_note(&self, file: &str) -> Result<(), EspError> {
        if self.disk.open(file).is_err() {
            return Ok(());
        }
        self.disk.remove(file).map_err(failed("written"))?;
        self.disk.sync(NOTES).map_err(failed("written"))
    }

    fn rename(&self, from: &BootEntry, to: &BootEntry) -> Result<(), EspError> {
        if from == to {
            return Ok(());
        }
        self.disk.rename(&place(from), &place(to)).map_err(failed("written"))?;
        self.disk.sync(entry::FOLDER).map_err(failed("written"))
    }

    /// A slot has one entry: another version's no longer fits its root.
    fn remove_others(&self, slot: Slot, kept: &BootEntry) -> Result<(), EspError> {
        let stale: Vec<_> = self.entries()?.into_iter().filter(|entry| entry.slot == slot && entry != kept).collect();
        for entry in &stale {
            self.disk.remove(&place(entry)).map_err(failed("written"))?;
        }
        if stale.is_empty() { Ok(()) } else { self.disk.sync(entry::FOLDER).map_err(failed("written")) }
    }
}

/// Whether an entry has no tries left and never failed: they were taken from it.
fn is_set_aside(entry: &BootEntry) -> bool {
    !entry.is_good() && entry.done == 0
}

fn place(entry: &BootEntry) -> String {
    format!("{}/{}", entry::FOLDER, entry.file_name())
}
