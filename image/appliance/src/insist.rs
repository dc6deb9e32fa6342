//! Doing what the disk refuses for a moment.

use std::time::Duration;

use crate::cli::say_error;

/// Attempts at what the disk refuses.
pub(crate) const ATTEMPTS_MAX: u32 = 10;
/// How long between two of them.
pub(crate) const ATTEMPT_INTERVAL: Duration = Duration::from_secs(30);

/// Does a step until the disk takes it, and gives the last refusal if it never does. For steps that nothing starts a second time.
///
/// # Errors
/// What the last attempt ended with.
pub(crate) fn insist<T>(wait: impl Fn(), step: impl Fn() -> anyhow::Result<T>) -> anyhow::Result<T> {
    for _ in 1..ATTEMPTS_MAX {
        match step() {
            Ok(done) => return Ok(done),
            Err(error) => say_error(&error),
        }
        wait();
    }
    step()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// A disk that fails for a moment does not leave a version undecided or unkept; one that fails for good ends the waiting.
    #[test]
    fn a_disk_that_fails_for_a_moment_is_asked_again() {
        let (tried, waited) = (Cell::new(0), Cell::new(0));
        let once_more = || waited.set(waited.get() + 1);
        let step = |works_at: u32| {
            tried.set(tried.get() + 1);
            anyhow::ensure!(tried.get() >= works_at, "no disk");
            Ok(tried.get())
        };
        assert_eq!(insist(once_more, || step(3)).unwrap(), 3);
        assert_eq!(waited.get(), 2);
        tried.set(0);
        assert!(insist(once_more, || step(ATTEMPTS_MAX + 1)).is_err());
        assert_eq!(tried.get(), ATTEMPTS_MAX);
    }
}
