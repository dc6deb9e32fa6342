//! Segments made ahead of their use, and the reserve that keeps settling possible on a full disk.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::files::{FileSystem, StoredFile, fill_with_zeros, is_bad_place, read_full};
use crate::options::StoreOptions;
use crate::segment::HEADER_PAGE_BYTES;

/// The next segment, ready.
pub(crate) const SPARE: &str = "spare";
/// The segment that only settling may take.
pub(crate) const RESERVE: &str = "reserve";
/// A file that was taken and is no segment yet. It has a name of its own: what is made ready meanwhile must not take its place, or what
/// is committed to it would be in no folder.
pub(crate) const TAKEN: &str = "taken";
/// A segment in the making.
pub(crate) const UNREADY: &str = "spare.new";
/// Longest wait for a segment that is being made, in milliseconds.
const PREPARE_WAIT_MS: u64 = 30_000;

#[derive(Debug, Default)]
struct Ready {
    spare: bool,
    reserve: bool,
    preparing: bool,
}

/// The files that wait to become segments.
pub(crate) struct Space {
    files: Arc<dyn FileSystem>,
    dir: PathBuf,
    segment_bytes: u64,
    floor_bytes: u64,
    background: bool,
    ready: Mutex<Ready>,
    changed: Condvar,
}

/// Whether a commit may go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    /// There is room.
    Enough,
    /// Free space is below the floor.
    BelowFloor,
}

/// What an earlier run took and did not begin is ready again: first of all as the reserve, since the spare goes below the floor.
fn put_back(files: &dyn FileSystem, dir: &Path, segment_bytes: u64) -> io::Result<()> {
    let names = files.list(dir)?;
    let is_here = |name: &str| names.iter().any(|known| known == name);
    if !is_here(TAKEN) {
        return Ok(());
    }
    let taken = dir.join(TAKEN);
    let whole = files.open(&taken)?.len()? == segment_bytes;
    match [RESERVE, SPARE].into_iter().find(|name| whole && !is_here(name)) {
        Some(name) => files.rename(&taken, &dir.join(name))?,
        None => files.remove(&taken)?,
    }
    files.sync_dir(dir)
}

/// What waits to become a segment, and was one, says no data key any more: the key may be destroyed.
fn forget_keys(files: &dyn FileSystem, dir: &Path) -> io::Result<()> {
    for name in files.list(dir)?.iter().filter(|name| [SPARE, RESERVE].contains(&name.as_str())) {
        let file = files.open(&dir.join(name))?;
        let mut page = vec![0; HEADER_PAGE_BYTES];
        let is_read = match read_full(file.as_ref(), &mut page, 0) {
            Ok(_) => true,
            Err(error) if is_bad_place(&error) => false,
            Err(error) => return Err(error),
        };
        // What the disk cannot read, a whole page that is written over lets it read again.
        if !is_read || page.iter().any(|byte| *byte != 0) {
            // Only once its name is on disk: a segment must not lose its header.
            files.sync_dir(dir)?;
            page.fill(0);
            file.write_all_at(&page, 0)?;
            file.sync_data()?;
        }
    }
    Ok(())
}

impl Space {
    /// Looks at what an earlier run left ready.
    pub(crate) fn new(files: Arc<dyn FileSystem>, journal_dir: &Path, options: &StoreOptions) -> io::Result<Arc<Self>> {
        put_back(files.as_ref(), journal_dir, options.segment_bytes)?;
        forget_keys(files.as_ref(), journal_dir)?;
        let names = files.list(journal_dir)?;
        let whole = |name: &str| -> io::Result<bool> {
            Ok(names.iter().any(|known| known == name) && files.open(&journal_dir.join(name))?.len()? == options.segment_bytes)
        };
        let ready = Ready { spare: whole(SPARE)?, reserve: whole(RESERVE)?, preparing: false };
        Ok(Arc::new(Self {
            dir: journal_dir.to_owned(),
            segment_bytes: options.segment_bytes,
            floor_bytes: options.free_space_floor_bytes,
            background: options.background,
            ready: Mutex::new(ready),
            changed: Condvar::new(),
            files,
        }))
    }

    fn lock(&self) -> MutexGuard<'_, Ready> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether entries may be taken.
    pub(crate) fn room(&self) -> io::Result<Room> {
        let free = self.files.free_space(&self.dir)?;
        Ok(if free < self.floor_bytes { Room::BelowFloor } else { Room::Enough })
    }

    /// Whether no further segment can be had: below the floor, or so close to it that none can be made.
    pub(crate) fn is_short(&self) -> bool {
        let ready = self.lock();
        !(ready.spare || ready.preparing || self.may_make())
    }

    /// Whether settling can go on when the segment in use is full.
    pub(crate) fn has_reserve(&self) -> bool {
        self.lock().reserve
    }

    /// Below the floor the next segment, which is empty, gives its room back: a keyed store that grew while the
    /// disk filled never does. Says whether it did; the caller syncs the folder.
    pub(crate) fn give_up_spare(&self) -> io::Result<bool> {
        let mut ready = self.lock();
        if !ready.spare || self.room()? == Room::Enough {
            return Ok(false);
        }
        self.files.remove(&self.dir.join(SPARE))?;
        ready.spare = false;
        Ok(true)
    }

    /// Whether a segment can be made and leaves free space above the floor.
    pub(crate) fn may_make(&self) -> bool {
        self.files.free_space(&self.dir).is_ok_and(|free| free >= self.floor_bytes.saturating_add(self.segment_bytes))
    }

    /// Makes what is missing, on a thread of its own where the options say so.
    pub(crate) fn prepare(self: &Arc<Self>) {
        let missing = {
            let mut ready = self.lock();
            let missing = !(ready.preparing || ready.spare && ready.reserve);
            ready.preparing |= missing;
            missing
        };
        if !missing {
            return;
        }
        let space = Arc::clone(self);
        if self.background {
            let spawned = std::thread::Builder::new().name("segment-maker".into()).spawn(move || space.make_missing());
            if let Err(error) = spawned {
                tracing::warn!(%error, "no thread to prepare a segment; it is made when it is needed");
                self.lock().preparing = false;
                self.changed.notify_all();
            }
        } else {
            space.make_missing();
        }
    }

    fn make_missing(&self) {
        loop {
            let missing = {
                let ready = self.lock();
                if !ready.spare {
                    Some(SPARE)
                } else if !ready.reserve {
                    Some(RESERVE)
                } else {
                    None
                }
            };
            let made = missing.filter(|_| self.may_make()).map(|name| (name, self.make(name)));
            let mut ready = self.lock();
            match made {
                Some((SPARE, Ok(()))) => ready.spare = true,
                Some((_, Ok(()))) => ready.reserve = true,
                Some((_, Err(error))) => {
                    tracing::warn!(%error, "a segment could not be prepared; it is tried again when one is needed");
                    ready.preparing = false;
                    break;
                }
                None => {
                    ready.preparing = false;
                    break;
                }
            }
            self.changed.notify_all();
        }
        self.changed.notify_all();
    }

    /// Afterwards a file of full length, every block written, is durable under the name.
    fn make(&self, name: &str) -> io::Result<()> {
        let unready = self.dir.join(UNREADY);
        let result = self.files.create(&unready).and_then(|file| {
            fill_with_zeros(file.as_ref(), 0, self.segment_bytes)?;
            file.sync_all()
        });
        if let Err(error) = result {
            // What was written of it would only take room.
            let _gone = self.files.remove(&unready);
            return Err(error);
        }
        self.files.rename(&unready, &self.dir.join(name))?;
        self.files.sync_dir(&self.dir)
    }

    /// A file that is ready to become a segment, with its name; `None` when there is no room.
    pub(crate) fn take(&self, with_reserve: bool) -> io::Result<Option<(&'static str, Arc<dyn StoredFile>)>> {
        let mut ready = self.lock();
        while ready.preparing && !ready.spare {
            let (again, waited) =
                self.changed.wait_timeout(ready, Duration::from_millis(PREPARE_WAIT_MS)).unwrap_or_else(PoisonError::into_inner);
            ready = again;
            if waited.timed_out() {
                break;
            }
        }
        if ready.spare {
            let file = self.claim(SPARE)?;
            ready.spare = false;
            return Ok(Some((TAKEN, file)));
        }
        if !ready.preparing && self.may_make() {
            drop(ready);
            self.make(TAKEN)?;
            return self.files.open(&self.dir.join(TAKEN)).map(|file| Some((TAKEN, file)));
        }
        if with_reserve && ready.reserve {
            let file = self.claim(RESERVE)?;
            ready.reserve = false;
            return Ok(Some((TAKEN, file)));
        }
        Ok(None)
    }

    fn claim(&self, name: &str) -> io::Result<Arc<dyn StoredFile>> {
        let taken = self.dir.join(TAKEN);
        self.files.rename(&self.dir.join(name), &taken)?;
        self.files.open(&taken)
    }

    /// A segment that is no longer needed becomes the reserve, or the spare unless free space is below the
    /// floor, or goes, as one that is not whole does. The caller syncs the folder, and then calls [`Space::forget_keys`].
    pub(crate) fn recycle(&self, path: &Path) -> io::Result<()> {
        let mut ready = self.lock();
        let may_be_spare = !ready.spare && !ready.preparing && self.room()? == Room::Enough;
        let is_whole = (!ready.reserve || may_be_spare) && self.is_whole(path);
        if is_whole && !ready.reserve {
            self.files.rename(path, &self.dir.join(RESERVE))?;
            ready.reserve = true;
        } else if is_whole && may_be_spare {
            self.files.rename(path, &self.dir.join(SPARE))?;
            ready.spare = true;
        } else {
            self.files.remove(path)?;
        }
        Ok(())
    }

    /// Whether the disk reads all of it: a bad place could not be written in part, and kept a start from reading what is written.
    fn is_whole(&self, path: &Path) -> bool {
        const CHUNK_BYTES: usize = 1024 * 1024;
        let Ok(file) = self.files.open(path) else { return false };
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut offset = 0;
        while let Ok(read) = read_full(file.as_ref(), &mut chunk, offset) {
            offset += read as u64;
            if read < CHUNK_BYTES {
                return offset == self.segment_bytes;
            }
        }
        false
    }

    /// Afterwards no data key is left in what was recycled.
    pub(crate) fn forget_keys(&self) -> io::Result<()> {
        let _ready = self.lock();
        forget_keys(self.files.as_ref(), &self.dir)
    }
}

#[cfg(test)]
mod tests {
    use vitalgate_domain::Sequence;

    use super::*;
    use crate::copy::Ordinal;
    use crate::files::RealFiles;

    const SEGMENT_BYTES: u64 = 64 * 1024;

    fn space(folder: &Path) -> Arc<Space> {
        let options =
            StoreOptions { segment_bytes: SEGMENT_BYTES, background: false, free_space_floor_bytes: 0, ..StoreOptions::new(folder) };
        Space::new(Arc::new(RealFiles), folder, &options).unwrap()
    }

    /// Promise 1: a file that was taken stays the one under its name until it is a segment, whatever is made ready meanwhile. Else what
    /// is committed to it would be in no folder after a power cut.
    #[test]
    fn what_is_made_ready_meanwhile_does_not_take_the_place_of_what_was_taken() {
        let folder = tempfile::tempdir().unwrap();
        let space = space(folder.path());
        space.prepare();
        for _ in 0..2 {
            let (name, file) = space.take(true).unwrap().unwrap();
            file.write_all_at(b"committed", 0).unwrap();
            space.prepare();
            let there = std::fs::read(folder.path().join(name)).unwrap();
            assert!(there.starts_with(b"committed"), "another file lies there");
            std::fs::rename(folder.path().join(name), folder.path().join("segment")).unwrap();
            // The next one is made at once: there is no spare.
            std::fs::remove_file(folder.path().join(SPARE)).unwrap();
            space.lock().spare = false;
        }
    }

    /// A power cut between taking a file and beginning the segment costs no room, and no second spare.
    #[test]
    fn what_was_taken_and_not_begun_is_ready_again() {
        let folder = tempfile::tempdir().unwrap();
        let first = space(folder.path());
        first.prepare();
        let (name, _file) = first.take(false).unwrap().unwrap();
        let again = space(folder.path());
        assert!(again.lock().spare && again.lock().reserve && !folder.path().join(name).exists());
        again.take(false).unwrap().unwrap();
        std::fs::copy(folder.path().join(RESERVE), folder.path().join(SPARE)).unwrap();
        let third = space(folder.path());
        assert!(third.lock().spare && !folder.path().join(name).exists());
    }
    /// A power cut after the reserve was taken must not make a spare of it, which goes below the floor: nothing could be settled then.
    #[test]
    fn what_was_taken_while_there_is_no_reserve_is_the_reserve_again() {
        let folder = tempfile::tempdir().unwrap();
        space(folder.path()).prepare();
        std::fs::remove_file(folder.path().join(SPARE)).unwrap();
        let full = StoreOptions { segment_bytes: SEGMENT_BYTES, free_space_floor_bytes: u64::MAX, ..StoreOptions::new(folder.path()) };
        let first = Space::new(Arc::new(RealFiles), folder.path(), &full).unwrap();
        assert!(first.take(false).unwrap().is_none(), "none can be made");
        let (name, _file) = first.take(true).unwrap().unwrap();
        let again = Space::new(Arc::new(RealFiles), folder.path(), &full).unwrap();
        assert!(again.lock().reserve && !again.lock().spare && !folder.path().join(name).exists());
    }

    /// A file that was a segment says no data key any more, also where the power went before that was seen to.
    #[test]
    fn at_the_start_what_is_ready_says_no_data_key() {
        let folder = tempfile::tempdir().unwrap();
        space(folder.path()).prepare();
        for name in [SPARE, RESERVE] {
            let header = crate::segment::SegmentHeader {
                id: 7,
                first: Sequence(1),
                ordinal: Ordinal(1),
                wall: None,
                key_id: 1,
                wrapped: vec![9; 60],
            };
            RealFiles.open(&folder.path().join(name)).unwrap().write_all_at(&header.to_bytes(), 0).unwrap();
        }
        let ready = space(folder.path());
        assert!(ready.lock().spare && ready.lock().reserve);
        for name in [SPARE, RESERVE] {
            let bytes = std::fs::read(folder.path().join(name)).unwrap();
            assert!(bytes.len() as u64 == SEGMENT_BYTES && bytes.iter().all(|byte| *byte == 0), "{name}");
        }
    }
}
