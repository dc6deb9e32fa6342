//! The whole way of an update up to the restart, with real files and a stand-in for the updater.

mod again;
mod by_hand;
mod held_to;
mod person;
mod slots;
mod turn;

use std::cell::{Cell, RefCell};

use serde_json::{Value, json};
use vitalgate_layout::{Slot, Version, entry, stick::UPDATE_REPORT};
use vitalgate_site::{Signer, SigningKey, sign};

use super::install::InstallError;
use super::*;
use crate::boot::{Rollback, record};
use crate::command::{Answer, Call, CommandError};
use crate::errand::{Errand, stand_in};

/// Bundles are files that hold their version; `bad` in them is a wrong signature.
struct StandIn {
    places: Places,
    list: String,
    /// What a file from the server is refused with.
    refuses: Cell<Option<&'static str>>,
    gateway: held_to::Gateway,
    asked: RefCell<Vec<String>>,
}

impl Programs for StandIn {
    fn attempt(&self, call: Call) -> Result<Answer, CommandError> {
        let line = call.line();
        if let Some(errand) = stand_in::started(&call) {
            self.goes(errand);
        } else if !line.starts_with("systemctl ") {
            self.asked.borrow_mut().push(line.clone());
        }
        let good = |output: Vec<u8>| Ok(Answer { success: true, code: Some(0), output, complaint: String::new() });
        if let Some(bundle) = line.strip_prefix("rauc --conf=/usr/lib/rauc/system.conf info --output-format=json ") {
            let text = fs::read_to_string(bundle).unwrap_or_else(|_error| "bad".into());
            if text.contains("bad") {
                return Ok(Answer {
                    success: false,
                    code: Some(1),
                    output: Vec::new(),
                    complaint: "signature verification failed\n".into(),
                });
            }
            return good(format!(r#"{{"compatible":"{COMPATIBLE}","version":"{}"}}"#, text.trim()).into_bytes());
        }
        good(self.gateway.unit(&line).into())
    }
}

impl StandIn {
    /// Whoever goes to the server: its list, and one bundle under every name.
    fn goes(&self, errand: Errand) {
        let question = stand_in::question(&self.places, errand);
        let answer = match errand {
            Errand::Fetch => self.fetches(&question),
            Errand::Before => self.gateway.answer(),
            other => panic!("nobody should go for {other:?}"),
        };
        stand_in::answer(&self.places, errand, answer);
    }

    fn fetches(&self, question: &Value) -> Result<Value, &'static str> {
        let fetched = self.places.at(fetch::FETCHED);
        if question == "Nothing" {
            // Where nothing was fetched there is nothing.
            let _ = fs::remove_file(&fetched);
            return Ok(json!(""));
        }
        let (into, from) = question.as_object().unwrap().iter().next().unwrap();
        self.asked.borrow_mut().push(format!("{into} {} by {}", from["url"].as_str().unwrap(), from["authorities"]));
        if into == "Text" {
            return Ok(json!(self.list));
        }
        assert_eq!(from["kept_free_mib"], 256 + 128, "the gateway's floor, and room for readings");
        assert!(!self.places.at(path::UPDATE_BUNDLE).exists(), "an older one makes room first");
        if let Some(why) = self.refuses.get() {
            return Err(why);
        }
        fs::create_dir_all(fetched.parent().unwrap()).unwrap();
        fs::write(fetched, "0.3.0").unwrap();
        Ok(json!(""))
    }
}

#[derive(Default)]
struct FakeRauc {
    installed: RefCell<Vec<String>>,
    fails: Cell<Option<fn() -> InstallError>>,
    writes: Cell<Option<Box<dyn FnOnce()>>>,
    takes_ms: Cell<i64>,
}

impl Installer for FakeRauc {
    fn install(&self, bundle: &Path, progress: &mut dyn FnMut(u8, &str)) -> Result<(), InstallError> {
        progress(50, "Copying image to rootfs.1");
        assert!(lock::is_taken(&Places::under(bundle.ancestors().nth(3).unwrap()), path::CHANGE_LOCK), "nobody restarts meanwhile");
        NOW_UNIX_MS.set(NOW_UNIX_MS.get() + self.takes_ms.get());
        self.writes.take().into_iter().for_each(|writes| writes());
        if let Some(error) = self.fails.get() {
            return Err(error());
        }
        self.installed.borrow_mut().push(fs::read_to_string(bundle).unwrap());
        Ok(())
    }
}

thread_local! {
    static RESTARTS: Cell<u32> = const { Cell::new(0) };
    static NOW_UNIX_MS: Cell<i64> = const { Cell::new(0) };
    static FREE_MIB: Cell<u64> = const { Cell::new(0) };
    /// What happens while it waits.
    static PAUSED: Cell<Option<Box<dyn FnOnce()>>> = const { Cell::new(None) };
}

type TestUpdater = Updater<StandIn, FakeRauc>;

/// An appliance with 0.2.0 in slot a, and a stick.
fn appliance(folder: &Path) -> TestUpdater {
    let places = Places::under(folder);
    for place in ["/usr/lib", "/run/vitalgate", "/stick", path::APPLIANCE] {
        fs::create_dir_all(places.at(place)).unwrap();
    }
    fs::create_dir_all(places.at(path::ESP).join(entry::FOLDER)).unwrap();
    fs::write(places.at("/usr/lib/os-release"), "ID=vitalgate\nIMAGE_VERSION=0.2.0\n").unwrap();
    fs::write(places.at(path::BOOT_ENV), "VITALGATE_SLOT=a\n").unwrap();
    fs::write(places.at(path::VERSION_FLOOR), "0.1.0\n").unwrap();
    RESTARTS.set(0);
    NOW_UNIX_MS.set(now_unix_ms());
    FREE_MIB.set(10_000);
    let programs = StandIn {
        places: places.clone(),
        list: String::new(),
        refuses: Cell::default(),
        gateway: held_to::Gateway::default(),
        asked: RefCell::default(),
    };
    Updater {
        places,
        programs,
        installer: FakeRauc::default(),
        restart: || RESTARTS.set(RESTARTS.get() + 1),
        start_wait: Duration::ZERO,
        pause: |_| PAUSED.take().into_iter().for_each(|happens| happens()),
        now_unix_ms: || NOW_UNIX_MS.get(),
        free_mib: |_folder| Ok(FREE_MIB.get()),
    }
}

/// What takes room on sealed storage for an update.
fn pieces(updater: &TestUpdater) -> [PathBuf; 3] {
    let bundle = updater.places.at(path::UPDATE_BUNDLE);
    [bundle.with_extension("new"), bundle, updater.places.at(fetch::FETCHED)]
}

fn take_no_room(updater: &TestUpdater) -> bool {
    pieces(updater).iter().all(|piece| !piece.exists())
}

/// An installation that was cut off in the middle.
fn leave_pieces(updater: &TestUpdater) {
    for piece in pieces(updater) {
        fs::create_dir_all(piece.parent().unwrap()).unwrap();
        fs::write(piece, "0.2.9").unwrap();
    }
}

fn stick(updater: &TestUpdater, files: &[(&str, &str)]) -> PathBuf {
    let stick = updater.places.at("/stick");
    for (name, content) in files {
        fs::write(stick.join(name), content).unwrap();
    }
    stick
}

/// Puts on record that a version was left.
fn undo(updater: &TestUpdater, version: &str) {
    let disk = Mounted::at(&updater.places.at(path::ESP));
    let rollback = Rollback::now(Slot::B, Version::parse(version).unwrap(), "no reading from m-2".into());
    record(&updater.places, &Esp::on(&disk), &rollback).unwrap();
}

fn report(stick: &Path) -> String {
    fs::read_to_string(stick.join(UPDATE_REPORT)).unwrap()
}

fn state(updater: &TestUpdater) -> (StateWord, String) {
    let state = StateFiles::of(&updater.places).read(Part::Update).unwrap();
    (state.word, state.detail)
}

/// The newest good bundle of a stick is installed, reported and started at once.
#[test]
fn a_stick_installs_its_newest_bundle() {
    let folder = tempfile::tempdir().unwrap();
    let updater = appliance(folder.path());
    let stick = stick(
        &updater,
        &[("one.raucb", "0.3.0"), ("two.RAUCB", "0.10.0"), ("three.raucb", "bad"), ("._two.raucb", "9.0.0"), ("x", "9.9.9")],
    );
    updater.install_from_stick(&stick).unwrap();
    assert_eq!(*updater.installer.installed.borrow(), ["0.10.0"]);
    assert_eq!(RESTARTS.get(), 1);
    assert!(report(&stick).contains("version 0.10.0 is installed"), "{}", report(&stick));
    assert_eq!(state(&updater), (StateWord::Updating, "0.10.0 is installed, restarting".into()));
    assert!(!updater.places.at(path::UPDATE_BUNDLE).exists(), "the copy takes no room any more");
    let before = fs::read_to_string(updater.places.at(path::BEFORE_UPDATE)).unwrap();
    assert!(before.contains("m-1") && before.contains("ehr"), "the gate knows what was there: {before}");
}

/// Whatever is wrong with a stick is on the stick afterwards, and nothing restarts.
#[test]
fn a_stick_that_does_not_fit_is_told_why() {
    for (files, expected) in [
        (&[][..], "no update on the stick"),
        (&[("a.raucb", "bad")][..], "a.raucb: the bundle is not accepted: signature verification failed"),
        (&[("a.raucb", "0.2.0")][..], "version 0.2.0 is running and is kept"),
        (&[("a.raucb", "0.0.9")][..], "older than 0.1.0"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let updater = appliance(folder.path());
        let stick = stick(&updater, files);
        updater.install_from_stick(&stick).unwrap();
        assert!(report(&stick).contains(expected), "{expected}: {}", report(&stick));
        assert_eq!((RESTARTS.get(), updater.installer.installed.borrow().len()), (0, 0));
        assert_eq!(state(&updater).0, StateWord::Ready);
    }
    let folder = tempfile::tempdir().unwrap();
    let updater = appliance(folder.path());
    updater.installer.fails.set(Some(|| InstallError::Failed("no space".into())));
    let stick = stick(&updater, &[("a.raucb", "0.3.0")]);
    assert!(updater.install_from_stick(&stick).is_err());
    assert!(report(&stick).contains("not installed: no space"));
    assert_eq!(RESTARTS.get(), 0);
    assert!(take_no_room(&updater));
}

/// An update from a stick leaves readings their room, and takes none itself when it comes to nothing. A store that is full
/// already refuses readings anyway: there it may be the update that helps.
#[test]
fn a_stick_takes_no_room_from_readings() {
    let floor_mib = 256;
    for (free_mib, installs) in [(floor_mib, false), (floor_mib + 128, false), (floor_mib + 129, true), (129, true), (128, false)] {
        let folder = tempfile::tempdir().unwrap();
        let updater = appliance(folder.path());
        leave_pieces(&updater);
        FREE_MIB.set(free_mib);
        let stick = stick(&updater, &[("a.raucb", "0.3.0")]);
        assert_eq!(updater.install_from_stick(&stick).is_ok(), installs, "{free_mib}");
        assert_eq!(report(&stick).contains("not installed: no room for an update"), !installs, "{}", report(&stick));
        assert_eq!(RESTARTS.get(), u32::from(installs));
        assert!(take_no_room(&updater), "{free_mib}");
    }
    let folder = tempfile::tempdir().unwrap();
    let updater = appliance(folder.path());
    // What was there before cannot be kept.
    fs::create_dir(updater.places.at(path::BEFORE_UPDATE)).unwrap();
    assert!(updater.install_from_stick(&stick(&updater, &[("a.raucb", "0.3.0")])).is_err());
    assert!(take_no_room(&updater));
}

/// A stick that takes no report has none after any number of starts: no person asks by that.
#[test]
fn a_stick_that_takes_no_report_asks_for_nothing_twice() {
    let folder = tempfile::tempdir().unwrap();
    let updater = appliance(folder.path());
    let stick = stick(&updater, &[("a.raucb", "0.3.0")]);
    // Refuses whoever creates it or writes to it, also the owner of everything.
    std::os::unix::fs::symlink("/nowhere/report", stick.join(UPDATE_REPORT)).unwrap();
    undo(&updater, "0.3.0");
    updater.install_from_stick(&stick).unwrap();
    assert_eq!((RESTARTS.get(), updater.installer.installed.borrow().len()), (0, 0));
    assert!(state(&updater).1.contains("0.3.0 was tried and undone"), "{:?}", state(&updater));
}

/// A stick that stays plugged in comes to rest: an older bundle never takes the place of the newest, where that runs or
/// was undone, nor of what came from the server.
#[test]
fn an_older_bundle_is_not_taken_instead_of_the_newest() {
    for (files, told) in [
        (&[("a.raucb", "0.2.0"), ("b.raucb", "0.1.5")][..], "version 0.2.0 is running and is kept"),
        (&[("a.raucb", "0.3.0"), ("b.raucb", "0.1.5"), (UPDATE_REPORT, "installed")][..], "0.3.0 was tried and undone"),
        // The server brought what runs now.
        (&[("b.raucb", "0.1.5"), (UPDATE_REPORT, "installed")][..], "0.1.5 is older than 0.2.0, which runs"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let updater = appliance(folder.path());
        undo(&updater, "0.3.0");
        let stick = stick(&updater, files);
        updater.install_from_stick(&stick).unwrap();
        assert_eq!((RESTARTS.get(), updater.installer.installed.borrow().len()), (0, 0));
        assert!(report(&stick).contains(told), "{}", report(&stick));
    }
}

/// The same for one that died without a word, before its death is on record.
#[test]
fn a_version_that_never_came_up_is_not_tried_again_either() {
    let folder = tempfile::tempdir().unwrap();
    let updater = appliance(folder.path());
    let stick = stick(&updater, &[("a.raucb", "0.3.0"), (UPDATE_REPORT, "Result: version 0.3.0 is installed")]);
    installed_in_b(&updater);
    let entries = updater.places.at(path::ESP).join(entry::FOLDER);
    fs::rename(entries.join("vitalgate-b_0.3.0+3.efi"), entries.join("vitalgate-b_0.3.0+0-3.efi")).unwrap();
    updater.install_from_stick(&stick).unwrap();
    assert_eq!((updater.installer.installed.borrow().len(), RESTARTS.get()), (0, 0));
    assert!(report(&stick).contains("slot b (0.3.0) did not come up in 3 starts"), "{}", report(&stick));
}

/// Sealed storage that is closed is said, not overlooked.
#[test]
fn closed_storage_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let updater = appliance(folder.path());
    let stick = stick(&updater, &[("a.raucb", "0.3.0")]);
    fs::remove_dir_all(updater.places.at(path::APPLIANCE)).unwrap();
    assert!(updater.install_from_stick(&stick).is_err());
    assert!(report(&stick).contains("sealed storage is closed"));
}

/// A stick that comes while the server's download is under way says so, and leaves the page to an installation.
#[test]
fn a_stick_that_comes_in_between_is_told_to_come_again() {
    let folder = tempfile::tempdir().unwrap();
    let updater = appliance(folder.path());
    let stick = stick(&updater, &[("a.raucb", "0.3.0")]);
    let under_way = updater.lock().unwrap();
    assert!(updater.install_from_stick(&stick).is_err());
    let told = "not installed: another update is under way; wait until it has ended, and plug the stick in again";
    assert!(report(&stick).contains(told), "{}", report(&stick));
    assert_eq!(state(&updater), (StateWord::Ready, told.to_owned()));

    updater.say_state(StateWord::Updating, "installing 0.4.0: 50 %", BTreeMap::new());
    assert!(updater.install_from_stick(&stick).is_err());
    assert_eq!(state(&updater).0, StateWord::Updating);
    assert_eq!((updater.installer.installed.borrow().len(), RESTARTS.get()), (0, 0));

    drop(under_way);
    updater.install_from_stick(&stick).unwrap();
    assert_eq!((updater.installer.installed.borrow().len(), RESTARTS.get()), (1, 1));
}

/// The window is kept, and is not guessed at by a clock that was never set. Nor does an appliance without a window restart by itself
/// before its clock is set: readings that wait for it would lose their moment.
#[test]
fn the_maintenance_window_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let updater = appliance(folder.path());
    let window = Window::parse("02:00-04:00", &[]).unwrap();
    let hour_ms = 3_600_000;
    assert!(updater.may_restart(None, 0).is_ok());
    assert!(updater.may_restart(Some(&window), 3 * hour_ms).is_ok());
    assert!(updater.may_restart(Some(&window), 5 * hour_ms).unwrap_err().contains("02:00-04:00"));
    fs::write(updater.places.at(path::CLOCK_TRUST), "unset\n").unwrap();
    assert!(updater.may_restart(Some(&window), 3 * hour_ms).is_err());
    assert!(updater.may_restart(None, 3 * hour_ms).is_err());
}

/// An appliance whose site file names a server, and what that server lists.
fn with_server(folder: &Path, window: &str, listed: &[(&str, &str)]) -> TestUpdater {
    let mut updater = appliance(folder);
    commission(&updater, &format!("[update]\nserver = \"https://updates.example/v\"\n[maintenance]\nwindow = \"{window}\"\n"));
    updater.programs.list = listed.iter().map(|(version, sha256)| format!("{sha256}  {COMPATIBLE}-{version}.raucb\n")).collect();
    updater
}

/// Puts a site file with these sections into force.
fn commission(updater: &TestUpdater, sections: &str) {
    let site = format!("{}\n{sections}", without_sections(crate::provision::SITE_EXAMPLE, &["[update]", "[maintenance]"]));
    let key = SigningKey::parse(&"01".repeat(32)).unwrap();
    let trust = updater.places.at(path::TRUST);
    fs::create_dir_all(&trust).unwrap();
    fs::write(trust.join(path::SITE_ROOT), key.public().to_hex()).unwrap();
    let board = updater.places.at("/sys/class/dmi/id");
    fs::create_dir_all(&board).unwrap();
    fs::write(board.join("product_serial"), "VG-0001\n").unwrap();
    fs::write(updater.places.at(path::SITE_FILE), sign(&site, &Signer::root(key)).unwrap()).unwrap();
}

fn without_sections(text: &str, names: &[&str]) -> String {
    let mut leave_out = false;
    let kept = text.lines().filter(|line| {
        if line.starts_with('[') {
            leave_out = names.contains(&line.trim());
        }
        !leave_out
    });
    kept.map(|line| format!("{line}\n")).collect()
}

fn sha256(text: &str) -> String {
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A span of the day that is open now, and one that is not.
fn spans() -> (String, String) {
    let minute = now_unix_ms() / 60_000;
    let at = |offset: i64| {
        let minute = (minute + offset).rem_euclid(24 * 60);
        format!("{:02}:{:02}", minute / 60, minute % 60)
    };
    (format!("{}-{}", at(-30), at(30)), format!("{}-{}", at(120), at(180)))
}

/// What is newer on the server is fetched, and installed within the window only; what waits is not
/// fetched twice.
#[test]
fn the_server_s_newest_is_installed_in_the_window() {
    let (open, closed) = spans();
    let sha = sha256("0.3.0");
    let folder = tempfile::tempdir().unwrap();
    let updater = with_server(folder.path(), &closed, &[("0.3.0", &sha), ("0.2.5", &sha)]);
    for _ in 0..2 {
        updater.install_from_server().unwrap();
    }
    let fetches = |updater: &TestUpdater| updater.programs.asked.borrow().iter().filter(|line| line.contains("0.3.0.raucb")).count();
    assert_eq!((fetches(&updater), RESTARTS.get()), (1, 0));
    assert!(state(&updater).1.contains("version 0.3.0 is ready and waits for"), "{:?}", state(&updater));

    let folder = tempfile::tempdir().unwrap();
    let updater = with_server(folder.path(), &open, &[("0.3.0", &sha)]);
    updater.install_from_server().unwrap();
    assert_eq!((updater.installer.installed.borrow().as_slice(), RESTARTS.get()), (["0.3.0".to_owned()].as_slice(), 1));
}

/// 2026-11-22, 00:00 UTC.
const MIDNIGHT_MS: i64 = 1_795_305_600_000;
const MINUTE_MS: i64 = 60_000;

/// What the updater leaves on the boot partition once 0.3.0 lies in slot b.
fn installed_in_b(updater: &TestUpdater) {
    let esp = updater.places.at(path::ESP);
    for entry in ["vitalgate-a_0.2.0+3.efi", "vitalgate-b_0.3.0+3.efi"] {
        fs::write(esp.join(entry::FOLDER).join(entry), "").unwrap();
    }
    fs::create_dir_all(esp.join("EFI/vitalgate")).unwrap();
    fs::write(esp.join("EFI/vitalgate/trial.json"), r#"{"slot":"b","version":"0.3.0","data_was_open":true}"#).unwrap();
}

/// An installation that outlasts the maintenance window restarts nothing outside of it: what is installed waits for the next
/// one, and is neither fetched nor installed again for it.
#[test]
fn nothing_restarts_after_the_window() {
    let folder = tempfile::tempdir().unwrap();
    let updater = with_server(folder.path(), "02:00-04:00", &[("0.3.0", &sha256("0.3.0"))]);
    updater.installer.takes_ms.set(10 * MINUTE_MS);
    let looks = |minute: i64| {
        NOW_UNIX_MS.set(MIDNIGHT_MS + minute * MINUTE_MS);
        updater.install_from_server().unwrap();
        (updater.installer.installed.borrow().len(), RESTARTS.get())
    };
    assert_eq!(looks(4 * 60 - 1), (1, 0));
    let waits = "version 0.3.0 is installed and waits for 02:00-04:00 UTC";
    assert_eq!(state(&updater), (StateWord::Ready, waits.to_owned()));

    installed_in_b(&updater);
    updater.programs.asked.borrow_mut().clear();
    assert_eq!(looks(12 * 60), (1, 0));
    assert_eq!(state(&updater), (StateWord::Ready, waits.to_owned()));
    fs::remove_file(updater.places.at(path::BEFORE_UPDATE)).unwrap();
    assert_eq!(looks(26 * 60), (1, 1));
    assert_eq!(state(&updater).0, StateWord::Updating);
    assert!(updater.programs.asked.borrow().is_empty(), "{:?}", updater.programs.asked.borrow());
    assert!(updater.places.at(path::BEFORE_UPDATE).exists(), "the gate knows what was there at the restart");

    // One that was left waits for nothing.
    let entries = updater.places.at(path::ESP).join(entry::FOLDER);
    fs::rename(entries.join("vitalgate-b_0.3.0+3.efi"), entries.join("vitalgate-b_0.3.0+0-3.efi")).unwrap();
    NOW_UNIX_MS.set(MIDNIGHT_MS + 27 * 60 * MINUTE_MS);
    assert!(updater.install_from_server().is_err());
    assert_eq!(RESTARTS.get(), 1);
}

/// An update from the server leaves readings their room: it is not fetched without, and while it waits it gives way.
#[test]
fn the_server_s_update_takes_no_room_from_readings() {
    let sha = sha256("0.3.0");
    let folder = tempfile::tempdir().unwrap();
    let updater = with_server(folder.path(), &spans().1, &[("0.3.0", &sha)]);
    leave_pieces(&updater);
    updater.programs.refuses.set(Some("no room for an update: 300 MiB are free"));
    assert!(updater.install_from_server().is_err());
    assert_eq!(state(&updater), (StateWord::Ready, "no update from the server: no room for an update: 300 MiB are free".to_owned()));
    assert!(take_no_room(&updater));

    updater.programs.refuses.set(None);
    FREE_MIB.set(256 + 128);
    updater.install_from_server().unwrap();
    assert!(updater.places.at(path::UPDATE_BUNDLE).exists(), "it waits for its window");
    FREE_MIB.set(256 + 127);
    updater.programs.asked.borrow_mut().clear();
    assert!(updater.install_from_server().is_err());
    assert!(updater.programs.asked.borrow().is_empty(), "it gives way whether the server answers or not");
    assert!(state(&updater).1.contains("no room for an update"), "{:?}", state(&updater));
    assert!(take_no_room(&updater));
}

/// Whatever an update left that was cut off or is not wanted any more, the next look takes away.
#[test]
fn what_an_update_left_is_taken_away() {
    let folder = tempfile::tempdir().unwrap();
    let updater = with_server(folder.path(), &spans().0, &[("0.2.0", &sha256("0.2.0"))]);
    leave_pieces(&updater);
    updater.install_from_server().unwrap();
    assert!(take_no_room(&updater));

    let folder = tempfile::tempdir().unwrap();
    let updater = with_server(folder.path(), &spans().0, &[("0.3.0", &sha256("0.3.0"))]);
    let disk = Mounted::at(&updater.places.at(path::ESP));
    let rollback = Rollback::now(Slot::B, Version::parse("0.3.0").unwrap(), "no reading from m-2".into());
    record(&updater.places, &Esp::on(&disk), &rollback).unwrap();
    leave_pieces(&updater);
    assert!(updater.install_from_server().is_err());
    assert!(take_no_room(&updater));

    let folder = tempfile::tempdir().unwrap();
    let updater = appliance(folder.path());
    commission(&updater, "");
    leave_pieces(&updater);
    updater.install_from_server().unwrap();
    assert!(take_no_room(&updater), "a site file without a server");
}

/// A server that somebody wrote into the accepted site file is never asked.
#[test]
fn a_changed_site_file_names_no_server() {
    let folder = tempfile::tempdir().unwrap();
    let updater = with_server(folder.path(), &spans().0, &[("0.3.0", &sha256("0.3.0"))]);
    let file = updater.places.at(path::SITE_FILE);
    let signed = fs::read_to_string(&file).unwrap();
    fs::write(&file, signed.replace("updates.example", "stranger.example")).unwrap();
    assert!(updater.install_from_server().unwrap_err().to_string().contains("does not take the accepted site file"));
    assert!(updater.programs.asked.borrow().is_empty(), "{:?}", updater.programs.asked.borrow());
}

/// Older, equal, undone or another file than the list says: nothing is installed.
#[test]
fn the_server_is_not_believed_beyond_its_files() {
    let (open, _) = spans();
    let sha = sha256("0.3.0");
    for listed in [&[("0.2.0", sha.as_str())][..], &[("0.1.0", &sha)], &[]] {
        let folder = tempfile::tempdir().unwrap();
        let updater = with_server(folder.path(), &open, listed);
        updater.install_from_server().unwrap();
        assert_eq!((updater.programs.asked.borrow().len(), RESTARTS.get()), (1, 0), "only the list was asked for");
    }
    let folder = tempfile::tempdir().unwrap();
    let updater = with_server(folder.path(), &open, &[("0.3.0", &"0".repeat(64))]);
    assert!(updater.install_from_server().unwrap_err().to_string().contains("is not the file that SHA256SUMS names"));
    assert!(!updater.places.at(path::UPDATE_BUNDLE).exists());

    // Under a newer version's name lies an older one, rightly signed.
    let updater = with_server(folder.path(), &open, &[("0.4.0", &sha)]);
    assert!(updater.install_from_server().unwrap_err().to_string().contains("for version 0.4.0 holds version 0.3.0"));
    assert!(state(&updater).1.contains("holds version 0.3.0"), "{:?}", state(&updater));
    assert!(!updater.places.at(path::UPDATE_BUNDLE).exists());

    // One that was undone is not fetched again every hour.
    let updater = with_server(folder.path(), &open, &[("0.3.0", &sha)]);
    let disk = Mounted::at(&updater.places.at(path::ESP));
    let rollback = Rollback::now(Slot::B, Version::parse("0.3.0").unwrap(), "no reading from m-2".into());
    record(&updater.places, &Esp::on(&disk), &rollback).unwrap();
    assert!(updater.install_from_server().is_err());
    assert_eq!(updater.programs.asked.borrow().len(), 1, "only the list was asked for");
    assert!(state(&updater).1.contains("no reading from m-2"), "{:?}", state(&updater));
    assert_eq!((updater.installer.installed.borrow().len(), RESTARTS.get()), (0, 0));
}

/// The one who talks to the network is not root, and leaves nothing behind.
#[test]
fn the_server_is_asked_by_somebody_without_rights() {
    let folder = tempfile::tempdir().unwrap();
    let updater = with_server(folder.path(), &spans().0, &[("0.3.0", &sha256("0.3.0"))]);
    let update = site_file::kept(&updater.places).unwrap().update.unwrap();
    let list = server::list(&updater.programs, &updater.places, &update).unwrap();
    let listed = server::newest(&list).unwrap();
    server::get(&updater.programs, &updater.places, &update, &listed, 256 + 128).unwrap();
    let bundle = format!("File https://updates.example/v/{COMPATIBLE}-0.3.0.raucb by null");
    assert_eq!(*updater.programs.asked.borrow(), ["Text https://updates.example/v/SHA256SUMS by null", &bundle]);
    assert!(!updater.places.at(fetch::FETCHED).exists() && updater.places.at(path::UPDATE_BUNDLE).exists());
}
