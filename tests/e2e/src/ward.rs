//! Devices that replay real recordings through the real daemon into an EHR.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use vitalgate_domain::DeviceId;
use vitalgate_simulator::{Acknowledged, ModbusFault, ModbusMonitor, MonitorReport, MqttMonitor, Recording, Replay, ServedSet};
use vitalgate_test_support::gateway::{add_device, write_config};
use vitalgate_test_support::{ConfigText, DeviceLine, Ehr, EhrOptions, GatewayProcess, Oracle, Verdict, wait_until};

/// Longest wait for the queue to drain once the EHR behaves again: how much waits, and how fast the machine is, differ.
const DRAIN_DEADLINE: Duration = Duration::from_secs(600);
/// Nothing arrives any more after this long without a reading that was missing.
const STALL: Duration = Duration::from_secs(90);
/// Time between two polls of a device, in milliseconds.
const POLL_INTERVAL_MS: u64 = 100;
/// Messages that wait between a replay and its monitor.
const REPLAY_QUEUE: usize = 4;

/// What a ward consists of.
#[derive(Clone)]
pub struct WardOptions {
    /// Publishing devices, over TLS with their own certificates.
    pub mqtt_devices: usize,
    /// Polled devices.
    pub modbus_devices: usize,
    /// Longest pause between two messages of a device.
    pub gap_longest: Duration,
    /// Messages of one device that wait for their acknowledgement.
    pub in_flight_max: usize,
    /// The EHR.
    pub ehr: EhrOptions,
    /// More lines for the configuration, by section.
    pub more: Vec<(String, String)>,
    /// Where the state is kept; a folder of its own when absent.
    pub state_dir: Option<PathBuf>,
}

impl Default for WardOptions {
    fn default() -> Self {
        Self {
            mqtt_devices: 4,
            modbus_devices: 0,
            gap_longest: Duration::from_millis(20),
            in_flight_max: 4,
            ehr: EhrOptions::default(),
            more: Vec::new(),
            state_dir: None,
        }
    }
}

/// A running ward.
pub struct Ward {
    /// The daemon.
    pub gateway: GatewayProcess,
    /// The EHR.
    pub ehr: Ehr,
    /// Files of the ward.
    pub folder: TempDir,
    /// What was acknowledged.
    pub oracle: Oracle,
    /// The polled devices.
    modbus: Vec<(DeviceId, ModbusMonitor)>,
    /// Whether every device has all its acknowledgements and no device is polled any more.
    finished: bool,
    acknowledgements: mpsc::UnboundedReceiver<Acknowledged>,
    stop_sources: watch::Sender<bool>,
    stop_monitors: watch::Sender<bool>,
    monitors: Vec<JoinHandle<MonitorReport>>,
}

/// The recordings that devices replay.
///
/// # Errors
/// When the file is missing or damaged.
pub fn recording() -> anyhow::Result<Recording> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/vitals-replay.csv");
    Recording::load(&file).context("the recordings cannot be read")
}

impl Ward {
    /// Starts EHR, gateway and devices; the devices publish at once.
    ///
    /// # Errors
    /// When a part cannot be started.
    pub async fn start(options: WardOptions) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let recording = recording()?;
        let patients: Vec<_> = recording.patients().cloned().collect();
        let ehr = Ehr::start(options.ehr.clone()).await?;
        let mut config = ConfigText::new(folder.path())?;
        config.destination = Some((ehr.base_url().to_owned(), options.ehr.tls.then(|| ehr.ca_file().to_owned())));
        config.more.clone_from(&options.more);
        if let Some(state_dir) = &options.state_dir {
            config.state_dir.clone_from(state_dir);
        }
        let mut modbus = Vec::new();
        for index in 0..options.modbus_devices {
            let sets = recording.sets(&patients[patients.len() - 1 - index % patients.len()]).to_vec();
            let first = ServedSet::marked(sets.first().context("an empty recording")?, 0);
            let monitor = ModbusMonitor::start("127.0.0.1:0".parse()?, 1, first).await?;
            monitor.serve_each((1..).zip(sets.into_iter().cycle()).map(|(counter, set)| ServedSet::marked(&set, counter)));
            config.devices.push(DeviceLine::modbus(
                DeviceId::new(&format!("polled-{index:02}"))?,
                &format!("Patient/m{index}"),
                monitor.address(),
                POLL_INTERVAL_MS,
            ));
            modbus.push((config.devices[index].id.clone(), monitor));
        }
        let devices: Vec<_> =
            (0..options.mqtt_devices).map(|index| DeviceId::new(&format!("monitor-{index:02}"))).collect::<Result<_, _>>()?;
        config.devices.extend(devices.iter().enumerate().map(|(index, id)| DeviceLine::mqtt(id.clone(), &format!("Patient/p{index}"))));

        let config_file = write_config(&config, folder.path())?;
        let mut transports = Vec::new();
        for device in &devices {
            transports.push(add_device(&config_file, device, folder.path()).await?.transport);
        }
        let oracle = Oracle::of(config.namespace()?, &config.devices);
        let gateway = GatewayProcess::start(config, folder.path()).await?;

        let (acknowledge, acknowledgements) = mpsc::unbounded_channel();
        let (stop_sources, sources_stopped) = watch::channel(false);
        let (stop_monitors, monitors_stopped) = watch::channel(false);
        let mut monitors = Vec::new();
        for ((index, device), transport) in devices.into_iter().enumerate().zip(transports) {
            let monitor =
                MqttMonitor { in_flight_max: options.in_flight_max, ..MqttMonitor::new(device, gateway.mqtt_address(), transport) };
            let replay = Replay {
                sets: recording.sets(&patients[index % patients.len()]).to_vec(),
                speed_up: 1e6,
                gap_longest: options.gap_longest,
                endless: true,
            };
            let (source, messages) = mpsc::channel(REPLAY_QUEUE);
            let stopped = sources_stopped.clone();
            tokio::spawn(async move { replay.run(source, stopped).await });
            let (acknowledge, stopped) = (acknowledge.clone(), monitors_stopped.clone());
            monitors.push(tokio::spawn(async move { monitor.run(messages, acknowledge, stopped).await }));
        }
        let finished = false;
        Ok(Self { gateway, ehr, folder, oracle, modbus, finished, acknowledgements, stop_sources, stop_monitors, monitors })
    }

    /// Takes over the acknowledgements that came in; returns how many readings they are in all.
    pub fn note_acknowledgements(&mut self) -> u64 {
        while let Ok(acknowledged) = self.acknowledgements.try_recv() {
            self.oracle.acknowledged(&acknowledged);
        }
        self.oracle.count()
    }

    /// Waits until so many readings more are acknowledged than now.
    ///
    /// # Errors
    /// When that takes longer than the deadline.
    pub async fn wait_acknowledged(&mut self, more: u64, deadline: Duration) -> anyhow::Result<()> {
        let wanted = self.note_acknowledgements() + more;
        wait_until("more acknowledgements", deadline, async || (self.note_acknowledgements() >= wanted).then_some(())).await
    }

    /// Waits until each polled device was read so often.
    ///
    /// # Errors
    /// When that takes longer than the deadline.
    pub async fn wait_polled(&self, times: usize, deadline: Duration) -> anyhow::Result<()> {
        let read = || self.modbus.iter().all(|(_, monitor)| monitor.read_sets().len() >= times);
        wait_until(&format!("{times} polls of each device"), deadline, async || read().then_some(())).await
    }

    /// Lets the devices finish: no new readings; each waits for its last acknowledgements. Polled devices answer no more.
    ///
    /// # Errors
    /// When a device does not get its acknowledgements, or is not polled again, in time.
    pub async fn finish_devices(&mut self, deadline: Duration) -> anyhow::Result<()> {
        self.stop_sources.send_replace(true);
        for monitor in self.monitors.drain(..) {
            let report = tokio::time::timeout(deadline, monitor).await.context("a device still waits for acknowledgements")??;
            anyhow::ensure!(report.left == 0, "a device ended with {} messages unacknowledged", report.left);
        }
        self.note_acknowledgements();
        for (device, monitor) in &self.modbus {
            monitor.misbehave(ModbusFault::Silent);
            let requests = monitor.requests();
            // A poll begins when the one before it is on disk.
            let again = async || (monitor.requests() > requests).then_some(());
            wait_until("the poll after the last", deadline, again).await?;
            self.oracle.polls(device, monitor.read_sets());
        }
        self.finished = true;
        Ok(())
    }

    /// Ends the devices at once, whatever they wait for.
    pub fn abandon_devices(&mut self) {
        self.stop_monitors.send_replace(true);
        self.monitors.clear();
        self.note_acknowledgements();
    }

    /// What has to arrive still: acknowledged readings, and, when the devices have finished, all that waits in the gateway.
    async fn outstanding(&self) -> Option<u64> {
        let missing = self.ehr.missing_of(&self.oracle);
        if !self.finished {
            return Some(missing);
        }
        let status = self.gateway.status().await.ok()?;
        Some(missing + status["destinations"][0]["queued"].as_u64()?)
    }

    /// Waits until every acknowledged reading is in the EHR, then compares both sets. When the devices have finished, nothing
    /// may be there that they did not send, and nothing may have been written a second time with other content.
    ///
    /// # Errors
    /// When they stop arriving; the error carries the comparison and the end of the log.
    pub async fn verdict(&mut self) -> anyhow::Result<Verdict> {
        self.note_acknowledgements();
        let (mut least, mut since) = (u64::MAX, Instant::now());
        let waited = wait_until("every acknowledged reading to be in the EHR", DRAIN_DEADLINE, async || {
            let outstanding = self.outstanding().await.unwrap_or(u64::MAX);
            if outstanding < least {
                (least, since) = (outstanding, Instant::now());
            }
            (outstanding == 0 || since.elapsed() > STALL).then_some(outstanding)
        })
        .await;
        let arrived = waited.and_then(|outstanding| {
            anyhow::ensure!(outstanding == 0, "nothing that is outstanding has arrived for {STALL:?}, and {outstanding} still are");
            Ok(())
        });
        let verdict = self.oracle.compare(&self.ehr.sightings());
        let judged = arrived.and_then(|()| self.nothing_else(&verdict));
        judged.with_context(|| format!("{verdict:?}\n{}", self.gateway.log_end()))?;
        Ok(verdict)
    }

    /// Whether there is nothing in the EHR but what the devices said, and of the polls nothing is missing that no stop of the
    /// gateway explains.
    fn nothing_else(&self, verdict: &Verdict) -> anyhow::Result<()> {
        if !self.finished {
            return Ok(());
        }
        anyhow::ensure!(verdict.unacknowledged_count() == 0, "the EHR holds readings that no device sent");
        let altered = self.ehr.altered();
        anyhow::ensure!(altered.is_empty(), "written again with other content: {altered:?}");
        for (device, polls) in &verdict.polls {
            let stops = self.gateway.stops();
            anyhow::ensure!(polls.cut_off <= stops, "{device}: {polls:?} with {stops} stops of the gateway");
        }
        Ok(())
    }
}
