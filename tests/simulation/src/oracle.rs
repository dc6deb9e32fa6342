//! Compares what was acknowledged with what the destination holds.

use std::collections::{BTreeMap, BTreeSet};

use vitalgate_domain::{DeadLetterKind, Entry, Reading, Sequence};

use crate::destination::{Destination, serial};
use crate::journal::Journal;

/// The counts of a run that held every promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Verdict {
    /// Readings whose message was acknowledged.
    pub acknowledged: usize,
    /// Readings that the destination holds, each once.
    pub delivered: usize,
    /// Readings that are listed as refused or held.
    pub listed: usize,
    /// Times that the gateway was killed.
    pub crashes: u32,
    /// Requests that the destination saw.
    pub requests: u64,
    /// A hash over everything that was sent, to compare two runs of one seed.
    pub trace: u64,
}

/// Messages whose parts must stand in one Observation.
pub(crate) type Pairs = Vec<(u64, u64)>;

/// Every acknowledged reading is at the destination exactly once or is listed; never both, never
/// twice; and what came together in one message stands together.
pub(crate) fn judge(
    journal: &Journal,
    destination: &Destination,
    acknowledged: &BTreeSet<u64>,
    pairs: &Pairs,
) -> Result<(usize, usize), String> {
    let mut delivered: BTreeMap<u64, u32> = BTreeMap::new();
    let mut home = BTreeMap::new();
    for (id, serials) in &destination.observations {
        for &serial in serials {
            *delivered.entry(serial).or_default() += 1;
            home.insert(serial, *id);
        }
    }
    if let Some((serial, count)) = delivered.iter().find(|(_, count)| **count > 1) {
        return Err(format!("reading {serial} is at the destination {count} times{}", whereabouts(journal, destination, *serial)));
    }
    let listed = listed(journal, destination)?;
    for serial in acknowledged {
        match (delivered.contains_key(serial), listed.contains(serial)) {
            (true, true) => {
                return Err(format!(
                    "reading {serial} was delivered and is listed as a dead letter{}",
                    whereabouts(journal, destination, *serial)
                ));
            }
            (false, false) => {
                return Err(format!("reading {serial} was acknowledged and is lost{}", whereabouts(journal, destination, *serial)));
            }
            _ => {}
        }
    }
    for (one, other) in pairs {
        if let (Some(first), Some(second)) = (home.get(one), home.get(other))
            && first != second
        {
            let [one, other] = [one, other].map(|serial| whereabouts(journal, destination, *serial));
            return Err(format!("two readings came in one message and stand in two Observations{one}{other}"));
        }
    }
    Ok((delivered.len(), listed.len()))
}

fn readings(journal: &Journal) -> impl Iterator<Item = (Sequence, &Reading)> {
    journal.entries().filter_map(|(sequence, entry)| match entry {
        Entry::Reading(reading) => Some((sequence, reading)),
        Entry::DeadLetter(_) | Entry::DeviceEvent(_) => None,
    })
}

/// Where a reading stands, for whoever looks into a failed seed.
fn whereabouts(journal: &Journal, destination: &Destination, wanted: u64) -> String {
    let mut text = String::new();
    let ids: BTreeSet<_> =
        readings(journal).filter(|(_, reading)| serial(&reading.value) == wanted).map(|(_, reading)| reading.id).collect();
    for (sequence, reading) in readings(journal) {
        if ids.contains(&reading.id) {
            let rejected = journal.rejected.get(&sequence).map(|reason| reason.kind);
            text += &format!(
                "\n  {sequence:?} {} value {} {} {} received {} device {:?} settled {} rejected {rejected:?} {:?}",
                reading.id,
                serial(&reading.value),
                reading.device,
                reading.metric.key(),
                reading.time.received.monotonic_ms,
                reading.time.device.map(|time| time.unix_ms.0),
                journal.settled.contains(sequence),
                reading.subject,
            );
        }
    }
    for (id, serials) in &destination.observations {
        if serials.contains(&wanted) {
            text += &format!("\n  in Observation {id} with {serials:?}");
        }
    }
    text
}

fn listed(journal: &Journal, destination: &Destination) -> Result<BTreeSet<u64>, String> {
    let mut listed = BTreeSet::new();
    for (sequence, entry) in journal.entries() {
        match entry {
            Entry::Reading(reading) => {
                let Some(reason) = journal.rejected.get(&sequence) else { continue };
                let serial = serial(&reading.value);
                if reason.kind == DeadLetterKind::Rejected && !destination.is_poison(serial) && reading.metric.definition().panel.is_none()
                {
                    return Err(format!("reading {serial} is a dead letter ({}) though the destination would take it", reason.detail));
                }
                listed.insert(serial);
            }
            Entry::DeadLetter(letter) => {
                let text = String::from_utf8_lossy(&letter.bytes);
                let serial: Option<u64> =
                    text.split(" value ").nth(1).and_then(|rest| rest.split(' ').next()).and_then(|number| number.parse().ok());
                listed.extend(serial);
            }
            Entry::DeviceEvent(_) => {}
        }
    }
    Ok(listed)
}
