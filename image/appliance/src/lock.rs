//! Locks between steps. Whoever ends, however it ends, holds none any more.

use std::fs::File;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::pause::pause;
use crate::places::Places;

/// How often a lock that is waited for is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// Takes a lock until what is returned is dropped; `None` where another holds it all that time.
///
/// # Errors
/// When its file cannot be made.
pub(crate) fn take(places: &Places, lock: &str, wait: Duration) -> anyhow::Result<Option<File>> {
    let file = places.at(lock);
    let opened = File::create(&file).with_context(|| format!("{} cannot be made", file.display()))?;
    let begun = Instant::now();
    while opened.try_lock().is_err() {
        if begun.elapsed() >= wait {
            return Ok(None);
        }
        pause(LOOK_INTERVAL);
    }
    Ok(Some(opened))
}

/// Whether somebody holds it.
pub(crate) fn is_taken(places: &Places, lock: &str) -> bool {
    File::open(places.at(lock)).is_ok_and(|file| file.try_lock_shared().is_err())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::thread;

    use vitalgate_layout::path::CHANGE_LOCK;

    use super::*;

    /// Longer than anything here takes.
    const LONG: Duration = Duration::from_secs(300);

    /// One holds it at a time; who waits gets it as soon as it is free, and who does not is told so.
    #[test]
    fn a_lock_is_held_by_one_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let places = Places::under(folder.path());
        assert!(take(&places, CHANGE_LOCK, LONG).is_err(), "nowhere to make it");
        fs::create_dir_all(places.at("/run/vitalgate")).unwrap();
        assert!(!is_taken(&places, CHANGE_LOCK), "never taken");
        let held = take(&places, CHANGE_LOCK, Duration::ZERO).unwrap().unwrap();
        assert!(is_taken(&places, CHANGE_LOCK));
        assert!(take(&places, CHANGE_LOCK, Duration::ZERO).unwrap().is_none());
        thread::scope(|scope| {
            let waiting = scope.spawn(|| take(&places, CHANGE_LOCK, LONG).unwrap().is_some());
            drop(held);
            assert!(waiting.join().unwrap());
        });
        assert!(!is_taken(&places, CHANGE_LOCK));
    }
}
