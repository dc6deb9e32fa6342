//! How far the clock can be trusted, from what is known: no clock, no files, no programs.

use super::chrony::Known;

/// How far a clock may be off and still count as following its source, in seconds.
const ERROR_S_MAX: f64 = 1.0;
/// A clock that at power-on stood no further than this behind a moment it was lifted to was set by
/// that and not by its own battery, in milliseconds.
const LIFTED_WITHIN_MS: i64 = 60_000;

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
/// moment that is certainly past (the image's build, the last time that was known here).
pub(crate) fn at_power_on(now_ms: i64, up_ms: i64, floor_ms: i64) -> PowerOn {
    let at_power_on = now_ms.saturating_sub(up_ms);
    PowerOn { unset: at_power_on <= floor_ms.saturating_add(LIFTED_WITHIN_MS), set_to_ms: (now_ms < floor_ms).then_some(floor_ms) }
}

/// The trust now; `before` is what it was at the last look.
pub(crate) fn judge(known: Option<&Known>, before: Trust, unset_at_power_on: bool) -> Trust {
    let alone = if unset_at_power_on { Trust::Unset } else { Trust::Free };
    let Some(known) = known else {
        // chrony starts again, or the clock runs on by itself: how far it is off is not known any more.
        return if before >= Trust::Free { Trust::Free } else { alone };
    };
    if !known.tracking.synchronised {
        return if before >= Trust::Free { Trust::Free } else { alone };
    }
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
    use super::super::chrony::tests::{EARLY, PLAIN, PROVEN, known};
    use super::*;

    /// Only a clock whose every source proved itself is authenticated.
    #[test]
    fn the_word_follows_the_sources() {
        assert_eq!(judge(Some(&known(EARLY)), Trust::Unset, true), Trust::Unset);
        assert_eq!(judge(Some(&known(EARLY)), Trust::Free, false), Trust::Free);
        assert_eq!(judge(Some(&known(PROVEN)), Trust::Unset, true), Trust::Authenticated);
        assert_eq!(judge(Some(&known(PLAIN)), Trust::Authenticated, false), Trust::Synchronised);
        let mut mixed = known(PROVEN);
        mixed.sources[1].followed = true;
        assert_eq!(judge(Some(&mixed), Trust::Free, false), Trust::Synchronised);
    }

    /// A network that goes away takes nothing until the clock may be off; then it is free, never unset.
    #[test]
    fn a_clock_left_alone_is_trusted_as_long_as_it_is_right() {
        let mut alone = known(PROVEN);
        alone.sources.iter_mut().for_each(|source| source.followed = false);
        assert_eq!(judge(Some(&alone), Trust::Authenticated, true), Trust::Authenticated);
        assert_eq!(judge(Some(&alone), Trust::Free, true), Trust::Synchronised);
        alone.tracking.error_s = 1.5;
        assert_eq!(judge(Some(&alone), Trust::Authenticated, true), Trust::Free);
        assert_eq!(judge(None, Trust::Authenticated, true), Trust::Free);
        assert_eq!(judge(None, Trust::Unset, true), Trust::Unset);
        assert_eq!(judge(None, Trust::Unset, false), Trust::Free);
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
    }
}
