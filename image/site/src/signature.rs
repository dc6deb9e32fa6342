//! Signatures that a person can read: comment lines at the end of a text.
//!
//! Signed is what stands before them, without byte order mark, with Unix line ends and without blank
//! space at its end, so that an editor on Windows spoils nothing. A purpose goes into what is signed:
//! a request can never pass as a site file.

use std::fmt;

use vitalgate_layout::Rejection;
use vitalgate_layout::stick::SITE_FILE_BYTES_MAX;

use crate::day::Day;
use crate::key::{PublicKey, SIGNATURE_BYTES, SigningKey, from_hex, to_hex};
use crate::refusal::SiteRefusal;
use crate::signed::SignError;

const BEGIN: &str = "# -----BEGIN VITALGATE SIGNATURE-----";
const END: &str = "# -----END VITALGATE SIGNATURE-----";
/// First line of everything that is signed.
const DOMAIN: &str = "vitalgate-signature-1";
/// Said of a key that a TPM made, where it signs something else.
const REPORTS_ONLY: &str = "a P-256 key signs an appliance's reports only";
/// Longest name of a delegation in characters.
const NAME_CHARS_MAX: usize = 64;

/// What a signature is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Purpose {
    /// A site file.
    Site,
    /// A request for support data, a reset or the decommissioning.
    Request,
    /// The right to sign, given on.
    Delegation,
    /// A report of an appliance.
    Report,
}

impl Purpose {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Site, Self::Request, Self::Delegation, Self::Report];

    /// As it is written.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Site => "site",
            Self::Request => "request",
            Self::Delegation => "delegation",
            Self::Report => "report",
        }
    }

    /// Reads a word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|purpose| purpose.word() == word)
    }
}

/// The right to sign that a root key gave to another key, for a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delegation {
    key: PublicKey,
    name: String,
    expires: Day,
    purposes: Vec<Purpose>,
    by: PublicKey,
    signature: [u8; SIGNATURE_BYTES],
}

impl Delegation {
    /// Gives the right on. `name` says who holds the key, such as `Service north`.
    ///
    /// # Errors
    /// What cannot be given on, in words.
    pub fn grant(root: &SigningKey, key: PublicKey, name: &str, expires: Day, purposes: &[Purpose]) -> Result<Self, &'static str> {
        let purposes: Vec<_> = [Purpose::Site, Purpose::Request].into_iter().filter(|purpose| purposes.contains(purpose)).collect();
        if purposes.is_empty() {
            return Err("a delegation is for site files, requests or both");
        }
        if key.signs_reports_only() {
            return Err(REPORTS_ONLY);
        }
        if !is_name(name) {
            return Err("a name has 1 to 64 characters, no quotes and no backslash");
        }
        let mut made = Self { key, name: name.to_owned(), expires, purposes, by: root.public(), signature: [0; SIGNATURE_BYTES] };
        made.signature = root.sign_bytes(&message(Purpose::Delegation, &made.by, &made.body()));
        Ok(made)
    }

    /// Reads a delegation's file; whether its signature holds is judged when something signed with it is opened.
    ///
    /// # Errors
    /// A refusal with its number.
    pub fn parse(text: &str) -> Result<Self, SiteRefusal> {
        let text = normalised(text);
        let (body, armour) = split(&text)?;
        let armour = armour.ok_or_else(|| SiteRefusal::new(Rejection::NoSignature, ""))?;
        let signature = Signature::parse(armour)?;
        may_sign(&signature.key, Purpose::Delegation)?;
        let field = |name: &str| {
            let value = body.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = "))?;
            value.strip_prefix('"')?.strip_suffix('"').map(str::to_owned)
        };
        let read = || {
            let purposes = field("for")?.split(' ').map(Purpose::parse).collect::<Option<Vec<_>>>()?;
            Some(Self {
                key: PublicKey::parse(&field("key")?).ok()?,
                name: field("name").filter(|name| is_name(name))?,
                expires: Day::parse(&field("expires")?)?,
                purposes,
                by: signature.key,
                signature: signature.signature,
            })
        };
        let delegation = read().ok_or_else(|| SiteRefusal::new(Rejection::ErrorsInText, "this is no delegation"))?;
        if delegation.is_genuine() { Ok(delegation) } else { Err(SiteRefusal::new(Rejection::SignatureWrong, "of the delegation")) }
    }

    /// The delegation's file.
    pub fn to_text(&self) -> String {
        armoured(&self.body(), Purpose::Delegation, &self.by, &self.signature, None)
    }

    /// The key that may sign.
    pub fn key(&self) -> PublicKey {
        self.key
    }

    /// Who holds it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The last day on which it may sign.
    pub fn expires(&self) -> Day {
        self.expires
    }

    /// What it may sign.
    pub fn purposes(&self) -> &[Purpose] {
        &self.purposes
    }

    /// Who gave the right.
    pub fn by(&self) -> PublicKey {
        self.by
    }

    fn body(&self) -> String {
        let Self { key, name, expires, .. } = self;
        format!("[delegation]\nkey = \"{}\"\nname = \"{name}\"\nexpires = \"{expires}\"\nfor = \"{}\"", key.to_hex(), self.words())
    }

    fn words(&self) -> String {
        self.purposes.iter().map(|purpose| purpose.word()).collect::<Vec<_>>().join(" ")
    }

    fn is_genuine(&self) -> bool {
        self.by.verifies(&message(Purpose::Delegation, &self.by, &self.body()), &self.signature)
    }
}

fn is_name(name: &str) -> bool {
    let length = name.chars().count();
    (1..=NAME_CHARS_MAX).contains(&length) && name.trim() == name && !name.chars().any(|one| one.is_control() || matches!(one, '"' | '\\'))
}

/// Makes a signature over bytes somewhere else, such as in a hardware token; says what went wrong.
pub type SignElsewhere = Box<dyn Fn(&[u8]) -> Result<Vec<u8>, String>>;

/// Where the private key is.
enum Holder {
    Here(SigningKey),
    Elsewhere(PublicKey, SignElsewhere),
}

/// A key, and where it is no root the right that it was given.
pub struct Signer {
    holder: Holder,
    delegation: Option<Delegation>,
}

impl Signer {
    /// A key that appliances know by themselves.
    pub fn root(key: SigningKey) -> Self {
        Self { holder: Holder::Here(key), delegation: None }
    }

    /// A key that never leaves the place that it is kept in.
    pub fn elsewhere(key: PublicKey, sign: SignElsewhere) -> Self {
        Self { holder: Holder::Elsewhere(key, sign), delegation: None }
    }

    /// A key that a root key gave the right to.
    ///
    /// # Errors
    /// [`Rejection::DelegationRefused`] when the delegation is for another key.
    pub fn delegated(key: SigningKey, delegation: Delegation) -> Result<Self, SiteRefusal> {
        Self::root(key).with_delegation(delegation)
    }

    /// The same key with the right that it was given.
    ///
    /// # Errors
    /// [`Rejection::DelegationRefused`] when the delegation is for another key.
    pub fn with_delegation(self, delegation: Delegation) -> Result<Self, SiteRefusal> {
        if delegation.key != self.public() {
            return Err(SiteRefusal::new(Rejection::DelegationRefused, "the delegation is for another key"));
        }
        Ok(Self { delegation: Some(delegation), ..self })
    }

    /// The key's public half.
    pub fn public(&self) -> PublicKey {
        match &self.holder {
            Holder::Here(key) => key.public(),
            Holder::Elsewhere(key, _) => *key,
        }
    }

    /// The delegation, where there is one.
    pub fn delegation(&self) -> Option<&Delegation> {
        self.delegation.as_ref()
    }

    /// A signature over a text; one from elsewhere is checked before it is used.
    pub(crate) fn signature(&self, purpose: Purpose, text: &str) -> Result<Vec<u8>, String> {
        may_sign(&self.public(), purpose).map_err(|refusal| refusal.detail().to_owned())?;
        let message = message(purpose, &self.public(), text);
        let signature = match &self.holder {
            Holder::Here(key) => key.sign_bytes(&message).to_vec(),
            Holder::Elsewhere(_, sign) => sign(&message)?,
        };
        if signature.len() != SIGNATURE_BYTES {
            return Err(format!("{} bytes came back, a signature has {SIGNATURE_BYTES}", signature.len()));
        }
        if !self.public().verifies(&message, &signature) {
            return Err("what came back is no signature of this key".to_owned());
        }
        Ok(signature)
    }

    fn sign(&self, purpose: Purpose, text: &str) -> Result<String, String> {
        Ok(armoured(text, purpose, &self.public(), &self.signature(purpose, text)?, self.delegation.as_ref()))
    }
}

/// Whether a key of its kind signs such things at all.
fn may_sign(key: &PublicKey, purpose: Purpose) -> Result<(), SiteRefusal> {
    if key.signs_reports_only() && purpose != Purpose::Report {
        return Err(SiteRefusal::new(Rejection::SignerUnknown, REPORTS_ONLY));
    }
    Ok(())
}

impl fmt::Debug for Signer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Signer(of {:?})", self.public())
    }
}

/// Who signed a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedBy {
    /// The key.
    pub key: PublicKey,
    /// Who holds it and until when, where it is no root key.
    pub delegated: Option<(String, Day)>,
}

impl fmt::Display for SignedBy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.delegated {
            None => write!(formatter, "root key {}", self.key.fingerprint()),
            Some((name, until)) => write!(formatter, "{name} (key {}, delegated until {until})", self.key.fingerprint()),
        }
    }
}

/// What stands in the comment lines.
struct Signature {
    purpose: Purpose,
    key: PublicKey,
    signature: [u8; SIGNATURE_BYTES],
    delegation: Option<Delegation>,
}

impl Signature {
    fn parse(armour: &str) -> Result<Self, SiteRefusal> {
        let field = |name: &str| armour.lines().find_map(|line| line.strip_prefix("# ")?.strip_prefix(name)?.strip_prefix(": "));
        let read = || {
            let key = PublicKey::parse_of_report(field("signed-by")?).ok()?;
            let delegation = match field("delegated-by") {
                None => None,
                Some(by) => Some(Delegation {
                    key,
                    name: field("delegated-to").filter(|name| is_name(name))?.to_owned(),
                    expires: Day::parse(field("delegated-until")?)?,
                    purposes: field("delegated-for")?.split(' ').map(Purpose::parse).collect::<Option<Vec<_>>>()?,
                    by: PublicKey::parse(by).ok()?,
                    signature: from_hex(field("delegation")?)?,
                }),
            };
            let purpose = Purpose::parse(field("purpose")?)?;
            Some(Self { purpose, key, signature: from_hex(field("signature")?)?, delegation })
        };
        read().ok_or_else(|| SiteRefusal::new(Rejection::NoSignature, "the lines of the signature are damaged"))
    }
}

/// Without byte order mark and with Unix line ends.
pub(crate) fn normalised(text: &str) -> String {
    text.strip_prefix('\u{feff}').unwrap_or(text).replace("\r\n", "\n")
}

/// The text without a signature that it may carry.
fn without_signature(text: &str) -> Result<String, SiteRefusal> {
    split(&normalised(text)).map(|(body, _)| body.to_owned())
}

/// What is signed, and the lines of the signature.
fn split(text: &str) -> Result<(&str, Option<&str>), SiteRefusal> {
    let Some(start) = line_start(text, BEGIN) else { return Ok((text.trim_end(), None)) };
    let (body, rest) = text.split_at(start);
    let damaged = || SiteRefusal::new(Rejection::NoSignature, "text stands after the signature, or its last line is missing");
    let inner = rest.strip_prefix(BEGIN).and_then(|rest| rest.trim_end().strip_suffix(END)).ok_or_else(damaged)?;
    if line_start(inner, BEGIN).is_some() || inner.lines().any(|line| !line.is_empty() && !line.starts_with("# ")) {
        return Err(damaged());
    }
    Ok((body.trim_end(), Some(inner)))
}

fn line_start(text: &str, line: &str) -> Option<usize> {
    text.match_indices(line).map(|(at, _)| at).find(|at| *at == 0 || text.as_bytes().get(at - 1) == Some(&b'\n'))
}

/// What is signed. A purpose and a key hold no line end, so that each part is told from the next.
fn message(purpose: Purpose, key: &PublicKey, text: &str) -> Vec<u8> {
    format!("{DOMAIN}\n{}\n{}\n{text}", purpose.word(), key.to_hex()).into_bytes()
}

fn armoured(body: &str, purpose: Purpose, key: &PublicKey, signature: &[u8], delegation: Option<&Delegation>) -> String {
    let mut text = format!("{}\n\n{BEGIN}\n# purpose: {}\n# signed-by: {}\n", body.trim_end(), purpose.word(), key.to_hex());
    text.push_str(&format!("# signature: {}\n", to_hex(signature)));
    if let Some(delegation) = delegation {
        let Delegation { name, expires, by, signature, .. } = delegation;
        text.push_str(&format!("# delegated-to: {name}\n# delegated-until: {expires}\n# delegated-for: {}\n", delegation.words()));
        text.push_str(&format!("# delegated-by: {}\n# delegation: {}\n", by.to_hex(), to_hex(signature)));
    }
    text.push_str(END);
    text.push('\n');
    text
}

/// Signs a text that may already carry a signature, which is replaced.
pub(crate) fn sign_text(signer: &Signer, purpose: Purpose, text: &str) -> Result<String, SignError> {
    let body = without_signature(text).map_err(SignError::Unopened)?;
    let signed = signer.sign(purpose, &body).map_err(SignError::NoSignature)?;
    if signed.len() as u64 > SITE_FILE_BYTES_MAX {
        return Err(SignError::TooLarge);
    }
    open_any(&signed, purpose).map_err(SignError::Unopened)?;
    Ok(signed)
}

/// Signs what an appliance says of itself, whatever it is.
pub(crate) fn sign_report(signer: &Signer, text: &str) -> Result<String, String> {
    signer.sign(Purpose::Report, &without_signature(text).unwrap_or_else(|_| normalised(text)))
}

/// Whether a signature that was kept apart holds.
pub(crate) fn verifies_detached(key: &PublicKey, purpose: Purpose, text: &str, signature: &[u8]) -> bool {
    key.verifies(&message(purpose, key, text), signature)
}

/// A text whose signature holds; who made it is for the caller to judge.
pub(crate) fn open_any(text: &str, purpose: Purpose) -> Result<(String, PublicKey, Option<Delegation>), SiteRefusal> {
    let text = normalised(text);
    let (body, armour) = split(&text)?;
    let armour = armour.ok_or_else(|| SiteRefusal::new(Rejection::NoSignature, ""))?;
    let signature = Signature::parse(armour)?;
    if signature.purpose != purpose {
        let detail = format!("it is a {}, wanted is a {}", signature.purpose.word(), purpose.word());
        return Err(SiteRefusal::new(Rejection::OtherPurpose, detail));
    }
    may_sign(&signature.key, purpose)?;
    if !verifies_detached(&signature.key, purpose, body, &signature.signature) {
        return Err(SiteRefusal::new(Rejection::SignatureWrong, ""));
    }
    Ok((body.to_owned(), signature.key, signature.delegation))
}

/// A text that a root key, or a key that a root key gave the right to, signed for this purpose.
pub(crate) fn open_text(text: &str, purpose: Purpose, roots: &[PublicKey], today: Day) -> Result<(String, SignedBy), SiteRefusal> {
    let (body, key, delegation) = open_any(text, purpose)?;
    if roots.contains(&key) {
        return Ok((body, SignedBy { key, delegated: None }));
    }
    let Some(delegation) = delegation.filter(|delegation| roots.contains(&delegation.by)) else {
        return Err(SiteRefusal::new(Rejection::SignerUnknown, format!("key {}", key.fingerprint())));
    };
    let refused = |detail: String| Err(SiteRefusal::new(Rejection::DelegationRefused, detail));
    if !delegation.is_genuine() {
        return refused("its signature does not match".to_owned());
    }
    if !delegation.purposes.contains(&purpose) {
        return refused(format!("it is for {}", delegation.words()));
    }
    if today > delegation.expires {
        return refused(format!("it ended on {}; by this clock today is {today}", delegation.expires));
    }
    Ok((body, SignedBy { key, delegated: Some((delegation.name, delegation.expires)) }))
}
