//! A million queued readings: the drain, its memory, and the start with them.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use vitalgate_simulator::load::{load_devices, run_name};
use vitalgate_simulator::{Load, LoadPayload, Transport};
use vitalgate_test_support::wait_until;

use crate::delivery::Bench;
use crate::ingest::follow;
use crate::process::{forget_peak, peak_mib, resident_mib};
use crate::table::Table;

/// Readings in one message while the queue is filled.
const READINGS_PER_MESSAGE: usize = 4;
/// Entries that the buffer may still lack when the drain begins.
const FOLLOWED_NEARLY: u64 = 10_000;
/// Longest drain that is waited for.
const DRAIN_DEADLINE: Duration = Duration::from_secs(300);

/// All rows of this part.
pub(crate) async fn drain_and_start(table: &mut Table, wanted: u64, folder: &Path) -> anyhow::Result<()> {
    let mut bench = Bench::start(folder).await?;
    bench.ehr.down().await;
    let began = Instant::now();
    let mut readings = 0;
    while readings < wanted {
        let messages = bench.load(LoadPayload::Readings(READINGS_PER_MESSAGE), None, 10, Duration::from_secs(2)).await?;
        readings += messages * READINGS_PER_MESSAGE as u64;
    }
    let queued = bench.queued().await?;
    eprintln!("queued {queued} in {:.1} s, resident {:.1} MiB", began.elapsed().as_secs_f64(), resident_mib(bench.pid()?)?);

    bench.gateway.kill9().await?;
    let started = Instant::now();
    bench.gateway.restart().await.context("the start with a full queue")?;
    let address = bench.gateway.plain_address().context("no plain listener")?;
    let one = Load {
        address,
        devices: load_devices(1, |_| Transport::Plain)?,
        password: None,
        in_flight: 1,
        payload: LoadPayload::OneReading(200),
        run: run_name().to_string(),
        rate_per_s: Some(1.0),
        warm_up: Duration::ZERO,
        duration: Duration::from_millis(1),
    };
    // A run that was too short for its one message is none.
    while one.run().await?.acknowledged_in_all == 0 {}
    table.figure("start_with_1m_s", "start to first acknowledgement", started.elapsed().as_secs_f64(), "s", "at most 1");

    let pid = bench.pid()?;
    follow(&bench.gateway, FOLLOWED_NEARLY).await?;
    forget_peak(pid)?;
    let accepted = bench.ehr.observation_count();
    bench.ehr.up().await?;
    let back = Instant::now();
    wait_until("the first delivery", Duration::from_secs(90), async || (bench.ehr.observation_count() > accepted).then_some(())).await?;
    let first = Instant::now();
    bench.drained(DRAIN_DEADLINE).await?;
    let drained_s = first.elapsed().as_secs_f64();
    let taken = bench.ehr.observation_count() - accepted;
    ensure!(taken >= readings, "{readings} readings were queued and the EHR took {taken}");
    table.figure(
        "drain_readings_per_s",
        "queued readings into a null FHIR server over TLS",
        readings as f64 / drained_s,
        "readings/s",
        "at least 20000",
    );
    table.figure("drain_rss_mib", "highest resident during the drain", peak_mib(pid)?, "MiB", "at most 64");
    eprintln!(
        "drained {readings} readings in {drained_s:.1} s, first delivery after {:.1} s; files in {}",
        (first - back).as_secs_f64(),
        bench.folder.path().display()
    );
    Ok(())
}
