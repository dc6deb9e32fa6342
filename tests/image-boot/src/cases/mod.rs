//! The cases.

mod day;
mod full;
mod refused;
mod scan;
mod service;
mod survived;

use crate::Case;
use crate::evidence::Evidence;

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
    evidence.end()
}
