use std::cell::RefCell;
use std::fs;

use super::*;
use crate::command::{Answer, CommandError};
use crate::errand::stand_in;
use crate::stick::rig::Rig;

/// Stands in for the gateway's command line.
struct Gateway {
    places: Places,
    answers: bool,
    asked: RefCell<Vec<String>>,
}

impl Programs for Gateway {
    fn attempt(&self, call: Call) -> Result<Answer, CommandError> {
        if let Some(errand) = stand_in::started(&call) {
            fs::create_dir_all(errand.folder(&self.places)).unwrap();
            errand::run(errand, &self.places, self).unwrap();
        }
        let line = call.line();
        if call.program() == "systemctl" {
            return Ok(Answer { success: true, ..Answer::default() });
        }
        let (_, words) = line.split_once("dead-letters ").unwrap();
        self.asked.borrow_mut().push(words.to_owned());
        let letter = |device: &str| {
            format!(r#"{{"sequence":1,"device":"{device}","received":"","kind":"unassigned","detail":"Patient/4711","destination":null}}"#)
        };
        let output = match words {
            "replay" => "3 replayed, 0 remain\n".to_owned(),
            _ => format!("[{},{},{}]", letter("monitor-01"), letter("monitor-01"), letter("monitor-02")),
        };
        Ok(Answer { success: self.answers, output: output.into(), ..Answer::default() })
    }
}

fn gateway(rig: &Rig, answers: bool) -> Gateway {
    let gateway = Gateway { places: Places::under(rig.folder.path()), answers, asked: RefCell::default() };
    fs::create_dir_all(gateway.places.at("/run")).unwrap();
    gateway
}

/// Promise 4: on a box without a shell, too, what was held can be sent again; the stick says how much, and of nobody whose.
#[test]
fn dead_letters_are_sent_again_once_for_a_signed_request() {
    let rig = Rig::new();
    let gateway = gateway(&rig, true);
    let request = Rig::request(Action::Replay, 7, 1);
    let (folder, mounted) = rig.stick("replay", stick::REPLAY_REQUEST, &request);
    replay(&rig.places, &gateway, mounted).unwrap();
    let told = fs::read_to_string(folder.join(stick::REPLAY_REPORT)).unwrap();
    assert!(told.contains("DONE: 3 replayed, 0 remain") && told.contains("2  unassigned, monitor-01"), "{told}");
    assert!(!told.contains("Patient"), "a patient on the stick");
    assert_eq!(*gateway.asked.borrow(), ["list --json", "replay"]);

    let (folder, again) = rig.stick("replay", stick::REPLAY_REQUEST, &request);
    assert!(replay(&rig.places, &gateway, again).is_err());
    let told = fs::read_to_string(folder.join(stick::REPLAY_REPORT)).unwrap();
    assert!(told.contains("DONE: 3 replayed, 0 remain") && told.contains("REFUSED (19)"), "the stick stayed in: {told}");
    assert_eq!(gateway.asked.borrow().len(), 2);
}

/// A stranger's request and one for something else do nothing; a gateway that does not answer may be asked once more.
#[test]
fn what_is_not_done_is_said_and_may_come_again() {
    let rig = Rig::new();
    let silent = gateway(&rig, false);
    for (name, text, number) in [("stranger", Rig::request(Action::Replay, 1, 2), 14), ("reset", Rig::request(Action::Reset, 2, 1), 18)] {
        let (folder, mounted) = rig.stick(name, stick::REPLAY_REQUEST, &text);
        assert!(replay(&rig.places, &silent, mounted).is_err());
        let told = fs::read_to_string(folder.join(stick::REPLAY_REPORT)).unwrap();
        assert!(told.contains(&format!("REFUSED ({number})")), "{told}");
    }
    assert!(silent.asked.borrow().is_empty());

    let request = Rig::request(Action::Replay, 3, 1);
    let (folder, mounted) = rig.stick("replay", stick::REPLAY_REQUEST, &request);
    assert!(replay(&rig.places, &silent, mounted).is_err());
    let told = fs::read_to_string(folder.join(stick::REPLAY_REPORT)).unwrap();
    assert!(told.contains("NOT DONE") && told.contains("try once more"), "{told}");
    let (_, mounted) = rig.stick("replay", stick::REPLAY_REQUEST, &request);
    replay(&rig.places, &gateway(&rig, true), mounted).unwrap();
}
