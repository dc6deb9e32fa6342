//! What an update waits for, and what waits for it.

use super::*;

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(3600);

fn trial(updater: &TestUpdater) -> PathBuf {
    updater.places.at(path::ESP).join(crate::boot::NOTES).join("trial.json")
}

fn entries(updater: &TestUpdater) -> Vec<String> {
    let listed = fs::read_dir(updater.places.at(path::ESP).join(entry::FOLDER)).unwrap();
    let mut names: Vec<_> = listed.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Puts the running version on trial, with this entry in the other slot.
fn put_on_trial(updater: &TestUpdater, other: &str) {
    let folder = updater.places.at(path::ESP).join(entry::FOLDER);
    ["vitalgate-a_0.2.0+2-1.efi", other].iter().for_each(|entry| fs::write(folder.join(entry), "").unwrap());
    fs::create_dir_all(trial(updater).parent().unwrap()).unwrap();
    fs::write(trial(updater), r#"{"slot":"a","version":"0.2.0","data_was_open":true}"#).unwrap();
}

/// A version on trial needs the other slot as it is. Where there is no version to go back to, nothing may help but an update.
#[test]
fn nothing_is_installed_over_the_way_back() {
    for (other, installs) in [("vitalgate-b_0.1.0+3.efi", 0), ("vitalgate-b_0.1.5+0.efi", 0), ("vitalgate-b_0.1.0+0-3.efi", 1)] {
        let folder = tempfile::tempdir().unwrap();
        let updater = appliance(folder.path());
        put_on_trial(&updater, other);
        let stick = stick(&updater, &[("a.raucb", "0.3.0")]);
        assert_eq!(updater.install_from_stick(&stick).is_ok(), installs > 0, "{other}");
        assert_eq!(report(&stick).contains("has not shown yet that it is healthy"), installs == 0, "{}", report(&stick));
        assert_eq!((updater.installer.installed.borrow().len(), RESTARTS.get()), (installs, installs as u32), "{other}");

        let folder = tempfile::tempdir().unwrap();
        let updater = with_server(folder.path(), &spans().0, &[("0.3.0", &sha256("0.3.0"))]);
        put_on_trial(&updater, other);
        updater.install_from_server().unwrap();
        assert_eq!((updater.installer.installed.borrow().len(), RESTARTS.get()), (installs, installs as u32), "{other}");
    }
}

/// Whoever waits for a trial comes when it is over, by stick or from the server; a stick that comes meanwhile is not turned away by
/// the server's wait.
#[test]
fn an_update_comes_when_the_trial_is_over() {
    let folder = tempfile::tempdir().unwrap();
    let mut updater = with_server(folder.path(), &spans().0, &[("0.3.0", &sha256("0.3.0"))]);
    updater.start_wait = LONG;
    put_on_trial(&updater, "vitalgate-b_0.1.0+3.efi");
    let (note, places) = (trial(&updater), updater.places.clone());
    PAUSED.set(Some(Box::new(move || {
        assert!(!lock::is_taken(&places, path::UPDATE_LOCK));
        fs::remove_file(note).unwrap();
    })));
    updater.install_from_server().unwrap();
    assert!(PAUSED.take().is_none(), "it waited");
    assert_eq!(updater.installer.installed.borrow().len(), 1);

    put_on_trial(&updater, "vitalgate-b_0.1.0+3.efi");
    let (note, stick) = (trial(&updater), stick(&updater, &[("a.raucb", "0.4.0")]));
    PAUSED.set(Some(Box::new(move || fs::remove_file(note).unwrap())));
    updater.install_from_stick(&stick).unwrap();
    assert!(PAUSED.take().is_none(), "it waited");
    assert_eq!(updater.installer.installed.borrow().len(), 2);
}

/// A stick that is there from the start is not told that storage is closed while its file system is being mended, which takes longer
/// than a start does.
#[test]
fn a_stick_waits_while_storage_is_mended() {
    let folder = tempfile::tempdir().unwrap();
    let updater = appliance(folder.path());
    let stick = stick(&updater, &[("a.raucb", "0.3.0")]);
    let data = updater.places.at(path::APPLIANCE);
    fs::remove_dir_all(&data).unwrap();
    StateFiles::of(&updater.places).say(Part::Data, Said::new(StateWord::Selftest, "looking at the file system")).unwrap();
    PAUSED.set(Some(Box::new(move || fs::create_dir_all(data).unwrap())));
    updater.install_from_stick(&stick).unwrap();
    assert!(report(&stick).contains("version 0.3.0 is installed"), "{}", report(&stick));
}

/// The restart for a new site file does not cut off what is being installed, nor is anything installed while one is taken.
#[test]
fn an_installation_is_alone() {
    let folder = tempfile::tempdir().unwrap();
    let updater = appliance(folder.path());
    let stick = stick(&updater, &[("a.raucb", "0.3.0")]);
    let taking = lock::take(&updater.places, path::CHANGE_LOCK, Duration::ZERO).unwrap().unwrap();
    assert!(updater.install_from_stick(&stick).is_err());
    assert!(report(&stick).contains("not installed: a new site file is being taken"), "{}", report(&stick));
    assert!(updater.installer.installed.borrow().is_empty() && take_no_room(&updater));

    drop(taking);
    // The updater's stand-in sees to it that nobody else could take it.
    updater.install_from_stick(&stick).unwrap();
    assert_eq!(updater.installer.installed.borrow().len(), 1);
    assert!(!lock::is_taken(&updater.places, path::CHANGE_LOCK));
}

/// Starts that ended without the gateway's fault take no way back from the new version, and no version that was left on purpose is
/// put on record as one that died.
#[test]
fn the_version_that_is_left_for_an_update_has_its_tries() {
    let folder = tempfile::tempdir().unwrap();
    let updater = appliance(folder.path());
    fs::write(updater.places.at(path::ESP).join(entry::FOLDER).join("vitalgate-a_0.2.0+0-3.efi"), "").unwrap();
    updater.install_from_stick(&stick(&updater, &[("a.raucb", "0.3.0")])).unwrap();
    assert_eq!(entries(&updater), ["vitalgate-a_0.2.0+3.efi"]);
}
