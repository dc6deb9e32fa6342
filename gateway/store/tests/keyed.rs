//! The keyed side as the journal and the console see it.

// The helpers of a test crate are tests too.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

mod keyed_support;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use keyed_support::*;
use vitalgate_domain::{
    Change, DeadLetterKind, DeadLetterReason, DeviceId, Entry, KeyWrap, KeyWrapError, RejectedReading, Sequence, SequenceRanges,
};
use vitalgate_store::keyed::{DiskSync, Keyed, KeyedEvent, KeyedOptions, KeyedStatus, KeyedTimes, RealSync};
use vitalgate_store::{
    Around, BlockSource, Journal, KeyedCopy, KeyedError, Opened, Ordinal, RealFiles, StoreOptions, Watermark, open_with,
};

#[test]
fn probe_child() {
    probe_child_main();
}

fn attached(dir: &Path, journal: &Arc<MemoryJournal>) -> Keyed {
    let keyed = Keyed::open(options(dir));
    keyed.attach(Arc::clone(journal) as Arc<dyn BlockSource>);
    keyed
}

/// What the journal committed is found here by place, by id, by device and by what became of it,
/// also after a restart.
#[test]
fn everything_committed_is_found_by_every_way_of_asking() {
    let folder = tempfile::tempdir().unwrap();
    let journal = full_journal(60);
    filled_store(folder.path(), &journal);
    let keyed = Keyed::open(KeyedOptions { probe: probe_by_this_binary(), ..options(folder.path()) });
    keyed.attach(Arc::clone(&journal) as Arc<dyn BlockSource>);
    assert!(keyed.wait_reached(journal.committed().ordinal, true, PATIENCE));
    assert_complete(&keyed, &journal);
    let near = |device: DeviceId, window_ms, max| {
        let search = keyed.find_device(&Around { device, at: moment(700), window_ms }, max, None).unwrap();
        assert_eq!((search.below, search.lost.ranges()), (None, &[][..]));
        (search.found.is_cut(), search.found.into_records().iter().map(|record| record.sequence.0).collect::<Vec<_>>())
    };
    let expected: Vec<u64> = (680..=720).filter(|number| number % 5 == 0).collect();
    assert_eq!(near(device(700), 20_000, 100), (false, expected));
    assert_eq!(near(device(700), 20_000, 3), (true, vec![695, 700, 705]), "the nearest, not the newest");
    assert_eq!(near(device(700), u64::MAX, 3), (true, vec![695, 700, 705]));
    assert_eq!(near(DeviceId::new("nobody").unwrap(), 20_000, 3), (false, vec![]));
    assert_eq!(keyed.find_id(id(999_999), None).unwrap().found, None);
    assert_eq!(keyed.find_id(id(700), Some(Sequence(600))).unwrap().found, None, "only what lies below was asked for");
    assert_eq!(keyed.events(), []);
    assert_eq!(keyed.shutdown(PATIENCE), KeyedStatus::Stopped);
}

/// The keyed side may lag: it follows while commits go on, and stops reading without failing while
/// the journal cannot be read.
#[test]
fn it_follows_commits_and_catches_up_after_an_outage_of_the_journal() {
    let folder = tempfile::tempdir().unwrap();
    let journal = full_journal(3);
    let keyed = attached(folder.path(), &journal);
    assert!(keyed.wait_reached(journal.committed().ordinal, false, PATIENCE));
    for _ in 0..20 {
        journal.commit_readings(PER_BLOCK);
    }
    assert!(keyed.wait_reached(journal.committed().ordinal, false, PATIENCE));
    journal.broken.store(true, Ordering::SeqCst);
    journal.commit_readings(PER_BLOCK);
    assert!(!keyed.wait_reached(journal.committed().ordinal, false, Duration::from_millis(50)));
    assert_eq!(keyed.status(), KeyedStatus::Running);
    journal.broken.store(false, Ordering::SeqCst);
    journal.commit_readings(PER_BLOCK);
    assert!(keyed.wait_reached(journal.committed().ordinal, true, PATIENCE));
    assert_eq!(keyed.checkpointed(), journal.committed());
    assert_complete(&keyed, &journal);
}

/// Promise 4: every reason is told that is asked for, however many there are, and none of what was not asked for; and what cannot be
/// read now is never told as nothing.
#[test]
fn every_reason_and_every_id_is_told_or_the_lookup_fails() {
    const MANY: u64 = 6_000;
    let folder = tempfile::tempdir().unwrap();
    let journal = full_journal(1);
    for first in (1..=MANY).step_by(10) {
        let reason = DeadLetterReason::new(DeadLetterKind::TimeUnknown, "held");
        let refused = |number| RejectedReading { sequence: Sequence(number), id: id(number), reason: reason.clone() };
        let change = |rejected, remote_ids| Change::Settled { destination: ehr(), ranges: vec![], rejected, remote_ids };
        let given = (first..first + 10).map(|number| (Sequence(number), Arc::from(format!("given-{number}")))).collect();
        journal.commit_changes(&[change((first..first + 10).map(refused).collect(), vec![]), change(vec![], given)]);
    }
    let keyed = attached(folder.path(), &journal);
    assert!(keyed.wait_reached(journal.committed().ordinal, true, PATIENCE));
    let places = |max| {
        let told = keyed.rejected(Sequence(1), Sequence(MANY), max).unwrap();
        told.iter().map(|(_, rejected)| rejected.sequence.0).collect::<Vec<_>>()
    };
    assert_eq!(places(usize::MAX), (1..=MANY).collect::<Vec<_>>());
    assert_eq!(places(5_000), (1..=5_000).collect::<Vec<_>>());
    let mut of = SequenceRanges::new();
    [(1, 1), (7, 12), (4_500, 4_500), (MANY, MANY + 10)].iter().for_each(|(first, last)| of.insert(Sequence(*first), Sequence(*last)));
    let asked = [1, 7, 8, 9, 10, 11, 12, 4_500, MANY];
    let told = keyed.rejected_among(of.clone(), 100, PATIENCE).unwrap();
    assert_eq!(told.iter().map(|(_, rejected)| rejected.sequence.0).collect::<Vec<_>>(), asked);
    let ids = keyed.remote_ids(of.clone(), &ehr(), PATIENCE).unwrap();
    assert_eq!(ids, asked.map(|number| (Sequence(number), Arc::from(format!("given-{number}")))).into());

    journal.closed.store(true, Ordering::SeqCst);
    assert!(matches!(keyed.rejected_among(of.clone(), 100, PATIENCE), Err(KeyedError::Damaged(_))));
    assert!(matches!(keyed.remote_ids(of, &ehr(), PATIENCE), Err(KeyedError::Damaged(_))));
}

/// Promise 4: on a slow disk a search tells the nearest that it came to, and that there may be more; it does not fail for want of time.
#[test]
fn a_search_on_a_slow_disk_ends_in_time() {
    let folder = tempfile::tempdir().unwrap();
    let journal = full_journal(60);
    let times = KeyedTimes { lookup: Duration::from_secs(12), ..quick_times() };
    let keyed = Keyed::open(KeyedOptions { times, ..options(folder.path()) });
    keyed.attach(Arc::clone(&journal) as Arc<dyn BlockSource>);
    assert!(keyed.wait_reached(journal.committed().ordinal, true, PATIENCE));
    journal.slow_ms.store(500, Ordering::SeqCst);
    let search = keyed.find_device(&Around { device: device(700), at: moment(700), window_ms: u64::MAX }, 1_000, None).unwrap();
    assert!(search.found.is_cut(), "60 records take 30 seconds");
    assert!(search.found.into_records().iter().any(|record| record.sequence.0 == 700), "the nearest first");
}

/// Promise 1: whoever can wait only so long, as the commit loop, is not kept longer by a slow disk, nor by what others asked before and
/// gave up.
#[test]
fn who_asks_says_how_long_the_answer_may_take() {
    let folder = tempfile::tempdir().unwrap();
    let journal = full_journal(1);
    let reason = DeadLetterReason::new(DeadLetterKind::TimeUnknown, "held");
    let rejected = vec![RejectedReading { sequence: Sequence(1), id: id(1), reason }];
    let given = vec![(Sequence(1), Arc::from("given"))];
    journal.commit_changes(&[Change::Settled { destination: ehr(), ranges: vec![], rejected, remote_ids: given }]);
    let keyed = attached(folder.path(), &journal);
    assert!(keyed.wait_reached(journal.committed().ordinal, true, PATIENCE));
    let mut of = SequenceRanges::new();
    of.insert(Sequence(1), Sequence(1));
    let asked = |within| {
        let refused = keyed.rejected_among(of.clone(), 100, within).map(|told| told.len());
        [refused, keyed.remote_ids(of.clone(), &ehr(), within).map(|told| told.len())]
    };
    assert_eq!(asked(PATIENCE), [Ok(1), Ok(1)]);
    journal.slow_ms.store(200, Ordering::SeqCst);
    for within in [Duration::ZERO, Duration::from_millis(20)] {
        let told = asked(within);
        assert!(told.iter().all(|told| matches!(told, Err(KeyedError::Unavailable(_)))), "{told:?}");
    }
    journal.slow_ms.store(0, Ordering::SeqCst);
    assert_eq!(asked(PATIENCE), [Ok(1), Ok(1)]);
}

/// A shutdown right after commits leaves nothing to be replayed when there was time to catch up.
#[test]
fn a_shutdown_catches_up_and_checkpoints() {
    let folder = tempfile::tempdir().unwrap();
    let journal = full_journal(40);
    let keyed = attached(folder.path(), &journal);
    assert_eq!(keyed.wait_open(PATIENCE), KeyedStatus::Running);
    for _ in 0..40 {
        journal.commit_readings(PER_BLOCK);
    }
    assert_eq!(keyed.shutdown(PATIENCE), KeyedStatus::Stopped);
    assert_eq!(keyed.checkpointed(), journal.committed());
    assert!(matches!(keyed.block_at(Ordinal(1)), Err(KeyedError::Unavailable(_))));
    drop(keyed);
    let again = Keyed::open(options(folder.path()));
    assert_eq!(again.wait_open(PATIENCE), KeyedStatus::Running);
    assert_eq!(again.applied(), journal.committed());
    assert_eq!(again.checkpointed(), Watermark::default(), "nothing may be let go of before it was held against the journal");
}

/// Counts syncs, notes what was synced, and refuses or hangs on demand.
#[derive(Default)]
struct WatchedSync {
    data: Mutex<Vec<PathBuf>>,
    all: Mutex<Vec<PathBuf>>,
    refuse: AtomicBool,
    hang: AtomicBool,
    gate: Mutex<()>,
}

impl DiskSync for WatchedSync {
    fn sync_data(&self, path: &Path) -> io::Result<()> {
        if self.hang.load(Ordering::SeqCst) {
            drop(self.gate.lock());
        }
        if self.refuse.load(Ordering::SeqCst) {
            return Err(io::Error::other("refused by the test"));
        }
        self.data.lock().unwrap().push(path.to_path_buf());
        RealSync.sync_data(path)
    }

    fn sync_all(&self, path: &Path) -> io::Result<()> {
        self.all.lock().unwrap().push(path.to_path_buf());
        RealSync.sync_all(path)
    }
}

fn watched(dir: &Path, sync: &Arc<WatchedSync>, times: KeyedTimes) -> KeyedOptions {
    KeyedOptions { sync: Arc::clone(sync) as Arc<dyn DiskSync>, times, ..KeyedOptions::new(dir) }
}

/// `checkpointed` is what the journal deletes by: it moves only after the data file was synced
/// through a handle of our own, and after every file and folder was synced once since opening.
#[test]
fn a_checkpoint_syncs_the_data_file_and_the_opening_syncs_everything() {
    let folder = tempfile::tempdir().unwrap();
    let journal = full_journal(10);
    let sync = Arc::new(WatchedSync::default());
    let keyed = Keyed::open(watched(folder.path(), &sync, quick_times()));
    assert_eq!(keyed.wait_open(PATIENCE), KeyedStatus::Running);
    let store = folder.path().join("sled");
    let all = sync.all.lock().unwrap().clone();
    for path in [store.join("db"), store.join("conf"), store.join("blobs"), store.clone(), folder.path().to_path_buf()] {
        assert!(all.contains(&path), "{} was never synced", path.display());
    }
    keyed.attach(Arc::clone(&journal) as Arc<dyn BlockSource>);
    assert!(keyed.wait_reached(journal.committed().ordinal, true, PATIENCE));
    assert!(sync.data.lock().unwrap().contains(&store.join("db")));
    sync.refuse.store(true, Ordering::SeqCst);
    let before = keyed.checkpointed();
    journal.commit_readings(PER_BLOCK);
    assert!(!keyed.wait_reached(journal.committed().ordinal, true, PATIENCE), "a refused sync must not count");
    assert_eq!(keyed.checkpointed(), before);
    assert!(matches!(keyed.status(), KeyedStatus::Failed(KeyedError::Io(_))), "{:?}", keyed.status());
}

/// A disk that never answers is seen from outside the thread that waits for it, every lookup ends
/// in time, and the next start sets the store aside.
#[test]
fn a_hang_is_a_failure_after_the_deadline_and_leaves_a_note() {
    const CALL_MS: u64 = 5_000;
    let folder = tempfile::tempdir().unwrap();
    let journal = full_journal(2);
    let sync = Arc::new(WatchedSync::default());
    // It holds for the checkpoints before the hang too.
    let times = KeyedTimes { call: Duration::from_millis(CALL_MS), ..quick_times() };
    let keyed = Keyed::open(watched(folder.path(), &sync, times));
    keyed.attach(Arc::clone(&journal) as Arc<dyn BlockSource>);
    assert!(keyed.wait_reached(journal.committed().ordinal, true, PATIENCE));
    let held = sync.gate.lock().unwrap();
    sync.hang.store(true, Ordering::SeqCst);
    journal.commit_readings(PER_BLOCK);
    assert!(!keyed.wait_reached(journal.committed().ordinal, true, PATIENCE));
    assert_eq!(keyed.status(), KeyedStatus::Failed(KeyedError::Deadline(CALL_MS)));
    assert_eq!(keyed.block_at(Ordinal(1)), Err(KeyedError::Deadline(CALL_MS)));
    assert_eq!(keyed.shutdown(Duration::ZERO), KeyedStatus::Failed(KeyedError::Deadline(CALL_MS)));
    assert!(folder.path().join("sled.damaged").exists());
    drop(keyed);
    let again = attached(folder.path(), &journal);
    assert!(again.wait_reached(journal.committed().ordinal, true, PATIENCE));
    assert!(matches!(again.events().as_slice(), [KeyedEvent::Quarantined { .. }]), "{:?}", again.events());
    assert!(!folder.path().join("sled.damaged").exists());
    assert_complete(&again, &journal);
    // Not before: what hung goes on by the names of its files, which are those of the new store now.
    drop(held);
}

/// What the journal has let go of may be dropped here too, in steps; the latest snapshot stays, and
/// the store still passes its first look.
#[test]
fn forgotten_records_go_and_the_rest_stays() {
    let folder = tempfile::tempdir().unwrap();
    let journal = full_journal(200);
    let keyed = attached(folder.path(), &journal);
    assert!(keyed.wait_reached(journal.committed().ordinal, true, PATIENCE));
    let (long_gone, gone) = (journal.block(140).watermark(), journal.block(150).watermark());
    journal.reclaim_before(Ordinal(151));
    keyed.forget_up_to(gone);
    journal.commit_readings(PER_BLOCK);
    assert_eq!(keyed.shutdown(PATIENCE), KeyedStatus::Stopped);
    drop(keyed);
    let again = attached(folder.path(), &journal);
    again.forget_up_to(gone);
    assert!(again.wait_reached(journal.committed().ordinal, true, PATIENCE));
    let before = |again: &Keyed| (again.block_at(Ordinal(150)).unwrap(), again.block_covering(gone.sequence).unwrap());
    let until = std::time::Instant::now() + PATIENCE;
    while before(&again) != (None, None) {
        assert!(std::time::Instant::now() < until, "the records up to {gone:?} are still there");
        std::thread::park_timeout(Duration::from_millis(5));
    }
    assert_complete(&again, &journal);
    assert_eq!(again.rejected(Sequence(1), long_gone.sequence, 1_000).unwrap(), []);
    assert_eq!(again.shutdown(PATIENCE), KeyedStatus::Stopped);
    drop(again);
    let third = Keyed::open(KeyedOptions { probe: probe_by_this_binary(), ..options(folder.path()) });
    third.attach(Arc::clone(&journal) as Arc<dyn BlockSource>);
    assert!(third.wait_reached(journal.committed().ordinal, true, PATIENCE));
    assert_complete(&third, &journal);
    assert_eq!(third.events(), []);
}

/// Whoever looks a record up while it is let go of hears that it is there or that it is gone, never
/// that it is damaged.
#[test]
fn a_lookup_beside_forgetting_never_hears_of_damage() {
    const BLOCKS: u64 = 600;
    let folder = tempfile::tempdir().unwrap();
    let journal = full_journal(BLOCKS);
    let keyed = attached(folder.path(), &journal);
    assert!(keyed.wait_reached(journal.committed().ordinal, true, PATIENCE));
    let last = Ordinal(BLOCKS - 10);
    let gone = journal.block(last.0).watermark();
    journal.reclaim_before(last.next());
    keyed.forget_up_to(gone);
    let until = std::time::Instant::now() + PATIENCE;
    let mut at = Ordinal(1);
    while at < last {
        assert!(std::time::Instant::now() < until, "record {at:?} is still there");
        // Stays at one record until it goes, so that the look and the removal meet.
        match keyed.block_at(at) {
            Ok(Some(_)) => {}
            Ok(None) => at = at.next(),
            Err(failure) => panic!("record {at:?}: {failure}"),
        }
    }
    assert_eq!(keyed.shutdown(PATIENCE), KeyedStatus::Stopped);
}

/// Records that no copy has are passed over, told, and do not stop what comes after.
#[test]
fn a_range_lost_in_every_copy_is_told_and_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let journal = full_journal(40);
    let (from, until) = (journal.block(10), journal.block(14));
    journal.lose(from.ordinal, until.watermark());
    filled_through_loss(folder.path(), &journal, from.first, until.watermark().sequence);
    // The gap is known: the next start does not take it for damage.
    let again = Keyed::open(KeyedOptions { probe: probe_by_this_binary(), ..options(folder.path()) });
    again.attach(Arc::clone(&journal) as Arc<dyn BlockSource>);
    assert!(again.wait_reached(journal.committed().ordinal, true, PATIENCE));
    assert_eq!(again.events(), []);
}

fn filled_through_loss(dir: &Path, journal: &Arc<MemoryJournal>, from: Sequence, until: Sequence) {
    let keyed = attached(dir, journal);
    assert!(keyed.wait_reached(journal.committed().ordinal, true, PATIENCE), "{:?}", keyed.status());
    assert_eq!(keyed.events(), [KeyedEvent::Lost { from, until }]);
    assert_complete(&keyed, journal);
    assert_eq!(keyed.block_covering(from).unwrap(), None);
    let search = keyed.find_id(id(from.0), None).unwrap();
    assert_eq!((search.found, search.lost.ranges()), (None, &[(from, until)][..]), "whoever asks hears what is lost");
    assert_eq!(keyed.shutdown(PATIENCE), KeyedStatus::Stopped);
}

/// A store that is not this journal's copy is not built upon.
#[test]
fn the_store_of_another_journal_is_set_aside() {
    let folder = tempfile::tempdir().unwrap();
    filled_store(folder.path(), &full_journal(30));
    let other = MemoryJournal::new();
    for _ in 0..60 {
        other.commit_readings(7);
    }
    let keyed = attached(folder.path(), &other);
    assert!(keyed.wait_reached(other.committed().ordinal, true, PATIENCE), "{:?}", keyed.status());
    assert!(matches!(keyed.events().as_slice(), [KeyedEvent::Quarantined { .. }]), "{:?}", keyed.events());
    assert_complete(&keyed, &other);
    assert_eq!(keyed.shutdown(PATIENCE), KeyedStatus::Stopped);
    // One that is ahead of the journal neither.
    let short = MemoryJournal::new();
    short.commit_readings(7);
    let behind = attached(folder.path(), &short);
    assert!(behind.wait_reached(short.committed().ordinal, true, PATIENCE));
    assert!(matches!(behind.events().as_slice(), [KeyedEvent::Quarantined { .. }]), "{:?}", behind.events());
    assert_complete(&behind, &short);
    // It may hold what the journal lost, and is not where free space is made.
    assert!(folder.path().join("kept/ahead-1/db").is_file() && folder.path().join("quarantine/sled-1/db").is_file());
}

/// Promise 1: where the journal lost its end and went on, the store that had it may be the only one that holds what was acknowledged. It
/// is set aside where no free space is made.
#[test]
fn the_store_that_has_the_lost_end_of_a_journal_is_kept() {
    for held in [1, 30, 200] {
        let folder = tempfile::tempdir().unwrap();
        let journal = full_journal(30);
        filled_store(folder.path(), &journal);
        let end = journal.committed().ordinal;
        let held = held.min(end.0 - 1);
        journal.cut_after(Ordinal(end.0 - held));
        for _ in 0..=held {
            journal.commit_readings(7);
        }
        let keyed = attached(folder.path(), &journal);
        assert!(keyed.wait_reached(journal.committed().ordinal, true, PATIENCE), "{:?}", keyed.status());
        let told = keyed.events();
        assert!(matches!(told.as_slice(), [KeyedEvent::Quarantined { .. }]), "{held} records lost: {told:?}");
        assert_complete(&keyed, &journal);
        assert!(folder.path().join("kept/ahead-1/db").is_file(), "{held} records lost");
        assert!(!folder.path().join("quarantine").exists(), "{held} records lost");
    }
}

/// The test's key-encryption key hides nothing.
struct Bare;

impl KeyWrap for Bare {
    fn wrap(&self, data_key: &[u8; 32]) -> Result<Vec<u8>, KeyWrapError> {
        Ok(data_key.to_vec())
    }

    fn unwrap(&self, wrapped: &[u8]) -> Result<[u8; 32], KeyWrapError> {
        wrapped.try_into().map_err(|_| KeyWrapError::DoesNotOpen)
    }
}

fn wait_checkpointed(keyed: &Keyed, sequence: Sequence) {
    let until = Instant::now() + PATIENCE;
    while keyed.checkpointed().sequence < sequence {
        assert!(Instant::now() < until, "{:?} at {:?}", keyed.status(), keyed.checkpointed());
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// What is past its time can be read by nobody: a data key that is destroyed is in the keyed store no more.
#[test]
fn a_destroyed_data_key_goes_from_the_keyed_store_too() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("store");
    let options = StoreOptions { segment_bytes: 64 * 1024, free_space_floor_bytes: 0, retention_ms: 0, ..StoreOptions::new(&dir) };
    let keyed = KeyedOptions { times: quick_times(), ..KeyedOptions::new(&dir) };
    let Opened { mut journal, keyed, .. } = open_with(options, keyed, Arc::new(Bare), Arc::new(RealFiles)).unwrap();
    let key_ids = |keyed: &Keyed| keyed.wrapped_keys().unwrap().into_iter().map(|(key_id, _)| key_id).collect::<Vec<_>>();
    let commit = |journal: &mut Journal, number: u64| {
        let (_, last) = journal.append(&[Entry::Reading(reading(number))], &[]).unwrap().unwrap();
        wait_checkpointed(&keyed, last);
    };
    commit(&mut journal, 1);
    assert_eq!(key_ids(&keyed), [1]);
    let delivered = Change::Settled { destination: ehr(), ranges: vec![(Sequence(1), Sequence(1))], rejected: vec![], remote_ids: vec![] };
    let all_delivered = [Change::Destinations { present: [ehr()].into(), from: Sequence(1) }, delivered];
    journal.append(&[], &all_delivered).unwrap();
    journal.rotate_data_key(None).unwrap();
    commit(&mut journal, 2);
    assert_eq!(key_ids(&keyed), [1, 2], "what it sealed is still read");
    assert_eq!(journal.maintain().unwrap().keys_destroyed, 1);
    commit(&mut journal, 3);
    assert_eq!(key_ids(&keyed), [2]);
}
