//! Compares what was acknowledged with what the destination holds.

use std::collections::{BTreeMap, BTreeSet};

use vitalgate_domain::{DeadLetter, DeadLetterKind, DeadLetterReason, Entry, Reading, Sequence};

use crate::destination::{Destination, serial};
use crate::journal::Journal;
use crate::sent::Sent;

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
    /// Most readings that the delivery held in memory.
    pub held_most: usize,
    /// Times that the live lane jumped ahead and left what was between to the backlog.
    pub jumps: u32,
    /// A hash over everything that was sent, to compare two runs of one seed.
    pub trace: u64,
}

/// Messages whose parts must stand in one Observation.
pub(crate) type Pairs = Vec<(u64, u64)>;

/// Every acknowledged reading is at the destination exactly once or is listed for a cause; never both,
/// never twice; and what came together in one message stands together.
pub(crate) fn judge(
    journal: &Journal,
    destination: &Destination,
    sent: &Sent,
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
    let listed = listed(journal, destination, sent)?;
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

/// Every serial that is listed, each for a cause that there really was.
fn listed(journal: &Journal, destination: &Destination, sent: &Sent) -> Result<BTreeSet<u64>, String> {
    let mut listed = BTreeSet::new();
    let mut stored = BTreeSet::new();
    for (sequence, entry) in journal.entries() {
        match entry {
            Entry::Reading(reading) => {
                let serial = serial(&reading.value);
                let told = sent.get(serial)?;
                stored.insert(serial);
                let Some(reason) = journal.rejected.get(&sequence) else { continue };
                let has_cause = match reason.kind {
                    DeadLetterKind::Rejected => destination.refused.contains(&serial),
                    DeadLetterKind::Unassigned => told.patient.as_ref().is_none_or(|patient| !destination.knows(patient)),
                    DeadLetterKind::TimeUnknown => told.timeless,
                    _ => false,
                };
                if !has_cause {
                    return Err(format!("reading {serial} is listed without a cause as {:?} ({})", reason.kind, reason.detail));
                }
                listed.insert(serial);
            }
            Entry::DeadLetter(letter) => {
                let serial = said_by(letter)?;
                // Admission refuses nothing that these devices send, except another value for what is stored.
                if !sent.rivals(serial).any(|rival| stored.contains(&rival)) {
                    let DeadLetterReason { kind, detail } = &letter.reason;
                    return Err(format!("reading {serial} contradicts none that is stored and became a dead letter: {kind:?} ({detail})"));
                }
                listed.insert(serial);
            }
            Entry::DeviceEvent(_) => {}
        }
    }
    Ok(listed)
}

/// The serial in the text of a dead letter that admission made.
fn said_by(letter: &DeadLetter) -> Result<u64, String> {
    let text = String::from_utf8_lossy(&letter.bytes);
    let number = text.split(" value ").nth(1).and_then(|rest| rest.split(' ').next());
    number.and_then(|number| number.parse().ok()).ok_or_else(|| format!("a dead letter does not tell its reading: {text}"))
}
