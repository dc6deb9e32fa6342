//! How far it is.

use std::io::{IsTerminal, Write};

use crate::say;

/// Says how far it is: in one line that moves for a person, every tenth for a log.
pub(crate) struct Progress {
    what: &'static str,
    total: u64,
    done: u64,
    said_percent: u64,
    moving: bool,
}

impl Progress {
    pub(crate) fn new(what: &'static str, total: u64) -> Self {
        Self { what, total: total.max(1), done: 0, said_percent: 0, moving: std::io::stderr().is_terminal() }
    }

    /// Says nothing.
    pub(crate) fn silent() -> Self {
        Self { what: "", total: u64::MAX, done: 0, said_percent: u64::MAX / 2, moving: false }
    }

    /// So many bytes more.
    pub(crate) fn add(&mut self, bytes: u64) {
        self.done = self.done.saturating_add(bytes);
        let percent = (self.done.saturating_mul(100) / self.total).min(100);
        let step = if self.moving { 1 } else { 25 };
        let ends = percent == 100 && self.said_percent < 100;
        if percent < self.said_percent + step && !ends {
            return;
        }
        self.said_percent = percent;
        let mib = self.done / (1024 * 1024);
        if self.moving {
            let mut error = std::io::stderr().lock();
            let end = if percent == 100 { "\n" } else { "" };
            let _ = write!(error, "\r{} {percent:3} % ({mib} MiB){end}", self.what);
            let _ = error.flush();
        } else {
            say::note(format_args!("{} {percent} % ({mib} MiB)", self.what));
        }
    }
}
