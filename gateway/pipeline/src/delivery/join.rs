//! Parts of a panel, joined into one Observation.
//!
//! Which parts belong together follows from the journal alone, never from the moment at which it was
//! read: after a crash the same parts make the same panel with the same identity. The rule, in the
//! order of sequences: a part joins the first open panel of its device, patient, slot and moment
//! that lacks it, and opens a new one otherwise. The moment is the device's time, and then the
//! parts must have arrived within the join window of the first; without device time it is the sample
//! itself. A panel closes at the end of the sample that completed it: with every part, or with every
//! required part where one sample brought them all. A device that sends its parts in several messages
//! may send one more, so such a panel waits for the window. A part that comes later is a panel of its
//! own, under another identity, and says that the rest is absent. So is, at once, a part of a message that
//! does not tell which of its parts belong together: that is marked on the reading, so it stays so after a crash.
//! Where a lane brings a part that comes before what the other one brought, the later ones are joined anew after it.

use std::collections::{BTreeMap, HashMap};

use vitalgate_domain::{DeviceId, Flags, Item, Metric, PatientReference, Reading, ReadingId, Received, Sequence, UnixMs};

use super::message::Lane;
use super::queue::{LANES, PerLane};

/// A commit may follow the arrival by so much, in milliseconds, before a late part counts as another panel.
pub const COMMIT_LAG_MS: u64 = 500;

/// What makes parts the parts of one panel.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct PanelKey {
    device: DeviceId,
    panel: Metric,
    patient: PatientReference,
    slot: u16,
    moment: Moment,
    /// The only reading that it may hold.
    alone: Option<ReadingId>,
}

impl PanelKey {
    fn of(panel: Metric, patient: PatientReference, reading: &Reading) -> Self {
        let alone = reading.flags.contains(Flags::APART).then_some(reading.id);
        Self { device: reading.device.clone(), panel, patient, slot: reading.slot, moment: Moment::of(reading), alone }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Moment {
    /// The device's own time, corrected, and its counter where that tells messages of one time apart.
    Device(UnixMs, Option<u64>),
    /// The sample that it came in: boot, time of arrival, device counter.
    Sample([u8; 16], u64, Option<u64>),
}

impl Moment {
    fn of(reading: &Reading) -> Self {
        match reading.time.device {
            Some(device) => Self::Device(device.unix_ms.plus_ms(reading.time.correction_ms), reading.device_sequence),
            None => Self::Sample(*reading.time.received.boot.as_bytes(), reading.time.received.monotonic_ms, reading.device_sequence),
        }
    }
}

#[derive(Debug)]
struct OpenPanel {
    key: PanelKey,
    lane: Lane,
    /// The first part in our order, and when it arrived.
    first: Sequence,
    opened: Received,
    /// In the order of sequences.
    parts: Vec<(Sequence, Reading)>,
}

impl OpenPanel {
    fn lacks(&self, metric: Metric) -> bool {
        self.parts.iter().all(|(_, part)| part.metric != metric)
    }

    fn is_complete(&self) -> bool {
        self.key.panel.required_parts().iter().all(|&metric| !self.lacks(metric))
    }

    /// Whether no other part is to be expected.
    fn has_what_comes(&self) -> bool {
        if self.key.alone.is_some() || matches!(self.key.moment, Moment::Sample(..)) {
            return true;
        }
        let of_one_sample = self.parts.iter().all(|(_, part)| part.time.received == self.opened);
        self.is_complete() && (of_one_sample || self.key.panel.parts().iter().all(|&metric| !self.lacks(metric)))
    }

    fn takes(&self, reading: &Reading, window_ms: u64) -> bool {
        let received = &reading.time.received;
        self.lacks(reading.metric)
            && received.boot == self.opened.boot
            && received.monotonic_ms.abs_diff(self.opened.monotonic_ms) <= window_ms
    }

    fn joined(mut self) -> Joined {
        let order = |metric: Metric| self.key.panel.parts().iter().position(|&part| part == metric);
        self.parts.sort_by_key(|(_, part)| order(part.metric));
        let ids: Vec<ReadingId> = self.parts.iter().map(|(_, part)| part.id).collect();
        let item = Item { id: ReadingId::of_parts(self.key.panel, &ids), panel: Some(self.key.panel), readings: self.parts };
        Joined { patient: self.key.patient, lane: self.lane, item }
    }
}

/// A panel that is ready to be sent.
#[derive(Debug)]
pub(super) struct Joined {
    pub(super) patient: PatientReference,
    pub(super) lane: Lane,
    pub(super) item: Item,
}

/// What is known of an open panel when one asks whether a part of it may still turn up.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waiting {
    pub(super) first: Sequence,
    pub(super) opened: Received,
    /// Window and lag together, in milliseconds.
    pub(super) patience_ms: u64,
}

impl Waiting {
    /// Whether something that arrived then is too late to belong to it.
    pub(super) fn is_before(&self, received: &Received) -> bool {
        received.boot != self.opened.boot || received.monotonic_ms > self.opened.monotonic_ms.saturating_add(self.patience_ms)
    }

    /// Whether something that arrived before `received` could still belong to it.
    pub(super) fn reaches_back_to(&self, received: &Received) -> bool {
        received.boot == self.opened.boot && self.opened.monotonic_ms <= received.monotonic_ms.saturating_add(self.patience_ms)
    }
}

/// The panels that wait for a part.
#[derive(Debug)]
pub(super) struct Join {
    window_ms: u64,
    open: BTreeMap<u64, OpenPanel>,
    /// Those of one key stand in the order of their first parts.
    by_key: HashMap<PanelKey, Vec<u64>>,
    opened: u64,
    held: usize,
    /// What the sample touched which each lane is reading.
    touched: PerLane<Vec<PanelKey>>,
}

impl Join {
    pub(super) fn new(window_ms: u64) -> Self {
        Self { window_ms, open: BTreeMap::new(), by_key: HashMap::new(), opened: 0, held: 0, touched: PerLane::default() }
    }

    /// Parts that wait.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Adds a part of the sample that is being read.
    pub(super) fn add(&mut self, panel: Metric, patient: PatientReference, lane: Lane, sequence: Sequence, reading: Reading) {
        let key = PanelKey::of(panel, patient, &reading);
        let later = self.take_later(&key, sequence);
        self.place(&key, lane, sequence, reading);
        for (lane, sequence, reading) in later {
            self.place(&key, lane, sequence, reading);
        }
        self.touched.of_mut(lane).push(key);
    }

    /// Takes out the parts that come after it in the journal, in their order.
    fn take_later(&mut self, key: &PanelKey, sequence: Sequence) -> Vec<(Lane, Sequence, Reading)> {
        let mut later = Vec::new();
        let Some(numbers) = self.by_key.get_mut(key) else { return later };
        numbers.retain(|number| {
            let Some(open) = self.open.get_mut(number) else { return false };
            let lane = open.lane;
            let kept = open.parts.partition_point(|(other, _)| *other < sequence);
            later.extend(open.parts.split_off(kept).into_iter().map(|(sequence, part)| (lane, sequence, part)));
            if kept == 0 {
                self.open.remove(number);
            }
            kept > 0
        });
        self.held -= later.len().min(self.held);
        later.sort_by_key(|(_, sequence, _)| *sequence);
        later
    }

    /// Joins a part that comes after all others of its key.
    fn place(&mut self, key: &PanelKey, lane: Lane, sequence: Sequence, reading: Reading) {
        self.held += 1;
        let numbers = self.by_key.entry(key.clone()).or_default();
        for number in numbers.iter() {
            if let Some(open) = self.open.get_mut(number)
                && open.takes(&reading, self.window_ms)
            {
                if lane == Lane::Live {
                    open.lane = lane;
                }
                open.parts.push((sequence, reading));
                return;
            }
        }
        self.opened += 1;
        numbers.push(self.opened);
        let opened = reading.time.received;
        let panel = OpenPanel { key: key.clone(), lane, first: sequence, opened, parts: vec![(sequence, reading)] };
        self.open.insert(self.opened, panel);
    }

    /// The lane's sample has ended: what is complete, or can get no more parts, is ready.
    pub(super) fn end_of_sample(&mut self, lane: Lane, ready: &mut Vec<Joined>) {
        for key in std::mem::take(self.touched.of_mut(lane)) {
            // The other lane stands within a sample of the same panel: it closes that.
            if LANES.iter().any(|&other| self.touched.of(other).contains(&key)) {
                continue;
            }
            for number in self.by_key.get(&key).cloned().unwrap_or_default() {
                if self.open.get(&number).is_some_and(OpenPanel::has_what_comes) {
                    ready.extend(self.close(number));
                }
            }
        }
    }

    /// Closes what `may_close` says can get no more parts, and the oldest beyond `held_max` parts.
    pub(super) fn sweep(&mut self, held_max: usize, may_close: impl Fn(&Waiting) -> bool, ready: &mut Vec<Joined>) {
        let patience_ms = self.patience_ms();
        let closing: Vec<u64> = self
            .open
            .iter()
            .filter(|(_, open)| may_close(&Waiting { first: open.first, opened: open.opened, patience_ms }))
            .map(|(&number, _)| number)
            .collect();
        for number in closing {
            ready.extend(self.close(number));
        }
        while self.held > held_max {
            let Some(&oldest) = self.open.keys().next() else { return };
            ready.extend(self.close(oldest));
        }
    }

    /// When the next of the open panels has waited long enough; `None` when none still waits.
    pub(super) fn wake_ms(&self, now: &Received) -> Option<u64> {
        let patience = self.patience_ms();
        let due = self.open.values().filter(|open| open.opened.boot == now.boot);
        due.map(|open| open.opened.monotonic_ms.saturating_add(patience) + 1).filter(|&due| due > now.monotonic_ms).min()
    }

    fn patience_ms(&self) -> u64 {
        self.window_ms.saturating_add(COMMIT_LAG_MS)
    }

    fn close(&mut self, number: u64) -> Option<Joined> {
        let open = self.open.remove(&number)?;
        self.held -= open.parts.len().min(self.held);
        if let Some(numbers) = self.by_key.get_mut(&open.key) {
            numbers.retain(|&other| other != number);
            if numbers.is_empty() {
                self.by_key.remove(&open.key);
            }
        }
        Some(open.joined())
    }
}
