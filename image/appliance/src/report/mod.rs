//! The commissioning report: what was put into service, by whom, and how it tested; signed by the
//! appliance's own key ([`key`]). It holds no patient and no secret.

mod key;

use std::fmt::Write as _;
use std::fs;

use anyhow::Context as _;
use aws_lc_rs::digest::{SHA256, digest};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde::Serialize;
use vitalgate_config::DeviceSource;
use vitalgate_layout::state::Part;
use vitalgate_layout::{fact, path};
use vitalgate_site::{Signer, Site, seal_report_json, seal_report_text};

pub(crate) use key::{existing_key, facts, key, text_of_own};

use crate::places::Places;
use crate::self_test;
use crate::state_file::{StateFiles, now_unix_ms};
use crate::text::hex;
use crate::{identity, machine};

const FORMAT: &str = "vitalgate-commissioning-1";

/// Credentials that are on the stick.
pub(crate) struct Handed<'a> {
    /// For whom.
    pub(crate) device: &'a str,
    /// Where.
    pub(crate) folder: &'a str,
    /// The authority's certificate (PEM).
    pub(crate) authority: Option<&'a [u8]>,
}

/// The report.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    format: &'static str,
    serial: String,
    version: String,
    slot: String,
    root_hash: String,
    site: String,
    gateway: String,
    technician: String,
    site_file_sha256: String,
    commissioned: String,
    sealed_storage: String,
    fingerprints: Fingerprints,
    self_test: Vec<Check>,
    devices: Vec<DeviceLine>,
    destinations: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_certificate: Option<ClientCertificate>,
    notes: Vec<String>,
    recovery_key: &'static str,
}

#[derive(Debug, Serialize)]
struct Fingerprints {
    appliance: String,
    appliance_key: &'static str,
    status_page: Option<String>,
    device_authority: Option<String>,
}

/// What the appliance identifies itself with to servers that demand it.
#[derive(Debug, Serialize)]
struct ClientCertificate {
    shown_to: Vec<String>,
    subject: String,
    sha256: String,
    until: String,
    certificate: String,
    request: String,
}

#[derive(Debug, Serialize)]
struct Check {
    check: String,
    result: String,
}

#[derive(Debug, Serialize)]
struct DeviceLine {
    id: String,
    profile: String,
    connection: String,
    credentials: Option<String>,
}

impl Report {
    /// Puts it together from what is known now.
    pub(crate) fn new(
        places: &Places,
        states: &StateFiles,
        site: &Site,
        key: &Signer,
        test: &self_test::Outcome,
        handed: &[Handed<'_>],
    ) -> anyhow::Result<Self> {
        let fact = |part, name: &str| states.read(part).and_then(|state| state.facts.get(name).cloned());
        let boot = |name| machine::boot_value(places, name).unwrap_or_else(|| "unknown".to_owned());
        let site_file = fs::read(places.at(path::SITE_FILE)).context("the site file cannot be read")?;
        Ok(Self {
            format: FORMAT,
            serial: machine::serial(places),
            version: machine::version(places),
            slot: boot("VITALGATE_SLOT"),
            root_hash: boot("VITALGATE_ROOT_HASH"),
            site: site.name.clone(),
            gateway: site.gateway.to_string(),
            technician: site.technician.clone(),
            site_file_sha256: hex(digest(&SHA256, &site_file).as_ref()),
            commissioned: machine::moment(now_unix_ms()),
            sealed_storage: fact(Part::Data, fact::SEALED).unwrap_or_else(|| "unknown".to_owned()),
            fingerprints: Fingerprints {
                appliance: key.public().fingerprint(),
                appliance_key: key::place(&key.public()),
                status_page: fact(Part::Status, fact::FINGERPRINT),
                device_authority: handed.iter().find_map(|one| one.authority).and_then(fingerprint),
            },
            self_test: test.lines().map(|(check, result)| Check { check: check.to_owned(), result }).collect(),
            devices: site.devices.iter().map(|device| line(device, handed)).collect(),
            destinations: site.destinations.iter().map(|destination| destination.id.to_string()).collect(),
            client_certificate: identity::shown(places).map(|shown| ClientCertificate {
                shown_to: site.client_certificate_for.clone(),
                subject: shown.chain.subject.clone(),
                sha256: shown.fingerprint(),
                until: shown.until(),
                certificate: shown.chain.pem.clone(),
                request: shown.request,
            }),
            notes: site.warnings(),
            recovery_key: if places.at(path::RECOVERY_KEY).exists() { "handed over with this report" } else { "handed over before" },
        })
    }

    /// For programs, signed.
    pub(crate) fn signed_json(&self, key: &Signer) -> anyhow::Result<String> {
        Ok(seal_report_json(&serde_json::to_string_pretty(self)?, key)?)
    }

    /// For a person, on one page, signed.
    pub(crate) fn signed_text(&self, key: &Signer) -> anyhow::Result<String> {
        Ok(seal_report_text(&self.text(), key)?)
    }

    fn text(&self) -> String {
        let mut text = String::from("Vitalgate: commissioning report\n===============================\n\n");
        let none = || "none yet".to_owned();
        let rows = [
            ("Serial number", self.serial.clone()),
            ("Version", format!("{} (slot {})", self.version, self.slot)),
            ("Site", self.site.clone()),
            ("Gateway", self.gateway.clone()),
            ("Technician", self.technician.clone()),
            ("Commissioned", self.commissioned.clone()),
            ("Storage sealed", self.sealed_storage.clone()),
            ("Key of appliance", format!("{} ({})", self.fingerprints.appliance, self.fingerprints.appliance_key)),
            ("Status page", self.fingerprints.status_page.clone().unwrap_or_else(none)),
            ("Device authority", self.fingerprints.device_authority.clone().unwrap_or_else(none)),
            ("Recovery key", self.recovery_key.to_owned()),
        ];
        // Writing to a text cannot fail.
        for (name, value) in rows {
            let _ = writeln!(text, "{name:<18} {value}");
        }
        text.push_str("\nSelf test\n");
        for Check { check, result } in &self.self_test {
            let _ = writeln!(text, "  {check:<28} {result}");
        }
        text.push_str("\nDevices\n");
        for device in &self.devices {
            let credentials = device.credentials.as_ref().map(|folder| format!(", credentials in {folder}")).unwrap_or_default();
            let _ = writeln!(text, "  {:<28} {} ({}){credentials}", device.id, device.profile, device.connection);
        }
        let _ = writeln!(text, "\nDestinations\n  {}", self.destinations.join(", "));
        for note in &self.notes {
            let _ = writeln!(text, "\nNote: {note}");
        }
        if let Some(one) = &self.client_certificate {
            let _ = writeln!(text, "\nClient certificate for {}\n  {}, until {}", one.shown_to.join(", "), one.subject, one.until);
            let _ = writeln!(text, "  SHA-256 {}\n  request and certificate: below", one.sha256);
        }
        text.push_str("\nSignature of technician: ______________________________   Date: ______________\n");
        if let Some(one) = &self.client_certificate {
            let _ = write!(text, "\nRequest for the authority:\n{}\nCertificate that stands for itself:\n{}", one.request, one.certificate);
        }
        text
    }
}

fn line(device: &vitalgate_config::Device, handed: &[Handed<'_>]) -> DeviceLine {
    let folder = handed
        .iter()
        .find(|one| one.device == device.id.as_str())
        .map(|one| format!("{}/{}", vitalgate_layout::stick::DEVICES, one.folder));
    let connection = match &device.source {
        DeviceSource::Modbus(bus) => format!("polled at {}", bus.address),
        DeviceSource::Mqtt => "publishes".to_owned(),
    };
    DeviceLine { id: device.id.to_string(), profile: device.profile.to_string(), connection, credentials: folder }
}

/// SHA-256 of a certificate as browsers show it.
fn fingerprint(pem: &[u8]) -> Option<String> {
    let der = CertificateDer::from_pem_slice(pem).ok()?;
    let pairs: Vec<_> = digest(&SHA256, &der).as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
    Some(pairs.join(":"))
}
