//! What a site file hands on to the daemon: written as the daemon's configuration, checked by the
//! daemon's own rules, with every error led back to the line of the site file that it came from.

use std::path::Path;

use toml::de::{DeTable, DeValue};
use vitalgate_config::{Config, KnownProfiles, ProfileKind, check_with_profiles};
use vitalgate_domain::{DeviceNamespace, GatewayId};
use vitalgate_layout::{path, port};
use vitalgate_profile::{Kind, Profiles};

use crate::error::Findings;
use crate::reader::Section;
use crate::render::Places;
use crate::schema;

/// The folder that stands for the real one while checking; nothing is read or written there.
const PLACE_OF_STATE: &str = "/data";

/// One line of the daemon's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Line {
    /// As it is.
    Text(String),
    /// The authorities of the destination of this name.
    Authorities(String),
    /// The credential that holds the key of the store.
    KeyCredential,
    /// The appliance's own certificate.
    OwnCertificate,
    /// The credential that holds its key.
    OwnKey,
}

impl Line {
    /// As it is written for these places; `None` where they leave it out.
    fn render(&self, places: &Places) -> Option<String> {
        let own = places.client_certificate.as_ref();
        let (key, value) = match self {
            Self::Text(line) => return Some(line.clone()),
            Self::Authorities(name) => ("ca_file", places.authorities.as_ref()?.join(format!("{name}.pem")).to_string_lossy().into_owned()),
            Self::KeyCredential => ("key_credential", places.key_credential.clone()?),
            Self::OwnCertificate => ("client_certificate_file", own?.file.to_string_lossy().into_owned()),
            Self::OwnKey => ("client_key_credential", own?.key_credential.clone()),
        };
        Some(format!("{key} = {}", quoted(&value)))
    }
}

/// What a destination uses beside its own keys.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Uses {
    /// Authorities of its own.
    pub(crate) authorities: bool,
    /// The appliance's certificate.
    pub(crate) own_certificate: bool,
}

/// Lines for the daemon, each with the line of the site file that it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Passage {
    gateway: String,
    device_namespace: String,
    lines: Vec<(Line, u32)>,
}

impl Passage {
    /// Begins; a gateway that has no name yet was reported and gets one for the time of the check.
    pub(crate) fn new(names: Option<(&GatewayId, &DeviceNamespace)>) -> Self {
        let names = names.map(|(gateway, namespace)| (gateway.to_string(), namespace.to_string()));
        let (gateway, device_namespace) = names.unwrap_or_else(|| ("unnamed".to_owned(), "unnamed".to_owned()));
        Self { gateway, device_namespace, lines: Vec::new() }
    }

    /// `[storage]` becomes `[store]`.
    pub(crate) fn storage(&mut self, findings: &Findings, section: Option<&Section<'_>>) {
        let line = section.map_or(0, |section| findings.line(section.at));
        self.header("[store]", line);
        self.lines.push((Line::KeyCredential, line));
        if let Some(section) = section {
            self.keys(findings, section, &["unsealed_allowed", "unsealed_reason"]);
        }
    }

    /// `[mqtt]`, with the port as an address; a port that is wrong was reported and stays out.
    pub(crate) fn mqtt(&mut self, findings: &mut Findings, section: Option<&Section<'_>>, port: Option<u16>) {
        let Some(section) = section else { return };
        let line = findings.line(section.at);
        self.header("[mqtt]", line);
        if let Some(port) = port {
            // All addresses, IPv4 and IPv6.
            self.push(format!("listen = \"[::]:{port}\""), line);
        }
        // A wrong list of names was reported where it was read.
        self.keys(findings, section, &["port"]);
    }

    /// Every `[[device]]`.
    pub(crate) fn devices(&mut self, findings: &mut Findings, root: &Section<'_>) {
        for (table, at) in root.tables(findings, "device") {
            let section = Section::open(findings, &schema::DEVICE, table, at);
            self.header("[[device]]", findings.line(at));
            self.keys(findings, &section, &[]);
        }
    }

    /// `[ehr]` or one `[[destination]]`.
    pub(crate) fn destination(&mut self, findings: &mut Findings, section: &Section<'_>, default_id: Option<&str>, uses: Uses) {
        let line = findings.line(section.at);
        self.header("[[destination]]", line);
        let id = section.table.get("id").and_then(|id| id.get_ref().as_str()).or(default_id);
        if let (Some(id), false) = (default_id, section.table.contains_key("id")) {
            self.push(format!("id = {}", quoted(id)), line);
        }
        if !section.table.contains_key("kind") {
            self.push("kind = \"fhir\"".to_owned(), line);
        }
        self.keys(findings, section, &["ca_pem", "client_certificate", "same_server_as"]);
        if let (Some(id), true) = (id, uses.authorities) {
            self.lines.push((Line::Authorities(id.to_owned()), line));
        }
        if uses.own_certificate {
            self.lines.extend([(Line::OwnCertificate, line), (Line::OwnKey, line)]);
        }
    }

    /// Checks everything by the daemon's rules.
    pub(crate) fn check(&self, findings: &mut Findings) -> Option<Config> {
        let places = Places { state_dir: PLACE_OF_STATE.into(), authorities: None, key_credential: None, client_certificate: None };
        let text = self.render(&places);
        let profiles = |_: Option<&Path>| profiles();
        match check_with_profiles(&text, "daemon", &profiles) {
            Ok(config) => Some(config),
            Err(errors) => {
                let (first, _) = self.frame(&places);
                let head = u32::try_from(first.lines().count()).unwrap_or(0);
                for error in errors {
                    let line = self.line_of_origin(error.line, head);
                    findings.on_line(line, self.with_lines_of_origin(&error.message, head).replace("[store]", "[storage]"), error.remedy);
                }
                None
            }
        }
    }

    /// The daemon's configuration.
    pub(crate) fn render(&self, places: &Places) -> String {
        let (mut text, last) = self.frame(places);
        for (line, _) in &self.lines {
            // What is left out keeps the count of lines.
            text.push_str(&line.render(places).unwrap_or_else(|| "#".to_owned()));
            text.push('\n');
        }
        text + &last
    }

    /// What stands before and after the lines.
    fn frame(&self, places: &Places) -> (String, String) {
        let state = quoted(&places.state_dir.to_string_lossy());
        let (name, namespace, clock) = (quoted(&self.gateway), quoted(&self.device_namespace), quoted(path::CLOCK_TRUST));
        let first = format!("[gateway]\nname = {name}\ndevice_namespace = {namespace}\nstate_dir = {state}\nclock_trust_file = {clock}\n");
        (first, format!("[console]\nlisten = \"127.0.0.1:{}\"\n", port::DAEMON_CONSOLE))
    }

    fn line_of_origin(&self, line: u32, head: u32) -> u32 {
        let place = line.checked_sub(head + 1).and_then(|place| usize::try_from(place).ok());
        place.and_then(|place| self.lines.get(place)).map_or(0, |(_, origin)| *origin)
    }

    /// `first on line 12` names a line of the daemon's text: names that of the site file instead.
    fn with_lines_of_origin(&self, message: &str, head: u32) -> String {
        let mut parts = message.split(" on line ");
        let mut text = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let digits = part.len() - part.trim_start_matches(|one: char| one.is_ascii_digit()).len();
            let (number, rest) = part.split_at(digits);
            let origin = number.parse().map_or(0, |line| self.line_of_origin(line, head));
            text.push_str(&format!(" on line {origin}{rest}"));
        }
        text
    }

    fn header(&mut self, title: &str, line: u32) {
        self.push(title.to_owned(), line);
    }

    fn push(&mut self, text: String, line: u32) {
        self.lines.push((Line::Text(text), line));
    }

    /// Every key that the section knows, as it is written; unknown ones were reported.
    fn keys(&mut self, findings: &Findings, section: &Section<'_>, without: &[&str]) {
        for (name, value) in section.table {
            let known = section.spec.keys.iter().any(|key| key.name == name.get_ref());
            if known && !without.contains(&name.get_ref().as_ref()) {
                self.push(format!("{} = {}", name.get_ref(), written(value.get_ref())), findings.line(value.span().start));
            }
        }
    }
}

fn profiles() -> KnownProfiles {
    let profiles = match Profiles::builtin() {
        Ok(profiles) => profiles,
        Err(errors) => return KnownProfiles { faults: vec![errors.to_string()], ..KnownProfiles::default() },
    };
    let kind = |id: &str| match profiles.get(id)?.kind() {
        Kind::Publish(_) => Some(ProfileKind::Publish),
        Kind::Polled(_) => Some(ProfileKind::Polled),
    };
    let kinds = profiles.ids().filter_map(|id| Some((id.to_owned(), kind(id)?))).collect();
    KnownProfiles { kinds, faults: Vec::new() }
}

/// A value on one line.
fn written(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => quoted(text),
        DeValue::Integer(number) => {
            let radix = match number.radix() {
                2 => "0b",
                8 => "0o",
                16 => "0x",
                _ => "",
            };
            format!("{radix}{}", number.as_str())
        }
        DeValue::Float(number) => number.as_str().to_owned(),
        DeValue::Boolean(flag) => flag.to_string(),
        DeValue::Datetime(date) => date.to_string(),
        DeValue::Array(items) => {
            let items: Vec<_> = items.iter().map(|item| written(item.get_ref())).collect();
            format!("[{}]", items.join(", "))
        }
        DeValue::Table(table) => format!("{{ {} }}", pairs(table).join(", ")),
    }
}

fn pairs(table: &DeTable<'_>) -> Vec<String> {
    table.iter().map(|(name, value)| format!("{} = {}", quoted(name.get_ref()), written(value.get_ref()))).collect()
}

/// A basic string (TOML 1.0, "String").
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for one in text.chars() {
        match one {
            '"' | '\\' => quoted.extend(['\\', one]),
            one if one.is_control() => quoted.push_str(&format!("\\u{:04X}", u32::from(one))),
            one => quoted.push(one),
        }
    }
    quoted.push('"');
    quoted
}
