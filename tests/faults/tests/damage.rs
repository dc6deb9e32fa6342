//! Any one file of the store, its key files included, is damaged: the store opens, nothing that
//! was acknowledged is missing, and the damage is told.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "helpers of tests; the counts are part of the proof")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use vitalgate_domain::{Entry, Sequence};
use vitalgate_faults::{copy_folder, destinations, files_below, open, open_still, read_all, readings, settled};
use vitalgate_store::keyed::{KeyedEvent, KeyedStatus};
use vitalgate_store::{Finding, KeyedCopy};

const TRIALS: u64 = 300;
/// What a store consists of.
const FOLDERS: [&str; 4] = ["journal", "shadow", "keys", "sled"];
/// Kinds of [`damage`].
const KINDS: usize = 4;
const ENTRIES: u64 = 2_000;
const PATIENCE: Duration = Duration::from_secs(120);
const PROBE: &str = env!("CARGO_BIN_EXE_sled-probe");

/// A store as a kill leaves it: once with the keyed side far behind, once with it up to date and
/// the needless shadows dropped.
fn begun(dir: &Path, keyed_follows: bool) -> (PathBuf, Vec<Entry>) {
    let work = dir.join("work");
    let mut opened = open_still(&work, Some(PROBE)).unwrap();
    let entries = readings(0, ENTRIES).unwrap();
    opened.journal.append(&[], &[destinations(&["ehr", "cloud"]).unwrap()]).unwrap();
    let early = entries.len() / 4;
    for part in entries[..early].chunks(37) {
        opened.journal.append(part, &[settled("ehr", 1, 100).unwrap()]).unwrap();
    }
    let caught_up = |opened: &vitalgate_store::Opened, sequence: u64| {
        let ordinal = opened.keyed.applied().ordinal;
        assert!(opened.keyed.wait_reached(ordinal, true, PATIENCE));
        opened.keyed.applied().sequence.0 >= sequence
    };
    assert_ne!(opened.keyed.wait_open(PATIENCE), KeyedStatus::Opening);
    while !caught_up(&opened, early as u64) {}
    if !keyed_follows {
        // From here on only journal and shadow know.
        assert_eq!(opened.keyed.shutdown(PATIENCE), KeyedStatus::Stopped);
    }
    for part in entries[early..].chunks(61) {
        opened.journal.append(part, &[settled("cloud", 1, 300).unwrap()]).unwrap();
    }
    if keyed_follows {
        while !caught_up(&opened, ENTRIES) {}
        assert!(opened.journal.maintain().unwrap().shadows_dropped > 0);
        assert_eq!(opened.keyed.shutdown(PATIENCE), KeyedStatus::Stopped);
    }
    // Nobody writes any more, so that the copy is what lies there at one moment.
    let snapshot = dir.join("snapshot");
    copy_folder(&work, &snapshot).unwrap();
    (snapshot, entries)
}

/// A bit, a cut, a zeroed page, or everything zeroed; gives what was done, or `None` where it changed nothing of content.
fn damage(path: &Path, random: &mut fastrand::Rng) -> Option<&'static str> {
    let mut bytes = std::fs::read(path).unwrap();
    if bytes.is_empty() {
        return None;
    }
    let before = bytes.clone();
    let what = match random.u8(0..10) {
        0..4 => {
            let used = bytes.iter().rposition(|byte| *byte != 0).map_or(1, |last| last + 1);
            bytes[random.usize(..used)] ^= 1 << random.u8(0..8);
            "a bit"
        }
        4..6 => {
            bytes.truncate(random.usize(..bytes.len()));
            "truncated"
        }
        6..9 => {
            let page = random.usize(..bytes.len().div_ceil(4_096)) * 4_096;
            let end = (page + 4_096).min(bytes.len());
            bytes[page..end].fill(0);
            "a page zeroed"
        }
        _ => {
            bytes.fill(0);
            "all zeroed"
        }
    };
    std::fs::write(path, &bytes).unwrap();
    (bytes != before).then_some(what)
}

#[derive(Default)]
struct Tally {
    trials: u64,
    told: u64,
    sled_rebuilt: u64,
    /// Of each folder and each kind of damage: trials, and those that were told.
    each: BTreeMap<(&'static str, &'static str), (u64, u64)>,
}

fn trial(snapshot: &Path, entries: &[Entry], seed: u64, tally: &mut Tally) {
    let mut random = fastrand::Rng::with_seed(seed);
    let work = tempfile::tempdir().unwrap();
    let dir = work.path().join("store");
    copy_folder(snapshot, &dir).unwrap();
    // Each folder alike, though sled has few files and the journal many.
    let all: Vec<PathBuf> = files_below(&dir).unwrap();
    let folder = FOLDERS[random.usize(..FOLDERS.len())];
    let files: Vec<&PathBuf> = all.iter().filter(|path| path.starts_with(dir.join(folder))).collect();
    let path = files[random.usize(..files.len())].clone();
    let what = damage(&path, &mut random);
    let context = format!("seed {seed}: {} in {}", what.unwrap_or("nothing"), path.strip_prefix(&dir).unwrap().display());
    let opened = open(&dir, Some(PROBE)).unwrap_or_else(|error| panic!("{context}: {error:?}"));
    let records = read_all(&opened.reader).unwrap_or_else(|error| panic!("{context}: {error:?}"));
    assert_eq!(records.len(), entries.len(), "{context}");
    for (record, entry) in records.iter().zip(entries) {
        assert_eq!(&record.entry, entry, "{context}");
    }
    // The keyed side comes to hold everything too, whatever was damaged.
    let last = opened.reader.committed();
    assert_eq!(opened.keyed.wait_open(PATIENCE), KeyedStatus::Running, "{context}");
    let end = std::time::Instant::now() + PATIENCE;
    while opened.keyed.applied().sequence < last {
        let reached = opened.keyed.applied().ordinal;
        assert!(opened.keyed.wait_reached(reached.next(), false, PATIENCE) && std::time::Instant::now() < end, "{context}");
    }
    assert!(opened.keyed.block_covering(last).unwrap().is_some(), "{context}");
    let rebuilt = opened.keyed.events().iter().any(|event| matches!(event, KeyedEvent::Quarantined { .. }));
    tally.trials += 1;
    tally.sled_rebuilt += u64::from(rebuilt);
    // A shadow is a second copy: what is wrong with it is no damage to the store, and is told by its name.
    let tells = |finding: &Finding| finding.is_damage() || matches!(finding, Finding::ShadowRebuilt { file } if dir.join(file) == path);
    let told = !opened.keyed.events().is_empty() || opened.reader.findings().iter().any(tells);
    tally.told += u64::from(told);
    if let Some(what) = what {
        let (trials, times) = tally.each.entry((folder, what)).or_default();
        *trials += 1;
        *times += u64::from(told);
    }
    if what.is_some_and(|what| what != "a bit")
        && (folder == "keys" || (folder == "journal" && path.extension().is_some_and(|kind| kind == "segment")))
    {
        assert!(opened.reader.findings().iter().any(Finding::is_damage), "{context}: not told");
    }
    opened.keyed.shutdown(PATIENCE);
}

#[test]
fn damage_to_any_one_file_loses_nothing_and_is_told() {
    let mut tally = Tally::default();
    for (keyed_follows, seeds) in [(false, 0..TRIALS / 2), (true, TRIALS / 2..TRIALS)] {
        let folder = tempfile::tempdir().unwrap();
        let (snapshot, entries) = begun(folder.path(), keyed_follows);
        for seed in seeds {
            trial(&snapshot, &entries, seed, &mut tally);
        }
    }
    let Tally { trials, told, sled_rebuilt, each } = tally;
    println!("damage to any one file: {trials} trials, {told} told, {sled_rebuilt} keyed stores rebuilt, 0 entries missing");
    each.iter().for_each(|((folder, what), (trials, told))| println!("  {folder}, {what}: {told} of {trials} told"));
    assert_eq!(trials, TRIALS);
    // Whoever reads what is damaged tells it; much of a file is never read again, and zeros in place of zeros are no damage.
    assert!(told > TRIALS * 3 / 5 && sled_rebuilt > 0, "only {told} told");
    let is_each_told = each.len() == FOLDERS.len() * KINDS && each.values().all(|(_, told)| *told > 0);
    assert!(is_each_told, "each kind of damage is told in each folder: {each:?}");
}

/// Reads everything, the keyed side's copy awaited where a record must come from there.
fn read_everything(opened: &vitalgate_store::Opened, entries: &[Entry], context: &str) {
    assert_eq!(opened.keyed.wait_open(PATIENCE), KeyedStatus::Running, "{context}");
    let records = read_all(&opened.reader).unwrap_or_else(|error| panic!("{context}: {error:?}"));
    assert_eq!(records.len(), entries.len(), "{context}");
    for (record, entry) in records.iter().zip(entries) {
        assert_eq!(&record.entry, entry, "{context}");
    }
}

/// A person tidies up, a file system's check drops a file: a segment is gone altogether, with its shadow or long after it. It is made
/// again from whichever copy there is, and told; afterwards the store is whole.
#[test]
fn a_missing_segment_is_made_again_and_told() {
    let mut restored = BTreeMap::new();
    for keyed_follows in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let (snapshot, entries) = begun(folder.path(), keyed_follows);
        let is_segment = |path: &PathBuf| path.extension().is_some_and(|kind| kind == "segment");
        let segments: Vec<PathBuf> = files_below(&snapshot.join("journal")).unwrap().into_iter().filter(is_segment).collect();
        assert!(segments.len() > 4, "several segments: {segments:?}");
        for missing in &segments {
            let name = missing.file_name().unwrap();
            let context = format!("keyed side up to date: {keyed_follows}; {} is missing", name.display());
            let work = tempfile::tempdir().unwrap();
            let dir = work.path().join("store");
            copy_folder(&snapshot, &dir).unwrap();
            std::fs::remove_file(dir.join("journal").join(name)).unwrap();
            let opened = open(&dir, Some(PROBE)).unwrap_or_else(|error| panic!("{context}: {error:?}"));
            read_everything(&opened, &entries, &context);
            let findings = opened.reader.findings();
            let healer = findings.iter().find_map(|finding| match finding {
                Finding::SegmentRestored { file, from } if *file == format!("journal/{}", name.display()) => Some(*from),
                _ => None,
            });
            let healer = healer.unwrap_or_else(|| panic!("{context}: not told: {findings:?}"));
            assert!(!findings.iter().any(|finding| matches!(finding, Finding::Lost { .. })), "{context}: {findings:?}");
            *restored.entry(format!("{healer}")).or_insert(0) += 1;
            opened.keyed.shutdown(PATIENCE);
            drop(opened);
            let opened = open(&dir, Some(PROBE)).unwrap_or_else(|error| panic!("{context}, again: {error:?}"));
            read_everything(&opened, &entries, &context);
            assert_eq!(opened.reader.findings().iter().find(|finding| finding.is_damage()), None, "{context}: it is whole again");
            opened.keyed.shutdown(PATIENCE);
        }
    }
    println!("segments made again from: {restored:?}");
    assert_eq!(restored.len(), 2, "each copy was needed: {restored:?}");
}

/// The whole journal is gone, and the keyed store has it: what waits for a destination is made again and told, and waits as before.
#[test]
fn a_journal_that_is_gone_altogether_is_made_again_and_told() {
    let folder = tempfile::tempdir().unwrap();
    let (snapshot, entries) = begun(folder.path(), true);
    let dir = folder.path().join("store");
    copy_folder(&snapshot, &dir).unwrap();
    for gone in ["journal", "shadow"] {
        std::fs::remove_dir_all(dir.join(gone)).unwrap();
    }
    for is_again in [false, true] {
        let opened = open(&dir, Some(PROBE)).unwrap();
        let waits_from = |name: &str| {
            let settled = opened.journal.state().settled.iter().find(|(destination, _)| destination.as_str() == name);
            settled.map(|(_, settled)| settled.first_missing(Sequence::FIRST))
        };
        assert_eq!([waits_from("ehr"), waits_from("cloud")], [Some(Sequence(101)), Some(Sequence(301))]);
        let oldest = opened.reader.oldest();
        assert!(oldest <= Sequence(101), "{oldest}");
        let records = read_all(&opened.reader).unwrap();
        let expected = &entries[usize::try_from(oldest.0).unwrap() - 1..];
        assert!(records.iter().map(|record| &record.entry).eq(expected), "{} of {} entries", records.len(), expected.len());
        let findings = opened.reader.findings();
        assert!(!findings.iter().any(|finding| matches!(finding, Finding::Lost { .. })), "{findings:?}");
        assert_eq!(findings.iter().any(Finding::is_damage), !is_again, "told once: {findings:?}");
        assert_eq!(opened.keyed.wait_open(PATIENCE), KeyedStatus::Running);
        assert!(opened.keyed.wait_reached(opened.keyed.applied().ordinal, true, PATIENCE));
        assert_eq!(opened.keyed.events(), [], "it is this journal's copy");
        assert_eq!(opened.keyed.shutdown(PATIENCE), KeyedStatus::Stopped);
    }
}
