//! Sets damaged files aside, where a person can look at them, and keeps the note of a failure for
//! the next start.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::checkpoint::DiskSync;
use crate::outbox::KEPT;

/// Where the keyed store and what was set aside lie below the state folder.
#[derive(Debug, Clone)]
pub(super) struct Places {
    /// The state folder.
    root: PathBuf,
}

/// Most stores of a kind that are set aside; the oldest goes first. Each may be as large as the store.
const QUARANTINED_MAX: usize = 3;
/// Highest number of a quarantined store.
const NUMBER_MAX: u32 = 1_000_000;
/// Longest note that is read, in bytes.
const NOTE_BYTES_MAX: usize = 512;

impl Places {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_path_buf() }
    }

    /// The state folder.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// sled's folder.
    pub(super) fn store(&self) -> PathBuf {
        self.root.join("sled")
    }

    pub(super) fn quarantine(&self) -> PathBuf {
        self.root.join("quarantine")
    }

    /// What may be the only copy lies here: free space is not made of it.
    pub(super) fn kept(&self) -> PathBuf {
        self.root.join(KEPT)
    }

    fn note(&self) -> PathBuf {
        self.root.join("sled.damaged")
    }

    /// Where salvaged records wait until they are in the new store.
    pub(super) fn salvaged(&self) -> PathBuf {
        self.root.join("sled.salvaged")
    }

    /// Leaves the reason for the next start. Best effort: without it the next start finds out itself.
    pub(super) fn leave_note(&self, sync: &dyn DiskSync, reason: &str) {
        let path = self.note();
        let left = fs::write(&path, reason).and_then(|()| sync.sync_all(&path)).and_then(|()| sync.sync_all(&self.root));
        if let Err(error) = left {
            tracing::warn!(%error, "the note about the damaged keyed store could not be written");
        }
    }

    /// The note that the last run left.
    pub(super) fn read_note(&self) -> Option<String> {
        let bytes = fs::read(self.note()).ok()?;
        Some(String::from_utf8_lossy(bytes.get(..bytes.len().min(NOTE_BYTES_MAX)).unwrap_or_default()).into_owned())
    }

    /// Takes the note away once its store is set aside.
    pub(super) fn remove_note(&self, sync: &dyn DiskSync) -> io::Result<()> {
        remove_if_there(&self.note())?;
        sync.sync_all(&self.root)
    }

    /// Moves the whole store to `quarantine/sled-<n>`, or one that has what the journal has not to `kept/ahead-<n>`, and marks the rebuild
    /// from there; `None` when there is none.
    pub(super) fn set_aside_store(&self, sync: &dyn DiskSync, is_ahead: bool) -> io::Result<Option<PathBuf>> {
        let store = self.store();
        if fs::symlink_metadata(&store).is_err() {
            return Ok(None);
        }
        let folder = if is_ahead { self.kept() } else { self.quarantine() };
        let target = free_place(&folder, if is_ahead { "ahead" } else { "sled" })?;
        self.mark_rebuild(sync, Some(&target))?;
        fs::rename(&store, &target)?;
        sync.sync_all(&folder)?;
        sync.sync_all(&self.root)?;
        self.drop_oldest()?;
        Ok(Some(target))
    }

    /// Moves unfinished snapshots aside: sled takes one for the newest finished one and never opens.
    pub(super) fn set_aside_unfinished(&self, sync: &dyn DiskSync) -> io::Result<Vec<PathBuf>> {
        let entries = match fs::read_dir(self.store()) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut moved = Vec::new();
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with("snap.") && name.ends_with(".generating") {
                let target = free_place(&self.quarantine(), "snapshot")?;
                fs::rename(entry.path(), &target)?;
                moved.push(target);
            }
        }
        if !moved.is_empty() {
            sync.sync_all(&self.quarantine())?;
            sync.sync_all(&self.store())?;
            self.drop_oldest()?;
        }
        Ok(moved)
    }

    fn let_go(&self) -> PathBuf {
        self.root.join("sled.removed")
    }

    /// Lets go of the whole store: a power cut leaves all of it, or nothing that is taken for one. Its folder stays under
    /// another name until [`Places::forget_removed`]: a start in between knows by it that nothing was lost.
    pub(super) fn remove_store(&self, sync: &dyn DiskSync) -> io::Result<()> {
        if self.empty_removed()? {
            fs::remove_dir(self.let_go())?;
        }
        fs::rename(self.store(), self.let_go())?;
        sync.sync_all(&self.root)?;
        self.empty_removed().map(drop)
    }

    /// Gives back the room of a store that was let go of. Whether there was one whose successor is not certain yet.
    pub(super) fn empty_removed(&self) -> io::Result<bool> {
        let entries = match fs::read_dir(self.let_go()) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_dir() { fs::remove_dir_all(entry.path())? } else { fs::remove_file(entry.path())? }
        }
        Ok(true)
    }

    /// The successor of a store that was let go of is certain.
    pub(super) fn forget_removed(&self, sync: &dyn DiskSync) -> io::Result<()> {
        match fs::remove_dir(self.let_go()) {
            Ok(()) => sync.sync_all(&self.root),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Bytes of the store's files.
    pub(super) fn store_bytes(&self) -> io::Result<u64> {
        let mut folders = vec![self.store()];
        let mut bytes = 0;
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder)? {
                let entry = entry?;
                let metadata = entry.metadata()?;
                if metadata.is_dir() { folders.push(entry.path()) } else { bytes += metadata.len() }
            }
        }
        Ok(bytes)
    }

    fn drop_oldest(&self) -> io::Result<()> {
        for (folder, stem) in [(self.quarantine(), "sled"), (self.quarantine(), "snapshot"), (self.kept(), "ahead")] {
            let mut found = numbered(&folder, stem)?;
            while found.len() > QUARANTINED_MAX {
                let (_, oldest) = found.remove(0);
                if oldest.is_dir() { fs::remove_dir_all(&oldest)? } else { fs::remove_file(&oldest)? }
            }
        }
        Ok(())
    }
}

fn free_place(folder: &Path, stem: &str) -> io::Result<PathBuf> {
    fs::create_dir_all(folder)?;
    let taken = numbered(folder, stem)?;
    let next = taken.last().map_or(1, |(number, _)| number.saturating_add(1));
    if next > NUMBER_MAX {
        return Err(io::Error::other("quarantine/ or kept/ is numbered to its end; empty it"));
    }
    Ok(folder.join(format!("{stem}-{next}")))
}

fn numbered(folder: &Path, stem: &str) -> io::Result<Vec<(u32, PathBuf)>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(stem)?.strip_prefix('-')?.parse::<u32>().ok());
        found.extend(number.map(|number| (number, entry.path())));
    }
    found.sort();
    Ok(found)
}

pub(super) fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
