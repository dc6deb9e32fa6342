//! Where a destination begins.

use std::collections::BTreeSet;

use anyhow::Context as _;
use vitalgate_config::Config;
use vitalgate_domain::{Change, DestinationId};
use vitalgate_store::{CommitError, Journal, Reader};

/// Tells the journal which destinations there are. A new one begins with the oldest entry that is still here: what was reclaimed
/// before it came had gone wherever it was to go, and is not missing. Gives what cannot be written on a full disk: it is reckoned with
/// from here on, and has to be written later.
pub(super) fn announce(config: &Config, journal: &mut Journal, reader: &Reader) -> anyhow::Result<Option<Change>> {
    let present: Vec<_> = config.destinations.iter().map(|destination| destination.id.clone()).collect();
    tell(present, journal, reader)
}

fn tell(present: Vec<DestinationId>, journal: &mut Journal, reader: &Reader) -> anyhow::Result<Option<Change>> {
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use vitalgate_domain::{BootId, ClockTrust, DeviceEvent, DeviceEventKind, DeviceId, Entry, Received, Sequence, UnixMs};
    use vitalgate_store::{KeyedCopy as _, RealFiles, StoreOptions};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    fn event(number: u64) -> Entry {
        let wall = UnixMs(1_795_345_200_000).plus_ms(i64::try_from(number).unwrap());
        let received = Received { wall, monotonic_ms: number, boot: BootId::from_bytes([1; 16]), trust: ClockTrust::Synchronised };
        Entry::DeviceEvent(DeviceEvent { device: DeviceId::new("monitor-01").unwrap(), kind: DeviceEventKind::Lost, received })
    }

    /// Promise 4: what was delivered and reclaimed before a destination came is not told as damaged or missing.
    #[test]
    fn a_destination_that_comes_later_begins_with_the_oldest_that_is_here() {
        let folder = tempfile::tempdir().unwrap();
        let keys = Arc::new(vitalgate_trust::FileKeyWrap::open_or_create(&folder.path().join("kek")).unwrap());
        let options = StoreOptions { segment_bytes: 64 * 1024, retention_ms: 0, ..StoreOptions::new(folder.path().join("store")) };
        let mut opened = vitalgate_store::open(options, keys, Arc::new(RealFiles)).unwrap();
        let [first, second] = ["first", "second"].map(|id| DestinationId::new(id).unwrap());
        tell(vec![first.clone()], &mut opened.journal, &opened.reader).unwrap();
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
        tell(vec![first, second.clone()], &mut opened.journal, &opened.reader).unwrap();
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
        assert_eq!(tell(vec![first.clone()], &mut opened.journal, &opened.reader).unwrap(), None);
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
        assert_eq!(tell(vec![first.clone()], &mut full.journal, &full.reader).unwrap(), None);
        let unwritten = tell(vec![first.clone(), second.clone()], &mut full.journal, &full.reader).unwrap();
        assert!(matches!(unwritten, Some(Change::Destinations { .. })), "{unwritten:?}");
        assert!(full.journal.state().settled.contains_key(&second));
        drop(full);
        assert!(!open(0).state.settled.contains_key(&second), "it was not written");
    }
}
