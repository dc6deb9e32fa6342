//! Where a destination begins, and what becomes of one that the configuration no longer names.

use std::collections::BTreeSet;

use anyhow::Context as _;
use vitalgate_config::Config;
use vitalgate_domain::{Change, DestinationId, Entry, SequenceRanges};
use vitalgate_pipeline::{Alarm, AlarmKind};
use vitalgate_store::{CommitError, Journal, Reader};

use crate::shared::Shared;

/// Most entries that are read at once.
const READ_ENTRIES_MAX: usize = 1_024;
/// Bytes of stored records that one read may bring into memory.
const READ_BYTES_MAX: usize = 1024 * 1024;

/// Tells the journal which destinations there are. A new one begins with the oldest entry that is still here: what was reclaimed
/// before it came had gone wherever it was to go, and is not missing. One that is gone while readings wait for it keeps its place, until
/// it is given up by name. Gives what cannot be written on a full disk: it is reckoned with from here on, and has to be written later.
pub(super) fn announce(config: &Config, journal: &mut Journal, reader: &Reader) -> anyhow::Result<Option<Change>> {
    let present: Vec<_> = config.destinations.iter().map(|destination| destination.id.clone()).collect();
    tell(present, &config.store.given_up, journal, reader)
}

/// Raises an alarm for each destination that keeps its place, though the configuration no longer names it.
pub(super) fn tell_of_departed(config: &Config, shared: &Shared) {
    for (destination, facts) in &shared.destinations {
        if config.destinations.iter().all(|configured| configured.id != *destination) {
            let detail = format!(
                "readings wait for it, and the configuration no longer names it: name it again, or give them up with \
                 given_up = [\"{destination}\"] in [store]"
            );
            tracing::error!(%destination, "{detail}");
            facts.raise(&Alarm { kind: AlarmKind::Paused, detail: detail.into() });
        }
    }
}

fn tell(
    mut present: Vec<DestinationId>,
    given_up: &[DestinationId],
    journal: &mut Journal,
    reader: &Reader,
) -> anyhow::Result<Option<Change>> {
    let known = journal.state().settled.iter();
    let departed =
        known.filter(|(destination, settled)| !present.contains(destination) && keeps_its_place(destination, settled, given_up, reader));
    let departed: Vec<_> = departed.map(|(destination, _)| destination.clone()).collect();
    present.extend(departed);
    if present.iter().collect::<BTreeSet<_>>() == journal.state().settled.keys().collect() {
        return Ok(None);
    }
    let change = Change::Destinations { present, from: reader.oldest() };
    match journal.append(&[], std::slice::from_ref(&change)) {
        Ok(_) => Ok(None),
        Err(CommitError::BelowFloor) => {
            tracing::warn!("the disk is full: that the destinations are others now is written when there is room");
            journal.assume(&change);
            Ok(Some(change))
        }
        Err(error) => Err(error).context("the journal cannot be written"),
    }
}

fn keeps_its_place(destination: &DestinationId, settled: &SequenceRanges, given_up: &[DestinationId], reader: &Reader) -> bool {
    if !given_up.contains(destination) {
        return any_reading_waits(settled, reader);
    }
    let entries = settled.missing_up_to(reader.committed());
    tracing::warn!(%destination, entries, "given up, as [store] says: what waits for this destination is not delivered to it");
    false
}

/// Whether a reading is not settled. What cannot be read may be one.
fn any_reading_waits(settled: &SequenceRanges, reader: &Reader) -> bool {
    let committed = reader.committed();
    let mut from = settled.first_missing(reader.oldest());
    while from <= committed {
        let until = settled.gap_end(from).map_or(committed, |end| end.min(committed));
        let Ok(read) = reader.read(from, until, READ_ENTRIES_MAX, READ_BYTES_MAX) else { return true };
        let has_reading = read.records.iter().any(|record| matches!(record.entry, Entry::Reading(_)));
        if has_reading || !read.damaged.is_empty() || read.reached < from {
            return true;
        }
        from = settled.first_missing(read.reached.next());
    }
    false
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use vitalgate_domain::{
        BootId, ClockTrust, DeviceEvent, DeviceEventKind, DeviceId, Flags, Metric, NoReading, Reading, ReadingId, ReadingTime, Received,
        Sequence, Subject, UnixMs, Value,
    };
    use vitalgate_store::{KeyedCopy as _, Opened, RealFiles, StoreOptions};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    fn received(number: u64) -> Received {
        let wall = UnixMs(1_795_345_200_000).plus_ms(i64::try_from(number).unwrap());
        Received { wall, monotonic_ms: number, boot: BootId::from_bytes([1; 16]), trust: ClockTrust::Synchronised }
    }

    fn event(number: u64) -> Entry {
        let device = DeviceId::new("monitor-01").unwrap();
        Entry::DeviceEvent(DeviceEvent { device, kind: DeviceEventKind::Lost, received: received(number) })
    }

    fn reading(number: u64) -> Entry {
        Entry::Reading(Reading {
            id: ReadingId::from_bytes(u128::from(number).to_be_bytes()),
            device: DeviceId::new("monitor-01").unwrap(),
            metric: Metric::HeartRate,
            slot: 0,
            value: Value::Absent(NoReading::NotAvailable),
            reported: None,
            time: ReadingTime { device: None, received: received(number), correction_ms: 0 },
            device_sequence: None,
            flags: Flags::default(),
            subject: Subject::Unassigned,
        })
    }

    /// Commits 10,000 entries, which fill several segments, and settles them for one destination.
    fn committed_and_settled(opened: &mut Opened, destination: &DestinationId, entry: fn(u64) -> Entry) {
        for block in 0..40 {
            let entries: Vec<_> = (block * 250..(block + 1) * 250).map(entry).collect();
            opened.journal.append(&entries, &[]).unwrap();
        }
        settle(opened, destination);
    }

    fn settle(opened: &mut Opened, destination: &DestinationId) {
        let ranges = vec![(Sequence::FIRST, opened.reader.committed())];
        let settled = Change::Settled { destination: destination.clone(), ranges, rejected: vec![], remote_ids: vec![] };
        opened.journal.append(&[], &[settled]).unwrap();
    }

    /// Waits until the buffer has everything; then upkeep depends on what is settled alone.
    fn checkpointed(opened: &Opened) {
        let end = Instant::now() + PATIENCE;
        while opened.keyed.checkpointed().ordinal < opened.reader.committed_record() {
            assert!(Instant::now() < end, "no checkpoint: {:?}", opened.keyed.status());
            let _progress = opened.keyed.wait_reached(opened.reader.committed_record(), true, Duration::from_millis(100));
        }
    }

    /// Promises 2 and 4: a destination that is taken out of the file loses nothing that waits for it, also across restarts, until it
    /// is given up by name; one for which nothing waits just goes.
    #[test]
    fn a_destination_that_is_gone_keeps_what_waits_for_it_until_it_is_given_up() {
        let folder = tempfile::tempdir().unwrap();
        let open = || {
            let keys = Arc::new(vitalgate_trust::FileKeyWrap::open_or_create(&folder.path().join("kek")).unwrap());
            let options = StoreOptions { segment_bytes: 64 * 1024, retention_ms: 0, ..StoreOptions::new(folder.path().join("store")) };
            vitalgate_store::open(options, keys, Arc::new(RealFiles)).unwrap()
        };
        let [ehr, local, idle] = ["ehr", "local", "idle"].map(|id| DestinationId::new(id).unwrap());
        let mut opened = open();
        let all = vec![ehr.clone(), local.clone(), idle.clone()];
        tell(all, &[], &mut opened.journal, &opened.reader).unwrap();
        committed_and_settled(&mut opened, &ehr, reading);
        settle(&mut opened, &idle);
        // What a device does after the last reading is nothing that a destination waits for.
        opened.journal.append(&[event(0)], &[]).unwrap();
        let told = |opened: &mut Opened, given_up: &[DestinationId]| {
            tell(vec![ehr.clone()], given_up, &mut opened.journal, &opened.reader).unwrap();
            opened.journal.state().settled.keys().cloned().collect::<Vec<_>>()
        };
        for _ in 0..2 {
            assert_eq!(told(&mut opened, &[]), [ehr.clone(), local.clone()]);
            // As the gateway does: its buffer has ended before the next start opens it.
            opened.keyed.shutdown(PATIENCE);
            drop(opened);
            opened = open();
        }
        tell(vec![ehr.clone(), local.clone()], &[], &mut opened.journal, &opened.reader).unwrap();
        assert_eq!(opened.journal.state().settled[&local].first_missing(Sequence::FIRST), Sequence::FIRST, "it goes on where it was");

        assert_eq!(told(&mut opened, &[]), [ehr.clone(), local.clone()]);
        checkpointed(&opened);
        assert_eq!(opened.journal.maintain().unwrap().segments_reclaimed, 0);
        assert_eq!(told(&mut opened, std::slice::from_ref(&local)), std::slice::from_ref(&ehr));
        assert_ne!(opened.journal.maintain().unwrap().segments_reclaimed, 0);
    }

    /// Promise 5: who has readings waiting under a name that the configuration no longer has is told so, with the way out.
    #[test]
    fn a_destination_that_is_gone_is_named_with_what_to_do() {
        let text =
            "[gateway]\nname = \"g\"\nstate_dir = \"/x\"\n[[destination]]\nid = \"ehr\"\nkind = \"fhir\"\nurl = \"https://ehr.local\"\n";
        let config = vitalgate_config::check(text, "x.toml").unwrap();
        let [ehr, local] = ["ehr", "local"].map(|id| DestinationId::new(id).unwrap());
        let shared = Shared::new([], [ehr.clone(), local.clone()]);
        tell_of_departed(&config, &shared);
        assert_eq!(shared.destinations[&ehr].alarm(), None);
        let alarm = shared.destinations[&local].alarm().unwrap();
        assert!(alarm.contains("no longer names it") && alarm.contains("given_up = [\"local\"] in [store]"), "{alarm}");
    }

    /// Promise 4: what was delivered and reclaimed before a destination came is not told as damaged or missing.
    #[test]
    fn a_destination_that_comes_later_begins_with_the_oldest_that_is_here() {
        let folder = tempfile::tempdir().unwrap();
        let keys = Arc::new(vitalgate_trust::FileKeyWrap::open_or_create(&folder.path().join("kek")).unwrap());
        let options = StoreOptions { segment_bytes: 64 * 1024, retention_ms: 0, ..StoreOptions::new(folder.path().join("store")) };
        let mut opened = vitalgate_store::open(options, keys, Arc::new(RealFiles)).unwrap();
        let [first, second] = ["first", "second"].map(|id| DestinationId::new(id).unwrap());
        tell(vec![first.clone()], &[], &mut opened.journal, &opened.reader).unwrap();
        assert_eq!(opened.journal.state().settled[&first].first_missing(Sequence::FIRST), Sequence::FIRST, "nothing is left out");

        for block in 0..40 {
            let entries: Vec<_> = (block * 250..(block + 1) * 250).map(event).collect();
            let (_, last) = opened.journal.append(&entries, &[]).unwrap().unwrap();
            let ranges = vec![(Sequence::FIRST, last)];
            let settled = Change::Settled { destination: first.clone(), ranges, rejected: vec![], remote_ids: vec![] };
            opened.journal.append(&[], &[settled]).unwrap();
        }
        let end = Instant::now() + PATIENCE;
        while opened.journal.maintain().unwrap().segments_reclaimed == 0 {
            assert!(Instant::now() < end, "nothing is reclaimed: {:?}", opened.keyed.status());
            let next = opened.keyed.applied().ordinal.next();
            let _progress = opened.keyed.wait_reached(next, true, Duration::from_millis(100));
        }
        let oldest = opened.reader.oldest();
        assert!(oldest > Sequence::FIRST);
        tell(vec![first, second.clone()], &[], &mut opened.journal, &opened.reader).unwrap();
        let settled = &opened.journal.state().settled[&second];
        assert_eq!(settled.ranges(), [(Sequence::FIRST, Sequence(oldest.0 - 1))]);
    }

    /// Promise 2: a gateway starts also where a full disk leaves no room to write down its destinations, and gives nothing back that a
    /// new one has not.
    #[test]
    fn a_disk_without_any_room_keeps_no_gateway_from_starting() {
        let folder = tempfile::tempdir().unwrap();
        let open = |free_space_floor_bytes| {
            let keys = Arc::new(vitalgate_trust::FileKeyWrap::open_or_create(&folder.path().join("kek")).unwrap());
            let options = StoreOptions { segment_bytes: 64 * 1024, background: false, ..StoreOptions::new(folder.path().join("store")) };
            vitalgate_store::open(StoreOptions { free_space_floor_bytes, ..options }, keys, Arc::new(RealFiles)).unwrap()
        };
        let [first, second] = ["first", "second"].map(|id| DestinationId::new(id).unwrap());
        let mut opened = open(0);
        assert_eq!(tell(vec![first.clone()], &[], &mut opened.journal, &opened.reader).unwrap(), None);
        for block in 0..40 {
            let entries: Vec<_> = (block * 250..(block + 1) * 250).map(event).collect();
            opened.journal.append(&entries, &[]).unwrap();
        }
        drop(opened);
        let mut full = open(u64::MAX / 2);
        full.journal.maintain().unwrap();
        let ranges = vec![(Sequence::FIRST, Sequence::FIRST)];
        let settled = Change::Settled { destination: first.clone(), ranges, rejected: vec![], remote_ids: vec![] };
        while full.journal.append(&[], std::slice::from_ref(&settled)).is_ok() {}
        assert_eq!(tell(vec![first.clone()], &[], &mut full.journal, &full.reader).unwrap(), None);
        let unwritten = tell(vec![first.clone(), second.clone()], &[], &mut full.journal, &full.reader).unwrap();
        assert!(matches!(unwritten, Some(Change::Destinations { .. })), "{unwritten:?}");
        assert!(full.journal.state().settled.contains_key(&second));
        drop(full);
        assert!(!open(0).state.settled.contains_key(&second), "it was not written");
    }
}
