use std::path::Path;
use std::sync::Arc;

use vitalgate_domain::{
    Change, ClockTrust, DeadLetter, DeadLetterKind, DeadLetterReason, DestinationId, DeviceId, Entry, Received, Record, SeenReading,
    Sequence, UnixMs,
};

use crate::copy::KeyedCopy;
use crate::files::FileSystem as _;
use crate::files::forgetful::ForgetfulFiles;
use crate::journal::CommitError;
use crate::nearest::Around;
use crate::opening::{OpenError, OpenedJournal, open_journal};
use crate::options::StoreOptions;
use crate::reader::Reader;
use crate::report::Finding;
use crate::tests_support::{TestWrap, readings, small_options, wrap};

pub(super) fn open_on(files: &ForgetfulFiles) -> OpenedJournal {
    open_journal(small_options(), wrap(), Arc::new(files.clone()), None).unwrap()
}

/// Everything from the oldest entry on, and what was reported as lost.
pub(super) fn read_all(reader: &Reader) -> (Vec<Record>, Vec<(Sequence, Sequence)>) {
    let (mut records, mut damaged, mut from) = (Vec::new(), Vec::new(), reader.oldest());
    while from <= reader.committed() {
        let outcome = reader.read(from, Sequence(u64::MAX), 37, 9_000).unwrap();
        assert!(outcome.reached >= from, "no progress at {from}");
        records.extend(outcome.records);
        damaged.extend(outcome.damaged);
        from = outcome.reached.next();
    }
    (records, damaged)
}

pub(super) fn settle(destination: &str, first: u64, last: u64) -> Change {
    Change::Settled {
        destination: DestinationId::new(destination).unwrap(),
        ranges: vec![(Sequence(first), Sequence(last))],
        rejected: vec![],
        remote_ids: vec![],
    }
}

pub(super) fn destinations(names: &[&str]) -> Change {
    Change::Destinations { present: names.iter().map(|name| DestinationId::new(name).unwrap()).collect(), from: Sequence(1) }
}

fn letter(bytes: Vec<u8>) -> Entry {
    Entry::DeadLetter(DeadLetter {
        device: DeviceId::new("m1").unwrap(),
        channel: "vitals".into(),
        received: crate::tests_support::received(0),
        reason: DeadLetterReason::new(DeadLetterKind::Undecodable, "no JSON"),
        bytes,
    })
}

pub(super) fn assert_holds(records: &[Record], first: u64, entries: &[Entry]) {
    assert_eq!(records.len(), entries.len());
    for (place, (record, entry)) in records.iter().zip(entries).enumerate() {
        assert_eq!(record.sequence, Sequence(first + place as u64));
        assert_eq!(&record.entry, entry);
    }
}

#[test]
fn what_was_committed_is_read_back_across_segments_and_reopening() {
    let files = ForgetfulFiles::default();
    let mut written = Vec::new();
    for round in 0..5 {
        let OpenedJournal { mut journal, reader, .. } = open_on(&files);
        for batch in 0..10 {
            let entries = readings("m1", round * 1_000 + batch * 100, 1 + batch * 9);
            let taken = journal.append(&entries, &[]).unwrap().unwrap();
            assert_eq!(taken, (Sequence(written.len() as u64 + 1), Sequence((written.len() + entries.len()) as u64)));
            written.extend(entries);
            assert_eq!(reader.committed(), taken.1);
        }
        let (records, damaged) = read_all(&reader);
        assert_holds(&records, 1, &written);
        assert!(damaged.is_empty());
        assert!(reader.findings().is_empty(), "{:?}", reader.findings());
    }
    assert!(files.paths().iter().filter(|path| path.starts_with("/state/store/journal")).count() > 4, "several segments");
}

#[test]
fn a_read_starts_and_ends_where_it_was_asked_to() {
    let files = ForgetfulFiles::default();
    let OpenedJournal { mut journal, reader, .. } = open_on(&files);
    let entries = readings("m1", 0, 500);
    journal.append(&entries, &[]).unwrap();
    for (from, until, most) in [(1, 500, 1), (17, 17, 10), (499, 900, 10), (250, 300, 20), (1, 500, 500), (120, 480, 361)] {
        let outcome = reader.read(Sequence(from), Sequence(until), most, usize::MAX).unwrap();
        let last = until.min(500).min(from + most as u64 - 1);
        assert_eq!(outcome.reached, Sequence(last));
        assert_holds(&outcome.records, from, &entries[from as usize - 1..last as usize]);
    }
    let nothing = reader.read(Sequence(501), Sequence(600), 5, 5).unwrap();
    assert!(nothing.records.is_empty());
    assert_eq!(nothing.reached, Sequence(500));
    assert_eq!(reader.get(Sequence(77)).unwrap().unwrap().entry, entries[76]);
    assert_eq!(reader.get(Sequence(501)).unwrap(), None);
    let Entry::Reading(wanted) = &entries[333] else { unreachable!() };
    let of_id = |from| reader.find_id(&wanted.id, Sequence(from)).unwrap();
    assert_eq!(of_id(334).found.unwrap().sequence, Sequence(334));
    assert_eq!(of_id(335).found, None, "only what comes from there on was asked for");
    let around = |window_ms| Around { device: wanted.device.clone(), at: wanted.time.received.wall, window_ms };
    let near = |window_ms, max, from| {
        let found = reader.find_device(&around(window_ms), max, Sequence(from)).unwrap().found;
        (found.is_cut(), found.into_records().iter().map(|record| record.sequence.0).collect::<Vec<_>>())
    };
    assert_eq!(near(0, 10, 1), (false, vec![333, 334, 335, 336]));
    assert_eq!(near(u64::MAX, 4, 1), (true, vec![333, 334, 335, 336]), "the nearest, not the newest");
    assert_eq!(near(0, 10, 335), (false, vec![335, 336]));
}

#[test]
fn settled_state_and_seen_ids_survive_rolling_and_reopening() {
    let files = ForgetfulFiles::default();
    let OpenedJournal { mut journal, .. } = open_on(&files);
    let conditional = Change::WrittenConditionally { destination: DestinationId::new("cloud").unwrap() };
    journal.append(&[], &[destinations(&["ehr", "cloud"]), conditional]).unwrap();
    for batch in 0..30 {
        let (_, last) = journal.append(&readings("m1", batch * 50, 50), &[settle("ehr", 1, batch * 50)]).unwrap().unwrap();
        assert_eq!(last, Sequence(batch * 50 + 50));
    }
    let before = journal.state().clone();
    drop(journal);
    let OpenedJournal { journal, state, report, .. } = open_on(&files);
    assert_eq!(state, before);
    assert_eq!(journal.state(), &before);
    assert!(report.findings.is_empty(), "{report}");
    let Entry::Reading(last) = &readings("m1", 29 * 50, 50)[49] else { unreachable!() };
    let remembered = SeenReading::from(last);
    assert_eq!(state.seen[0].1.last(), Some(&remembered), "with its value: another one under the same counter is no resend");
}

#[test]
fn segments_go_when_every_destination_has_their_entries_and_come_back_as_spares() {
    let files = ForgetfulFiles::default();
    let OpenedJournal { mut journal, reader, .. } = open_on(&files);
    journal.outbox.connect(Arc::new(super::second::AllCheckpointed::default()));
    journal.append(&[], &[destinations(&["ehr", "cloud"])]).unwrap();
    journal.append(&readings("m1", 0, 2_000), &[settle("ehr", 1, 2_000)]).unwrap();
    assert_eq!(journal.maintain().unwrap().segments_reclaimed, 0, "one destination still waits");
    journal.append(&[], &[settle("cloud", 1, 700)]).unwrap();
    let some = journal.maintain().unwrap();
    assert!(some.segments_reclaimed > 0);
    assert!(reader.oldest() > Sequence(1) && reader.oldest() <= Sequence(701));
    let (records, damaged) = read_all(&reader);
    assert_eq!(records.last().unwrap().sequence, Sequence(2_000));
    assert!(damaged.is_empty());
    journal.append(&[], &[settle("cloud", 1, 2_000)]).unwrap();
    journal.maintain().unwrap();
    journal.append(&readings("m1", 2_000, 900), &[]).unwrap();
    drop(journal);
    let OpenedJournal { reader, report, .. } = open_on(&files);
    assert!(report.findings.is_empty(), "{report}");
    assert_eq!(read_all(&reader).0.last().unwrap().sequence, Sequence(2_900));
}

#[test]
fn below_the_floor_nothing_is_taken_but_settling_goes_on_and_it_recovers_by_itself() {
    let files = ForgetfulFiles::default();
    let OpenedJournal { mut journal, reader, .. } = open_on(&files);
    journal.append(&readings("m1", 0, 40), &[destinations(&["ehr"])]).unwrap();
    files.set_free_space(999_999);
    assert_eq!(journal.append(&readings("m1", 40, 1), &[]), Err(CommitError::BelowFloor));
    assert_eq!(reader.committed(), Sequence(40));
    let mut settled = 0;
    // More than the segment in use and the spare hold: into the reserve.
    while journal.append(&[], &[settle("ehr", 1, settled % 40 + 1)]).is_ok() {
        settled += 1;
        assert!(settled < 10_000, "the reserve must end");
    }
    assert!(settled > 300, "{settled} settles below the floor");
    files.set_free_space(u64::MAX);
    journal.append(&readings("m1", 40, 5), &[settle("ehr", 1, 40)]).unwrap();
    assert_eq!(reader.committed(), Sequence(45));
    drop(journal);
    assert_eq!(read_all(&open_on(&files).reader).0.len(), 45);
}

/// Promise 2: a disk that filled while the EHR was away takes readings again by itself once they are delivered, also where the
/// keyed store keeps what it grew by, and where delivered readings would have been kept for a while.
#[test]
fn a_full_disk_goes_on_when_everything_is_delivered() {
    for retention_ms in [0, 7 * 86_400_000] {
        let files = ForgetfulFiles::default();
        let options = StoreOptions { retention_ms, ..small_options() };
        let floor = options.free_space_floor_bytes;
        let OpenedJournal { mut journal, .. } = open_journal(options, wrap(), Arc::new(files.clone()), None).unwrap();
        journal.outbox.connect(Arc::new(super::second::AllCheckpointed::default()));
        journal.append(&[], &[destinations(&["ehr"])]).unwrap();
        files.set_room(floor + 100 * 1024);
        let mut taken = 0;
        for round in 0..12 {
            let before = taken;
            while journal.append(&readings("m1", taken, 7), &[]).is_ok() {
                taken += 7;
                assert!(taken < 100_000, "the disk never fills");
            }
            assert!(taken > before, "round {round} with {retention_ms} ms of retention: nothing is taken though all is delivered");
            // Meanwhile the keyed store grew below the floor, and stays as large as it is.
            files.set_room(floor - 2 * 1024);
            assert_eq!(journal.append(&readings("m1", taken, 1), &[]), Err(CommitError::BelowFloor));
            journal.append(&[], &[settle("ehr", 1, taken)]).unwrap();
            for _ in 0..20 {
                journal.maintain().unwrap();
            }
        }
    }
}

/// Promise 2: a dead letter in the oldest segment, and a destination that is away, keep every segment. When settling has used up what room
/// there was, what lets the oldest go is written all the same.
#[test]
fn the_last_of_the_room_is_for_what_lets_the_oldest_segment_go() {
    let files = ForgetfulFiles::default();
    let OpenedJournal { mut journal, .. } = open_on(&files);
    journal.outbox.connect(Arc::new(super::second::AllCheckpointed::default()));
    let letter = letter(vec![0xab]);
    journal.append(&[letter], &[destinations(&["ehr", "archive"])]).unwrap();
    journal.append(&readings("m1", 0, 2_000), &[]).unwrap();
    files.set_free_space(small_options().free_space_floor_bytes - 1);
    journal.maintain().unwrap();
    let mut settled = 0;
    while journal.append(&[], &[settle("ehr", 1, settled + 1)]).is_ok() {
        settled += 1;
        assert!(settled < 2_000, "the room must end");
    }
    assert_eq!(journal.append(&[], &[settle("archive", 1, 1)]), Err(CommitError::BelowFloor), "it lets nothing go");
    journal.append(&[], &[Change::DeadLettersResolved { sequences: vec![Sequence(1)], note: "discarded".into() }]).unwrap();
    assert_eq!(journal.maintain().unwrap().segments_reclaimed, 0);
    journal.append(&[], &[settle("ehr", 1, 2_001), settle("archive", 1, 2_001)]).unwrap();
    assert!(journal.maintain().unwrap().segments_reclaimed > 0);
    journal.append(&[], &[settle("archive", 1, 2_001)]).unwrap();
}

/// Promise 5: how fast the journal grows is told by what is written: files made ahead do not count, and a new segment is no leap.
#[test]
fn only_what_is_written_counts_as_used() {
    let files = ForgetfulFiles::default();
    let OpenedJournal { mut journal, reader, .. } = open_on(&files);
    let mut used = reader.used_bytes();
    assert!(used < small_options().segment_bytes / 4, "{used}");
    for batch in 0..150 {
        journal.append(&readings("m1", batch * 10, 10), &[]).unwrap();
        let now = reader.used_bytes();
        assert!((used + 1..used + small_options().segment_bytes / 4 * 3).contains(&now), "{used} to {now}");
        used = now;
    }
    assert!(reader.outbox().segments().len() > 2);
    drop(journal);
    assert!(open_on(&files).reader.used_bytes() >= used);
}

/// A state that does not fit into a record loses recent ids, not the journal.
#[test]
fn a_state_that_is_too_large_is_cut() {
    let files = ForgetfulFiles::default();
    let options = StoreOptions { segment_bytes: 4 * 1024 * 1024, ..small_options() };
    let OpenedJournal { mut journal, .. } = open_journal(options, wrap(), Arc::new(files.clone()), None).unwrap();
    let ids = vec![SeenReading { id: vitalgate_domain::ReadingId::from_bytes([1; 16]), value_digest: 1 }; 127];
    let seen = |number: usize| (vitalgate_domain::DeviceId::new(&format!("m{number}")).unwrap(), ids.clone());
    let state = crate::state::State { seen: (0..crate::state::SEEN_DEVICES_MAX).map(seen).collect(), ..Default::default() };
    journal.keeper = crate::state::StateKeeper::new(state);
    journal.rotate_data_key(None).unwrap();
    journal.append(&readings("m1", 0, 3), &[]).unwrap();
}

/// Promise 2: at the first start after an update the snapshot of the version before is used.
#[test]
fn a_store_of_the_version_before_opens_with_what_it_knew() {
    let files = ForgetfulFiles::default();
    let OpenedJournal { mut journal, .. } = open_on(&files);
    journal.append(&readings("m1", 0, 500), &[destinations(&["ehr"])]).unwrap();
    journal.rotate_data_key(None).unwrap();
    let (outbox, segment) = (Arc::clone(&journal.outbox), Arc::clone(&journal.active.segment));
    drop(journal);
    // The newest segment, which holds nothing but its snapshot, as that version began it.
    let (mut group, mut bytes) = (crate::group::Group::default(), Vec::new());
    group.add(crate::copy::BlockKind::State, 0, crate::wire::tests::SNAPSHOT_BEFORE.to_vec()).unwrap();
    let next = crate::copy::Watermark { ordinal: segment.ordinal, sequence: segment.first };
    crate::journal::begin_segment(&outbox, next, None, segment.key_id, &group, &mut bytes).unwrap();
    bytes.resize(small_options().segment_bytes as usize, 0);
    for folder in ["journal", "shadow"] {
        files.open(&small_options().dir.join(folder).join(&segment.name)).unwrap().write_all_at(&bytes, 0).unwrap();
    }
    let OpenedJournal { state, report, .. } = open_on(&files);
    assert!(!report.has_damage(), "{report}");
    assert_eq!(state.settled[&DestinationId::new("ehr").unwrap()].ranges(), [(Sequence(1), Sequence(500))]);
}

/// Promise 4: where no snapshot can be used, what was delivered and reclaimed is not taken for missing.
#[test]
fn what_was_reclaimed_is_settled_also_without_any_snapshot() {
    let files = ForgetfulFiles::default();
    let OpenedJournal { mut journal, reader, .. } = open_on(&files);
    journal.outbox.connect(Arc::new(super::second::AllCheckpointed::default()));
    journal.append(&[], &[destinations(&["ehr"])]).unwrap();
    for batch in 0..40 {
        journal.append(&readings("m1", batch * 50, 50), &[settle("ehr", batch * 50 + 1, batch * 50 + 50)]).unwrap();
    }
    assert!(journal.maintain().unwrap().segments_reclaimed > 1);
    journal.append(&readings("m1", 2_000, 1_000), &[]).unwrap();
    assert!(reader.oldest() > Sequence(200));
    let names: Vec<_> = journal.outbox.segments().iter().map(|segment| segment.name.clone()).collect();
    drop(journal);
    for name in &names {
        for path in ["journal", "shadow"].map(|folder| small_options().dir.join(folder).join(name)) {
            if let Ok(file) = files.open(&path) {
                file.write_all_at(&[0xff; 8], crate::segment::RECORDS_START + 80).unwrap();
            }
        }
    }
    let OpenedJournal { state, reader, .. } = open_on(&files);
    let settled = &state.settled[&DestinationId::new("ehr").unwrap()];
    assert!(settled.first_missing(Sequence::FIRST) >= reader.oldest(), "{settled:?}");
}

/// While something waits for a destination each copy of it counts: only a store of which all is delivered begins anew.
#[test]
fn the_keyed_store_gives_way_only_when_nothing_waits_for_anybody() {
    let files = ForgetfulFiles::default();
    let OpenedJournal { mut journal, .. } = open_on(&files);
    let keyed = Arc::new(super::second::AllCheckpointed::default());
    journal.outbox.connect(Arc::clone(&keyed) as Arc<dyn crate::copy::KeyedCopy>);
    let asked = |journal: &mut crate::journal::Journal| {
        let before = keyed.shrinks.load(std::sync::atomic::Ordering::Relaxed);
        journal.maintain().unwrap();
        keyed.shrinks.load(std::sync::atomic::Ordering::Relaxed) > before
    };
    journal.append(&readings("m1", 0, 40), &[destinations(&["ehr"])]).unwrap();
    journal.append(&[], &[settle("ehr", 1, 40)]).unwrap();
    assert!(!asked(&mut journal), "there is room");
    journal.append(&readings("m1", 40, 1), &[]).unwrap();
    files.set_free_space(small_options().free_space_floor_bytes - 1);
    assert!(!asked(&mut journal), "one reading waits for the EHR");
    journal.append(&[], &[settle("ehr", 41, 41)]).unwrap();
    assert!(asked(&mut journal), "all is delivered and nothing can be taken");
}

/// Promise 2: an empty segment that was made ahead is no reason to refuse readings.
#[test]
fn what_was_made_ahead_gives_way_below_the_floor() {
    let files = ForgetfulFiles::default();
    let OpenedJournal { mut journal, .. } = open_on(&files);
    files.set_room(small_options().free_space_floor_bytes - 2 * 1024);
    assert_eq!(journal.append(&readings("m1", 0, 7), &[]), Err(CommitError::BelowFloor));
    journal.maintain().unwrap();
    journal.append(&readings("m1", 0, 7), &[]).unwrap();
}

#[test]
fn after_a_failed_sync_nothing_more_is_taken() {
    let files = ForgetfulFiles::default();
    let OpenedJournal { mut journal, reader, .. } = open_on(&files);
    journal.append(&readings("m1", 0, 3), &[]).unwrap();
    files.fail_sync(2);
    assert!(journal.append(&readings("m1", 3, 3), &[]).unwrap_err().is_fatal());
    assert!(journal.append(&readings("m1", 3, 3), &[]).unwrap_err().is_fatal());
    assert_eq!(reader.committed(), Sequence(3));
}

#[test]
fn a_rotated_key_seals_what_comes_and_what_was_there_stays_readable() {
    let files = ForgetfulFiles::default();
    let OpenedJournal { mut journal, .. } = open_on(&files);
    let entries = readings("m1", 0, 90);
    journal.append(&entries[..30], &[]).unwrap();
    assert_eq!(journal.rotate_data_key(None).unwrap(), 2);
    journal.append(&entries[30..60], &[]).unwrap();
    assert_eq!(journal.rotate_data_key(None).unwrap(), 3);
    journal.append(&entries[60..], &[]).unwrap();
    drop(journal);
    let OpenedJournal { reader, journal, .. } = open_on(&files);
    assert_holds(&read_all(&reader).0, 1, &entries);
    assert_eq!(journal.outbox.segments().iter().map(|segment| segment.key_id).collect::<Vec<_>>(), [1, 2, 3]);
}

/// A gateway that is started again every few hours must still know how old its key is.
#[test]
fn when_a_key_was_made_survives_a_restart_and_damage_to_either_key_file() {
    let (first, second) = (UnixMs(1_795_341_600_000), UnixMs(1_795_428_000_000));
    let files = ForgetfulFiles::default();
    let OpenedJournal { mut journal, .. } = open_on(&files);
    assert_eq!(journal.data_key_made_at(), None, "a new store does not know the time");
    journal.note_data_key_made(first).unwrap();
    drop(journal);
    let OpenedJournal { mut journal, .. } = open_on(&files);
    assert_eq!(journal.data_key_made_at(), Some(first));
    let key_id = journal.rotate_data_key(Some(second)).unwrap();
    drop(journal);
    for copy in ["a", "b"] {
        let path = small_options().dir.join("keys").join(format!("{key_id:08x}.{copy}.key"));
        files.open(&path).unwrap().write_all_at(&[0; 16], 0).unwrap();
        let OpenedJournal { journal, report, .. } = open_on(&files);
        assert!(matches!(report.findings.as_slice(), [Finding::KeyHealed { .. }]), "{report}");
        assert_eq!(journal.data_key_made_at(), Some(second), "copy {copy} was damaged");
    }
}

#[test]
fn another_key_encryption_key_is_refused_and_destroys_nothing() {
    let files = ForgetfulFiles::default();
    let OpenedJournal { mut journal, .. } = open_on(&files);
    journal.append(&readings("m1", 0, 9), &[]).unwrap();
    drop(journal);
    let other = open_journal(small_options(), Arc::new(TestWrap(2)), Arc::new(files.clone()), None);
    assert!(matches!(other.map(|_| ()), Err(OpenError::Key(_))));
    assert_eq!(read_all(&open_on(&files).reader).0.len(), 9);
}

#[test]
fn no_nonce_is_used_twice_with_a_key_not_even_after_torn_writes() {
    let mut files = ForgetfulFiles::default();
    let mut used = std::collections::BTreeSet::new();
    for round in 0..20u64 {
        let OpenedJournal { mut journal, .. } = open_on(&files);
        journal.append(&readings("m1", round * 100, 60), &[]).unwrap();
        // A write that may have reached the disk without having been acknowledged.
        files.cut_at(files.operations() + 2);
        let _lost = journal.append(&readings("m1", round * 100 + 60, 200), &[]);
        let segment_bytes = small_options().segment_bytes as usize;
        for path in files.paths().iter().filter(|path| path.starts_with("/state/store/journal")) {
            let bytes = crate::files::read_up_to(&files, path, segment_bytes).unwrap();
            let mut at = 0;
            while let Some(rest) = bytes.get(at..) {
                if let Some((header, record)) = crate::record::whole_record(rest) {
                    let seal = (header.key_id, header.nonce());
                    // The same record may be met again; another one under the same nonce must not.
                    used.insert((seal, crate::record::link(record)));
                }
                at += 64;
                if at >= bytes.len() {
                    break;
                }
            }
        }
        files = files.after(crate::files::forgetful::PowerCut::KeepSome(round));
    }
    let nonces: std::collections::BTreeSet<_> = used.iter().map(|(seal, _)| seal).collect();
    assert_eq!(nonces.len(), used.len());
    assert!(used.len() > 50, "{} records", used.len());
}

#[test]
fn a_dead_letter_of_the_largest_size_is_stored_and_its_segment_stays_until_it_is_resolved() {
    let files = ForgetfulFiles::default();
    let options = StoreOptions { segment_bytes: 256 * 1024, ..small_options() };
    let OpenedJournal { mut journal, reader, .. } = open_journal(options, wrap(), Arc::new(files.clone()), None).unwrap();
    journal.outbox.connect(Arc::new(super::second::AllCheckpointed::default()));
    let letter = letter(vec![0xab; vitalgate_domain::limits::PAYLOAD_BYTES_MAX]);
    let letters = vec![letter.clone(); 7];
    journal.append(&letters, &[destinations(&["ehr"]), settle("ehr", 1, 100_000)]).unwrap();
    journal.append(&readings("m1", 0, 4_000), &[]).unwrap();
    assert_holds(&read_all(&reader).0[..7], 1, &letters);
    assert_eq!(journal.maintain().unwrap().segments_reclaimed, 0);
    let sequences = (1..=7).map(Sequence).collect();
    journal.append(&[], &[Change::DeadLettersResolved { sequences, note: "discarded".into() }]).unwrap();
    // Promise 5: by whom it was resolved is told as long as it is here.
    let noted = reader.resolutions(&[1, 7, 8].map(Sequence).into()).unwrap();
    assert_eq!(noted, [1, 7].map(|sequence| (Sequence(sequence), "discarded".into())).into());
    assert!(journal.maintain().unwrap().segments_reclaimed > 0);
    assert!(files.paths().iter().all(|path| path != Path::new("/state/store/journal/spare.new")));
}

fn known_as(sequences: &[u64], id: &str) -> Change {
    let Change::Settled { destination, ranges, rejected, .. } = settle("ehr", sequences[0], sequences[0]) else { unreachable!() };
    let remote_ids = sequences.iter().map(|sequence| (Sequence(*sequence), id.into())).collect();
    Change::Settled { destination, ranges, rejected, remote_ids }
}

/// Promise 5: what a destination knows under an id of its own is found by it, in whichever segment that was noted, and what was not
/// looked through is said.
#[test]
fn what_a_destination_knows_under_an_id_is_found_by_it() {
    let files = ForgetfulFiles::default();
    let OpenedJournal { mut journal, reader, .. } = open_on(&files);
    for (round, id) in (0..).zip(["one", "another", "another one"]) {
        journal.append(&readings("m1", round * 1_000, 600), &[]).unwrap();
        journal.append(&[], &[known_as(&[round * 600 + 1, round * 600 + 3], id)]).unwrap();
    }
    assert!(reader.outbox().segments().len() > 3, "several segments");
    let later = || std::time::Instant::now() + std::time::Duration::from_secs(60);
    let found = |id: &str| reader.known_as(id, later()).unwrap();
    for (round, id) in (0..).zip(["one", "another", "another one"]) {
        assert_eq!(found(id).found, [round * 600 + 1, round * 600 + 3].map(Sequence).into(), "{id}");
    }
    assert_eq!((found("other").found.len(), found("other").below), (0, None));
    let in_no_time = reader.known_as("one", std::time::Instant::now()).unwrap();
    assert_eq!((in_no_time.found.len(), in_no_time.below), (0, Some(reader.committed().next())));
}

/// Promise 5: also what is moved to the journal's end, and its old segment reclaimed, before the search comes to it.
#[test]
fn what_is_moved_during_the_search_is_found_all_the_same() {
    let files = ForgetfulFiles::default();
    let OpenedJournal { mut journal, reader, .. } = open_on(&files);
    let keyed = Arc::new(super::second::AllCheckpointed::default());
    journal.outbox.connect(Arc::clone(&keyed) as Arc<dyn KeyedCopy>);
    let letters = [letter(vec![0xab])];
    journal.append(&letters, &[destinations(&["ehr"]), settle("ehr", 1, 100_000), known_as(&[1], "given")]).unwrap();
    journal.append(&readings("m1", 0, 2_000), &[]).unwrap();
    assert_eq!(journal.maintain().unwrap().segments_reclaimed, 0, "the dead letter keeps them");
    let segments = reader.outbox().segments();
    let [_, .., last_full, _] = segments.as_slice() else { panic!("{} segments", segments.len()) };
    let damaged = last_full.start().offset as usize + 40;
    files.damage(&Path::new("/state/store/journal").join(&last_full.name), |bytes| bytes[damaged] ^= 1);
    let moved = reader.committed().next();
    *keyed.when_asked.lock().unwrap() = Some(Box::new(move || {
        let resolved = Change::DeadLettersResolved { sequences: vec![Sequence(1)], note: "moved".into() };
        journal.append(&letters, &[known_as(&[moved.0], "given"), resolved]).unwrap();
        assert!(journal.maintain().unwrap().segments_reclaimed > 0);
    }));
    let later = std::time::Instant::now() + std::time::Duration::from_secs(60);
    let search = reader.known_as("given", later).unwrap();
    assert!(keyed.when_asked.lock().unwrap().is_none(), "nothing was moved");
    assert_eq!((search.found, search.below), ([moved].into(), None));
}

/// Days that delivered readings stay in these tests.
const RETENTION_DAYS: i64 = 7;
const DAY_MS: i64 = 86_400_000;

fn open_keeping(files: &ForgetfulFiles) -> OpenedJournal {
    let options = StoreOptions { retention_ms: (RETENTION_DAYS * DAY_MS).unsigned_abs(), ..small_options() };
    let opened = open_journal(options, wrap(), Arc::new(files.clone()), None).unwrap();
    opened.journal.outbox.connect(Arc::new(super::second::AllCheckpointed::default()));
    opened
}

/// What a clock says so many days after the first reading.
fn day(trust: ClockTrust, days: i64) -> Received {
    let first = crate::tests_support::received(0);
    Received { wall: first.wall.plus_ms(days * DAY_MS), trust, ..first }
}

/// Delivered readings go, and their keys are destroyed, when their time is over, also where a clock was years ahead when a segment
/// was begun.
#[test]
fn a_clock_that_was_ahead_keeps_nothing_for_years() {
    let files = ForgetfulFiles::default();
    let OpenedJournal { mut journal, .. } = open_keeping(&files);
    journal.append(&readings("m1", 0, 300), &[destinations(&["ehr"])]).unwrap();
    journal.note_time(&day(ClockTrust::Free, 3_650));
    journal.rotate_data_key(None).unwrap();
    journal.note_time(&day(ClockTrust::Synchronised, 0));
    journal.append(&readings("m1", 300, 2_000), &[settle("ehr", 1, 2_300)]).unwrap();
    journal.note_time(&day(ClockTrust::Synchronised, RETENTION_DAYS - 1));
    assert_eq!(journal.maintain().unwrap().segments_reclaimed, 0, "their time is not over");
    journal.note_time(&day(ClockTrust::Synchronised, RETENTION_DAYS + 1));
    assert_eq!(journal.maintain().unwrap().keys_destroyed, 1);
    assert_eq!(journal.outbox.segments().len(), 1, "all but the one in use");
}

/// Delivered readings stay for their time, also what came after a start without a clock, long after the one before.
#[test]
fn what_was_delivered_before_the_clock_was_set_stays_for_its_time() {
    let files = ForgetfulFiles::default();
    let OpenedJournal { mut journal, .. } = open_keeping(&files);
    journal.note_time(&day(ClockTrust::Synchronised, 0));
    journal.append(&readings("m1", 0, 500), &[destinations(&["ehr"]), settle("ehr", 1, 500)]).unwrap();
    drop(journal);
    let OpenedJournal { mut journal, reader, .. } = open_keeping(&files);
    let mut undated = readings("m1", 500, 2_000);
    for entry in &mut undated {
        if let Entry::Reading(reading) = entry {
            reading.time.received.trust = ClockTrust::Unset;
        }
    }
    journal.note_time(&day(ClockTrust::Unset, -9_000));
    journal.append(&undated, &[settle("ehr", 1, 2_500)]).unwrap();
    let set_on = RETENTION_DAYS + 3;
    journal.note_time(&day(ClockTrust::Synchronised, set_on));
    journal.maintain().unwrap();
    assert!(reader.oldest() <= Sequence(501), "just delivered: {}", reader.oldest());
    journal.append(&readings("m1", 2_500, 900), &[settle("ehr", 1, 3_400)]).unwrap();
    journal.note_time(&day(ClockTrust::Synchronised, set_on + RETENTION_DAYS - 1));
    journal.maintain().unwrap();
    assert!(reader.oldest() <= Sequence(501), "their time is not over: {}", reader.oldest());
    journal.note_time(&day(ClockTrust::Synchronised, set_on + RETENTION_DAYS + 1));
    journal.maintain().unwrap();
    assert!(reader.oldest() > Sequence(2_500), "{}", reader.oldest());
}
