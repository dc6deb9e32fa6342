//! What is not tried again and again.

use super::*;

/// A stick that stays plugged in does not install a version that was undone again and again; its
/// report says why it was undone, and deleting that asks for another try.
#[test]
fn an_undone_version_is_not_tried_again_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let updater = appliance(folder.path());
    let stick = stick(&updater, &[("a.raucb", "0.3.0")]);
    updater.install_from_stick(&stick).unwrap();
    undo(&updater, "0.3.0");

    updater.install_from_stick(&stick).unwrap();
    assert_eq!((RESTARTS.get(), updater.installer.installed.borrow().len()), (1, 1));
    assert!(report(&stick).contains("0.3.0 was tried and undone: no reading from m-2"), "{}", report(&stick));

    fs::remove_file(stick.join(UPDATE_REPORT)).unwrap();
    updater.install_from_stick(&stick).unwrap();
    assert_eq!(updater.installer.installed.borrow().len(), 2);
}

/// A bundle that was fetched and refused is not fetched again while the server lists the same: it would be hundreds of megabytes an hour.
/// Another list, a day or another running version make it worth another try.
#[test]
fn a_refused_bundle_is_not_fetched_every_hour() {
    let (open, _) = spans();
    let sha = sha256("0.3.0");
    // Another file than is listed, and an older version under a newer one's name.
    for (version, listed) in [("0.3.0", "0".repeat(64)), ("0.4.0", sha.clone())] {
        let folder = tempfile::tempdir().unwrap();
        let mut updater = with_server(folder.path(), &open, &[(version, &listed)]);
        let fetches = |updater: &TestUpdater| updater.programs.asked.borrow().iter().filter(|line| line.starts_with("File ")).count();
        let first = updater.install_from_server().unwrap_err().to_string();
        for _ in 0..3 {
            let again = updater.install_from_server().unwrap_err().to_string();
            assert!(again.contains(&first) && again.contains("or after a day"), "{again}");
            assert!(take_no_room(&updater));
        }
        assert_eq!(fetches(&updater), 1);
        NOW_UNIX_MS.set(NOW_UNIX_MS.get() + 24 * 60 * MINUTE_MS);
        assert!(updater.install_from_server().is_err());
        assert_eq!(fetches(&updater), 2, "after a day");
        updater.programs.list = format!("{sha}  {COMPATIBLE}-0.3.0.raucb\n");
        updater.install_from_server().unwrap();
        assert_eq!((fetches(&updater), RESTARTS.get()), (3, 1), "another list");
    }
}

/// Nor is one that the updater refuses fetched and written to the other slot every hour. Where it never got to say so, it is tried again.
#[test]
fn a_bundle_that_is_not_installed_is_not_fetched_every_hour() {
    let refused: fn() -> InstallError = || InstallError::Failed("no space".into());
    for (error, fetched) in [(refused, 1), (|| InstallError::Deadline, 3), (|| InstallError::Call(io::Error::other("no updater")), 3)] {
        let folder = tempfile::tempdir().unwrap();
        let updater = with_server(folder.path(), &spans().0, &[("0.3.0", &sha256("0.3.0"))]);
        let fetches = || updater.programs.asked.borrow().iter().filter(|line| line.starts_with("File ")).count();
        updater.installer.fails.set(Some(error));
        for _ in 0..3 {
            let said = format!("{:#}", updater.install_from_server().unwrap_err());
            assert!(said.contains("version 0.3.0 was not installed") && said.contains(&error().to_string()), "{said}");
        }
        assert_eq!(fetches(), fetched, "{}", error());
        assert!(take_no_room(&updater));
        updater.installer.fails.set(None);
        NOW_UNIX_MS.set(NOW_UNIX_MS.get() + 24 * 60 * MINUTE_MS);
        updater.install_from_server().unwrap();
        assert_eq!((fetches(), RESTARTS.get()), (fetched + 1, 1));
    }
}

/// A connection that breaks is no refusal: the next look fetches.
#[test]
fn what_did_not_come_is_fetched_at_the_next_look() {
    let folder = tempfile::tempdir().unwrap();
    let updater = with_server(folder.path(), &spans().0, &[("0.3.0", &sha256("0.3.0"))]);
    updater.programs.refuses.set(Some("the connection broke off"));
    assert!(updater.install_from_server().is_err());
    updater.programs.refuses.set(None);
    updater.install_from_server().unwrap();
    assert_eq!(*updater.installer.installed.borrow(), ["0.3.0"]);
}

/// Two versions that were undone, one from the stick that stays in and one from the server, do not take turns for ever.
#[test]
fn two_undone_versions_do_not_replace_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let mut updater = with_server(folder.path(), &spans().0, &[("0.4.0", &sha256("0.3.0"))]);
    let place = stick(&updater, &[("a.raucb", "0.3.0"), (UPDATE_REPORT, "installed")]);
    undo(&updater, "0.3.0");
    undo(&updater, "0.4.0");
    updater.install_from_stick(&place).unwrap();
    assert!(updater.install_from_server().is_err());
    assert_eq!((updater.installer.installed.borrow().len(), RESTARTS.get()), (0, 0));
    assert!(report(&place).contains("0.3.0 was tried and undone: no reading from m-2"), "{}", report(&place));

    // The record stays bounded, and the last ones count.
    for minor in 5..40 {
        undo(&updater, &format!("0.{minor}.0"));
    }
    updater.programs.list = format!("{}  {COMPATIBLE}-0.38.0.raucb\n", sha256("0.3.0"));
    assert!(updater.install_from_server().is_err());
    assert!(state(&updater).1.contains("0.38.0 was tried and undone"), "{:?}", state(&updater));
    assert!(fs::metadata(updater.places.at(path::LAST_ROLLBACK)).unwrap().len() < 8_192);
}

/// However long the reason of a rollback, the record of it is read back, and the versions before it stay known.
#[test]
fn a_long_reason_makes_no_record_unreadable() {
    for letter in ["x", "\u{1}", "\u{1f34e}"] {
        let folder = tempfile::tempdir().unwrap();
        let updater = with_server(folder.path(), &spans().0, &[("0.3.0", &sha256("0.3.0"))]);
        let disk = Mounted::at(&updater.places.at(path::ESP));
        for minor in 3..30 {
            let rollback = Rollback::now(Slot::B, Version::parse(&format!("0.{minor}.0")).unwrap(), letter.repeat(20_000));
            record(&updater.places, &Esp::on(&disk), &rollback).unwrap();
        }
        let known = undone(&updater.places, &Esp::on(&disk), Running::read(&updater.places).unwrap()).unwrap().unwrap();
        assert!(known.why_undone(Version::parse("0.29.0").unwrap()).is_some(), "{letter:?}");
        assert!(known.why_undone(Version::parse("0.28.0").unwrap()).is_some(), "{letter:?}");
    }
}
