//! `[[device]]`

use std::collections::BTreeMap;
use std::sync::Arc;

use toml::de::{DeTable, DeValue};
use vitalgate_domain::limits::DEVICES_MAX;
use vitalgate_domain::{DeviceId, PatientReference, UnixMs};

use crate::address;
use crate::config::{Device, DeviceSource, ModbusDevice};
use crate::load::{KnownProfiles, ProfileKind};
use crate::schema;
use crate::section::{Section, Text, quoted};
use crate::sections::Walk;
use crate::suggestion::nearest;

/// Longest logical id of a FHIR resource, in characters (FHIR R4, `id`).
const FHIR_ID_CHARS_MAX: usize = 64;
/// What parts the values of a search parameter (FHIR R4, "Escaping Search Parameters").
const PARTS_A_SEARCH: [char; 4] = ['|', ',', '$', '\\'];
/// The unit that means the device itself, as 0 does (Modbus Messaging on TCP/IP Implementation Guide V1.0b, 4.4.2.2).
const UNIT_DIRECT: u8 = 255;

/// What has been given away already.
#[derive(Default)]
struct Taken {
    ids: BTreeMap<DeviceId, u32>,
    /// By address and unit.
    units: BTreeMap<(String, u8), u32>,
}

/// Reads every device; those that are wrong are reported and left out.
pub(crate) fn read(walk: &mut Walk<'_>, tables: &[(&DeTable<'_>, usize)], has_mqtt: bool, known: Option<&KnownProfiles>) -> Vec<Device> {
    if let Some((_, at)) = tables.get(DEVICES_MAX) {
        walk.report.at(*at, format!("{} devices are too many", tables.len()), format!("a gateway serves {DEVICES_MAX}; use a second one"));
        return Vec::new();
    }
    let mut taken = Taken::default();
    let mut devices = Vec::new();
    for (table, at) in tables {
        let section = Section::open(walk.report, &schema::DEVICE, table, *at);
        devices.extend(device(walk, &section, &mut taken, has_mqtt, known));
    }
    devices
}

fn device(walk: &mut Walk<'_>, section: &Section<'_>, taken: &mut Taken, has_mqtt: bool, known: Option<&KnownProfiles>) -> Option<Device> {
    let line = walk.report.line(section.at);
    let id = section.text(walk.report, "id").and_then(|text| device_id(walk, text, taken));
    let profile = section.text(walk.report, "profile");
    let modbus = section.table(walk.report, "modbus");
    let polled = modbus.is_some();
    if let (Some(profile), Some(known)) = (profile, known) {
        check_profile(walk, section, profile, known, polled);
    }
    if !polled && !has_mqtt {
        let message = format!("{} has no modbus, so it publishes by MQTT, but the file has no [mqtt]", section.place);
        walk.report.at(section.at, message, "add a section [mqtt], or modbus = { address = \"host:502\", unit = 1 }");
    }
    let source = match modbus {
        None => Some(DeviceSource::Mqtt),
        Some((table, at)) => {
            let mut bus = Section::open(walk.report, &schema::MODBUS, table, at);
            bus.place = format!("modbus of {}", section.place);
            modbus_device(walk, &bus, taken).map(DeviceSource::Modbus)
        }
    };
    let patient = patient(walk, section);
    let patient_since = patient_since(walk, section);
    Some(Device { id: id?, profile: profile?.text.to_owned(), source: source?, patient: patient.ok()?, patient_since, line })
}

fn device_id(walk: &mut Walk<'_>, text: Text<'_>, taken: &mut Taken) -> Option<DeviceId> {
    match DeviceId::new(text.text) {
        Ok(id) => {
            let line = walk.report.line(text.at);
            if let Some(first) = taken.ids.get(&id) {
                let message = format!("device {id} stands twice, first on line {first}");
                walk.report.at(text.at, message, "give each device its own id");
            } else {
                taken.ids.insert(id.clone(), line);
            }
            Some(id)
        }
        Err(error) => {
            let message = format!("id in [[device]] is {}: {error}", quoted(text.text));
            walk.report.at(text.at, message, "write an id like \"monitor-01\"");
            None
        }
    }
}

fn check_profile(walk: &mut Walk<'_>, section: &Section<'_>, profile: Text<'_>, known: &KnownProfiles, polled: bool) {
    let place = &section.place;
    match (known.kinds.get(profile.text), polled) {
        // It may be one of those that are wrong; that was said.
        (None, _) if !known.faults.is_empty() => {}
        (None, _) => {
            let ids = known.kinds.keys().map(String::as_str);
            let remedy = match nearest(profile.text, ids.clone()) {
                Some(meant) => format!("did you mean \"{meant}\"?"),
                None => format!("known are {}", ids.collect::<Vec<_>>().join(", ")),
            };
            walk.report.at(profile.at, format!("profile of {place} is {}, which does not exist", quoted(profile.text)), remedy);
        }
        (Some(ProfileKind::Polled), false) => {
            let message = format!("profile of {place} is {}, which is polled, but there is no modbus", quoted(profile.text));
            walk.report.at(profile.at, message, "add modbus = { address = \"host:502\", unit = 1 }, or use a profile that publishes");
        }
        (Some(ProfileKind::Publish), true) => {
            let message = format!("profile of {place} is {}, which publishes, but there is modbus", quoted(profile.text));
            walk.report.at(profile.at, message, "remove modbus, or use a profile that is polled");
        }
        _ => {}
    }
}

fn modbus_device(walk: &mut Walk<'_>, section: &Section<'_>, taken: &mut Taken) -> Option<ModbusDevice> {
    let errors_before = walk.report.len();
    let text = section.text(walk.report, "address");
    let address = text.and_then(|text| address::host_and_port(text.text));
    if let (Some(text), None) = (text, &address) {
        let message = format!("address in {} is {}, no host and port", section.place, quoted(text.text));
        walk.report.at(text.at, message, "write \"host:port\", such as \"192.0.2.9:502\"");
    }
    let unit = u8::try_from(section.integer(walk.report, "unit")).unwrap_or(u8::MAX);
    let poll_interval_ms = section.integer(walk.report, "poll_interval_ms");
    let response_timeout_ms = section.integer(walk.report, "response_timeout_ms");
    let (text, address) = (text?, address?);
    if walk.report.len() == errors_before {
        let line = walk.report.line(text.at);
        let key = (address.clone(), if unit == UNIT_DIRECT { 0 } else { unit });
        if let Some(first) = taken.units.get(&key) {
            let message = format!("{} is unit {unit} at {address}, which another device is on line {first}", section.place);
            walk.report.at(text.at, message, "give each device its own address or unit");
        } else {
            taken.units.insert(key, line);
        }
    }
    Some(ModbusDevice { address, unit, poll_interval_ms, response_timeout_ms })
}

/// `Err` when what is written cannot be used; it has been reported then.
fn patient(walk: &mut Walk<'_>, section: &Section<'_>) -> Result<Option<PatientReference>, ()> {
    let Some(value) = section.value(walk.report, "patient") else { return Ok(None) };
    match value.get_ref() {
        DeValue::Table(table) => {
            let mut inner = Section::open(walk.report, &schema::PATIENT, table, value.span().start);
            inner.place = format!("patient of {}", section.place);
            identifier(walk, &inner).map(Some).ok_or(())
        }
        DeValue::String(_) => {
            let text = section.text(walk.report, "patient").ok_or(())?;
            literal(walk, section, text).map(Some).ok_or(())
        }
        _ => {
            section.wrong_type(walk.report, "patient", value, "text or a table", "patient = \"Patient/4711\"");
            Err(())
        }
    }
}

/// When it was attached. What cannot be read is reported: then there is no configuration.
fn patient_since(walk: &mut Walk<'_>, section: &Section<'_>) -> Option<UnixMs> {
    const EXAMPLE: &str = "patient_since = \"2026-11-22T10:00:00+01:00\"";
    let value = section.value(walk.report, "patient_since")?;
    let at = value.span().start;
    if !section.has("patient") {
        let message = format!("{} has a patient_since, but no patient", section.place);
        walk.report.at(at, message, "add the patient that it is attached to since then, or remove patient_since");
    }
    let text = match value.get_ref() {
        // TOML has moments of its own; those without an offset are refused below.
        DeValue::Datetime(moment) => moment.to_string(),
        DeValue::String(_) => section.text(walk.report, "patient_since")?.text.to_owned(),
        _ => {
            section.wrong_type(walk.report, "patient_since", value, "a moment", EXAMPLE);
            return None;
        }
    };
    let since = UnixMs::parse_rfc3339(&text);
    if since.is_none() {
        let message = format!("patient_since of {} is {}, no moment with an offset from UTC", section.place, quoted(&text));
        walk.report.at(at, message, format!("write it as RFC 3339 says, such as {EXAMPLE}"));
    }
    since
}

fn literal(walk: &mut Walk<'_>, section: &Section<'_>, text: Text<'_>) -> Option<PatientReference> {
    let is_id = |id: &str| {
        (1..=FHIR_ID_CHARS_MAX).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.')
    };
    if text.text.strip_prefix("Patient/").is_some_and(is_id) {
        walk.literal_patients.push((text.at, section.place.clone()));
        return Some(PatientReference::Literal(Arc::from(text.text)));
    }
    // Who the patient is must not reach a log: the value is not repeated.
    let message = format!("patient of {} is no reference to a FHIR Patient", section.place);
    walk.report.at(text.at, message, "write \"Patient/<id>\", or { system = \"...\", value = \"...\" }");
    None
}

fn identifier(walk: &mut Walk<'_>, section: &Section<'_>) -> Option<PatientReference> {
    let system = section.text(walk.report, "system");
    let value = section.text(walk.report, "value");
    let (system, value) = (system?, value?);
    let is_uri = |text: &str| {
        let scheme = text.split_once(':').map(|(scheme, rest)| (scheme, rest.is_empty()));
        matches!(scheme, Some((scheme, false)) if scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.')))
            && !text.contains(char::is_whitespace)
    };
    if !is_uri(system.text) || system.text.contains(PARTS_A_SEARCH) {
        // Where the two stand in each other's place this is who the patient is: the value is not repeated.
        let message = format!("system in {} is no URI, or holds one of | , $ \\", section.place);
        walk.report.at(system.at, message, "write the identifier's system, such as \"urn:oid:1.2.3\" or \"https://...\"");
        return None;
    }
    if value.text.is_empty() || value.text != value.text.trim() || value.text.contains(PARTS_A_SEARCH) {
        let message = format!("value in {} is empty, begins or ends with a blank, or holds one of | , $ \\", section.place);
        walk.report.at(value.at, message, "write the patient's identifier as the EHR shows it");
        return None;
    }
    Some(PatientReference::Identifier { system: Arc::from(system.text), value: Arc::from(value.text) })
}
