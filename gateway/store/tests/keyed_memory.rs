//! A gateway has little memory, and a month of history must not eat it.

// The helpers of a test crate are tests too.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

mod keyed_support;

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use keyed_support::*;
use vitalgate_domain::{Change, Entry, Record, Sequence};
use vitalgate_store::keyed::{Keyed, KeyedOptions, KeyedStatus, KeyedTimes};
use vitalgate_store::{BlockKind, BlockSource, KeyedCopy, Ordinal, SealedBlock, SourceError, Watermark};

/// One million readings, 24 in a record.
const RECORDS: u64 = 1_000_000 / PER_BLOCK;
/// Length of a record, near the most.
const RECORD_BYTES: usize = 6_100;
/// A thousand checkpoints would take all of the test's time on a slow disk, and none comes so often in a gateway.
const CHECKPOINT_AGE: Duration = Duration::from_secs(5);
/// What the process may hold after the fill, in KiB; 41 MiB were seen, and 56 on a disk that takes long for each sync.
const FILLED_KIB_MAX: u64 = 64 * 1024;
/// What it may hold after a second opening and reading everything, in KiB: what the allocator kept of
/// the first store included. 55 to 65 MiB were seen, and 107 when the cache never took note.
const READ_KIB_MAX: u64 = 84 * 1024;

/// A journal that makes up its records when asked.
struct EndlessJournal {
    committed: AtomicU64,
}

impl EndlessJournal {
    fn block(ordinal: u64) -> SealedBlock {
        let mut bytes = vec![0; RECORD_BYTES];
        fastrand::Rng::with_seed(ordinal).fill(&mut bytes);
        let first = Sequence((ordinal - 1) * PER_BLOCK + 1);
        SealedBlock { kind: BlockKind::Entries, ordinal: Ordinal(ordinal), first, count: PER_BLOCK as u32, key_id: 1, bytes }
    }
}

impl BlockSource for EndlessJournal {
    fn committed(&self) -> Watermark {
        let ordinal = self.committed.load(Ordering::SeqCst);
        Watermark { ordinal: Ordinal(ordinal), sequence: Sequence(ordinal * PER_BLOCK) }
    }
    fn oldest(&self) -> Ordinal {
        Ordinal(1)
    }
    fn blocks_after(&self, after: Ordinal, bytes_max: usize) -> Result<Vec<SealedBlock>, SourceError> {
        let count = (bytes_max / RECORD_BYTES).max(1) as u64;
        let last = self.committed().ordinal.0.min(after.0 + count);
        Ok((after.0 + 1..=last).map(Self::block).collect())
    }
    fn open_entries(&self, block: &SealedBlock) -> Result<Vec<Record>, SourceError> {
        let places = block.first.0..block.first.0 + u64::from(block.count);
        Ok(places.map(|place| Record { sequence: Sequence(place), entry: Entry::Reading(reading(place)) }).collect())
    }
    fn open_changes(&self, _: &SealedBlock) -> Result<Vec<Change>, SourceError> {
        Ok(Vec::new())
    }
    fn parse(&self, _: &[u8]) -> Result<SealedBlock, SourceError> {
        Err(SourceError::Io("not in this test".into()))
    }
    fn wrapped_keys(&self) -> Vec<(u32, Vec<u8>)> {
        Vec::new()
    }
    fn subscribe(&self, _: Listener) {}
}

fn resident_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn probe_child() {
    probe_child_main();
}

/// A million readings, fed, found, opened again and read again, within a fixed memory.
#[test]
fn memory_stays_bounded_through_a_million_readings() {
    if std::env::args_os().any(|argument| argument == "--exact") && std::env::args_os().any(|argument| argument == "look") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let journal = Arc::new(EndlessJournal { committed: AtomicU64::new(RECORDS) });
    let before = resident_kib();
    let started = Instant::now();
    let times = KeyedTimes { checkpoint_age: CHECKPOINT_AGE, ..quick_times() };
    let keyed = Keyed::open(KeyedOptions { times, ..options(folder.path()) });
    keyed.attach(Arc::clone(&journal) as Arc<dyn BlockSource>);
    assert!(keyed.wait_reached(Ordinal(RECORDS), true, 10 * PATIENCE), "{:?}", keyed.status());
    println!("filled in {:?}: {} KiB before, {} KiB after", started.elapsed(), before, resident_kib());
    assert!(resident_kib() < FILLED_KIB_MAX, "{} KiB after the fill", resident_kib());
    let asked = Instant::now();
    let mut found = keyed.find_id(id(24), None).unwrap();
    while let (None, Some(below)) = (&found.found, found.below) {
        found = keyed.find_id(id(24), Some(below)).unwrap();
    }
    println!("oldest id in {:?}, {} KiB", asked.elapsed(), resident_kib());
    assert_eq!(found.found.map(|record| record.sequence), Some(Sequence(24)));
    assert_eq!(keyed.shutdown(PATIENCE), KeyedStatus::Stopped);
    drop(keyed);
    let db = fs::metadata(folder.path().join("sled/db")).unwrap().len();
    let opening = Instant::now();
    let again = Keyed::open(KeyedOptions { probe: probe_by_this_binary(), ..options(folder.path()) });
    assert_eq!(again.wait_open(PATIENCE), KeyedStatus::Running);
    println!("opened in {:?}, {} KiB, db {} MiB", opening.elapsed(), resident_kib(), db >> 20);
    for ordinal in 1..=RECORDS {
        assert!(again.block_at(Ordinal(ordinal)).unwrap().is_some());
    }
    println!("all read in {:?}: {} KiB", opening.elapsed(), resident_kib());
    assert!(resident_kib() < READ_KIB_MAX, "{} KiB after reading everything", resident_kib());
}
