//! The ward: twelve MQTT monitors, one polled monitor, and the gateway between them and the EHR.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use vitalgate_domain::DeviceId;
use vitalgate_simulator::recording::ChartedSet;
use vitalgate_simulator::{
    Message, ModbusFault, ModbusMonitor, MqttMonitor, ProtocolVersion, ReadSet, Recording, Replay, ServedSet, Transport,
};
use vitalgate_test_support::gateway::{add_device, write_config};
use vitalgate_test_support::{ConfigText, DeviceLine, GatewayProcess, wait_until};

use crate::ehr::DemoEhr;
use crate::ledger::{Bed, Ledger};

/// Name of the gateway: its devices are unique within it.
pub(crate) const GATEWAY: &str = "demo-gateway";
/// MQTT monitors.
const MONITORS: usize = 12;
/// Messages that a monitor has in flight.
const IN_FLIGHT: usize = 4;
/// Longest pause between two sets of one monitor, so that no bed looks dead.
const GAP_LONGEST: Duration = Duration::from_secs(3);
/// Time between two polls of the polled monitor, in milliseconds.
const POLL_INTERVAL_MS: u64 = 1_000;
/// Longest wait for the poll after the last that is answered.
const LAST_POLL_WITHIN: Duration = Duration::from_secs(15);
/// Number of the polled monitor's first set: by the weight that marks the sets, its patient has some 70 kg.
const FIRST_SET: u32 = 1_920;
/// Modbus exception "device is busy" (Modbus Application Protocol 1.1b3, section 7).
const BUSY: u8 = 6;

/// A bed with what is replayed at it.
struct Place {
    device: DeviceId,
    patient: Arc<str>,
    sets: Vec<ChartedSet>,
    version: Option<ProtocolVersion>,
}

/// A running MQTT monitor and its replay.
struct Playing {
    source: mpsc::Sender<Message>,
    sets: Vec<ChartedSet>,
    replay: Option<JoinHandle<u64>>,
    handed_over: u64,
}

/// The ward.
pub(crate) struct Ward {
    places: Vec<Place>,
    polled: ModbusMonitor,
    polled_device: DeviceId,
    playing: Vec<Playing>,
    speed_up: f64,
    stop: watch::Sender<bool>,
}

impl Ward {
    /// Chooses the patients: those with the most charted sets, the polled one with cuff pressures.
    pub(crate) async fn new(recording: &Recording, speed_up: f64) -> anyhow::Result<Self> {
        let mut patients: Vec<Arc<str>> = recording.patients().cloned().collect();
        patients.sort_by_key(|patient| std::cmp::Reverse(variety(recording.sets(patient))));
        let polled_at = patients.iter().take(MONITORS + 1).position(|patient| has_cuff(recording.sets(patient))).unwrap_or(0);
        let polled_patient = patients.remove(polled_at);
        let mut places = Vec::new();
        for (index, patient) in patients.into_iter().take(MONITORS).enumerate() {
            let version = if index % 2 == 0 { ProtocolVersion::V311 } else { ProtocolVersion::V5 };
            let device = DeviceId::new(&format!("monitor-{:02}", index + 1))?;
            places.push(Place { device, sets: recording.sets(&patient).to_vec(), patient, version: Some(version) });
        }
        let polled_device = DeviceId::new("bedside-modbus-1")?;
        let sets = recording.sets(&polled_patient).to_vec();
        let first = ServedSet::marked(sets.first().context("the polled patient has no recording")?, FIRST_SET);
        let polled = ModbusMonitor::start(SocketAddr::from(([127, 0, 0, 1], 0)), 1, first).await.context("no polled monitor")?;
        // Each set is read once and is like no other, so that the proof can tell each poll.
        polled.serve_each((FIRST_SET + 1..).zip(sets.clone().into_iter().cycle()).map(|(number, set)| ServedSet::marked(&set, number)));
        places.push(Place { device: polled_device.clone(), patient: polled_patient, sets, version: None });
        let (stop, _) = watch::channel(false);
        Ok(Self { places, polled, polled_device, playing: Vec::new(), speed_up, stop })
    }

    pub(crate) fn beds(&self) -> Vec<Bed> {
        let beds = self.places.iter().enumerate().map(|(index, place)| Bed {
            name: format!("Bed {}", index + 1),
            patient: place.patient.to_string(),
            device: place.device.to_string(),
            via: match place.version {
                Some(ProtocolVersion::V311) => "MQTT 3.1.1",
                Some(ProtocolVersion::V5) => "MQTT 5",
                None => "Modbus TCP",
            },
            values: std::collections::BTreeMap::new(),
            arrived: 0,
        });
        beds.collect()
    }

    /// As they are configured, each at its patient.
    pub(crate) fn devices(&self) -> Vec<DeviceLine> {
        let line = |place: &Place| {
            let patient = format!("Patient/{}", place.patient);
            match place.version {
                Some(_) => DeviceLine::mqtt(place.device.clone(), &patient),
                None => DeviceLine::modbus(place.device.clone(), &patient, self.polled.address(), POLL_INTERVAL_MS),
            }
        };
        self.places.iter().map(line).collect()
    }

    pub(crate) fn monitors(&self) -> impl Iterator<Item = &DeviceId> {
        self.places.iter().filter(|place| place.version.is_some()).map(|place| &place.device)
    }

    pub(crate) fn polled_device(&self) -> &DeviceId {
        &self.polled_device
    }

    /// The sets that were read of the polled monitor.
    pub(crate) fn read_sets(&self) -> Vec<ReadSet> {
        self.polled.read_sets()
    }

    /// Tells the EHR its patients, admits the devices and starts the gateway.
    pub(crate) async fn start_gateway(&self, ehr: &DemoEhr, folder: &Path) -> anyhow::Result<(GatewayProcess, Vec<Transport>)> {
        let mut config = ConfigText::new(folder)?;
        GATEWAY.clone_into(&mut config.name);
        config.destination = Some((ehr.url(), ehr.ca_file()));
        for place in &self.places {
            ehr.add_patient(&place.patient).await.context("the EHR did not take a patient")?;
        }
        config.devices = self.devices();
        let config_file = write_config(&config, folder)?;
        let mut transports = Vec::new();
        for place in self.places.iter().filter(|place| place.version.is_some()) {
            let credentials = add_device(&config_file, &place.device, &folder.join("devices")).await?;
            transports.push(credentials.transport);
        }
        Ok((GatewayProcess::start(config, folder).await?, transports))
    }

    /// Switches the monitors on.
    pub(crate) fn switch_on(&mut self, gateway: SocketAddr, transports: Vec<Transport>, ledger: &Arc<Ledger>) {
        let (acknowledged, mut heard) = mpsc::unbounded_channel();
        let listener = ledger.clone();
        tokio::spawn(async move {
            while let Some(message) = heard.recv().await {
                listener.acknowledged(&message);
            }
        });
        let monitors = self.places.iter().filter_map(|place| Some((place, place.version?))).zip(transports);
        for ((place, version), transport) in monitors {
            let mut monitor = MqttMonitor::new(place.device.clone(), gateway, transport);
            monitor.version = version;
            monitor.in_flight_max = IN_FLIGHT;
            let (source, messages) = mpsc::channel(IN_FLIGHT);
            let (acknowledged, never) = (acknowledged.clone(), self.stop.subscribe());
            // The monitor itself stays on while the ward is paused.
            tokio::spawn(async move {
                let (_keep, off) = watch::channel(false);
                drop(never);
                monitor.run(messages, acknowledged, off).await
            });
            self.playing.push(Playing { source, sets: place.sets.clone(), replay: None, handed_over: 0 });
        }
        self.resume();
    }

    /// Lets the recordings run on.
    pub(crate) fn resume(&mut self) {
        self.stop.send_replace(false);
        self.polled.misbehave(ModbusFault::None);
        for playing in &mut self.playing {
            let mut sets = playing.sets.clone();
            let at = playing.handed_over as usize % sets.len().max(1);
            sets.rotate_left(at);
            let replay = Replay { sets, speed_up: self.speed_up, gap_longest: GAP_LONGEST, endless: true };
            let (source, stop) = (playing.source.clone(), self.stop.subscribe());
            playing.replay = Some(tokio::spawn(async move { replay.run(source, stop).await }));
        }
    }

    /// Stops the recordings; returns when nothing more is handed to the monitors and the last poll is on the gateway's disk, with
    /// the number of messages that were handed over since the start.
    pub(crate) async fn pause(&mut self) -> anyhow::Result<u64> {
        self.stop.send_replace(true);
        self.polled.misbehave(ModbusFault::Exception(BUSY));
        let requests = self.polled.requests();
        for playing in &mut self.playing {
            if let Some(replay) = playing.replay.take() {
                playing.handed_over += replay.await.context("a replay broke off")?;
            }
        }
        // A poll begins when the one before it is on disk.
        let again = async || (self.polled.requests() > requests).then_some(());
        wait_until("the poll after the last", LAST_POLL_WITHIN, again).await?;
        Ok(self.playing.iter().map(|playing| playing.handed_over).sum())
    }
}

fn has_cuff(sets: &[ChartedSet]) -> bool {
    let cuffs = sets.iter().flat_map(|set| &set.values).filter(|value| value.metric == vitalgate_domain::Metric::SystolicCuff);
    cuffs.count() * 3 > sets.len()
}

/// Number of different vitals first, then of sets.
fn variety(sets: &[ChartedSet]) -> (usize, usize) {
    let metrics: std::collections::BTreeSet<_> = sets.iter().flat_map(|set| &set.values).map(|value| value.metric).collect();
    (metrics.len(), sets.len())
}
