//! The self test before commissioning: what was delivered works in its place.

mod checks;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use vitalgate_layout::state::{Part, StateWord};
use vitalgate_site::Site;

use crate::command::Programs;
use crate::places::Places;
use crate::state_file::{Said, StateFiles};

/// How long what may still come is waited for, in seconds.
const WAIT_S: u64 = 60;

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
            Self::Passed(_) => "ok".to_owned(),
            Self::Failed(why) => format!("failed: {why}"),
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

/// Looks at everything; a check that fails stops none of the others.
pub(crate) fn run(site: &Site, places: &Places, programs: &dyn Programs) -> Outcome {
    // The appliance has just come up: cable, time source and devices are given a while, all the same one.
    let deadline = Instant::now() + Duration::from_secs(WAIT_S);
    let mut outcome = Outcome(vec![
        ("verity".to_owned(), checks::verity(programs)),
        ("secure_boot".to_owned(), checks::secure_boot(places)),
        ("tpm".to_owned(), checks::tpm(places)),
        ("disk".to_owned(), checks::disk(places)),
        ("interfaces".to_owned(), checks::until(deadline, || checks::interfaces(places))),
    ]);
    let devices = checks::devices(&site.devices, deadline);
    outcome.0.push(("clock".to_owned(), checks::until(deadline, || checks::clock(places))));
    outcome.0.extend(devices.into_iter().map(|(device, finding)| (format!("device_{device}"), finding)));
    outcome
}

/// Shows the outcome. A device that is missing is no reason against service: the gateway itself watches for it.
pub(crate) fn say(outcome: &Outcome, states: &StateFiles) -> anyhow::Result<()> {
    let failed: Vec<_> = outcome.failed().into_iter().filter(|name| !name.starts_with("device_")).collect();
    let facts: BTreeMap<_, _> = outcome.lines().map(|(name, text)| (name.to_owned(), text)).collect();
    let (word, detail) = match failed.as_slice() {
        [] => (StateWord::Ready, String::new()),
        names => (StateWord::Degraded, format!("self test: {}", names.join(", "))),
    };
    let said = Said { word, code: None, detail: &detail, facts };
    states.say(Part::SelfTest, said).context("the state file cannot be written; restart the appliance")
}
