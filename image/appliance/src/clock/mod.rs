//! How far the clock can be trusted: said to the daemon in one word, and to a person with the sources.

mod chrony;
mod trust;

use std::collections::BTreeMap;
use std::fs;
use std::process::ExitCode;
use std::time::{Duration, Instant, UNIX_EPOCH};

use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime, clock_settime};
use vitalgate_layout::state::{Part, StateWord};
use vitalgate_layout::{fact, path};

use crate::cli::say;
use crate::command::System;
use crate::pause::pause;
use crate::places::Places;
use crate::state_file::{Said, StateFiles, now_unix_ms, replace};

use chrony::{Known, ask};
use trust::{Trust, at_power_on, judge};

/// How often chrony is asked.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);
/// How often the time is noted for the next power-on.
const NOTE_INTERVAL: Duration = Duration::from_secs(3600);
/// A file whose time is the image's build (systemd(1), "/usr/lib/clock-epoch"); systemd itself never starts earlier.
const BUILD_EPOCH: &str = "/usr/lib/clock-epoch";
/// A noted time after this moment (2100-01-01) is damage, in Unix milliseconds.
const LAST_KNOWN_MS_MAX: i64 = 4_102_444_800_000;

/// How to look at the clock.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Look once and end.
    #[arg(long)]
    once: bool,
}

/// Says how far the clock can be trusted, again and again.
pub(crate) fn clock(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let places = Places::system();
    let power_on = at_power_on(now_unix_ms(), up_ms(), floor_ms(&places));
    if let Some(set_to_ms) = power_on.set_to_ms {
        // A clock behind the image's own build refuses every certificate. The daemon still hears that it was never set.
        let set = clock_settime(ClockId::CLOCK_REALTIME, TimeSpec::new(set_to_ms.div_euclid(1000), 0));
        say(&format!("the clock was before its last known time and is set forward to that ({set:?})"));
    }
    let mut trust = at_start(&places, power_on.unset);
    let mut noted = Instant::now();
    let mut complaint = String::new();
    loop {
        let known = match ask(&System) {
            Ok(known) => known,
            Err(error) => {
                let again = std::mem::replace(&mut complaint, error.to_string());
                if again != complaint {
                    say(&complaint);
                }
                None
            }
        };
        trust = judge(known.as_ref(), trust);
        tell(&places, trust, known.as_ref())?;
        if trust >= Trust::Synchronised && noted.elapsed() >= NOTE_INTERVAL {
            note(&places);
            noted = Instant::now();
        }
        if arguments.once {
            return Ok(ExitCode::SUCCESS);
        }
        pause(LOOK_INTERVAL);
    }
}

/// What is known before chrony is asked. A word of this boot outweighs the look at power-on: the time that was noted since
/// is later than power-on and says nothing of it.
fn at_start(places: &Places, unset_at_power_on: bool) -> Trust {
    let said = fs::read_to_string(places.at(path::CLOCK_TRUST)).ok().and_then(|word| Trust::of_word(word.trim()));
    said.unwrap_or(if unset_at_power_on { Trust::Unset } else { Trust::Free })
}

/// Whether the clock was not set since power-on: a restart takes their moment from readings that wait for it.
pub(crate) fn is_unset(places: &Places) -> bool {
    fs::read_to_string(places.at(path::CLOCK_TRUST)).is_ok_and(|word| Trust::of_word(word.trim()) == Some(Trust::Unset))
}

/// The latest moment that is certainly past.
fn floor_ms(places: &Places) -> i64 {
    let build = fs::metadata(places.at(BUILD_EPOCH)).and_then(|known| known.modified()).ok();
    let build = build.and_then(|time| time.duration_since(UNIX_EPOCH).ok()).and_then(|since| i64::try_from(since.as_millis()).ok());
    let last = fs::read_to_string(places.at(path::LAST_KNOWN_TIME)).ok().and_then(|text| text.trim().parse::<i64>().ok());
    build.unwrap_or(0).max(last.filter(|last| *last <= LAST_KNOWN_MS_MAX).unwrap_or(0))
}

fn note(places: &Places) {
    // Only a help for a machine without a battery; sealed storage may be closed.
    let _ = replace(&places.at(path::LAST_KNOWN_TIME), now_unix_ms().to_string().as_bytes(), 0o600);
}

/// Milliseconds since power-on.
fn up_ms() -> i64 {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(0, |up| up.tv_sec().saturating_mul(1000).saturating_add(up.tv_nsec() / 1_000_000))
}

fn tell(places: &Places, trust: Trust, known: Option<&Known>) -> std::io::Result<()> {
    let word_file = places.at(path::CLOCK_TRUST);
    if fs::read_to_string(&word_file).unwrap_or_default().trim() != trust.word() {
        say(&format!("the clock is {}", trust.word()));
        replace(&word_file, format!("{}\n", trust.word()).as_bytes(), 0o644)?;
    }
    let mut facts = BTreeMap::from([(fact::TRUST.to_owned(), trust.word().to_owned())]);
    for (number, source) in known.map(|known| known.sources.as_slice()).unwrap_or_default().iter().enumerate() {
        let proof = if source.proven { "proves who it is (NTS)" } else { "without proof" };
        let standing = match (source.followed, source.answers) {
            (true, _) => "followed",
            (false, true) => "answers",
            (false, false) => "does not answer",
        };
        facts.insert(format!("{}{}", fact::SOURCE_PREFIX, number + 1), format!("{}: {standing}, {proof}", source.name));
    }
    let (word, detail) = match trust {
        Trust::Authenticated => (StateWord::Ready, ""),
        Trust::Synchronised => {
            (StateWord::Ready, "the time source does not prove who it is; name an NTS server in the site file where there is one")
        }
        _ if known.is_none() => {
            (StateWord::TimeUntrusted, "the time service does not answer; it is asked again. If this stays, restart the appliance")
        }
        Trust::Free if known.is_some_and(Known::follows) => (
            StateWord::TimeUntrusted,
            "the clock may be more than a second off its time source and is being corrected; if this stays, check [time] of the site file",
        ),
        Trust::Free => {
            (StateWord::TimeUntrusted, "no time source answers; the clock runs by itself. Check network and [time] of the site file")
        }
        Trust::Unset => (
            StateWord::TimeUntrusted,
            "the clock was not set since power-on and no time source answers; readings without a time of their own wait. Check network, [time] of the site file and the clock's battery",
        ),
    };
    StateFiles::of(places).say(Part::Clock, Said { facts, ..Said::new(word, detail) })
}

#[cfg(test)]
mod tests {
    use super::chrony::tests::{EARLY, PLAIN, PROVEN, SLEWED, known};
    use super::*;

    /// The word that the daemon reads and the sources that a person sees.
    #[test]
    fn the_word_is_written_and_the_sources_are_shown() {
        let folder = tempfile::tempdir().unwrap();
        let places = Places::under(folder.path());
        fs::create_dir_all(places.at("/run/vitalgate")).unwrap();
        for (trust, printed, word) in [
            (Trust::Unset, EARLY, StateWord::TimeUntrusted),
            (Trust::Synchronised, PLAIN, StateWord::Ready),
            (Trust::Authenticated, PROVEN, StateWord::Ready),
        ] {
            tell(&places, trust, Some(&known(printed))).unwrap();
            assert_eq!(fs::read_to_string(places.at(path::CLOCK_TRUST)).unwrap().trim(), trust.word());
            assert_eq!(StateFiles::of(&places).read(Part::Clock).unwrap().word, word);
        }
        let facts = StateFiles::of(&places).read(Part::Clock).unwrap().facts;
        assert_eq!(facts["source-1"], "localhost: followed, proves who it is (NTS)");
        assert_eq!(facts["source-2"], "127.0.0.2: answers, without proof");
        tell(&places, Trust::Free, None).unwrap();
        assert!(StateFiles::of(&places).read(Part::Clock).unwrap().detail.contains("time service does not answer"));
        assert_eq!(fs::read_to_string(places.at(path::CLOCK_TRUST)).unwrap().trim(), "free");
    }

    /// The service may end and be started again: what was known of the clock in this boot stays known.
    #[test]
    fn a_clock_that_was_set_is_not_unset_by_a_restart_of_the_service() {
        let folder = tempfile::tempdir().unwrap();
        let places = Places::under(folder.path());
        assert_eq!((at_start(&places, true), at_start(&places, false)), (Trust::Unset, Trust::Free));
        fs::create_dir_all(places.at("/run/vitalgate")).unwrap();
        for (said, expected) in [
            (Trust::Unset, Trust::Unset),
            (Trust::Free, Trust::Free),
            (Trust::Synchronised, Trust::Free),
            (Trust::Authenticated, Trust::Free),
        ] {
            tell(&places, said, None).unwrap();
            // The hourly note is later than power-on.
            assert_eq!(judge(Some(&known(EARLY)), at_start(&places, true)), expected);
        }
        fs::write(places.at(path::CLOCK_TRUST), "nonsense").unwrap();
        assert_eq!(at_start(&places, true), Trust::Unset);
    }

    /// Who reads the page is not told that no source answers while the clock is drawn after one.
    #[test]
    fn a_clock_that_is_being_corrected_is_said_to_be() {
        let folder = tempfile::tempdir().unwrap();
        let places = Places::under(folder.path());
        fs::create_dir_all(places.at("/run/vitalgate")).unwrap();
        tell(&places, Trust::Free, Some(&known(SLEWED))).unwrap();
        let said = StateFiles::of(&places).read(Part::Clock).unwrap();
        assert!(said.word == StateWord::TimeUntrusted && said.detail.contains("being corrected"), "{}", said.detail);
    }

    /// The later of build and last known time; a damaged note is not believed.
    #[test]
    fn the_floor_is_the_latest_that_is_certain() {
        let folder = tempfile::tempdir().unwrap();
        let places = Places::under(folder.path());
        assert_eq!(floor_ms(&places), 0);
        for place in ["/usr/lib", path::APPLIANCE] {
            fs::create_dir_all(places.at(place)).unwrap();
        }
        let built = UNIX_EPOCH + Duration::from_secs(1_790_000_000);
        fs::File::create(places.at(BUILD_EPOCH)).unwrap().set_modified(built).unwrap();
        assert_eq!(floor_ms(&places), 1_790_000_000_000);
        for (noted, expected) in [
            ("1795000000000\n", 1_795_000_000_000),
            ("5", 1_790_000_000_000),
            ("9999999999999999", 1_790_000_000_000),
            ("x", 1_790_000_000_000),
        ] {
            fs::write(places.at(path::LAST_KNOWN_TIME), noted).unwrap();
            assert_eq!(floor_ms(&places), expected, "{noted}");
        }
        note(&places);
        assert!(floor_ms(&places) > 1_790_000_000_000);
    }
}
