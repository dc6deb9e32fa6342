//! Any one file of the journal side is damaged: nothing is missing, and it is told.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vitalgate_domain::{Entry, Sequence};

use super::basics::{assert_holds, destinations, open_on, read_all, settle};
use super::second::Follower;
use crate::files::forgetful::ForgetfulFiles;
use crate::opening::{OpenedJournal, open_journal};
use crate::reader::ReadError;
use crate::report::Finding;
use crate::tail::SecondCopy;
use crate::tests_support::{readings, small_options, wrap};

const TRIALS: u64 = 400;

fn filled(files: &ForgetfulFiles) -> (OpenedJournal, Vec<Entry>) {
    let mut opened = open_on(files);
    opened.journal.append(&[], &[destinations(&["ehr"])]).unwrap();
    let entries = readings("m1", 0, 1_500);
    for (place, part) in entries.chunks(73).enumerate() {
        opened.journal.append(part, &[settle("ehr", 1, place as u64 * 20 + 1)]).unwrap();
    }
    (opened, entries)
}

/// One of: a bit, a cut, a zeroed page, the whole file zeroed.
fn damage(files: &ForgetfulFiles, path: &Path, random: &mut fastrand::Rng) -> &'static str {
    let mut what = "";
    files.damage(path, |bytes| {
        let length = bytes.len();
        match random.u8(0..10) {
            0..4 => {
                let used = bytes.iter().rposition(|byte| *byte != 0).map_or(1, |last| last + 1);
                let byte = &mut bytes[random.usize(..used.min(length))];
                // A byte between two records is nothing's content.
                what = if *byte == 0 { "bit of a zero" } else { "bit" };
                *byte ^= 1 << random.u8(0..8);
            }
            4..6 => {
                bytes.truncate(random.usize(..length));
                what = "truncated";
            }
            6..9 => {
                let page = random.usize(..length.div_ceil(4_096));
                bytes[page * 4_096..((page + 1) * 4_096).min(length)].fill(0);
                what = "page zeroed";
            }
            _ => {
                bytes.fill(0);
                what = "all zeroed";
            }
        }
    });
    what
}

#[test]
fn damage_to_any_one_file_after_a_kill_loses_nothing_even_while_the_keyed_store_has_nothing() {
    let begun = ForgetfulFiles::default();
    let (opened, entries) = filled(&begun);
    let before = opened.journal.state().clone();
    drop(opened);
    let paths: Vec<PathBuf> = begun.paths();
    let mut told = 0;
    for seed in 0..TRIALS {
        let mut random = fastrand::Rng::with_seed(seed);
        let files = begun.after_kill();
        let path = &paths[random.usize(..paths.len())];
        let original = crate::files::read_up_to(&files, path, usize::MAX).unwrap();
        let what = damage(&files, path, &mut random);
        let context = format!("seed {seed}: {what} in {}", path.display());
        let changed = crate::files::read_up_to(&files, path, usize::MAX).unwrap() != original;
        let opened =
            open_journal(small_options(), wrap(), Arc::new(files.clone()), None).unwrap_or_else(|error| panic!("{context}: {error:?}"));
        let (records, lost) = read_all(&opened.reader);
        assert!(lost.is_empty(), "{context}: {lost:?}");
        assert_holds(&records, 1, &entries);
        assert_eq!(opened.state, before, "{context}");
        // Old shadows are not looked at, and spare segments have no content.
        let counts = path.starts_with("/state/store/journal") && path.extension().is_some() || path.starts_with("/state/store/keys");
        if counts && changed && what != "bit of a zero" {
            assert!(opened.reader.findings().iter().any(Finding::is_damage), "{context}: not told");
            told += 1;
        }
        drop(opened);
        // Once mended, it is whole.
        let again = open_on(&files);
        assert!(!again.report.has_damage(), "{context}: {}", again.report);
        assert_holds(&read_all(&again.reader).0, 1, &entries);
    }
    println!("damage after a kill: {TRIALS} trials, {told} told, nothing missing");
    assert!(told > TRIALS / 4);
}

#[test]
fn without_a_shadow_the_keyed_store_heals_the_journal() {
    let begun = ForgetfulFiles::default();
    let (opened, entries) = filled(&begun);
    let follower = Arc::new(Follower::of(&opened));
    drop(opened);
    let journal: Vec<PathBuf> =
        begun.paths().into_iter().filter(|path| path.starts_with("/state/store/journal") && path.extension().is_some()).collect();
    for seed in 0..TRIALS / 2 {
        let mut random = fastrand::Rng::with_seed(seed);
        let files = begun.after_kill();
        for path in files.paths().iter().filter(|path| path.starts_with("/state/store/shadow")) {
            files.forget(path);
        }
        let path = &journal[random.usize(..journal.len())];
        let what = damage(&files, path, &mut random);
        let context = format!("seed {seed}: {what} in {}", path.display());
        let second = SecondCopy { copy: follower.clone(), wait_open: Box::new(|| {}) };
        let opened = open_journal(small_options(), wrap(), Arc::new(files.clone()), Some(second))
            .unwrap_or_else(|error| panic!("{context}: {error:?}"));
        let (records, lost) = read_all(&opened.reader);
        assert!(lost.is_empty(), "{context}: {lost:?}");
        assert_holds(&records, 1, &entries);
    }
    println!("damage healed from the keyed store: {} trials, nothing missing", TRIALS / 2);
}

#[test]
fn what_no_copy_has_is_told_and_everything_else_is_read() {
    let begun = ForgetfulFiles::default();
    let (opened, entries) = filled(&begun);
    drop(opened);
    let journal: Vec<PathBuf> =
        begun.paths().into_iter().filter(|path| path.starts_with("/state/store/journal") && path.extension().is_some()).collect();
    // In the last segment nothing would prove that the last group was ever whole.
    for (place, path) in journal[..journal.len() - 1].iter().enumerate() {
        let files = begun.after_kill();
        let used = crate::files::read_up_to(&files, path, usize::MAX).unwrap().iter().rposition(|byte| *byte != 0).unwrap();
        for shadow in files.paths().iter().filter(|path| path.starts_with("/state/store/shadow")) {
            files.forget(shadow);
        }
        files.damage(path, |bytes| bytes[22_000..25_000].fill(0x55));
        assert!(used > 28_000, "{used} bytes in segment {place}");
        let opened = open_journal(small_options(), wrap(), Arc::new(files.clone()), None).unwrap();
        let (records, lost) = read_all(&opened.reader);
        assert!(!lost.is_empty(), "segment {place}");
        assert!(opened.reader.findings().iter().any(|finding| matches!(finding, Finding::Lost { .. })));
        let missing: u64 = lost.iter().map(|(first, last)| last.0 - first.0 + 1).sum();
        assert_eq!(records.len() as u64 + missing, opened.reader.committed().0, "every sequence is read or told as lost");
        for record in &records {
            assert_eq!(record.entry, entries[record.sequence.0 as usize - 1]);
            assert!(!lost.iter().any(|(first, last)| (*first..=*last).contains(&record.sequence)));
        }
        assert!(missing < 400, "{missing} lost for one page");
        assert_eq!(opened.reader.committed(), Sequence(1_500), "segment {place}");
    }
}

/// Where the disk goes bad, within a segment and amid its records, in bytes.
const BAD_PLACE: Range<usize> = 24_576..28_672;

/// The segments that are written to no more.
fn old_segments(files: &ForgetfulFiles) -> Vec<PathBuf> {
    let is_segment = |path: &PathBuf| path.starts_with("/state/store/journal") && path.extension().is_some();
    let mut segments: Vec<_> = files.paths().into_iter().filter(is_segment).collect();
    segments.pop();
    assert!(segments.len() > 3, "{} segments", segments.len());
    segments
}

pub(super) fn forget_shadows(files: &ForgetfulFiles) {
    files.paths().iter().filter(|path| path.starts_with("/state/store/shadow")).for_each(|path| files.forget(path));
}

fn is_lost(opened: &OpenedJournal) -> bool {
    opened.reader.findings().iter().any(|finding| matches!(finding, Finding::Lost { .. }))
}

/// Promise 2: a bad place of the disk holds nobody up while another copy has what stood there, and it is told.
#[test]
fn what_the_disk_cannot_read_comes_from_the_other_copies() {
    for has_shadows in [true, false] {
        let files = ForgetfulFiles::default();
        let (opened, entries) = filled(&files);
        if !has_shadows {
            opened.journal.outbox.connect(Arc::new(Follower::of(&opened)));
            forget_shadows(&files);
        }
        old_segments(&files).iter().for_each(|path| files.spoil(path, BAD_PLACE));
        let (records, lost) = read_all(&opened.reader);
        assert!(lost.is_empty() && !is_lost(&opened), "shadows {has_shadows}: {lost:?}");
        assert_holds(&records, 1, &entries);
        let healed = opened.reader.findings().iter().filter(|finding| matches!(finding, Finding::RecordHealed { .. })).count();
        // All that stands elsewhere is read from where it stands.
        let in_bad_places = BAD_PLACE.len() / 1_000 * old_segments(&files).len();
        assert!((1..2 * in_bad_places).contains(&healed), "shadows {has_shadows}: {healed} records");
    }
}

/// Promise 2: what the disk cannot read and no copy has is not lost by that: what stands before it is read, and the rest once the disk
/// reads it again. What is damaged before it is told as lost no further than it is certain.
#[test]
fn what_the_disk_cannot_read_and_no_copy_has_stays_owed() {
    // Damage with something whole between it and the bad place, and damage that reaches to it.
    for damage in [None, Some(16_000..19_500), Some(BAD_PLACE.start - 6_000..BAD_PLACE.start)] {
        let files = ForgetfulFiles::default();
        let (opened, entries) = filled(&files);
        forget_shadows(&files);
        let path = old_segments(&files).remove(1);
        let original = crate::files::read_up_to(&files, &path, usize::MAX).unwrap();
        files.spoil(&path, BAD_PLACE);
        if let Some(damage) = damage.clone() {
            files.damage(&path, |bytes| bytes[damage].fill(0x55));
        }
        let (mut read, mut lost, mut from) = (Vec::new(), Vec::new(), Sequence::FIRST);
        let failed = loop {
            match opened.reader.read(from, Sequence(u64::MAX), 500, usize::MAX) {
                Ok(outcome) => {
                    assert!(outcome.reached >= from, "{damage:?}: no progress at {from}");
                    read.extend(outcome.records);
                    lost.extend(outcome.damaged);
                    from = outcome.reached.next();
                }
                Err(error) => break error,
            }
        };
        assert!(matches!(failed, ReadError::Io(_)), "{damage:?}: {failed:?}");
        let is_apart = damage.as_ref().is_some_and(|damage| damage.end < BAD_PLACE.start - 1_000);
        assert_eq!((lost.is_empty(), is_lost(&opened)), (!is_apart, is_apart), "{damage:?}: {lost:?}");
        let missing: u64 = lost.iter().map(|(first, last)| last.0 - first.0 + 1).sum();
        assert_eq!(read.len() as u64 + missing, from.0 - 1, "{damage:?}: all that stands before the bad place");
        assert!(read.len() > 400, "{damage:?}: {} read", read.len());
        // The disk reads it again.
        files.spoil(&path, 0..0);
        files.damage(&path, |bytes| *bytes = original);
        let (again, lost) = read_all(&opened.reader);
        assert!(lost.is_empty(), "{damage:?}: {lost:?}");
        assert_holds(&again, 1, &entries);
    }
}
