//! Leaving a version, with real files.

use std::fs;

use vitalgate_layout::{Slot, Version, entry};

use super::*;
use crate::boot::undone;
use crate::command::{Answer, CommandError};
use crate::state_file::Said;

/// The reason is on record before the entry loses its tries, and both are there afterwards.
#[test]
fn a_version_that_is_left_has_its_reason_and_no_tries() {
    let folder = tempfile::tempdir().unwrap();
    let places = Places::under(folder.path());
    let entries = places.at(path::ESP).join(entry::FOLDER);
    fs::create_dir_all(&entries).unwrap();
    fs::create_dir_all(places.at(path::APPLIANCE)).unwrap();
    for name in ["vitalgate-a_0.2.0+3.efi", "vitalgate-b_0.3.0+2-1.efi"] {
        fs::write(entries.join(name), b"").unwrap();
    }
    let disk = Mounted::at(&places.at(path::ESP));
    let esp = Esp::on(&disk);
    let running = Running { slot: Slot::B, version: Version::parse("0.3.0").unwrap() };
    go_back(&places, &esp, running, "no reading from m-2").unwrap();
    assert_eq!(esp.primary().unwrap(), Slot::A);
    assert!(!esp.is_good(Slot::B).unwrap());
    assert_eq!(
        undone(&places, &esp, Running { slot: Slot::A, version: Version::parse("0.2.0").unwrap() }).unwrap().unwrap().reason,
        "no reading from m-2"
    );
    let said = StateFiles::of(&places).read(Part::Slots).unwrap();
    assert!(said.detail.contains("no reading from m-2"), "{}", said.detail);
}

/// A version that is older than the one it replaces is left like any other: the newer one lost its tries only so that
/// the older could start, and gets them back.
#[test]
fn an_older_version_that_is_not_healthy_has_a_way_back() {
    let folder = tempfile::tempdir().unwrap();
    let places = Places::under(folder.path());
    let entries = places.at(path::ESP).join(entry::FOLDER);
    fs::create_dir_all(&entries).unwrap();
    fs::create_dir_all(places.at(path::APPLIANCE)).unwrap();
    for name in ["vitalgate-a_0.2.0+0.efi", "vitalgate-b_0.1.5+2-1.efi"] {
        fs::write(entries.join(name), b"").unwrap();
    }
    let disk = Mounted::at(&places.at(path::ESP));
    let esp = Esp::on(&disk);
    let running = Running { slot: Slot::B, version: Version::parse("0.1.5").unwrap() };
    let trial = Trial { slot: "b".into(), version: "0.1.5".into(), data_was_open: true };
    assert!(known(&places, &esp, running, Some(&trial)).unwrap().way_back);
    go_back(&places, &esp, running, "no reading from m-2").unwrap();
    assert_eq!(esp.primary().unwrap(), Slot::A);
    assert!(esp.is_good(Slot::A).unwrap() && !esp.is_good(Slot::B).unwrap());
    // One that failed is none.
    fs::rename(entries.join("vitalgate-a_0.2.0+3.efi"), entries.join("vitalgate-a_0.2.0+0-3.efi")).unwrap();
    assert!(!known(&places, &esp, running, Some(&trial)).unwrap().way_back);
}

/// Where nobody can tell what runs, or what it could go back to, nothing is judged and nothing is kept: that is said.
#[test]
fn a_start_that_cannot_be_judged_is_not_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let places = Places::under(folder.path());
    let disk = Mounted::at(&places.at(path::ESP));
    let waits = std::cell::Cell::new(0);
    for (file, content) in [("/usr/lib/os-release", "IMAGE_VERSION=0.2.0\n"), (path::BOOT_ENV, "VITALGATE_SLOT=a\n")] {
        assert!(begin(&places, &Esp::on(&disk), || waits.set(waits.get() + 1)).is_err());
        fs::create_dir_all(places.at(file).parent().unwrap()).unwrap();
        fs::write(places.at(file), content).unwrap();
    }
    // Who runs is known, what is in the other slot is not.
    let entries = places.at(path::ESP).join(entry::FOLDER);
    fs::create_dir_all(entries.parent().unwrap()).unwrap();
    fs::write(&entries, "damaged").unwrap();
    fs::remove_dir_all(places.at(path::STATE_FOLDER)).unwrap_or_default();
    assert!(begin(&places, &Esp::on(&disk), || waits.set(waits.get() + 1)).is_err());
    assert_eq!(waits.get(), 3 * 9, "a disk that fails for a moment is asked again");
    let said = StateFiles::of(&places).read(Part::Slots).unwrap();
    assert_eq!(said.word, StateWord::Degraded);
    assert!(said.detail.contains("whether this version is healthy cannot be decided") && said.detail.contains("disk"), "{}", said.detail);
    fs::remove_file(&entries).unwrap();
    fs::create_dir_all(&entries).unwrap();
    fs::write(entries.join("vitalgate-a_0.2.0+2-1.efi"), b"").unwrap();
    assert_eq!(begin(&places, &Esp::on(&disk), || {}).unwrap().0, Running { slot: Slot::A, version: Version::parse("0.2.0").unwrap() });
}

/// Storage that a recovery key opens later, a store that drains, a device that is switched on again: the slot is
/// kept, and says nothing that nobody would take back. A start that was not healthy stays one.
#[test]
fn what_may_be_mended_later_leaves_no_word_behind() {
    let folder = tempfile::tempdir().unwrap();
    let places = Places::under(folder.path());
    let entries = places.at(path::ESP).join(entry::FOLDER);
    fs::create_dir_all(&entries).unwrap();
    fs::write(entries.join("vitalgate-a_0.2.0+2-1.efi"), b"").unwrap();
    let disk = Mounted::at(&places.at(path::ESP));
    let esp = Esp::on(&disk);
    let running = Running { slot: Slot::A, version: Version::parse("0.2.0").unwrap() };
    let said = || StateFiles::of(&places).read(Part::Slots);
    conclude(&places, &esp, running, &Verdict::Degraded("sealed storage does not open".to_owned())).unwrap();
    assert_eq!(said(), None);
    conclude(&places, &esp, running, &Verdict::Stay("the gateway does not answer".to_owned())).unwrap();
    let said = said().unwrap();
    assert_eq!(said.word, StateWord::Degraded);
    assert!(said.detail.contains("this start") && said.detail.contains("the gateway does not answer"), "{}", said.detail);
}

/// The record before an update names what was there, and a lost record asks for nothing.
#[test]
fn the_record_before_an_update_is_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let places = Places::under(folder.path());
    assert_eq!(Before::read(&places), None);
    fs::create_dir_all(places.at(path::APPLIANCE)).unwrap();
    let status: daemon::Status = serde_json::from_str(
        r#"{"devices":[{"id":"m-1","last_reading_age_s":5},{"id":"scale","last_reading_age_s":4000},{"id":"new","last_reading_age_s":null}],
            "destinations":[{"id":"ehr","last_acknowledgement_age_s":1},{"id":"cloud","last_acknowledgement_age_s":1,"alarm":"refused"}]}"#,
    )
    .unwrap();
    Before::of(&status).keep(&places).unwrap();
    let before = Before::read(&places).unwrap();
    assert_eq!((before.devices, before.destinations), (vec!["m-1".to_owned()], vec!["ehr".to_owned()]));
    fs::write(places.at(path::BEFORE_UPDATE), b"{").unwrap();
    assert_eq!(Before::read(&places), None);

    // As the version before wrote it.
    fs::write(places.at(path::BEFORE_UPDATE), br#"{"at_unix_ms":1,"devices":["m-1"],"destinations":[]}"#).unwrap();
    assert_eq!(Before::read(&places).unwrap().devices, ["m-1"]);
    // Who has only just started knows of nothing yet, unless all is there; who takes no readings never will.
    for (ready, uptime_s, seen, settling) in
        [(true, 30, None, true), (true, 30, Some(1), false), (true, 300, None, false), (false, 30, None, false)]
    {
        let devices = vec![daemon::Device { id: "m-1".into(), last_reading_age_s: seen }];
        let health = daemon::Health { ready, ..Default::default() };
        let status = daemon::Status { uptime_s, health, devices, ..Default::default() };
        assert_eq!(Before::of(&status).settling, settling, "{ready} {uptime_s} {seen:?}");
    }
}

/// A service manager that answers as systemd 252 does.
struct Systemctl(&'static str);

impl Programs for Systemctl {
    fn attempt(&self, call: Call) -> Result<Answer, CommandError> {
        assert!(call.line().starts_with("systemctl show --property "), "{}", call.line());
        Ok(Answer { success: true, code: Some(0), output: self.0.into(), complaint: String::new() })
    }
}

/// What the service manager knows ends the waiting early; what it does not say changes nothing.
#[test]
fn the_service_manager_is_asked_what_became_of_the_units() {
    let folder = tempfile::tempdir().unwrap();
    let places = Places::under(folder.path());
    assert_eq!(daemon_ends(&Systemctl("NRestarts=4\n")), 4);
    assert!(data_given_up(&places, &Systemctl("ActiveState=failed\n")));
    assert!(!data_given_up(&places, &Systemctl("ActiveState=activating\n")));
    for nothing in ["", "\n", "NRestarts=\n", "Failed to connect to bus\n"] {
        assert_eq!(daemon_ends(&Systemctl(nothing)), 0, "{nothing}");
        assert!(!data_given_up(&places, &Systemctl(nothing)), "{nothing}");
    }
}

/// Only a site file for another serial number is no version's fault; one that this version does not take may be.
#[test]
fn a_site_file_for_another_board_is_told_from_one_that_is_not_taken() {
    let folder = tempfile::tempdir().unwrap();
    let places = Places::under(folder.path());
    assert!(!site_is_for_another(&places));
    for (rejection, for_another) in [(Rejection::OtherSerial, true), (Rejection::ErrorsInText, false), (Rejection::NotApplied, false)] {
        let said = Said { code: Some(rejection.code()), ..Said::new(StateWord::ProvisionRejected, "no") };
        StateFiles::of(&places).say(Part::Provision, said).unwrap();
        assert_eq!(site_is_for_another(&places), for_another, "{rejection}");
    }
}

/// A start whose gateway was never started is not left at that: nothing but another start brings it up, or the sound version in the
/// other slot. One that got well meanwhile is kept, one that is started again by itself is left to that, and no installation is cut off.
#[test]
fn a_start_without_a_gateway_is_not_the_last() {
    let (early, late) = (STAY.saturating_sub(Duration::from_secs(1)), STAY);
    let (installs, idle) = (|| true, || false);
    assert_eq!(stayed(true, false, idle, Duration::ZERO), Some(Stayed::Well));
    assert_eq!(stayed(false, true, idle, early), None);
    assert_eq!(stayed(false, true, idle, late), Some(Stayed::Restart));
    assert_eq!(stayed(false, true, installs, late), None);
    assert_eq!(stayed(false, false, idle, late), Some(Stayed::Ended));
    assert!(was_never_started(&Systemctl("ActiveState=inactive\n")));
    for other in ["ActiveState=activating\n", "ActiveState=active\n", "ActiveState=failed\n", ""] {
        assert!(!was_never_started(&Systemctl(other)), "{other}");
    }
}

/// Nor is one cut off that is still being fetched: by a slow line it would begin anew in each start.
#[test]
fn an_update_that_is_fetched_is_under_way() {
    let folder = tempfile::tempdir().unwrap();
    let places = Places::under(folder.path());
    fs::create_dir_all(places.at("/run/vitalgate")).unwrap();
    assert!(!is_updating(&places));
    let fetching = lock::take(&places, path::UPDATE_LOCK, Duration::ZERO).unwrap();
    assert!(is_updating(&places));
    drop(fetching);
    // One whose program was killed leaves its last word behind, and nothing that would be cut off.
    StateFiles::of(&places).say(Part::Update, Said::new(StateWord::Updating, "installing 0.3.0: 40 %")).unwrap();
    assert!(!is_updating(&places));
}

/// A version that does not take the site file in service is left with the line and what to do on record: the earlier version's page is
/// where a technician reads it.
#[test]
fn the_reason_names_what_is_wrong_with_the_site_file() {
    let folder = tempfile::tempdir().unwrap();
    let places = Places::under(folder.path());
    assert_eq!(site_refused(&places), None);
    StateFiles::of(&places).say(Part::Provision, Said::new(StateWord::Ready, "plug in the stick")).unwrap();
    assert_eq!(site_refused(&places), None);
    let detail = "this version does not take the accepted site file: site.toml:4: serial is wrong;\ncorrect it";
    StateFiles::of(&places).say(Part::Provision, Said::new(StateWord::ProvisionRejected, detail)).unwrap();
    let known = Known { on_trial: true, way_back: true, data_was_open: true, ..Known::default() };
    let seen = Seen { data: true, site: true, site_refused: site_refused(&places), ..Seen::default() };
    let Verdict::Return(reason) = decide(&known, &seen, verdict::SERVICE_DEADLINE_S) else { panic!("it is left") };
    let expected = format!("the gateway does not answer after 300 s: {}", detail.replace('\n', " "));
    assert_eq!(reason, expected);
}

/// A start that is not healthy goes on with the gate's work for a quarter of an hour, or until the gateway ends too often: no stick and no
/// update that may help waits for that, and the stick that waits for a trial has the time for it.
#[test]
fn nothing_that_may_help_waits_for_the_gate() {
    let units = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../rootfs/usr/lib/systemd/system");
    let sticks = fs::read_dir(&units).unwrap().map(|unit| unit.unwrap().path());
    let sticks: Vec<_> = sticks.filter(|unit| unit.file_name().unwrap().to_string_lossy().starts_with("vitalgate-stick-")).collect();
    assert_eq!(sticks.len(), 6, "{sticks:?}");
    for stick in sticks.into_iter().chain([units.join("vitalgate-update.service")]) {
        let unit = fs::read_to_string(&stick).unwrap();
        for later in ["vitalgate-health-gate.service", "boot-complete.target", "vitalgate-mark-good.service"] {
            assert!(!unit.contains(later), "{stick:?} waits for {later}");
        }
        if stick.ends_with("vitalgate-stick-provision@.service") {
            let minutes = unit.lines().find_map(|line| line.strip_prefix("TimeoutStartSec=")?.strip_suffix("min")).unwrap();
            let minutes: u64 = minutes.parse().unwrap();
            assert!(Duration::from_secs(minutes * 60) >= crate::provision::TRIAL_WAIT + Duration::from_secs(10 * 60), "{minutes}");
            assert!(unit.contains("efi.mount"), "who is on trial stands there");
        }
    }
}
