//! The keyed side on a full disk: it waits, takes nothing for damage, and goes on by itself.

// The helpers of a test crate are tests too.
#![allow(clippy::unwrap_used, clippy::panic)]

mod keyed_support;

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use keyed_support::*;
use vitalgate_domain::Sequence;
use vitalgate_store::keyed::{DiskSync, Keyed, KeyedOptions, KeyedStatus, KeyedTimes, RealSync};
use vitalgate_store::{BlockSource, KeyedCopy, KeyedError, Ordinal, Watermark};

/// The number of the error for a full disk on Linux.
const ENOSPC: i32 = 28;
/// Free space of a disk that has some.
const PLENTY: u64 = 1 << 40;

/// A disk with as much space as the test says.
struct NarrowDisk {
    free: AtomicU64,
    /// A sync finds no space, as if a quota were used up.
    full: AtomicBool,
    /// A sync fills the disk, and hangs while somebody holds the gate.
    hang: AtomicBool,
    gate: Mutex<()>,
}

impl NarrowDisk {
    fn with(free: u64) -> Arc<Self> {
        Arc::new(Self { free: AtomicU64::new(free), full: AtomicBool::new(false), hang: AtomicBool::new(false), gate: Mutex::new(()) })
    }

    fn leave(&self, free: u64) {
        self.free.store(free, Ordering::SeqCst);
    }
}

impl DiskSync for NarrowDisk {
    fn sync_data(&self, path: &Path) -> io::Result<()> {
        if self.hang.load(Ordering::SeqCst) {
            self.leave(0);
            drop(self.gate.lock());
        }
        if self.full.load(Ordering::SeqCst) {
            return Err(io::Error::from_raw_os_error(ENOSPC));
        }
        RealSync.sync_data(path)
    }

    fn sync_all(&self, path: &Path) -> io::Result<()> {
        RealSync.sync_all(path)
    }

    fn free_space(&self, _: &Path) -> io::Result<u64> {
        Ok(self.free.load(Ordering::SeqCst))
    }
}

fn on(disk: &Arc<NarrowDisk>, dir: &Path) -> KeyedOptions {
    KeyedOptions { sync: Arc::clone(disk) as Arc<dyn DiskSync>, ..options(dir) }
}

fn attached(disk: &Arc<NarrowDisk>, dir: &Path, journal: &Arc<MemoryJournal>) -> Keyed {
    let keyed = Keyed::open(on(disk, dir));
    keyed.attach(Arc::clone(journal) as Arc<dyn BlockSource>);
    keyed
}

fn wait_until(keyed: &Keyed, is_so: impl Fn() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < until, "{:?}", keyed.status());
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

fn wait_until_it_waits(keyed: &Keyed) {
    wait_until(keyed, || matches!(keyed.status(), KeyedStatus::Waiting(_)));
}

/// Nothing may look like damage to the next start.
fn assert_nothing_set_aside(dir: &Path) {
    assert!(!dir.join("sled.damaged").exists(), "a full disk is not damage");
    assert!(!dir.join("quarantine").exists(), "a full disk is not damage");
}

fn assert_goes_on(keyed: &Keyed, dir: &Path, journal: &Arc<MemoryJournal>) {
    assert!(keyed.wait_reached(journal.committed().ordinal, true, PATIENCE), "{:?}", keyed.status());
    wait_until(keyed, || keyed.status() == KeyedStatus::Running);
    assert_complete(keyed, journal);
    assert_eq!(keyed.events(), []);
    assert_nothing_set_aside(dir);
}

/// With little space left nothing is fed and nothing asked of sled, and with space it goes on.
#[test]
fn it_waits_while_there_is_little_space_and_then_goes_on_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let journal = full_journal(20);
    let disk = NarrowDisk::with(PLENTY);
    let keyed = attached(&disk, folder.path(), &journal);
    assert!(keyed.wait_reached(journal.committed().ordinal, true, PATIENCE));
    disk.leave(0);
    // It may be about to take this one.
    journal.commit_readings(PER_BLOCK);
    wait_until_it_waits(&keyed);
    let before = (keyed.applied(), keyed.checkpointed());
    for _ in 0..20 {
        journal.commit_readings(PER_BLOCK);
    }
    assert!(matches!(keyed.block_at(Ordinal(1)), Err(KeyedError::Unavailable(_))));
    assert!(matches!(keyed.rejected(Sequence(1), Sequence(9), 9), Err(KeyedError::Unavailable(_))));
    assert!(!keyed.wait_reached(journal.committed().ordinal, false, Duration::from_millis(50)));
    assert_eq!((keyed.applied(), keyed.checkpointed()), before);
    disk.leave(PLENTY);
    assert_goes_on(&keyed, folder.path(), &journal);
    assert_eq!(keyed.shutdown(PATIENCE), KeyedStatus::Stopped);
}

/// An idle store on a full disk is not asked either: sled may write while it answers.
#[test]
fn a_lookup_is_unavailable_while_there_is_little_space() {
    let folder = tempfile::tempdir().unwrap();
    let journal = full_journal(5);
    let disk = NarrowDisk::with(PLENTY);
    let keyed = attached(&disk, folder.path(), &journal);
    assert!(keyed.wait_reached(journal.committed().ordinal, true, PATIENCE));
    disk.leave(0);
    assert!(matches!(keyed.block_at(Ordinal(1)), Err(KeyedError::Unavailable(_))));
    disk.leave(PLENTY);
    assert_goes_on(&keyed, folder.path(), &journal);
}

/// A start on a full disk waits without touching the store, keeps nobody waiting, and stops in order.
#[test]
fn a_start_on_a_full_disk_touches_nothing_and_opens_with_space() {
    let folder = tempfile::tempdir().unwrap();
    let journal = full_journal(20);
    filled_store(folder.path(), &journal);
    journal.commit_readings(PER_BLOCK);
    let disk = NarrowDisk::with(0);
    let begun = Instant::now();
    let stopped = attached(&disk, folder.path(), &journal);
    assert!(matches!(stopped.wait_open(PATIENCE), KeyedStatus::Waiting(_)), "{:?}", stopped.status());
    assert!(matches!(stopped.block_at(Ordinal(1)), Err(KeyedError::Unavailable(_))));
    assert!(begun.elapsed() < PATIENCE / 2, "the journal must not wait for it");
    assert_eq!(stopped.shutdown(PATIENCE), KeyedStatus::Stopped);
    let keyed = attached(&disk, folder.path(), &journal);
    wait_until_it_waits(&keyed);
    assert_eq!((keyed.applied(), keyed.checkpointed()), (Watermark::default(), Watermark::default()));
    disk.leave(PLENTY);
    assert_goes_on(&keyed, folder.path(), &journal);
}

/// Where looking does not tell, as with a quota, a checkpoint that finds no space is no damage: the
/// store is opened anew until it goes on, and nothing counts as certain meanwhile.
#[test]
fn a_checkpoint_without_space_is_no_damage_and_is_made_up_for() {
    let folder = tempfile::tempdir().unwrap();
    let journal = full_journal(20);
    let disk = NarrowDisk::with(PLENTY);
    let keyed = attached(&disk, folder.path(), &journal);
    assert!(keyed.wait_reached(journal.committed().ordinal, true, PATIENCE));
    let certain = journal.committed();
    disk.full.store(true, Ordering::SeqCst);
    journal.commit_readings(PER_BLOCK);
    wait_until_it_waits(&keyed);
    assert!(keyed.checkpointed() <= certain);
    assert_nothing_set_aside(folder.path());
    disk.full.store(false, Ordering::SeqCst);
    journal.commit_readings(PER_BLOCK);
    assert_goes_on(&keyed, folder.path(), &journal);
    assert_eq!(keyed.shutdown(PATIENCE), KeyedStatus::Stopped);
    drop(keyed);
    assert_goes_on(&attached(&disk, folder.path(), &journal), folder.path(), &journal);
}

/// What a full disk kept from being certain may be gone when the store is opened anew: until it is followed again nobody is told that it
/// is here, or an answer without it would be taken for whole. What is certain stays so: by it the journal makes room.
#[test]
fn what_may_be_gone_after_a_full_disk_does_not_count_as_reached() {
    let folder = tempfile::tempdir().unwrap();
    let journal = full_journal(20);
    let disk = NarrowDisk::with(PLENTY);
    let keyed = attached(&disk, folder.path(), &journal);
    assert!(keyed.wait_reached(journal.committed().ordinal, true, PATIENCE));
    let certain = journal.committed();
    disk.hang.store(true, Ordering::SeqCst);
    disk.full.store(true, Ordering::SeqCst);
    journal.commit_readings(PER_BLOCK);
    wait_until_it_waits(&keyed);
    assert_eq!((keyed.applied(), keyed.checkpointed()), (certain, certain));
    assert!(!keyed.wait_reached(journal.committed().ordinal, false, Duration::ZERO));
    disk.hang.store(false, Ordering::SeqCst);
    disk.full.store(false, Ordering::SeqCst);
    disk.leave(PLENTY);
    assert_goes_on(&keyed, folder.path(), &journal);
}

/// Bytes of the file that holds nearly everything; `None` while one store makes way for the next.
fn store_bytes(dir: &Path) -> Option<u64> {
    std::fs::metadata(dir.join("sled/db")).ok().map(|db| db.len())
}

/// sled keeps what it grew by. Asked to, it begins anew with what the journal still holds: all of that is found, nothing
/// counts as damaged or lost, it goes on following, and a next start knows of nothing.
#[test]
fn a_store_that_grew_gives_its_room_back() {
    let folder = tempfile::tempdir().unwrap();
    let journal = full_journal(2_000);
    let disk = NarrowDisk::with(PLENTY);
    let keyed = attached(&disk, folder.path(), &journal);
    let end = journal.committed();
    assert!(keyed.wait_reached(end.ordinal, true, PATIENCE));
    let grown = store_bytes(folder.path()).unwrap();
    journal.reclaim_before(Ordinal(end.ordinal.0 - 20));
    keyed.forget_up_to(Watermark { ordinal: Ordinal(end.ordinal.0 - 21), sequence: Sequence(0) });

    keyed.shrink(u64::MAX);
    keyed.shrink(grown / 2);
    let is_smaller = || store_bytes(folder.path()).is_some_and(|bytes| bytes < grown / 2);
    wait_until(&keyed, || is_smaller() && !folder.path().join("sled.removed").exists());
    assert_goes_on(&keyed, folder.path(), &journal);
    journal.commit_readings(PER_BLOCK);
    assert_goes_on(&keyed, folder.path(), &journal);
    assert_eq!(keyed.shutdown(PATIENCE), KeyedStatus::Stopped);
}

/// A power cut while a store is let go of, or before its successor is certain: what every destination had is not told as
/// lost, and the room comes back.
#[test]
fn a_power_cut_while_a_store_gives_its_room_back_loses_nothing() {
    for (successor_begun, conf_zeroed) in [(false, false), (true, false), (true, true)] {
        let folder = tempfile::tempdir().unwrap();
        let journal = full_journal(40);
        filled_store(folder.path(), &journal);
        journal.reclaim_before(Ordinal(journal.committed().ordinal.0 - 20));
        let let_go = folder.path().join("sled.removed");
        std::fs::rename(folder.path().join("sled"), &let_go).unwrap();
        if successor_begun {
            std::fs::create_dir(folder.path().join("sled")).unwrap();
        }
        if conf_zeroed {
            // sled does not sync it, and does not open a store with a zeroed one.
            std::fs::write(folder.path().join("sled/conf"), [0; 64]).unwrap();
        }
        let disk = NarrowDisk::with(PLENTY);
        let keyed = attached(&disk, folder.path(), &journal);
        assert_goes_on(&keyed, folder.path(), &journal);
        assert_eq!(keyed.shutdown(PATIENCE), KeyedStatus::Stopped);
        assert!(!let_go.exists());
    }
}

/// What is not larger than allowed, or began anew just now, stays as it is: no store is made again and again.
#[test]
fn a_store_is_not_made_anew_again_and_again() {
    let folder = tempfile::tempdir().unwrap();
    let journal = full_journal(20);
    let disk = NarrowDisk::with(PLENTY);
    let keyed = attached(&disk, folder.path(), &journal);
    // sled does not look at it; it goes with its folder.
    let mark = folder.path().join("sled").join("mark");
    let ask = |bytes_max: u64| {
        std::fs::write(&mark, b"").unwrap();
        keyed.shrink(bytes_max);
    };
    let stays = |bytes_max: u64| {
        ask(bytes_max);
        // One commit may be taken before what was asked is looked at.
        for _ in 0..2 {
            journal.commit_readings(PER_BLOCK);
            assert!(keyed.wait_reached(journal.committed().ordinal, true, PATIENCE), "{:?}", keyed.status());
        }
        mark.exists()
    };
    assert!(keyed.wait_reached(journal.committed().ordinal, true, PATIENCE));
    assert!(stays(u64::MAX), "it is small enough");
    // It is too large.
    ask(0);
    wait_until(&keyed, || !mark.exists());
    assert_goes_on(&keyed, folder.path(), &journal);
    for _ in 0..5 {
        assert!(stays(0), "it began anew just now");
    }
    assert_goes_on(&keyed, folder.path(), &journal);
}

/// A stop while it waits ends in order, without another word to the full disk.
#[test]
fn a_stop_on_a_full_disk_ends_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let journal = full_journal(20);
    let disk = NarrowDisk::with(PLENTY);
    let keyed = attached(&disk, folder.path(), &journal);
    assert!(keyed.wait_reached(journal.committed().ordinal, true, PATIENCE));
    let before = journal.committed();
    disk.leave(0);
    journal.commit_readings(PER_BLOCK);
    wait_until_it_waits(&keyed);
    assert_eq!(keyed.shutdown(PATIENCE), KeyedStatus::Stopped);
    assert_eq!(keyed.checkpointed(), before);
    assert_nothing_set_aside(folder.path());
}

/// sled may hang on a disk that became full: the process must start again, but on a sound store.
#[test]
fn a_hang_on_a_full_disk_leaves_no_note() {
    const CALL_MS: u64 = 5_000;
    let folder = tempfile::tempdir().unwrap();
    let journal = full_journal(2);
    let disk = NarrowDisk::with(PLENTY);
    // It holds for the checkpoints before the hang too.
    let times = KeyedTimes { call: Duration::from_millis(CALL_MS), ..quick_times() };
    let keyed = Keyed::open(KeyedOptions { times, ..on(&disk, folder.path()) });
    keyed.attach(Arc::clone(&journal) as Arc<dyn BlockSource>);
    assert!(keyed.wait_reached(journal.committed().ordinal, true, PATIENCE));
    let held = disk.gate.lock().unwrap();
    disk.hang.store(true, Ordering::SeqCst);
    journal.commit_readings(PER_BLOCK);
    assert!(!keyed.wait_reached(journal.committed().ordinal, true, PATIENCE));
    assert_eq!(keyed.status(), KeyedStatus::Failed(KeyedError::Deadline(CALL_MS)));
    assert_nothing_set_aside(folder.path());
    drop(held);
}
