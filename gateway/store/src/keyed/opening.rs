//! From whatever lies on disk to an open store: a sound one as it is, a damaged one set aside and a
//! new one in its place.

use std::fs;
use std::io;
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::checkpoint::{DB, NOTE, Note, read_note, sync_everything};
use super::event::KeyedEvent;
use super::layout::{CONF, CONF_CHECKSUM};
use super::probe;
use super::room::tells_full;
use super::shared::{Open, Shared};
use crate::copy::{KeyedError, Watermark};

/// An open store, and where the one before it was moved.
pub(super) struct Opened {
    pub(super) trees: Open,
    pub(super) applied: Watermark,
    pub(super) quarantined: Option<PathBuf>,
    /// Whether it follows a sound store that was let go of.
    pub(super) after_let_go: bool,
}

/// Opens the store.
///
/// # Errors
/// When not even a new store can be opened, or the disk fails.
pub(super) fn open_store(shared: &Shared) -> Result<Opened, KeyedError> {
    let dir = shared.places.store();
    let let_go = shared.places.empty_removed().map_err(|error| shared.io_error("removing an old store", &error))?;
    let unfinished = shared.places.remove_unfinished(shared.sync.as_ref(), let_go);
    let rebuild = unfinished.map_err(|error| shared.io_error("removing an unfinished store", &error))?;
    let after_let_go = let_go && rebuild.is_none();
    let mut quarantined = rebuild.and_then(|rebuild| rebuild.old);
    if let Some(reason) = shared.places.read_note() {
        quarantined = quarantined.or(set_aside(shared, reason, false)?);
        shared.places.remove_note(shared.sync.as_ref()).map_err(|error| shared.io_error("removing the note", &error))?;
    }
    let unfinished = shared.places.set_aside_unfinished(shared.sync.as_ref());
    for to in unfinished.map_err(|error| shared.io_error("setting a snapshot aside", &error))? {
        shared.tell(KeyedEvent::SnapshotSetAside { to });
    }
    match open_present(shared, &dir) {
        Ok((trees, applied)) => return Ok(Opened { trees, applied, quarantined, after_let_go }),
        Err(reason) if shared.is_out_of_room(&reason) => return Err(without_room(shared, reason)),
        // One that was already set aside is the one with history.
        Err(reason) => quarantined = quarantined.or(set_aside(shared, reason, false)?),
    }
    let (trees, applied) = open_present(shared, &dir).map_err(|reason| without_room(shared, reason))?;
    Ok(Opened { trees, applied, quarantined, after_let_go })
}

/// Only an opening that ended in order with an error can be tried again in this process.
fn without_room(shared: &Shared, reason: String) -> KeyedError {
    if tells_full(&reason) {
        shared.watch.meet_full();
    }
    KeyedError::Unavailable(reason)
}

/// Moves the store away, and says so.
pub(super) fn set_aside(shared: &Shared, reason: String, is_ahead: bool) -> Result<Option<PathBuf>, KeyedError> {
    let moved = shared.places.set_aside_store(shared.sync.as_ref(), is_ahead);
    let moved = moved.map_err(|error| shared.io_error("setting it aside", &error))?;
    if let Some(to) = moved.clone() {
        shared.tell(KeyedEvent::Quarantined { reason, to });
    }
    Ok(moved)
}

fn open_present(shared: &Shared, dir: &Path) -> Result<(Open, Watermark), String> {
    fs::create_dir_all(dir).map_err(|error| format!("the folder cannot be made: {}", error.kind()))?;
    let stored = fs::symlink_metadata(dir.join(DB)).map(|metadata| metadata.len());
    let present = stored.is_ok();
    let deadline = shared.times.open_deadline(stored.unwrap_or(0));
    if present && heal_conf(dir).map_err(|error| format!("conf cannot be read: {}", error.kind()))? {
        shared.tell(KeyedEvent::FileHealed { name: "conf" });
    }
    let looked = match &shared.probe {
        Some(command) if present => probe::look_in_child(command, dir, deadline),
        _ => None,
    };
    let checked = looked.transpose()?.is_some();
    let (trees, applied) = probe::open(dir, present && !checked, deadline)?;
    match read_note(dir).map_err(|error| format!("its note cannot be read: {}", error.kind()))? {
        Note::None => {}
        Note::Damaged => shared.tell(KeyedEvent::FileHealed { name: NOTE }),
        Note::Certain(certain) if applied < certain => {
            // Not closed: whatever hid its end may bite once more.
            let _left = ManuallyDrop::new(trees);
            return Err(format!("it ends at record {}, and was certain up to {}", applied.ordinal.0, certain.ordinal.0));
        }
        Note::Certain(_) => {}
    }
    // What was read may still be in memory only, from the run before; and sled never syncs conf.
    sync_everything(shared.sync.as_ref(), dir).map_err(|error| format!("it cannot be synced: {}", error.kind()))?;
    Ok((Arc::new(ManuallyDrop::new(trees)), applied))
}

/// Writes `conf` anew where it is not what it always is. sled would refuse, or silently take, a
/// damaged one.
fn heal_conf(dir: &Path) -> io::Result<bool> {
    let path = dir.join("conf");
    let right = [CONF, &CONF_CHECKSUM].concat();
    match fs::read(&path) {
        Ok(found) if found == right => return Ok(false),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let new = dir.join("conf.new");
    fs::write(&new, right)?;
    fs::File::open(&new)?.sync_all()?;
    fs::rename(&new, &path)?;
    Ok(true)
}

/// Closes the store in order, once nobody uses it any more; else leaves it to the end of the process.
/// Whether it is closed.
pub(super) fn close(shared: &Shared, trees: Open) -> bool {
    let until = std::time::Instant::now() + shared.times.call;
    let mut trees = trees;
    shared.publish(None);
    while std::time::Instant::now() < until {
        match Arc::try_unwrap(trees) {
            Ok(trees) => {
                // sled flushes and syncs when it is dropped, which can panic on a failing disk.
                let closed = shared.watch.call(super::watch::Worker::Feeder, "closing", shared.times.call, move || {
                    drop(ManuallyDrop::into_inner(trees));
                    Ok(())
                });
                return closed.is_ok();
            }
            Err(used) => trees = used,
        }
        std::thread::park_timeout(std::time::Duration::from_millis(1));
    }
    false
}
