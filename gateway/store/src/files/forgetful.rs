//! A file system in memory that forgets what was not synced when its power goes, for tests.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{FileSystem, FolderClaim, StoredFile};

/// Unit in which unsynced data survives or not, in bytes.
const PAGE_BYTES: usize = 4096;
/// Free space unless a test says otherwise, in bytes.
const FREE_BYTES: u64 = 1 << 40;

/// What becomes of unsynced changes at a power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PowerCut {
    /// All are gone.
    DropAll,
    /// Each unsynced page, length and folder entry survives or not by a seeded choice.
    KeepSome(u64),
    /// Lengths and folder entries survive; unsynced data is zero, or as before.
    KeepSizes,
}

#[derive(Debug, Clone, Default)]
struct Inode {
    cached: Vec<u8>,
    durable: Vec<u8>,
    dirty: BTreeSet<usize>,
    /// A bad place of the disk: it cannot be read, and not be written in part, since the rest of it would have to be read.
    bad: Option<Range<usize>>,
}

#[derive(Debug, Clone, Default)]
struct Disk {
    inodes: BTreeMap<u64, Inode>,
    cached_names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    next_inode: u64,
    operations: u64,
    cut_at: Option<u64>,
    fail_sync_at: Option<u64>,
    free: u64,
    /// Size of the disk; free is then what the files leave of it.
    capacity: Option<u64>,
}

/// Page cache over a durable disk, both in memory. Clones share the same disk.
#[derive(Debug, Clone)]
pub struct ForgetfulFiles {
    disk: Arc<Mutex<Disk>>,
}

impl Default for ForgetfulFiles {
    fn default() -> Self {
        Self { disk: Arc::new(Mutex::new(Disk { free: FREE_BYTES, ..Disk::default() })) }
    }
}

fn power_is_off() -> io::Error {
    io::Error::other("the power is off")
}

fn bad_place() -> io::Error {
    nix::errno::Errno::EIO.into()
}

fn not_found(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("{} is not there", path.display()))
}

impl Disk {
    /// Counts a changing operation. `Ok(true)` is the operation during which the power goes: it
    /// reaches the cache, but its caller never learns.
    fn step(&mut self) -> io::Result<bool> {
        self.operations += 1;
        match self.cut_at {
            Some(cut) if self.operations > cut => Err(power_is_off()),
            Some(cut) => Ok(self.operations == cut),
            None => Ok(false),
        }
    }

    /// Bytes of all files that have a name.
    fn used(&self) -> u64 {
        let named = self.cached_names.values().filter_map(|inode| self.inodes.get(inode));
        named.map(|inode| inode.cached.len() as u64).sum()
    }

    fn finish(cut: bool) -> io::Result<()> {
        if cut { Err(power_is_off()) } else { Ok(()) }
    }
}

impl ForgetfulFiles {
    fn lock(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many changing operations were done.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.lock().operations
    }

    /// Lets the power go during operation number `operation` (counted from 1 since the start).
    pub fn cut_at(&self, operation: u64) {
        self.lock().cut_at = Some(operation);
    }

    /// Lets a sync fail, if the operation so many steps ahead is one, as a disk does that drops
    /// what it could not write.
    pub fn fail_sync(&self, steps_ahead: u64) {
        let mut disk = self.lock();
        disk.fail_sync_at = Some(disk.operations + steps_ahead);
    }

    /// Sets the free space in bytes.
    pub fn set_free_space(&self, bytes: u64) {
        self.lock().free = bytes;
    }

    /// Gives the disk a size: so many bytes more than its files have now.
    pub fn set_room(&self, bytes: u64) {
        let mut disk = self.lock();
        disk.capacity = Some(disk.used() + bytes);
    }

    /// The disk as it is found after the power came back.
    #[must_use]
    pub fn after(&self, cut: PowerCut) -> Self {
        let mut disk = self.lock().clone();
        let mut random = fastrand::Rng::with_seed(if let PowerCut::KeepSome(seed) = cut { seed } else { 0 });
        let mut names = disk.durable_names.clone();
        let paths: BTreeSet<PathBuf> = disk.durable_names.keys().chain(disk.cached_names.keys()).cloned().collect();
        for path in paths {
            let survives = match cut {
                PowerCut::DropAll => false,
                PowerCut::KeepSome(_) => random.bool(),
                PowerCut::KeepSizes => true,
            };
            if survives {
                match disk.cached_names.get(&path) {
                    Some(inode) => names.insert(path, *inode),
                    None => names.remove(&path),
                };
            }
        }
        // A rename is one step, in one transaction of the file system's journal (ext4, xfs, btrfs): the file has its old name or
        // its new one, never neither and never both.
        for (path, inode) in &disk.durable_names {
            let lives = disk.cached_names.values().any(|named| named == inode);
            let named = names.values().filter(|named| *named == inode).count();
            if lives && named == 0 {
                names.insert(path.clone(), *inode);
            } else if named > 1 && names.get(path) == Some(inode) {
                names.remove(path);
            }
        }
        for inode in disk.inodes.values_mut() {
            inode.lose(cut, &mut random);
        }
        disk.cached_names.clone_from(&names);
        disk.durable_names = names;
        disk.operations = 0;
        disk.cut_at = None;
        disk.fail_sync_at = None;
        Self { disk: Arc::new(Mutex::new(disk)) }
    }

    /// The disk as another process finds it after this one was killed: nothing is forgotten.
    #[must_use]
    pub fn after_kill(&self) -> Self {
        let mut disk = self.lock().clone();
        disk.operations = 0;
        disk.cut_at = None;
        Self { disk: Arc::new(Mutex::new(disk)) }
    }

    /// As time goes by, the system writes everything back by itself.
    pub fn sync_everything(&self) {
        let mut disk = self.lock();
        disk.inodes.values_mut().for_each(Inode::sync);
        let names = disk.cached_names.clone();
        disk.durable_names = names;
    }

    /// Removes a file behind the store's back.
    pub fn forget(&self, path: &Path) {
        let mut disk = self.lock();
        disk.cached_names.remove(path);
        disk.durable_names.remove(path);
    }

    /// Paths of all files, sorted.
    #[must_use]
    pub fn paths(&self) -> Vec<PathBuf> {
        self.lock().cached_names.keys().cloned().collect()
    }

    /// Lets a part of a file be a bad place of the disk, or an empty part, which none is.
    pub fn spoil(&self, path: &Path, bad: Range<usize>) {
        let mut disk = self.lock();
        let Some(id) = disk.cached_names.get(path).copied() else { return };
        if let Some(inode) = disk.inodes.get_mut(&id) {
            inode.bad = Some(bad).filter(|bad| !bad.is_empty());
        }
    }

    /// Changes a file's bytes behind the store's back, in cache and on disk.
    pub fn damage(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut disk = self.lock();
        let Some(id) = disk.cached_names.get(path).copied() else { return };
        if let Some(inode) = disk.inodes.get_mut(&id) {
            change(&mut inode.cached);
            inode.durable.clone_from(&inode.cached);
            inode.dirty.clear();
        }
    }
}

impl Inode {
    fn lose(&mut self, cut: PowerCut, random: &mut fastrand::Rng) {
        let mut after = self.durable.clone();
        let keep_length = match cut {
            PowerCut::DropAll => false,
            PowerCut::KeepSome(_) => random.bool(),
            PowerCut::KeepSizes => true,
        };
        if keep_length {
            after.resize(self.cached.len(), 0);
        }
        if matches!(cut, PowerCut::KeepSome(_)) {
            for page in &self.dirty {
                let start = page * PAGE_BYTES;
                let end = (start + PAGE_BYTES).min(after.len()).min(self.cached.len());
                if random.bool() && start < end {
                    after[start..end].copy_from_slice(&self.cached[start..end]);
                }
            }
        }
        self.cached.clone_from(&after);
        self.durable = after;
        self.dirty.clear();
    }

    /// What of the file can be read from a position on.
    fn readable(&self, offset: usize) -> io::Result<&[u8]> {
        let bad = self.bad.as_ref().filter(|bad| offset < bad.end);
        let end = bad.map_or(usize::MAX, |bad| bad.start).min(self.cached.len());
        if bad.is_some() && offset >= end { Err(bad_place()) } else { Ok(self.cached.get(offset..end).unwrap_or_default()) }
    }

    fn write(&mut self, bytes: &[u8], offset: usize) -> io::Result<()> {
        let end = offset + bytes.len();
        let _whole = self.bad.take_if(|bad| offset <= bad.start && bad.end <= end);
        if self.bad.as_ref().is_some_and(|bad| offset < bad.end && bad.start < end) {
            return Err(bad_place());
        }
        if self.cached.len() < end {
            self.cached.resize(end, 0);
        }
        self.cached[offset..end].copy_from_slice(bytes);
        self.dirty.extend(offset / PAGE_BYTES..end.div_ceil(PAGE_BYTES));
        Ok(())
    }

    fn sync(&mut self) {
        self.durable.resize(self.cached.len(), 0);
        for page in std::mem::take(&mut self.dirty) {
            let start = page * PAGE_BYTES;
            let end = (start + PAGE_BYTES).min(self.cached.len());
            if start < end {
                self.durable[start..end].copy_from_slice(&self.cached[start..end]);
            }
        }
    }
}

struct ForgetfulFile {
    disk: Arc<Mutex<Disk>>,
    inode: u64,
}

impl ForgetfulFile {
    fn change<T>(&self, change: impl FnOnce(&mut Inode) -> T) -> io::Result<T> {
        let mut disk = self.disk.lock().unwrap_or_else(PoisonError::into_inner);
        let cut = disk.step()?;
        let result = disk.inodes.get_mut(&self.inode).map(change).ok_or_else(|| io::Error::other("no such inode"))?;
        Disk::finish(cut).map(|()| result)
    }

    fn sync(&self) -> io::Result<()> {
        let mut disk = self.disk.lock().unwrap_or_else(PoisonError::into_inner);
        let cut = disk.step()?;
        if disk.fail_sync_at == Some(disk.operations) {
            // The kernel marks the pages clean though they never reached the disk.
            if let Some(inode) = disk.inodes.get_mut(&self.inode) {
                inode.dirty.clear();
            }
            return Err(io::Error::other("the disk could not write"));
        }
        // Cut during the sync: nothing of it is certain.
        if cut {
            return Err(power_is_off());
        }
        disk.inodes.get_mut(&self.inode).map(Inode::sync).ok_or_else(|| io::Error::other("no such inode"))
    }
}

impl StoredFile for ForgetfulFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let disk = self.disk.lock().unwrap_or_else(PoisonError::into_inner);
        let inode = disk.inodes.get(&self.inode).ok_or_else(|| io::Error::other("no such inode"))?;
        let rest = inode.readable(usize::try_from(offset).unwrap_or(usize::MAX))?;
        let read = rest.len().min(buffer.len());
        buffer[..read].copy_from_slice(&rest[..read]);
        Ok(read)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.change(|inode| inode.write(bytes, usize::try_from(offset).unwrap_or(usize::MAX)))?
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.change(|inode| inode.cached.resize(usize::try_from(bytes).unwrap_or(usize::MAX), 0))
    }

    fn len(&self) -> io::Result<u64> {
        let disk = self.disk.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(disk.inodes.get(&self.inode).map_or(0, |inode| inode.cached.len() as u64))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync()
    }
}

struct NoClaim;

impl FolderClaim for NoClaim {}

impl FileSystem for ForgetfulFiles {
    fn create_dir_all(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn StoredFile>> {
        let mut disk = self.lock();
        let cut = disk.step()?;
        let inode = disk.next_inode;
        disk.next_inode += 1;
        disk.inodes.insert(inode, Inode::default());
        disk.cached_names.insert(path.to_owned(), inode);
        Disk::finish(cut)?;
        Ok(Arc::new(ForgetfulFile { disk: Arc::clone(&self.disk), inode }))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn StoredFile>> {
        let disk = self.lock();
        let inode = *disk.cached_names.get(path).ok_or_else(|| not_found(path))?;
        Ok(Arc::new(ForgetfulFile { disk: Arc::clone(&self.disk), inode }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut disk = self.lock();
        let cut = disk.step()?;
        let inode = disk.cached_names.remove(from).ok_or_else(|| not_found(from))?;
        disk.cached_names.insert(to.to_owned(), inode);
        Disk::finish(cut)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.lock();
        let cut = disk.step()?;
        disk.cached_names.remove(path).ok_or_else(|| not_found(path))?;
        Disk::finish(cut)
    }

    fn remove_dir_all(&self, dir: &Path) -> io::Result<()> {
        let mut disk = self.lock();
        let cut = disk.step()?;
        disk.cached_names.retain(|path, _| !path.starts_with(dir));
        Disk::finish(cut)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let disk = self.lock();
        let inside = disk.cached_names.keys().filter(|path| path.parent() == Some(dir));
        Ok(inside.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect())
    }

    fn holds_anything(&self, dir: &Path) -> io::Result<bool> {
        Ok(self.lock().cached_names.keys().any(|path| path.starts_with(dir)))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut disk = self.lock();
        if disk.step()? {
            return Err(power_is_off());
        }
        disk.durable_names.retain(|path, _| path.parent() != Some(dir));
        let inside: Vec<_> =
            disk.cached_names.iter().filter(|(path, _)| path.parent() == Some(dir)).map(|(path, inode)| (path.clone(), *inode)).collect();
        disk.durable_names.extend(inside);
        Ok(())
    }

    fn free_space(&self, _dir: &Path) -> io::Result<u64> {
        let disk = self.lock();
        Ok(disk.capacity.map_or(disk.free, |capacity| capacity.saturating_sub(disk.used())))
    }

    fn claim(&self, _dir: &Path) -> io::Result<Box<dyn FolderClaim>> {
        Ok(Box::new(NoClaim))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file that was renamed has one name after a power cut, whichever; two would be one file that the store takes for two.
    #[test]
    fn a_renamed_file_has_one_name_after_a_power_cut() {
        let (old, new) = (Path::new("/store/spare"), Path::new("/store/segment"));
        let files = ForgetfulFiles::default();
        drop(files.create(old).unwrap());
        files.sync_dir(Path::new("/store")).unwrap();
        files.rename(old, new).unwrap();
        let mut found = BTreeSet::new();
        for cut in [PowerCut::DropAll, PowerCut::KeepSizes].into_iter().chain((0..64).map(PowerCut::KeepSome)) {
            let paths = files.after(cut).paths();
            assert_eq!(paths.len(), 1, "{cut:?}: {paths:?}");
            found.extend(paths);
        }
        assert_eq!(found.len(), 2, "either name is seen: {found:?}");
    }
}
