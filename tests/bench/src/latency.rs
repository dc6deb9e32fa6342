//! From a device's publish to the moment the EHR has it, over TLS on both sides.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use tokio::sync::{mpsc, watch};
use vitalgate_domain::UnixMs;
use vitalgate_simulator::message::{Message, TimeSeries};
use vitalgate_simulator::replay::wall_now;
use vitalgate_simulator::{ChartedSet, ChartedValue, MqttMonitor};
use vitalgate_test_support::gateway::{add_device, write_config};
use vitalgate_test_support::{Ehr, EhrOptions, GatewayProcess, wait_until};

use crate::ingest::config;
use crate::table::Table;

/// Devices that the rate is spread over.
const DEVICES: usize = 20;

/// p50 and p99 at each rate.
pub(crate) async fn device_to_ehr(table: &mut Table, folder: &Path) -> anyhow::Result<()> {
    for (rate_per_s, seconds) in [(1_u64, 20_u64), (100, 10), (1_000, 10)] {
        let mut waited = at_rate(rate_per_s, seconds, folder).await?;
        waited.sort();
        let part = |share: f64| waited.get(((waited.len() - 1) as f64 * share) as usize).map_or(0.0, |waited| waited.as_secs_f64() * 1e3);
        let (aim50, aim99) = if rate_per_s == 100 { ("at most 10", "at most 50") } else { ("", "") };
        table.figure(&format!("e2e_{rate_per_s}_p50_ms"), "device publish to EHR", part(0.5), "ms", aim50);
        table.figure(&format!("e2e_{rate_per_s}_p99_ms"), "device publish to EHR", part(0.99), "ms", aim99);
    }
    Ok(())
}

async fn at_rate(rate_per_s: u64, seconds: u64, folder: &Path) -> anyhow::Result<Vec<Duration>> {
    let folder = tempfile::tempdir_in(folder)?;
    let ehr = Ehr::start(EhrOptions::default()).await?;
    let mut config = config(folder.path(), DEVICES)?;
    config.destination = Some((ehr.base_url().to_owned(), Some(ehr.ca_file().to_owned())));
    let file = write_config(&config, folder.path())?;
    let devices: Vec<_> = config.devices.iter().map(|device| device.id.clone()).collect();
    let gateway = GatewayProcess::start(config, folder.path()).await?;
    let (acknowledge, _acknowledged) = mpsc::unbounded_channel();
    let (_stop, stopped) = watch::channel(false);
    let mut sources = Vec::new();
    for device in devices {
        let transport = add_device(&file, &device, folder.path()).await?.transport;
        let monitor = MqttMonitor { in_flight_max: 20, ..MqttMonitor::new(device, gateway.mqtt_address(), transport) };
        let (source, messages) = mpsc::channel(64);
        let (acknowledge, stopped) = (acknowledge.clone(), stopped.clone());
        tokio::spawn(async move { monitor.run(messages, acknowledge, stopped).await });
        sources.push(source);
    }
    // One reading each, so that the connections stand before the clock runs.
    let mut series = TimeSeries::from(wall_now());
    for source in &sources {
        source.send(one_reading(series.at(wall_now()))).await?;
    }
    wait_until("every device's first reading", Duration::from_secs(30), async || {
        (ehr.observation_count() as usize >= DEVICES).then_some(())
    })
    .await?;

    let mut published = HashMap::new();
    let mut tick = tokio::time::interval(Duration::from_secs_f64(1.0 / rate_per_s as f64));
    for index in 0..rate_per_s * seconds {
        tick.tick().await;
        let moment = series.at(wall_now());
        published.insert(moment, Instant::now());
        sources.get(index as usize % DEVICES).context("no source")?.send(one_reading(moment)).await?;
    }
    let all = published.len() + DEVICES;
    wait_until("every reading", Duration::from_secs(30), async || (ehr.observation_count() as usize >= all).then_some(())).await?;
    let arrived = ehr.observations().into_iter().filter_map(|kept| {
        let moment = UnixMs::parse_rfc3339(kept.json()["effectiveDateTime"].as_str()?)?;
        Some((moment, kept.arrived))
    });
    waits(published, arrived)
}

/// How long each reading was on its way; both are told by their moment. A reading that did not arrive has no time to be told, and
/// leaving it out would make the figure a better one.
fn waits(mut published: HashMap<UnixMs, Instant>, arrived: impl Iterator<Item = (UnixMs, Instant)>) -> anyhow::Result<Vec<Duration>> {
    let all = published.len();
    let waited: Vec<_> =
        arrived.filter_map(|(moment, arrived)| Some(arrived.saturating_duration_since(published.remove(&moment)?))).collect();
    ensure!(published.is_empty() && all > 0, "{} of {all} readings are not in the EHR with the moment that was sent", published.len());
    Ok(waited)
}

fn one_reading(moment: UnixMs) -> Message {
    let value = ChartedValue { metric: vitalgate_domain::Metric::HeartRate, value: "72".into(), unit: "/min".into() };
    Message::of_set(&ChartedSet { offset_s: 0, values: vec![value] }, moment, moment.0.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A figure is of every reading that was published: none that is missing, or has another moment, makes it a better one.
    #[test]
    fn a_reading_that_did_not_arrive_is_no_figure() {
        let began = Instant::now();
        let at = |ms: i64| began + Duration::from_millis(ms.unsigned_abs());
        let published = || HashMap::from([(UnixMs(1), at(1)), (UnixMs(2), at(2))]);
        // The first of a connection is none of those that are timed.
        let (first, one, two) = ((UnixMs(0), at(3)), (UnixMs(1), at(4)), (UnixMs(2), at(9)));
        let waited = waits(published(), [first, one, two].into_iter()).unwrap();
        assert_eq!(waited, [Duration::from_millis(3), Duration::from_millis(7)]);
        let another_moment = (UnixMs(3), at(9));
        for arrived in [vec![first, one, one], vec![one, another_moment], vec![]] {
            assert!(waits(published(), arrived.into_iter()).is_err());
        }
        assert!(waits(HashMap::new(), [first].into_iter()).is_err(), "nothing was published");
    }
}
