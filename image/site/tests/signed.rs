//! Who is let in: signatures, delegations, serial numbers, days, each refusal with its number.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a helper of tests fails loudly")]

use std::sync::Arc;

use aws_lc_rs::encoding::{AsBigEndian, EcPublicKeyCompressedBin};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use proptest::prelude::*;
use vitalgate_layout::Rejection;
use vitalgate_site::{
    Action, Day, Delegation, KeyError, PublicKey, Purpose, Request, Serial, SignError, Signer, SigningKey, open_for_any_serial,
    open_report, open_request, open_signed, seal_report_json, seal_report_text, sign, sign_request,
};

const FULL: &str = include_str!("golden/full.toml");
const SERIAL: &str = "VG-0001";

fn key(seed: u8) -> SigningKey {
    SigningKey::parse(&format!("{seed:02x}").repeat(32)).unwrap()
}

fn root() -> Signer {
    Signer::root(key(1))
}

fn roots() -> [PublicKey; 1] {
    [key(1).public()]
}

fn today() -> Day {
    Day::parse("2026-11-22").unwrap()
}

fn refused(text: &str) -> Rejection {
    open_signed(text.as_bytes(), &roots(), SERIAL, today()).expect_err("a refusal").rejection()
}

fn delegated(expires: &str, purposes: &[Purpose]) -> Signer {
    let delegation = Delegation::grant(&key(1), key(2).public(), "Service north", Day::parse(expires).unwrap(), purposes).unwrap();
    let read = Delegation::parse(&delegation.to_text()).unwrap();
    assert_eq!(read, delegation, "a delegation survives its file");
    Signer::delegated(key(2), read).unwrap()
}

#[test]
fn a_signed_file_opens() {
    let text = sign(FULL, &root()).unwrap();
    let (site, by) = open_signed(text.as_bytes(), &roots(), SERIAL, today()).unwrap();
    assert_eq!(site.gateway.to_string(), "practice-01");
    assert_eq!((by.key, by.delegated), (key(1).public(), None));
    // Signing again replaces the signature.
    assert_eq!(sign(&text, &root()).unwrap(), text);
    assert_eq!(text.matches("BEGIN VITALGATE").count(), 1);
}

/// A signature survives an editor on Windows and blank lines at the end, nothing else.
#[test]
fn line_ends_are_not_signed() {
    let text = sign(FULL, &root()).unwrap();
    let windows = format!("\u{feff}{}\r\n\r\n", text.replace('\n', "\r\n"));
    assert!(open_signed(windows.as_bytes(), &roots(), SERIAL, today()).is_ok());
    assert_eq!(refused(&text.replace("monitor-01", "monitor-02")), Rejection::SignatureWrong);
    assert_eq!(refused(&text.replace("[site]", "[site] ")), Rejection::SignatureWrong);
}

#[test]
fn each_refusal_has_its_number() {
    let text = sign(FULL, &root()).unwrap();
    assert_eq!(refused(FULL), Rejection::NoSignature);
    assert_eq!(refused(&format!("{text}x = 1\n")), Rejection::NoSignature);
    assert_eq!(refused(&format!("{text}{text}")), Rejection::NoSignature);
    assert_eq!(refused(&sign(FULL, &Signer::root(key(3))).unwrap()), Rejection::SignerUnknown);
    assert_eq!(refused(&format!("{}{text}", "#".repeat(65_536))), Rejection::TooLarge);
    let open = |serial: &str, day: &str| {
        open_signed(text.as_bytes(), &roots(), serial, Day::parse(day).unwrap()).map_err(|error| error.rejection())
    };
    assert_eq!(open("VG-0002", "2026-11-22").err(), Some(Rejection::OtherSerial));
    assert_eq!(open(SERIAL, "2027-01-01").err(), Some(Rejection::Expired));
    assert!(open(SERIAL, "2026-12-31").is_ok(), "the last day counts");
    let bytes = open_signed(&[0xff, 0xfe], &roots(), SERIAL, today()).expect_err("a refusal");
    assert_eq!(bytes.rejection(), Rejection::NotReadable);
}

/// Without the serial number everything else is still looked at.
#[test]
fn a_file_for_another_serial_number_is_read_by_the_same_rules() {
    let read = |text: &str, day: &str| {
        let opened = open_for_any_serial(text.as_bytes(), &roots(), Day::parse(day).unwrap());
        opened.map(|(_, by)| by.key).map_err(|error| error.rejection())
    };
    let text = sign(FULL, &root()).unwrap();
    assert_eq!(read(&text, "2026-11-22"), Ok(key(1).public()));
    assert_eq!(read(&text, "2027-01-01"), Err(Rejection::Expired));
    assert_eq!(read(&text.replace("monitor-01", "monitor-02"), "2026-11-22"), Err(Rejection::SignatureWrong));
    assert_eq!(read(&sign(FULL, &Signer::root(key(3))).unwrap(), "2026-11-22"), Err(Rejection::SignerUnknown));
    let delegated = sign(FULL, &delegated("2026-12-01", &[Purpose::Request])).unwrap();
    assert_eq!(read(&delegated, "2026-11-22"), Err(Rejection::DelegationRefused));
}

/// A file that was signed elsewhere, past our check, is judged all the same.
#[test]
fn a_genuine_signature_excuses_nothing() {
    let strange = |text: &str| {
        let key = key(1);
        let message = format!("vitalgate-signature-1\nsite\n{}\n{text}", key.public().to_hex());
        let signature: String = key.sign_bytes(message.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
        format!(
            "{text}\n\n# -----BEGIN VITALGATE SIGNATURE-----\n# purpose: site\n# signed-by: {}\n# signature: {signature}\n# -----END VITALGATE SIGNATURE-----\n",
            key.public().to_hex()
        )
    };
    assert_eq!(refused(&strange("[site]\npassword = \"x\"")), Rejection::SecretInText);
    let errors = open_signed(strange("[site]\nname = 5").as_bytes(), &roots(), SERIAL, today()).expect_err("a refusal");
    assert_eq!(errors.rejection(), Rejection::ErrorsInText);
    assert!(errors.errors().iter().any(|error| error.line == 2), "{errors}");
    assert!(sign("[site]\n", &root()).is_err());
}

#[test]
fn a_delegated_key_signs_until_its_day_and_for_its_purpose() {
    let text = sign(FULL, &delegated("2026-12-01", &[Purpose::Site])).unwrap();
    let (_, by) = open_signed(text.as_bytes(), &roots(), SERIAL, today()).unwrap();
    assert_eq!(by.delegated.unwrap().0, "Service north");
    let late = open_signed(text.as_bytes(), &roots(), SERIAL, Day::parse("2026-12-02").unwrap()).expect_err("a refusal");
    assert_eq!(late.rejection(), Rejection::DelegationRefused);
    assert_eq!(refused(&sign(FULL, &delegated("2026-12-01", &[Purpose::Request])).unwrap()), Rejection::DelegationRefused);
    assert_eq!(refused(&text.replace("2026-12-01", "2036-12-01")), Rejection::DelegationRefused);
    assert_eq!(refused(&text.replace("Service north", "Service south")), Rejection::DelegationRefused);
    // Without the lines of the delegation the key is nobody's.
    let bare: String = text.lines().filter(|line| !line.contains("# delegat")).map(|line| format!("{line}\n")).collect();
    assert_eq!(refused(&bare), Rejection::SignerUnknown);
    assert!(Signer::delegated(key(4), delegated("2026-12-01", &[Purpose::Site]).delegation().unwrap().clone()).is_err());
}

/// What is signed again is opened by an appliance: text behind an old signature is refused, never signed over.
#[test]
fn a_text_behind_an_old_signature_is_not_signed() {
    let signed = sign(FULL, &root()).unwrap();
    let more = "\n[[device]]\nid = \"monitor-99\"\nprofile = \"vitals-json\"\n";
    let (above, armour) = signed.split_at(signed.find("# -----BEGIN VITALGATE").unwrap());
    for text in [format!("{signed}{more}"), format!("{signed}{armour}"), signed.replace("# -----END VITALGATE SIGNATURE-----", "")] {
        let Err(error) = sign(&text, &root()) else { panic!("signed: {text}") };
        assert!(matches!(error, SignError::Unopened(_)), "{error}");
        assert!(error.to_string().contains("old signature"), "{error}");
    }
    let again = sign(&format!("{above}{more}{armour}"), &root()).unwrap();
    assert!(open_signed(again.as_bytes(), &roots(), SERIAL, today()).is_ok(), "what stands above it is signed");
}

/// A request that an appliance would refuse for its size is not signed.
#[test]
fn a_request_that_is_too_large_is_not_signed() {
    let pem = certificate();
    let chain = pem.repeat(65_536 / pem.len() + 1);
    let chain = Request { action: Action::Certificate, certificate_pem: Some(chain), ..request() };
    assert!(matches!(sign_request(&chain, &root()), Err(SignError::TooLarge)));
}

/// A token signs like a file would; one that is broken, or another one, is noticed before anything is written.
#[test]
fn a_key_may_be_kept_elsewhere() {
    let token = |seed: u8| Signer::elsewhere(key(1).public(), Box::new(move |message| Ok(key(seed).sign_bytes(message).to_vec())));
    assert_eq!(sign(FULL, &token(1)).unwrap(), sign(FULL, &root()).unwrap());
    assert!(matches!(sign(FULL, &token(2)), Err(SignError::NoSignature(_))));
    let chatty = Signer::elsewhere(key(1).public(), Box::new(|_| Ok(b"Please enter User PIN: ".to_vec())));
    assert!(sign(FULL, &chatty).unwrap_err().to_string().contains("23 bytes came back, a signature has 64"));
    let away = Signer::elsewhere(key(1).public(), Box::new(|_| Err("no token".to_owned())));
    assert!(sign_request(&request(), &away).unwrap_err().to_string().contains("no token"));
}

/// A delegated key gives nothing on.
#[test]
fn a_delegation_is_one_step_deep() {
    let second = Delegation::grant(&key(2), key(5).public(), "x", Day::parse("2026-12-01").unwrap(), &[Purpose::Site]).unwrap();
    assert_eq!(refused(&sign(FULL, &Signer::delegated(key(5), second).unwrap()).unwrap()), Rejection::SignerUnknown);
}

fn request() -> Request {
    Request {
        action: Action::Reset,
        id: "00112233445566778899aabbccddeeff".to_owned(),
        serial: Serial::OneOf(vec![SERIAL.to_owned()]),
        expires: Day::parse("2026-11-30").unwrap(),
        technician: "A. \"Example\"".to_owned(),
        reason: "moved to another site".to_owned(),
        certificate_pem: None,
        discard: None,
    }
}

/// A certificate, PEM.
fn certificate() -> String {
    let from = FULL.find("-----BEGIN").unwrap();
    let until = FULL.find("-----END CERTIFICATE-----\n").unwrap();
    format!("{}-----END CERTIFICATE-----\n", &FULL[from..until])
}

/// A certificate comes with the request that is for it, whole, and with no other.
#[test]
fn a_certificate_comes_in_its_own_request() {
    let pem = certificate();
    let with = |action, certificate_pem: Option<&str>| Request { action, certificate_pem: certificate_pem.map(str::to_owned), ..request() };
    let open = |text: &str| open_request(text.as_bytes(), &roots(), SERIAL, today()).map(|(request, _)| request);
    let certificate = with(Action::Certificate, Some(&pem));
    let text = sign_request(&certificate, &root()).unwrap();
    assert_eq!(open(&text).unwrap(), certificate);
    assert_eq!(open(&text.replace('\n', "\r\n")).unwrap(), certificate);
    for (wrong, why) in [
        (with(Action::Certificate, None), "brings no certificate"),
        (with(Action::Certificate, Some("")), "holds no certificate"),
        (with(Action::Certificate, Some(&pem.replacen('M', "N", 1))), "(number 1) that is no certificate"),
        (with(Action::Reset, Some(&pem)), "belongs to no reset"),
    ] {
        let Err(SignError::Errors(errors)) = sign_request(&wrong, &root()) else { panic!("{wrong:?} was signed") };
        assert!(errors.len() == 1 && errors[0].to_string().contains(why), "{why}: {errors:?}");
    }
}

#[test]
fn a_request_opens_only_where_and_when_it_is_meant() {
    let text = sign_request(&request(), &root()).unwrap();
    let open = |text: &str, serial: &str, day: &str| {
        open_request(text.as_bytes(), &roots(), serial, Day::parse(day).unwrap())
            .map(|(request, _)| request)
            .map_err(|error| error.rejection())
    };
    assert_eq!(open(&text, SERIAL, "2026-11-30"), Ok(request()));
    assert_eq!(open(&text, SERIAL, "2026-12-01"), Err(Rejection::Expired));
    assert_eq!(open(&text, "VG-0002", "2026-11-30"), Err(Rejection::OtherSerial));
    assert_eq!(open(&text.replace("reset", "support"), SERIAL, "2026-11-30"), Err(Rejection::SignatureWrong));
    // One kind of file never passes as the other.
    assert_eq!(open(&sign(FULL, &root()).unwrap(), SERIAL, "2026-11-22"), Err(Rejection::OtherPurpose));
    assert_eq!(refused(&text), Rejection::OtherPurpose);
    assert_eq!(refused(&text.replace("purpose: request", "purpose: site")), Rejection::SignatureWrong);
    let by_service = sign_request(&request(), &delegated("2026-12-01", &[Purpose::Site])).unwrap();
    assert_eq!(open(&by_service, SERIAL, "2026-11-22"), Err(Rejection::DelegationRefused));
}

/// A key on P-256 as a TPM has it: what signs is out of reach, what comes back is checked.
fn made_in_a_tpm() -> Signer {
    let pair = Arc::new(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap());
    let point = AsBigEndian::<EcPublicKeyCompressedBin<'_>>::as_be_bytes(pair.public_key()).unwrap();
    let key = PublicKey::on_p256(point.as_ref().try_into().unwrap()).unwrap();
    let sign = move |message: &[u8]| Ok(pair.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec());
    Signer::elsewhere(key, Box::new(sign))
}

/// Whichever kind of key the appliance has.
#[test]
fn a_report_proves_that_nothing_was_changed() {
    for signer in [Signer::root(key(7)), made_in_a_tpm()] {
        let json = seal_report_json("{\n  \"serial\": \"VG-0001\",\n  \"tpm\": true\n}", &signer).unwrap();
        let report = open_report(json.replace('\n', "\r\n").as_bytes()).unwrap();
        assert!(report.json && report.text.contains("VG-0001") && report.signed_by == signer.public());
        assert_eq!(open_report(json.replace("true", "false").as_bytes()).unwrap_err().rejection(), Rejection::SignatureWrong);
        let text = seal_report_text("Self test: all well", &signer).unwrap();
        let report = open_report(text.replace('\n', "\r\n").as_bytes()).unwrap();
        assert_eq!((report.text.as_str(), report.signed_by), ("Self test: all well", signer.public()));
        assert_eq!(open_report(text.replace("all well", "all hell").as_bytes()).unwrap_err().rejection(), Rejection::SignatureWrong);
        assert!(seal_report_json("[1]", &signer).is_err() && seal_report_json("{", &signer).is_err());
        // Another key of either kind in its place.
        for other in [key(8).public(), made_in_a_tpm().public()] {
            for signed in [&json, &text] {
                let claimed = signed.replace(&signer.public().to_hex(), &other.to_hex());
                assert_eq!(open_report(claimed.as_bytes()).unwrap_err().rejection(), Rejection::SignatureWrong);
            }
        }
    }
    assert_eq!(open_report(b"Self test: all well").unwrap_err().rejection(), Rejection::NoSignature);
    assert_eq!(open_report(b"{\"serial\": 1}").unwrap_err().rejection(), Rejection::NoSignature);
}

/// The key of an appliance's TPM signs its reports: no site file, no request, no right to sign, and it is said why.
#[test]
fn a_key_on_p256_signs_nothing_but_reports() {
    let signer = made_in_a_tpm();
    let point = signer.public();
    for refusal in [sign(FULL, &signer).unwrap_err(), sign_request(&request(), &signer).unwrap_err()] {
        assert!(refusal.to_string().contains("reports only"), "{refusal}");
    }
    let granted = Delegation::grant(&key(1), point, "Service north", today(), &[Purpose::Site]);
    assert!(granted.unwrap_err().contains("reports only"));
    assert_eq!(PublicKey::parse(&point.to_hex()), Err(KeyError::ReportsOnly));
    assert_eq!(PublicKey::parse_of_report(&point.to_hex()), Ok(point));

    // Not even where somebody has made it a root, and changed the lines of a report's own signature.
    let forged = seal_report_text(FULL, &signer).unwrap();
    for (purpose, text) in [("site", forged.as_str()), ("request", forged.as_str()), ("delegation", forged.as_str())] {
        let text = text.replace("purpose: report", &format!("purpose: {purpose}"));
        let refusals = [
            open_signed(text.as_bytes(), &[point], SERIAL, today()).unwrap_err(),
            open_request(text.as_bytes(), &[point], SERIAL, today()).unwrap_err(),
        ];
        let refusals = refusals.iter().filter(|refusal| refusal.rejection() != Rejection::OtherPurpose);
        let told: Vec<_> = refusals.map(|refusal| (refusal.rejection(), refusal.detail().to_owned())).collect();
        let known = told.iter().all(|(rejection, why)| *rejection == Rejection::SignerUnknown && why.contains("reports only"));
        assert!(known && told.len() == usize::from(purpose != "delegation"), "{purpose}: {told:?}");
        assert_eq!(Delegation::parse(&text).unwrap_err().rejection(), Rejection::SignerUnknown);
    }
}

/// A token or a TPM that signs something else is found out before anybody takes the report.
#[test]
fn what_is_no_signature_of_the_key_is_no_report() {
    let point = made_in_a_tpm().public();
    for (answer, why) in [(Ok(vec![0; 64]), "no signature of this key"), (Ok(vec![0; 70]), "70 bytes"), (Err("no TPM"), "no TPM")] {
        let signer = Signer::elsewhere(point, Box::new(move |_| answer.clone().map_err(str::to_owned)));
        for told in [seal_report_text("All well.", &signer).unwrap_err(), seal_report_json("{}", &signer).unwrap_err()] {
            assert!(told.to_string().contains(why), "{told}");
        }
    }
}

proptest! {
    /// Whatever is on a stick: a refusal with a number, never a panic, never a way in.
    #[test]
    fn any_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        prop_assert!(open_signed(&bytes, &roots(), SERIAL, today()).is_err());
        prop_assert!(open_request(&bytes, &roots(), SERIAL, today()).is_err());
        prop_assert!(open_report(&bytes).is_err());
        let _ = Delegation::parse(&String::from_utf8_lossy(&bytes));
    }

    /// One changed byte anywhere: refused, or nothing that was signed was changed.
    #[test]
    fn a_changed_byte_is_refused_or_changes_nothing(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let text = sign(FULL, &delegated("2026-12-01", &[Purpose::Site])).unwrap();
        let (site, _) = open_signed(text.as_bytes(), &roots(), SERIAL, today()).unwrap();
        let mut changed = text.into_bytes();
        let at = at.index(changed.len());
        changed[at] = byte;
        if let Ok((same, by)) = open_signed(&changed, &roots(), SERIAL, today()) {
            prop_assert_eq!(same, site);
            prop_assert_eq!(by.key, key(2).public());
        }
    }
}
