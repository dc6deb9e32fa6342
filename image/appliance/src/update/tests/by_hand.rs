//! What a person brings by stick against what comes by itself.

use super::*;

/// What runs after the restart.
fn runs(updater: &TestUpdater, version: &str) {
    fs::write(updater.places.at("/usr/lib/os-release"), format!("ID=vitalgate\nIMAGE_VERSION={version}\n")).unwrap();
}

/// Puts a list in place of what the server has.
fn lists(updater: &mut TestUpdater, version: &str) {
    updater.programs.list = format!("{}  {COMPATIBLE}-{version}.raucb\n", sha256("0.3.0"));
    updater.programs.asked.borrow_mut().clear();
}

/// Who goes back to an older version keeps it: neither the server nor a stick that was left in brings back what was left, or anything
/// between the two. What is newer comes by itself, and what was left comes where a person asks for it.
#[test]
fn a_version_that_a_person_left_does_not_come_back_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let mut updater = with_server(folder.path(), &spans().0, &[]);
    runs(&updater, "0.3.0");
    let place = stick(&updater, &[("a.raucb", "0.2.0")]);
    updater.install_from_stick(&place).unwrap();
    assert_eq!(*updater.installer.installed.borrow(), ["0.2.0"]);
    // The older version is kept, and has been for a while.
    runs(&updater, "0.2.0");
    for listed in ["0.3.0", "0.2.9"] {
        lists(&mut updater, listed);
        assert!(updater.install_from_server().is_err());
        assert_eq!((updater.programs.asked.borrow().len(), RESTARTS.get()), (1, 1), "only the list was asked for");
        assert!(state(&updater).1.contains("0.3.0 was left by hand"), "{:?}", state(&updater));
    }
    let again = stick(&updater, &[("a.raucb", "0.3.0")]);
    updater.install_from_stick(&again).unwrap();
    assert_eq!(updater.installer.installed.borrow().len(), 1);
    assert!(report(&again).contains("0.3.0 was left by hand"), "{}", report(&again));

    // Under its name lies another file: it was wanted.
    lists(&mut updater, "0.4.0");
    assert!(updater.install_from_server().unwrap_err().to_string().contains("for version 0.4.0 holds"));

    // Gone back once more, it is still the newest of them that was left.
    fs::remove_file(again.join(UPDATE_REPORT)).unwrap();
    let oldest = stick(&updater, &[("a.raucb", "0.1.5")]);
    updater.install_from_stick(&oldest).unwrap();
    runs(&updater, "0.1.5");
    lists(&mut updater, "0.3.0");
    assert!(updater.install_from_server().is_err());
    assert_eq!(*updater.installer.installed.borrow(), ["0.2.0", "0.1.5"]);

    fs::remove_file(oldest.join(UPDATE_REPORT)).unwrap();
    updater.install_from_stick(&stick(&updater, &[("a.raucb", "0.3.0")])).unwrap();
    assert_eq!(updater.installer.installed.borrow().len(), 3);
}

/// A stick with more bundles than are looked at installs none of them: the newest may be among the others.
#[test]
fn no_bundle_is_overlooked() {
    for (bundles, installs) in [(STICK_BUNDLES_MAX, true), (STICK_BUNDLES_MAX + 1, false)] {
        let folder = tempfile::tempdir().unwrap();
        let updater = appliance(folder.path());
        let named: Vec<_> = (0..bundles).map(|number| (format!("{number:02}.raucb"), format!("0.3.{number}"))).collect();
        let files: Vec<_> = named.iter().map(|(name, version)| (name.as_str(), version.as_str())).collect();
        let stick = stick(&updater, &files);
        assert_eq!(updater.install_from_stick(&stick).is_ok(), installs);
        assert_eq!((updater.installer.installed.borrow().len(), RESTARTS.get()), (usize::from(installs), u32::from(installs)));
        assert_eq!(report(&stick).contains("the stick holds 17 bundles"), !installs, "{}", report(&stick));
    }
}
