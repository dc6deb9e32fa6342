//! The real `vitalgate` daemon as a process, with its configuration.

use std::fmt::Write as _;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use vitalgate_domain::{DeviceId, DeviceNamespace};
use vitalgate_simulator::Transport;
use vitalgate_trust::{ClientProfile, client_config};

use crate::http::{get, get_json};
use crate::wait::{free_port, wait_until};

/// Longest wait for the daemon to be ready: an unoptimised build on a machine that does much else. How fast it starts is for
/// the benchmark to say.
const READY_WITHIN: Duration = Duration::from_secs(180);
/// Longest wait for the daemon to end after SIGTERM.
const END_WITHIN: Duration = Duration::from_secs(30);
/// Name in the gateway's certificate that test devices expect.
const SERVER_NAME: &str = "localhost";

/// A device of the configuration.
#[derive(Debug, Clone)]
pub struct DeviceLine {
    /// Its id.
    pub id: DeviceId,
    /// Its profile.
    pub profile: String,
    /// `Patient/x`; unassigned without.
    pub patient: Option<String>,
    /// Since when, in RFC 3339; since ever without.
    pub patient_since: Option<String>,
    /// Where it is polled, its unit and the interval in milliseconds; an MQTT device without.
    pub modbus: Option<(SocketAddr, u8, u64)>,
}

impl DeviceLine {
    /// An MQTT device with the profile `vitals-json`.
    #[must_use]
    pub fn mqtt(id: DeviceId, patient: &str) -> Self {
        Self { id, profile: "vitals-json".to_owned(), patient: Some(patient.to_owned()), patient_since: None, modbus: None }
    }

    /// A polled device with the profile `vitals-modbus`, unit 1.
    #[must_use]
    pub fn modbus(id: DeviceId, patient: &str, address: SocketAddr, poll_interval_ms: u64) -> Self {
        let modbus = Some((address, 1, poll_interval_ms));
        Self { id, profile: "vitals-modbus".to_owned(), patient: Some(patient.to_owned()), patient_since: None, modbus }
    }
}

/// A configuration to write.
#[derive(Debug, Clone)]
pub struct ConfigText {
    /// Name of the gateway.
    pub name: String,
    /// What the devices' ids are unique within; the gateway's name without.
    pub device_namespace: Option<String>,
    /// Folder of the state; made by the daemon.
    pub state_dir: PathBuf,
    /// Whether devices may connect at all.
    pub mqtt: bool,
    /// Port of the TLS listener on loopback.
    pub mqtt_port: u16,
    /// Port of the plain listener on loopback.
    pub plain_port: Option<u16>,
    /// `required` or `optional`.
    pub client_certificate: String,
    /// Port of the console on loopback.
    pub console_port: u16,
    /// The devices.
    pub devices: Vec<DeviceLine>,
    /// FHIR base URL and the file of its authority; no destination without.
    pub destination: Option<(String, Option<PathBuf>)>,
    /// More lines for a section, `("destination", "write = \"put\"")` for example.
    pub more: Vec<(String, String)>,
    /// The folder that the daemon is started with as systemd's folder of credentials; none without.
    pub credentials_dir: Option<PathBuf>,
}

impl ConfigText {
    /// A gateway below `folder` on free ports, TLS with client certificates, no devices yet.
    ///
    /// # Errors
    /// When no port is free.
    pub fn new(folder: &Path) -> anyhow::Result<Self> {
        Ok(Self {
            name: "gateway-01".to_owned(),
            device_namespace: None,
            state_dir: folder.join("state"),
            mqtt: true,
            mqtt_port: free_port()?,
            plain_port: None,
            client_certificate: "required".to_owned(),
            console_port: free_port()?,
            devices: Vec::new(),
            destination: None,
            more: Vec::new(),
            credentials_dir: None,
        })
    }

    /// What the devices' ids are unique within.
    ///
    /// # Errors
    /// When it is no name.
    pub fn namespace(&self) -> anyhow::Result<DeviceNamespace> {
        Ok(DeviceNamespace::new(self.device_namespace.as_ref().unwrap_or(&self.name))?)
    }

    fn more(&self, section: &str) -> String {
        self.more.iter().filter(|(name, _)| name == section).map(|(_, line)| format!("{line}\n")).collect()
    }

    fn mqtt_toml(&self) -> String {
        let mut text = format!("[mqtt]\nlisten = \"127.0.0.1:{}\"\nserver_names = [{SERVER_NAME:?}, \"127.0.0.1\"]\n", self.mqtt_port);
        let _ = writeln!(text, "client_certificate = {:?}", self.client_certificate);
        if let Some(port) = self.plain_port {
            let _ = writeln!(text, "plain_listen = \"127.0.0.1:{port}\"");
        }
        text + &self.more("mqtt") + "\n"
    }

    /// The text in TOML.
    #[must_use]
    pub fn toml(&self) -> String {
        // Debug form of a str is a valid TOML basic string for the plain texts used here.
        let mut text = format!("[gateway]\nname = {:?}\nstate_dir = {:?}\n{}", self.name, self.state_dir, self.more("gateway"));
        if let Some(namespace) = &self.device_namespace {
            let _ = writeln!(text, "device_namespace = {namespace:?}");
        }
        let _ = writeln!(text, "\n[store]\n{}", self.more("store"));
        if self.mqtt {
            text.push_str(&self.mqtt_toml());
        }
        let _ = writeln!(text, "[console]\nlisten = \"127.0.0.1:{}\"\n{}", self.console_port, self.more("console"));
        let _ = writeln!(text, "[log]\n{}", self.more("log"));
        for device in &self.devices {
            let _ = writeln!(text, "[[device]]\nid = {:?}\nprofile = {:?}", device.id.as_str(), device.profile);
            if let Some(patient) = &device.patient {
                let _ = writeln!(text, "patient = {patient:?}");
            }
            if let Some(since) = &device.patient_since {
                let _ = writeln!(text, "patient_since = {since:?}");
            }
            if let Some((address, unit, interval)) = device.modbus {
                let _ = writeln!(text, "modbus = {{ address = \"{address}\", unit = {unit}, poll_interval_ms = {interval} }}");
            }
            text.push('\n');
        }
        if let Some((url, ca_file)) = &self.destination {
            let _ = writeln!(text, "[[destination]]\nid = \"ehr\"\nkind = \"fhir\"\nurl = {url:?}");
            if let Some(ca_file) = ca_file {
                let _ = writeln!(text, "ca_file = {ca_file:?}");
            }
            text.push_str(&self.more("destination"));
        }
        text
    }
}

/// The `vitalgate` binary: `$VITALGATE_BIN`, or the one beside the running test's folder.
///
/// # Errors
/// When it is in neither place.
pub fn binary() -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os("VITALGATE_BIN") {
        return Ok(PathBuf::from(path));
    }
    let here = std::env::current_exe().context("the own executable is not known")?;
    let found = here.ancestors().skip(1).take(3).map(|folder| folder.join("vitalgate")).find(|path| path.is_file());
    found.context("no vitalgate binary; build it first (cargo build -p vitalgate-daemon) or set VITALGATE_BIN")
}

/// A running daemon. It is killed when this is dropped.
pub struct GatewayProcess {
    child: Child,
    config: ConfigText,
    config_file: PathBuf,
    log_file: PathBuf,
    stops: u64,
}

/// Writes the configuration to `folder/vitalgate.toml`.
///
/// # Errors
/// When the file cannot be written.
pub fn write_config(config: &ConfigText, folder: &Path) -> anyhow::Result<PathBuf> {
    let path = folder.join("vitalgate.toml");
    std::fs::write(&path, config.toml()).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// Runs `vitalgate --config FILE ARGUMENTS` to its end.
///
/// # Errors
/// When it cannot be started or ends with a failure; the error carries what it printed.
pub async fn command(config_file: &Path, arguments: &[&str]) -> anyhow::Result<String> {
    let output =
        Command::new(binary()?).arg("--config").arg(config_file).args(arguments).output().await.context("vitalgate cannot be started")?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!("vitalgate {arguments:?}: {}\n{printed}{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(printed)
}

/// What a device needs to be let in.
#[derive(Clone)]
pub struct DeviceCredentials {
    /// TLS with the device's certificate.
    pub transport: Transport,
    /// TLS without a certificate, for a device that brings its password.
    pub transport_without_certificate: Transport,
    /// The password for the user name that equals the device id.
    pub password: String,
    /// Folder of `certificate.pem`, `key.pem` and `ca.pem`.
    pub folder: PathBuf,
}

/// Admits a device and makes its transport; the files go to `folder/<device>`.
///
/// # Errors
/// When the daemon's command fails or its files are no certificates.
pub async fn add_device(config_file: &Path, device: &DeviceId, folder: &Path) -> anyhow::Result<DeviceCredentials> {
    let folder = folder.join(device.as_str());
    let output = folder.to_str().context("the folder's name is not UTF-8")?;
    let printed = command(config_file, &["device", "add", device.as_str(), "--output-dir", output]).await?;
    let password = printed.lines().find_map(|line| line.trim().strip_prefix("password")).map(|rest| rest.trim().to_owned());
    let ca_file = Some(folder.join("ca.pem"));
    let own = ClientProfile {
        ca_file: ca_file.clone(),
        certificate_file: Some(folder.join("certificate.pem")),
        key_file: Some(folder.join("key.pem")),
    };
    let without = ClientProfile { ca_file, certificate_file: None, key_file: None };
    let transport = |profile| -> anyhow::Result<Transport> {
        Ok(Transport::Tls { config: Arc::new(client_config(profile)?), server_name: Arc::from(SERVER_NAME) })
    };
    Ok(DeviceCredentials {
        transport: transport(&own)?,
        transport_without_certificate: transport(&without)?,
        password: password.unwrap_or_default(),
        folder,
    })
}

impl GatewayProcess {
    /// Writes the configuration below `folder`, starts the daemon and waits until it is ready.
    ///
    /// # Errors
    /// When it cannot be started or is not ready in time; the error carries the end of its log.
    pub async fn start(config: ConfigText, folder: &Path) -> anyhow::Result<Self> {
        let mut gateway = Self::spawn(config, folder)?;
        gateway.wait_ready(READY_WITHIN).await?;
        Ok(gateway)
    }

    /// Starts the daemon and does not wait.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(config: ConfigText, folder: &Path) -> anyhow::Result<Self> {
        let config_file = write_config(&config, folder)?;
        let log_file = folder.join("vitalgate.log");
        let child = launch(&config, &config_file, &log_file)?;
        Ok(Self { child, config, config_file, log_file, stops: 0 })
    }

    /// Starts the daemon again with the same configuration and waits until it is ready.
    ///
    /// # Errors
    /// As [`GatewayProcess::start`].
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.child = launch(&self.config, &self.config_file, &self.log_file)?;
        self.wait_ready(READY_WITHIN).await
    }

    /// Changes the configuration's file; it counts from the next start on.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn configure(&mut self, change: impl FnOnce(&mut ConfigText)) -> anyhow::Result<()> {
        change(&mut self.config);
        std::fs::write(&self.config_file, self.config.toml()).with_context(|| format!("cannot write {}", self.config_file.display()))
    }

    /// Waits until the console says that readings are taken.
    ///
    /// # Errors
    /// When it ended or is not ready in time; the error carries the end of its log.
    pub async fn wait_ready(&mut self, deadline: Duration) -> anyhow::Result<()> {
        let console = SocketAddr::from(([127, 0, 0, 1], self.config.console_port));
        let child = &mut self.child;
        let ready = wait_until("the gateway to be ready", deadline, async || {
            if let Ok(Some(status)) = child.try_wait() {
                return Some(Err(status));
            }
            // A gateway whose disk is full is up as well: it serves, and refuses readings.
            let status = get_json(console, "/status").await.ok()?;
            let health = &status["health"];
            (health["ready"] == true || health["state"] == "STORE-FULL").then_some(Ok(()))
        })
        .await;
        match ready {
            Ok(Ok(())) => Ok(()),
            Ok(Err(status)) => bail!("the gateway ended ({status}):\n{}", self.log_end()),
            Err(error) => Err(error.context(self.log_end())),
        }
    }

    /// Its configuration.
    #[must_use]
    pub fn config(&self) -> &ConfigText {
        &self.config
    }

    /// The configuration's file.
    #[must_use]
    pub fn config_file(&self) -> &Path {
        &self.config_file
    }

    /// The file that gets standard output and error of every start.
    #[must_use]
    pub fn log_file(&self) -> &Path {
        &self.log_file
    }

    /// The last lines of the log.
    #[must_use]
    pub fn log_end(&self) -> String {
        let text = std::fs::read(&self.log_file).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// Where MQTT over TLS is taken.
    #[must_use]
    pub fn mqtt_address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.config.mqtt_port))
    }

    /// Where plain MQTT is taken, if it is.
    #[must_use]
    pub fn plain_address(&self) -> Option<SocketAddr> {
        self.config.plain_port.map(|port| SocketAddr::from(([127, 0, 0, 1], port)))
    }

    /// What `/status` of the console says.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn status(&self) -> anyhow::Result<serde_json::Value> {
        get_json(SocketAddr::from(([127, 0, 0, 1], self.config.console_port)), "/status").await
    }

    /// The text of `/metrics`.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn metrics(&self) -> anyhow::Result<String> {
        get(SocketAddr::from(([127, 0, 0, 1], self.config.console_port)), "/metrics").await
    }

    /// The process id while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        self.child.try_wait().context("the gateway cannot be asked for")
    }

    /// How often it was killed or asked to end.
    #[must_use]
    pub fn stops(&self) -> u64 {
        self.stops
    }

    /// Kills it with SIGKILL, as a power cut of the process, and waits until it is gone.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub async fn kill9(&mut self) -> anyhow::Result<()> {
        self.stops += 1;
        self.child.kill().await.context("the gateway could not be killed")
    }

    /// Asks it to end with SIGTERM and waits for that.
    ///
    /// # Errors
    /// When it does not end in time.
    pub async fn terminate(&mut self) -> anyhow::Result<ExitStatus> {
        self.stops += 1;
        if let Some(pid) = self.child.id() {
            kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGTERM).context("no SIGTERM")?;
        }
        tokio::time::timeout(END_WITHIN, self.child.wait())
            .await
            .context("the gateway did not end after SIGTERM")?
            .context("no exit status")
    }
}

fn launch(config: &ConfigText, config_file: &Path, log_file: &Path) -> anyhow::Result<Child> {
    let log = File::options().create(true).append(true).open(log_file).context("no log file for the gateway")?;
    Command::new(binary()?)
        .envs(config.credentials_dir.iter().map(|folder| ("CREDENTIALS_DIRECTORY", folder)))
        .arg("--config")
        .arg(config_file)
        .arg("run")
        .stdin(Stdio::null())
        .stdout(log.try_clone().context("no log file for the gateway")?)
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .context("vitalgate cannot be started")
}
