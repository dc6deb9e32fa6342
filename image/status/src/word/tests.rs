//! Which word stands for which situation.

use std::collections::BTreeMap;

use vitalgate_layout::state::PartState;

use super::*;
use crate::daemon::{DEVICE_SILENT_S, Device, Health};

fn state(word: StateWord, code: Option<u16>, detail: &str) -> Said {
    Said::State(PartState { word, code, detail: detail.to_owned(), since_unix_ms: 0, facts: BTreeMap::new() })
}

fn ready() -> Said {
    state(StateWord::Ready, None, "")
}

/// An appliance in service, with these parts saying something else.
fn in_service(others: Vec<(Part, Said)>) -> Parts {
    let rest = [Part::Data, Part::Provision, Part::Clock].map(|part| (part, ready()));
    Parts::of(others.into_iter().chain(rest))
}

fn answers(health: &str, problems: &[&str]) -> DaemonStatus {
    let problems = problems.iter().map(|problem| (*problem).to_owned()).collect();
    DaemonStatus {
        health: Health { ready: health == "READY", state: health.to_owned(), problems },
        uptime_s: Some(10),
        ..DaemonStatus::default()
    }
}

fn silent(for_s: u64, ever: bool) -> Daemon {
    Daemon::Silent { reason: "nothing listens on loopback".into(), for_s, ever }
}

/// A situation, its word, and what the detail has to name; an empty text means that there is no detail.
struct Row(&'static str, Parts, Daemon, u64, StateWord, &'static str);

fn check(rows: impl IntoIterator<Item = Row>) {
    for Row(name, parts, daemon, up_s, word, detail) in rows {
        let overall = overall(&parts, &daemon, up_s);
        assert_eq!(overall.word, word, "{name}: {overall:?}");
        assert!(overall.detail.contains(detail) && (detail.is_empty() == overall.detail.is_empty()), "{name}: {overall:?}");
    }
}

fn good() -> Daemon {
    Daemon::Answers(Box::new(answers("READY", &[])))
}

fn with(health: &str, problem: &str) -> Daemon {
    Daemon::Answers(Box::new(answers(health, &[problem])))
}

/// From power-on to the first answer: starting is not an alarm, starting for ever is one.
#[test]
fn every_step_of_the_start_has_its_word() {
    use StateWord::{AwaitProvision, Degraded, ProvisionRejected, Selftest, Tamper};
    let none = || Parts::of([]);
    let data = || Parts::of([(Part::Data, ready())]);
    let provision = |word, code, detail| Parts::of([(Part::Data, ready()), (Part::Provision, state(word, code, detail))]);
    let late = PART_SILENT_S + 1;
    check([
        Row("nothing has spoken yet", none(), silent(0, false), 2, Selftest, "sealed storage"),
        Row("storage never opened", none(), silent(0, false), late, Tamper, "sealed storage"),
        Row("no site file looked for yet", data(), silent(0, false), 9, Selftest, "site file"),
        Row("no commissioning step", data(), silent(0, false), late, Degraded, "commissioning"),
        Row("waiting for the stick", provision(AwaitProvision, None, ""), silent(9_999, false), 9_999, AwaitProvision, ""),
        Row("stick refused", provision(ProvisionRejected, Some(13), "sign"), silent(9, false), 9, ProvisionRejected, "sign"),
        Row("the gateway starts", in_service(vec![]), silent(DAEMON_START_S, false), 99, Selftest, "starting"),
        Row("the gateway never came", in_service(vec![]), silent(DAEMON_START_S + 1, false), 999, Degraded, "has not answered"),
        Row("the gateway went away", in_service(vec![]), silent(DAEMON_START_S + 1, true), 999, Degraded, "no longer answers"),
        Row("the gateway opens its store", in_service(vec![]), with("STARTING", ""), 99, Selftest, "store"),
    ]);
}

/// In service: what the daemon says, and what the parts say.
#[test]
fn every_situation_in_service_has_its_word() {
    use StateWord::{Degraded, OfflineBuffering, Ready, RolledBack, StoreFull, Tamper, TimeUntrusted, Updating};
    let only = |part, word, detail| in_service(vec![(part, state(word, None, detail))]);
    let garbage = |part| in_service(vec![(part, Said::Unreadable("it is cut".into()))]);
    let clock = |trust: &str| Daemon::Answers(Box::new(DaemonStatus { clock_trust: Some(trust.into()), ..answers("READY", &[]) }));
    let no_clock = || Parts::of([(Part::Data, ready()), (Part::Provision, ready())]);
    check([
        Row("all is well", in_service(vec![]), good(), 999, Ready, ""),
        Row("the EHR is away", in_service(vec![]), with("OFFLINE-BUFFERING", "ehr: refused"), 99, OfflineBuffering, "ehr: refused"),
        Row("the EHR refuses all", in_service(vec![]), with("OFFLINE-BUFFERING", "ehr: none"), 99, OfflineBuffering, "ehr: none"),
        Row("the disk is full", in_service(vec![]), with("STORE-FULL", "free space"), 99, StoreFull, "free space"),
        Row("damage was mended", in_service(vec![]), with("DEGRADED", "segment 3"), 99, Degraded, "segment 3"),
        Row("a word of a later daemon", in_service(vec![]), with("SHINY", ""), 99, Degraded, "SHINY"),
        Row("the storage is not what it was", only(Part::Data, Tamper, "the TPM"), silent(9, false), 9, Tamper, "the TPM"),
        Row("the last update was undone", only(Part::Slots, RolledBack, "0.3.0: no answer"), good(), 99, RolledBack, "0.3.0"),
        Row("an update is being installed", only(Part::Update, Updating, "0.2.0, 40 %"), good(), 99, Updating, "40 %"),
        Row("the clock part speaks", only(Part::Clock, TimeUntrusted, "no source"), clock("free"), 99, TimeUntrusted, "no source"),
        Row("only the daemon knows the clock", no_clock(), clock("Unset"), 99, TimeUntrusted, "power-on"),
        Row("the clock runs by itself", no_clock(), clock("free"), 99, TimeUntrusted, "by itself"),
        Row("the clock follows a source", no_clock(), clock("Synchronised"), 99, Ready, ""),
        Row("a state file is garbage", garbage(Part::SelfTest), good(), 99, Degraded, "self-test.json"),
        Row("our own file is garbage", garbage(Part::Status), good(), 99, Ready, ""),
    ]);
}

/// Storage that is open is in order for whoever waited for it, and not for a person while its file system stays damaged.
#[test]
fn a_file_system_that_stays_damaged_is_not_in_order() {
    for (fact, word) in [("failed: damaged and not mended", StateWord::Degraded), ("ok", StateWord::Ready)] {
        let Said::State(state) = ready() else { panic!("it is a state") };
        let facts = BTreeMap::from([(fact::FILE_SYSTEM.to_owned(), fact.to_owned())]);
        let parts = Parts::of([(Part::Data, Said::State(PartState { facts, ..state })), (Part::Provision, ready())]);
        let overall = overall(&parts, &good(), 99);
        assert_eq!((overall.word, overall.in_service), (word, true), "{fact}");
        assert_eq!(overall.detail.contains("the file system of the sealed storage"), word == StateWord::Degraded, "{overall:?}");
    }
}

/// Every word comes out when a part says it, with its number.
#[test]
fn every_word_can_come_out() {
    for word in StateWord::ALL {
        let parts = in_service(vec![(Part::SelfTest, state(word, Some(7), "why"))]);
        let overall = overall(&parts, &good(), 5);
        assert_eq!((overall.word, overall.code, overall.detail.as_str()), (word, Some(7), "why"));
        assert!(overall.in_service);
    }
}

/// The most urgent word is shown; the others are not lost, and the number belongs to the word shown.
#[test]
fn the_most_urgent_word_wins_and_the_others_are_named() {
    let parts = in_service(vec![
        (Part::Slots, state(StateWord::RolledBack, Some(4), "back")),
        (Part::Clock, state(StateWord::TimeUntrusted, None, "no source")),
    ]);
    let overall = overall(&parts, &with("STORE-FULL", "full"), 5);
    assert_eq!(overall.word, StateWord::StoreFull);
    assert_eq!(overall.also, [StateWord::TimeUntrusted, StateWord::RolledBack]);
    assert_eq!(overall.also_because, ["TIME-UNTRUSTED: no source", "ROLLED-BACK: back"]);
    assert_eq!((overall.code, overall.in_service), (None, false));
}

/// While the gateway starts no word is shown that says it is in service.
#[test]
fn what_starts_is_not_called_in_service() {
    let parts = in_service(vec![
        (Part::Slots, state(StateWord::RolledBack, None, "back")),
        (Part::Clock, state(StateWord::TimeUntrusted, None, "no source")),
    ]);
    for starting in [silent(DAEMON_START_S, false), with("STARTING", "")] {
        let overall = overall(&parts, &starting, 99);
        assert_eq!(overall.word, StateWord::Selftest);
        assert_eq!(overall.also, [StateWord::TimeUntrusted, StateWord::RolledBack]);
    }
}

/// The console's line stays short however many devices are gone.
#[test]
fn a_ward_that_is_switched_off_makes_one_short_line() {
    let mut status = answers("READY", &[]);
    status.uptime_s = Some(DEVICE_SILENT_S + 1);
    status.devices = (1..=50).map(|number| Device { id: format!("monitor-{number:02}"), ..Device::default() }).collect();
    let overall = overall(&in_service(vec![]), &Daemon::Answers(Box::new(status)), 9_999);
    assert_eq!(overall.word, StateWord::Degraded);
    assert!(overall.detail.contains("monitor-01") && overall.detail.ends_with("and 47 more"), "{}", overall.detail);
    assert!(overall.in_service);
}
