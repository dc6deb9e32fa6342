//! A rebuild of the keyed store that is cut short: history that only the damaged store held is found
//! at the next start, or told as lost. Never gone in silence.

// The helpers of a test crate are tests too.
#![allow(clippy::unwrap_used, clippy::panic)]

mod keyed_support;

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use keyed_support::*;
use vitalgate_store::keyed::{DiskSync, Keyed, KeyedEvent, KeyedOptions, KeyedStatus, RealSync};
use vitalgate_store::{BlockKind, BlockSource, KeyedCopy, Ordinal, SealedBlock};

/// Rounds of readings in the journal; some 2 MiB of records, several of sled's buffers.
const ROUNDS: u64 = 600;
/// Records that the journal still holds.
const HELD: u64 = 20;
/// Rebuilds that are begun before what is missing is told as lost.
const REBUILDS_MAX: usize = 3;

#[test]
fn probe_child() {
    probe_child_main();
}

/// The rebuild is cut when all is brought over and written, right before it is certain.
const AT_THE_CHECKPOINT: u64 = u64::MAX;

/// Ends the process, as a kill would, before the record after so many is brought over: the feeder
/// looks at the free space before each.
struct CutDisk {
    records: u64,
    looked: AtomicU64,
}

impl DiskSync for CutDisk {
    fn sync_data(&self, path: &Path) -> io::Result<()> {
        if self.records == AT_THE_CHECKPOINT {
            std::process::abort();
        }
        RealSync.sync_data(path)
    }

    fn sync_all(&self, path: &Path) -> io::Result<()> {
        RealSync.sync_all(path)
    }

    fn free_space(&self, dir: &Path) -> io::Result<u64> {
        if dir.join("sled.salvaged").exists() && self.looked.fetch_add(1, Ordering::SeqCst) == self.records {
            std::process::abort();
        }
        RealSync.free_space(dir)
    }
}

/// The journal of every process here, and all records that it ever held.
fn journal() -> (Arc<MemoryJournal>, Vec<SealedBlock>) {
    let journal = full_journal(ROUNDS);
    let all = journal.blocks();
    (journal, all)
}

fn let_go_of_history(journal: &MemoryJournal) -> Ordinal {
    let oldest = Ordinal(journal.committed().ordinal.0 - HELD);
    journal.reclaim_before(oldest);
    oldest
}

/// A store of the whole journal, which then lets go of its history, and a note that it is damaged.
fn damaged_store(dir: &Path, journal: &Arc<MemoryJournal>) -> Ordinal {
    filled_store(dir, journal);
    let oldest = let_go_of_history(journal);
    fs::write(dir.join("sled.damaged"), b"a test said so").unwrap();
    oldest
}

/// A process that is killed in the middle of the rebuild; nothing in a normal run.
#[test]
fn cut_child() {
    let arguments: Vec<OsString> = std::env::args_os().skip_while(|argument| argument != "--nocapture").skip(1).collect();
    let [dir, records] = arguments.as_slice() else { return };
    let (journal, _) = journal();
    let_go_of_history(&journal);
    let disk = CutDisk { records: records.to_str().unwrap().parse().unwrap(), looked: AtomicU64::new(0) };
    let keyed = Keyed::open(KeyedOptions { sync: Arc::new(disk), ..options(&PathBuf::from(dir)) });
    keyed.attach(Arc::clone(&journal) as Arc<dyn BlockSource>);
    assert!(keyed.wait_reached(journal.committed().ordinal, true, PATIENCE), "{:?}", keyed.status());
}

/// Runs the rebuild in a child until it is killed after so many records. Whether it was.
fn cut_after(dir: &Path, records: u64) -> bool {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "cut_child", "--nocapture"]).arg(dir).arg(records.to_string());
    !child.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
}

fn started(dir: &Path, journal: &Arc<MemoryJournal>) -> Keyed {
    // What is salvaged in this process stays open in it, and would be closed to a second try.
    let keyed = Keyed::open(KeyedOptions { probe: probe_by_this_binary(), ..options(dir) });
    keyed.attach(Arc::clone(journal) as Arc<dyn BlockSource>);
    assert!(keyed.wait_reached(journal.committed().ordinal, true, PATIENCE), "{:?} {:?}", keyed.status(), keyed.events());
    keyed
}

/// The records of history that are neither found nor told as lost.
fn missing_in_silence(keyed: &Keyed, all: &[SealedBlock]) -> Vec<Ordinal> {
    let events = keyed.events();
    let told = |ordinal: Ordinal| {
        events.iter().any(|event| matches!(event, KeyedEvent::HistoryLost { from, until } if (*from..=*until).contains(&ordinal)))
    };
    let history = all.iter().filter(|block| block.kind != BlockKind::State && !told(block.ordinal));
    history.filter(|block| keyed.block_at(block.ordinal).ok().flatten().as_ref() != Some(block)).map(|block| block.ordinal).collect()
}

fn assert_at_rest(keyed: &Keyed, dir: &Path, journal: &Arc<MemoryJournal>) {
    assert_complete(keyed, journal);
    assert_eq!(keyed.shutdown(PATIENCE), KeyedStatus::Stopped);
    for left in ["sled.rebuilding", "sled.salvaged", "sled.damaged"] {
        assert!(!dir.join(left).exists(), "{left}");
    }
    let next = started(dir, journal);
    assert_eq!(next.events(), [], "the next start knows of nothing");
    assert_eq!(next.shutdown(PATIENCE), KeyedStatus::Stopped);
}

/// Wherever the rebuild is cut, the next start brings over all of the history from the damaged store.
#[test]
fn a_rebuild_that_is_cut_is_begun_again_and_nothing_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, all) = journal();
    let oldest = damaged_store(&folder.path().join("damaged"), &journal);
    for records in [400, 150, 1, 0, oldest.0 - 2, AT_THE_CHECKPOINT] {
        let dir = folder.path().join(records.to_string());
        copy_folder(&folder.path().join("damaged"), &dir);
        assert!(cut_after(&dir, records), "{records}");
        let keyed = started(&dir, &journal);
        assert_eq!(missing_in_silence(&keyed, &all), [], "cut after {records}: {:?}", keyed.events());
        assert_eq!(keyed.events(), [KeyedEvent::Salvaged { records: oldest.0 - 1 }], "cut after {records}");
        assert_at_rest(&keyed, &dir, &journal);
    }
}

/// Where the damaged store is gone when the rebuild is begun again, its history is told as lost.
#[test]
fn history_is_told_as_lost_when_the_damaged_store_is_gone_after_a_cut() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, all) = journal();
    let oldest = damaged_store(folder.path(), &journal);
    assert!(cut_after(folder.path(), 400));
    fs::remove_dir_all(folder.path().join("quarantine")).unwrap();
    let keyed = started(folder.path(), &journal);
    assert_eq!(missing_in_silence(&keyed, &all), []);
    assert_eq!(keyed.events(), [KeyedEvent::HistoryLost { from: Ordinal(1), until: Ordinal(oldest.0 - 1) }]);
    assert_at_rest(&keyed, folder.path(), &journal);
}

/// A store that vanished is told as lost history, also when the start that noticed it was cut.
#[test]
fn history_is_told_as_lost_by_the_start_after_the_one_that_was_cut() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, _) = journal();
    let oldest = damaged_store(folder.path(), &journal);
    fs::remove_dir_all(folder.path().join("sled")).unwrap();
    assert!(cut_after(folder.path(), AT_THE_CHECKPOINT));
    let keyed = started(folder.path(), &journal);
    assert_eq!(keyed.events(), [KeyedEvent::HistoryLost { from: Ordinal(1), until: Ordinal(oldest.0 - 1) }]);
    assert_at_rest(&keyed, folder.path(), &journal);
}

/// Promise 4: whoever asks before history is brought over can tell that what is not there yet may come.
#[test]
fn a_store_says_that_it_is_rebuilt_until_its_history_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, all) = journal();
    let oldest = damaged_store(folder.path(), &journal);
    let keyed = Keyed::open(KeyedOptions { probe: probe_by_this_binary(), ..options(folder.path()) });
    assert_eq!(keyed.wait_open(PATIENCE), KeyedStatus::Running);
    let held = all.iter().rev().find(|block| block.ordinal < oldest && block.kind == BlockKind::Entries).unwrap();
    assert_eq!(keyed.block_at(held.ordinal).unwrap(), None);
    assert!(keyed.is_rebuilding());
    keyed.attach(Arc::clone(&journal) as Arc<dyn BlockSource>);
    let until = Instant::now() + PATIENCE;
    while keyed.is_rebuilding() {
        assert!(Instant::now() < until, "{:?}", keyed.status());
        std::thread::park_timeout(Duration::from_millis(5));
    }
    assert_eq!(keyed.block_at(held.ordinal).unwrap().as_ref(), Some(held));
}

/// A rebuild that ends the process each time is not begun for ever: what is missing is told as lost,
/// the damaged store stays in quarantine, and the gateway goes on.
#[test]
fn a_rebuild_that_is_cut_again_and_again_is_given_up_and_told() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, all) = journal();
    let oldest = damaged_store(folder.path(), &journal);
    for _ in 0..REBUILDS_MAX {
        assert!(cut_after(folder.path(), 400));
    }
    let keyed = started(folder.path(), &journal);
    assert_eq!(missing_in_silence(&keyed, &all), []);
    assert_eq!(keyed.events(), [KeyedEvent::HistoryLost { from: Ordinal(1), until: Ordinal(oldest.0 - 1) }]);
    assert!(folder.path().join("quarantine/sled-1").is_dir());
    assert_at_rest(&keyed, folder.path(), &journal);
}

/// A store whose first checkpoint was reached is finished, whatever else the cut left: it is kept.
#[test]
fn a_cut_right_after_the_first_checkpoint_costs_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, all) = journal();
    filled_store(folder.path(), &journal);
    let_go_of_history(&journal);
    fs::write(folder.path().join("sled.rebuilding"), b"sled-1 1").unwrap();
    let keyed = started(folder.path(), &journal);
    assert_eq!(missing_in_silence(&keyed, &all), []);
    assert_eq!(keyed.events(), []);
    assert_at_rest(&keyed, folder.path(), &journal);
}

/// A disk that becomes full in the middle of the rebuild, and has room again when the test says so.
#[derive(Default)]
struct FillingDisk {
    looked: AtomicU64,
    emptied: AtomicBool,
}

impl DiskSync for FillingDisk {
    fn sync_data(&self, path: &Path) -> io::Result<()> {
        RealSync.sync_data(path)
    }

    fn sync_all(&self, path: &Path) -> io::Result<()> {
        RealSync.sync_all(path)
    }

    fn free_space(&self, dir: &Path) -> io::Result<u64> {
        let salvaging = dir.join("sled.salvaged").exists();
        let full = salvaging && self.looked.fetch_add(1, Ordering::SeqCst) >= 400 && !self.emptied.load(Ordering::SeqCst);
        if full { Ok(0) } else { RealSync.free_space(dir) }
    }
}

/// A disk that becomes full during the rebuild only delays it, also when the gateway is stopped meanwhile.
#[test]
fn a_disk_that_fills_during_the_rebuild_costs_no_history() {
    for stopped in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let (journal, all) = journal();
        let oldest = damaged_store(folder.path(), &journal);
        let disk = Arc::new(FillingDisk::default());
        let sync = Arc::clone(&disk) as Arc<dyn DiskSync>;
        let mut keyed = Keyed::open(KeyedOptions { sync, probe: probe_by_this_binary(), ..options(folder.path()) });
        keyed.attach(Arc::clone(&journal) as Arc<dyn BlockSource>);
        let until = Instant::now() + PATIENCE;
        while !matches!(keyed.status(), KeyedStatus::Waiting(_)) {
            assert!(Instant::now() < until, "{:?}", keyed.status());
            std::thread::park_timeout(Duration::from_millis(5));
        }
        if stopped {
            assert_eq!(keyed.shutdown(PATIENCE), KeyedStatus::Stopped);
            keyed = started(folder.path(), &journal);
        } else {
            disk.emptied.store(true, Ordering::SeqCst);
            assert!(keyed.wait_reached(journal.committed().ordinal, true, PATIENCE), "{:?}", keyed.status());
        }
        assert_eq!(missing_in_silence(&keyed, &all), []);
        assert!(keyed.events().contains(&KeyedEvent::Salvaged { records: oldest.0 - 1 }), "{:?}", keyed.events());
        assert_at_rest(&keyed, folder.path(), &journal);
    }
}
