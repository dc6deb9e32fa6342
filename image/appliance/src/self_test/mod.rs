//! The self test before commissioning: what was delivered works in its place.

mod checks;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use vitalgate_layout::fact;
use vitalgate_layout::state::{Part, StateWord};
use vitalgate_site::Site;

use crate::command::Programs;
use crate::errand::{self, Errand};
use crate::places::Places;
use crate::room;
use crate::state_file::{Said, StateFiles};

/// How long what may still come is waited for, in seconds.
const WAIT_S: u64 = 60;
/// Most devices that the state names, of those that were not reached; with the other checks they are fewer than a state's
/// facts. The report has all of them.
const DEVICES_NAMED_MAX: usize = 32;

/// What one check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Finding {
    /// As it should be; with a word more where there is one.
    Passed(String),
    /// Not as it should be, and what to do.
    Failed(String),
    /// Not looked at, and why.
    Skipped(&'static str),
}

impl Finding {
    /// For the status page and the report.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Passed(_) => fact::OK.to_owned(),
            Self::Failed(why) => format!("{}: {why}", fact::FAILED),
            Self::Skipped(why) => format!("skipped: {why}"),
        }
    }
}

/// Every check by its name, in order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outcome(Vec<(String, Finding)>);

impl Outcome {
    /// Name and text of every check.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (&str, String)> {
        self.0.iter().map(|(name, finding)| (name.as_str(), finding.text()))
    }

    /// Names of what failed.
    pub(crate) fn failed(&self) -> Vec<&str> {
        self.0.iter().filter(|(_, finding)| matches!(finding, Finding::Failed(_))).map(|(name, _)| name.as_str()).collect()
    }
}

/// Addresses to reach, and how long to try.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Wanted {
    addresses: Vec<String>,
    seconds: u64,
}

/// Reaches each address by TCP, all at the same time; for each why not, or nothing. An errand.
pub(crate) fn reach(wanted: Wanted) -> Vec<Option<String>> {
    checks::reach_all(wanted.addresses, Instant::now() + Duration::from_secs(wanted.seconds.min(WAIT_S)))
}

/// Looks at everything; a check that fails stops none of the others.
pub(crate) fn run(site: &Site, places: &Places, programs: &dyn Programs) -> Outcome {
    // The appliance has just come up: cable, time source and devices are given a while, all the same one.
    let deadline = Instant::now() + Duration::from_secs(WAIT_S);
    let mut outcome = Outcome(vec![
        (fact::VERITY.to_owned(), checks::verity(places)),
        (fact::SECURE_BOOT.to_owned(), checks::secure_boot(places)),
        (fact::TPM.to_owned(), checks::tpm(places)),
        (fact::DISK.to_owned(), checks::disk(places, room::kept_free_mib(Some(site)))),
        (fact::INTERFACES.to_owned(), checks::until(deadline, || checks::interfaces(places))),
    ]);
    let devices = checks::devices(&site.devices, deadline, &|addresses, seconds| {
        let wanted = Wanted { addresses, seconds };
        errand::send(programs, places, Errand::Reach, &wanted, Duration::from_secs(seconds)).map_err(|error| error.to_string())
    });
    outcome.0.push((fact::CLOCK.to_owned(), checks::until(deadline, || checks::clock(places))));
    outcome.0.extend(devices.into_iter().map(|(device, finding)| (format!("{}{device}", fact::DEVICE_PREFIX), finding)));
    outcome
}

/// What may come later by itself: others watch for it, and say so for as long as it is missing. A device (the
/// gateway), time (the clock's part, `TIME-UNTRUSTED`), a cable (no time and no device without one).
fn comes_later(check: &str) -> bool {
    matches!(check, fact::CLOCK | fact::INTERFACES) || check.starts_with(fact::DEVICE_PREFIX)
}

/// Shows the outcome. The word is for what stays until the next start; nobody would take another one back.
pub(crate) fn say(outcome: &Outcome, states: &StateFiles) -> anyhow::Result<()> {
    let failed: Vec<_> = outcome.failed().into_iter().filter(|name| !comes_later(name)).collect();
    let facts = facts(outcome);
    let (word, detail) = match failed.as_slice() {
        [] => (StateWord::Ready, String::new()),
        names => (StateWord::Degraded, format!("self test: {}", names.join(", "))),
    };
    let said = Said { word, code: None, detail: &detail, facts };
    states.say(Part::SelfTest, said).context("the state file cannot be written; restart the appliance")
}

/// For the status page, which shows few facts of a part: every check, and of the devices those that were not reached.
fn facts(outcome: &Outcome) -> BTreeMap<String, String> {
    let (devices, checks): (Vec<_>, Vec<_>) = outcome.0.iter().partition(|(name, _)| name.starts_with(fact::DEVICE_PREFIX));
    let failed = devices.iter().filter(|(_, finding)| matches!(finding, Finding::Failed(_)));
    let mut facts: BTreeMap<_, _> =
        checks.iter().chain(failed.take(DEVICES_NAMED_MAX)).map(|(name, finding)| (name.clone(), finding.text())).collect();
    if !devices.is_empty() {
        facts.insert(fact::DEVICES.to_owned(), count(&devices));
    }
    facts
}

fn count(devices: &[&(String, Finding)]) -> String {
    let of = |kind: fn(&Finding) -> bool| devices.iter().filter(|(_, finding)| kind(finding)).count();
    let failed = of(|finding| matches!(finding, Finding::Failed(_)));
    let reached = of(|finding| matches!(finding, Finding::Passed(_)));
    let skipped = devices.len() - failed - reached;
    match failed {
        0 => format!("{reached} reached, {skipped} skipped"),
        failed => format!("{}: {failed} not reached, {reached} reached, {skipped} skipped", fact::FAILED),
    }
}

#[cfg(test)]
mod tests {
    use vitalgate_layout::state::{FACTS_MAX, STATE_BYTES_MAX};

    use super::*;

    fn word_of(failed: &[&str]) -> (StateWord, String, BTreeMap<String, String>) {
        let folder = tempfile::tempdir().unwrap();
        let states = StateFiles::of(&Places::under(folder.path()));
        let checks = [fact::VERITY, fact::SECURE_BOOT, fact::TPM, fact::DISK, fact::INTERFACES, fact::CLOCK, "device_bedside-1"];
        let finding = |name: &str| match failed.contains(&name) {
            true => Finding::Failed("not as it should be".to_owned()),
            false => Finding::Passed(String::new()),
        };
        say(&Outcome(checks.map(|name| (name.to_owned(), finding(name))).into()), &states).unwrap();
        let said = states.read(Part::SelfTest).unwrap();
        (said.word, said.detail, said.facts)
    }

    /// A clock that takes its time at a slow first start, a cable that is plugged in later: the report says that they
    /// were missing, and the word does not go on saying so.
    #[test]
    fn what_comes_later_is_reported_and_is_no_word() {
        for late in [fact::CLOCK, fact::INTERFACES, "device_bedside-1"] {
            let (word, detail, facts) = word_of(&[late]);
            assert_eq!((word, detail.as_str()), (StateWord::Ready, ""), "{late}");
            assert!(facts[late].starts_with("failed: "), "{facts:?}");
        }
        for stays in [fact::VERITY, fact::SECURE_BOOT, fact::TPM, fact::DISK] {
            let (word, detail, _) = word_of(&[stays, fact::CLOCK]);
            assert_eq!((word, detail), (StateWord::Degraded, format!("self test: {stays}")));
        }
    }
    /// However many devices there are, the page reads the state and shows each check: the root, the disk, and how many devices
    /// were not reached.
    #[test]
    fn many_devices_hide_no_check() {
        let folder = tempfile::tempdir().unwrap();
        let places = Places::under(folder.path());
        let why = format!("192.0.2.9:502 is not reached ({}); check its cable, its address and that it is on", "x".repeat(200));
        let device = |number: usize| match number % 3 {
            0 => Finding::Failed(why.clone()),
            1 => Finding::Passed("reached".to_owned()),
            _ => Finding::Skipped("it publishes by itself"),
        };
        let checks = [fact::VERITY, fact::SECURE_BOOT, fact::TPM, fact::DISK, fact::INTERFACES, fact::CLOCK];
        let checks = checks.map(|name| (name.to_owned(), Finding::Passed(String::new())));
        let devices = (0..900).map(|number| (format!("{}{number:064}", fact::DEVICE_PREFIX), device(number)));
        let outcome = Outcome(checks.into_iter().chain(devices).collect());
        say(&outcome, &StateFiles::of(&places)).unwrap();
        let state = StateFiles::of(&places).read(Part::SelfTest).unwrap();
        assert!(state.facts.len() <= FACTS_MAX, "{}", state.facts.len());
        let length = std::fs::metadata(places.at(vitalgate_layout::path::STATE_FOLDER).join(Part::SelfTest.file_name())).unwrap().len();
        assert!(length < STATE_BYTES_MAX, "{length}");
        for check in [fact::VERITY, fact::SECURE_BOOT, fact::TPM, fact::DISK, fact::INTERFACES, fact::CLOCK] {
            assert_eq!(state.facts[check], fact::OK);
        }
        assert_eq!(state.facts[fact::DEVICES], "failed: 300 not reached, 300 reached, 300 skipped");
        let named = state.facts.keys().filter(|name| name.starts_with(fact::DEVICE_PREFIX)).count();
        assert_eq!((named, outcome.lines().count()), (DEVICES_NAMED_MAX, 906), "the report has all of them");
    }
}
