//! The checked configuration. Only [`crate::check`] makes one.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vitalgate_domain::{Association, DestinationId, DeviceId, DeviceNamespace, GatewayId, PatientReference, UnixMs};

use crate::error::ConfigError;
use crate::load::{self, ProfileLookup};

/// Said of a configuration that names no destination.
pub const NO_DESTINATION: &str = "no destination is configured: nothing will be delivered";

/// A configuration in which everything fits together.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// The file it came from, as it was named.
    pub file: String,
    /// `[gateway]`
    pub gateway: Gateway,
    /// `[store]`
    pub store: Store,
    /// `[mqtt]`; without the section nothing listens for devices.
    pub mqtt: Option<Mqtt>,
    /// `[profiles]`
    pub profiles: Profiles,
    /// `[[device]]`, in the order of the file; ids are unique.
    pub devices: Vec<Device>,
    /// `[[destination]]`, in the order of the file; ids are unique.
    pub destinations: Vec<Destination>,
    /// `[console]`
    pub console: Console,
    /// `[log]`
    pub log: Log,
}

/// The sections that say where a gateway is to be asked and where it keeps what it has: enough for whoever asks a gateway that runs,
/// or looks at what one left, also where the rest of the file has been spoilt since.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Places {
    /// `[gateway]`
    pub gateway: Gateway,
    /// `[store]`
    pub store: Store,
    /// `[console]`
    pub console: Console,
}

impl Places {
    /// Reads and checks these sections of a file of at most 1 MiB. No file that it names is opened.
    ///
    /// # Errors
    /// What is wrong with them, by line, or that the file is no TOML.
    pub fn load(path: &Path) -> Result<Self, Vec<ConfigError>> {
        load::load_places(path)
    }
}

/// `[gateway]`
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Gateway {
    /// The gateway's name.
    pub name: GatewayId,
    /// What the ids of its devices are unique within: its own name unless several gateways share devices.
    pub device_namespace: DeviceNamespace,
    /// Where everything is kept that must survive.
    pub state_dir: PathBuf,
    /// The file in which a time service says how far the clock may be trusted; it need not exist.
    pub clock_trust_file: PathBuf,
    /// Whether the file is named: a time service will write it, and until then the clock is unset.
    pub clock_trust_promised: bool,
}

/// `[store]`
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Store {
    /// Below this much free space nothing is acknowledged, in MiB.
    pub free_space_floor_mib: u64,
    /// How long delivered readings are kept, in days.
    pub retention_days: u64,
    /// The systemd credential that holds the key-encryption key; without one it is a file in `state_dir`.
    pub key_credential: Option<String>,
    /// Destinations that the file no longer names and whose waiting entries are given up.
    pub given_up: Vec<DestinationId>,
}

/// Whether a device must show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientCertificate {
    /// Without one there is no connection.
    Required,
    /// Without one the device gives its password.
    Optional,
}

/// `[mqtt]`
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Mqtt {
    /// Where TLS connections are taken.
    pub listen: SocketAddr,
    /// DNS names and IP addresses in the server certificate.
    pub server_names: Vec<String>,
    /// Whether a device must show a certificate.
    pub client_certificate: ClientCertificate,
    /// Where connections without TLS are taken.
    pub plain_listen: Option<SocketAddr>,
    /// Whether `plain_listen` may be reached from other machines; shown as a warning on the status page.
    pub allow_plain_beyond_loopback: bool,
    /// Most connections at one time.
    pub connections_max: u64,
    /// Most messages per second and device.
    pub messages_per_second_max: u64,
    /// Largest packet in bytes.
    pub packet_bytes_max: u64,
}

/// `[profiles]`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Profiles {
    /// A folder of further profiles.
    pub dir: Option<PathBuf>,
}

/// `[[device]]`
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Device {
    /// The device's id.
    pub id: DeviceId,
    /// The id of its profile.
    pub profile: String,
    /// How its readings come.
    pub source: DeviceSource,
    /// The patient that it is attached to; without one its readings are held as unassigned.
    pub patient: Option<PatientReference>,
    /// From when on it was attached to that patient, inclusive; since ever when it is not said.
    pub patient_since: Option<UnixMs>,
    /// The line of the file on which the device begins.
    pub line: u32,
}

/// How a device's readings come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceSource {
    /// It publishes to our MQTT endpoint.
    Mqtt,
    /// We poll it by Modbus TCP.
    Modbus(ModbusDevice),
}

/// `modbus = { .. }`
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ModbusDevice {
    /// `host:port`, written alike wherever it is the same.
    pub address: String,
    /// The unit identifier.
    pub unit: u8,
    /// Time from one poll to the next, in milliseconds.
    pub poll_interval_ms: u64,
    /// How long an answer is waited for, in milliseconds.
    pub response_timeout_ms: u64,
}

/// `[[destination]]`
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Destination {
    /// The destination's id.
    pub id: DestinationId,
    /// What it is.
    pub kind: DestinationKind,
    /// The line of the file on which the destination begins.
    pub line: u32,
}

/// What a destination is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum DestinationKind {
    /// A FHIR R4 server.
    Fhir(Fhir),
}

/// How readings are written to a FHIR server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteMode {
    /// Ask the server's `/metadata`.
    Auto,
    /// `PUT` by id.
    Put,
    /// Conditional create.
    Conditional,
}

/// `kind = "fhir"`
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fhir {
    /// Base URL as it was entered.
    pub url: String,
    /// The only authorities that the server's certificate may come from.
    pub ca_file: Option<PathBuf>,
    /// Our certificate.
    pub client_certificate_file: Option<PathBuf>,
    /// Its key.
    pub client_key_file: Option<PathBuf>,
    /// The systemd credential that holds its key, in place of a file.
    pub client_key_credential: Option<String>,
    /// A file with a bearer token; read again when it changes.
    pub bearer_token_file: Option<PathBuf>,
    /// Whether and why the server may be spoken to without TLS beyond this machine.
    pub plain_reason: Option<String>,
    /// How readings are written.
    pub write: WriteMode,
    /// Most readings in one request.
    pub batch_items_max: u64,
    /// Largest request in bytes.
    pub batch_bytes_max: u64,
    /// Most requests under way at one time, each for another patient.
    pub requests_in_flight_max: u64,
    /// How long an answer is waited for, in milliseconds.
    pub request_timeout_ms: u64,
    /// How long the parts of a blood pressure are waited for, in milliseconds.
    pub join_window_ms: u64,
}

/// `[console]`
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Console {
    /// Where health and metrics are served; loopback only.
    pub listen: SocketAddr,
    /// The socket that the command line speaks to.
    pub admin_socket: PathBuf,
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Human,
    /// One JSON object per line.
    Json,
}

/// The least important lines that are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl LogLevel {
    /// As the logging library calls it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Log {
    /// The form of log lines.
    pub format: LogFormat,
    /// The least important lines that are written.
    pub level: LogLevel,
}

impl Config {
    /// Reads and checks a file of at most 1 MiB. Profile ids are taken as they are; see
    /// [`Config::load_with_profiles`].
    ///
    /// # Errors
    /// Everything that is wrong with it, by line.
    pub fn load(path: &Path) -> Result<Self, Vec<ConfigError>> {
        load::load(path, None)
    }

    /// Like [`Config::load`], and every device's profile must exist and fit how the device is reached.
    ///
    /// # Errors
    /// Everything that is wrong with it, by line.
    pub fn load_with_profiles(path: &Path, profiles: ProfileLookup<'_>) -> Result<Self, Vec<ConfigError>> {
        load::load(path, Some(profiles))
    }

    /// The devices' patients as associations from their `patient_since` on, without an end, confirmed by the configuration file.
    #[must_use]
    pub fn associations(&self) -> Vec<Association> {
        let name = Path::new(&self.file).file_name().map_or_else(|| self.file.clone(), |name| name.to_string_lossy().into_owned());
        let confirmed_by: Arc<str> = Arc::from(name);
        let of = |device: &Device| {
            Some(Association {
                device: device.id.clone(),
                patient: device.patient.clone()?,
                from: device.patient_since,
                until: None,
                confirmed_by: Arc::clone(&confirmed_by),
            })
        };
        self.devices.iter().filter_map(of).collect()
    }

    /// One device by its id.
    #[must_use]
    pub fn device(&self, id: &DeviceId) -> Option<&Device> {
        self.devices.iter().find(|device| device.id == *id)
    }

    /// What is allowed and may still not be meant: nothing to collect or to deliver, and whatever is reachable or sent without TLS
    /// beyond this machine.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.destinations.is_empty() {
            warnings.push(NO_DESTINATION.to_owned());
        }
        if self.devices.is_empty() {
            warnings.push("no device is configured: nothing will be collected".to_owned());
        }
        if let Some((address, true)) = self.mqtt.as_ref().and_then(|mqtt| Some((mqtt.plain_listen?, mqtt.allow_plain_beyond_loopback)))
            && !address.ip().is_loopback()
        {
            warnings.push(format!("MQTT without TLS is reachable on {address}"));
        }
        for destination in &self.destinations {
            let DestinationKind::Fhir(fhir) = &destination.kind;
            if let Some(reason) = &fhir.plain_reason {
                warnings.push(format!("destination {} is written to without TLS: {reason}", destination.id));
            }
        }
        warnings
    }
}
