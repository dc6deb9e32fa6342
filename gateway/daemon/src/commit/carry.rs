//! Upkeep: one dead letter must not keep everything that was stored after it.

use anyhow::Context as _;
use vitalgate_store::CommitError;

use super::CommitLoop;
use crate::clock::monotonic_ms;

/// Time between two tries, in milliseconds: each reads the dead letters of one segment.
const CARRY_INTERVAL_MS: u64 = 10_000;

impl CommitLoop {
    /// Moves the dead letters of the oldest segment to the journal's end, where nothing else keeps the segment.
    pub(super) fn carry_forward(&mut self) -> anyhow::Result<()> {
        let now_ms = monotonic_ms();
        if now_ms < self.carry_at_ms {
            return Ok(());
        }
        let Some(held) = self.journal.held_back() else { return Ok(()) };
        // By now every destination has answered for all of it. Before the keyed store knows those answers, a reason would be lost.
        let answered = match self.carry_seen {
            Some((first, answered)) if first == held.0 => answered,
            _ => self.replay.reader.committed_record(),
        };
        self.carry_seen = Some((held.0, answered));
        if !self.told.reaches(answered) {
            return Ok(());
        }
        self.carry_at_ms = now_ms + CARRY_INTERVAL_MS;
        let (state, next) = (self.journal.state(), self.journal.next_sequence());
        let planned = self.replay.carry(held, state, next, &*self.told, &self.clock.now());
        // One that was opened anew meanwhile may have answered without the last of them.
        if !self.told.reaches(answered) {
            return Ok(());
        }
        let carried = match planned {
            Ok(carried) => carried,
            Err(error) => {
                if self.not_carried != Some(held.0) {
                    self.not_carried = Some(held.0);
                    tracing::warn!(%error, "dead letters keep what was stored after them");
                }
                return Ok(());
            }
        };
        match self.journal.append(&carried.entries, &carried.changes) {
            Ok(Some((first, last))) => {
                self.undated.note(&carried.entries, first, self.clock.now().boot);
                self.committed.send_replace(last);
                self.publish_settlement();
                tracing::info!(entries = carried.entries.len(), "old dead letters were moved, so that what came after them can go");
                Ok(())
            }
            // They stay; the next round tries again.
            Ok(None) | Err(CommitError::BelowFloor) => Ok(()),
            Err(error) => Err(error).context("the journal cannot be written; the gateway restarts and reads it again"),
        }
    }
}
