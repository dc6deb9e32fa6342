//! When nothing else is to do, what lies here is read again in small steps, so that damage shows
//! while the journal can still mend it.

use super::apply;
use super::event::KeyedEvent;
use super::layout::{Slot, Trees};
use super::shared::Shared;
use super::watch::Worker;
use crate::copy::{BlockSource, KeyedError, Ordinal, Watermark};
use std::time::Duration;

/// Records read in one step.
const STEP_RECORDS: u64 = 16;

/// How far this round has come.
#[derive(Debug, Default)]
pub(super) struct Scrub {
    forgotten: Watermark,
    next: Ordinal,
    done: bool,
}

impl Scrub {
    /// Between two steps: 16 records in 50 ms are 8,000 readings a second, 2 % of a slow disk.
    pub(super) const PAUSE: Duration = Duration::from_millis(50);

    /// Up to where records were dropped in this run.
    pub(super) fn forgotten(&self) -> Watermark {
        self.forgotten
    }

    pub(super) fn set_forgotten(&mut self, forgotten: Watermark) {
        self.forgotten = forgotten;
    }

    /// Reads a few records of those that the journal still holds. `false` once the round is done:
    /// one round per run, beginning with what was here when it started.
    pub(super) fn step(
        &mut self,
        shared: &Shared,
        trees: &Trees,
        source: &dyn BlockSource,
        applied: Watermark,
    ) -> Result<bool, KeyedError> {
        if self.done {
            return Ok(false);
        }
        let first = source.oldest().0.max(self.forgotten.ordinal.0.saturating_add(1)).max(self.next.0).max(1);
        let last = applied.ordinal.0.min(first.saturating_add(STEP_RECORDS - 1));
        for ordinal in (first..=last).map(Ordinal) {
            let slot = shared.watch.call(Worker::Feeder, "reading again", shared.times.call, || trees.slot(ordinal))?;
            if matches!(slot, Slot::Absent | Slot::Damaged) {
                mend(shared, trees, source, ordinal)?;
            }
        }
        self.next = Ordinal(last.max(first).saturating_add(1));
        self.done = self.next > applied.ordinal;
        Ok(!self.done)
    }
}

fn mend(shared: &Shared, trees: &Trees, source: &dyn BlockSource, ordinal: Ordinal) -> Result<(), KeyedError> {
    let Ok(blocks) = source.blocks_after(Ordinal(ordinal.0 - 1), 1) else { return Ok(()) };
    let Some(block) = blocks.into_iter().next().filter(|block| block.ordinal == ordinal) else { return Ok(()) };
    let (prepared, _) = apply::prepare(source, block);
    shared.watch.call(Worker::Feeder, "mending", shared.times.call, || apply::put_salvaged(trees, &prepared))?;
    shared.tell(KeyedEvent::Healed { ordinal });
    Ok(())
}
