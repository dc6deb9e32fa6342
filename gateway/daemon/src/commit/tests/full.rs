//! A disk that is full.

use std::io;
use std::sync::atomic::AtomicU64;

use vitalgate_store::StoredFile;
use vitalgate_store::files::FolderClaim;

use super::*;

/// The machine's files on a disk that has so many bytes left.
struct Disk(AtomicU64);

impl Disk {
    fn roomy() -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(u64::MAX)))
    }

    fn leave(&self, free_bytes: u64) {
        self.0.store(free_bytes, Ordering::Relaxed);
    }
}

impl FileSystem for Disk {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        RealFiles.create_dir_all(dir)
    }
    fn create(&self, path: &Path) -> io::Result<Arc<dyn StoredFile>> {
        RealFiles.create(path)
    }
    fn open(&self, path: &Path) -> io::Result<Arc<dyn StoredFile>> {
        RealFiles.open(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealFiles.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        RealFiles.remove(path)
    }
    fn remove_dir_all(&self, dir: &Path) -> io::Result<()> {
        RealFiles.remove_dir_all(dir)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        RealFiles.list(dir)
    }
    fn holds_anything(&self, dir: &Path) -> io::Result<bool> {
        RealFiles.holds_anything(dir)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        RealFiles.sync_dir(dir)
    }
    fn free_space(&self, _: &Path) -> io::Result<u64> {
        Ok(self.0.load(Ordering::Relaxed))
    }
    fn claim(&self, dir: &Path) -> io::Result<Box<dyn FolderClaim>> {
        RealFiles.claim(dir)
    }
}

fn options(folder: &Path) -> StoreOptions {
    StoreOptions { segment_bytes: 1024 * 1024, free_space_floor_bytes: 64 * 1024, ..StoreOptions::new(folder.join("store")) }
}

/// What one read of the journal settles where all of it waits for a patient.
const HELD: u64 = 1_024;

fn held_from(first: u64) -> Change {
    let reason = DeadLetterReason::new(DeadLetterKind::Unassigned, &"x".repeat(200));
    let rejected = (first..first + HELD).map(|sequence| RejectedReading {
        sequence: Sequence(sequence),
        id: vitalgate_domain::ReadingId::from_bytes([0; 16]),
        reason: reason.clone(),
    });
    let ranges = vec![(Sequence(first), Sequence(first + HELD - 1))];
    Change::Settled { destination: DestinationId::new(EHR).unwrap(), ranges, rejected: rejected.collect(), remote_ids: vec![] }
}

fn settles(rig: &mut Rig, change: Change) {
    rig.commit(|commit, group| commit.obey(Command::Change(change), group));
}

fn is_settled_up_to(rig: &Rig, last: u64) -> bool {
    rig.commit.journal.state().settled_everywhere(Sequence::FIRST, Sequence(last))
}

fn reads_on(rig: &Rig) -> bool {
    rig.commit.shared.destinations.values().all(|facts| !facts.settling_waits.load(Ordering::Relaxed))
}

/// Promise 4: on a full disk a stretch without a patient, however long, is settled and listed once there is room: in the same process.
#[test]
fn masses_that_are_held_on_a_full_disk_are_all_settled() {
    let folder = folder("free");
    let disk = Disk::roomy();
    let mut rig = rig_on(folder.path(), &list_profile("pr"), options(folder.path()), disk.clone());
    disk.leave(0);
    for first in [1, 1 + HELD] {
        settles(&mut rig, held_from(first));
    }
    disk.leave(u64::MAX);
    rig.commit.upkeep(&mut Group::default()).unwrap();
    assert!(is_settled_up_to(&rig, 2 * HELD) && reads_on(&rig));
    assert_eq!(rig.unresolved(), [(1, 2 * HELD)]);
}

/// Promises 2 and 4: where not even settling has room, a destination with masses of it reads no further, nothing of it is lost, and
/// what an administrator asks for still passes.
#[test]
fn what_finds_no_room_at_all_waits_and_holds_only_its_destination_back() {
    let folder = folder("free");
    let disk = Disk::roomy();
    let mut rig = rig_on(folder.path(), &list_profile("pr"), options(folder.path()), disk.clone());
    rig.publish(r#"{"values": [{"name": "pulse", "value": 71}]}"#, rig.received(500));
    disk.leave(0);
    rig.commit.upkeep(&mut Group::default()).unwrap();
    let remote_ids = (0..1_000).map(|number| (Sequence::FIRST, format!("{number:0100}").into())).collect();
    let filler = Change::Settled { destination: DestinationId::new(EHR).unwrap(), ranges: vec![], rejected: vec![], remote_ids };
    while rig.commit.journal.append(&[], std::slice::from_ref(&filler)).is_ok() {}
    for part in 0..4 {
        assert!(part < 2 || !reads_on(&rig), "it goes on reading");
        settles(&mut rig, held_from(2 + part * HELD));
    }
    assert!(!is_settled_up_to(&rig, 2) && rig.unresolved() == [(1, 1)], "there is no room for it");
    let (asker, mut answer) = oneshot::channel();
    let request = ResolveRequest { sequences: vec![1], among: None, resolution: Resolution::Discard, by: None };
    rig.commit(|commit, group| commit.obey(Command::Resolve(request, asker), group));
    assert!(answer.try_recv().unwrap().is_ok());

    disk.leave(u64::MAX);
    let ranges = vec![(Sequence::FIRST, Sequence::FIRST)];
    let destination = DestinationId::new(EHR).unwrap();
    settles(&mut rig, Change::Settled { destination, ranges, rejected: vec![], remote_ids: vec![] });
    rig.commit.upkeep(&mut Group::default()).unwrap();
    assert!(is_settled_up_to(&rig, 1 + 4 * HELD) && reads_on(&rig));
    assert_eq!(rig.unresolved(), [(2, 1 + 4 * HELD)]);
}

/// Promise 3: what is refused was not stored, however much came at once: sent again it would be there twice.
#[test]
fn what_is_refused_is_not_stored_in_part() {
    let folder = folder("free");
    let disk = Disk::roomy();
    let mut rig = rig_on(folder.path(), &list_profile("pr"), options(folder.path()), disk.clone());
    rig.publish(SAMPLE, rig.received(500));
    let template = rig.readings();
    let mut store = |readings: usize| {
        let entries: Vec<_> = template.iter().cycle().take(readings).cloned().map(Entry::Reading).collect();
        let before = rig.commit.journal.next_sequence();
        let receipt = rig.commit(|_, group| group.entries.extend(entries));
        let stored = rig.commit.journal.next_sequence().0 - before.0;
        (receipt, stored, rig.commit.journal.has_room().unwrap())
    };
    // Above the floor, and no further segment.
    disk.leave(128 * 1024);
    while store(5_000).2 {}
    assert_eq!(store(24_000), (Receipt::Refused, 0, false), "more than goes out with one write");
    assert_eq!(store(5_000), (Receipt::Committed, 5_000, false));
}

/// Promise 1: as long as nothing can be acknowledged the gateway says so, whatever is settled meanwhile; and no longer.
#[test]
fn a_full_disk_is_said_to_be_full_until_there_is_room() {
    let folder = folder("free");
    let mut before = rig(folder.path(), &list_profile("pr"), 0);
    assert_eq!(before.submit(SAMPLE), Receipt::Committed);
    drop(before);
    let mut full = rig(folder.path(), &list_profile("pr"), u64::MAX / 2);
    full.commit.upkeep(&mut Group::default()).unwrap();
    assert!(full.is_full(), "no device has come since the start");
    assert_eq!((full.submit(SAMPLE), full.is_full()), (Receipt::Refused, true));
    full.settle([]);
    full.commit.upkeep(&mut Group::default()).unwrap();
    assert!(full.commit.journal.state().settled_everywhere(Sequence(1), Sequence(3)));
    assert!(full.is_full(), "settling needs no room");
    drop(full);
    let mut roomy = rig(folder.path(), &list_profile("pr"), 0);
    roomy.commit.shared.below_floor.store(true, Ordering::Relaxed);
    roomy.commit.upkeep(&mut Group::default()).unwrap();
    assert!(!roomy.is_full(), "there is room again, and no device has come yet");
}

/// Promise 2: what the EHR answers on a full disk is kept, although a dead letter in the oldest segment keeps every segment and the room for
/// settling is used up; and with the dead letter discarded they go.
#[test]
fn a_full_disk_that_one_dead_letter_holds_goes_on_when_it_is_discarded() {
    let folder = folder("free");
    let options = |free_space_floor_bytes| StoreOptions {
        free_space_floor_bytes,
        retention_ms: 0,
        segment_bytes: 64 * 1024,
        ..StoreOptions::new(folder.path().join("store"))
    };
    let mut before = rig_with(folder.path(), &list_profile("pr"), options(0));
    before.publish(r#"{"values": [{"name": "pulse", "value": 71}]}"#, before.received(500));
    before.publish(SAMPLE, before.received(400));
    let template = before.readings();
    for _ in 0..4 {
        let entries: Vec<_> = template.iter().cycle().take(1_500).cloned().map(Entry::Reading).collect();
        before.commit(|_, group| group.entries.extend(entries));
    }
    let last = before.reader.committed();
    drop(before);

    let mut full = rig_with(folder.path(), &list_profile("pr"), options(u64::MAX / 2));
    full.commit.upkeep(&mut Group::default()).unwrap();
    let ranges = vec![(Sequence::FIRST, Sequence::FIRST)];
    let settled = Change::Settled { destination: DestinationId::new(EHR).unwrap(), ranges, rejected: vec![], remote_ids: vec![] };
    while full.commit.journal.append(&[], std::slice::from_ref(&settled)).is_ok() {}
    full.settle([]);
    full.commit.upkeep(&mut Group::default()).unwrap();
    assert!(!full.commit.journal.state().settled_everywhere(Sequence::FIRST, last), "there is no room for it");

    let sample = full.sample(SAMPLE, full.received(0));
    let (asker, mut answer) = oneshot::channel();
    let request = ResolveRequest { sequences: vec![1], among: None, resolution: Resolution::Discard, by: None };
    let receipt = full.commit(|commit, group| {
        commit.admit(sample, group);
        commit.obey(Command::Resolve(request, asker), group);
    });
    let answer = answer.try_recv().unwrap();
    assert!(receipt == Receipt::Refused && answer.is_ok(), "a reading beside it is refused, the discarding is not: {answer:?}");
    full.commit.upkeep(&mut Group::default()).unwrap();
    assert!(full.commit.journal.state().settled_everywhere(Sequence::FIRST, last), "it was kept");
    let end = std::time::Instant::now() + PATIENCE;
    while full.reader.oldest() == Sequence::FIRST {
        assert!(std::time::Instant::now() < end, "nothing is reclaimed: {:?}", full.keyed.status());
        let next = vitalgate_store::KeyedCopy::applied(&*full.keyed).ordinal.next();
        let _progress = full.keyed.wait_reached(next, true, Duration::from_millis(100));
        full.commit.upkeep(&mut Group::default()).unwrap();
    }
}

/// Promises 1 and 4: dead letters whose segment is missing, on a disk that has no room for it, are moved out of the keyed store, which then
/// lets go of what is settled: it does not grow until no reading finds room. They stay what they were.
#[test]
fn missing_dead_letters_that_find_no_room_where_they_were_are_moved() {
    const SEGMENT_BYTES: u64 = 64 * 1024;
    let folder = folder("free");
    let options = || StoreOptions { segment_bytes: SEGMENT_BYTES, retention_ms: 0, ..options(folder.path()) };
    let mut before = rig_with(folder.path(), &list_profile("pr"), options());
    for number in 0..5 {
        before.publish(r#"{"values": [{"name": "pulse", "value": 71}, {"name": "hr", "value": 70}]}"#, before.received(500 + number));
    }
    let letters: Vec<_> = before.unresolved();
    let entry = |rig: &Rig, place: u64| rig.reader.get(Sequence(place)).unwrap().map(|record| record.entry);
    let first = entry(&before, letters[0].0).unwrap();
    let template = before.readings();
    for _ in 0..3 {
        let entries: Vec<_> = template.iter().cycle().take(1_500).cloned().map(Entry::Reading).collect();
        before.commit(|_, group| group.entries.extend(entries));
    }
    before.settle([]);
    assert!(before.keyed.wait_reached(before.reader.committed_record(), true, PATIENCE), "{:?}", before.keyed.status());
    drop(before);
    let store = folder.path().join("store");
    let gone = RealFiles.list(&store.join("journal")).unwrap().remove(0);
    std::fs::remove_file(store.join("journal").join(&gone)).unwrap();
    // Its shadow may have gone before.
    let _shadow = std::fs::remove_file(store.join("shadow").join(&gone));

    let disk = Disk::roomy();
    disk.leave(options().free_space_floor_bytes + SEGMENT_BYTES / 2);
    let mut rig = rig_on(folder.path(), &list_profile("pr"), options(), disk);
    assert!(rig.reader.oldest().0 > letters.last().unwrap().1, "there is no room for their segment");
    let end = std::time::Instant::now() + PATIENCE;
    while rig.unresolved()[0].0 <= letters.last().unwrap().1 {
        assert!(std::time::Instant::now() < end, "{:?}, {:?}", rig.unresolved(), rig.keyed.status());
        let _progress = rig.keyed.wait_reached(rig.reader.committed_record(), false, Duration::from_millis(100));
        rig.commit.carry_at_ms = 0;
        rig.commit.upkeep(&mut Group::default()).unwrap();
    }
    let count = |letters: &[(u64, u64)]| letters.iter().map(|(first, last)| last - first + 1).sum::<u64>();
    assert_eq!(count(&rig.unresolved()), count(&letters));
    assert_eq!(entry(&rig, rig.unresolved()[0].0).unwrap(), first);
    rig.commit.upkeep(&mut Group::default()).unwrap();
    assert_eq!(entry(&rig, letters[0].0), None, "nothing is kept for its sake");
}
