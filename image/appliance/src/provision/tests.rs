//! Both steps against sticks as technicians bring them.

mod pulled;
mod successor;

use std::cell::{Cell, RefCell};
use std::fs;
use std::path::{Path, PathBuf};

use vitalgate_layout::state::PartState;
use vitalgate_layout::{Rejection, path, stick};
use vitalgate_site::{Signer, SigningKey, open_report, sign};

use super::*;
use crate::command::{Answer, Call, CommandError};
use crate::errand::{self, stand_in};
use crate::report;
use crate::stick::drawer::{Drawer, stick_with};
use crate::storage::RecoveryKey;

/// Stands in for `vitalgate device add` and for the rest of the system.
struct Programs {
    places: Places,
    added: Cell<u32>,
    /// What each device would be let in with.
    certificates: RefCell<BTreeMap<String, u32>>,
    restarts: Cell<u32>,
    /// A stick that is pulled while credentials are made: its folder.
    pulls: RefCell<Option<PathBuf>>,
}

impl Programs {
    fn at(places: Places) -> Self {
        Self { places, added: Cell::default(), certificates: RefCell::default(), restarts: Cell::default(), pulls: RefCell::default() }
    }

    /// As the gateway does it: the new certificate is good beside those of before, or in their place.
    fn add(&self, line: &str) {
        let mut words = line.split(' ').skip_while(|word| *word != "add").skip(1);
        let device = words.next().unwrap().to_owned();
        let earlier = if words.any(|word| word == "--replace") { 0 } else { self.certificates_of(&device) };
        self.added.set(self.added.get() + 1);
        self.certificates.borrow_mut().insert(device, earlier + 1);
    }

    /// What is unmounted leaves its folder empty.
    fn pull(&self) {
        if let Some(stick) = self.pulls.take() {
            fs::rename(&stick, stick.with_extension("pulled")).unwrap();
            fs::create_dir(stick).unwrap();
        }
    }

    fn certificates_of(&self, device: &str) -> u32 {
        self.certificates.borrow().get(device).copied().unwrap_or_default()
    }
}

impl crate::command::Programs for Programs {
    fn attempt(&self, call: Call) -> Result<Answer, CommandError> {
        let line = call.line();
        if let Some(errand) = stand_in::started(&call) {
            errand::run(errand, &self.places, self).unwrap();
        }
        self.restarts.set(self.restarts.get() + u32::from(line == "systemctl --no-block reboot"));
        let output = match call.program() {
            "systemctl" => "",
            "/usr/bin/vitalgate" => {
                self.add(&line);
                self.pull();
                let folder = PathBuf::from(line.rsplit(' ').next().unwrap());
                for (name, text) in [("ca.pem", "authority"), ("certificate.pem", "certificate"), ("key.pem", "key")] {
                    fs::write(folder.join(name), text).unwrap();
                }
                "device    monitor-01\npassword  SECRET\nwritten   somewhere\n"
            }
            other => panic!("nobody should call {other}"),
        };
        Ok(Answer { success: true, output: output.into(), ..Answer::default() })
    }
}

struct Appliance {
    folder: tempfile::TempDir,
    programs: Programs,
    recovery: String,
}

fn signer() -> Signer {
    Signer::root(SigningKey::parse(&"01".repeat(32)).unwrap())
}

/// The example without a polled device, which no test reaches.
fn example() -> String {
    let from = SITE_EXAMPLE.find("[[device]]\nid = \"bedside-1\"").unwrap();
    let to = SITE_EXAMPLE.find("[[destination]]").unwrap();
    format!("{}{}", &SITE_EXAMPLE[..from], &SITE_EXAMPLE[to..])
}

impl Appliance {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let places = Places::under(folder.path());
        let recovery = RecoveryKey::generate().unwrap().text().to_string();
        let root = SigningKey::parse(&"01".repeat(32)).unwrap().public().to_hex();
        for (file, text) in [
            ("/sys/class/dmi/id/product_serial", "VG-0001\n"),
            ("/usr/lib/os-release", "ID=vitalgate\nIMAGE_VERSION=0.1.0\n"),
            ("/usr/lib/vitalgate/trust/site-root.pub", root.as_str()),
            (path::RECOVERY_KEY, recovery.as_str()),
            // What may still come is there: nothing is waited for.
            (path::CLOCK_TRUST, "synchronised\n"),
            ("/sys/class/net/enp1s0/carrier", "1\n"),
        ] {
            let file = places.at(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        fs::create_dir_all(places.at("/run")).unwrap();
        Self { folder, programs: Programs::at(places), recovery }
    }

    fn places(&self) -> Places {
        Places::under(self.folder.path())
    }

    fn stick(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        stick_with(self.folder.path(), name, stick::SITE_FILE, bytes)
    }

    fn with<T>(&self, drawer: &Drawer, step: impl FnOnce(&Provisioning<'_>) -> T) -> T {
        let places = self.places();
        step(&Provisioning { programs: &self.programs, places: &places, states: StateFiles::of(&places), sticks: drawer })
    }

    /// Puts something else in place of the accepted file and of its copy.
    fn put_site_file(&self, text: &str) {
        [path::SITE_FILE, path::SITE_FILE_COPY].iter().for_each(|file| fs::write(self.places().at(file), text).unwrap());
    }

    fn said(&self) -> PartState {
        StateFiles::of(&self.places()).read(Part::Provision).unwrap()
    }
}

fn told(stick: &Path) -> String {
    fs::read_to_string(stick.join(stick::PROVISION_REPORT)).unwrap()
}

/// Every wrong stick is told why on the stick itself, with its number, and the wait goes on to the right one.
#[test]
fn wrong_sticks_are_told_why_and_the_right_one_is_taken() {
    let appliance = Appliance::new();
    let right = sign(&example(), &signer()).unwrap();
    let stranger = Signer::root(SigningKey::parse(&"02".repeat(32)).unwrap());
    let other = sign(&example().replace("VG-0001", "VG-0002"), &signer()).unwrap();
    let wrong: [(&str, Vec<u8>, Rejection); 6] = [
        ("garbage", vec![0xff; 100_000], Rejection::TooLarge),
        ("binary", (0..=255).collect(), Rejection::NotReadable),
        ("unsigned", example().into_bytes(), Rejection::NoSignature),
        ("stranger", sign(&example(), &stranger).unwrap().into_bytes(), Rejection::SignerUnknown),
        ("changed", right.replace("monitor-01", "monitor-02").into_bytes(), Rejection::SignatureWrong),
        ("other", other.into_bytes(), Rejection::OtherSerial),
    ];
    let mut sticks: Vec<(&'static str, PathBuf)> = vec![("PROVISION", appliance.folder.path().join("no-file-system"))];
    sticks.extend(wrong.iter().map(|(name, bytes, _)| ("PROVISION", appliance.stick(name, bytes))));
    sticks.push(("PROVISION", stick_with(appliance.folder.path(), "empty", "holiday.jpg", b"")));
    sticks.push(("PROVISION", appliance.stick("right", &right)));

    appliance.with(&Drawer::of(sticks), |step| step.accept()).unwrap();

    for (name, _, rejection) in wrong {
        let text = told(&appliance.folder.path().join(name));
        assert!(text.contains(&format!("REFUSED ({}): {}\r\n", rejection.code(), rejection.meaning())), "{name}: {text}");
        assert!(text.contains(rejection.remedy()), "{name}: {text}");
    }
    assert!(told(&appliance.folder.path().join("empty")).contains("REFUSED (10)"));
    assert!(told(&appliance.folder.path().join("right")).contains("ACCEPTED"));
    assert_eq!(fs::read_to_string(appliance.places().at(path::SITE_FILE)).unwrap(), right);
    assert_eq!(appliance.said().word, StateWord::Enrolling);
}

/// A refusal is said with its number while the wait goes on; errors are named with their line on the stick.
#[test]
fn a_refusal_is_said_with_its_number() {
    let appliance = Appliance::new();
    let stick = appliance.stick("unsigned", example());
    let roots = machine::site_roots(&appliance.places()).unwrap();
    appliance.with(&Drawer::of([("PROVISION", stick)]), |step| {
        let stick = step.next_stick(stick::PROVISION, &mut None);
        let refusal = step.take(&stick, &roots).unwrap_err();
        step.refuse(&refusal).unwrap();
    });
    let said = appliance.said();
    assert_eq!((said.word, said.code), (StateWord::ProvisionRejected, Some(12)));
    assert!(said.detail.contains("imagectl provision sign"), "{}", said.detail);
    assert_eq!(said.facts[fact::SERIAL], "VG-0001");
}

/// A stick that takes no report takes no credentials either: it is refused before anything is kept.
#[test]
fn a_protected_stick_is_refused() {
    let appliance = Appliance::new();
    let stick = appliance.stick("right", sign(&example(), &signer()).unwrap());
    let roots = machine::site_roots(&appliance.places()).unwrap();
    let drawer = Drawer::of([("PROVISION", stick)]).protected();
    let refusal = appliance.with(&drawer, |step| step.take(&step.next_stick(stick::PROVISION, &mut None), &roots).unwrap_err());
    assert_eq!(refusal.rejection(), Rejection::StickNotWritable);
    assert!(!site_file::is_kept(&appliance.places()));
}

/// Whoever had the disk in hand and put another site file there, or opened storage without a seal, gets
/// no service; an accepted file that has expired since does.
#[test]
fn the_accepted_file_is_looked_at_at_each_start() {
    let (appliance, _) = accepted();
    let places = appliance.places();
    let kept = fs::read_to_string(places.at(path::SITE_FILE)).unwrap();
    let accept = || appliance.with(&Drawer::default(), |step| step.accept());

    appliance.put_site_file(&kept.replace("192.0.2.20", "203.0.113.1"));
    assert!(accept().is_err());
    assert_eq!((appliance.said().word, appliance.said().code), (StateWord::ProvisionRejected, Some(31)));

    let expired = sign(&example().replace("2099-12-31", "2026-01-31"), &signer()).unwrap();
    fs::write(places.at(path::SITE_FILE), expired).unwrap();
    fs::write(places.at(path::SITE_FILE_ACCEPTED), "2026-01-15T10:00:00Z\nroot\n").unwrap();
    accept().unwrap();

    let facts = BTreeMap::from([(fact::SEALED.to_owned(), fact::SEALED_NO.to_owned())]);
    let said = Said { word: StateWord::Ready, code: None, detail: "", facts };
    StateFiles::of(&places).say(Part::Data, said).unwrap();
    assert!(accept().is_err());
}

/// Why storage may go without a seal stands on the status page, as the site file's documentation promises.
#[test]
fn the_reason_to_go_without_a_seal_is_shown() {
    let appliance = Appliance::new();
    let text = format!("{}\n[storage]\nunsealed_allowed = true\nunsealed_reason = \"a demonstration\"\n", example());
    let stick = appliance.stick("right", sign(&text, &signer()).unwrap());
    appliance.with(&Drawer::of([("PROVISION", stick)]), |step| step.accept()).unwrap();
    assert_eq!(appliance.said().facts.get(fact::UNSEALED_REASON).map(String::as_str), Some("a demonstration"));
}

fn accepted() -> (Appliance, PathBuf) {
    let appliance = Appliance::new();
    let stick = appliance.stick("right", sign(&example(), &signer()).unwrap());
    appliance.with(&Drawer::of([("PROVISION", stick.clone())]), |step| step.accept()).unwrap();
    (appliance, stick)
}

/// The stick gets report, credentials and recovery key, the appliance keeps no recovery key, and the
/// window stays closed.
#[test]
fn commissioning_hands_over_once_and_closes() {
    let (appliance, stick) = accepted();
    let copied = stick_with(appliance.folder.path(), "stranger", stick::SITE_FILE, "another site");
    let drawer = Drawer::of([("PROVISION", copied.clone()), ("PROVISION", stick.clone())]);
    appliance.with(&drawer, |step| step.commission()).unwrap();

    assert_eq!(fs::read_dir(copied).unwrap().count(), 1, "a strange stick got something");
    let read = |file: &str| fs::read_to_string(stick.join(file)).unwrap();
    assert!(read("recovery-key.txt").contains(&appliance.recovery));
    assert_eq!(read("devices/monitor-01/key.pem"), "key");
    assert_eq!(read("devices/ca.pem"), "authority");
    assert!(read("devices/monitor-01/credentials.txt").contains("password  SECRET"));
    let places = appliance.places();
    assert!(!places.at(path::RECOVERY_KEY).exists());
    assert!(is_commissioned(&places));
    assert_eq!(appliance.said().word, StateWord::Ready);

    let key = report::key(&places).unwrap().public();
    assert_eq!(appliance.said().facts[fact::REPORT_KEY], key.fingerprint());
    for file in ["commissioning-report.json", "commissioning-report.txt"] {
        let report = open_report(&fs::read(stick.join(file)).unwrap()).unwrap();
        assert_eq!(report.signed_by, key, "{file}");
        for (wanted, secret) in [("VG-0001", "SECRET"), ("monitor-01", appliance.recovery.as_str()), ("practice-01", "Patient/4711")] {
            assert!(report.text.contains(wanted), "{file}: {wanted}");
            assert!(!report.text.contains(secret), "{file} holds {secret}");
        }
    }

    // The next starts wait for nothing.
    appliance.with(&Drawer::default(), |step| step.accept().and_then(|()| step.commission())).unwrap();
    assert_eq!((appliance.said().word, appliance.programs.added.get()), (StateWord::Ready, 1));
}

/// Who keeps the recovery key reads beside it whether the appliance has another: where storage is not sealed, it lies beside it.
#[test]
fn the_recovery_key_says_whether_it_is_the_only_copy() {
    for (sealed, only) in [(fact::SEALED_YES, true), (fact::SEALED_NO, false)] {
        let appliance = Appliance::new();
        let text = format!("{}\n[storage]\nunsealed_allowed = true\nunsealed_reason = \"a demonstration\"\n", example());
        let stick = appliance.stick("right", sign(&text, &signer()).unwrap());
        appliance.with(&Drawer::of([("PROVISION", stick.clone())]), |step| step.accept()).unwrap();
        let facts = [(fact::SEALED.to_owned(), sealed.to_owned())].into();
        StateFiles::of(&appliance.places()).say(Part::Data, Said { facts, ..Said::new(StateWord::Ready, "") }).unwrap();
        appliance.with(&Drawer::of([("PROVISION", stick.clone())]), |step| step.commission()).unwrap();
        let text = fs::read_to_string(stick.join(stick::RECOVERY_KEY)).unwrap();
        assert_eq!(text.contains("the appliance has no copy"), only, "{text}");
        assert_eq!(text.contains("Storage is not sealed: the same key lies beside it on the disk"), !only, "{text}");
    }
}

/// The power goes after the stick has everything and before the window is closed: the same stick gets
/// it again, recovery key included.
#[test]
fn commissioning_that_is_cut_is_repeated() {
    let (appliance, stick) = accepted();
    let places = appliance.places();
    let site = site_file::kept(&places).unwrap();
    let key = report::key(&places).unwrap();
    appliance.with(&Drawer::of([("PROVISION", stick.clone())]), |step| {
        let plugged = step.next_stick(stick::PROVISION, &mut None);
        assert!(step.hand_over(&plugged, &site, &key, &Default::default()).unwrap());
    });
    fs::remove_file(stick.join("recovery-key.txt")).unwrap();
    appliance.with(&Drawer::of([("PROVISION", stick.clone())]), |step| step.commission()).unwrap();
    assert!(stick.join("recovery-key.txt").exists());
    assert!(is_commissioned(&places));
}

/// A stick without room, as often as somebody tries: each try takes back what the one before may have left on a stick, and
/// the window closes with the one that goes well.
#[test]
fn a_try_that_fails_leaves_no_credentials_behind() {
    let (appliance, stick) = accepted();
    let places = appliance.places();
    let site = site_file::kept(&places).unwrap();
    let key = report::key(&places).unwrap();
    fs::write(stick.join(stick::DEVICES), "no folder can be made here").unwrap();
    for failed in 1..=6 {
        appliance.with(&Drawer::of([("PROVISION", stick.clone())]), |step| {
            let plugged = step.next_stick(stick::PROVISION, &mut None);
            step.hand_over(&plugged, &site, &key, &Default::default()).unwrap_err();
        });
        assert_eq!((appliance.programs.added.get(), appliance.programs.certificates_of("monitor-01")), (failed, 1));
    }
    fs::remove_file(stick.join(stick::DEVICES)).unwrap();
    appliance.with(&Drawer::of([("PROVISION", stick.clone())]), |step| step.commission()).unwrap();
    assert!(stick.join("devices/monitor-01/key.pem").exists() && is_commissioned(&places));
    assert_eq!(appliance.programs.certificates_of("monitor-01"), 1);
}
