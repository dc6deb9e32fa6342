//! The cases.

mod day;
mod full;
mod refused;
mod scan;
mod service;
mod survived;

use std::time::Duration;

use vitalgate_test_support::Verdict;

use crate::Case;
use crate::appliance::Appliance;
use crate::evidence::Evidence;
use crate::practice::Devices;

/// Longest wait for the readings that are under way.
const READINGS_WITHIN: Duration = Duration::from_secs(120);

/// Runs a case; how many checks held, and those that did not.
pub(crate) async fn run(case: Case, part: Option<String>) -> (u32, Vec<String>) {
    let mut evidence = match Evidence::begin(case.name(), part) {
        Ok(evidence) => evidence,
        Err(error) => return (0, vec![format!("{error:#}")]),
    };
    let outcome = match case {
        Case::Day => day::run(&mut evidence).await,
        Case::Refused => refused::run(&mut evidence).await,
        Case::Scan => scan::run(&mut evidence).await,
        Case::Service => service::run(&mut evidence).await,
        Case::Survived => survived::run(&mut evidence).await,
    };
    evidence.outcome("the case came to its end", outcome);
    if let Some(wrong) = evidence.unknown_part() {
        evidence.check(&wrong, false);
    }
    evidence.end()
}

/// The devices finish; everything acknowledged is in the EHR exactly once.
async fn exactly_once(appliance: &Appliance, devices: &mut Devices, evidence: &mut Evidence) -> anyhow::Result<()> {
    devices.finish(READINGS_WITHIN).await?;
    let verdict = devices.verdict(&appliance.practice).await;
    evidence.say(&verdict.to_string());
    evidence.check("every acknowledged reading is in the EHR exactly once", verdict.acknowledged > 0 && verdict.is_exactly_once());
    nothing_else(appliance, &verdict, evidence);
    Ok(())
}

/// Beside what was acknowledged the EHR has nothing of the publishing devices, and nothing was written over.
fn nothing_else(appliance: &Appliance, verdict: &Verdict, evidence: &mut Evidence) {
    evidence.check("no reading is in the EHR that no device sent", verdict.unacknowledged_count() == 0);
    let altered = appliance.practice.ehr.altered();
    evidence.check(&format!("nothing in the EHR was written over with something else {altered:?}"), altered.is_empty());
}
