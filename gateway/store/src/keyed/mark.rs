//! The mark of a rebuild that is not certain yet: which damaged store its history comes from.
//!
//! It is on disk before the damaged store is moved, and goes after the first checkpoint of the new
//! one. Until then the new store has nothing that the journal or the damaged one has not, though it
//! may look like one that never held the history: a start that finds the mark begins the rebuild
//! anew.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::checkpoint::{DiskSync, NOTE};
use super::quarantine::{Places, remove_if_there};

/// Runs in which the rebuild from one damaged store is begun. A rebuild that ends the process
/// each time would keep the gateway from ever going on.
const REBUILDS_MAX: u32 = 3;
/// Stands for the name of a store that vanished.
const NO_STORE: &str = "-";

/// A rebuild that was cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rebuild {
    /// The damaged store that history is salvaged from; `None` when it is gone, or was tried too often.
    pub(super) old: Option<PathBuf>,
}

impl Places {
    fn mark(&self) -> PathBuf {
        self.root().join("sled.rebuilding")
    }

    fn new_mark(&self) -> PathBuf {
        self.root().join("sled.rebuilding.new")
    }

    /// Marks a rebuild before it begins. The mark of one that is not certain yet stays: only the
    /// store that it names holds history.
    pub(super) fn mark_rebuild(&self, sync: &dyn DiskSync, old: Option<&Path>) -> io::Result<()> {
        if self.read_mark()?.is_some() {
            return Ok(());
        }
        let name = old.and_then(Path::file_name).and_then(|name| name.to_str()).unwrap_or(NO_STORE);
        self.write_mark(sync, name, 0)
    }

    /// Counts a run in which the marked rebuild is begun.
    pub(super) fn count_rebuild(&self, sync: &dyn DiskSync) -> io::Result<()> {
        match self.read_mark()? {
            Some((name, begun)) => self.write_mark(sync, &name, begun.saturating_add(1)),
            None => Ok(()),
        }
    }

    /// Whether a rebuild is marked and not certain yet.
    pub(super) fn is_rebuild_marked(&self) -> bool {
        fs::symlink_metadata(self.mark()).is_ok()
    }

    /// The new store is certain.
    pub(super) fn forget_rebuild(&self, sync: &dyn DiskSync) -> io::Result<()> {
        match fs::remove_file(self.mark()) {
            Ok(()) => sync.sync_all(self.root()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Removes what a cut rebuild, or a cut successor of a store that was let go of, has written, so
    /// that it begins anew. Gives back the rebuild, if it was one.
    pub(super) fn remove_unfinished(&self, sync: &dyn DiskSync, let_go: bool) -> io::Result<Option<Rebuild>> {
        let mark = self.read_mark()?;
        if mark.is_none() && !let_go {
            return Ok(None);
        }
        remove_if_there(&self.salvaged())?;
        if fs::exists(self.store().join(NOTE))? {
            self.forget_rebuild(sync)?;
            return Ok(None);
        }
        if fs::exists(self.store())? {
            fs::remove_dir_all(self.store())?;
            tracing::warn!("the new keyed store was not finished; it begins anew");
        }
        Ok(mark.map(|(name, begun)| {
            let old = [self.quarantine(), self.kept()].map(|folder| folder.join(&name)).into_iter().find(|old| old.is_dir());
            Rebuild { old: old.filter(|_| begun < REBUILDS_MAX) }
        }))
    }

    /// The name of the damaged store and how many runs have begun the rebuild. What does not read
    /// stands for a store that vanished.
    fn read_mark(&self) -> io::Result<Option<(String, u32)>> {
        let bytes = match fs::read(self.mark()) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let text = String::from_utf8_lossy(&bytes);
        let mut words = text.split_whitespace();
        let name = words.next().filter(|name| !name.contains(['/', '.'])).unwrap_or(NO_STORE);
        let begun = words.next().and_then(|begun| begun.parse().ok()).unwrap_or(0);
        Ok(Some((name.to_owned(), begun)))
    }

    fn write_mark(&self, sync: &dyn DiskSync, name: &str, begun: u32) -> io::Result<()> {
        let new = self.new_mark();
        fs::write(&new, format!("{name} {begun}"))?;
        sync.sync_all(&new)?;
        fs::rename(&new, self.mark())?;
        sync.sync_all(self.root())
    }
}
