//! How far the clock can be trusted, from what is known: no clock, no files, no programs.

use super::chrony::Known;

/// How far a clock may be off and still count as following its source, in seconds.
const ERROR_S_MAX: f64 = 1.0;

/// The word, strongest last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Trust {
    /// Never set since power-on.
    Unset,
    /// Runs by its own battery.
    Free,
    /// Follows a source that does not prove who it is.
    Synchronised,
    /// Follows sources that all prove who they are.
    Authenticated,
}

impl Trust {
    const ALL: [Self; 4] = [Self::Unset, Self::Free, Self::Synchronised, Self::Authenticated];

    /// What a word says; `None` for any other.
    pub(crate) fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|trust| trust.word() == word)
    }

    /// As the daemon reads it.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Unset => "unset",
            Self::Free => "free",
            Self::Synchronised => "synchronised",
            Self::Authenticated => "authenticated",
        }
    }
}

/// What the clock was at power-on, before anybody on the network was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PowerOn {
    /// It had no time of its own.
    pub(crate) unset: bool,
    /// The moment it is to be set forward to, in Unix milliseconds; no earlier moment can be now.
    pub(crate) set_to_ms: Option<i64>,
}

/// Judges the clock at the start: `now_ms` by the clock, `up_ms` since power-on, `floor_ms` the latest
/// moment that is certainly past (the image's build, the last time that was known here). A clock that was lifted to that
/// moment since stood before it at power-on.
pub(crate) fn at_power_on(now_ms: i64, up_ms: i64, floor_ms: i64) -> PowerOn {
    let at_power_on = now_ms.saturating_sub(up_ms);
    PowerOn { unset: at_power_on <= floor_ms, set_to_ms: (now_ms < floor_ms).then_some(floor_ms) }
}

/// The trust now; `before` is what it was at the last look, or at power-on. A clock that was set once is never unset again.
pub(crate) fn judge(known: Option<&Known>, before: Trust) -> Trust {
    let Some(known) = known.filter(|known| known.tracking.synchronised) else {
        // chrony starts again, or the clock runs on by itself: how far it is off is not known any more.
        return before.min(Trust::Free);
    };
    if known.tracking.error_s > ERROR_S_MAX {
        return Trust::Free;
    }
    let followed: Vec<_> = known.sources.iter().filter(|source| source.followed).collect();
    match followed.as_slice() {
        // Out of reach just now: the clock is as good as it was, until its error has grown.
        [] => before.max(Trust::Synchronised),
        followed if followed.iter().all(|source| source.proven) => Trust::Authenticated,
        _ => Trust::Synchronised,
    }
}

#[cfg(test)]
mod tests {
    use super::super::chrony::tests::{EARLY, PLAIN, PROVEN, SLEWED, known};
    use super::*;

    /// Only a clock whose every source proved itself is authenticated.
    #[test]
    fn the_word_follows_the_sources() {
        assert_eq!(judge(Some(&known(EARLY)), Trust::Unset), Trust::Unset);
        assert_eq!(judge(Some(&known(EARLY)), Trust::Free), Trust::Free);
        assert_eq!(judge(Some(&known(PROVEN)), Trust::Unset), Trust::Authenticated);
        assert_eq!(judge(Some(&known(PLAIN)), Trust::Authenticated), Trust::Synchronised);
        let mut mixed = known(PROVEN);
        mixed.sources[1].followed = true;
        assert_eq!(judge(Some(&mixed), Trust::Free), Trust::Synchronised);
    }

    /// A clock that follows a proven source and is still minutes away from it is not trusted until it has arrived.
    #[test]
    fn a_clock_that_is_being_corrected_is_not_trusted() {
        assert_eq!(judge(Some(&known(SLEWED)), Trust::Authenticated), Trust::Free);
        assert_eq!(judge(Some(&known(PROVEN)), Trust::Free), Trust::Authenticated);
    }

    /// A network that goes away takes nothing until the clock may be off; then it is free, never unset.
    #[test]
    fn a_clock_left_alone_is_trusted_as_long_as_it_is_right() {
        let mut alone = known(PROVEN);
        alone.sources.iter_mut().for_each(|source| source.followed = false);
        assert_eq!(judge(Some(&alone), Trust::Authenticated), Trust::Authenticated);
        assert_eq!(judge(Some(&alone), Trust::Free), Trust::Synchronised);
        alone.tracking.error_s = 1.5;
        assert_eq!(judge(Some(&alone), Trust::Authenticated), Trust::Free);
        assert_eq!(judge(None, Trust::Authenticated), Trust::Free);
        assert_eq!(judge(None, Trust::Unset), Trust::Unset);
    }

    /// A real-time clock at 1970, or one that systemd lifted to the build's time, was never set; a good
    /// one is left alone; one behind the last known time is set forward.
    #[test]
    fn a_clock_at_1970_is_noticed() {
        let floor = 1_795_000_000_000;
        let up = 20_000;
        assert_eq!(at_power_on(20_000, up, floor), PowerOn { unset: true, set_to_ms: Some(floor) });
        assert_eq!(at_power_on(floor + up, up, floor), PowerOn { unset: true, set_to_ms: None });
        assert_eq!(at_power_on(floor + 86_400_000, up, floor), PowerOn { unset: false, set_to_ms: None });
        assert_eq!(at_power_on(floor - 5_000, up, floor), PowerOn { unset: true, set_to_ms: Some(floor) });
        // Restarted five seconds after the time was noted, with a battery that kept it.
        assert_eq!(at_power_on(floor + 5_000 + up, up, floor), PowerOn { unset: false, set_to_ms: None });
    }
}
