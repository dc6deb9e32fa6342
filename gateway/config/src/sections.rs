//! The file as a whole, and the sections that stand once.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use toml::de::{DeTable, DeValue};
use vitalgate_domain::limits::DESTINATIONS_MAX;
use vitalgate_domain::{DestinationId, DeviceNamespace, GatewayId};

use crate::address;
use crate::config::{ClientCertificate, Config, Console, Gateway, Log, LogFormat, LogLevel, Mqtt, Places, Profiles, Store};
use crate::destinations;
use crate::devices;
use crate::load::{KnownProfiles, ProfileLookup};
use crate::report::Report;
use crate::schema::{self, SERVER_NAMES_MAX, SOCKET_PATH_BYTES_MAX, SectionSpec};
use crate::section::{Section, Text, quoted};

/// Stands for a section that is not there: every key takes its default.
static EMPTY: LazyLock<DeTable<'static>> = LazyLock::new(DeTable::new);

/// Everything that the walk over the file carries along.
pub(crate) struct Walk<'r> {
    pub(crate) report: &'r mut Report,
    /// The folder that relative paths start from.
    pub(crate) base: PathBuf,
    /// Every address that is listened on, with the key that says so and its place.
    listeners: Vec<(SocketAddr, &'static str, usize)>,
    /// Every destination that is given up, with the place that says so.
    pub(crate) given_up: BTreeMap<DestinationId, usize>,
    /// Where a patient is named by an id of one server, and the device that is attached to it.
    pub(crate) literal_patients: Vec<(usize, String)>,
}

impl<'r> Walk<'r> {
    fn of(report: &'r mut Report, file: &str) -> Self {
        let base = Path::new(file).parent().unwrap_or(Path::new("")).to_owned();
        Self { report, base, listeners: Vec::new(), given_up: BTreeMap::new(), literal_patients: Vec::new() }
    }
}

/// Reads every section; `None` when something without which no configuration exists is wrong.
pub(crate) fn read(report: &mut Report, root: &DeTable<'_>, file: &str, lookup: Option<ProfileLookup<'_>>) -> Option<Config> {
    let top = Section::open(report, &schema::ROOT, root, 0);
    let mut walk = Walk::of(report, file);
    let gateway = gateway(&mut walk, &top);
    let store = store(&mut walk, &top);
    let mqtt_section = once(&mut walk, &top, "mqtt", &schema::MQTT);
    let mqtt = mqtt_section.and_then(|section| mqtt(&mut walk, &section, gateway.as_ref()));
    let (profiles, known) = profiles(&mut walk, &top, lookup);
    let device_tables = several(&mut walk, &top, "device");
    let devices = devices::read(&mut walk, &device_tables, top.has("mqtt"), known.as_ref());
    let destination_tables = several(&mut walk, &top, "destination");
    let destinations = destinations::read(&mut walk, &destination_tables);
    let console = console(&mut walk, &top, gateway.as_ref());
    let log = log(&mut walk, &top);
    let (gateway, console) = (gateway?, console?);
    Some(Config { file: file.to_owned(), gateway, store, mqtt, profiles, devices, destinations, console, log })
}

/// Reads what a command needs that asks the gateway or looks at what it keeps; what else stands in the file is not judged.
pub(crate) fn read_places(report: &mut Report, root: &DeTable<'_>, file: &str) -> Option<Places> {
    let top = Section::unjudged(&schema::ROOT, root);
    let mut walk = Walk::of(report, file);
    let gateway = gateway(&mut walk, &top);
    let store = store(&mut walk, &top);
    let console = console(&mut walk, &top, gateway.as_ref());
    Some(Places { gateway: gateway?, store, console: console? })
}

/// A section that stands at most once.
fn once<'a>(walk: &mut Walk<'_>, top: &Section<'a>, name: &'static str, spec: &'static SectionSpec) -> Option<Section<'a>> {
    let value = top.value(walk.report, name)?;
    match value.get_ref() {
        DeValue::Table(table) => Some(Section::open(walk.report, spec, table, value.span().start)),
        DeValue::Array(_) => {
            walk.report.at(
                value.span().start,
                format!("[{name}] may stand only once"),
                format!("write [{name}] with one pair of brackets"),
            );
            None
        }
        _ => {
            top.wrong_type(walk.report, name, value, "a section", spec.title);
            None
        }
    }
}

/// A section that stands at most once, or one in which every key is missing.
fn once_or_empty<'a>(walk: &mut Walk<'_>, top: &Section<'a>, name: &'static str, spec: &'static SectionSpec) -> Section<'a> {
    match once(walk, top, name, spec) {
        Some(section) => section,
        None => Section::open(walk.report, spec, &EMPTY, 0),
    }
}

/// The tables of a section that may stand several times.
fn several<'a>(walk: &mut Walk<'_>, top: &Section<'a>, name: &'static str) -> Vec<(&'a DeTable<'a>, usize)> {
    let Some(value) = top.value(walk.report, name) else { return Vec::new() };
    let DeValue::Array(list) = value.get_ref() else {
        let message = format!("{name} must be a list of sections, not {}", value.get_ref().type_str());
        walk.report.at(value.span().start, message, format!("write [[{name}]] with two pairs of brackets"));
        return Vec::new();
    };
    let mut tables = Vec::new();
    for item in list.iter() {
        match item.get_ref() {
            DeValue::Table(table) => tables.push((table, item.span().start)),
            other => walk.report.at(
                item.span().start,
                format!("{name} holds {} that is no section", other.type_str()),
                format!("write [[{name}]] with two pairs of brackets"),
            ),
        }
    }
    tables
}

fn gateway(walk: &mut Walk<'_>, top: &Section<'_>) -> Option<Gateway> {
    let section = once(walk, top, "gateway", &schema::GATEWAY)?;
    let name = section.text(walk.report, "name");
    let state_dir = section.path(walk.report, "state_dir", &walk.base);
    let name = name.and_then(|name| match GatewayId::new(name.text) {
        Ok(id) => Some(id),
        Err(error) => {
            walk.report.at(name.at, format!("name in [gateway] is {}: {error}", quoted(name.text)), "write a name like \"practice-01\"");
            None
        }
    });
    let device_namespace = match section.text(walk.report, "device_namespace") {
        None => name.as_ref().map(DeviceNamespace::of_gateway),
        Some(text) => device_namespace(walk, text),
    };
    let (clock_trust_file, clock_trust_promised) = section.path_or_default(walk.report, "clock_trust_file", &walk.base);
    Some(Gateway { name: name?, device_namespace: device_namespace?, state_dir: state_dir?.0, clock_trust_file, clock_trust_promised })
}

fn device_namespace(walk: &mut Walk<'_>, text: Text<'_>) -> Option<DeviceNamespace> {
    let named = DeviceNamespace::new(text.text);
    if let Err(error) = &named {
        let message = format!("device_namespace in [gateway] is {}: {error}", quoted(text.text));
        walk.report.at(text.at, message, "write a name like \"clinic-north\", the same on every gateway that shares its devices");
    }
    named.ok()
}

fn store(walk: &mut Walk<'_>, top: &Section<'_>) -> Store {
    let section = once_or_empty(walk, top, "store", &schema::STORE);
    Store {
        free_space_floor_mib: section.integer(walk.report, "free_space_floor_mib"),
        retention_days: section.integer(walk.report, "retention_days"),
        key_credential: section
            .text(walk.report, "key_credential")
            .and_then(|text| credential_name(walk, &section, "key_credential", text)),
        given_up: given_up(walk, &section),
    }
}

fn given_up(walk: &mut Walk<'_>, section: &Section<'_>) -> Vec<DestinationId> {
    let names = section.text_list(walk.report, "given_up").unwrap_or_default();
    if let Some(first) = names.get(DESTINATIONS_MAX) {
        let message = format!("given_up in [store] names {} destinations", names.len());
        walk.report.at(first.at, message, format!("keep at most {DESTINATIONS_MAX}; what was given up already needs no name any more"));
        return Vec::new();
    }
    for name in names {
        match DestinationId::new(name.text) {
            Err(error) => {
                let message = format!("given_up in [store] holds {}: {error}", quoted(name.text));
                walk.report.at(name.at, message, "write the id that the destination had");
            }
            Ok(id) => {
                if walk.given_up.insert(id, name.at).is_some() {
                    walk.report.at(name.at, format!("given_up in [store] names {} twice", quoted(name.text)), "name it once");
                }
            }
        }
    }
    walk.given_up.keys().cloned().collect()
}

/// The name becomes a file's name in the folder that systemd makes.
pub(crate) fn credential_name(walk: &mut Walk<'_>, section: &Section<'_>, key: &str, text: Text<'_>) -> Option<String> {
    /// Hexadecimal digits of a key of 32 bytes.
    const KEY_DIGITS: usize = 64;
    let is_a_key = text.text.len() == KEY_DIGITS && text.text.bytes().all(|byte| byte.is_ascii_hexdigit());
    // The rules of our own names are stricter than those of systemd.
    let wrong = match GatewayId::new(text.text) {
        Ok(_) if is_a_key => "it reads like the key itself".to_owned(),
        Ok(_) => return Some(text.text.to_owned()),
        Err(error) => error.to_string(),
    };
    // It may be the key itself: the value is not repeated.
    let message = format!("{key} in {} is no name of a credential: {wrong}", section.place);
    walk.report.at(text.at, message, "write the name that the unit's LoadCredentialEncrypted= begins with");
    None
}

fn mqtt(walk: &mut Walk<'_>, section: &Section<'_>, gateway: Option<&Gateway>) -> Option<Mqtt> {
    let listen = listener(walk, section, "listen", "listen in [mqtt]");
    let plain_listen =
        section.text(walk.report, "plain_listen").and_then(|text| socket_address(walk, text, "plain_listen in [mqtt]", true));
    let allow_plain_beyond_loopback = section.boolean(walk.report, "allow_plain_beyond_loopback");
    if let Some((address, at)) = plain_listen
        && !address.ip().is_loopback()
        && !allow_plain_beyond_loopback
    {
        let message = format!("plain_listen in [mqtt] is {address}: readings and passwords would cross the network in the clear");
        walk.report.at(at, message, "listen on 127.0.0.1, or set allow_plain_beyond_loopback = true");
    }
    let server_names = server_names(walk, section, gateway);
    let client_certificate = match section.one_of(walk.report, "client_certificate") {
        "optional" => ClientCertificate::Optional,
        _ => ClientCertificate::Required,
    };
    if let Some((address, at)) = plain_listen
        && !address.ip().is_loopback()
        && allow_plain_beyond_loopback
        && client_certificate == ClientCertificate::Required
    {
        let message = format!("plain_listen in [mqtt] is {address}: without TLS no device can show the certificate that is required");
        walk.report.at(at, message, "set client_certificate = \"optional\" and give the devices passwords, or listen on 127.0.0.1");
    }
    let connections_max = section.integer(walk.report, "connections_max");
    let messages_per_second_max = section.integer(walk.report, "messages_per_second_max");
    let packet_bytes_max = section.integer(walk.report, "packet_bytes_max");
    Some(Mqtt {
        listen: listen?.0,
        server_names,
        client_certificate,
        plain_listen: plain_listen.map(|(address, _)| address),
        allow_plain_beyond_loopback,
        connections_max,
        messages_per_second_max,
        packet_bytes_max,
    })
}

fn server_names(walk: &mut Walk<'_>, section: &Section<'_>, gateway: Option<&Gateway>) -> Vec<String> {
    let Some(names) = section.text_list(walk.report, "server_names") else {
        let name = gateway.map(|gateway| gateway.name.as_str()).unwrap_or_default();
        if gateway.is_some() && !address::is_name_or_address(name) {
            let message = format!("[mqtt] has no server_names, and the gateway's name {} is no DNS name", quoted(name));
            walk.report.at(section.at, message, "add server_names = [\"...\"] with the names that devices connect to");
        }
        return vec![name.to_owned()];
    };
    if names.is_empty() || names.len() > SERVER_NAMES_MAX {
        let message = format!("server_names in [mqtt] has {} names", names.len());
        walk.report.at(section.at, message, format!("write 1 to {SERVER_NAMES_MAX} names that devices connect to"));
    }
    for name in names.iter().filter(|name| !address::is_name_or_address(name.text)) {
        let message = format!("server_names in [mqtt] holds {}, neither a DNS name nor an IP address", quoted(name.text));
        walk.report.at(name.at, message, "write it as \"gateway.local\" or \"192.0.2.7\"");
    }
    names.iter().map(|name| name.text.to_owned()).collect()
}

fn profiles(walk: &mut Walk<'_>, top: &Section<'_>, lookup: Option<ProfileLookup<'_>>) -> (Profiles, Option<KnownProfiles>) {
    let section = once_or_empty(walk, top, "profiles", &schema::PROFILES);
    let dir = section.path(walk.report, "dir", &walk.base);
    if let Some((dir, at)) = &dir
        && let Err(error) = std::fs::read_dir(dir)
    {
        let message = format!("dir in [profiles]: {} cannot be listed ({error})", dir.display());
        walk.report.at(*at, message, "create the folder, or let the gateway's user read it");
        return (Profiles { dir: Some(dir.clone()) }, None);
    }
    let known = lookup.map(|lookup| lookup(dir.as_ref().map(|(dir, _)| dir.as_path())));
    let at = dir.as_ref().map_or(0, |(_, at)| *at);
    for fault in known.iter().flat_map(|known| &known.faults) {
        walk.report.at(at, format!("profile: {fault}"), "correct the profile");
    }
    (Profiles { dir: dir.map(|(dir, _)| dir) }, known)
}

fn console(walk: &mut Walk<'_>, top: &Section<'_>, gateway: Option<&Gateway>) -> Option<Console> {
    let section = once_or_empty(walk, top, "console", &schema::CONSOLE);
    let listen = listener(walk, &section, "listen", "listen in [console]");
    if let Some((address, at)) = listen
        && !address.ip().is_loopback()
    {
        let message = format!("listen in [console] is {address}, which other machines can reach");
        walk.report.at(at, message, "listen on 127.0.0.1 or [::1]; it serves health and metrics without a login");
    }
    let state_dir = gateway.map(|gateway| gateway.state_dir.as_path()).unwrap_or(Path::new(""));
    let socket = section.path(walk.report, "admin_socket", &walk.base);
    let (admin_socket, at) = socket.unwrap_or_else(|| (state_dir.join("admin.sock"), section.at));
    if admin_socket.as_os_str().len() > SOCKET_PATH_BYTES_MAX {
        let message = format!("admin_socket in [console]: {} is longer than {SOCKET_PATH_BYTES_MAX} bytes", admin_socket.display());
        walk.report.at(at, message, "set admin_socket to a shorter path, such as \"/run/vitalgate/admin.sock\"");
    }
    Some(Console { listen: listen?.0, admin_socket })
}

fn log(walk: &mut Walk<'_>, top: &Section<'_>) -> Log {
    let section = once_or_empty(walk, top, "log", &schema::LOG);
    let format = match section.one_of(walk.report, "format") {
        "json" => LogFormat::Json,
        _ => LogFormat::Human,
    };
    let level = match section.one_of(walk.report, "level") {
        "error" => LogLevel::Error,
        "warn" => LogLevel::Warn,
        "debug" => LogLevel::Debug,
        "trace" => LogLevel::Trace,
        _ => LogLevel::Info,
    };
    Log { format, level }
}

fn listener(walk: &mut Walk<'_>, section: &Section<'_>, name: &'static str, title: &'static str) -> Option<(SocketAddr, usize)> {
    let text = section.text_or_default(walk.report, name);
    socket_address(walk, text, title, section.has(name))
}

/// An address to listen on that nothing else here listens on. A clash is told on a line that says so, not on that of a default.
fn socket_address(walk: &mut Walk<'_>, text: Text<'_>, place: &'static str, is_written: bool) -> Option<(SocketAddr, usize)> {
    let Ok(address) = text.text.parse::<SocketAddr>() else {
        let message = format!("{place} is {}, no address to listen on", quoted(text.text));
        walk.report.at(text.at, message, "write IP:port, such as \"127.0.0.1:1883\" or \"[::1]:1883\"");
        return None;
    };
    let overlaps = |other: &SocketAddr| {
        other.port() == address.port()
            && address.port() != 0
            && (other.ip() == address.ip() || other.ip().is_unspecified() || address.ip().is_unspecified())
    };
    if let Some((other, by, by_at)) = walk.listeners.iter().find(|(other, ..)| overlaps(other)) {
        let (at, message) = if is_written {
            (text.at, format!("{place} is {address}, but {by} is {other} already"))
        } else {
            (*by_at, format!("{by} is {other}, but {place} is {address} already"))
        };
        walk.report.at(at, message, "give each its own port");
    }
    walk.listeners.push((address, place, text.at));
    Some((address, text.at))
}
