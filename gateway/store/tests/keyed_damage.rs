//! One damaged file of the keyed store: it opens, holds everything that the journal holds, and says
//! what it found. Never a hang.

// The helpers of a test crate are tests too.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

mod keyed_support;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use keyed_support::*;
use vitalgate_store::keyed::{Keyed, KeyedEvent, KeyedOptions, KeyedStatus};
use vitalgate_store::{BlockSource, KeyedCopy, Ordinal};

/// Seeded trials with one damage each.
const TRIALS: u64 = 120;
/// Starts that a trial may take: a failure while running costs one.
const STARTS_MAX: usize = 4;
/// Length of a zeroed page.
const PAGE_BYTES: usize = 4_096;

#[test]
fn probe_child() {
    probe_child_main();
}

/// Every file below the folder, in a stable order.
fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files_below(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// Flips a bit, cuts the end off, or zeroes a page of one file. Says what it did.
fn damage(store: &Path, random: &mut fastrand::Rng) -> String {
    let files = files_below(store);
    // Half of the damage goes to the one file that holds nearly everything.
    let path = if random.bool() { store.join("db") } else { files[random.usize(..files.len())].clone() };
    let mut bytes = fs::read(&path).unwrap();
    let at = random.usize(..bytes.len());
    let what = match random.u8(..3) {
        0 => {
            bytes[at] ^= 1 << random.u8(..8);
            "flipped"
        }
        1 => {
            bytes.truncate(at);
            "cut"
        }
        _ => {
            let end = bytes.len().min(at + PAGE_BYTES);
            bytes[at..end].fill(0);
            "zeroed"
        }
    };
    fs::write(&path, bytes).unwrap();
    format!("{what} {} at {at}", path.file_name().unwrap().to_string_lossy())
}

/// Starts until it has caught up; a failure is answered by a new start, as the supervisor would.
fn recovered(options: &KeyedOptions, journal: &Arc<MemoryJournal>, what: &str) -> (Keyed, Vec<KeyedEvent>) {
    let mut events = Vec::new();
    for _ in 0..STARTS_MAX {
        let keyed = Keyed::open(options.clone());
        keyed.attach(Arc::clone(journal) as Arc<dyn BlockSource>);
        let reached = keyed.wait_reached(journal.committed().ordinal, true, PATIENCE);
        events.extend(keyed.events());
        if reached {
            return (keyed, events);
        }
        assert!(matches!(keyed.status(), KeyedStatus::Failed(_)), "{what}: it neither caught up nor failed: {:?}", keyed.status());
    }
    panic!("{what}: it did not recover in {STARTS_MAX} starts: {events:?}");
}

#[test]
fn whatever_single_file_is_damaged_nothing_that_the_journal_holds_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let journal = full_journal(80);
    let sound = folder.path().join("sound");
    filled_store(&sound, &journal);
    // A second run, so that there is a snapshot file of sled's own.
    journal.commit_readings(PER_BLOCK);
    filled_store(&sound, &journal);
    let started = Instant::now();
    let mut told = 0;
    for seed in 0..TRIALS {
        let mut random = fastrand::Rng::with_seed(seed);
        let dir = folder.path().join(seed.to_string());
        copy_folder(&sound, &dir);
        let what = format!("seed {seed}: {}", damage(&dir.join("sled"), &mut random));
        let options = KeyedOptions { probe: probe_by_this_binary(), ..options(&dir) };
        let (keyed, events) = recovered(&options, &journal, &what);
        println!("{what}: {events:?}");
        assert_complete(&keyed, &journal);
        told += usize::from(!events.is_empty());
        assert_eq!(keyed.shutdown(PATIENCE), KeyedStatus::Stopped, "{what}");
        fs::remove_dir_all(&dir).unwrap();
    }
    println!("{told} of {TRIALS} damages told, {:?}", started.elapsed());
    // What hits a part of `db` that nothing uses any more harms nobody and cannot be told.
    assert!(told > 0);
}

/// Damage that certainly concerns what is in use must be told, and the old store must be kept.
#[test]
fn damage_to_what_is_in_use_is_told_and_the_old_store_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let journal = full_journal(30);
    let sound = folder.path().join("sound");
    filled_store(&sound, &journal);
    // A second run, so that there is a snapshot file of sled's own.
    journal.commit_readings(PER_BLOCK);
    filled_store(&sound, &journal);
    type Harm = fn(&Path);
    let harms: [(&str, Harm); 6] = [
        ("db emptied", |store| fs::write(store.join("db"), b"").unwrap()),
        ("db gone", |store| fs::remove_file(store.join("db")).unwrap()),
        ("db zeroed", |store| {
            let length = fs::metadata(store.join("db")).unwrap().len();
            fs::write(store.join("db"), vec![0; usize::try_from(length).unwrap()]).unwrap();
        }),
        ("db cut to its half", |store| {
            let db = fs::read(store.join("db")).unwrap();
            fs::write(store.join("db"), &db[..db.len() / 2]).unwrap();
        }),
        ("snapshot flipped", |store| {
            let path = files_below(store).into_iter().find(|path| path.to_string_lossy().contains("snap.")).unwrap();
            let mut bytes = fs::read(&path).unwrap();
            bytes[40] ^= 4;
            fs::write(&path, bytes).unwrap();
        }),
        ("db full of noise", |store| {
            let mut noise = vec![0; 2 * 1024 * 1024];
            fastrand::Rng::with_seed(1).fill(&mut noise);
            fs::write(store.join("db"), noise).unwrap();
        }),
    ];
    for (what, harm) in harms {
        let dir = folder.path().join(what);
        copy_folder(&sound, &dir);
        harm(&dir.join("sled"));
        let options = KeyedOptions { probe: probe_by_this_binary(), ..options(&dir) };
        let (keyed, events) = recovered(&options, &journal, what);
        println!("{what}: {events:?}");
        assert!(events.iter().any(|event| matches!(event, KeyedEvent::Quarantined { to, .. } if to.is_dir())), "{what}: {events:?}");
        assert_complete(&keyed, &journal);
    }
}

/// sled takes an unfinished snapshot for its newest and never opens again; it only has to go.
#[test]
fn an_unfinished_snapshot_is_moved_away_and_costs_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let journal = full_journal(30);
    filled_store(folder.path(), &journal);
    fs::write(folder.path().join("sled/snap.00000000FFFFFFFF.generating"), b"half").unwrap();
    let (keyed, events) = recovered(&options(folder.path()), &journal, "unfinished snapshot");
    assert!(matches!(events.as_slice(), [KeyedEvent::SnapshotSetAside { to }] if to.exists()), "{events:?}");
    assert_complete(&keyed, &journal);
}

/// `conf` always has the same content: damaged, it is written anew and the store stays.
#[test]
fn a_damaged_conf_is_healed_without_a_rebuild() {
    let folder = tempfile::tempdir().unwrap();
    let journal = full_journal(30);
    filled_store(folder.path(), &journal);
    let conf = folder.path().join("sled/conf");
    let right = fs::read(&conf).unwrap();
    for wrong in [b"".to_vec(), vec![0; right.len()], [&right[..20], b"\xff", &right[21..]].concat()] {
        fs::write(&conf, wrong).unwrap();
        let (keyed, events) = recovered(&options(folder.path()), &journal, "conf");
        assert_eq!(events, [KeyedEvent::FileHealed { name: "conf" }]);
        assert_eq!(fs::read(&conf).unwrap(), right);
        assert_complete(&keyed, &journal);
        assert_eq!(keyed.shutdown(PATIENCE), KeyedStatus::Stopped);
    }
}

/// What the journal has let go of is only here. When the store is damaged, what is whole of it comes
/// over, and the rest is told as lost history.
#[test]
fn history_that_only_the_damaged_store_held_is_salvaged_as_far_as_it_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let journal = full_journal(120);
    filled_store(folder.path(), &journal);
    let all = journal.blocks();
    let oldest = Ordinal(101);
    journal.reclaim_before(oldest);
    // The store is sound except for its own claim of how far it is: a note makes the start set it aside.
    fs::write(folder.path().join("sled.damaged"), b"a test said so").unwrap();
    let options = KeyedOptions { probe: probe_by_this_binary(), ..options(folder.path()) };
    let (keyed, events) = recovered(&options, &journal, "salvage");
    assert!(matches!(events.first(), Some(KeyedEvent::Quarantined { reason, .. }) if reason == "a test said so"), "{events:?}");
    assert_eq!(events.get(1..), Some([KeyedEvent::Salvaged { records: 100 }].as_slice()));
    for block in all.iter().filter(|block| block.kind != vitalgate_store::BlockKind::State) {
        assert_eq!(keyed.block_at(block.ordinal).unwrap().as_ref(), Some(block));
    }
    assert_eq!(keyed.find_id(id(30), None).unwrap().found.map(|record| record.sequence.0), Some(30));
    assert_eq!(keyed.remote_id(vitalgate_domain::Sequence(75), &ehr()).unwrap().as_deref(), Some("obs-75"));
    assert_eq!(keyed.shutdown(PATIENCE), KeyedStatus::Stopped);
    drop(keyed);
    // And once more with a store of which nothing can be read.
    fs::write(folder.path().join("sled/db"), b"").unwrap();
    let (keyed, events) = recovered(&options, &journal, "nothing to salvage");
    assert!(events.contains(&KeyedEvent::HistoryLost { from: Ordinal(1), until: Ordinal(100) }), "{events:?}");
    assert_complete(&keyed, &journal);
}

/// A first look that never ends, or a probe that cannot be started, must not keep the store from
/// opening: the first costs a rebuild, the second nothing.
#[test]
fn a_probe_that_hangs_costs_a_rebuild_and_one_that_is_missing_costs_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let journal = full_journal(20);
    filled_store(folder.path(), &journal);
    let missing = KeyedOptions { probe: Some(vec!["/nonexistent/probe".into()]), ..options(folder.path()) };
    let (keyed, events) = recovered(&missing, &journal, "missing probe");
    assert_eq!(events, []);
    assert_eq!(keyed.shutdown(PATIENCE), KeyedStatus::Stopped);
    drop(keyed);
    let mut hanging = KeyedOptions { probe: Some(vec!["tail".into(), "-f".into(), "/dev/null".into()]), ..options(folder.path()) };
    // It holds for the opening of the new store too.
    hanging.times.open = Duration::from_secs(5);
    let (keyed, events) = recovered(&hanging, &journal, "hanging probe");
    assert!(matches!(events.as_slice(), [KeyedEvent::Quarantined { reason, .. }] if reason.contains("too long")), "{events:?}");
    assert_complete(&keyed, &journal);
}
