//! From the text of a site file to a [`Site`].

use toml::de::DeTable;
use vitalgate_config::canonical_url;
use vitalgate_domain::{DeviceNamespace, GatewayId};
use vitalgate_layout::stick::SITE_FILE_BYTES_MAX;
use x509_parser::pem::Pem;

use crate::day::Day;
use crate::error::{Findings, SiteError};
use crate::hosts::{Endpoint, is_https_url};
use crate::network::{self, texts};
use crate::passage::{Passage, Uses};
use crate::reader::{Section, Text, parse, quoted};
use crate::schema;
use crate::secrets;
use crate::site::{Authority, Mqtt, Serial, Site, Storage, Time, Update};
use crate::window::Window;

/// UDP port of NTP (RFC 5905) and TCP port of NTS key establishment (RFC 8915).
pub(crate) const NTP_PORT: u16 = 123;
/// See above.
pub(crate) const NTS_PORT: u16 = 4460;
/// Longest serial number in characters.
const SERIAL_CHARS_MAX: usize = 64;

/// Checks a text, secrets included.
pub(crate) fn site(text: &str, file_name: &str) -> Result<Site, Vec<SiteError>> {
    let (mut secrets, checked) = secrets_and_site(text, file_name);
    match checked {
        Ok(site) if secrets.is_empty() => Ok(site),
        Ok(_) => Err(secrets),
        Err(errors) => {
            // A key that holds a secret is unknown as well; once is enough.
            let again =
                |error: &SiteError| error.message.starts_with("unknown key") && secrets.iter().any(|secret| secret.line == error.line);
            let errors: Vec<_> = errors.into_iter().filter(|error| !again(error)).collect();
            secrets.extend(errors);
            secrets.sort_by_key(|error| error.line);
            Err(secrets)
        }
    }
}

/// The secrets that stand in a text, and what else became of it.
pub(crate) fn secrets_and_site(text: &str, file_name: &str) -> (Vec<SiteError>, Result<Site, Vec<SiteError>>) {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut findings = Findings::new(file_name, text);
    if text.len() as u64 > SITE_FILE_BYTES_MAX {
        findings.on_line(0, format!("the file has more than {SITE_FILE_BYTES_MAX} bytes"), "remove what the site does not need");
        return (Vec::new(), Err(findings.into_errors()));
    }
    let (root, readable) = parse(&mut findings, text);
    let mut secret = Findings::new(file_name, text);
    secrets::find(&mut secret, text, root.get_ref());
    let site = if readable { read(&mut findings, root.get_ref()) } else { None };
    let checked = match site {
        Some(site) if findings.is_empty() => Ok(site),
        _ => Err(findings.into_errors()),
    };
    (secret.into_errors(), checked)
}

fn read(findings: &mut Findings, root: &DeTable<'_>) -> Option<Site> {
    let root = Section::open(findings, &schema::ROOT, root, 0);
    let head = root.section(findings, "site", &schema::SITE).and_then(|section| head(findings, &section));
    let networks = network::read(findings, &root);
    let time = root.section(findings, "time", &schema::TIME).map(|section| time(findings, &section)).unwrap_or_default();
    let storage = root.section(findings, "storage", &schema::STORAGE);
    let sealed = storage.as_ref().map(|section| sealed(findings, section)).unwrap_or_default();
    let maintenance = root.section(findings, "maintenance", &schema::MAINTENANCE).and_then(|section| maintenance(findings, &section));
    let update = root.section(findings, "update", &schema::UPDATE).and_then(|section| update(findings, &section));
    let mqtt_section = root.section(findings, "mqtt", &schema::MQTT);
    let port = mqtt_section.as_ref().and_then(|section| mqtt_port(findings, section));
    let mut passage = Passage::new(head.as_ref().map(|head| (&head.gateway, &head.device_namespace)));
    passage.storage(findings, storage.as_ref());
    passage.mqtt(findings, mqtt_section.as_ref(), port);
    passage.devices(findings, &root);
    let Destinations { authorities, client_certificate_for, same_server_as, same_patient_ids_as } =
        destinations(findings, &root, &mut passage);
    let config = passage.check(findings)?;
    let Head { name, gateway, device_namespace, serial, expires, technician } = head?;
    Some(Site {
        name,
        gateway,
        device_namespace,
        serial,
        expires,
        technician,
        networks,
        time,
        storage: sealed,
        maintenance,
        update,
        mqtt: port.zip(config.mqtt).map(|(port, mqtt)| Mqtt { port, server_names: mqtt.server_names }),
        devices: config.devices,
        destinations: config.destinations,
        authorities,
        client_certificate_for,
        same_server_as,
        same_patient_ids_as,
        passage,
    })
}

struct Head {
    name: String,
    gateway: GatewayId,
    device_namespace: DeviceNamespace,
    serial: Serial,
    expires: Day,
    technician: String,
}

fn head(findings: &mut Findings, section: &Section<'_>) -> Option<Head> {
    let name = one_line(findings, section, "name");
    let gateway = section.text(findings, "gateway").and_then(|text| match GatewayId::new(text.text) {
        Ok(gateway) => Some(gateway),
        Err(error) => {
            let what = format!("is {}: {error}", quoted(text.text));
            section.wrong(findings, text.at, "gateway", &what, "write a name like \"practice-01\"");
            None
        }
    });
    let device_namespace = match section.text(findings, "device_namespace") {
        None => gateway.as_ref().map(DeviceNamespace::of_gateway),
        Some(text) => device_namespace(findings, section, text),
    };
    let serial = serials(findings, section);
    let expires = day(findings, section);
    let technician = one_line(findings, section, "technician");
    Some(Head {
        name: name?,
        gateway: gateway?,
        device_namespace: device_namespace?,
        serial: serial?,
        expires: expires?,
        technician: technician?,
    })
}

fn device_namespace(findings: &mut Findings, section: &Section<'_>, text: Text<'_>) -> Option<DeviceNamespace> {
    let named = DeviceNamespace::new(text.text);
    if let Err(error) = &named {
        let what = format!("is {}: {error}", quoted(text.text));
        let remedy = "write a name like \"clinic-north\", the same on every gateway that shares its devices";
        section.wrong(findings, text.at, "device_namespace", &what, remedy);
    }
    named.ok()
}

pub(crate) fn one_line(findings: &mut Findings, section: &Section<'_>, name: &'static str) -> Option<String> {
    section.words(findings, name).map(|text| text.text.trim().to_owned())
}

pub(crate) fn day(findings: &mut Findings, section: &Section<'_>) -> Option<Day> {
    let value = section.value(findings, "expires")?;
    let written = match value.get_ref() {
        toml::de::DeValue::Datetime(date) => date.to_string(),
        _ => section.text(findings, "expires")?.text.to_owned(),
    };
    let day = Day::parse(&written);
    if day.is_none() {
        section.wrong(findings, value.span().start, "expires", &format!("is {}, no day", quoted(&written)), "write \"2026-12-31\"");
    }
    day
}

/// For every appliance when it stands alone.
const ANY: &str = "any";

pub(crate) fn serials(findings: &mut Findings, section: &Section<'_>) -> Option<Serial> {
    let is_serial = |text: &str| {
        let head = text.strip_suffix('*').unwrap_or(text);
        (1..=SERIAL_CHARS_MAX).contains(&head.len())
            && (text == ANY || !text.eq_ignore_ascii_case(ANY))
            && head.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
    };
    let errors_before = findings.len();
    let wrong = "is no serial number";
    let list = texts(findings, section, "serial", wrong, "VG-0001", |text| is_serial(text).then(|| text.to_owned()));
    if list == [ANY] {
        return Some(Serial::Any);
    }
    if list.iter().any(|one| one == ANY) {
        let message = format!("serial in {} is \"any\" beside serial numbers", section.spec.title);
        findings.at(section.at, message, "write serial = \"any\" for every appliance, or the serial numbers alone");
    }
    if list.is_empty() && findings.len() == errors_before && section.table.contains_key("serial") {
        findings.at(
            section.at,
            format!("serial in {} names no appliance", section.spec.title),
            "write serial = \"any\", or serial numbers",
        );
    }
    (!list.is_empty()).then_some(Serial::OneOf(list))
}

fn time(findings: &mut Findings, section: &Section<'_>) -> Time {
    let wrong = "is no host";
    let nts = texts(findings, section, "nts", wrong, "time.example", |text| Endpoint::parse(text, Some(NTS_PORT)));
    let ntp = texts(findings, section, "ntp", wrong, "192.0.2.123", |text| Endpoint::parse(text, Some(NTP_PORT)));
    let ca_pem = authority(findings, section);
    if ca_pem.is_some() && nts.is_empty() {
        findings.at(section.at, "[time] has ca_pem, but no server with NTS", "add nts = [\"...\"], or remove ca_pem");
    }
    Time { nts, ntp, ca_pem }
}

fn sealed(findings: &mut Findings, section: &Section<'_>) -> Storage {
    let unsealed_allowed = section.boolean(findings, "unsealed_allowed").unwrap_or(false);
    let unsealed_reason = section.table.contains_key("unsealed_reason").then(|| one_line(findings, section, "unsealed_reason")).flatten();
    if unsealed_allowed && unsealed_reason.is_none() {
        let remedy = "add unsealed_reason = \"...\"; it is shown on the status page";
        findings.at(section.at, "[storage] allows readings on a disk that is not sealed and gives no reason", remedy);
    }
    if !unsealed_allowed && unsealed_reason.is_some() {
        findings.at(
            section.at,
            "[storage] has unsealed_reason, but unsealed_allowed is not true",
            "remove it, or set unsealed_allowed = true",
        );
    }
    Storage { unsealed_allowed, unsealed_reason }
}

fn maintenance(findings: &mut Findings, section: &Section<'_>) -> Option<Window> {
    let span = section.text(findings, "window")?;
    let days = section.list(findings, "days");
    let words: Vec<_> = days.iter().map(|day| day.text).collect();
    let window = Window::parse(span.text, &words);
    if window.is_none() {
        let remedy = "write window = \"02:00-04:00\" (UTC), days = [\"mon\", \"tue\"]";
        section.wrong(findings, span.at, "window", "or days cannot be read", remedy);
    }
    window
}

fn update(findings: &mut Findings, section: &Section<'_>) -> Option<Update> {
    let server = section.text(findings, "server");
    let ca_pem = authority(findings, section);
    let server = server?;
    if !is_https_url(server.text) {
        // A password in it must not reach a report: the value is not repeated.
        section.wrong(findings, server.at, "server", "is no plain https:// URL", "write https://host[:port][/path]");
        return None;
    }
    Some(Update { server: server.text.trim_end_matches('/').to_owned(), ca_pem })
}

fn mqtt_port(findings: &mut Findings, section: &Section<'_>) -> Option<u16> {
    let port = section.integer(findings, "port").and_then(|port| u16::try_from(port).ok());
    let whose = match port? {
        vitalgate_layout::port::STATUS_HTTPS => "the status page's",
        vitalgate_layout::port::DAEMON_CONSOLE => "that of the gateway's own console",
        free => return Some(free),
    };
    findings.at(section.at, format!("port in [mqtt] is {whose}"), "write another port, such as 8883");
    None
}

/// What the daemon does not say of the destinations.
#[derive(Default)]
struct Destinations {
    authorities: Vec<Authority>,
    client_certificate_for: Vec<String>,
    same_server_as: Vec<(String, String)>,
    same_patient_ids_as: Vec<(String, String)>,
}

/// `[ehr]` and `[[destination]]`: hands them on; gives the rest.
fn destinations(findings: &mut Findings, root: &Section<'_>, passage: &mut Passage) -> Destinations {
    let mut sections = Vec::new();
    if let Some(section) = root.section(findings, "ehr", &schema::EHR) {
        sections.push((section, Some("ehr")));
    }
    for (table, at) in root.tables(findings, "destination") {
        sections.push((Section::open(findings, &schema::DESTINATION, table, at), None));
    }
    let mut rest = Destinations::default();
    for (section, default_id) in sections {
        let pem = authority(findings, &section);
        let own_certificate = own_certificate(findings, &section);
        let same_server_as = same_server_as(findings, &section);
        let id = section.table.get("id").and_then(|id| id.get_ref().as_str()).or(default_id);
        for key in [pem.as_ref().map(|_| "ca_pem"), own_certificate.then_some("client_certificate")].into_iter().flatten() {
            without_tls(findings, &section, key);
        }
        passage.destination(findings, &section, default_id, Uses { authorities: pem.is_some(), own_certificate });
        let Some(id) = id else { continue };
        // The daemon is told as well, and says whether there is such a destination.
        let same_ids = section.table.get("same_patient_ids_as").and_then(|same| same.get_ref().as_str());
        rest.same_patient_ids_as.extend(same_ids.map(|same| (id.to_owned(), same.to_owned())));
        rest.authorities.extend(pem.map(|pem| Authority { name: id.to_owned(), pem }));
        rest.client_certificate_for.extend(own_certificate.then(|| id.to_owned()));
        rest.same_server_as.extend(same_server_as.map(|url| (id.to_owned(), url)));
    }
    rest
}

/// The URL that this server had before.
fn same_server_as(findings: &mut Findings, section: &Section<'_>) -> Option<String> {
    let written = section.text(findings, "same_server_as")?;
    let url = canonical_url(written.text);
    if url.is_none() {
        // A password in it must not reach a report: the value is not repeated.
        section.wrong(findings, written.at, "same_server_as", "is no URL", "write the url that the server has in the file in service");
    }
    url
}

/// Certificates where there is no TLS.
fn without_tls(findings: &mut Findings, section: &Section<'_>, key: &str) {
    if section.table.get("url").and_then(|url| url.get_ref().as_str()).is_some_and(|url| url.starts_with("http://")) {
        let remedy = format!("write https://, or remove {key}");
        findings.at(section.at, format!("{} has {key}, but its url is http:// and uses none", section.spec.title), remedy);
    }
}

/// Whether the appliance identifies itself to this destination by its own certificate.
fn own_certificate(findings: &mut Findings, section: &Section<'_>) -> bool {
    if !section.table.contains_key("client_certificate") {
        return false;
    }
    let Some(written) = section.text(findings, "client_certificate") else { return false };
    match written.text {
        "own" => true,
        "none" => false,
        other => {
            let remedy = "write \"own\": the appliance makes key and certificate itself; or \"none\"";
            section.wrong(findings, written.at, "client_certificate", &format!("is {}", quoted(other)), remedy);
            false
        }
    }
}

/// Certificates of authorities.
fn authority(findings: &mut Findings, section: &Section<'_>) -> Option<String> {
    if !section.table.contains_key("ca_pem") {
        return None;
    }
    let text = section.long_text(findings, "ca_pem")?;
    certificates(findings, section, "ca_pem", text)
}

/// The certificates of a text, every one readable; what else stands in it is dropped.
pub(crate) fn certificates(findings: &mut Findings, section: &Section<'_>, key: &str, text: Text<'_>) -> Option<String> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    let mut pem = String::new();
    let mut rest = text.text;
    for number in 1.. {
        let Some((_, begun)) = rest.split_once(BEGIN) else { break };
        let block = begun.split_once(END);
        rest = block.map_or("", |(_, after)| after);
        let block = block.map(|(inner, _)| format!("{BEGIN}\n{}\n{END}\n", inner.replace('\r', "").trim()));
        match block.filter(|block| is_certificate(block)) {
            Some(block) => pem.push_str(&block),
            None => {
                let what = format!("holds a block (number {number}) that is no certificate");
                section.wrong(findings, text.at, key, &what, format!("copy it whole, from {BEGIN} to {END}"));
            }
        }
    }
    if pem.is_empty() && !text.text.contains(BEGIN) {
        section.wrong(findings, text.at, key, "holds no certificate", format!("copy one whole, from {BEGIN} to {END}"));
    }
    (!pem.is_empty()).then_some(pem)
}

fn is_certificate(block: &str) -> bool {
    Pem::iter_from_buffer(block.as_bytes()).next().is_some_and(|pem| pem.is_ok_and(|pem| pem.parse_x509().is_ok()))
}
