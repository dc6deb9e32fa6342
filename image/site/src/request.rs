//! Signed requests on a stick: support data, factory reset, decommissioning, a certificate for the appliance, dead letters
//! sent again or discarded.

use std::fmt;

use vitalgate_domain::DeadLetterSelector;
use vitalgate_layout::Rejection;

use crate::check::{certificates, day, one_line, serials};
use crate::day::Day;
use crate::error::{Findings, SiteError};
use crate::key::{PublicKey, from_hex};
use crate::reader::{Section, Text, parse, quoted};
use crate::refusal::SiteRefusal;
use crate::schema;
use crate::signature::{Purpose, SignedBy, Signer, open_text, sign_text};
use crate::signed::{SignError, meant_for, readable, still_valid};
use crate::site::Serial;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// A support bundle.
    Support,
    /// Erase everything, wait for a new site file.
    Reset,
    /// Erase everything and certify it.
    Decommission,
    /// Take the certificate that an authority issued for the appliance's own key.
    Certificate,
    /// Decode, admit and send all dead letters again.
    Replay,
    /// Discard dead letters.
    Discard,
}

impl Action {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Support, Self::Reset, Self::Decommission, Self::Certificate, Self::Replay, Self::Discard];

    /// As it is written.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Support => "support",
            Self::Reset => "reset",
            Self::Decommission => "decommission",
            Self::Certificate => "certificate",
            Self::Replay => "replay",
            Self::Discard => "discard",
        }
    }

    /// Reads a word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.word() == word)
    }
}

impl fmt::Display for Action {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.word())
    }
}

/// What is discarded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Discard {
    /// These dead letters. That all are meant stands in the request as such.
    pub selector: DeadLetterSelector,
    /// Only say how many they are.
    pub count: bool,
}

const KIND: &str = "kind";
const DEVICE: &str = "device";
const BEFORE: &str = "before";
const ALL: &str = "all";
const COUNT: &str = "count";

impl Discard {
    /// What stands in the request.
    fn to_text(&self) -> String {
        let DeadLetterSelector { kind, device, before } = &self.selector;
        let text = |key: &str, value: Option<String>| value.map(|value| format!("{key} = {}\n", toml::Value::from(value)));
        let flag = |key: &str, flag: bool| flag.then(|| format!("{key} = true\n"));
        let lines = [
            text(KIND, kind.map(|kind| kind.word().to_owned())),
            text(DEVICE, device.as_ref().map(ToString::to_string)),
            text(BEFORE, before.map(|before| before.rfc3339(0))),
            flag(ALL, self.selector.is_all()),
            flag(COUNT, self.count),
        ];
        lines.into_iter().flatten().collect()
    }
}

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// What is asked for.
    pub action: Action,
    /// 32 hex digits, never used twice: an appliance that remembers them does nothing twice.
    pub id: String,
    /// The appliances that it is for.
    pub serial: Serial,
    /// The last day on which it is done.
    pub expires: Day,
    /// Who asks.
    pub technician: String,
    /// Why.
    pub reason: String,
    /// The certificate and those that issued it, PEM; with [`Action::Certificate`] and with no other.
    pub certificate_pem: Option<String>,
    /// What is discarded; with [`Action::Discard`] and with no other.
    pub discard: Option<Discard>,
}

impl Request {
    /// The text that is signed.
    pub fn to_text(&self) -> String {
        let text = |text: &str| toml::Value::from(text).to_string();
        let serial = match &self.serial {
            Serial::Any => text("any"),
            Serial::OneOf(serials) => format!("[{}]", serials.iter().map(|one| text(one)).collect::<Vec<_>>().join(", ")),
        };
        let certificate = self.certificate_pem.as_ref().map(|pem| format!("certificate_pem = {}\n", text(pem))).unwrap_or_default();
        let discard = self.discard.as_ref().map(Discard::to_text).unwrap_or_default();
        format!(
            "[request]\naction = {}\nid = {}\nserial = {serial}\nexpires = {}\ntechnician = {}\nreason = {}\n{certificate}{discard}",
            text(self.action.word()),
            text(&self.id),
            text(&self.expires.to_string()),
            text(&self.technician),
            text(&self.reason)
        )
    }
}

/// Checks the text of a request.
///
/// # Errors
/// Everything that is wrong with it, by line.
pub fn check_request(text: &str, file_name: &str) -> Result<Request, Vec<SiteError>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut findings = Findings::new(file_name, text);
    let (root, readable) = parse(&mut findings, text);
    let request = if readable {
        let root = Section::open(&mut findings, &schema::REQUEST_ROOT, root.get_ref(), 0);
        root.section(&mut findings, "request", &schema::REQUEST).and_then(|section| read(&mut findings, &section))
    } else {
        None
    };
    match request {
        Some(request) if findings.is_empty() => Ok(request),
        _ => Err(findings.into_errors()),
    }
}

fn read(findings: &mut Findings, section: &Section<'_>) -> Option<Request> {
    let action = section.text(findings, "action").and_then(|text| {
        let action = Action::parse(text.text);
        if action.is_none() {
            let what = format!("is {}", quoted(text.text));
            section.wrong(
                findings,
                text.at,
                "action",
                &what,
                "write \"support\", \"reset\", \"decommission\", \"certificate\", \"replay\" or \"discard\"",
            );
        }
        action
    });
    let id = section.text(findings, "id").and_then(|text| {
        let id = from_hex::<16>(text.text).map(|_| text.text.to_ascii_lowercase());
        if id.is_none() {
            section.wrong(findings, text.at, "id", "is no 32 hex digits", "let imagectl make the request");
        }
        id
    });
    let serial = serials(findings, section);
    let expires = day(findings, section);
    let technician = one_line(findings, section, "technician");
    let reason = one_line(findings, section, "reason");
    let certificate_pem = certificate(findings, section, action);
    let discard = discard(findings, section, action);
    Some(Request {
        action: action?,
        id: id?,
        serial: serial?,
        expires: expires?,
        technician: technician?,
        reason: reason?,
        certificate_pem,
        discard,
    })
}

/// What is discarded, with the one action that discards. Nothing named is an error, not everything.
fn discard<'a>(findings: &mut Findings, section: &Section<'a>, action: Option<Action>) -> Option<Discard> {
    let action = action?;
    if action != Action::Discard {
        for key in [KIND, DEVICE, BEFORE, ALL, COUNT] {
            if let Some(value) = section.value(findings, key) {
                let what = format!("belongs to no {action}");
                section.wrong(findings, value.span().start, key, &what, "remove it, or write action = \"discard\"");
            }
        }
        return None;
    }
    let named = [KIND, DEVICE, BEFORE].into_iter().any(|key| section.table.contains_key(key));
    if section.boolean(findings, ALL).unwrap_or(false) == named {
        let what = if named { "the request names all dead letters, and some of them" } else { "the request names no dead letters" };
        findings.at(section.at, what, "add kind, device or before, or else all = true");
    }
    let texts @ [kind, device, before] = [KIND, DEVICE, BEFORE].map(|key| section.text(findings, key));
    let word = |text: Option<Text<'a>>| text.map(|text| text.text);
    let count = section.boolean(findings, COUNT).unwrap_or(false);
    match DeadLetterSelector::parse(word(kind), word(device), word(before)) {
        Ok(selector) => Some(Discard { selector, count }),
        Err(error) => {
            let wrong = [KIND, DEVICE, BEFORE].into_iter().zip(texts).find(|(key, _)| *key == error.name);
            if let Some((key, Some(text))) = wrong {
                section.wrong(findings, text.at, key, &format!("is {}", quoted(text.text)), error.remedy);
            }
            None
        }
    }
}

/// The certificate, with the one action that takes one. Whether an appliance can use it is the appliance's to judge.
fn certificate(findings: &mut Findings, section: &Section<'_>, action: Option<Action>) -> Option<String> {
    const KEY: &str = "certificate_pem";
    let pem = section.table.contains_key(KEY).then(|| section.long_text(findings, KEY)).flatten();
    match (action?, pem) {
        (Action::Certificate, Some(pem)) => certificates(findings, section, KEY, pem),
        (Action::Certificate, None) => {
            findings.at(section.at, "the request brings no certificate", "let imagectl make the request, with --certificate");
            None
        }
        (other, Some(pem)) => {
            section.wrong(findings, pem.at, KEY, &format!("belongs to no {other}"), "remove it, or write action = \"certificate\"");
            None
        }
        (_, None) => None,
    }
}

/// Signs a request.
///
/// # Errors
/// [`SignError`]
pub fn sign_request(request: &Request, signer: &Signer) -> Result<String, SignError> {
    let text = request.to_text();
    check_request(&text, "request").map_err(SignError::Errors)?;
    sign_text(signer, Purpose::Request, &text)
}

/// Opens a request on an appliance; `today` as for [`crate::open_signed`].
///
/// # Errors
/// A refusal with its number.
pub fn open_request(bytes: &[u8], roots: &[PublicKey], serial: &str, today: Day) -> Result<(Request, SignedBy), SiteRefusal> {
    let (body, signed_by) = open_text(readable(bytes)?, Purpose::Request, roots, today)?;
    let request = check_request(&body, "request").map_err(|errors| SiteRefusal::with_errors(Rejection::ErrorsInText, errors))?;
    still_valid(request.expires, today)?;
    meant_for(&request.serial, serial)?;
    Ok((request, signed_by))
}
