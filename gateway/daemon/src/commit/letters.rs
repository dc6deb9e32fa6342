//! Dead letters in the log: a line each, and where they are many, how many more there were.

use vitalgate_domain::{Change, Entry, Sequence, SequenceRanges};

/// Most lines in the time below.
pub(super) const LINES_MAX: u64 = 20;
/// Time after which there may be as many again, in milliseconds.
const LINES_EVERY_MS: u64 = 60_000;

/// How many lines there were. They name place, origin and kind, never what was measured or of whom.
#[derive(Debug, Default)]
pub(crate) struct LetterLog {
    lines: u64,
    others: u64,
    since_ms: u64,
}

impl LetterLog {
    /// Tells of the messages among these entries, which stand from `first` on, that could not be read.
    pub(super) fn stored(&mut self, entries: &[Entry], first: Sequence) {
        for (offset, entry) in (0..).zip(entries) {
            if let Entry::DeadLetter(letter) = entry
                && self.has_line()
            {
                let (sequence, kind) = (first.plus(offset), letter.reason.kind.word());
                tracing::warn!(%sequence, device = %letter.device, kind, "a message is kept as a dead letter");
            }
        }
    }

    /// Tells of the readings that destinations refused or that are held.
    pub(super) fn settled(&mut self, changes: &[Change], unresolved: &SequenceRanges) {
        for change in changes {
            let Change::Settled { destination, rejected, .. } = change else { continue };
            // What was resolved before is none for this destination either.
            for rejected in rejected.iter().filter(|rejected| unresolved.contains(rejected.sequence)) {
                if self.has_line() {
                    let (sequence, kind) = (rejected.sequence, rejected.reason.kind.word());
                    tracing::warn!(%sequence, %destination, kind, "a reading is kept as a dead letter");
                }
            }
        }
    }

    /// Tells how many had no line, when it is time for that.
    pub(super) fn tell_others(&mut self, now_ms: u64) {
        if now_ms.saturating_sub(self.since_ms) < LINES_EVERY_MS {
            return;
        }
        if self.others > 0 {
            tracing::warn!(others = self.others, "more dead letters; `vitalgate dead-letters list` names them");
        }
        *self = Self { since_ms: now_ms, ..Self::default() };
    }

    fn has_line(&mut self) -> bool {
        let has_line = self.lines < LINES_MAX;
        *if has_line { &mut self.lines } else { &mut self.others } += 1;
        has_line
    }
}
