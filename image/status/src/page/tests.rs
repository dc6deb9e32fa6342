//! What the page promises, whatever it was given.

use std::collections::BTreeMap;

use vitalgate_layout::state::{Part, PartState};
use vitalgate_layout::{StateWord, fact};

use super::*;
use crate::daemon::{Daemon, DaemonStatus};
use crate::machine::Machine;
use crate::parts::{Parts, Said};
use crate::snapshot::Found;

/// Text that breaks out of markup, attributes and scripts wherever it is not escaped.
const HOSTILE: &str = "\"><script>alert(1)</script><img src=x onerror=alert(1)>' &amp; \u{202e}";

fn found(parts: Parts, daemon: Daemon) -> Found {
    Found { parts, daemon, machine: Machine::default(), certificate: None, now_unix_ms: 1_795_000_000_000, up_s: 50, powered_s: 60 }
}

fn silent() -> Daemon {
    Daemon::Silent { reason: HOSTILE.to_owned(), for_s: 5, ever: false }
}

fn pages(found: &Found) -> [String; 2] {
    let rendered = Rendered::of(&Snapshot::of(found, 8443));
    assert!(serde_json::from_slice::<serde_json::Value>(&rendered.json).is_ok());
    assert!(serde_json::from_slice::<serde_json::Value>(&rendered.health).is_ok());
    [rendered.english, rendered.german].map(|page| String::from_utf8(page.to_vec()).unwrap())
}

fn hostile_status() -> DaemonStatus {
    let text = serde_json::json!(HOSTILE);
    serde_json::from_value(serde_json::json!({
        "version": text, "gateway": text, "clock_trust": text, "warnings": [text],
        "health": {"ready": false, "state": text, "problems": [text]},
        "store": {"damage": [text], "days_left": -1e308, "free_bytes": u64::MAX, "dead_letters": u64::MAX},
        "devices": [{"id": text, "profile": text, "driver": text, "state": text, "last_reading_age_s": u64::MAX}],
        "destinations": [{"id": text, "alarm": text, "queued": u64::MAX, "oldest_age_s": u64::MAX}]
    }))
    .unwrap()
}

/// What a device, a server or a damaged file says is text on the page, never markup.
#[test]
fn hostile_text_stays_text() {
    let facts: BTreeMap<_, _> =
        ["site", "serial", "last-rollback", "slot-a", HOSTILE].map(|name| (name.to_owned(), HOSTILE.to_owned())).into();
    let state =
        |word| Said::State(PartState { word, code: Some(u16::MAX), detail: HOSTILE.into(), since_unix_ms: i64::MIN, facts: facts.clone() });
    let loud = Parts::of(Part::ALL.map(|part| (part, state(StateWord::Tamper))));
    let broken = Parts::of(Part::ALL.map(|part| (part, Said::Unreadable(HOSTILE.to_owned()))));
    let mut all = vec![found(loud, Daemon::Answers(Box::new(hostile_status()))), found(broken, silent())];
    all.push(found(Parts::of([]), Daemon::Answers(Box::default())));
    for found in all {
        for page in pages(&found) {
            assert!(!page.contains("<script") && !page.contains("<img"), "{page}");
            assert_eq!(page.matches("<style>").count(), 1);
        }
    }
}

/// Every word has its line on the page, in both languages, and the page stands without anything known.
#[test]
fn every_word_is_shown_with_its_meaning() {
    for word in StateWord::ALL {
        let state = Said::State(PartState { word, code: None, detail: String::new(), since_unix_ms: 0, facts: BTreeMap::new() });
        let parts = Parts::of(Part::ALL.map(|part| (part, state.clone())));
        let health = crate::daemon::Health { ready: true, state: "READY".into(), problems: Vec::new() };
        let status = DaemonStatus { health, ..DaemonStatus::default() };
        let [english, german] = pages(&found(parts, Daemon::Answers(Box::new(status))));
        assert!(english.contains(advice::meaning(word, Language::English)), "{word}");
        assert!(german.contains(advice::meaning(word, Language::German)), "{word}");
        assert_eq!(english.matches("<section class=\"panel\">").count(), 6);
        assert!(english.contains("<html lang=\"en\">") && german.contains("<html lang=\"de\">"));
    }
}

/// OFFLINE-BUFFERING stands for a destination that refuses as well as for one that is away: nobody is told to wait for a delivery that
/// only a replay makes.
#[test]
fn what_was_refused_is_not_promised_for_later() {
    for language in [Language::English, Language::German] {
        let meaning = advice::meaning(StateWord::OfflineBuffering, language);
        for untrue in ["does not answer", "delivered later", "antwortet nicht", "später zugestellt"] {
            assert!(!meaning.contains(untrue), "{meaning}");
        }
        assert!(meaning.contains("REPLAY"), "{meaning}");
    }
}

/// The colour is never the only sign: each tone has its own character and word.
#[test]
fn tones_differ_in_more_than_colour() {
    use panel::Tone::{Attention, Bad, Busy, Good, Unknown};
    let tones = [Unknown, Good, Busy, Attention, Bad];
    for (at, one) in tones.iter().enumerate() {
        for other in &tones[at + 1..] {
            assert!(one.sign() != other.sign() && one.word(Language::English) != other.word(Language::English));
            assert!(one.word(Language::German) != other.word(Language::German));
        }
    }
}

/// Nothing on the page is loaded, sent or run: no address of elsewhere, no form, no handler, no inline style.
#[test]
fn the_page_loads_nothing() {
    for page in pages(&found(Parts::of([]), Daemon::Answers(Box::default()))) {
        for forbidden in ["src=", "<form", "<script", " onload=", " onclick=", " style=", "@import", "url("] {
            assert!(!page.contains(forbidden), "{forbidden}");
        }
        let elsewhere = page.replace("http://www.w3.org/2000/svg", "");
        assert!(!elsewhere.contains("http://") && !elsewhere.contains("//cdn"));
    }
}

/// Nobody is told that nothing waits while something does, though no clock can tell for how long.
#[test]
fn what_waits_is_never_said_to_be_nothing() {
    for (queued, age, nothing) in [(0, None, true), (7, None, false), (7, Some(90), false)] {
        let ehr = crate::daemon::Destination { queued: Some(queued), oldest_age_s: age, ..Default::default() };
        let status = DaemonStatus { destinations: vec![ehr], ..DaemonStatus::default() };
        let [english, german] = pages(&found(Parts::of([]), Daemon::Answers(Box::new(status))));
        assert_eq!((english.contains("nothing waits"), german.contains("nichts wartet")), (nothing, nothing), "{queued} {age:?}");
    }
}

/// Promise 5: how long the longest has waited is not told by a destination that waits shorter than one that cannot say.
#[test]
fn the_oldest_of_two_destinations_is_unknown_where_one_cannot_say() {
    let destination = |queued, oldest_age_s| crate::daemon::Destination { queued: Some(queued), oldest_age_s, ..Default::default() };
    for (away, age) in [(destination(50_000, None), None), (destination(50_000, Some(900)), Some(900)), (destination(0, None), Some(1))] {
        let status = DaemonStatus { destinations: vec![away, destination(1, Some(1))], ..DaemonStatus::default() };
        let found = found(Parts::of([]), Daemon::Answers(Box::new(status)));
        assert_eq!(Snapshot::of(&found, 8443).queue.oldest_age_s, age);
    }
}

/// Promise 5: a destination that was never asked is not said to deliver.
#[test]
fn what_took_nothing_yet_is_not_said_to_deliver() {
    let destination = |last_acknowledgement_age_s, alarm: Option<&str>| crate::daemon::Destination {
        last_acknowledgement_age_s,
        alarm: alarm.map(str::to_owned),
        ..Default::default()
    };
    for (destinations, word, tone) in [
        (vec![destination(None, None)], "nothing taken yet", panel::Tone::Unknown),
        (vec![destination(None, None), destination(Some(3), None)], "nothing taken yet", panel::Tone::Unknown),
        (vec![destination(Some(3), None)], "delivers", panel::Tone::Good),
        (vec![destination(Some(3), Some("away")), destination(None, None)], "held up", panel::Tone::Attention),
    ] {
        let found = found(Parts::of([]), Daemon::Answers(Box::new(DaemonStatus { destinations, ..DaemonStatus::default() })));
        let [_, _, _, _, panel, _] = panels::all(&Snapshot::of(&found, 8443), Language::English);
        let states: Vec<_> = panel.table.iter().flat_map(|table| &table.rows).map(|row| row.cells[3].text.as_str()).collect();
        assert_eq!((states[0], panel.tone), (word, tone));
    }
}

/// Promise 5: a polled device of which a part never arrives is not in order.
#[test]
fn a_device_that_answers_in_part_raises_its_panel() {
    let device = crate::daemon::Device { last_reading_age_s: Some(1), state: "degraded".into(), ..Default::default() };
    let status = DaemonStatus { devices: vec![device], ..DaemonStatus::default() };
    let found = found(Parts::of([]), Daemon::Answers(Box::new(status)));
    let [_, _, panel, ..] = panels::all(&Snapshot::of(&found, 8443), Language::English);
    assert_eq!(panel.tone, panel::Tone::Attention);
}

/// Storage that is not sealed is not in order, and why it may be so stands beside it.
#[test]
fn storage_that_is_not_sealed_is_not_shown_as_in_order() {
    for (sealed, tone) in [(fact::SEALED_YES, None), (fact::SEALED_NO, Some(panel::Tone::Attention))] {
        let facts = [(fact::SEALED.to_owned(), sealed.to_owned())].into();
        let state = Said::State(PartState { word: StateWord::Ready, code: None, detail: String::new(), since_unix_ms: 0, facts });
        let found = found(Parts::of([(Part::Data, state)]), Daemon::Answers(Box::default()));
        let [_, _, _, panel, ..] = panels::all(&Snapshot::of(&found, 8443), Language::English);
        let row = panel.rows.iter().find(|(name, _)| name == "Sealed to the TPM").unwrap();
        assert_eq!(row.1.tone, tone, "{sealed}");
    }
}

/// Promise 5: after a start nobody is said to be heard who was not, and nobody is called missing who may still come.
#[test]
fn who_was_not_heard_yet_is_not_counted_as_heard() {
    let device = |last_reading_age_s, state: &str| crate::daemon::Device { last_reading_age_s, state: state.into(), ..Default::default() };
    let (heard, awaited, gone) = (device(Some(4), "seen"), device(None, "waiting"), device(Some(9_000), "seen"));
    for (devices, count, tone) in [
        (vec![awaited.clone(), awaited.clone()], "0 of 2 heard", panel::Tone::Unknown),
        (vec![heard.clone(), awaited.clone()], "1 of 2 heard", panel::Tone::Unknown),
        (vec![heard.clone(), heard.clone()], "2 of 2 heard", panel::Tone::Good),
        (vec![heard, awaited, gone], "1 of 3 heard", panel::Tone::Attention),
        (vec![], "0 of 0 heard", panel::Tone::Unknown),
    ] {
        let status = DaemonStatus { devices, uptime_s: Some(20), ..DaemonStatus::default() };
        let found = found(Parts::of([]), Daemon::Answers(Box::new(status)));
        let [_, _, panel, ..] = panels::all(&Snapshot::of(&found, 8443), Language::English);
        assert_eq!((panel.rows[0].1.text.as_str(), panel.tone), (count, tone));
    }
}

/// Promise 5: where nothing comes in that is said, and no rate is waited for.
#[test]
fn a_disk_that_does_not_fill_up_is_said_not_to() {
    for (rate_known, words) in [(false, ["no rate yet", "noch keine Rate"]), (true, ["nothing comes in", "es kommt nichts herein"])] {
        let store = crate::daemon::Store { rate_known, ..Default::default() };
        let pages = pages(&found(Parts::of([]), Daemon::Answers(Box::new(DaemonStatus { store, ..DaemonStatus::default() }))));
        assert!(pages.iter().zip(words).all(|(page, words)| page.contains(words)), "{words:?}");
    }
}

/// A thousand devices make a page that a phone can still load, and say how many are left out.
#[test]
fn a_full_gateway_makes_a_bounded_page() {
    let device = |number: usize| crate::daemon::Device { id: format!("monitor-{number}"), ..Default::default() };
    let status = DaemonStatus { devices: (0..1_000).map(device).collect(), uptime_s: Some(9_999), ..DaemonStatus::default() };
    for page in pages(&found(Parts::of([]), Daemon::Answers(Box::new(status)))) {
        assert!(page.len() < 200_000, "{} bytes", page.len());
        assert!(page.contains("800"));
    }
}

/// The browser applies the style that is on the page: its hash is the one of the policy.
#[test]
fn the_policy_allows_the_style_of_the_page() {
    for page in pages(&found(Parts::of([]), silent())) {
        let style = page.split("<style>").nth(1).and_then(|rest| rest.split("</style>").next()).unwrap();
        let hash = base64(digest::digest(&digest::SHA256, style.as_bytes()).as_ref());
        assert!(content_security_policy().contains(&format!("style-src 'sha256-{hash}';")));
    }
}

#[test]
fn base64_is_that_of_the_standard() {
    let encoded = ["", "f", "fo", "foo", "foob", "fooba", "foobar"].map(|text| base64(text.as_bytes()));
    assert_eq!(encoded, ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"]);
}
