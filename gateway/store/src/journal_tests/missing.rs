//! Segments are missing, and the keyed store, which has them, does not answer each time.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use vitalgate_domain::{Change, DeadLetter, DeadLetterKind, DeadLetterReason, DeviceId, Entry, Sequence};

use super::basics::{assert_holds, destinations, open_on, read_all, settle};
use super::second::{Follower, Interrupted};
use crate::copy::{BlockSource, KeyedCopy};
use crate::files::forgetful::ForgetfulFiles;
use crate::files::read_up_to;
use crate::opening::{OpenError, OpenedJournal, open_journal};
use crate::record::search;
use crate::report::Finding;
use crate::segment::{RECORDS_START, SegmentHeader};
use crate::source::Feed;
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

/// Where the last record of the journal stands in its file.
pub(super) fn last_record(bytes: &[u8]) -> Range<usize> {
    let id = SegmentHeader::parse(bytes).unwrap().id;
    let (mut last, mut from) = (0..0, 0);
    while let Some((at, header)) = search(bytes, from, id) {
        last = at..at + header.record_bytes();
        from = last.end;
    }
    last
}

/// The ways in which the last record goes bad: it may look like an unfinished write, or like nothing at all.
const BAD_ENDS: [fn(&mut [u8]); 3] = [|record| record[100] ^= 4, |record| record.fill(0x55), |record| record[64..].fill(0)];

fn damage_end(files: &ForgetfulFiles, change: fn(&mut [u8])) {
    files.damage(segments(files).last().unwrap(), |bytes| {
        let record = last_record(bytes);
        change(&mut bytes[record]);
    });
}

/// Promise 1: what was acknowledged is not cut off as an unfinished write while the keyed store, which has it, cannot be asked.
#[test]
fn a_damaged_end_is_not_cut_before_the_keyed_store_answers() {
    let begun = begun();
    let follower: Arc<dyn KeyedCopy> = Arc::new(begun.follower.with_latest_snapshot());
    let silent: Arc<dyn KeyedCopy> = Arc::new(Interrupted::at(Arc::clone(&follower), 1..=u64::MAX));
    for (place, change) in BAD_ENDS.into_iter().enumerate() {
        let files = begun.files.after_kill();
        damage_end(&files, change);
        for _ in 0..3 {
            let refused = open_beside(&files, &silent).map(drop);
            assert!(matches!(refused, Err(OpenError::Keyed(_))), "damage {place}: {refused:?}");
        }
        let opened = open_beside(&files, &follower).unwrap();
        assert_eq!(lost(&opened), [], "damage {place}");
        assert_holds(&read_all(&opened.reader).0, 1, &begun.entries);
    }
}

/// Promise 2: on a full disk the gateway starts, since only delivering makes room. Promise 1: what it cuts unasked is kept, and no room
/// is made of it.
#[test]
fn where_the_keyed_store_waits_for_room_an_uncertain_end_is_cut_and_kept() {
    let begun = begun();
    let full: Arc<dyn KeyedCopy> = Arc::new(Interrupted::without_room(Arc::new(begun.follower.with_latest_snapshot())));
    let files = begun.files.after_kill();
    damage_end(&files, BAD_ENDS[0]);
    let bytes = read_up_to(&files, segments(&files).last().unwrap(), usize::MAX).unwrap();
    let damaged = bytes.iter().rposition(|byte| *byte != 0).map(|last| &bytes[last - 40..=last]).unwrap();
    let mut opened = open_beside(&files, &full).unwrap();
    let told = opened.report.findings.iter().find_map(|finding| match finding {
        Finding::CutUnasked { kept, .. } => kept.clone(),
        _ => None,
    });
    let kept = PathBuf::from("/state/store/kept").join(told.unwrap());
    let records = read_all(&opened.reader).0;
    assert!(records.len() > 1_400, "{}", records.len());
    assert_holds(&records, 1, &begun.entries[..records.len()]);
    files.set_free_space(small_options().free_space_floor_bytes - 1);
    assert!(opened.journal.maintain().is_ok());
    // A record may itself end with zeros.
    let kept = read_up_to(&files, &kept, usize::MAX).unwrap();
    assert!(kept[..=kept.iter().rposition(|byte| *byte != 0).unwrap()].ends_with(damaged));
    drop(opened);
    let again = open_beside(&files, &full).unwrap();
    assert!(!again.report.has_damage(), "{}", again.report);
}

/// Where the last commit of the journal begins in its file.
fn last_group(bytes: &[u8]) -> usize {
    let id = SegmentHeader::parse(bytes).unwrap().id;
    let (mut last, mut from) = (0, 0);
    while let Some((at, header)) = search(bytes, from, id) {
        if header.first_of_group {
            last = at;
        }
        from = at + header.record_bytes();
    }
    last
}

/// The names in `kept/`, and what the files hold.
fn kept(files: &ForgetfulFiles) -> Vec<(PathBuf, Vec<u8>)> {
    let paths = files.paths().into_iter().filter(|path| path.starts_with("/state/store/kept"));
    paths.map(|path| (path.clone(), read_up_to(files, &path, usize::MAX).unwrap())).collect()
}

/// Promise 1: what was kept of the end stays as it is, also where the power goes while the end is zeroed and the next start finds less
/// of it; and where something else is cut at the same place later, both are kept.
#[test]
fn what_is_kept_of_the_end_is_never_written_over() {
    let begun = begun();
    let full: Arc<dyn KeyedCopy> = Arc::new(Interrupted::without_room(Arc::new(begun.follower.with_latest_snapshot())));
    let files = begun.files.after_kill();
    let end = segments(&files).pop().unwrap();
    let group = last_group(&read_up_to(&files, &end, usize::MAX).unwrap());
    files.damage(&end, |bytes| bytes[group + 100] ^= 4);
    let damaged = read_up_to(&files, &end, usize::MAX).unwrap();
    drop(open_beside(&files, &full).unwrap());
    let first = kept(&files);
    assert_eq!(first.len(), 1);
    // Of the zeros only some reached the disk.
    for zeroed in [64, 1_024] {
        files.damage(&end, |bytes| {
            bytes.clone_from(&damaged);
            bytes[group..group + zeroed].fill(0);
        });
        let again = open_beside(&files, &full).unwrap();
        let told = again.report.findings.iter().any(|finding| matches!(finding, Finding::CutUnasked { kept: Some(_), .. }));
        assert!(told, "{zeroed} bytes zeroed: {}", again.report);
        assert_eq!(kept(&files), first, "{zeroed} bytes zeroed");
    }
    // Another commit comes to the same place, and goes bad.
    open_beside(&files, &full).unwrap().journal.append(&readings("m2", 0, 73), &[]).unwrap();
    files.paths().iter().filter(|path| path.starts_with("/state/store/shadow")).for_each(|path| files.forget(path));
    files.damage(&end, |bytes| bytes[group + 100] ^= 4);
    drop(open_beside(&files, &full).unwrap());
    let both = kept(&files);
    assert_eq!(both.len(), 2);
    assert!(both.contains(&first[0]));
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

/// A settled journal that holds one dead letter in its oldest segment, whose file is gone; and a copy of all of it.
fn without_its_letter() -> (ForgetfulFiles, Follower) {
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
    // The shadow of the end is whole again.
    drop(open_on(&files));
    (files, follower)
}

/// Promise 4: dead letters that are missing with their segment are told, also where every destination has settled all.
#[test]
fn a_dead_letter_that_no_copy_has_is_told_as_lost() {
    let (files, follower) = without_its_letter();
    let mut opened = open_on(&files);
    let last = Sequence(opened.reader.oldest().0 - 1);
    assert_eq!(lost(&opened), [Finding::Lost { first: Sequence(6), last }]);
    drop(opened);
    let nobody: Arc<dyn KeyedCopy> = Arc::new(Interrupted::at(Arc::new(follower), 1..=u64::MAX));
    let silent = open_beside(&files, &nobody).expect("readings are taken, whoever does not answer");
    assert_eq!(lost(&silent), [], "nobody knows yet");
    assert!(silent.report.has_damage(), "and that is told");
    drop(silent);
    opened = open_on(&files);
    opened.journal.append(&[], &[Change::DeadLettersResolved { sequences: vec![Sequence(6)], note: "lost".into() }]).unwrap();
    drop(opened);
    assert_eq!(lost(&open_on(&files)), [], "a person knows of it");
}

fn assert_has_the_letter(opened: &OpenedJournal) {
    assert_eq!(lost(opened), []);
    let letter = opened.reader.get(Sequence(6)).unwrap().map(|record| record.entry);
    assert!(matches!(letter, Some(Entry::DeadLetter(_))), "{letter:?}");
}

/// Promise 4: what the keyed store could not be asked for stays whole for as long as it is not asked, its key included.
#[test]
fn while_a_dead_letter_may_be_in_the_keyed_store_only_that_copy_and_its_key_are_kept() {
    let (files, follower) = without_its_letter();
    let follower: Arc<dyn KeyedCopy> = Arc::new(follower.with_latest_snapshot());
    let silent = Arc::new(Interrupted::at(Arc::clone(&follower), 1..=u64::MAX));
    let copy = Arc::clone(&silent) as Arc<dyn KeyedCopy>;
    let mut opened = open_beside(&files, &copy).unwrap();
    opened.journal.rotate_data_key(None).unwrap();
    let (first, last) = opened.journal.append(&readings("m1", 1_505, 40), &[]).unwrap().unwrap();
    opened.journal.append(&[], &[settle("ehr", first.0, last.0)]).unwrap();
    files.set_free_space(small_options().free_space_floor_bytes - 1);
    let kept_up = opened.journal.maintain().unwrap();
    assert!(kept_up.segments_reclaimed > 2, "{kept_up:?}");
    assert_eq!((kept_up.keys_destroyed, silent.shrinks()), (0, 0));
    assert_eq!(Feed(Arc::clone(&opened.journal.outbox)).oldest_key(), 0, "the keyed store keeps its keys too");
    drop(opened);
    // Below the floor nothing is written back that nobody waits for.
    let narrow = open_beside(&files, &follower).unwrap();
    assert_eq!((lost(&narrow), narrow.journal.held_back()), (vec![], None));
    drop(narrow);
    files.set_free_space(u64::MAX);
    assert_has_the_letter(&open_beside(&files, &follower).unwrap());
}

/// Promise 4: the same where the key went with an earlier version: a start never fails for what no destination waits for.
#[test]
fn a_dead_letter_whose_key_only_the_keyed_store_has_comes_back() {
    let (files, follower) = without_its_letter();
    let follower: Arc<dyn KeyedCopy> = Arc::new(follower.with_latest_snapshot());
    let mut opened = open_on(&files);
    opened.journal.outbox.connect(Arc::clone(&follower));
    opened.journal.rotate_data_key(None).unwrap();
    let kept_up = opened.journal.maintain().unwrap();
    assert_eq!(kept_up.keys_destroyed, 1, "{kept_up:?}");
    drop(opened);
    assert_has_the_letter(&open_beside(&files, &follower).unwrap());
}

/// Promise 4: a keyed store that answers later gives back what is missing, without another start.
#[test]
fn a_missing_dead_letter_comes_back_within_the_run_once_the_keyed_store_answers() {
    let (files, follower) = without_its_letter();
    let follower: Arc<dyn KeyedCopy> = Arc::new(follower.with_latest_snapshot());
    let copy: Arc<dyn KeyedCopy> = Arc::new(Interrupted::at(follower, 1..=3));
    let mut opened = open_beside(&files, &copy).unwrap();
    let gone = Sequence(6);
    for round in 0.. {
        assert!(round < 5, "it is asked again");
        if opened.reader.oldest() <= gone {
            break;
        }
        opened.journal.maintain().unwrap();
    }
    assert_has_the_letter(&opened);
    assert!(!opened.journal.outbox.keeps_copies(), "what is settled is let go of again");
    drop(opened);
    assert_has_the_letter(&open_on(&files));
}

/// Promise 2: what nobody waits for is not written back where that would take the room that readings need.
#[test]
fn a_missing_dead_letter_waits_until_there_is_room_for_its_segment_above_the_floor() {
    let (files, follower) = without_its_letter();
    let follower: Arc<dyn KeyedCopy> = Arc::new(follower.with_latest_snapshot());
    let options = small_options();
    files.set_room(options.free_space_floor_bytes + options.segment_bytes / 2);
    let mut opened = open_beside(&files, &follower).unwrap();
    assert!(opened.reader.oldest() > Sequence(6), "it is put off");
    assert_eq!(lost(&opened), []);
    opened.journal.append(&readings("m1", 1_505, 2), &[]).unwrap();
    files.set_room(options.free_space_floor_bytes + 4 * options.segment_bytes);
    opened.journal.maintain().unwrap();
    assert_has_the_letter(&opened);
}

/// Promises 1 and 4: a dead letter whose segment cannot be made again for want of room is read from the keyed store and can be moved, its
/// key included; then the keyed store lets go again of what is settled, so that it does not take the rest of the room.
#[test]
fn a_missing_dead_letter_whose_segment_finds_no_room_can_be_moved() {
    let (files, follower) = without_its_letter();
    let follower: Arc<dyn KeyedCopy> = Arc::new(follower.with_latest_snapshot());
    let mut opened = open_on(&files);
    opened.journal.outbox.connect(Arc::clone(&follower));
    opened.journal.rotate_data_key(None).unwrap();
    assert_eq!(opened.journal.maintain().unwrap().keys_destroyed, 1);
    drop(opened);
    let options = small_options();
    files.set_room(options.free_space_floor_bytes + options.segment_bytes / 2);
    let silent: Arc<dyn KeyedCopy> = Arc::new(Interrupted::at(Arc::clone(&follower), 1..=u64::MAX));
    let unanswered = open_beside(&files, &silent).unwrap();
    assert!(unanswered.reader.with_missing().get(Sequence(6)).is_err(), "that there is no answer does not say that it is gone");
    assert_eq!(unanswered.reader.get(Sequence(6)).unwrap(), None, "it keeps nobody from what is here");
    drop(unanswered);
    let rebuilt: Arc<dyn KeyedCopy> = Arc::new(Interrupted::rebuilding(Arc::clone(&follower)));
    let unknown = open_beside(&files, &rebuilt).unwrap();
    assert!(unknown.reader.with_missing().get(Sequence(6)).is_err(), "it may come back");
    drop(unknown);

    let mut opened = open_beside(&files, &follower).unwrap();
    assert!(opened.reader.oldest() > Sequence(6), "there is no room for its segment");
    assert_eq!(opened.journal.held_back(), Some((Sequence(6), Sequence(6))));
    let letter = opened.reader.with_missing().get(Sequence(6)).unwrap().unwrap().entry;
    assert!(matches!(letter, Entry::DeadLetter(_)), "{letter:?}");
    let (place, _) = opened.journal.append(std::slice::from_ref(&letter), &[]).unwrap().unwrap();
    opened.journal.append(&[], &[Change::DeadLettersResolved { sequences: vec![Sequence(6)], note: "moved".into() }]).unwrap();
    opened.journal.maintain().unwrap();
    assert!(!opened.journal.outbox.keeps_copies(), "what is settled is let go of again");
    assert_ne!(opened.journal.held_back(), Some((Sequence(6), Sequence(6))));
    assert_eq!((lost(&opened), opened.reader.get(place).unwrap().unwrap().entry), (vec![], letter));
}

/// Promise 4: what a keyed store does not have while it is set aside and rebuilt is not told as lost: it may come back, and its copies
/// and keys are kept until then.
#[test]
fn a_missing_dead_letter_is_not_lost_while_the_keyed_store_is_rebuilt() {
    let (files, follower) = without_its_letter();
    let rebuilt = Arc::new(Interrupted::rebuilding(Arc::new(follower.with_latest_snapshot())));
    let copy = Arc::clone(&rebuilt) as Arc<dyn KeyedCopy>;
    let mut opened = open_beside(&files, &copy).unwrap();
    opened.journal.maintain().unwrap();
    assert_eq!(lost(&opened), []);
    assert!(opened.journal.outbox.keeps_copies());
    rebuilt.is_rebuilding.store(false, Ordering::Relaxed);
    opened.journal.maintain().unwrap();
    assert_has_the_letter(&opened);
    assert!(!opened.journal.outbox.keeps_copies());
}

/// Promise 1: an uncertain end is kept also where the keyed store was set aside at this start. Promise 2: the start does not fail for it.
#[test]
fn while_the_keyed_store_is_rebuilt_an_uncertain_end_is_cut_and_kept() {
    let begun = begun();
    let copy: Arc<dyn KeyedCopy> = Arc::new(Interrupted::rebuilding(Arc::new(begun.follower.clone())));
    let files = begun.files.after_kill();
    damage_end(&files, BAD_ENDS[0]);
    let opened = open_beside(&files, &copy).unwrap();
    assert!(opened.report.findings.iter().any(|finding| matches!(finding, Finding::CutUnasked { kept: Some(_), .. })), "{}", opened.report);
    assert_eq!(kept(&files).len(), 1);
}
