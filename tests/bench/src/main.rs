//! The benchmark table: each figure beside the one that it is compared with, taken in the same run.

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command that prints a table")]
#![allow(clippy::cast_precision_loss, reason = "figures for a table")]

mod commit;
mod delivery;
mod drain;
mod ingest;
mod latency;
mod mosquitto;
mod process;
mod table;

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Parser;

use crate::table::Table;

/// Prints the table and writes the same figures as JSON.
#[derive(Debug, Parser)]
struct Arguments {
    /// Where the figures go as a flat JSON object.
    #[arg(long, default_value = "target/bench.json")]
    output: PathBuf,
    /// Where the stores lie while they are measured. A file system in memory gives figures without flushes.
    #[arg(long, default_value = "target")]
    folder: PathBuf,
    /// Only these parts: ingest, commit, drain, latency. The other figures of an earlier run are kept.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Readings in the drain; the promise is made for 1,000,000.
    #[arg(long, default_value_t = 1_000_000)]
    queued: u64,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut table = Table::default();
    let measured = runtime.block_on(measure(&arguments, &mut table));
    // A part that fails does not take the others along.
    table.print();
    let is_part = measured.is_err() || !arguments.only.is_empty();
    table.write(&arguments.output, is_part).with_context(|| format!("cannot write {}", arguments.output.display()))?;
    measured
}

async fn measure(arguments: &Arguments, table: &mut Table) -> anyhow::Result<()> {
    let wanted = |part: &str| arguments.only.is_empty() || arguments.only.iter().any(|name| name == part);
    let binary = vitalgate_test_support::gateway::binary()?;
    table.figure("binary_mib", "stripped binary", std::fs::metadata(&binary)?.len() as f64 / 1_048_576.0, "MiB", "at most 12");
    if wanted("commit") {
        commit::rates(table, &arguments.folder)?;
    }
    if wanted("ingest") {
        ingest::against_mosquitto(table, &arguments.folder).await?;
    }
    if wanted("latency") {
        latency::device_to_ehr(table, &arguments.folder).await?;
        delivery::sustained_and_outage(table, &arguments.folder).await?;
    }
    if wanted("drain") {
        drain::drain_and_start(table, arguments.queued, &arguments.folder).await?;
    }
    Ok(())
}
