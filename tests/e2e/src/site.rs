//! A gateway and an EHR whose devices are the test's own affair.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use vitalgate_domain::DeviceId;
use vitalgate_simulator::replay::wall_now;
use vitalgate_simulator::{Acknowledged, ChartedSet, Message, MonitorReport, MqttMonitor, Replay, TimeSeries};
use vitalgate_test_support::gateway::{DeviceCredentials, add_device, write_config};
use vitalgate_test_support::{ConfigText, DeviceLine, Ehr, EhrOptions, GatewayProcess, Oracle, Verdict, wait_until};

use crate::ward::recording;

/// Messages that wait between a replay and its monitor.
const REPLAY_QUEUE: usize = 4;
/// Longest wait for a counter or a log line.
const NOTICE_DEADLINE: Duration = Duration::from_secs(60);

/// Longest wait for everything acknowledged to arrive.
const ARRIVAL_DEADLINE: Duration = Duration::from_secs(90);

/// A running gateway with an EHR.
pub struct Site {
    /// The daemon.
    pub gateway: GatewayProcess,
    /// The EHR.
    pub ehr: Ehr,
    /// Files.
    pub folder: TempDir,
    credentials: BTreeMap<DeviceId, DeviceCredentials>,
}

impl Site {
    /// Starts EHR and gateway; every device without a Modbus address gets its credentials. `configure` has the last
    /// word about the configuration.
    ///
    /// # Errors
    /// When a part cannot be started.
    pub async fn start(devices: Vec<DeviceLine>, configure: impl FnOnce(&mut ConfigText)) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let ehr = Ehr::start(EhrOptions::default()).await?;
        let mut config = ConfigText::new(folder.path())?;
        config.destination = Some((ehr.base_url().to_owned(), Some(ehr.ca_file().to_owned())));
        config.devices = devices;
        configure(&mut config);
        let config_file = write_config(&config, folder.path())?;
        let mut credentials = BTreeMap::new();
        for device in config.devices.iter().filter(|device| device.modbus.is_none()) {
            credentials.insert(device.id.clone(), add_device(&config_file, &device.id, folder.path()).await?);
        }
        let gateway = GatewayProcess::start(config, folder.path()).await?;
        Ok(Self { gateway, ehr, folder, credentials })
    }

    /// An oracle that knows the devices' patients; nothing was acknowledged yet.
    ///
    /// # Errors
    /// When the configuration names no namespace that is one.
    pub fn oracle(&self) -> anyhow::Result<Oracle> {
        let config = self.gateway.config();
        Ok(Oracle::of(config.namespace()?, &config.devices))
    }

    /// The credentials of a device.
    ///
    /// # Errors
    /// When there is no such device.
    pub fn credentials(&self, device: &str) -> anyhow::Result<&DeviceCredentials> {
        self.credentials.get(&DeviceId::new(device)?).with_context(|| format!("{device} is not configured"))
    }

    /// A file of a device's credentials: `certificate.pem`, `key.pem` or `ca.pem`.
    ///
    /// # Errors
    /// When there is no such device.
    pub fn file(&self, device: &str, name: &str) -> anyhow::Result<PathBuf> {
        Ok(self.credentials(device)?.folder.join(name))
    }

    /// A monitor of a device over TLS with its certificate.
    ///
    /// # Errors
    /// When there is no such device.
    pub fn monitor(&self, device: &str) -> anyhow::Result<MqttMonitor> {
        Ok(MqttMonitor::new(DeviceId::new(device)?, self.gateway.mqtt_address(), self.credentials(device)?.transport.clone()))
    }

    /// The present value of a metric, `vitalgate_mqtt_refused_total{reason="oversize"}` for example; 0 while it is not there.
    ///
    /// # Errors
    /// When the console does not answer.
    pub async fn metric(&self, name: &str) -> anyhow::Result<f64> {
        let text = self.gateway.metrics().await?;
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
        Ok(value.unwrap_or(0.0))
    }

    /// How often the endpoint refused something for this reason.
    ///
    /// # Errors
    /// When the console does not answer.
    pub async fn refused(&self, reason: &str) -> anyhow::Result<f64> {
        self.metric(&format!("vitalgate_mqtt_refused_total{{reason={reason:?}}}")).await
    }

    /// Waits until so many refusals for this reason are counted and one of them is logged. The log must be in JSON.
    ///
    /// # Errors
    /// When that takes too long.
    pub async fn wait_refused(&self, reason: &str, at_least: f64) -> anyhow::Result<()> {
        let line = format!("\"reason\":{reason:?}");
        wait_until(&format!("{at_least} refusals for {reason}, in metric and log"), NOTICE_DEADLINE, async || {
            let counted = self.refused(reason).await.ok()?;
            let logged = std::fs::read_to_string(self.gateway.log_file()).ok()?.contains(&line);
            (counted >= at_least && logged).then_some(())
        })
        .await
        .with_context(|| self.gateway.log_end())
    }

    /// Waits until every acknowledged reading is in the EHR of this destination and nothing waits for it any more, then compares both
    /// sets. For devices that have finished: nothing may be there that they did not send, and nothing may have been written a second
    /// time with other content.
    ///
    /// # Errors
    /// When something is missing, doubled, altered or made up; the error carries the comparison and the end of the log.
    pub async fn arrived_once(&self, destination: &str, ehr: &Ehr, oracle: &Oracle) -> anyhow::Result<Verdict> {
        let arrived = wait_until("every acknowledged reading to be in the EHR", ARRIVAL_DEADLINE, async || {
            let status = self.gateway.status().await.ok()?;
            let queued = &status["destinations"].as_array()?.iter().find(|known| known["id"] == destination)?["queued"];
            (*queued == 0 && ehr.missing_of(oracle) == 0).then_some(())
        });
        let arrived = arrived.await;
        let verdict = oracle.compare(&ehr.sightings());
        let judged = arrived.and_then(|()| {
            anyhow::ensure!(verdict.is_exactly_once(), "not everything is there exactly once, as it was sent");
            anyhow::ensure!(verdict.unacknowledged_count() == 0, "the EHR holds readings that no device sent");
            let altered = ehr.altered();
            anyhow::ensure!(altered.is_empty(), "written again with other content: {altered:?}");
            Ok(())
        });
        judged.with_context(|| format!("{verdict}\n{}", self.gateway.log_end()))?;
        Ok(verdict)
    }

    /// The Observations of one device.
    #[must_use]
    pub fn observations(&self, device: &str) -> Vec<Value> {
        let all = self.ehr.observations();
        all.iter().map(vitalgate_test_support::ehr::Kept::json).filter(|one| one["device"]["display"] == device).collect()
    }
}

/// Devices that replay recordings, each at its own pace.
pub struct Publishers {
    acknowledgements: mpsc::UnboundedReceiver<Acknowledged>,
    stop: watch::Sender<bool>,
    stop_monitors: watch::Sender<bool>,
    monitors: Vec<JoinHandle<MonitorReport>>,
}

impl Publishers {
    /// Lets the monitors publish, waiting `gap` between two messages of a device; a gap of zero is a flood.
    ///
    /// # Errors
    /// When the recordings cannot be read.
    pub fn start(monitors: Vec<MqttMonitor>, gap: Duration) -> anyhow::Result<Self> {
        let recording = recording()?;
        let patients: Vec<_> = recording.patients().cloned().collect();
        let (acknowledge, acknowledgements) = mpsc::unbounded_channel();
        let (stop, sources_stopped) = watch::channel(false);
        let (stop_monitors, monitors_stopped) = watch::channel(false);
        let mut running = Vec::new();
        for (index, monitor) in monitors.into_iter().enumerate() {
            let sets = recording.sets(&patients[index % patients.len()]).to_vec();
            let (source, messages) = mpsc::channel(REPLAY_QUEUE);
            let stopped = sources_stopped.clone();
            if gap.is_zero() {
                tokio::spawn(flood(sets, source, stopped));
            } else {
                let replay = Replay { sets, speed_up: 1e-6, gap_longest: gap, endless: true };
                tokio::spawn(async move { replay.run(source, stopped).await });
            }
            let (acknowledge, stopped) = (acknowledge.clone(), monitors_stopped.clone());
            running.push(tokio::spawn(async move { monitor.run(messages, acknowledge, stopped).await }));
        }
        Ok(Self { acknowledgements, stop, stop_monitors, monitors: running })
    }

    /// What was acknowledged since the last call.
    pub fn take(&mut self) -> Vec<Acknowledged> {
        std::iter::from_fn(|| self.acknowledgements.try_recv().ok()).collect()
    }

    /// Waits for so many more acknowledgements and gives them.
    ///
    /// # Errors
    /// When that takes longer than the deadline.
    pub async fn more(&mut self, count: usize, deadline: Duration) -> anyhow::Result<Vec<Acknowledged>> {
        let mut came = Vec::new();
        let waiting = async {
            while came.len() < count {
                came.push(self.acknowledgements.recv().await.context("no device is left")?);
            }
            anyhow::Ok(())
        };
        let waited = tokio::time::timeout(deadline, waiting).await;
        waited.with_context(|| format!("{} of {count} acknowledgements within {deadline:?}", came.len()))??;
        Ok(came)
    }

    /// Lets the devices finish, and gives what was acknowledged since the last call.
    ///
    /// # Errors
    /// When a device does not get its acknowledgements in time.
    pub async fn finish(mut self, deadline: Duration) -> anyhow::Result<Vec<Acknowledged>> {
        self.stop.send_replace(true);
        for monitor in self.monitors.drain(..) {
            let report = tokio::time::timeout(deadline, monitor).await.context("a device still waits for acknowledgements")??;
            anyhow::ensure!(report.left == 0, "a device ended with {} messages unacknowledged", report.left);
        }
        self.stop_monitors.send_replace(true);
        Ok(self.take())
    }
}

/// As many messages as the monitor takes, until told to stop.
async fn flood(sets: Vec<ChartedSet>, monitor: mpsc::Sender<Message>, stop: watch::Receiver<bool>) {
    let mut series = TimeSeries::from(wall_now());
    for (counter, set) in sets.iter().cycle().enumerate() {
        let message = Message::of_set(set, series.at(wall_now()), counter as u64);
        if *stop.borrow() || monitor.send(message).await.is_err() {
            return;
        }
    }
}
