//! What a new version is held to.

use super::*;

/// How often it answers that it has only just started, before that how often that it is just starting, and whether it answers at all.
#[derive(Default)]
pub(super) struct Gateway {
    young: Cell<u32>,
    starting: Cell<u32>,
    silent: Cell<bool>,
    /// It ends again and again.
    ends: Cell<bool>,
}

impl Gateway {
    pub(super) fn answer(&self) -> Result<Value, &'static str> {
        if self.silent.get() || self.starting.get() > 0 {
            return Err("nobody answers");
        }
        let settling = counted(&self.young);
        let there = |id: &str| if settling { json!([]) } else { json!([id]) };
        Ok(json!({"at_unix_ms": 1, "devices": there("m-1"), "destinations": there("ehr"), "settling": settling}))
    }

    /// What the service manager says of its unit.
    pub(super) fn unit(&self, asked: &str) -> &'static str {
        match asked.split_whitespace().rev().nth(1) {
            Some("ActiveState") if counted(&self.starting) => "ActiveState=activating\n",
            Some("NRestarts") if self.ends.get() => "NRestarts=3\n",
            _ => "",
        }
    }
}

/// Whether it is not yet zero; counts down.
fn counted(left: &Cell<u32>) -> bool {
    left.replace(left.get().saturating_sub(1)) > 0
}

fn expected(updater: &TestUpdater) -> String {
    fs::read_to_string(updater.places.at(path::BEFORE_UPDATE)).unwrap()
}

/// A stick that is in at the start finds a gateway that has only just started, or is just starting, and no reading yet: it waits until
/// what is there has shown itself, and no longer than that. The report says how much is expected.
#[test]
fn a_gateway_has_time_to_show_what_is_there() {
    for (young, starting) in [(3, 0), (0, 3), (2, 2)] {
        let folder = tempfile::tempdir().unwrap();
        let updater = appliance(folder.path());
        updater.programs.gateway.young.set(young);
        updater.programs.gateway.starting.set(starting);
        let stick = stick(&updater, &[("a.raucb", "0.3.0")]);
        updater.install_from_stick(&stick).unwrap();
        assert!(expected(&updater).contains("m-1"), "{}", expected(&updater));
        assert_eq!((updater.programs.gateway.young.get(), updater.programs.gateway.starting.get()), (0, 0));
        assert!(report(&stick).contains("1 devices and 1 destinations"), "{}", report(&stick));
    }
}

/// A gateway that starts over and over, or does not answer at all, keeps no update away that may help.
#[test]
fn a_gateway_that_does_not_settle_keeps_no_update_away() {
    for (young, starting) in [(u32::MAX, 0), (0, u32::MAX)] {
        let folder = tempfile::tempdir().unwrap();
        let updater = appliance(folder.path());
        updater.programs.gateway.young.set(young);
        updater.programs.gateway.starting.set(starting);
        updater.install_from_stick(&stick(&updater, &[("a.raucb", "0.3.0")])).unwrap();
        assert_eq!((updater.installer.installed.borrow().len(), RESTARTS.get()), (1, 1));
    }
    for ends in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let updater = appliance(folder.path());
        updater.programs.gateway.silent.set(!ends);
        updater.programs.gateway.young.set(u32::MAX);
        updater.programs.gateway.ends.set(ends);
        PAUSED.set(Some(Box::new(|| panic!("nothing is waited for"))));
        updater.install_from_stick(&stick(&updater, &[("a.raucb", "0.3.0")])).unwrap();
        assert!(PAUSED.take().is_some() && RESTARTS.get() == 1);
        RESTARTS.set(0);
    }
}

/// What was installed in an earlier window starts with what was there then, where the gateway has nothing better to say.
#[test]
fn a_gateway_that_has_only_just_started_takes_nothing_from_what_is_expected() {
    for silent in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let updater = with_server(folder.path(), &spans().0, &[("0.3.0", &sha256("0.3.0"))]);
        installed_in_b(&updater);
        fs::write(updater.places.at(path::BEFORE_UPDATE), r#"{"at_unix_ms":1,"devices":["m-1","m-2"],"destinations":["ehr"]}"#).unwrap();
        updater.programs.gateway.young.set(u32::MAX);
        updater.programs.gateway.silent.set(silent);
        updater.install_from_server().unwrap();
        assert_eq!(RESTARTS.get(), 1);
        assert!(expected(&updater).contains("m-2"), "{}", expected(&updater));
    }
}
