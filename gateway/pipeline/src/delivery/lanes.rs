//! What of the journal was read and what was not: the live end and the holes behind it.
//!
//! A read may end within a sample; the lane remembers that, so that the parts of one message still
//! meet. It never jumps from there.

use std::collections::VecDeque;

use vitalgate_domain::limits::READINGS_PER_SAMPLE_MAX;
use vitalgate_domain::{DeviceId, Received, Record, Sequence, SequenceRanges};

use super::join::Waiting;
use super::message::Lane;
use super::queue::{LANES, PerLane};

/// Most records asked for at once.
pub const READ_ENTRIES_MAX: usize = 1_024;
/// Fewest records worth asking for.
pub const READ_ENTRIES_MIN: usize = 512;
/// Most holes that the live lane leaves behind it by jumping ahead. With the readings in memory they
/// bound the settled set: it has at most as many ranges as there are holes and readings in memory.
pub const HOLES_MAX: usize = 64;
/// The live lane does not jump while the settled set has more ranges than this.
pub const SETTLED_RANGES_MAX: usize = 2_048;
/// A settled stretch of at least so many entries is skipped; a shorter one is read over, since it
/// may lie within one sample.
pub const SKIP_ENTRIES_MIN: u64 = 1_024;
/// After a failed read, so long until the next, in milliseconds.
pub const READ_RETRY_MS: u64 = 1_000;
/// So many failed reads of one lane in a row raise an alarm.
pub const READ_FAILURES_MAX: u32 = 10;

const _: () = assert!(READ_ENTRIES_MIN <= READ_ENTRIES_MAX);
const _: () = assert!(READINGS_PER_SAMPLE_MAX as u64 <= SKIP_ENTRIES_MIN);

/// A stretch of the journal that is left to the backlog lane.
#[derive(Debug)]
struct Hole {
    from: Sequence,
    until: Sequence,
    /// When the last record before it arrived, as far as it was read.
    before: Option<Received>,
    /// When the first record after it arrived, as far as it was read.
    after: Option<Received>,
}

/// A read that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) from: Sequence,
    pub(super) until: Sequence,
    pub(super) entries_max: usize,
}

/// The records of a read that were asked for.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) records: Vec<Record>,
    /// Everything from here...
    pub(super) from: Sequence,
    /// ...up to here is read now.
    pub(super) until: Sequence,
    /// Whether the first record belongs to another sample than the last one of the read before.
    pub(super) starts_sample: bool,
    /// Whether the last record is known to be the last of its sample.
    pub(super) ends_sample: bool,
}

/// The positions of both lanes.
#[derive(Debug)]
pub(super) struct Lanes {
    live_next: Sequence,
    live_last: Option<Received>,
    holes: VecDeque<Hole>,
    asked: PerLane<Option<Asked>>,
    retry_at_ms: PerLane<Option<u64>>,
    /// Reads that failed since the last good one.
    failures: PerLane<u32>,
    /// The sample within which the last read may have ended.
    unfinished: PerLane<Option<(DeviceId, Received)>>,
}

impl Lanes {
    /// Everything up to `committed` that is not settled is backlog.
    pub(super) fn new(settled: &SequenceRanges, committed: Sequence) -> Self {
        let from = settled.first_missing(Sequence::FIRST);
        let holes = (from <= committed).then_some(Hole { from, until: committed, before: None, after: None });
        Self {
            live_next: committed.next(),
            live_last: None,
            holes: holes.into_iter().collect(),
            asked: PerLane::default(),
            retry_at_ms: PerLane::default(),
            failures: PerLane::default(),
            unfinished: PerLane::default(),
        }
    }

    /// Committed and not read yet by the live lane.
    pub(super) fn live_lag(&self, committed: Sequence) -> u64 {
        committed.next().0.saturating_sub(self.live_next.0)
    }

    pub(super) fn has_backlog(&self) -> bool {
        !self.holes.is_empty()
    }

    /// Whether something before it was left to the backlog and is not read.
    pub(super) fn has_unread_before(&self, sequence: Sequence) -> bool {
        self.holes.front().is_some_and(|hole| hole.from < sequence)
    }

    /// Entries that a read under way may still bring.
    pub(super) fn asked_entries(&self, lane: Lane) -> usize {
        self.asked.of(lane).map_or(0, |asked| asked.entries_max)
    }

    /// The next read of the lane, if there is anything to read and no read is under way.
    pub(super) fn ask(&mut self, lane: Lane, room: usize, committed: Sequence, settled: &SequenceRanges, now_ms: u64) -> Option<Asked> {
        if self.asked.of(lane).is_some() || self.retry_at_ms.of(lane).is_some_and(|at| at > now_ms) || room < READ_ENTRIES_MIN {
            return None;
        }
        let (from, until) = match lane {
            Lane::Live => (self.live_next, committed),
            Lane::Backlog => self.backlog_stretch(settled)?,
        };
        if from > until {
            return None;
        }
        *self.retry_at_ms.of_mut(lane) = None;
        let asked = Asked { from, until, entries_max: room.min(READ_ENTRIES_MAX) };
        *self.asked.of_mut(lane) = Some(asked);
        Some(asked)
    }

    /// The next unsettled stretch of the oldest hole, without long settled ones.
    fn backlog_stretch(&mut self, settled: &SequenceRanges) -> Option<(Sequence, Sequence)> {
        while let Some(hole) = self.holes.front_mut() {
            hole.from = settled.first_missing(hole.from);
            if hole.from <= hole.until {
                let start = settled.ranges().partition_point(|range| range.1 < hole.from);
                let following = settled.ranges().get(start..).unwrap_or_default();
                let long =
                    following.iter().take_while(|range| range.0 <= hole.until).find(|range| range.1.0 - range.0.0 >= SKIP_ENTRIES_MIN);
                let until = long.map_or(hole.until, |range| Sequence(range.0.0.saturating_sub(1)));
                return Some((hole.from, until));
            }
            self.holes.pop_front();
        }
        None
    }

    /// The lane's read failed; it is asked again after a while.
    pub(super) fn failed(&mut self, lane: Lane, now_ms: u64) {
        let failures = self.failures.of_mut(lane);
        *failures = failures.saturating_add(1);
        self.put_off(lane, now_ms);
    }

    /// Whether a lane's reads have failed for a while.
    pub(super) fn cannot_read(&self) -> bool {
        LANES.iter().any(|&lane| *self.failures.of(lane) >= READ_FAILURES_MAX)
    }

    /// The lane was not read; it is asked again after a while.
    pub(super) fn put_off(&mut self, lane: Lane, now_ms: u64) {
        if self.asked.of_mut(lane).take().is_some() {
            *self.retry_at_ms.of_mut(lane) = Some(now_ms.saturating_add(READ_RETRY_MS));
        }
    }

    /// When a failed read is tried again.
    pub(super) fn wake_ms(&self) -> Option<u64> {
        [self.retry_at_ms.of(Lane::Live), self.retry_at_ms.of(Lane::Backlog)].into_iter().flatten().copied().min()
    }

    /// Takes a read's records. `None` when nobody asked, or nothing was looked at.
    pub(super) fn take(&mut self, lane: Lane, mut records: Vec<Record>, reached: Sequence, now_ms: u64) -> Option<Taken> {
        let asked = (*self.asked.of(lane))?;
        let reached = reached.min(asked.until);
        if reached < asked.from {
            self.failed(lane, now_ms);
            return None;
        }
        *self.asked.of_mut(lane) = None;
        *self.failures.of_mut(lane) = 0;
        records.retain(|record| record.sequence >= asked.from && record.sequence <= reached);
        let before = self.unfinished.of_mut(lane).take();
        let starts_sample = before.is_none()
            || records.first().map(|record| record.entry.origin()) != before.as_ref().map(|(device, received)| (device, received));
        let ends_sample = reached == asked.until;
        if !ends_sample {
            let last = records.last().map(|record| record.entry.origin()).map(|(device, received)| (device.clone(), *received));
            *self.unfinished.of_mut(lane) = last.or(before.filter(|_| !starts_sample));
        }
        self.advance(lane, &records, reached);
        Some(Taken { records, from: asked.from, until: reached, starts_sample, ends_sample })
    }

    fn advance(&mut self, lane: Lane, records: &[Record], until: Sequence) {
        let arrivals = (records.first().map(|record| *received(record)), records.last().map(|record| *received(record)));
        match lane {
            Lane::Live => {
                if self.live_last.is_none()
                    && let Some(hole) = self.holes.back_mut()
                    && hole.after.is_none()
                {
                    hole.after = arrivals.0;
                }
                self.live_last = arrivals.1.or(self.live_last);
                self.live_next = until.next();
            }
            Lane::Backlog => {
                let Some(hole) = self.holes.front_mut() else { return };
                hole.from = until.next();
                hole.before = arrivals.1.or(hole.before);
                if hole.from > hole.until {
                    self.holes.pop_front();
                }
            }
        }
    }

    /// The live lane leaves what it has not read to the backlog and goes on with what comes next.
    /// False where it may not: too many holes, too many ranges, or a read under way.
    pub(super) fn jump(&mut self, committed: Sequence, settled: &SequenceRanges) -> bool {
        let bounded = self.holes.len() < HOLES_MAX && settled.ranges().len() <= SETTLED_RANGES_MAX;
        let within_sample = self.unfinished.of(Lane::Live).is_some();
        if !bounded || within_sample || self.asked.of(Lane::Live).is_some() || self.live_next > committed {
            return false;
        }
        self.holes.push_back(Hole { from: self.live_next, until: committed, before: self.live_last, after: None });
        self.live_next = committed.next();
        self.live_last = None;
        // Whether that can be read shows where the backlog reads it.
        let failures = std::mem::take(self.failures.of_mut(Lane::Live));
        let of_backlog = self.failures.of_mut(Lane::Backlog);
        *of_backlog = failures.max(*of_backlog);
        true
    }

    /// Whether no part of the panel can turn up any more: everything that arrived within its
    /// patience, before or after, was read.
    pub(super) fn is_past(&self, panel: &Waiting, committed: Sequence, now: &Received) -> bool {
        let in_live = match &self.live_last {
            Some(last) if panel.is_before(last) => false,
            _ => self.live_next <= committed || !panel.is_before(now),
        };
        let in_hole = |hole: &Hole| {
            if hole.from > panel.first {
                hole.before.is_none_or(|before| !panel.is_before(&before))
            } else {
                hole.after.is_none_or(|after| panel.reaches_back_to(&after))
            }
        };
        !in_live && !self.holes.iter().any(in_hole)
    }
}

fn received(record: &Record) -> &Received {
    record.entry.origin().1
}

/// Whether two neighbouring records come from one sample.
pub(super) fn same_sample(one: &Record, other: &Record) -> bool {
    one.entry.origin() == other.entry.origin()
}
