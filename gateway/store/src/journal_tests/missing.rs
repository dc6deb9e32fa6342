//! Segments are missing, and the keyed store, which has them, does not answer each time.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use vitalgate_domain::{Change, DeadLetter, DeadLetterKind, DeadLetterReason, DeviceId, Entry, Sequence};

use super::basics::{assert_holds, destinations, open_on, read_all, settle};
use super::second::{Follower, Interrupted};
use crate::copy::KeyedCopy;
use crate::files::forgetful::ForgetfulFiles;
use crate::opening::{OpenError, OpenedJournal, open_journal};
use crate::report::Finding;
use crate::segment::RECORDS_START;
use crate::state::State;
use crate::tail::SecondCopy;
use crate::tests_support::{readings, received, small_options, wrap};

/// More questions than any opening here asks.
const QUESTIONS_MAX: u64 = 10_000;

struct Begun {
    files: ForgetfulFiles,
    entries: Vec<Entry>,
    state: State,
    follower: Follower,
}

/// Several segments that wait for a destination, which each commit names.
fn begun() -> Begun {
    let files = ForgetfulFiles::default();
    let mut opened = open_on(&files);
    let entries = readings("m1", 0, 1_500);
    for part in entries.chunks(73) {
        opened.journal.append(part, &[destinations(&["ehr"])]).unwrap();
    }
    let follower = Follower::of(&opened);
    for path in files.paths().iter().filter(|path| path.starts_with("/state/store/shadow")) {
        files.forget(path);
    }
    Begun { files, entries, state: opened.journal.state().clone(), follower }
}

fn segments(files: &ForgetfulFiles) -> Vec<PathBuf> {
    let is_segment = |path: &PathBuf| path.starts_with("/state/store/journal") && path.extension().is_some_and(|kind| kind == "segment");
    files.paths().into_iter().filter(is_segment).collect()
}

fn open_beside(files: &ForgetfulFiles, copy: &Arc<dyn KeyedCopy>) -> Result<OpenedJournal, OpenError> {
    let second = SecondCopy { copy: Arc::clone(copy), wait_open: Box::new(|| {}) };
    open_journal(small_options(), wrap(), Arc::new(files.clone()), Some(second))
}

fn lost(opened: &OpenedJournal) -> Vec<Finding> {
    opened.reader.findings().into_iter().filter(|finding| matches!(finding, Finding::Lost { first, last } if first <= last)).collect()
}

/// Opens the damaged store with a copy that leaves one question open, each in turn: either it does not open, and is whole at the next
/// start, or it is whole at once.
fn assert_whole_whichever_lookup_fails(begun: &Begun, follower: Follower, damage: impl Fn(&ForgetfulFiles), what: &str) {
    let follower: Arc<dyn KeyedCopy> = Arc::new(follower);
    let names: BTreeSet<_> = segments(&begun.files).into_iter().collect();
    for question in 0..QUESTIONS_MAX {
        let context = format!("{what}, question {question} is left open");
        let files = begun.files.after_kill();
        damage(&files);
        let interrupted = Arc::new(Interrupted::at(Arc::clone(&follower), question..=question));
        let copy = Arc::clone(&interrupted) as Arc<dyn KeyedCopy>;
        let opened = open_beside(&files, &copy).unwrap_or_else(|error| {
            assert!(matches!(error, OpenError::Keyed(_)), "{context}: {error:?}");
            open_beside(&files, &copy).unwrap_or_else(|error| panic!("{context}, again: {error:?}"))
        });
        if question > 0 && !interrupted.was_silent() {
            assert!(question > 5, "{what}: only {question} questions");
            return;
        }
        assert_eq!(lost(&opened), [], "{context}");
        let (records, damaged) = read_all(&opened.reader);
        assert!(damaged.is_empty(), "{context}: {damaged:?}");
        assert_holds(&records, 1, &begun.entries);
        assert_eq!(opened.state.settled, begun.state.settled, "{context}");
        assert_eq!(segments(&files).into_iter().collect::<BTreeSet<_>>(), names, "{context}: no other and no shorter segment");
    }
    panic!("{what}: the questions never end");
}

/// Promise 2: that the keyed store does not answer is not taken for that it has nothing.
#[test]
fn a_lookup_that_fails_while_segments_are_made_again_loses_nothing() {
    let begun = begun();
    let all = segments(&begun.files).len();
    assert!(all > 4, "{all} segments");
    for gone in [1, 2, all] {
        let damage = |files: &ForgetfulFiles| segments(files).iter().take(gone).for_each(|path| files.forget(path));
        let follower = begun.follower.with_latest_snapshot();
        assert_whole_whichever_lookup_fails(&begun, follower, damage, &format!("{gone} of {all} segments missing"));
    }
}

/// Promise 2: nothing counts as settled because the keyed store did not say that it has it still.
#[test]
fn a_lookup_that_fails_where_no_snapshot_can_be_used_settles_nothing() {
    let begun = begun();
    let damage = |files: &ForgetfulFiles| {
        let paths = segments(files);
        files.forget(&paths[0]);
        let at = RECORDS_START as usize + 80;
        paths[1..].iter().for_each(|path| files.damage(path, |bytes| bytes[at..at + 8].fill(0xff)));
    };
    assert_whole_whichever_lookup_fails(&begun, begun.follower.without_snapshots(), damage, "no snapshot");
}

/// Promise 2: the end of the journal is not cut because the keyed store did not say that it has what is damaged there.
#[test]
fn a_lookup_that_fails_at_a_damaged_end_cuts_nothing() {
    let begun = begun();
    let damage = |files: &ForgetfulFiles| {
        files.damage(segments(files).last().unwrap(), |bytes| {
            let used = bytes.iter().rposition(|byte| *byte != 0).unwrap();
            bytes[RECORDS_START as usize..=used].fill(0x55);
        });
    };
    assert_whole_whichever_lookup_fails(&begun, begun.follower.with_latest_snapshot(), damage, "the end damaged");
}

/// Promise 2: a keyed store that is still being opened keeps the journal from being opened with less than there is.
#[test]
fn while_the_keyed_store_does_not_answer_nothing_is_given_up() {
    let begun = begun();
    let follower: Arc<dyn KeyedCopy> = Arc::new(begun.follower.with_latest_snapshot());
    let silent: Arc<dyn KeyedCopy> = Arc::new(Interrupted::at(Arc::clone(&follower), 1..=u64::MAX));
    for gone in [1, segments(&begun.files).len()] {
        let files = begun.files.after_kill();
        segments(&files).iter().take(gone).for_each(|path| files.forget(path));
        let left = segments(&files);
        for _ in 0..3 {
            let refused = open_beside(&files, &silent).map(drop);
            assert!(matches!(refused, Err(OpenError::Keyed(_))), "{gone} missing: {refused:?}");
            assert_eq!(segments(&files), left);
        }
        let opened = open_beside(&files, &follower).unwrap();
        assert_eq!(lost(&opened), []);
        assert_holds(&read_all(&opened.reader).0, 1, &begun.entries);
    }
}

/// Promise 4: a journal that is gone, and is in no copy, is told, and what comes takes no sequence twice.
#[test]
fn a_journal_that_no_copy_has_is_told_as_lost() {
    let begun = begun();
    let files = begun.files.after_kill();
    segments(&files).iter().for_each(|path| files.forget(path));
    let copy: Arc<dyn KeyedCopy> = Arc::new(begun.follower.without_records());
    let mut opened = open_beside(&files, &copy).unwrap();
    assert_eq!(lost(&opened), [Finding::Lost { first: Sequence(1), last: Sequence(1_500) }]);
    assert_eq!(opened.journal.append(&begun.entries[..2], &[]).unwrap(), Some((Sequence(1_501), Sequence(1_502))));
}

/// Promise 4: dead letters that are missing with their segment are told, also where every destination has settled all.
#[test]
fn a_dead_letter_that_no_copy_has_is_told_as_lost() {
    let files = ForgetfulFiles::default();
    let OpenedJournal { mut journal, .. } = open_on(&files);
    let letter = Entry::DeadLetter(DeadLetter {
        device: DeviceId::new("m1").unwrap(),
        channel: "vitals".into(),
        received: received(0),
        reason: DeadLetterReason::new(DeadLetterKind::Undecodable, "no JSON"),
        bytes: vec![0xab],
    });
    journal.append(&readings("m1", 0, 5), &[destinations(&["ehr"])]).unwrap();
    journal.append(&[letter], &[]).unwrap();
    journal.append(&readings("m1", 5, 1_500), &[settle("ehr", 1, 1_506)]).unwrap();
    drop(journal);
    let follower = Follower::of(&open_on(&files));
    for path in files.paths().iter().filter(|path| path.starts_with("/state/store/shadow")) {
        files.forget(path);
    }
    files.forget(&segments(&files)[0]);
    let mut opened = open_on(&files);
    let last = Sequence(opened.reader.oldest().0 - 1);
    assert_eq!(lost(&opened), [Finding::Lost { first: Sequence(6), last }]);
    drop(opened);
    let nobody: Arc<dyn KeyedCopy> = Arc::new(Interrupted::at(Arc::new(follower), 1..=u64::MAX));
    let silent = open_beside(&files, &nobody).expect("readings are taken, whoever does not answer");
    assert_eq!(lost(&silent), [], "nobody knows yet");
    drop(silent);
    opened = open_on(&files);
    opened.journal.append(&[], &[Change::DeadLettersResolved { sequences: vec![Sequence(6)], note: "lost".into() }]).unwrap();
    drop(opened);
    assert_eq!(lost(&open_on(&files)), [], "a person knows of it");
}
