//! Devices that replay real recordings through the real daemon into an EHR.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use vitalgate_domain::DeviceId;
use vitalgate_simulator::{Acknowledged, ModbusMonitor, MonitorReport, MqttMonitor, Recording, Replay, ServedSet};
use vitalgate_test_support::gateway::{add_device, write_config};
use vitalgate_test_support::{ConfigText, DeviceLine, Ehr, EhrOptions, GatewayProcess, Oracle, Verdict, wait_until};

/// Longest wait for the queue to drain once the EHR behaves again: how much waits, and how fast the machine is, differ.
const DRAIN_DEADLINE: Duration = Duration::from_secs(600);
/// Nothing arrives any more after this long without a reading that was missing.
const STALL: Duration = Duration::from_secs(90);
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
    /// The polled devices.
    pub modbus: Vec<ModbusMonitor>,
    /// Files of the ward.
    pub folder: TempDir,
    /// What was acknowledged.
    pub oracle: Oracle,
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
            let sets = recording.sets(&patients[patients.len() - 1 - index % patients.len()]);
            let first = ServedSet::of_set(sets.first().context("an empty recording")?, 1);
            let monitor = ModbusMonitor::start("127.0.0.1:0".parse()?, 1, first).await?;
            config.devices.push(DeviceLine::modbus(
                DeviceId::new(&format!("polled-{index:02}"))?,
                &format!("Patient/m{index}"),
                monitor.address(),
                100,
            ));
            modbus.push(monitor);
        }
        let devices: Vec<_> =
            (0..options.mqtt_devices).map(|index| DeviceId::new(&format!("monitor-{index:02}"))).collect::<Result<_, _>>()?;
        config.devices.extend(devices.iter().enumerate().map(|(index, id)| DeviceLine::mqtt(id.clone(), &format!("Patient/p{index}"))));

        let config_file = write_config(&config, folder.path())?;
        let mut transports = Vec::new();
        for device in &devices {
            transports.push(add_device(&config_file, device, folder.path()).await?.transport);
        }
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
        Ok(Self { gateway, ehr, modbus, folder, oracle: Oracle::new(), acknowledgements, stop_sources, stop_monitors, monitors })
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

    /// Lets the devices finish: no new readings; each waits for its last acknowledgements.
    ///
    /// # Errors
    /// When a device does not get its acknowledgements in time.
    pub async fn finish_devices(&mut self, deadline: Duration) -> anyhow::Result<()> {
        self.stop_sources.send_replace(true);
        for monitor in self.monitors.drain(..) {
            let report = tokio::time::timeout(deadline, monitor).await.context("a device still waits for acknowledgements")??;
            anyhow::ensure!(report.left == 0, "a device ended with {} messages unacknowledged", report.left);
        }
        self.note_acknowledgements();
        Ok(())
    }

    /// Ends the devices at once, whatever they wait for.
    pub fn abandon_devices(&mut self) {
        self.stop_monitors.send_replace(true);
        self.monitors.clear();
        self.note_acknowledgements();
    }

    /// Waits until every acknowledged reading is in the EHR, then compares both sets.
    ///
    /// # Errors
    /// When they stop arriving; the error carries the comparison and the end of the log.
    pub async fn verdict(&mut self) -> anyhow::Result<Verdict> {
        self.note_acknowledgements();
        let (mut least, mut since) = (u64::MAX, Instant::now());
        let waited = wait_until("every acknowledged reading to be in the EHR", DRAIN_DEADLINE, async || {
            let missing = self.ehr.missing_of(&self.oracle);
            if missing < least {
                (least, since) = (missing, Instant::now());
            }
            (missing == 0 || since.elapsed() > STALL).then_some(missing)
        })
        .await;
        let arrived = waited.and_then(|missing| {
            anyhow::ensure!(missing == 0, "no reading that is missing has arrived for {STALL:?}, and {missing} still are");
            Ok(())
        });
        let verdict = self.oracle.compare(&self.ehr.sightings());
        arrived.with_context(|| format!("{verdict:?}\n{}", self.gateway.log_end()))?;
        Ok(verdict)
    }
}
