//! What a person wants, and what a stick may not take from readings.

use super::*;

/// Whoever brings an older version and is told to come again is heard when the stick comes again as it is. Once it was looked at, it
/// asks for nothing more; nor does a stick that asked for nothing before it was put off.
#[test]
fn a_stick_that_is_put_off_still_says_what_a_person_wants() {
    let folder = tempfile::tempdir().unwrap();
    let updater = appliance(folder.path());
    let place = stick(&updater, &[("a.raucb", "0.1.5")]);
    let put_off = |why: &str| {
        assert!(updater.install_from_stick(&place).is_err());
        assert!(report(&place).contains(why), "{why}: {}", report(&place));
    };
    let lock = |lock| lock::take(&updater.places, lock, Duration::ZERO).unwrap();
    let under_way = lock(path::UPDATE_LOCK);
    put_off("another update is under way");
    put_off("another update is under way");
    drop(under_way);
    let taking = lock(path::CHANGE_LOCK);
    put_off("a new site file is being taken");
    drop(taking);
    FREE_MIB.set(100);
    put_off("no room for an update");
    FREE_MIB.set(10_000);
    updater.install_from_stick(&place).unwrap();
    assert_eq!(*updater.installer.installed.borrow(), ["0.1.5"]);

    // Left in while the server brings the newer one again.
    let under_way = lock(path::UPDATE_LOCK);
    put_off("another update is under way");
    drop(under_way);
    updater.install_from_stick(&place).unwrap();
    assert_eq!(updater.installer.installed.borrow().len(), 1);
    assert!(report(&place).contains("0.1.5 is older than 0.2.0, which runs"), "{}", report(&place));
}

/// Readings that wait for the clock keep their moment: what a stick installed starts when the clock is set. It may be the clock that
/// is not to be had: whoever stands there can switch off and on. Where no site file is in service, no reading waits.
#[test]
fn a_stick_restarts_nothing_before_the_clock_is_set() {
    let folder = tempfile::tempdir().unwrap();
    let mut updater = appliance(folder.path());
    let clock = updater.places.at(path::CLOCK_TRUST);
    fs::write(&clock, "unset\n").unwrap();
    let place = stick(&updater, &[("a.raucb", "0.3.0")]);
    updater.install_from_stick(&place).unwrap();
    assert_eq!((updater.installer.installed.borrow().len(), RESTARTS.get()), (1, 1));

    commission(&updater, "");
    updater.install_from_stick(&place).unwrap();
    assert_eq!((updater.installer.installed.borrow().len(), RESTARTS.get()), (2, 1));
    assert!(report(&place).contains("version 0.3.0 is installed and waits for the clock to be set"), "{}", report(&place));
    assert_eq!(state(&updater).0, StateWord::Ready);

    updater.start_wait = Duration::from_secs(3600);
    PAUSED.set(Some(Box::new(move || fs::write(clock, "synchronised\n").unwrap())));
    updater.install_from_stick(&place).unwrap();
    assert_eq!((updater.installer.installed.borrow().len(), RESTARTS.get()), (3, 2));
}
