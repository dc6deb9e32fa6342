//! The files that wait to become segments: what they are good for on a full disk, and what they still say.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::basics::{destinations, open_on, settle};
use super::second::AllCheckpointed;
use crate::files::forgetful::{ForgetfulFiles, PowerCut};
use crate::files::{FileSystem as _, read_up_to};
use crate::journal::{CommitError, Journal};
use crate::opening::OpenedJournal;
use crate::segment::SegmentHeader;
use crate::space::{RESERVE, SPARE};
use crate::tests_support::{readings, small_options};

fn open_followed(files: &ForgetfulFiles) -> Journal {
    let OpenedJournal { journal, .. } = open_on(files);
    journal.outbox.connect(Arc::new(AllCheckpointed::default()));
    journal
}

/// A journal of several segments on a disk that is below its floor: nothing is made ahead any more.
fn below_the_floor(files: &ForgetfulFiles) -> Journal {
    let mut journal = open_followed(files);
    journal.append(&readings("m1", 0, 2_000), &[destinations(&["ehr"])]).unwrap();
    files.set_free_space(small_options().free_space_floor_bytes - 1);
    journal.maintain().unwrap();
    assert!(journal.space.has_reserve());
    journal
}

/// Promise 2: where the power goes while settling goes on in the reserve, the disk fills no gateway for good: settling goes on, and what
/// is settled is given back.
#[test]
fn a_power_cut_while_the_reserve_is_taken_leaves_it_for_settling() {
    let files = ForgetfulFiles::default();
    let mut journal = below_the_floor(&files);
    let mut full = files.after_kill();
    for settled in 1.. {
        assert!(settled < 2_000, "the segment in use never ends");
        journal.append(&[], &[settle("ehr", 1, settled)]).unwrap();
        if !journal.space.has_reserve() {
            break;
        }
        full = files.after_kill();
    }
    let mut journal = open_followed(&full);
    // The file is taken, and its first write is cut.
    full.cut_at(full.operations() + 2);
    assert!(matches!(journal.append(&[], &[settle("ehr", 1, 2_000)]), Err(CommitError::Io(_))));
    drop(journal);
    let after = full.after(PowerCut::KeepSizes);
    assert!(after.paths().iter().any(|path| path.ends_with("journal/taken")));
    let mut journal = open_followed(&after);
    journal.maintain().unwrap();
    journal.append(&[], &[settle("ehr", 1, 2_000)]).unwrap();
    assert!(journal.maintain().unwrap().segments_reclaimed > 0);
}

/// The same, where settling has used the reserve and all is settled: a segment can become the reserve.
fn all_settled_into_the_reserve(files: &ForgetfulFiles) -> Journal {
    let mut journal = below_the_floor(files);
    for settled in 1.. {
        assert!(settled < 2_000, "the reserve is never used");
        journal.append(&[], &[settle("ehr", 1, settled)]).unwrap();
        if !journal.space.has_reserve() {
            break;
        }
    }
    journal.append(&[], &[settle("ehr", 1, 2_000)]).unwrap();
    journal
}

/// What is past its time can be read by nobody: a data key that is destroyed is in no file of the journal's folder, those that were
/// segments and wait to be used again included.
#[test]
fn a_destroyed_data_key_goes_from_what_waits_to_be_used_again() {
    let files = ForgetfulFiles::default();
    let mut journal = all_settled_into_the_reserve(&files);
    let wrapped = journal.outbox.keyring.wrapped(1).unwrap();
    assert!(journal.maintain().unwrap().segments_reclaimed > 0);
    assert!(journal.space.has_reserve(), "a segment became the reserve");
    files.set_free_space(u64::MAX);
    journal.rotate_data_key(None).unwrap();
    let (first, last) = journal.append(&readings("m1", 2_000, 5), &[]).unwrap().unwrap();
    journal.append(&[], &[settle("ehr", first.0, last.0)]).unwrap();
    assert_eq!(journal.maintain().unwrap().keys_destroyed, 1);
    for path in files.paths().iter().filter(|path| path.starts_with(Path::new("/state/store/journal"))) {
        let bytes = read_up_to(&files, path, usize::MAX).unwrap();
        let holds_it = bytes.windows(wrapped.len()).any(|window| window == wrapped);
        assert!(!holds_it, "{} holds the destroyed key", path.display());
    }
}

/// A power cut at any step in which a segment becomes the reserve damages nothing: no segment loses its header, and what waits to be used
/// again has none after the next start.
#[test]
fn a_power_cut_while_a_segment_becomes_the_reserve_damages_nothing() {
    let begun = ForgetfulFiles::default();
    drop(all_settled_into_the_reserve(&begun));
    begun.sync_everything();
    for step in 1.. {
        assert!(step < 100, "upkeep never ends");
        let files = begun.after_kill();
        let mut journal = open_followed(&files);
        assert!(!journal.space.has_reserve());
        files.cut_at(files.operations() + step);
        let ended = journal.maintain();
        drop(journal);
        for cut in [PowerCut::DropAll, PowerCut::KeepSizes, PowerCut::KeepSome(step), PowerCut::KeepSome(step + 100)] {
            let after = files.after(cut);
            let opened = open_on(&after);
            assert!(!opened.report.has_damage(), "step {step}, {cut:?}: {}", opened.report);
            for name in [RESERVE, SPARE] {
                let Ok(file) = after.open(&Path::new("/state/store/journal").join(name)) else { continue };
                assert_eq!(SegmentHeader::read(file.as_ref()).unwrap(), None, "step {step}, {cut:?}: {name}");
            }
        }
        if let Ok(ended) = ended {
            assert!(step > 4 && ended.segments_reclaimed > 0, "{step} steps: {ended:?}");
            return;
        }
    }
}

/// Promise 2: a segment with a bad place of the disk is not used again: what is committed to it could not be written, and no start could
/// read it.
#[test]
fn a_segment_with_a_bad_place_is_not_used_again() {
    let files = ForgetfulFiles::default();
    let mut journal = all_settled_into_the_reserve(&files);
    let is_segment = |path: &PathBuf| path.starts_with("/state/store/journal") && path.extension().is_some();
    let segments: Vec<_> = files.paths().into_iter().filter(is_segment).collect();
    let bad = &segments[..segments.len() - 2];
    bad.iter().for_each(|path| files.spoil(path, 12_288..16_384));
    assert!(journal.maintain().unwrap().segments_reclaimed > bad.len());
    assert!(journal.space.has_reserve(), "the first whole one became the reserve");
    for name in [RESERVE, SPARE] {
        let path = Path::new("/state/store/journal").join(name);
        if files.paths().contains(&path) {
            read_up_to(&files, &path, usize::MAX).unwrap();
        }
    }
}
