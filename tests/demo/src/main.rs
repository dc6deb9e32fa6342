//! The demonstration: monitors replay real recordings, the EHR goes away and comes back, and the
//! proof is printed that every acknowledged reading is in the EHR exactly once.

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "a demonstration speaks to the person who started it")]

mod chart;
mod ehr;
mod judgement;
mod ledger;
mod page;
mod story;
mod terminal;
mod ward;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};

/// Which EHR the readings go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum EhrKind {
    /// The small one that is built in, over TLS.
    BuiltIn,
    /// The FHIR server sekmet-fhir from PyPI.
    Sekmet,
}

/// Shows vital signs on their way from the bedside to the EHR, through an outage of the EHR.
#[derive(Debug, Clone, Parser)]
#[command(name = "vitalgate-demo")]
pub(crate) struct Arguments {
    /// Which EHR the readings go to.
    #[arg(long, value_enum, default_value = "built-in")]
    pub(crate) ehr: EhrKind,
    /// Where `sekmet` is, for `--ehr sekmet`.
    #[arg(long, default_value = "target/venv-sekmet/bin/sekmet")]
    pub(crate) sekmet: PathBuf,
    /// The recordings.
    #[arg(long, default_value = "tests/data/vitals-replay.csv")]
    pub(crate) recording: PathBuf,
    /// Port of the web page on loopback; a free one when it is taken.
    #[arg(long, default_value_t = 8480)]
    pub(crate) port: u16,
    /// Charted seconds per second.
    #[arg(long)]
    pub(crate) speed_up: Option<f64>,
    /// Seconds from the start until the EHR goes away.
    #[arg(long, default_value_t = 30)]
    pub(crate) outage_at_s: u64,
    /// Seconds until it comes back.
    #[arg(long, default_value_t = 20)]
    pub(crate) outage_s: u64,
    /// Seconds of ordinary traffic after it came back.
    #[arg(long, default_value_t = 15)]
    pub(crate) after_s: u64,
    /// Print lines and end after the proof, even in a terminal.
    #[arg(long)]
    pub(crate) once: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    match story::tell(Arguments::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("the demonstration could not go on: {error:#}");
            ExitCode::FAILURE
        }
    }
}
