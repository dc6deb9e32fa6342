//! What stands around the appliance: an EHR over TLS, a polled monitor, a time server, publishing devices.
//!
//! The servers keep their ports and their authority in a folder, since the appliance's site file names
//! them: a machine that was provisioned in an earlier run still finds them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use vitalgate_domain::{DeviceId, DeviceNamespace};
use vitalgate_simulator::replay::wall_now;
use vitalgate_simulator::{
    Acknowledged, Message, ModbusFault, ModbusMonitor, MonitorReport, MqttMonitor, Recording, Replay, ServedSet, Transport,
};
use vitalgate_test_support::{DeviceLine, Ehr, EhrOptions, Oracle, Verdict, free_port, wait_until};
use vitalgate_trust::{ClientProfile, client_config};

use crate::clock_source::ClockSource;
use crate::machine::model::Model;
use crate::machine::patience;

/// The host as the appliance sees it.
pub(crate) const HOST: &str = "10.0.2.2";
/// Name of the gateway: its devices are unique within it.
const GATEWAY: &str = "boot-test-01";
/// Name in the appliance's certificate for devices.
pub(crate) const SERVER_NAME: &str = "gateway.test";
/// Publishing devices.
pub(crate) const PUBLISHERS: [&str; 3] = ["monitor-01", "monitor-02", "monitor-03"];
/// The polled device.
pub(crate) const POLLED: &str = "bedside-01";
/// In the name of every patient of these tests and of nothing else.
pub(crate) const PATIENT_MARK: &str = "patient-4711";
/// Pause between two messages of a device.
const GAP: Duration = Duration::from_millis(400);
/// Messages that wait between a replay and its monitor.
const REPLAY_QUEUE: usize = 4;
/// Longest wait until the EHR has everything.
const DRAIN_WITHIN: Duration = Duration::from_secs(240);

/// Where a site differs from that of most tests.
#[derive(Debug, Clone, Default)]
pub(crate) struct SiteOptions {
    /// Port of a time server that proves who it is, and its authority (PEM), in place of the one without proof.
    pub(crate) nts: Option<(u16, String)>,
    /// When it may restart for an update; always without.
    pub(crate) window: Option<String>,
    /// Port of a server of updates and its authority (PEM).
    pub(crate) update: Option<(u16, String)>,
    /// How many days delivered readings stay.
    pub(crate) retention_days: Option<u32>,
    /// Whether the appliance identifies itself to the EHR.
    pub(crate) client_certificate: bool,
}

/// The servers around the appliance.
pub(crate) struct Practice {
    /// The EHR.
    pub(crate) ehr: Ehr,
    /// The polled device.
    pub(crate) polled: ModbusMonitor,
    clock: ClockSource,
}

fn recording() -> anyhow::Result<Recording> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/vitals-replay.csv");
    Recording::load(&file).context("the recordings cannot be read")
}

impl Practice {
    /// Starts the servers; ports and the EHR's authority are kept in `folder`. With `clients` the EHR lets in only clients
    /// of that authority (PEM).
    ///
    /// # Errors
    /// When one cannot be started.
    pub(crate) async fn open(folder: &Path, clients: Option<String>) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let file = folder.join("ports.json");
        let ports: Value = match std::fs::read(&file) {
            Ok(text) => serde_json::from_slice(&text).context("ports.json is damaged; delete it")?,
            Err(_) => json!({"ehr": free_port()?, "modbus": free_port()?, "clock": free_port()?}),
        };
        std::fs::write(&file, ports.to_string())?;
        let port = |name: &str| ports[name].as_u64().and_then(|port| u16::try_from(port).ok()).context("ports.json is damaged; delete it");
        let names = vec![HOST.to_owned()];
        let options = EhrOptions {
            port: Some(port("ehr")?),
            names,
            folder: Some(folder.to_owned()),
            client_ca_pem: clients,
            ..EhrOptions::default()
        };
        let ehr = Ehr::start(options).await?;
        let recording = recording()?;
        let patient = recording.patients().last().cloned().context("an empty recording")?;
        let sets = recording.sets(&patient).to_vec();
        let first = ServedSet::marked(sets.first().context("an empty recording")?, 0);
        let address = SocketAddr::from(([127, 0, 0, 1], port("modbus")?));
        let polled = ModbusMonitor::start(address, 1, first).await?;
        polled.serve_each((1..).zip(sets.into_iter().cycle()).map(|(counter, set)| ServedSet::marked(&set, counter)));
        let clock = ClockSource::start(port("clock")?).await?;
        Ok(Self { ehr, polled, clock })
    }

    /// Lets the time server say another time, `seconds` from this host's.
    pub(crate) fn shift_clock(&self, seconds: i64) {
        self.clock.shift(seconds);
    }

    /// The text of the site file, before it is signed.
    ///
    /// # Errors
    /// When the EHR's authority cannot be read.
    pub(crate) fn site_text(&self) -> anyhow::Result<String> {
        self.site_text_with(&SiteOptions::default())
    }

    /// The text of another site's file.
    ///
    /// # Errors
    /// When the EHR's authority cannot be read.
    pub(crate) fn site_text_with(&self, options: &SiteOptions) -> anyhow::Result<String> {
        let time = match &options.nts {
            Some((port, ca)) => format!("nts = [\"{HOST}:{port}\"]\nca_pem = \"\"\"\n{ca}\"\"\""),
            None => format!("ntp = [\"{HOST}:{}\"]", self.clock.port()),
        };
        let window = options.window.as_deref().unwrap_or("00:00-23:59");
        let ca = std::fs::read_to_string(self.ehr.ca_file()).context("the EHR's authority cannot be read")?;
        let own = if options.client_certificate { "client_certificate = \"own\"\n" } else { "" };
        let (ehr, modbus) = (self.ehr.address().port(), self.polled.address().port());
        let mut text = format!(
            r#"[site]
name = "Practice of the boot tests"
gateway = "{GATEWAY}"
serial = "any"
expires = "2036-12-31"
technician = "T. Tester"

[[network]]
match = "en*"
dhcp = true

[time]
{time}

[maintenance]
window = "{window}"

[mqtt]
port = 8883
server_names = ["{SERVER_NAME}", "10.0.2.15"]

[[device]]
id = "{POLLED}"
profile = "vitals-modbus"
patient = "{}"
modbus = {{ address = "{HOST}:{modbus}", unit = 1, poll_interval_ms = 2000, response_timeout_ms = 1500 }}

[ehr]
url = "https://{HOST}:{ehr}/fhir"
write = "put"
{own}ca_pem = """
{ca}"""
"#,
            patient_of(POLLED)
        );
        PUBLISHERS.iter().for_each(|device| text.push_str(&device_text(device)));
        if let Some((port, ca)) = &options.update {
            let _ = write!(text, "\n[update]\nserver = \"https://{HOST}:{port}/releases\"\nca_pem = \"\"\"\n{ca}\"\"\"\n");
        }
        text.push_str("\n[storage]\n");
        if let Some(days) = options.retention_days {
            let _ = writeln!(text, "retention_days = {days}");
        }
        if !Model::wanted()?.has_tpm() {
            text.push_str("unsealed_allowed = true\nunsealed_reason = \"the machine of the boot tests has no TPM\"\n");
        }
        Ok(text)
    }

    /// Observations of the polled device.
    pub(crate) fn polled_observations(&self) -> usize {
        self.ehr.sightings().iter().filter(|sighting| sighting.device == POLLED).count()
    }
}

/// The part of a site file that is about one publishing device.
pub(crate) fn device_text(device: &str) -> String {
    format!("\n[[device]]\nid = \"{device}\"\nprofile = \"vitals-json\"\npatient = \"{}\"\n", patient_of(device))
}

fn patient_of(device: &str) -> String {
    format!("Patient/{device}-{PATIENT_MARK}")
}

/// Publishing devices at work.
pub(crate) struct Devices {
    /// What was acknowledged.
    pub(crate) oracle: Oracle,
    acknowledge: mpsc::UnboundedSender<Acknowledged>,
    acknowledgements: mpsc::UnboundedReceiver<Acknowledged>,
    recording: Recording,
    mqtt_port: u16,
    gap_longest: Duration,
    stop_sources: watch::Sender<bool>,
    monitors: BTreeMap<String, JoinHandle<MonitorReport>>,
}

impl Devices {
    /// Lets every device publish, with the credentials that the appliance wrote into `folder/<device>`.
    ///
    /// # Errors
    /// When credentials are missing or no certificates.
    pub(crate) fn start(folder: &Path, mqtt_port: u16) -> anyhow::Result<Self> {
        Self::start_with(folder, mqtt_port, GAP)
    }

    /// The same with another pause between two messages of a device.
    ///
    /// # Errors
    /// When credentials are missing or no certificates.
    pub(crate) fn start_with(folder: &Path, mqtt_port: u16, gap_longest: Duration) -> anyhow::Result<Self> {
        let (acknowledge, acknowledgements) = mpsc::unbounded_channel();
        let (stop_sources, _) = watch::channel(false);
        let lines: Vec<_> = PUBLISHERS
            .iter()
            .chain([&POLLED])
            .map(|device| Ok(DeviceLine::mqtt(DeviceId::new(device)?, &patient_of(device))))
            .collect::<anyhow::Result<_>>()?;
        let (oracle, recording, monitors) = (Oracle::of(DeviceNamespace::new(GATEWAY)?, &lines), recording()?, BTreeMap::new());
        let mut devices = Self { oracle, acknowledge, acknowledgements, recording, mqtt_port, gap_longest, stop_sources, monitors };
        PUBLISHERS.iter().try_for_each(|device| devices.join(device, &folder.join(device)))?;
        Ok(devices)
    }

    /// Lets one more device publish, with the credentials in `folder`.
    ///
    /// # Errors
    /// When credentials are missing or no certificates.
    pub(crate) fn join(&mut self, device: &str, folder: &Path) -> anyhow::Result<()> {
        let transport = transport(folder).with_context(|| format!("credentials of {device}"))?;
        let monitor = MqttMonitor::new(DeviceId::new(device)?, SocketAddr::from(([127, 0, 0, 1], self.mqtt_port)), transport);
        let patients: Vec<_> = self.recording.patients().cloned().collect();
        let patient = patients.get(self.monitors.len() % patients.len().max(1)).context("an empty recording")?;
        let replay = Replay { sets: self.recording.sets(patient).to_vec(), speed_up: 1e6, gap_longest: self.gap_longest, endless: true };
        let (source, messages) = mpsc::channel(REPLAY_QUEUE);
        let stopped = self.stop_sources.subscribe();
        tokio::spawn(async move { replay.run(source, stopped).await });
        let acknowledge = self.acknowledge.clone();
        // Nobody stops it: it ends when its last message is acknowledged.
        let (_, never) = watch::channel(false);
        self.monitors.insert(device.to_owned(), tokio::spawn(async move { monitor.run(messages, acknowledge, never).await }));
        Ok(())
    }

    /// Acknowledged readings so far.
    pub(crate) fn acknowledged(&mut self) -> u64 {
        while let Ok(acknowledged) = self.acknowledgements.try_recv() {
            self.oracle.acknowledged(&acknowledged);
        }
        self.oracle.count()
    }

    /// Waits until so many more readings are acknowledged than now.
    ///
    /// # Errors
    /// When that takes too long.
    pub(crate) async fn more(&mut self, count: u64, within: Duration) -> anyhow::Result<()> {
        let wanted = self.acknowledged() + count;
        let enough = async || (self.acknowledged() >= wanted).then_some(());
        wait_until(&format!("{count} more acknowledged readings"), patience(within), enough).await
    }

    /// Lets the devices finish: no new readings; each waits for its last acknowledgement.
    ///
    /// # Errors
    /// When one does not get it in time.
    pub(crate) async fn finish(&mut self, within: Duration) -> anyhow::Result<()> {
        self.stop_sources.send_replace(true);
        for (device, monitor) in std::mem::take(&mut self.monitors) {
            let report = tokio::time::timeout(patience(within), monitor)
                .await
                .with_context(|| format!("{device} still waits for acknowledgements"))??;
            if report.left > 0 {
                bail!("{device} ended with {} messages unacknowledged", report.left);
            }
        }
        self.acknowledged();
        Ok(())
    }

    /// From here on nothing is read of the polled device, and what was counts: each poll once, value by value. For an appliance
    /// that was commissioned in this practice; another one has polls of an earlier practice to deliver.
    ///
    /// # Errors
    /// When the device's name is none.
    pub(crate) fn count_polls(&mut self, practice: &Practice) -> anyhow::Result<DeviceId> {
        practice.polled.misbehave(ModbusFault::Silent);
        let polled = DeviceId::new(POLLED)?;
        self.oracle.polls(&polled, practice.polled.read_sets());
        Ok(polled)
    }

    /// Waits until every acknowledged reading is in the EHR, then compares. What did not arrive in time is in the verdict.
    pub(crate) async fn verdict(&mut self, practice: &Practice) -> Verdict {
        self.acknowledged();
        let arrived = async || (practice.ehr.missing_of(&self.oracle) == 0).then_some(());
        // What did not arrive in time is counted as lost by the comparison.
        let _ = wait_until("every acknowledged reading in the EHR", patience(DRAIN_WITHIN), arrived).await;
        self.oracle.compare(&practice.ehr.sightings())
    }
}

/// Publishes something that no profile reads, with the credentials in `folder`, and waits until it is acknowledged.
///
/// # Errors
/// When it is not in time.
pub(crate) async fn publish_unreadable(device: &str, folder: &Path, mqtt_port: u16, within: Duration) -> anyhow::Result<()> {
    let monitor = MqttMonitor::new(DeviceId::new(device)?, SocketAddr::from(([127, 0, 0, 1], mqtt_port)), transport(folder)?);
    let (channel, time) = (Arc::from("vitals"), Arc::from(""));
    let message = Message { channel, payload: "nothing that a profile reads".into(), time, time_unix_ms: wall_now(), readings: Vec::new() };
    let (source, messages) = mpsc::channel(1);
    source.send(message).await?;
    drop(source);
    let (acknowledge, _acknowledged) = mpsc::unbounded_channel();
    let (_stop, never) = watch::channel(false);
    let published = tokio::time::timeout(patience(within), monitor.run(messages, acknowledge, never)).await;
    let report = published.with_context(|| format!("{device} still waits for an acknowledgement"))?;
    ensure!(report.acknowledged == 1, "{device} was not acknowledged");
    Ok(())
}

fn transport(folder: &Path) -> anyhow::Result<Transport> {
    let file = |name: &str| -> Option<PathBuf> { Some(folder.join(name)) };
    let profile = ClientProfile { ca_file: file("ca.pem"), certificate_file: file("certificate.pem"), key_file: file("key.pem") };
    Ok(Transport::Tls { config: Arc::new(client_config(&profile)?), server_name: Arc::from(SERVER_NAME) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_site_file_of_these_tests_is_one_that_may_be_signed() {
        let folder = tempfile::tempdir().unwrap();
        let practice = Practice::open(folder.path(), None).await.unwrap();
        let ca = std::fs::read_to_string(practice.ehr.ca_file()).unwrap();
        let other = SiteOptions {
            nts: Some((4460, ca.clone())),
            window: Some("02:00-04:00".into()),
            update: Some((8444, ca)),
            retention_days: Some(0),
            client_certificate: true,
        };
        for options in [SiteOptions::default(), other] {
            let text = practice.site_text_with(&options).unwrap();
            vitalgate_site::SiteFile::check(&text, "site.toml").unwrap();
            assert_eq!(text.matches(PATIENT_MARK).count(), PUBLISHERS.len() + 1);
        }
    }
}
