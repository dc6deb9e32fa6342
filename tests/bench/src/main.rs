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

/// What is measured on request; the binary's size always is.
const PARTS: [&str; 4] = ["ingest", "commit", "drain", "latency"];

/// Prints the table and writes the same figures as JSON.
#[derive(Debug, Parser)]
struct Arguments {
    /// Where the figures go as a flat JSON object.
    #[arg(long, default_value = "target/bench.json")]
    output: PathBuf,
    /// Where the stores lie while they are measured. A file system in memory gives figures without flushes.
    #[arg(long, default_value = "target")]
    folder: PathBuf,
    /// Only these parts. Of an earlier run the figures of the other parts are kept, and none of these, even if this run fails.
    #[arg(long, value_delimiter = ',', value_parser = PARTS)]
    only: Vec<String>,
    /// Readings in the drain; the promise is made for 1,000,000.
    #[arg(long, default_value_t = 1_000_000)]
    queued: u64,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let kept: Vec<&str> = PARTS.into_iter().filter(|part| !arguments.wants(part)).collect();
    let no_file = || format!("cannot write {}", arguments.output.display());
    let mut table = Table::begin(&arguments.output, &kept).with_context(no_file)?;
    let measured = runtime.block_on(measure(&arguments, &mut table));
    // A part that fails does not take with it what the parts before it found.
    table.print();
    table.write().with_context(no_file)?;
    measured
}

impl Arguments {
    fn wants(&self, part: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| name == part)
    }
}

async fn measure(arguments: &Arguments, table: &mut Table) -> anyhow::Result<()> {
    let wanted = |part: &str, table: &mut Table| {
        table.part(part);
        arguments.wants(part)
    };
    let binary = vitalgate_test_support::gateway::binary()?;
    table.part("binary");
    table.figure("binary_mib", "stripped binary", std::fs::metadata(&binary)?.len() as f64 / 1_048_576.0, "MiB", "at most 12");
    if wanted("commit", table) {
        commit::rates(table, &arguments.folder)?;
    }
    if wanted("ingest", table) {
        ingest::against_mosquitto(table, &arguments.folder).await?;
    }
    if wanted("latency", table) {
        latency::device_to_ehr(table, &arguments.folder).await?;
        delivery::sustained_and_outage(table, &arguments.folder).await?;
    }
    if wanted("drain", table) {
        drain::drain_and_start(table, arguments.queued, &arguments.folder).await?;
    }
    Ok(())
}
