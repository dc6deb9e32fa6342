//! What waits for a request or is under way in one.

use vitalgate_domain::{Batch, BatchMode, Item, PatientReference};

use super::message::Lane;
use super::policy::{ITEM_FAILING_MAX_MS, ITEM_FAILING_STEP_MAX_MS, ITEM_FAILURES_MAX, PATIENT_SUSPECT_FAILURES};

/// About what one Observation encodes to without its values and names, in bytes.
const ITEM_BYTES: usize = 1_400;
/// About what each further part of a panel adds, in bytes.
const PART_BYTES: usize = 450;

/// An item with the lane that it counts for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parcel {
    pub(super) item: Item,
    pub(super) lane: Lane,
}

impl Parcel {
    pub(super) fn readings(&self) -> usize {
        self.item.readings.len()
    }

    /// An estimate of the encoded size.
    pub(super) fn bytes(&self) -> usize {
        ITEM_BYTES + PART_BYTES * self.readings().saturating_sub(1)
    }
}

/// How often something failed, and how often of that others were taken meanwhile.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Failures {
    pub(super) count: u32,
    /// Failures although others were taken since the one before: these say something about the
    /// thing itself and not about the destination.
    pub(super) passed_over: u32,
    /// How many answers of the destination had taken something at the last failure.
    last_at: Option<u64>,
    /// When others were last seen to be taken meanwhile.
    passed_over_at_ms: Option<u64>,
    /// How long that has gone on.
    passed_over_ms: u64,
}

impl Failures {
    /// Once more, after so many answers had taken something.
    pub(super) fn again(&mut self, taken: u64, now_ms: u64) {
        self.count = self.count.saturating_add(1);
        if self.last_at.is_some_and(|at| taken > at) {
            self.passed_over = self.passed_over.saturating_add(1);
            if let Some(before_ms) = self.passed_over_at_ms.replace(now_ms) {
                let step_ms = now_ms.saturating_sub(before_ms).min(ITEM_FAILING_STEP_MAX_MS);
                self.passed_over_ms = self.passed_over_ms.saturating_add(step_ms);
            }
        }
        self.last_at = Some(taken);
    }

    /// Whether they are counted as its own, not as the destination's.
    pub(super) fn are_its_own(&self) -> bool {
        self.passed_over >= PATIENT_SUSPECT_FAILURES
    }
}

/// A patient's requests that failed in a row.
#[derive(Debug, Default)]
pub(super) struct Failing {
    pub(super) failures: Failures,
    /// When the last one failed.
    pub(super) last_ms: u64,
}

/// The content of one request.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) patient: PatientReference,
    /// At least one; no identity twice.
    pub(super) parcels: Vec<Parcel>,
    pub(super) lane: Lane,
    pub(super) mode: BatchMode,
    /// Failures so far that may pass.
    pub(super) failures: Failures,
}

impl Work {
    pub(super) fn new(patient: PatientReference, parcels: Vec<Parcel>) -> Self {
        let lane = lane_of(&parcels);
        Self { patient, parcels, lane, mode: BatchMode::Together, failures: Failures::default() }
    }

    /// The same history with other parcels.
    pub(super) fn with(&self, parcels: Vec<Parcel>, mode: BatchMode) -> Self {
        Self { patient: self.patient.clone(), lane: lane_of(&parcels), parcels, mode, failures: self.failures.clone() }
    }

    /// Whether it is one item that others were taken beside again and again.
    pub(super) fn fails_alone(&self) -> bool {
        self.parcels.len() == 1 && self.failures.passed_over >= ITEM_FAILURES_MAX
    }

    /// Whether that has gone on for so long that it must not hold the journal any more.
    pub(super) fn is_hopeless(&self) -> bool {
        self.fails_alone() && self.failures.passed_over_ms >= ITEM_FAILING_MAX_MS
    }

    /// Two halves, the first not smaller; the second is empty for a single parcel.
    pub(super) fn halves(mut self, mode: BatchMode) -> (Self, Self) {
        let second = self.parcels.split_off(self.parcels.len().div_ceil(2));
        let first = std::mem::take(&mut self.parcels);
        (self.with(first, mode), self.with(second, mode))
    }

    pub(super) fn batch(&self) -> Batch {
        Batch { patient: self.patient.clone(), items: self.parcels.iter().map(|parcel| parcel.item.clone()).collect(), mode: self.mode }
    }
}

fn lane_of(parcels: &[Parcel]) -> Lane {
    if parcels.iter().any(|parcel| parcel.lane == Lane::Live) { Lane::Live } else { Lane::Backlog }
}
