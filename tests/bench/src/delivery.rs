//! The highest sustained rate, CPU and memory: idle, loaded, through an outage.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::Value;
use tempfile::TempDir;
use vitalgate_simulator::load::{load_devices, run_name};
use vitalgate_simulator::{Load, LoadPayload, Transport};
use vitalgate_test_support::gateway::{add_device, write_config};
use vitalgate_test_support::{Ehr, EhrOptions, GatewayProcess, wait_until};

use crate::ingest::{CLIENTS, config};
use crate::process::{cpu_s, forget_peak, peak_mib, resident_mib};
use crate::table::Table;

/// Rates that are tried, in readings a second.
const RATES: [u64; 6] = [1_000, 2_500, 5_000, 10_000, 15_000, 20_000];
/// The rate that is promised to be kept up with, in readings a second.
const PROMISED_RATE: u64 = 5_000;
/// Length of one try.
const TRY: Duration = Duration::from_secs(8);
/// What may still be queued a moment after a sustained run, as seconds of its rate.
const LEFT_S: f64 = 0.5;
/// Length of the outage.
const OUTAGE: Duration = Duration::from_secs(30);
/// Readings a second through the outage.
const OUTAGE_RATE: f64 = 200.0;

/// A gateway with a null EHR.
pub(crate) struct Bench {
    /// The daemon.
    pub(crate) gateway: GatewayProcess,
    /// Accepts everything, keeps nothing.
    pub(crate) ehr: Ehr,
    /// Where the files are.
    pub(crate) folder: TempDir,
}

impl Bench {
    /// Starts both.
    pub(crate) async fn start(folder: &Path) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir_in(folder)?;
        let ehr = Ehr::start(EhrOptions { null: true, ..EhrOptions::default() }).await?;
        let mut config = config(folder.path(), CLIENTS)?;
        config.destination = Some((ehr.base_url().to_owned(), Some(PathBuf::from(ehr.ca_file()))));
        let file = write_config(&config, folder.path())?;
        for device in &config.devices {
            add_device(&file, &device.id, folder.path()).await?;
        }
        let gateway = GatewayProcess::start(config, folder.path()).await?;
        Ok(Self { gateway, ehr, folder })
    }

    /// The daemon's process id.
    pub(crate) fn pid(&self) -> anyhow::Result<u32> {
        self.gateway.pid().context("the gateway is gone")
    }

    /// Runs a load of single readings; `None` is as fast as acknowledged.
    pub(crate) async fn load(
        &self,
        payload: LoadPayload,
        rate_per_s: Option<f64>,
        in_flight: u16,
        duration: Duration,
    ) -> anyhow::Result<u64> {
        let load = Load {
            address: self.gateway.plain_address().context("no plain listener")?,
            devices: load_devices(CLIENTS, |_| Transport::Plain)?,
            password: None,
            in_flight,
            payload,
            run: run_name().to_string(),
            rate_per_s,
            warm_up: Duration::ZERO,
            duration,
        };
        Ok(load.run().await.context("a load run")?.acknowledged_in_all)
    }

    /// Entries that the EHR has not settled.
    pub(crate) async fn queued(&self) -> anyhow::Result<u64> {
        let status = self.gateway.status().await?;
        status["destinations"][0]["queued"].as_u64().context("no queue in the status")
    }

    /// Waits until the queue is empty, with nothing refused.
    pub(crate) async fn drained(&self, deadline: Duration) -> anyhow::Result<()> {
        wait_until("the queue to be empty", deadline, async || (self.queued().await.ok()? == 0).then_some(())).await?;
        nothing_listed(&self.gateway.status().await?)
    }
}

/// What is listed as a dead letter is out of the queue as well, and was not delivered.
fn nothing_listed(status: &Value) -> anyhow::Result<()> {
    let listed = status["store"]["dead_letters"].as_u64().context("no dead letters in the status")?;
    ensure!(listed == 0, "{listed} entries are dead letters: what was measured is not delivery");
    Ok(())
}

/// All rows of this part.
pub(crate) async fn sustained_and_outage(table: &mut Table, folder: &Path) -> anyhow::Result<()> {
    let bench = Bench::start(folder).await?;
    let pid = bench.pid()?;
    table.figure("idle_rss_mib", "resident, idle", resident_mib(pid)?, "MiB", "");
    forget_peak(pid)?;
    let mut best = 0;
    for rate in RATES {
        let before = cpu_s(pid)?;
        let sent = bench.load(LoadPayload::OneReading(200), Some(rate as f64), 20, TRY).await?;
        let queued = bench.queued().await?;
        let kept_up = sent as f64 >= rate as f64 * TRY.as_secs_f64() * 0.98 && (queued as f64) < rate as f64 * LEFT_S;
        bench.drained(Duration::from_secs(60)).await?;
        let cpu_s_per_1000 = (cpu_s(pid)? - before) / sent as f64 * 1e3;
        if rate == PROMISED_RATE {
            table.figure("cpu_s_per_1000", "CPU for 1,000 readings at 5,000/s", cpu_s_per_1000, "s", "at most 0.3");
        }
        if rate == 1_000 {
            table.figure("cpu_s_per_1000_at_1000", "CPU for 1,000 readings at 1,000/s", cpu_s_per_1000, "s", "");
            table.figure("loaded_rss_mib", "resident at 1,000/s", peak_mib(pid)?, "MiB", "at most 48");
        }
        eprintln!("{rate}/s: sent {sent}, {queued} queued at the end, {}", if kept_up { "kept up" } else { "fell behind" });
        if !kept_up {
            break;
        }
        best = rate;
    }
    table.figure("sustained_readings_per_s", "highest rate that was kept up with", best as f64, "readings/s", "at least 5000");
    drop(bench);
    outage(table, folder).await
}

async fn outage(table: &mut Table, folder: &Path) -> anyhow::Result<()> {
    let bench = Bench::start(folder).await?;
    let pid = bench.pid()?;
    bench.load(LoadPayload::OneReading(200), Some(OUTAGE_RATE), 20, Duration::from_secs(5)).await?;
    forget_peak(pid)?;
    bench.ehr.down().await;
    bench.load(LoadPayload::OneReading(200), Some(OUTAGE_RATE), 20, OUTAGE).await?;
    bench.ehr.up().await?;
    let back = Instant::now();
    bench.drained(Duration::from_secs(90)).await?;
    table.figure("outage_rss_mib", "highest resident through a 30 s outage at 200/s", peak_mib(pid)?, "MiB", "at most 48");
    table.figure("outage_recovered_s", "from the EHR's return to an empty queue", back.elapsed().as_secs_f64(), "s", "");
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A queue that dead letters emptied is no delivery, and neither is one of which the status does not say it.
    #[test]
    fn what_was_refused_is_not_delivered() {
        assert!(nothing_listed(&json!({"store": {"dead_letters": 0}})).is_ok());
        assert!(nothing_listed(&json!({"store": {"dead_letters": 1}})).is_err());
        assert!(nothing_listed(&json!({"store": {}})).is_err());
    }
}
