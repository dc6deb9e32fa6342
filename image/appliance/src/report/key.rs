//! The appliance's own key, which signs its reports.
//!
//! Where there is a TPM, it makes the key and keeps it for itself ([`crate::tpm::key`]); sealed storage holds the random bytes that
//! the TPM makes it from, and who it was the first time. What the appliance signs then comes from this board. A board or TPM that
//! is replaced, or a TPM that is cleared, has another key, and the appliance says so; readings do not hang on this key. Without a
//! TPM, and where it refuses, the key is a file on that storage; one that is a file stays one. A reset destroys either with
//! the volume.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};

use anyhow::Context as _;
use aws_lc_rs::rand;
use vitalgate_layout::{fact, path};
use vitalgate_site::{PublicKey, Signer, SigningKey, open_report};
use zeroize::Zeroizing;

use crate::cli::say;
use crate::machine;
use crate::places::Places;
use crate::state_file::{now_unix_ms, replace};
use crate::text::hex;
use crate::tpm::key::{self as tpm, UNIQUE_BYTES};

/// First line of the file where the TPM has the key; a key that is a file is PEM.
const IN_TPM: &str = "vitalgate-report-key-tpm-1";
/// Largest of these files, in bytes.
const FILE_BYTES_MAX: u64 = 4096;

/// What sealed storage holds of the key.
enum Kept {
    File(SigningKey),
    InTpm(InTpm),
}

/// A key that the TPM made.
struct InTpm {
    /// What it is made from.
    unique: [u8; UNIQUE_BYTES],
    /// Who it was the first time.
    public: PublicKey,
}

/// The appliance's own key. It is made where there is none, and where the TPM has it no more.
///
/// # Errors
/// When sealed storage or the TPM does not answer.
pub(crate) fn key(places: &Places) -> anyhow::Result<Signer> {
    match Kept::read(places)? {
        None => make(places),
        Some(Kept::File(key)) => Ok(Signer::root(key)),
        Some(Kept::InTpm(kept)) if kept.is_there(places)? => Ok(kept.signer(places)),
        Some(Kept::InTpm(lost)) => {
            let note = format!("made anew on {} in place of {}", machine::moment(now_unix_ms()), lost.public.fingerprint());
            say(&format!("the key that signs reports is {note}: the TPM was cleared or replaced"));
            replace(&places.at(path::REPORT_KEY_RENEWED), note.as_bytes(), 0o600).context("sealed storage does not take the note")?;
            make(places)
        }
    }
}

/// The appliance's own key, if there is one and it can sign.
pub(crate) fn existing_key(places: &Places) -> Option<Signer> {
    match Kept::read(places).ok()?? {
        Kept::File(key) => Some(Signer::root(key)),
        Kept::InTpm(kept) => kept.is_there(places).is_ok_and(|there| there).then(|| kept.signer(places)),
    }
}

/// What a report says that this appliance signed with the key that it has now.
pub(crate) fn text_of_own(places: &Places, report: &[u8]) -> Option<String> {
    let report = open_report(report).ok()?;
    (report.signed_by == existing_key(places)?.public()).then_some(report.text)
}

/// What the status page shows of it. What a report is compared with: `imagectl report verify` prints the key that signed it.
pub(crate) fn facts(places: &Places) -> BTreeMap<String, String> {
    let Ok(Some(kept)) = Kept::read(places) else { return BTreeMap::new() };
    let public = kept.public();
    let mut facts = BTreeMap::from([
        (fact::REPORT_KEY.to_owned(), public.fingerprint()),
        (fact::REPORT_KEY_PLACE.to_owned(), place(&public).to_owned()),
    ]);
    let renewed = text(places, path::REPORT_KEY_RENEWED).ok().flatten();
    let told = |note: Zeroizing<String>| format!("{}: the TPM was cleared or replaced; reports of before keep their key", note.trim());
    facts.extend(renewed.map(|note| (fact::REPORT_KEY_NOTE.to_owned(), told(note))));
    facts
}

/// Where such a key is.
pub(super) const fn place(key: &PublicKey) -> &'static str {
    if key.signs_reports_only() { "made in the TPM, never leaves it" } else { "kept on the appliance's storage" }
}

fn make(places: &Places) -> anyhow::Result<Signer> {
    let keep = |text: &str| {
        replace(&places.at(path::REPORT_KEY), text.as_bytes(), 0o600).context("sealed storage does not take the appliance's key")
    };
    match InTpm::make(places) {
        Ok(Some(made)) => {
            keep(&made.text())?;
            return Ok(made.signer(places));
        }
        Ok(None) => {}
        Err(error) => say(&format!("the key that signs reports is kept on storage: {error:#}")),
    }
    let key = SigningKey::generate()?;
    keep(&key.to_pem()?)?;
    Ok(Signer::root(key))
}

impl Kept {
    fn read(places: &Places) -> anyhow::Result<Option<Self>> {
        let read = text(places, path::REPORT_KEY).context("the appliance's key cannot be read; restart the appliance")?;
        let Some(text) = read else { return Ok(None) };
        if let Some(rest) = text.strip_prefix(IN_TPM) {
            let kept = InTpm::parse(rest).with_context(|| format!("{} is damaged; RESET makes a new key", path::REPORT_KEY))?;
            return Ok(Some(Self::InTpm(kept)));
        }
        let key = SigningKey::parse(&text).map_err(|error| anyhow::anyhow!("{} {error}", path::REPORT_KEY))?;
        Ok(Some(Self::File(key)))
    }

    fn public(&self) -> PublicKey {
        match self {
            Self::File(key) => key.public(),
            Self::InTpm(kept) => kept.public,
        }
    }
}

impl InTpm {
    /// `None`: the machine has no TPM.
    fn make(places: &Places) -> anyhow::Result<Option<Self>> {
        let mut unique = [0; UNIQUE_BYTES];
        rand::fill(&mut unique).map_err(|_| anyhow::anyhow!("the system gives no random numbers"))?;
        Ok(tpm::public(places, &unique)?.map(|public| Self { unique, public }))
    }

    fn parse(lines: &str) -> Option<Self> {
        let field = |name: &str| lines.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let public = PublicKey::parse_of_report(field("public")?).ok().filter(PublicKey::signs_reports_only)?;
        Some(Self { unique: bytes(field("unique")?)?, public })
    }

    fn text(&self) -> String {
        format!("{IN_TPM}\nunique {}\npublic {}\n", hex(&self.unique), self.public.to_hex())
    }

    /// Whether this TPM still makes the key.
    fn is_there(&self, places: &Places) -> anyhow::Result<bool> {
        let now = tpm::public(places, &self.unique).context("the key that signs reports is in the TPM")?;
        Ok(now == Some(self.public))
    }

    fn signer(&self, places: &Places) -> Signer {
        let (places, unique) = (places.clone(), self.unique);
        Signer::elsewhere(self.public, Box::new(move |message| tpm::sign(&places, &unique, message).map_err(|error| error.to_string())))
    }
}

/// A file of a bearable size; `None`: it is not there.
fn text(places: &Places, file: &str) -> io::Result<Option<Zeroizing<String>>> {
    let opened = match File::open(places.at(file)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let mut text = Zeroizing::new(String::new());
    opened.take(FILE_BYTES_MAX).read_to_string(&mut text)?;
    Ok(Some(text))
}

fn bytes<const N: usize>(digits: &str) -> Option<[u8; N]> {
    let pairs: Vec<_> = digits.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).ok()).collect::<Option<_>>()?;
    let bytes: Vec<u8> = pairs.into_iter().map(|pair| u8::from_str_radix(pair, 16).ok()).collect::<Option<_>>()?;
    bytes.try_into().ok()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use vitalgate_site::{seal_report_json, seal_report_text};

    use super::*;
    use crate::tpm::DEVICE;
    use crate::tpm::software::SoftwareTpm;

    fn appliance(folder: &std::path::Path) -> (SoftwareTpm, Places) {
        let (tpm, places) = SoftwareTpm::in_place(folder);
        fs::create_dir_all(places.at(path::APPLIANCE)).unwrap();
        (tpm, places)
    }

    fn kept(places: &Places) -> String {
        fs::read_to_string(places.at(path::REPORT_KEY)).unwrap()
    }

    /// The TPM signs from start to start, and sealed storage has no private key.
    #[test]
    fn the_tpm_makes_the_key_and_keeps_it() {
        let folder = tempfile::tempdir().unwrap();
        let (tpm, places) = appliance(folder.path());
        assert!(existing_key(&places).is_none() && facts(&places).is_empty());
        let own = key(&places).unwrap().public();
        assert!(own.signs_reports_only());
        assert!(kept(&places).starts_with(IN_TPM) && !kept(&places).contains("PRIVATE"), "{}", kept(&places));
        assert_eq!(fs::metadata(places.at(path::REPORT_KEY)).unwrap().permissions().mode() & 0o777, 0o600);
        drop(tpm);

        let (_tpm, places) = appliance(folder.path());
        let again = key(&places).unwrap();
        assert_eq!((again.public(), existing_key(&places).unwrap().public()), (own, own));
        for signed in [seal_report_json("{\"serial\":\"VG-0001\"}", &again).unwrap(), seal_report_text("All well.", &again).unwrap()] {
            assert_eq!(open_report(signed.as_bytes()).unwrap().signed_by, own);
        }
        let shown = facts(&places);
        assert_eq!(shown[fact::REPORT_KEY], own.fingerprint());
        assert!(shown[fact::REPORT_KEY_PLACE].contains("made in the TPM") && !shown.contains_key(fact::REPORT_KEY_NOTE), "{shown:?}");
    }

    /// Another TPM has another key: it is made and said, with the one before it, and nothing stops. So it is without any TPM.
    #[test]
    fn a_key_that_is_lost_is_made_anew_and_told() {
        let folder = tempfile::tempdir().unwrap();
        let (tpm, places) = appliance(folder.path());
        let first = key(&places).unwrap().public();
        tpm.run("tpm2_clear", &["-c", "p"]);
        assert!(existing_key(&places).is_none(), "it signs no more");
        let second = key(&places).unwrap().public();
        assert!(second != first && second.signs_reports_only());
        let note = facts(&places)[fact::REPORT_KEY_NOTE].clone();
        assert!(note.contains("made anew") && note.contains(&first.fingerprint()), "{note}");
        assert_eq!(key(&places).unwrap().public(), second);

        fs::remove_file(places.at(DEVICE)).unwrap();
        let third = key(&places).unwrap().public();
        assert!(!third.signs_reports_only());
        assert!(facts(&places)[fact::REPORT_KEY_NOTE].contains(&second.fingerprint()));
        assert!(facts(&places)[fact::REPORT_KEY_PLACE].contains("storage"));
    }

    /// An update or a TPM that is switched on later does not change who an appliance in service is.
    #[test]
    fn a_key_that_is_a_file_stays_one() {
        let folder = tempfile::tempdir().unwrap();
        let places = Places::under(folder.path());
        fs::create_dir_all(places.at(path::APPLIANCE)).unwrap();
        let own = key(&places).unwrap().public();
        assert!(kept(&places).contains("BEGIN PRIVATE KEY"));
        let (_tpm, places) = appliance(folder.path());
        assert_eq!((key(&places).unwrap().public(), existing_key(&places).unwrap().public()), (own, own));
        assert!(!facts(&places).contains_key(fact::REPORT_KEY_NOTE));
    }

    /// A TPM that makes no key stops no commissioning; one that refuses later changes no identity.
    #[test]
    fn a_tpm_that_refuses_stops_nothing_and_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (tpm, places) = appliance(folder.path());
        tpm.run("tpm2_changeauth", &["-c", "owner", "another"]);
        assert!(!key(&places).unwrap().public().signs_reports_only());
        fs::remove_file(places.at(path::REPORT_KEY)).unwrap();

        tpm.run("tpm2_changeauth", &["-c", "owner", "-p", "another"]);
        let own = key(&places).unwrap().public();
        tpm.run("tpm2_changeauth", &["-c", "owner", "another"]);
        let told = format!("{:#}", key(&places).unwrap_err());
        assert!(told.contains("reports") && told.contains("the TPM refuses"), "{told}");
        assert_eq!(facts(&places)[fact::REPORT_KEY], own.fingerprint());
    }

    /// What is no record of a key is no key, and is not written over.
    #[test]
    fn a_damaged_record_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let (_tpm, places) = appliance(folder.path());
        key(&places).unwrap();
        let whole = kept(&places);
        for damaged in ["", IN_TPM, &whole[..whole.len() - 3], &whole.replace("unique ", "unique zz"), &"x".repeat(10_000)] {
            fs::write(places.at(path::REPORT_KEY), damaged).unwrap();
            assert!(key(&places).is_err() && existing_key(&places).is_none() && facts(&places).is_empty(), "{damaged}");
            assert_eq!(kept(&places), damaged);
        }
    }
}
