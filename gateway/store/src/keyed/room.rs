//! Keeps sled away from a full disk, and tells a full disk from damage.
//!
//! sled 0.34 does not go on after a write that found no space: it repeats the error, or hangs. So it
//! is not called while little space is left; what is committed waits in the journal. Where it meets
//! a full disk all the same (another program, a quota), it is closed and opened anew once there is
//! space. Neither is damage: nothing is noted and nothing is set aside.

use std::io;
use std::path::Path;
use std::time::Duration;

use super::shared::Shared;
use super::watch::KeyedStatus;
use crate::copy::KeyedError;
use crate::files::{FileSystem, RealFiles};

/// Below this much free space sled is left alone, in bytes: eight of its segments, many times what
/// one piece of work and one checkpoint write. Well below any floor of the journal, so that what
/// the journal holds can still be settled and let go of on a disk that only it has filled.
pub(super) const FREE_BYTES_MIN: u64 = 4 * 1024 * 1024;
/// Between two looks whether there is space again.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// Wait before sled is opened anew after it met a full disk; a quota is not seen by looking.
const REOPEN_AFTER: Duration = Duration::from_secs(2);
/// What is told while it waits.
const TOO_LITTLE: &str = "too little free space";

/// Whether the error says that there is no space, which says nothing about what is stored.
pub(super) fn is_full(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// The same of a text: a reason from the first look, or the message of a panic.
pub(super) fn tells_full(text: &str) -> bool {
    let kinds = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
    kinds.iter().any(|kind| text.contains(&kind.to_string()) || text.contains(&format!("{kind:?}")))
}

/// Bytes that may still be written below the folder.
pub(super) fn free_bytes(dir: &Path) -> io::Result<u64> {
    RealFiles.free_space(dir)
}

/// The answer of whoever is asked meanwhile.
pub(super) fn too_little() -> KeyedError {
    KeyedError::Unavailable(TOO_LITTLE.into())
}

impl Shared {
    /// Whether sled may be called. A disk that does not tell its space is taken to have some.
    pub(super) fn has_room(&self) -> bool {
        self.sync.free_space(self.places.root()).map_or(true, |free| free >= FREE_BYTES_MIN)
    }

    /// Whether the reason is the full disk and not what is stored.
    pub(super) fn is_out_of_room(&self, reason: &str) -> bool {
        tells_full(reason) || !self.has_room()
    }

    /// An I/O error with its place, without the path.
    pub(super) fn io_error(&self, what: &str, error: &io::Error) -> KeyedError {
        let told = format!("{what}: {}", error.kind());
        if is_full(error.kind()) {
            self.watch.meet_full();
            return KeyedError::Unavailable(told);
        }
        KeyedError::Io(told)
    }

    /// Waits until there is space, and then is as it was before. `false` when it is asked to stop.
    pub(super) fn await_room(&self) -> bool {
        if self.has_room() {
            return true;
        }
        let before = self.watch.status();
        let gone_on = self.wait(LOOK_AGAIN);
        if gone_on {
            self.watch.enter(before);
        }
        gone_on
    }

    /// The same after sled met a full disk; it stays waiting until it is opened anew.
    pub(super) fn await_room_to_reopen(&self) -> bool {
        self.wait(REOPEN_AFTER)
    }

    fn wait(&self, at_least: Duration) -> bool {
        tracing::warn!("the keyed store waits for free space; what is committed stays in the journal");
        self.watch.enter(KeyedStatus::Waiting(TOO_LITTLE.into()));
        let mut pause = at_least;
        loop {
            if self.await_wish(pause, |wishes| wishes.stop.is_some(), |wishes| wishes.stop.is_some()) {
                return false;
            }
            if self.has_room() {
                break;
            }
            pause = LOOK_AGAIN;
        }
        tracing::info!("the keyed store goes on; there is free space again");
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A full disk must be told apart from damage in whatever form it is reported.
    #[test]
    fn a_full_disk_is_told_from_damage() {
        let full = io::Error::from_raw_os_error(28);
        assert!(is_full(full.kind()));
        assert!(tells_full(&super::super::watch::reason("opening", &sled::Error::Io(full))));
        let panic = format!("called `Result::unwrap()` on an `Err` value: {:?}", io::Error::from_raw_os_error(28));
        assert!(tells_full(&panic), "{panic}");
        assert!(tells_full(&format!("{:?}", io::Error::from_raw_os_error(122))));
        let damaged = io::Error::from_raw_os_error(5);
        assert!(!is_full(damaged.kind()) && !tells_full(&format!("{damaged:?}")));
    }
}
