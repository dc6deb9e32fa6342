//! What the appliance identifies itself with to servers that demand a client certificate.
//!
//! One key for the appliance, not one a destination: certificate and request name the appliance, so that a
//! hospital registers or certifies it once; and a unit's credentials are fixed, destinations are not. The key
//! is made here, is kept only as a credential that the TPM opens for the daemon, and never leaves. Beside it
//! lies a copy under a key that is derived from the recovery key, as of the store's key: who replaces a TPM
//! and brings the recovery key goes on delivering, without asking the EHR's people for anything. Where that
//! copy cannot be had, a new key is made, and said to be new. A reset destroys all of it with the volume.

mod certificate;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use vitalgate_layout::state::{Part, PartState, StateWord};
use vitalgate_layout::{fact, path};
use vitalgate_site::{Day, Site};
use vitalgate_trust::{ClientChain, ClientIdentity};
use zeroize::Zeroizing;

pub(crate) use certificate::take_certificate;

use crate::command::{Programs, System};
use crate::places::Places;
use crate::state_file::{StateFiles, now_unix_ms, replace};
use crate::storage::{RecoveryKey, StorageError, key_wrap};
use crate::{machine, provision, report, site_file};

/// Files of the folder: the credential, whose presence says that the folder is whole.
const KEY: &str = "key.cred";
/// The key under a key that is derived from the recovery key.
const COPY: &str = "key.recovery";
/// The certificate that stands for itself.
const OWN: &str = "own.pem";
/// The request for an authority.
const REQUEST: &str = "request.pem";
/// What an authority made of it, in place of the certificate that stands for itself.
const ISSUED: &str = "issued.pem";
/// When the key was made, where that was after commissioning.
const RENEWED: &str = "renewed";
/// Largest of these files, in bytes.
const FILE_BYTES_MAX: u64 = 64 * 1024;
const CONTEXT: &[u8] = b"vitalgate client key under the recovery key 1";
/// What to say where it should be there and is not.
pub(crate) const MISSING: &str =
    "the appliance's own certificate is missing; see what vitalgate-identity.service says, and restart the appliance";

/// Makes it where the site file asks for it and it is not there, and the key that signs reports first: this is the step that has
/// the TPM at each start.
pub(crate) fn identity() -> anyhow::Result<ExitCode> {
    let places = Places::system();
    let states = StateFiles::of(&places);
    // Reports can wait, readings cannot.
    if let Err(error) = reports(&places, &states) {
        crate::cli::say(&format!("{error:#}"));
    }
    ensure(&places, &System, &states, &site_file::kept(&places)?).inspect_err(|error| {
        let said = say(&states, Some(StateWord::ProvisionRejected), &format!("{error:#}"), BTreeMap::new());
        if let Err(error) = said {
            crate::cli::say(&error.to_string());
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Makes the key that signs reports where there is none, or the TPM has it no more.
fn reports(places: &Places, states: &StateFiles) -> anyhow::Result<()> {
    report::key(places)?;
    say(states, None, "", report::facts(places)).context("the state file cannot be written; restart the appliance")
}

fn ensure(places: &Places, programs: &dyn Programs, states: &StateFiles, site: &Site) -> anyhow::Result<()> {
    let folder = places.at(path::IDENTITY);
    if site.client_certificate_for.is_empty() || folder.join(KEY).exists() {
        return Ok(());
    }
    make(places, programs, states, site).context("the appliance's own key and certificate cannot be made")?;
    let shown = shown(places).context(MISSING)?;
    crate::cli::say(&format!("made a key and a certificate for {}: {}", site.client_certificate_for.join(", "), shown.fingerprint()));
    say(states, None, "", facts(places)).context("the state file cannot be written; restart the appliance")
}

/// Everything is put into a folder of its own, which gets its name when it is whole.
fn make(places: &Places, programs: &dyn Programs, states: &StateFiles, site: &Site) -> anyhow::Result<()> {
    let made = ClientIdentity::generate(&site.gateway, &machine::serial(places))?;
    let secret = made.key_pem.expose().as_bytes();
    let sealed = states.read(Part::Data).and_then(|state| state.facts.get(fact::SEALED).cloned()).as_deref() != Some(fact::SEALED_NO);
    let mut files = vec![
        (KEY, key_wrap::credential(programs, places, path::CLIENT_KEY_CREDENTIAL_NAME, secret, sealed)?),
        (OWN, made.certificate_pem.clone().into_bytes()),
        (REQUEST, made.request_pem.clone().into_bytes()),
    ];
    match recovery_key(places)? {
        Some(recovery) => files.push((COPY, key_wrap::wrap(CONTEXT, secret, &recovery)?)),
        None => files.push((RENEWED, machine::moment(now_unix_ms()).into_bytes())),
    }
    let folder = places.at(path::IDENTITY);
    keep(&folder, &files).context("sealed storage does not take them; restart the appliance")
}

fn keep(folder: &Path, files: &[(&str, Vec<u8>)]) -> io::Result<()> {
    let new = folder.with_extension("new");
    for old in [new.as_path(), folder] {
        match fs::remove_dir_all(old) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    fs::create_dir_all(&new)?;
    files.iter().try_for_each(|(name, bytes)| replace(&new.join(name), bytes, 0o600))?;
    fs::rename(&new, folder)?;
    fs::File::open(folder.parent().unwrap_or(folder))?.sync_all()
}

/// The recovery key; the appliance has it until it is commissioned.
///
/// # Errors
/// When something is there that cannot be read as one.
pub(crate) fn recovery_key(places: &Places) -> anyhow::Result<Option<RecoveryKey>> {
    match fs::read_to_string(places.at(path::RECOVERY_KEY)) {
        Ok(text) => Ok(Some(RecoveryKey::parse(&Zeroizing::new(text))?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).context("the recovery key cannot be read"),
    }
}

/// Makes the credential anew for another TPM, from the copy that the recovery key opens. A key that no TPM opens
/// any more is taken away: the next step makes a new one, and the gateway starts.
pub(crate) fn seal_anew(programs: &dyn Programs, places: &Places, folder: &Path, recovery: &RecoveryKey) {
    if !folder.join(KEY).exists() {
        return;
    }
    let sealed = || {
        let copy = fs::read(folder.join(COPY)).map_err(|_| StorageError::CopyDamaged)?;
        let secret = key_wrap::unwrap(CONTEXT, &copy, recovery)?;
        let credential = key_wrap::credential(programs, places, path::CLIENT_KEY_CREDENTIAL_NAME, &secret, true)?;
        replace(&folder.join(KEY), &credential, 0o600).map_err(StorageError::Synchronise)
    };
    if let Err(error) = sealed() {
        crate::cli::say(&format!("the appliance's client key is made anew: {error}"));
        if let Err(error) = fs::remove_file(folder.join(KEY)) {
            crate::cli::say(&format!("{}: {error}", folder.display()));
        }
    }
}

/// What the appliance shows now, and the request for what it could show instead.
pub(crate) struct Shown {
    /// The certificate with those that issued it.
    pub(crate) chain: ClientChain,
    /// The request (PKCS #10, PEM).
    pub(crate) request: String,
}

impl Shown {
    /// SHA-256 of the certificate, as other tools show it.
    pub(crate) fn fingerprint(&self) -> String {
        let pairs: Vec<_> = self.chain.fingerprint.iter().map(|byte| format!("{byte:02X}")).collect();
        pairs.join(":")
    }

    /// Its last day.
    pub(crate) fn until(&self) -> String {
        Day::from_unix_ms(i64::try_from(self.chain.ends_unix_s).unwrap_or(i64::MAX).saturating_mul(1000)).to_string()
    }

    fn issuer(&self) -> &str {
        if self.chain.self_signed { "itself" } else { &self.chain.issuer }
    }
}

/// What the appliance identifies itself with, if anything.
pub(crate) fn shown(places: &Places) -> Option<Shown> {
    let folder = places.at(path::IDENTITY);
    folder.join(KEY).exists().then_some(())?;
    let own = chain(&folder, OWN)?;
    let issued = chain(&folder, ISSUED).filter(|issued| issued.for_key_of(&own).is_ok());
    Some(Shown { chain: issued.unwrap_or(own), request: text(&folder, REQUEST)? })
}

fn chain(folder: &Path, name: &str) -> Option<ClientChain> {
    ClientChain::read(&text(folder, name)?).ok()
}

fn text(folder: &Path, name: &str) -> Option<String> {
    let file = folder.join(name);
    let known = fs::metadata(&file).ok()?;
    (known.len() <= FILE_BYTES_MAX).then(|| fs::read_to_string(file).ok()).flatten()
}

/// What the status page shows of it.
pub(crate) fn facts(places: &Places) -> BTreeMap<String, String> {
    let Some(shown) = shown(places) else { return BTreeMap::new() };
    let mut facts = BTreeMap::from([
        ("client_certificate".to_owned(), shown.fingerprint()),
        ("client_certificate_issuer".to_owned(), shown.issuer().to_owned()),
        ("client_certificate_until".to_owned(), shown.until()),
    ]);
    let renewed = text(&places.at(path::IDENTITY), RENEWED).filter(|_| shown.chain.self_signed);
    let told = |moment| format!("made anew on {moment}: register it at the EHR; a stick CERTIFICATE takes certificate and request");
    facts.extend(renewed.map(|moment| ("client_certificate_note".to_owned(), told(moment))));
    facts
}

/// Says something more in the part that the site file belongs to. Whoever began that part has ended by now.
fn say(states: &StateFiles, word: Option<StateWord>, detail: &str, facts: BTreeMap<String, String>) -> io::Result<()> {
    let Some(mut state): Option<PartState> = states.read(Part::Provision) else { return Ok(()) };
    if let Some(word) = word {
        state.code = Some(vitalgate_layout::Rejection::NotApplied.code());
        state.word = word;
    }
    if !detail.is_empty() {
        detail.clone_into(&mut state.detail);
    }
    state.facts.extend(facts);
    states.write(Part::Provision, &state)
}

/// Whether the appliance is in service, so that a stick may change what it shows.
fn in_service(places: &Places) -> bool {
    provision::is_commissioned(places)
}
