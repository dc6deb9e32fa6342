//! A destination's alarms in the log: every change at once, and few lines when they alternate.

use std::collections::BTreeMap;
use std::sync::Arc;

use vitalgate_pipeline::{Alarm, AlarmKind};

/// Most lines in quick succession.
const LINES_MAX: u64 = 10;
/// After these a line in this time, in milliseconds.
const LINE_EVERY_MS: u64 = 60_000;

/// A line of the log.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// This is in the way now.
    HeldUp(Arc<str>),
    /// This is not any more.
    Over(Arc<str>),
}

/// What stands, and what was written of it. What is left out for being too much is written later, if it still stands.
#[derive(Debug, Default)]
pub(crate) struct AlarmLog {
    standing: BTreeMap<AlarmKind, Arc<str>>,
    written: BTreeMap<AlarmKind, Arc<str>>,
    lines: u64,
    since_ms: u64,
}

impl AlarmLog {
    /// It stands, in these words.
    pub(crate) fn raised(&mut self, alarm: &Alarm) {
        self.standing.insert(alarm.kind, Arc::clone(&alarm.detail));
    }

    /// It does not stand any more.
    pub(crate) fn cleared(&mut self, kind: AlarmKind) {
        self.standing.remove(&kind);
    }

    /// What is to be written now.
    pub(crate) fn due(&mut self, now_ms: u64) -> Vec<Line> {
        if self.standing == self.written {
            return Vec::new();
        }
        let passed = now_ms.saturating_sub(self.since_ms) / LINE_EVERY_MS;
        self.lines = self.lines.saturating_sub(passed);
        self.since_ms = self.since_ms.saturating_add(passed.saturating_mul(LINE_EVERY_MS));
        let mut due = Vec::new();
        let kinds: Vec<AlarmKind> = self.written.keys().chain(self.standing.keys()).copied().collect();
        for kind in kinds {
            if self.lines >= LINES_MAX || self.standing.get(&kind) == self.written.get(&kind) {
                continue;
            }
            self.lines += 1;
            match self.standing.get(&kind) {
                Some(detail) => {
                    self.written.insert(kind, Arc::clone(detail));
                    due.push(Line::HeldUp(Arc::clone(detail)));
                }
                None => due.extend(self.written.remove(&kind).map(Line::Over)),
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alarm(detail: &str) -> Alarm {
        Alarm { kind: AlarmKind::Unreachable, detail: detail.into() }
    }

    /// Promise 5: each change of what is in the way is in the log at once, and only changes are.
    #[test]
    fn each_change_is_written_once() {
        let mut log = AlarmLog::default();
        log.raised(&alarm("no name"));
        assert_eq!(log.due(1), [Line::HeldUp("no name".into())]);
        log.raised(&alarm("no name"));
        assert_eq!(log.due(2), []);
        log.raised(&alarm("no trust"));
        log.raised(&Alarm { kind: AlarmKind::Paused, detail: "403".into() });
        assert_eq!(log.due(3), [Line::HeldUp("no trust".into()), Line::HeldUp("403".into())]);
        log.cleared(AlarmKind::Unreachable);
        assert_eq!(log.due(4), [Line::Over("no trust".into())]);
    }

    /// Two reasons that alternate do not fill the log, and what stands in the end is in it.
    #[test]
    fn what_alternates_does_not_flood_the_log() {
        let mut log = AlarmLog::default();
        let mut lines = 0;
        for second in 0..3_600 {
            if second % 3 == 0 {
                log.cleared(AlarmKind::Unreachable);
            } else {
                log.raised(&alarm(if second % 2 == 0 { "timeout" } else { "503" }));
            }
            lines += log.due(second * 1_000).len() as u64;
        }
        assert!((LINES_MAX..=LINES_MAX + 60).contains(&lines), "{lines} lines in an hour");
        log.raised(&alarm("no name"));
        let last = (3_600..3_700).flat_map(|second| log.due(second * 1_000)).last();
        assert_eq!(last, Some(Line::HeldUp("no name".into())));
    }
}
