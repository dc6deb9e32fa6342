//! The disk cannot read a page of the store when it is opened.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vitalgate_domain::Entry;

use super::basics::{assert_holds, destinations, open_on, read_all};
use super::damage::forget_shadows;
use super::missing::last_record;
use super::second::Follower;
use crate::files::forgetful::ForgetfulFiles;
use crate::files::read_up_to;
use crate::opening::{OpenedJournal, open_journal};
use crate::report::Finding;
use crate::space::{RESERVE, SPARE};
use crate::tail::SecondCopy;
use crate::tests_support::{readings, small_options, wrap};

const PAGE_BYTES: usize = 4096;
const READINGS: u64 = 1_500;

fn begun() -> (ForgetfulFiles, Vec<Entry>, Follower) {
    let files = ForgetfulFiles::default();
    let mut opened = open_on(&files);
    opened.journal.append(&[], &[destinations(&["ehr"])]).unwrap();
    let entries = readings("m1", 0, READINGS);
    entries.chunks(53).for_each(|part| {
        opened.journal.append(part, &[]).unwrap();
    });
    let follower = Follower::of(&opened);
    (files, entries, follower)
}

fn is_segment(path: &Path) -> bool {
    path.starts_with("/state/store/journal") && path.extension().is_some()
}

fn last_segment(files: &ForgetfulFiles) -> PathBuf {
    files.paths().into_iter().rfind(|path| is_segment(path)).unwrap()
}

fn page_of(place: usize) -> Range<usize> {
    let start = place - place % PAGE_BYTES;
    start..start + PAGE_BYTES
}

/// Takes as much as the last segment holds, and reads all.
fn goes_on(opened: &mut OpenedJournal, entries: &[Entry], context: &str) {
    let more = readings("m2", 0, 200);
    more.chunks(40).for_each(|part| {
        opened.journal.append(part, &[]).unwrap_or_else(|error| panic!("{context}: {error:?}"));
    });
    let (records, lost) = read_all(&opened.reader);
    assert!(lost.is_empty(), "{context}: {lost:?}");
    assert_holds(&records, 1, &[entries, &more].concat());
}

/// Promises 1 and 2: the store opens and goes on whatever page of whatever file the disk cannot read, and has all of it from the copies.
#[test]
fn a_page_that_the_disk_cannot_read_keeps_no_store_from_opening() {
    let (begun, entries, _) = begun();
    let (mut opened_times, last) = (0, last_segment(&begun));
    for path in begun.paths() {
        let length = read_up_to(&begun, &path, usize::MAX).unwrap().len();
        // What waits to become a segment is read no further than its first page: see below.
        let pages = if [SPARE, RESERVE].iter().any(|name| path.ends_with(name)) { 1 } else { length.div_ceil(PAGE_BYTES) };
        for page in 0..pages {
            let context = format!("page {page} of {}", path.display());
            let files = begun.after_kill();
            files.spoil(&path, page * PAGE_BYTES..((page + 1) * PAGE_BYTES).min(length));
            let mut opened =
                open_journal(small_options(), wrap(), Arc::new(files.clone()), None).unwrap_or_else(|error| panic!("{context}: {error:?}"));
            let is_told = opened.report.has_damage();
            goes_on(&mut opened, &entries, &context);
            drop(opened);
            // What was opened with a bad page has none any more. Those of older segments are met when they are read.
            if path == last || page == 0 && is_segment(&path) || path.starts_with("/state/store/keys") {
                assert!(is_told, "{context}: not told");
                let again = open_on(&files);
                assert!(!again.report.has_damage(), "{context}: {}", again.report);
            }
            opened_times += 1;
        }
    }
    assert!(opened_times > 50, "{opened_times}");
}

/// Promises 1 and 2: a segment that turns out to have a bad page costs a restart, and no reading that was acknowledged.
#[test]
fn a_new_segment_with_a_bad_page_costs_one_restart() {
    let (begun, entries, _) = begun();
    let files = begun.after_kill();
    let mut opened = open_on(&files);
    files.spoil(Path::new("/state/store/journal").join(SPARE).as_path(), page_of(3 * PAGE_BYTES));
    let more = readings("m2", 0, 400);
    let mut taken = entries;
    for part in more.chunks(20) {
        match opened.journal.append(part, &[]) {
            Ok(_) => taken.extend_from_slice(part),
            Err(_) => break,
        }
    }
    assert!(taken.len() < READINGS as usize + more.len(), "no commit failed");
    drop(opened);
    let mut opened = open_on(&files);
    let (records, lost) = read_all(&opened.reader);
    assert!(lost.is_empty() && records.len() >= taken.len(), "{lost:?}, {} of {}", records.len(), taken.len());
    assert_holds(&records[..taken.len()], 1, &taken);
    more.chunks(20).for_each(|part| {
        opened.journal.append(part, &[]).unwrap();
    });
}

/// Promise 4: where no copy has what stood at the journal's end it is told, and nothing before it is missing.
#[test]
fn what_the_disk_cannot_read_at_the_end_is_told_where_no_copy_has_it() {
    let (begun, entries, follower) = begun();
    let path = last_segment(&begun);
    let end = last_record(&read_up_to(&begun, &path, usize::MAX).unwrap());
    for has_second in [true, false] {
        let files = begun.after_kill();
        forget_shadows(&files);
        files.spoil(&path, page_of(end.start));
        let second = has_second.then(|| SecondCopy { copy: Arc::new(follower.clone()), wait_open: Box::new(|| {}) });
        let opened = open_journal(small_options(), wrap(), Arc::new(files.clone()), second).unwrap();
        let (records, _) = read_all(&opened.reader);
        let is_at_end = |finding: &Finding| matches!(finding, Finding::Unreadable { at_end: true, .. });
        if has_second {
            assert_holds(&records, 1, &entries);
        } else {
            assert!(opened.report.findings.iter().any(is_at_end), "{}", opened.report);
            assert!(records.len() < entries.len() && records.len() > entries.len() - 160, "{} read", records.len());
        }
        drop(opened);
        assert!(!open_on(&files).report.has_damage());
    }
}
