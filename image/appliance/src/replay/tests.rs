use std::cell::RefCell;
use std::fs;

use vitalgate_site::{DeadLetterSelector, Discard, open_report};

use super::*;
use crate::command::{Answer, CommandError};
use crate::errand::stand_in;
use crate::stick::rig::Rig;

/// Stands in for the gateway's command line.
struct Gateway {
    places: Places,
    answers: bool,
    stops: bool,
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
            discard if discard.starts_with("discard ") => self.discards(discard),
            "replay" => "3 replayed, 0 remain\n".to_owned(),
            _ => format!("[{},{},{}]", letter("monitor-01"), letter("monitor-01"), letter("monitor-02")),
        };
        Ok(Answer { success: self.answers, output: output.into(), ..Answer::default() })
    }
}

impl Gateway {
    /// As `vitalgate dead-letters discard --json` answers.
    fn discards(&self, words: &str) -> String {
        assert!(words.contains("--json"), "{words}");
        serde_json::json!({
            "discarded": 1_002,
            "remain": 500,
            "kinds": { "Undecodable": { "discarded": 1_002, "remain": 2 }, "Rejected and Unassigned": { "discarded": 0, "remain": 498 } },
            "undated": 2,
            "stopped": self.stops.then_some("the time for it was over"),
        })
        .to_string()
    }
}

fn gateway(rig: &Rig, answers: bool) -> Gateway {
    let gateway = Gateway { places: Places::under(rig.folder.path()), answers, stops: false, asked: RefCell::default() };
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

fn discard(id: u8, named: DeadLetterSelector, count: bool) -> String {
    Rig::request_with(Action::Discard, id, 1, Some(Discard { selector: named, count }))
}

fn undecodable() -> DeadLetterSelector {
    DeadLetterSelector::parse(Some("Undecodable"), None, Some("2026-11-01")).unwrap()
}

/// Plugs the request in; whether it ended well, and the report.
fn plugged(rig: &Rig, gateway: &Gateway, name: &str, request: &str) -> (bool, String) {
    let (folder, mounted) = rig.stick(name, stick::REPLAY_REQUEST, request);
    let ended = replay(&rig.places, gateway, mounted).is_ok();
    (ended, fs::read_to_string(folder.join(stick::REPLAY_REPORT)).unwrap())
}

/// Promise 4: what nothing helps is discarded once, by name, and noted with whose request it was; the signed report says how many.
#[test]
fn dead_letters_are_discarded_once_for_a_signed_request_that_names_them() {
    let rig = Rig::new();
    fs::create_dir_all(rig.places.at(path::REPORT_KEY).parent().unwrap()).unwrap();
    let key = report::key(&rig.places).unwrap();
    let gateway = gateway(&rig, true);
    let request = discard(7, undecodable(), false);
    let (ended, said) = plugged(&rig, &gateway, "discard", &request);
    assert_eq!(open_report(said.as_bytes()).unwrap().signed_by, key.public());
    for line in [
        "DONE: 1002 dead letters discarded, 500 remain",
        "those of the kind Undecodable, received before 2026-11-01T00:00:00.000+00:00",
        "       1002         2  Undecodable",
        "          0       498  Rejected and Unassigned",
        "2 of those that remain came when no clock was set",
        "for A. Example",
    ] {
        assert!(ended && said.contains(line), "{line} is missing:\n{said}");
    }
    let asked = gateway.asked.borrow().clone();
    let [words] = asked.as_slice() else { panic!("{asked:?}") };
    for word in
        ["--kind=Undecodable", "--before=2026-11-01T00:00:00.000+00:00", "--by=request 0707", "signed by root key", "for A. Example"]
    {
        assert!(words.contains(word), "{words}");
    }
    assert!(["--device", "--all", "--count"].iter().all(|word| !words.contains(word)), "{words}");

    let (ended, said) = plugged(&rig, &gateway, "discard", &request);
    assert!(!ended && said.contains("DONE: 1002") && said.contains("REFUSED (19)"), "{said}");
    assert_eq!(open_report(said.as_bytes()).unwrap().signed_by, key.public(), "a stick that stays in keeps what was signed");
    let (ended, said) = plugged(&rig, &gateway, "again", &request);
    assert!(!ended && said.contains("REFUSED (19)"), "{said}");
    assert_eq!(gateway.asked.borrow().len(), 1);
}

/// Promise 4: nothing is discarded by a request that counts, that is to send again, or that a stranger signed; all only where all is said.
#[test]
fn only_a_request_to_discard_discards() {
    let rig = Rig::new();
    let gateway = gateway(&rig, true);
    let (ended, said) = plugged(&rig, &gateway, "count", &discard(1, undecodable(), true));
    assert!(ended && said.contains("COUNTED: 1002 dead letters would be discarded, 500 would remain; nothing was discarded"), "{said}");
    assert!(said.contains("not signed"), "there is no key:\n{said}");
    assert!(plugged(&rig, &gateway, "replay", &Rig::request(Action::Replay, 2, 1)).0);
    let whole = Some(Discard { selector: DeadLetterSelector::default(), count: false });
    let (ended, said) = plugged(&rig, &gateway, "stranger", &Rig::request_with(Action::Discard, 3, 2, whole));
    assert!(!ended && said.contains("REFUSED (14)"), "{said}");
    let asked: Vec<_> = gateway.asked.borrow_mut().drain(..).filter(|words| words.starts_with("discard")).collect();
    assert!(asked.len() == 1 && asked[0].contains("--count"), "{asked:?}");

    assert!(plugged(&rig, &gateway, "all", &discard(4, DeadLetterSelector::default(), false)).0);
    let asked = gateway.asked.borrow();
    assert!(asked.len() == 1 && asked[0].contains("--all") && !asked[0].contains("--count"), "{asked:?}");
}

/// Promise 4: what was not carried out to its end is said, and the same stick goes on with it.
#[test]
fn what_is_cut_off_may_come_again() {
    let rig = Rig::new();
    let request = discard(1, undecodable(), false);
    let (ended, said) = plugged(&rig, &gateway(&rig, false), "silent", &request);
    assert!(!ended && said.contains("NOT DONE") && said.contains("try once more"), "{said}");
    let (ended, said) = plugged(&rig, &Gateway { stops: true, ..gateway(&rig, true) }, "half", &request);
    assert!(!ended && said.contains("PARTLY DONE: 1002") && said.contains("the time for it was over"), "{said}");
    assert!(said.contains("plug the stick in again"), "{said}");
    assert!(plugged(&rig, &gateway(&rig, true), "whole", &request).0);
    assert!(plugged(&rig, &gateway(&rig, true), "once more", &request).1.contains("REFUSED (19)"));
}
