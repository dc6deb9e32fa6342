//! What is shown of the slots once the other one was written.

use super::*;
use crate::boot::show;

/// Whatever became of an installation, the page shows what is in the slots after it: what was in the other slot is gone also where
/// it failed. What is said of the running version stays.
#[test]
fn the_slots_are_shown_as_an_installation_leaves_them() {
    let failed: fn() -> InstallError = || InstallError::Failed("no space".into());
    for (fails, left, shown) in [
        (None, Some("vitalgate-b_0.3.0+3.efi"), "0.3.0 good, 3 starts left"),
        (Some(failed), None, "empty"),
        (Some(|| InstallError::Deadline), None, "empty"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let updater = appliance(folder.path());
        let entries = updater.places.at(path::ESP).join(entry::FOLDER);
        for name in ["vitalgate-a_0.2.0+2-1.efi", "vitalgate-b_0.1.0+3.efi"] {
            fs::write(entries.join(name), b"").unwrap();
        }
        let disk = Mounted::at(&updater.places.at(path::ESP));
        let running = Running::read(&updater.places).unwrap();
        show(&updater.places, &Esp::on(&disk), running, Some("this start was not healthy")).unwrap();
        let said = || StateFiles::of(&updater.places).read(Part::Slots).unwrap();
        assert_eq!(said().facts[fact::slot(Slot::B)], "0.1.0 good, 3 starts left");

        updater.installer.fails.set(fails);
        updater.installer.writes.set(Some(Box::new(move || {
            fs::remove_file(entries.join("vitalgate-b_0.1.0+3.efi")).unwrap();
            left.into_iter().for_each(|left| fs::write(entries.join(left), b"").unwrap());
        })));
        let stick = stick(&updater, &[("a.raucb", "0.3.0")]);
        assert_eq!(updater.install_from_stick(&stick).is_ok(), fails.is_none());
        let facts = said().facts;
        assert_eq!(facts[fact::slot(Slot::B)], shown);
        assert_eq!(facts[fact::slot(Slot::A)], "0.2.0 good, 3 starts left");
        assert_eq!((said().word, said().detail.as_str()), (StateWord::Degraded, "this start was not healthy"));
    }
}

/// Before anybody judged the running version nothing is said in its name.
#[test]
fn an_installation_says_nothing_for_the_gate() {
    let folder = tempfile::tempdir().unwrap();
    let updater = appliance(folder.path());
    updater.install_from_stick(&stick(&updater, &[("a.raucb", "0.3.0")])).unwrap();
    assert_eq!(StateFiles::of(&updater.places).read(Part::Slots), None);
}
