//! Sticks that are pulled too early, and a recovery key that cannot be handed over.

use super::*;
use crate::stick::rig::plug;
use crate::stick::{Mounted, StickError};

/// A service manager that does as it is told.
#[derive(Clone)]
struct Manager;

impl crate::command::Programs for Manager {
    fn attempt(&self, _: Call) -> Result<Answer, CommandError> {
        Ok(Answer { success: true, ..Answer::default() })
    }
}

/// A stick that is pulled, and plugged in again while somebody waits for it.
struct Pulled<'a> {
    sticks: ManagedSticks<Manager>,
    folder: PathBuf,
    places: &'a Places,
    plugged: Cell<i64>,
}

impl Sticks for Pulled<'_> {
    fn find(&self, label: &str) -> Option<Plugged> {
        self.sticks.find(label).map(|found| Plugged { moment: self.plugged.get(), ..found })
    }

    fn mount(&self, stick: &Plugged) -> Result<Box<dyn Mounted>, StickError> {
        self.sticks.mount(stick)
    }

    fn pause(&self) {
        assert!(self.places.at(path::RECOVERY_KEY).exists() && !is_commissioned(self.places), "given up with the stick");
        fs::remove_dir_all(&self.folder).unwrap();
        fs::rename(self.folder.with_extension("pulled"), &self.folder).unwrap();
        self.plugged.set(self.plugged.get() + 1);
    }
}

/// The only recovery key stays until a stick has it: one that is pulled while the gateway makes credentials has nothing, what is
/// written to its folder after that counts for nothing, and the same stick gets everything when it is plugged in again.
#[test]
fn a_stick_that_is_pulled_in_between_takes_no_recovery_key_along() {
    let (appliance, stick) = accepted();
    let places = appliance.places();
    let folder = plug(&places, stick::PROVISION);
    fs::copy(stick.join(stick::SITE_FILE), folder.join(stick::SITE_FILE)).unwrap();
    appliance.programs.pulls.replace(Some(folder.clone()));
    let sticks =
        Pulled { sticks: ManagedSticks::of_manager(&places, Manager), folder: folder.clone(), places: &places, plugged: Cell::new(0) };
    let states = StateFiles::of(&places);
    Provisioning { programs: &appliance.programs, places: &places, states, sticks: &sticks }.commission().unwrap();
    assert_eq!(sticks.plugged.get(), 1, "it counted as written");
    assert!(is_commissioned(&places) && !places.at(path::RECOVERY_KEY).exists());
    assert!(fs::read_to_string(folder.join(stick::RECOVERY_KEY)).unwrap().contains(&appliance.recovery));
}

/// What is in place of the recovery key and cannot be read was not handed over: the window stays open and nothing is removed.
#[test]
fn a_recovery_key_that_cannot_be_read_keeps_the_window_open() {
    let (appliance, stick) = accepted();
    let places = appliance.places();
    let (site, key) = (site_file::kept(&places).unwrap(), report::key(&places).unwrap());
    for damaged in [&[0xff; 77][..], b"no key"] {
        fs::write(places.at(path::RECOVERY_KEY), damaged).unwrap();
        let error = appliance.with(&Drawer::of([("PROVISION", stick.clone())]), |step| {
            let plugged = step.next_stick(stick::PROVISION, &mut None);
            step.hand_over(&plugged, &site, &key, &Default::default()).unwrap_err()
        });
        assert!(format!("{error:#}").contains("begin anew with RESET"), "{error:#}");
        assert!(!stick.join(stick::RECOVERY_KEY).exists());
        assert_eq!(fs::read(places.at(path::RECOVERY_KEY)).unwrap(), damaged);
    }
}
