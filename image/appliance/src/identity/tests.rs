//! Key, certificate and request from the first start to another TPM, and what sticks bring.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, CertificateSigningRequestParams, IsCa, Issuer, KeyPair, date_time_ymd};
use vitalgate_layout::{Rejection, stick};
use vitalgate_site::{Action, Request, Serial, Signer, SigningKey, SiteFile, open_report, sign_request};

use super::*;
use crate::command::{Answer, Call, CommandError};
use crate::report::{self, Report};
use crate::state_file::Said;
use crate::stick::rig::Rig;
use crate::tpm::software::SoftwareTpm;

/// A TPM that turns every bit, or refuses, and a service manager.
#[derive(Default)]
struct Programs {
    asked: RefCell<Vec<String>>,
    refuses: bool,
}

impl crate::command::Programs for Programs {
    fn attempt(&self, call: Call) -> Result<Answer, CommandError> {
        self.asked.borrow_mut().push(call.line());
        let output = turned(call.given());
        Ok(Answer { success: !self.refuses, output, ..Answer::default() })
    }
}

fn turned(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().map(|byte| !byte).collect()
}

fn site() -> Site {
    let text = crate::provision::SITE_EXAMPLE.replace("/fhir\"\n", "/fhir\"\nclient_certificate = \"own\"\n");
    SiteFile::check(&text, "site").unwrap()
}

struct Appliance {
    rig: Rig,
    programs: Programs,
    recovery: RecoveryKey,
}

impl Appliance {
    /// Before it is commissioned.
    fn new() -> Self {
        let (rig, recovery) = (Rig::new(), RecoveryKey::generate().unwrap());
        rig.put(path::RECOVERY_KEY, &recovery.text());
        Self { rig, programs: Programs::default(), recovery }
    }

    /// With key and certificate, in service.
    fn in_service() -> Self {
        let appliance = Self::new();
        appliance.ensure().unwrap();
        appliance.rig.put(path::COMMISSIONED, "2026-11-22T10:00:00Z\n");
        fs::remove_file(appliance.places().at(path::RECOVERY_KEY)).unwrap();
        let said = Said { word: StateWord::Ready, code: None, detail: "", facts: facts(appliance.places()) };
        appliance.states().say(Part::Provision, said).unwrap();
        appliance
    }

    fn places(&self) -> &Places {
        &self.rig.places
    }

    fn states(&self) -> StateFiles {
        StateFiles::of(self.places())
    }

    fn ensure(&self) -> anyhow::Result<()> {
        ensure(self.places(), &self.programs, &self.states(), &site())
    }

    fn folder(&self) -> PathBuf {
        self.places().at(path::IDENTITY)
    }

    /// What the daemon would get to see of the key.
    fn key(&self) -> String {
        String::from_utf8(turned(&fs::read(self.folder().join(KEY)).unwrap())).unwrap()
    }

    fn said(&self) -> PartState {
        self.states().read(Part::Provision).unwrap()
    }
}

fn names(folder: &Path) -> BTreeSet<String> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// The key is made once, for a site that asks for it; nowhere on the disk but under the seal and under the recovery key.
#[test]
fn a_key_is_made_once_and_only_kept_sealed() {
    let appliance = Appliance::new();
    let without = SiteFile::check(crate::provision::SITE_EXAMPLE, "site").unwrap();
    ensure(appliance.places(), &appliance.programs, &appliance.states(), &without).unwrap();
    assert!(!appliance.folder().exists() && facts(appliance.places()).is_empty());

    appliance.ensure().unwrap();
    let key = appliance.key();
    assert!(key.contains("BEGIN PRIVATE KEY"));
    let asked = appliance.programs.asked.borrow().join("\n");
    assert!(asked.contains("--name=vitalgate-client-key --with-key=tpm2 ") && asked.contains("--tpm2-public-key-pcrs=11"), "{asked}");
    assert_eq!(names(&appliance.folder()), [COPY, KEY, OWN, REQUEST].map(str::to_owned).into());
    for name in [COPY, OWN, REQUEST] {
        let bytes = fs::read(appliance.folder().join(name)).unwrap();
        assert!(!String::from_utf8_lossy(&bytes).contains("PRIVATE KEY"), "{name}");
    }
    let shown = shown(appliance.places()).unwrap();
    assert!(shown.chain.subject.contains("practice-01") && shown.chain.subject.contains("VG-0001"), "{}", shown.chain.subject);
    assert_eq!(facts(appliance.places())["client_certificate"], shown.fingerprint());

    appliance.ensure().unwrap();
    assert_eq!((appliance.key(), appliance.programs.asked.borrow().len()), (key, 1));
}

/// Without a seal, by the signer's leave, no TPM is asked for this one either.
#[test]
fn storage_without_a_seal_has_a_key_without_one() {
    let appliance = Appliance::new();
    let facts = BTreeMap::from([("sealed".to_owned(), "no".to_owned())]);
    appliance.states().say(Part::Data, Said { word: StateWord::Ready, code: None, detail: "", facts }).unwrap();
    appliance.ensure().unwrap();
    assert!(appliance.programs.asked.borrow()[0].contains("--with-key=tpm2-absent"));
}

/// A TPM that refuses and a power cut leave nothing that passes for whole; the next start makes it.
#[test]
fn what_is_not_whole_is_made_again() {
    let appliance = Appliance { programs: Programs { refuses: true, ..Programs::default() }, ..Appliance::new() };
    let error = format!("{:#}", appliance.ensure().unwrap_err());
    assert!(error.contains("switch it on in the firmware"), "{error}");
    assert!(!appliance.folder().exists());

    let appliance = Appliance { programs: Programs::default(), ..appliance };
    fs::create_dir_all(appliance.folder().with_extension("new")).unwrap();
    fs::write(appliance.folder().with_extension("new").join(KEY), "cut").unwrap();
    fs::create_dir_all(appliance.folder()).unwrap();
    fs::write(appliance.folder().join(ISSUED), "of a key that is gone").unwrap();
    assert!(shown(appliance.places()).is_none());
    appliance.ensure().unwrap();
    assert!(shown(appliance.places()).is_some());
    assert!(!appliance.folder().with_extension("new").exists() && !names(&appliance.folder()).contains(ISSUED));
}

/// Another TPM: with the recovery key it is the same key, and the EHR notices nothing.
#[test]
fn the_key_outlives_its_tpm() {
    let appliance = Appliance::in_service();
    let (key, own) = (appliance.key(), shown(appliance.places()).unwrap().fingerprint());
    fs::write(appliance.folder().join(KEY), "sealed by a TPM that is gone").unwrap();
    seal_anew(&appliance.programs, appliance.places(), &appliance.folder(), &appliance.recovery);
    appliance.ensure().unwrap();
    assert_eq!((appliance.key(), shown(appliance.places()).unwrap().fingerprint()), (key, own));
    assert!(!facts(appliance.places()).contains_key("client_certificate_note"));
}

/// Where the copy is no good there is a new key, and it is said that the EHR has to be told.
#[test]
fn a_key_that_nothing_opens_is_made_anew_and_said_to_be() {
    let appliance = Appliance::in_service();
    let (key, own) = (appliance.key(), shown(appliance.places()).unwrap().fingerprint());
    seal_anew(&appliance.programs, appliance.places(), &appliance.folder(), &RecoveryKey::generate().unwrap());
    assert!(shown(appliance.places()).is_none());
    appliance.ensure().unwrap();
    assert_ne!(appliance.key(), key);
    assert_ne!(shown(appliance.places()).unwrap().fingerprint(), own);
    let note = appliance.said().facts["client_certificate_note"].clone();
    assert!(note.contains("made anew") && note.contains("CERTIFICATE"), "{note}");
    // The next TPM finds no copy, and the appliance still starts.
    seal_anew(&appliance.programs, appliance.places(), &appliance.folder(), &appliance.recovery);
    appliance.ensure().unwrap();
    assert!(shown(appliance.places()).is_some());
    // Nothing to seal anew where nothing was made.
    seal_anew(&appliance.programs, appliance.places(), &appliance.places().at("/data/none"), &appliance.recovery);
    assert!(!appliance.places().at("/data/none").exists());
}

/// From the first start on the console says which key signs the reports: before anybody commissions the appliance, and after
/// another TPM.
#[test]
fn the_key_of_reports_is_there_before_the_first_report() {
    let appliance = Appliance::new();
    let (tpm, places) = SoftwareTpm::in_place(appliance.rig.folder.path());
    fs::create_dir_all(places.at(path::APPLIANCE)).unwrap();
    appliance.states().say(Part::Provision, Said::new(StateWord::Enrolling, "insert the stick")).unwrap();
    reports(&places, &appliance.states()).unwrap();
    let said = appliance.said();
    assert_eq!((said.word, said.detail.as_str()), (StateWord::Enrolling, "insert the stick"));
    let first = said.facts[fact::REPORT_KEY].clone();
    tpm.run("tpm2_clear", &["-c", "p"]);
    reports(&places, &appliance.states()).unwrap();
    let facts = appliance.said().facts;
    assert!(facts[fact::REPORT_KEY] != first && facts[fact::REPORT_KEY_NOTE].contains(&first), "{facts:?}");
}

/// Hospital IT gets certificate and request by the signed report, in both of its forms, and no key.
#[test]
fn the_commissioning_report_holds_certificate_and_request() {
    let appliance = Appliance::in_service();
    appliance.rig.put(path::SITE_FILE, "signed");
    let key = report::key(appliance.places()).unwrap();
    let report = Report::new(appliance.places(), &appliance.states(), &site(), &key, &Default::default(), &[]).unwrap();
    let shown = shown(appliance.places()).unwrap();
    let json = open_report(report.signed_json(&key).unwrap().as_bytes()).unwrap();
    let value: serde_json::Value = serde_json::from_str(&json.text).unwrap();
    assert_eq!(value["client_certificate"]["certificate"], shown.chain.pem);
    assert_eq!(value["client_certificate"]["request"], shown.request);
    assert_eq!(value["client_certificate"]["shown_to"], serde_json::json!(["ehr"]));
    let text = open_report(report.signed_text(&key).unwrap().as_bytes()).unwrap().text;
    for wanted in [shown.chain.pem.trim(), shown.request.trim(), &shown.fingerprint(), "Client certificate for ehr"] {
        assert!(text.contains(wanted), "{wanted} in {text}");
    }
    assert!(!json.text.contains("PRIVATE") && !text.contains("PRIVATE"));
}

/// The daemon gets its certificate with its configuration; without it, it is not started towards a server that refuses it.
#[test]
fn the_daemon_is_given_the_certificate() {
    let appliance = Appliance::new();
    let apply = || crate::configure::apply(&site(), appliance.places(), &appliance.programs);
    let error = format!("{:#}", apply().unwrap_err());
    assert!(error.contains("vitalgate-identity.service"), "{error}");
    appliance.ensure().unwrap();
    apply().unwrap();
    let config = fs::read_to_string(appliance.places().at(path::DAEMON_CONFIG)).unwrap();
    for line in ["client_certificate_file = \"/run/vitalgate/client-certificate.pem\"", "client_key_credential = \"vitalgate-client-key\""]
    {
        assert!(config.contains(line), "{config}");
    }
    let given = fs::read_to_string(appliance.places().at(path::CLIENT_CERTIFICATE)).unwrap();
    assert_eq!(given, shown(appliance.places()).unwrap().chain.pem);
}

/// An authority, and its certificate in PEM.
fn authority() -> (Issuer<'static, KeyPair>, String) {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, "Hospital authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    (Issuer::new(params, key), pem)
}

fn issued(request: &str, authority: &Issuer<'static, KeyPair>, until_year: i32) -> String {
    let mut request = CertificateSigningRequestParams::from_pem(request).unwrap();
    request.params.not_before = date_time_ymd(2020, 1, 1);
    request.params.not_after = date_time_ymd(until_year, 1, 1);
    request.signed_by(authority).unwrap().pem()
}

fn request(pem: &str, id: u8, signer: u8) -> String {
    let request = Request {
        action: Action::Certificate,
        id: format!("{id:02x}").repeat(16),
        serial: Serial::OneOf(vec!["VG-0001".to_owned()]),
        expires: Day::parse("2099-12-31").unwrap(),
        technician: "A. Example".into(),
        reason: "the EHR's authority".into(),
        certificate_pem: Some(pem.to_owned()),
        discard: None,
    };
    sign_request(&request, &Signer::root(SigningKey::parse(&format!("{signer:02x}").repeat(32)).unwrap())).unwrap()
}

impl Appliance {
    /// What became of a stick: the answer, and the signed report on it.
    fn plug(&self, name: &str, text: &str) -> (anyhow::Result<()>, String) {
        let (folder, mounted) = self.rig.stick(name, stick::CERTIFICATE_REQUEST, text);
        let answer = take_certificate(self.places(), &self.programs, mounted);
        let report = open_report(&fs::read(folder.join(stick::CERTIFICATE_REPORT)).unwrap()).unwrap();
        assert_eq!(Some(report.signed_by), report::existing_key(self.places()).map(|key| key.public()));
        (answer, report.text)
    }
}

/// What the hospital's authority made of the request is what the daemon shows from then on.
#[test]
fn a_certificate_of_an_authority_takes_the_place_of_the_own_one() {
    let appliance = Appliance::in_service();
    let (authority, authority_pem) = authority();
    let own = shown(appliance.places()).unwrap();
    let chain = format!("{}{authority_pem}", issued(&own.request, &authority, 2090));
    let (answer, report) = appliance.plug("right", &request(&chain, 1, 1));
    answer.unwrap();
    assert!(report.contains("ACCEPTED") && report.contains("Hospital authority") && report.contains(own.request.trim()), "{report}");
    assert_eq!(fs::read_to_string(appliance.places().at(path::CLIENT_CERTIFICATE)).unwrap(), chain);
    assert_eq!(appliance.programs.asked.borrow().last().unwrap(), "systemctl --no-block try-restart vitalgate.service");
    let said = appliance.said();
    assert_eq!((said.word, said.facts["client_certificate_until"].as_str()), (StateWord::Ready, "2090-01-01"));
    assert!(said.facts["client_certificate_issuer"].contains("Hospital authority") && said.detail.contains("in use"));

    // The next one, for the same key; and the same request does nothing twice.
    let next = request(&issued(&own.request, &authority, 2095), 2, 1);
    appliance.plug("next", &next).0.unwrap();
    assert_eq!(appliance.said().facts["client_certificate_until"], "2095-01-01");
    // It stays in through restarts: how it ended stands on the stick and the page, and the report does not grow with each start.
    for _ in 0..2 {
        let (answer, report) = appliance.plug("next", &next);
        assert!(answer.is_err() && report.contains("ACCEPTED") && report.matches("carried out already").count() == 1, "{report}");
        assert!(appliance.said().detail.contains("in use"), "{}", appliance.said().detail);
    }
    // What somebody else wrote is not signed as the appliance's own.
    let stranger = Signer::root(SigningKey::generate().unwrap());
    let forged = vitalgate_site::seal_report_text("ACCEPTED: nothing", &stranger).unwrap();
    fs::write(appliance.rig.folder.path().join("next").join(stick::CERTIFICATE_REPORT), forged).unwrap();
    let (_, report) = appliance.plug("next", &next);
    assert!(!report.contains("ACCEPTED") && report.contains("carried out already"), "{report}");
    // With the next start too.
    crate::configure::apply(&site(), appliance.places(), &appliance.programs).unwrap();
    assert!(
        ClientChain::read(&fs::read_to_string(appliance.places().at(path::CLIENT_CERTIFICATE)).unwrap())
            .unwrap()
            .issuer
            .contains("Hospital")
    );
}

/// Whatever does not fit is refused with its reason, on the stick and on the page, and changes nothing; the stick
/// takes the appliance's request along all the same.
#[test]
fn a_certificate_that_does_not_fit_changes_nothing() {
    let appliance = Appliance::in_service();
    let (authority, authority_pem) = authority();
    let own = shown(appliance.places()).unwrap();
    let other = ClientIdentity::generate(&site().gateway, "VG-0001").unwrap();
    let good = issued(&own.request, &authority, 2090);
    let unknown = Rejection::SignerUnknown;
    let cases: [(&str, String, Rejection, &str); 6] = [
        ("stranger", request(&good, 1, 2), unknown, ""),
        ("key", request(&issued(&other.request_pem, &authority, 2090), 2, 1), Rejection::CertificateRefused, "for another key"),
        ("old", request(&issued(&own.request, &authority, 2021), 3, 1), Rejection::CertificateRefused, "was valid until"),
        ("order", request(&format!("{authority_pem}{good}"), 4, 1), Rejection::CertificateRefused, "own certificate first"),
        ("purpose", Rig::request(Action::Reset, 5, 1), Rejection::OtherPurpose, "asks for reset"),
        ("garbage", "\u{1}".to_owned(), Rejection::NoSignature, ""),
    ];
    let asked = appliance.programs.asked.borrow().len();
    for (name, text, rejection, why) in cases {
        let (answer, report) = appliance.plug(name, &text);
        let error = answer.unwrap_err().to_string();
        assert!(error.contains(&format!("({})", rejection.code())), "{name}: {error}");
        assert!(report.contains(&format!("REFUSED ({})", rejection.code())) && report.contains(why), "{name}: {report}");
        assert!(report.contains(own.request.trim()), "{name}: the request is not on the stick");
        let said = appliance.said();
        assert!(
            said.detail.contains(&format!("CERTIFICATE refused ({})", rejection.code())) && said.detail.contains(why),
            "{name}: {}",
            said.detail
        );
        assert_eq!(said.facts["client_certificate"], own.fingerprint());
    }
    assert_eq!(appliance.programs.asked.borrow().len(), asked, "the gateway was restarted for nothing");
    assert!(!appliance.places().at(path::CLIENT_CERTIFICATE).exists());
}

/// An appliance whose site file asks for no certificate has no key for one.
#[test]
fn an_appliance_without_a_key_takes_no_certificate() {
    let appliance = Appliance::new();
    let other = ClientIdentity::generate(&site().gateway, "VG-0001").unwrap();
    fs::create_dir_all(appliance.places().at(path::APPLIANCE)).unwrap();
    let (answer, report) = appliance.plug("right", &request(&other.certificate_pem, 1, 1));
    assert!(answer.is_err() && report.contains("REFUSED (33)") && report.contains("client_certificate"), "{report}");
}
