//! What a light does for a state word: told apart by counting, so that colours are never needed.
//!
//! No word is a steady light or a dark one: that is what a machine shows that has stopped.

use std::time::Duration;

use vitalgate_layout::StateWord;

use crate::page::panel::Tone;

/// A short flash.
const SHORT: Duration = Duration::from_millis(250);
/// Dark after a short flash.
const SHORT_GAP: Duration = Duration::from_millis(350);
/// A long flash.
const LONG: Duration = Duration::from_millis(1200);
/// Dark after a long flash.
const LONG_GAP: Duration = Duration::from_millis(600);
/// Dark between two rounds.
const PAUSE: Duration = Duration::from_millis(2000);
/// Light, and then dark, where both are as long.
const EVEN: Duration = Duration::from_millis(1000);
/// Light between two winks.
const LIT: Duration = Duration::from_millis(3700);
/// Dark for a wink.
const WINK: Duration = Duration::from_millis(300);

/// A round that repeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rhythm {
    /// Lit, with a short wink.
    Lit,
    /// Light and dark, evenly.
    Even,
    /// A long flash or none, short ones, and a pause.
    Flashes {
        /// Whether a long one comes first.
        long: bool,
        /// How many short ones.
        short: usize,
    },
}

/// The rhythm of a word. The more urgent of two words of one kind has the more flashes.
pub(crate) const fn rhythm(word: StateWord) -> Rhythm {
    let (long, short) = match word {
        StateWord::Ready => return Rhythm::Lit,
        StateWord::Selftest => return Rhythm::Even,
        StateWord::RolledBack => (true, 1),
        StateWord::Degraded => (true, 2),
        StateWord::OfflineBuffering => (true, 3),
        StateWord::TimeUntrusted => (true, 4),
        StateWord::Updating => (true, 5),
        StateWord::AwaitProvision => (false, 1),
        StateWord::Enrolling => (false, 2),
        StateWord::ProvisionRejected => (false, 3),
        StateWord::StoreFull => (false, 4),
        StateWord::Tamper => (false, 5),
    };
    Rhythm::Flashes { long, short }
}

impl Rhythm {
    /// One round: lit or dark, and for how long; it begins lit and ends dark.
    pub(crate) fn round(self) -> Vec<(bool, Duration)> {
        let (long, short) = match self {
            Self::Lit => return vec![(true, LIT), (false, WINK)],
            Self::Even => return vec![(true, EVEN), (false, EVEN)],
            Self::Flashes { long, short } => (usize::from(long), short),
        };
        let mut round = [(true, LONG), (false, LONG_GAP)].repeat(long);
        round.extend([(true, SHORT), (false, SHORT_GAP)].repeat(short));
        if let Some((_, gap)) = round.last_mut() {
            *gap = PAUSE;
        }
        round
    }

    /// Whether it is lit this long after it began, and how long that stays so.
    pub(crate) fn at(self, since_begin: Duration) -> (bool, Duration) {
        let round = self.round();
        let whole: Duration = round.iter().map(|(_, length)| *length).sum();
        let mut into = Duration::from_nanos_u128(since_begin.as_nanos().checked_rem(whole.as_nanos()).unwrap_or(0));
        for (lit, length) in round {
            match length.checked_sub(into).filter(|left| !left.is_zero()) {
                Some(left) => return (lit, left),
                None => into = into.saturating_sub(length),
            }
        }
        (false, PAUSE)
    }
}

/// The colour that a light of several colours takes, and that is chosen where there are several lights.
pub(crate) const fn colour_name(tone: Tone) -> &'static str {
    match tone {
        Tone::Good => "green",
        Tone::Busy | Tone::Unknown => "blue",
        Tone::Attention => "amber",
        Tone::Bad => "red",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::advice;

    /// Flashes a second above which a flashing light can be a danger (WCAG 2.2, success criterion 2.3.1).
    const FLASHES_PER_S_MAX: u128 = 3;
    /// Most flashes of one kind that a person counts without counting again.
    const COUNTED_MAX: usize = 5;

    impl Rhythm {
        /// For the manual.
        fn text(self) -> String {
            match self {
                Self::Lit => "lit, and goes out for a moment every 4 seconds".to_owned(),
                Self::Even => "1 second lit, 1 second dark".to_owned(),
                Self::Flashes { long: false, short } => format!("{short} short"),
                Self::Flashes { long: true, short } => format!("1 long, {short} short"),
            }
        }
    }

    /// What is seen of a round: the length of each light and each darkness, in the classes that a person tells apart.
    fn seen(word: StateWord) -> Vec<(bool, &'static str)> {
        let class = |length: Duration| match length.as_millis() {
            0..400 => "short",
            400..800 => "medium",
            800..1600 => "long",
            1600..3000 => "pause",
            _ => "steady",
        };
        rhythm(word).round().into_iter().map(|(lit, length)| (lit, class(length))).collect()
    }

    /// Two words never look alike, not to somebody who sees no colours and begins to look in the middle either.
    #[test]
    fn words_are_told_apart_without_colours() {
        for word in StateWord::ALL {
            for other in StateWord::ALL.into_iter().filter(|other| *other != word) {
                let (one, mut two) = (seen(word), seen(other));
                for _ in 0..two.len() {
                    assert_ne!(one, two, "{word} looks like {other}");
                    two.rotate_left(1);
                }
            }
        }
    }

    /// A stopped machine is steady or dark, and is taken for neither of the words; nothing flickers; everything
    /// can be counted, and one need not look for long.
    #[test]
    fn every_word_is_seen_to_be_alive_and_can_be_counted() {
        for word in StateWord::ALL {
            let round = rhythm(word).round();
            let whole: Duration = round.iter().map(|(_, length)| *length).sum();
            assert!(round.iter().any(|(lit, _)| *lit) && round.iter().any(|(lit, _)| !*lit), "{word}");
            assert!(round.windows(2).all(|pair| pair[0].0 != pair[1].0) && round[0].0 && !round[round.len() - 1].0, "{word}");
            let flashes = round.len() as u128 / 2;
            assert!(flashes * 1_000 <= FLASHES_PER_S_MAX * whole.as_millis(), "{word}");
            assert!(whole <= Duration::from_secs(8) && round.iter().all(|(_, length)| *length >= SHORT), "{word}: {whole:?}");
            if let Rhythm::Flashes { short, .. } = rhythm(word) {
                assert!((1..=COUNTED_MAX).contains(&short), "{word}");
            }
        }
        assert!(LONG >= 4 * SHORT && PAUSE >= 3 * LONG_GAP && PAUSE >= 4 * SHORT_GAP);
    }

    /// The light at a moment is the one of the round, round after round.
    #[test]
    fn a_moment_is_found_in_its_round() {
        let degraded = rhythm(StateWord::Degraded);
        let whole: Duration = degraded.round().iter().map(|(_, length)| *length).sum();
        for rounds in [0, 1, 1_000_000] {
            let mut begin = whole * rounds;
            for (lit, length) in degraded.round() {
                assert_eq!(degraded.at(begin), (lit, length));
                assert_eq!(degraded.at(begin + length / 2), (lit, length - length / 2));
                begin += length;
            }
        }
    }

    /// The technician's manual has the table that the code has.
    #[test]
    fn the_manual_shows_these_rhythms() {
        let manual = include_str!("../../../../docs/technician.md");
        for word in StateWord::ALL {
            let row = format!("| {} | `{word}` | {} |", rhythm(word).text(), colour_name(advice::tone(word)));
            assert!(manual.lines().any(|line| line == row), "docs/technician.md, \"Lights\" does not have the row\n{row}");
        }
    }
}
