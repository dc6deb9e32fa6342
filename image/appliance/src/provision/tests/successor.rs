//! Site files for an appliance in service.

use std::time::Duration;

use super::*;
use crate::boot::stay_with_this_version;
use crate::gate::Before;
use crate::lock;
use crate::stick::drawer::Folder;
use crate::stick::{Mounted, StickError};

/// An appliance in service with [`example`].
fn in_service_already() -> Appliance {
    let (appliance, stick) = accepted();
    appliance.with(&Drawer::of([("PROVISION", stick)]), |step| step.commission()).unwrap();
    appliance
}

/// The example with another publishing device.
fn with_another(device: &str) -> String {
    format!(
        "{}\n[[device]]\nid = \"{device}\"\nprofile = \"vitals-json\"\npatient = \"Patient/4712\"\npatient_since = \"2026-11-22T10:00:00+01:00\"\n",
        example()
    )
}

impl Appliance {
    /// Plugs a stick with this signed text in; gives the stick.
    fn plugged(&self, name: &str, text: &str) -> (PathBuf, anyhow::Result<()>) {
        let stick = self.stick(name, sign(text, &signer()).unwrap());
        let done = self.plugged_again(&stick);
        (stick, done)
    }

    fn plugged_again(&self, stick: &Path) -> anyhow::Result<()> {
        in_service(&self.places(), &self.programs, Box::new(Folder { folder: stick.to_owned(), protected: false }))
    }

    /// What every start says.
    fn started(&self) {
        self.with(&Drawer::default(), |step| step.accept().and_then(|()| step.commission())).unwrap();
    }

    fn site_in_service(&self) -> String {
        fs::read_to_string(self.places().at(path::SITE_FILE)).unwrap()
    }
}

/// A device more: the file is kept, the appliance restarts, and after that only the new device gets credentials.
#[test]
fn a_successor_is_kept_and_only_new_devices_get_credentials() {
    let appliance = in_service_already();
    let (stick, done) = appliance.plugged("next", &with_another("monitor-07"));
    done.unwrap();
    assert!(told(&stick).contains("ACCEPTED"), "{}", told(&stick));
    assert_eq!((appliance.programs.restarts.get(), appliance.programs.added.get()), (1, 1));
    assert!(!stick.join("devices").exists(), "the gateway does not know the device yet");

    appliance.started();
    assert_eq!((appliance.said().word, appliance.said().detail.as_str()), (StateWord::Ready, crate::provision::successor::OWED));
    appliance.plugged_again(&stick).unwrap();
    assert!(stick.join("devices/monitor-07/key.pem").exists());
    assert!(!stick.join("devices/monitor-01").exists(), "a device that works got other credentials");
    assert!(!stick.join("recovery-key.txt").exists());
    let report = open_report(&fs::read(stick.join("commissioning-report.json")).unwrap()).unwrap();
    assert_eq!(report.signed_by, report::key(&appliance.places()).unwrap().public());
    assert!(report.text.contains("monitor-07") && !report.text.contains("Patient/4712"));
    assert_eq!((appliance.said().word, appliance.said().detail.as_str()), (StateWord::Ready, ""));

    // It stays plugged in: nothing more is made, and nothing restarts.
    appliance.started();
    appliance.plugged_again(&stick).unwrap();
    assert_eq!((appliance.programs.restarts.get(), appliance.programs.added.get()), (1, 2));
}

/// What would lose readings, give them to another patient or bring an earlier site back is refused with its reason, on
/// stick and page; the site file in service stays, and so does the service.
#[test]
fn a_file_that_cannot_follow_is_refused_and_changes_nothing() {
    let appliance = in_service_already();
    let first = example();
    let wrong = [
        ("gateway", first.replace("gateway = \"practice-01\"", "gateway = \"practice-02\""), "it stays practice-01"),
        ("destination", first.replace("id = \"ehr\"", "id = \"other\""), "destination ehr is missing"),
        ("patient", first.replace("Patient/4711", "Patient/4712"), "device monitor-01: say since when it has its patient"),
        ("server", first.replace("192.0.2.20:8443", "192.0.2.21:8443"), "destination ehr has another url"),
        (
            "came",
            with_another("monitor-07").replace("patient_since = \"2026-11-22T10:00:00+01:00\"\n", ""),
            "device monitor-07: say since when",
        ),
    ];
    let kept = appliance.site_in_service();
    for (name, text, why) in wrong {
        let (stick, done) = appliance.plugged(name, &text);
        assert!(done.is_err(), "{name}");
        assert!(told(&stick).contains("REFUSED (22)") && told(&stick).contains(why), "{name}: {}", told(&stick));
        assert!(!told(&stick).contains("Patient/"), "a patient in the report");
        let said = appliance.said();
        assert_eq!((said.word, said.code), (StateWord::Ready, None));
        assert!(said.detail.contains("PROVISION refused (22)") && said.detail.contains(why), "{}", said.detail);
    }
    let unsigned = appliance.stick("unsigned", example());
    assert!(appliance.plugged_again(&unsigned).is_err());
    assert!(told(&unsigned).contains("REFUSED (12)"));
    assert_eq!((appliance.site_in_service(), appliance.programs.restarts.get()), (kept, 0));

    let named_so = first
        .replace("https://192.0.2.20:8443/fhir\"", "https://192.0.2.21:8443/fhir\"\nsame_server_as = \"https://192.0.2.20:8443/fhir\"");
    appliance.plugged("same-server", &named_so).1.unwrap();
    let first = named_so;
    let moved = first.replace("patient = \"Patient/4711\"", "patient = \"Patient/4712\"\npatient_since = \"2026-11-22T10:00:00+01:00\"");
    appliance.plugged("moved", &moved).1.unwrap();
    // Without its moment the new patient would have been there since ever.
    let (widened, done) = appliance.plugged("widened", &first.replace("Patient/4711", "Patient/4712"));
    assert!(done.is_err() && told(&widened).contains("device monitor-01: say since when"), "{}", told(&widened));
    let (back, done) = appliance.plugged("back", &first);
    assert!(done.is_err() && told(&back).contains("it was in service before"), "{}", told(&back));
    let signed_anew = first
        .replace("2099-12-31", "2099-12-30")
        .replace("Patient/4711\"", "Patient/4711\"\npatient_since = \"2026-11-23T10:00:00+01:00\"");
    appliance.plugged("anew", &signed_anew).1.unwrap();
    assert_eq!(appliance.programs.restarts.get(), 3);
}

/// A power cut leaves the earlier file or the new one in service, and the same stick brings it to its end.
#[test]
fn a_power_cut_in_between_is_made_up_for_by_the_same_stick() {
    let appliance = in_service_already();
    let places = appliance.places();
    // Noted what is owed, the file not kept yet.
    fs::write(places.at(path::OWED_TO_STICK), "monitor-07\n").unwrap();
    appliance.started();
    let (stick, done) = appliance.plugged("next", &with_another("monitor-07"));
    done.unwrap();
    // Kept, but not yet when: the day of before is as good. Who signed is in the file itself.
    let signer = appliance.said().facts[fact::SIGNED_BY].clone();
    fs::write(places.at(path::SITE_FILE_ACCEPTED), "2026-01-15T10:00:00Z\nwho signed the one before\n").unwrap();
    appliance.started();
    let said = appliance.said().facts;
    assert_eq!((said[fact::ACCEPTED].as_str(), &said[fact::SIGNED_BY]), ("2026-01-15T10:00:00Z", &signer));
    // Another one before the stick got what was owed to it.
    let (last, done) = appliance.plugged("last", &with_another("monitor-07").replace("2099-12-31", "2099-12-30"));
    done.unwrap();
    appliance.started();
    appliance.plugged_again(&last).unwrap();
    assert!(last.join("devices/monitor-07/key.pem").exists() && !stick.join("devices").exists());
    assert!(!places.at(path::OWED_TO_STICK).exists());
}

/// Another board, another serial number: the file of before puts nothing into service, what it takes is said, and a
/// successor for the new number that keeps to the other rules is taken.
#[test]
fn a_board_that_was_replaced_is_brought_back_by_a_successor() {
    let appliance = in_service_already();
    let places = appliance.places();
    fs::write(places.at("/sys/class/dmi/id/product_serial"), "VG-0009\n").unwrap();
    assert!(appliance.with(&Drawer::default(), |step| step.accept()).is_err());
    let said = appliance.said();
    assert_eq!((said.word, said.code), (StateWord::ProvisionRejected, Some(16)));
    assert!(said.detail.ends_with("bring a site file for this serial number on a stick labelled PROVISION"), "{}", said.detail);

    let for_new = example().replace("VG-0001", "VG-0009");
    let (strange, done) = appliance.plugged("strange", &for_new.replace("practice-01", "practice-02"));
    assert!(done.is_err() && told(&strange).contains("REFUSED (22)"), "{}", told(&strange));
    let (stick, done) = appliance.plugged("next", &for_new);
    done.unwrap();
    assert_eq!(appliance.programs.restarts.get(), 1);
    appliance.started();
    appliance.plugged_again(&stick).unwrap();
    assert_eq!((appliance.said().word, appliance.said().facts[fact::SERIAL].as_str()), (StateWord::Ready, "VG-0009"));

    // Signed by a stranger it is not even compared with.
    appliance.put_site_file(&example());
    let (after, done) = appliance.plugged("after", &for_new.replace("2099-12-31", "2099-12-30"));
    assert!(done.is_err() && told(&after).contains("REFUSED (31)"), "{}", told(&after));
}

/// A device that is gone on purpose is no reason to undo an update that waits for its restart.
#[test]
fn an_update_is_not_held_to_a_device_that_is_gone() {
    let appliance = in_service_already();
    let places = appliance.places();
    let devices = ["monitor-01", "monitor-09"].map(str::to_owned).to_vec();
    Before { devices, destinations: vec!["ehr".to_owned()], ..Before::default() }.keep(&places).unwrap();
    appliance.plugged("next", &with_another("monitor-07")).1.unwrap();
    let expected = Before::read(&places).unwrap();
    assert_eq!((expected.devices, expected.destinations), (vec!["monitor-01".to_owned()], vec!["ehr".to_owned()]));
}

/// Nor to one that the new file itself reaches in another way: what is wrong there is not the version's fault. What stays as it is, on
/// whatever line of the file, stays expected.
#[test]
fn an_update_is_not_held_to_what_another_site_file_changes() {
    let all = (["bedside-1", "monitor-01"].as_slice(), ["ehr"].as_slice());
    let authority = rcgen::generate_simple_self_signed(["ehr.example".to_owned()]).unwrap().cert.pem();
    let authority = format!("/fhir\"\nca_pem = \"\"\"\n{authority}\"\"\"\n");
    let moved = "Patient/4712\"\npatient_since = \"2026-11-22T10:00:00+01:00\"\n";
    for (from, to, (devices, destinations)) in [
        ("[site]", "# Another line\n[site]", all),
        ("Patient/4711\"\n", moved, all),
        ("127.0.0.1:9", "127.0.0.1:10", (&["monitor-01"][..], &["ehr"][..])),
        ("8883", "8884", (&["bedside-1"], &["ehr"])),
        ("/fhir\"\n", authority.as_str(), (&["bedside-1", "monitor-01"], &[])),
        ("dhcp = true", "dhcp = true\nvlan = 7", (&[], &[])),
    ] {
        let appliance = in_service_already();
        let places = appliance.places();
        appliance.put_site_file(&sign(SITE_EXAMPLE, &signer()).unwrap());
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        Before { devices: names(all.0), destinations: names(all.1), ..Before::default() }.keep(&places).unwrap();
        assert_eq!(SITE_EXAMPLE.matches(from).count(), 1, "{from}");
        appliance.plugged("next", &SITE_EXAMPLE.replace(from, to)).1.unwrap();
        let expected = Before::read(&places).unwrap();
        assert_eq!((expected.devices, expected.destinations), (names(devices), names(destinations)), "{to}");
    }
}

/// A restart before the clock is set takes their moment from readings: whoever brings the file reads it.
#[test]
fn a_restart_before_the_clock_is_set_is_said() {
    let appliance = in_service_already();
    for (word, told_so) in [("unset\n", true), ("free\n", false)] {
        fs::write(appliance.places().at(path::CLOCK_TRUST), word).unwrap();
        let (stick, done) = appliance.plugged(word.trim(), &with_another(if told_so { "monitor-07" } else { "monitor-08" }));
        done.unwrap();
        assert_eq!(told(&stick).contains("have no moment any more after this restart"), told_so, "{}", told(&stick));
    }
}

/// A stick that is pulled while it gets its answer: what is kept by then comes into service.
#[test]
fn a_stick_that_is_pulled_too_early_leaves_no_file_that_is_kept_but_not_in_service() {
    let appliance = in_service_already();
    let stick = appliance.stick("next", sign(&with_another("monitor-07"), &signer()).unwrap());
    in_service(&appliance.places(), &appliance.programs, Box::new(Pulled(stick))).unwrap();
    assert!(appliance.site_in_service().contains("monitor-07"));
    assert_eq!(appliance.programs.restarts.get(), 1);
}

/// Takes what is written to it, and is gone when it is to be let go of.
struct Pulled(PathBuf);

impl Mounted for Pulled {
    fn folder(&self) -> &Path {
        &self.0
    }

    fn check_writable(&self) -> Result<(), StickError> {
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<(), StickError> {
        Err(StickError::NotWritable(std::io::Error::other("pulled")))
    }
}

/// Before the window is closed the stick is the other steps' business.
#[test]
fn while_the_window_is_open_nothing_is_done_here() {
    let (appliance, stick) = accepted();
    appliance.plugged_again(&stick).unwrap();
    assert_eq!((appliance.programs.restarts.get(), appliance.programs.added.get()), (0, 0));
    assert_eq!(fs::read_dir(stick).unwrap().count(), 2, "the site file, and what the first step said");
}

/// Changes a byte of a file, as a disk does.
fn flip(appliance: &Appliance, file: &str) {
    let file = appliance.places().at(file);
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(file, bytes).unwrap();
}

/// A damaged byte of the site file, or a file that is gone, stops no appliance: every start mends one copy from the other.
#[test]
fn a_damaged_site_file_is_mended_from_its_copy() {
    let appliance = in_service_already();
    let places = appliance.places();
    let right = appliance.site_in_service();
    for damaged in [path::SITE_FILE, path::SITE_FILE_COPY] {
        flip(&appliance, damaged);
        appliance.started();
        assert_eq!(appliance.said().word, StateWord::Ready);
        fs::remove_file(places.at(damaged)).unwrap();
        appliance.started();
        for file in [path::SITE_FILE, path::SITE_FILE_COPY] {
            assert_eq!(fs::read_to_string(places.at(file)).unwrap(), right, "{damaged}: {file}");
        }
    }
    // Damaged since the start: the stick with the file in service is still known as such.
    flip(&appliance, path::SITE_FILE);
    let stick = appliance.stick("again", &right);
    appliance.plugged_again(&stick).unwrap();
    assert_eq!(appliance.programs.restarts.get(), 0);
}

/// Where both copies are damaged, the stick with the same file brings the appliance back into service, also after the file has
/// expired, and no stick with another one does.
#[test]
fn the_same_site_file_comes_back_from_its_stick() {
    let appliance = in_service_already();
    let places = appliance.places();
    let expired = sign(&example().replace("2099-12-31", "2026-01-31"), &signer()).unwrap();
    appliance.put_site_file(&expired);
    fs::write(places.at(path::SITE_FILE_ACCEPTED), "2026-01-15T10:00:00Z\n").unwrap();
    appliance.started();
    flip(&appliance, path::SITE_FILE);
    flip(&appliance, path::SITE_FILE_COPY);
    assert!(appliance.with(&Drawer::default(), |step| step.accept()).is_err());
    assert_eq!(appliance.said().code, Some(31));

    let (other, done) = appliance.plugged("other", &with_another("monitor-07"));
    assert!(done.is_err() && told(&other).contains("REFUSED (31)"), "{}", told(&other));
    let same = appliance.stick("same", &expired);
    appliance.plugged_again(&same).unwrap();
    assert!(told(&same).contains("ACCEPTED"), "{}", told(&same));
    assert_eq!((appliance.site_in_service(), appliance.programs.restarts.get()), (expired, 1));
    appliance.started();
    assert_eq!((appliance.said().word, appliance.said().facts[fact::ACCEPTED].as_str()), (StateWord::Ready, "2026-01-15T10:00:00Z"));
    assert!(!places.at(path::OWED_TO_STICK).exists());
}

/// A copy of an earlier site file, which a version that knew of no copies left behind, does not come into service: it may name
/// patients of then.
#[test]
fn an_earlier_site_file_is_no_copy() {
    let appliance = in_service_already();
    let first = appliance.site_in_service();
    appliance.plugged("next", &with_another("monitor-07")).1.unwrap();
    fs::write(appliance.places().at(path::SITE_FILE_COPY), first).unwrap();
    flip(&appliance, path::SITE_FILE);
    assert!(appliance.with(&Drawer::default(), |step| step.accept()).is_err());
    assert_eq!(appliance.said().code, Some(31));
}

/// The moment of acceptance lies on the disk twice as well: a damaged one is mended, and keeps no file from service that has expired
/// since, nor its successor.
#[test]
fn a_damaged_moment_of_acceptance_is_mended() {
    for damage in [None, Some("2o26-01-15T10:00:00Z\n"), Some("2096-01-15T10:00:00Z\n")] {
        let appliance = in_service_already();
        let accepted = appliance.places().at(path::SITE_FILE_ACCEPTED);
        let expired = sign(&example().replace("2099-12-31", "2026-01-31"), &signer()).unwrap();
        appliance.put_site_file(&expired);
        fs::write(&accepted, "2026-01-15T10:00:00Z\n").unwrap();
        appliance.started();
        damage.map_or_else(|| fs::remove_file(&accepted), |damage| fs::write(&accepted, damage)).unwrap();
        appliance.started();
        assert_eq!((appliance.said().word, appliance.said().facts[fact::ACCEPTED].as_str()), (StateWord::Ready, "2026-01-15T10:00:00Z"));
        fs::remove_file(appliance.places().at(path::SITE_FILE_SHA256)).unwrap();
        appliance.started();
        assert_eq!(appliance.said().word, StateWord::Ready, "{damage:?}");
        appliance.plugged("next", &with_another("monitor-07")).1.unwrap();
        appliance.started();
        assert_ne!(appliance.said().facts[fact::ACCEPTED], "2026-01-15T10:00:00Z");
    }
}

/// A power cut before the successor is kept leaves the file of before in service, and its copy good for mending it.
#[test]
fn a_file_whose_successor_was_cut_off_is_still_mended_from_its_copy() {
    let appliance = in_service_already();
    let places = appliance.places();
    let listed = format!("{}\n{}\n", "0".repeat(64), site_file::sha256(appliance.site_in_service().as_bytes()));
    fs::write(places.at(path::SITE_FILES_BEFORE), listed).unwrap();
    appliance.started();
    flip(&appliance, path::SITE_FILE);
    appliance.started();
    assert_eq!(appliance.said().word, StateWord::Ready);
    assert_eq!(site_file::before(&places), ["0".repeat(64)], "those of before stay known");
}

/// Puts 0.2.0 in slot a on trial, with this entry in the other slot.
fn put_on_trial(places: &Places, other: &str) {
    let entries = places.at(path::ESP).join(vitalgate_layout::entry::FOLDER);
    let notes = places.at(path::ESP).join(crate::boot::NOTES);
    [&entries, &notes].iter().for_each(|folder| fs::create_dir_all(folder).unwrap());
    fs::create_dir_all(places.at(path::BOOT_ENV).parent().unwrap()).unwrap();
    fs::write(places.at(path::BOOT_ENV), "VITALGATE_SLOT=a\n").unwrap();
    fs::write(places.at("/usr/lib/os-release"), "ID=vitalgate\nIMAGE_VERSION=0.2.0\n").unwrap();
    ["vitalgate-a_0.2.0+2-1.efi", other].iter().for_each(|entry| fs::write(entries.join(entry), "").unwrap());
    fs::write(notes.join("trial.json"), r#"{"slot":"a","version":"0.2.0","data_was_open":true}"#).unwrap();
}

/// No site file is changed under a version that may be left for another, as long as its trial takes. A version that was kept, and
/// one that is left for no other, may need just that file to come into service: there the stick waits for nothing.
#[test]
fn a_stick_waits_only_for_a_trial_that_may_end_in_the_other_version() {
    let appliance = Appliance::new();
    let places = appliance.places();
    let waited = Cell::new(0);
    let waits = |wait: Duration, ends_trial: bool| {
        waited.set(0);
        crate::provision::successor::wait_while_judged(&places, wait, || {
            waited.set(waited.get() + 1);
            if ends_trial {
                fs::remove_file(places.at(path::ESP).join(crate::boot::NOTES).join("trial.json")).unwrap();
            }
        });
        waited.get()
    };
    let long = Duration::from_secs(3600);
    assert_eq!(waits(long, false), 0, "nothing on trial");
    put_on_trial(&places, "vitalgate-b_0.1.0+0-3.efi");
    assert_eq!(waits(long, false), 0, "nothing to go back to");
    put_on_trial(&places, "vitalgate-b_0.1.0+3.efi");
    assert_eq!(waits(long, true), 1);
    assert_eq!(waits(long, false), 0, "kept");
    put_on_trial(&places, "vitalgate-b_0.1.0+3.efi");
    assert_eq!(waits(Duration::ZERO, false), 0, "the gate has decided long before");
    fs::remove_file(places.at(path::ESP).join(crate::boot::NOTES).join("trial.json")).unwrap();
    let installing = Cell::new(lock::take(&places, path::CHANGE_LOCK, Duration::ZERO).unwrap());
    crate::provision::successor::wait_while_judged(&places, long, || drop(installing.take().expect("it is over")));
    assert!(installing.take().is_none(), "an installation is waited for");
    let updating = StateFiles::of(&places);
    updating.say(Part::Update, Said::new(StateWord::Updating, "")).unwrap();
    crate::provision::successor::wait_while_judged(&places, long, || {
        updating.say(Part::Update, Said::new(StateWord::Ready, "it waits for its window")).unwrap();
    });
    assert_eq!(updating.read(Part::Update).unwrap().word, StateWord::Ready, "from the copying on an update is waited for");
}

/// Its restart does not cut off an installation, which would be lost without a word; the stick says what to wait for.
#[test]
fn no_site_file_is_taken_while_an_update_is_installed() {
    let appliance = in_service_already();
    let installing = lock::take(&appliance.places(), path::CHANGE_LOCK, Duration::ZERO).unwrap();
    let (stick, done) = appliance.plugged("next", &with_another("monitor-07"));
    assert!(done.is_err() && told(&stick).contains("an update is being installed"), "{}", told(&stick));
    assert!(appliance.said().detail.contains("an update is being installed"), "{}", appliance.said().detail);
    assert_eq!((appliance.site_in_service().contains("monitor-07"), appliance.programs.restarts.get()), (false, 0));
    drop(installing);
    appliance.plugged_again(&stick).unwrap();
    assert_eq!((appliance.site_in_service().contains("monitor-07"), appliance.programs.restarts.get()), (true, 1));
}

/// A later version may be stricter than the one that took the file: it says which line it does not take, and what to do.
#[test]
fn a_site_file_that_a_later_version_does_not_take_is_named_by_line() {
    let appliance = in_service_already();
    let text = example().replace("serial = [\"VG-0001\"]", "serial = [\"VG-0001\", \"any\"]");
    let key = SigningKey::parse(&"01".repeat(32)).unwrap();
    let (public, text) = (key.public().to_hex(), text.trim_end());
    let signature = key.sign_bytes(format!("vitalgate-signature-1\nsite\n{public}\n{text}").as_bytes());
    let signature: String = signature.iter().map(|byte| format!("{byte:02x}")).collect();
    appliance.put_site_file(&format!(
        "{text}\n\n# -----BEGIN VITALGATE SIGNATURE-----\n# purpose: site\n# signed-by: {public}\n# signature: {signature}\n# -----END VITALGATE SIGNATURE-----\n"
    ));
    assert!(appliance.with(&Drawer::default(), |step| step.accept()).is_err());
    let said = appliance.said();
    assert_eq!((said.word, said.code), (StateWord::ProvisionRejected, Some(Rejection::ErrorsInText.code())));
    let (detail, line) = (said.detail, format!("this version does not take the accepted site file: {}:", stick::SITE_FILE));
    assert!(detail.starts_with(&line) && detail.contains("\"any\" beside serial numbers; write serial"), "{detail}");
    assert!(detail.ends_with("sign it again, and bring it on a stick labelled PROVISION"), "{detail}");
}

/// A power cut at any step of the first acceptance leaves no file without its moment: it would expire in service.
#[test]
fn what_a_power_cut_leaves_of_an_acceptance_gets_its_moment() {
    let files = [path::SITE_FILE_COPY, path::SITE_FILE_SHA256, path::SITE_FILE, path::SITE_FILE_ACCEPTED];
    for written in 1..=files.len() {
        let appliance = in_service_already();
        appliance.started();
        let places = appliance.places();
        files.iter().skip(written).for_each(|file| fs::remove_file(places.at(file)).unwrap());
        appliance.started();
        assert_eq!(appliance.said().word, StateWord::Ready, "after {written} files");
        fs::remove_file(places.at(path::SITE_FILE_ACCEPTED)).unwrap();
        assert!(site_file::accepted_unix_ms(&places).is_some(), "after {written} files");
    }
}

/// A stick that is taken at the last try of a version brings no other version into service: that would have to do with this one's file.
#[test]
fn a_restart_for_a_stick_is_no_try_of_the_version() {
    let appliance = Appliance::new();
    let places = appliance.places();
    let entries = || {
        let folder = fs::read_dir(places.at(path::ESP).join(vitalgate_layout::entry::FOLDER)).unwrap();
        let mut names: Vec<_> = folder.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    put_on_trial(&places, "vitalgate-b_0.1.0+3.efi");
    let before = entries();
    stay_with_this_version(&places);
    assert_eq!(entries(), before, "one on trial is judged as before");
    let trial = places.at(path::ESP).join(crate::boot::NOTES).join("trial.json");
    fs::write(&trial, r#"{"slot":"b","version":"0.1.0","data_was_open":true}"#).unwrap();
    stay_with_this_version(&places);
    assert_eq!(entries(), before, "an older version that was installed starts next");
    fs::remove_file(trial).unwrap();
    stay_with_this_version(&places);
    assert_eq!(entries(), ["vitalgate-a_0.2.0+3.efi", "vitalgate-b_0.1.0+3.efi"]);
}
