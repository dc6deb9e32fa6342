//! The checked site file. Only [`SiteFile::check`] makes one.

use std::fmt;

use vitalgate_domain::{DeviceNamespace, GatewayId};

use crate::check;
use crate::day::Day;
use crate::error::SiteError;
use crate::hosts::Endpoint;
use crate::network::Network;
use crate::notes;
use crate::passage::Passage;
use crate::window::Window;

/// The text of a site file.
#[derive(Debug, Clone, Copy)]
pub struct SiteFile;

impl SiteFile {
    /// Checks a text, signed or not; the signature is not looked at. `file_name` is how errors name it.
    ///
    /// # Errors
    /// Everything that is wrong with it, by line.
    pub fn check(text: &str, file_name: &str) -> Result<Site, Vec<SiteError>> {
        check::site(text, file_name)
    }
}

/// A site file in which everything fits together.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Site {
    /// What people call the site.
    pub name: String,
    /// The gateway's name: part of the identity of polled readings.
    pub gateway: GatewayId,
    /// What the ids of its devices are unique within: the gateway's name unless several gateways share devices.
    pub device_namespace: DeviceNamespace,
    /// The appliances that it is for.
    pub serial: Serial,
    /// The last day on which it is taken.
    pub expires: Day,
    /// Who commissions the appliance.
    pub technician: String,
    /// At least one.
    pub networks: Vec<Network>,
    /// Time sources.
    pub time: Time,
    /// Storage at rest.
    pub storage: Storage,
    /// When the appliance may restart for an update; `None`: at any time.
    pub maintenance: Option<Window>,
    /// Where updates come from, beside the stick.
    pub update: Option<Update>,
    /// The endpoint that devices publish to; without it nothing listens for them.
    pub mqtt: Option<Mqtt>,
    /// Devices, as the daemon reads them.
    pub devices: Vec<vitalgate_config::Device>,
    /// Destinations, as the daemon reads them; their authorities are in [`crate::extra_files`].
    pub destinations: Vec<vitalgate_config::Destination>,
    /// Certificate authorities of destinations, by the destination's id.
    pub authorities: Vec<Authority>,
    /// Ids of the destinations that the appliance identifies itself to by its own certificate.
    pub client_certificate_for: Vec<String>,
    /// Destinations that are stated to be the server of another URL: the destination's id, and that URL.
    pub same_server_as: Vec<(String, String)>,
    /// Destinations that are stated to have the ids of patients of another one: the destination's id, and that of the other.
    pub same_patient_ids_as: Vec<(String, String)>,
    pub(crate) passage: Passage,
}

impl Site {
    /// What is allowed but weaker than it could be, for report and status page.
    pub fn warnings(&self) -> Vec<String> {
        notes::warnings(self)
    }

    /// Ids of the devices that publish and so need credentials.
    pub fn publishing_devices(&self) -> impl Iterator<Item = &vitalgate_domain::DeviceId> {
        self.devices.iter().filter(|device| device.source == vitalgate_config::DeviceSource::Mqtt).map(|device| &device.id)
    }
}

/// Certificates in PEM under the name of who uses them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    /// A destination's id, `update` or `time`.
    pub name: String,
    /// The certificates.
    pub pem: String,
}

/// Which appliances.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Serial {
    /// Every one.
    Any,
    /// Those with one of these numbers; a `*` at the end stands for the rest.
    OneOf(Vec<String>),
}

impl Serial {
    /// Whether an appliance is meant.
    pub fn matches(&self, serial: &str) -> bool {
        match self {
            Self::Any => true,
            Self::OneOf(serials) => serials.iter().any(|one| match one.strip_suffix('*') {
                Some(head) => serial.starts_with(head),
                None => serial == one,
            }),
        }
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => formatter.write_str("any"),
            Self::OneOf(serials) => formatter.write_str(&serials.join(", ")),
        }
    }
}

/// `[time]`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Time {
    /// Servers that prove who they are (RFC 8915).
    pub nts: Vec<Endpoint>,
    /// Servers that do not.
    pub ntp: Vec<Endpoint>,
    /// The only authorities that the servers' certificates may come from.
    pub ca_pem: Option<String>,
}

/// `[storage]`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Storage {
    /// Whether readings may be kept without a sealed disk.
    pub unsealed_allowed: bool,
    /// Why; there is one when it is allowed.
    pub unsealed_reason: Option<String>,
}

/// `[update]`
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Update {
    /// `https://` URL of the folder that holds the bundles.
    pub server: String,
    /// The only authorities that the server's certificate may come from.
    pub ca_pem: Option<String>,
}

/// `[mqtt]`
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Mqtt {
    /// TCP port.
    pub port: u16,
    /// Names and addresses in the server certificate.
    pub server_names: Vec<String>,
}
