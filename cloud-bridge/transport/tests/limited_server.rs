//! A server that does only a part of what is asked of it: the readings go on without it, or what stands in their way is said.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Test code.

mod common;

use common::ehr::{Ehr, Ending, Fault, Reply, going_on, outcome, reply};
use common::serve::Served;
use common::{accepted, batch, batch_of, endpoint, is_transient, patient, reading};
use serde_json::json;
use vitalgate_domain::{Answer, Batch, BatchMode, DeviceId, ItemAnswer};
use vitalgate_transport::{FhirClient, FhirEndpoint, WritePolicy};

async fn served(update_create: bool) -> (Served, FhirClient) {
    let served = Served::start(Ehr::new(update_create)).await;
    let client = FhirClient::new(endpoint(&served.url(), WritePolicy::Auto), served.certificates.client()).unwrap();
    (served, client)
}

/// With conditional create only a search shows under whom a reading is that was there already, and whether one is there at all whose
/// answer was lost. Where it is refused nothing is sent in a circle: it is held, and the right that is missing is named.
#[tokio::test]
async fn a_server_that_refuses_the_search_holds_what_is_open_and_the_right_is_named() {
    let other = json!({"resourceType": "Observation", "id": "1", "identifier": [{"system": "s", "value": "v"}]});
    let ignores_identifier = json!({"resourceType": "Bundle", "type": "searchset", "total": 1, "entry": [{"resource": other}]});
    let refusals = [401, 403, 404, 405].map(|status| reply(status, &outcome("forbidden", "Max Muster")));
    for refusal in refusals.into_iter().chain([reply(200, &ignores_identifier)]) {
        for (mode, lost) in [(BatchMode::Together, false), (BatchMode::Separately, false), (BatchMode::Together, true)] {
            let (served, client) = served(false).await;
            assert_eq!(accepted(&client.deliver(&batch_of(1..=4, mode, &patient())).await), 4);
            served.ehr.state().faults.extend(lost.then_some(Fault::ResetAfterStoring));
            served.ehr.state().observation_search = Some(refusal.clone());
            let first = client.deliver(&batch_of(1..=4, mode, &patient())).await;
            let Answer::Paused { detail } = &first else { panic!("{}: {first:?}", refusal.status) };
            assert!(detail.contains("search of Observation") && !detail.contains("Muster"), "{detail}");
            assert_eq!(served.ehr.count("GET", "/fhir/Observation"), 1, "asked once, and not for each");
            let answer = client.deliver(&batch(mode)).await;
            let Answer::Items(items) = &answer else { panic!("{answer:?}") };
            assert!(matches!(&items[0], ItemAnswer::Transient { detail } if detail.contains("search of Observation")), "{items:?}");
            assert!(matches!(items[4], ItemAnswer::Accepted { .. }), "what is sure is settled: {items:?}");
            served.ehr.state().observation_search = None;
            assert_eq!(accepted(&client.deliver(&batch(mode)).await), 5, "allowed meanwhile");
            assert_eq!(served.ehr.observations(), (5, 5));
        }
    }
}

/// A search that a busy server does not answer is tried again: nobody has to change a right for it.
#[tokio::test]
async fn a_search_that_may_pass_is_tried_again() {
    for status in [408, 429, 503] {
        let (served, client) = served(false).await;
        assert_eq!(accepted(&client.deliver(&batch(BatchMode::Together)).await), 5);
        served.ehr.state().observation_search = Some(reply(status, &json!(null)));
        assert!(is_transient(&client.deliver(&batch(BatchMode::Together)).await), "{status}");
        served.ehr.state().observation_search = None;
        assert_eq!(accepted(&client.deliver(&batch(BatchMode::Together)).await), 5);
    }
}

/// Promise 2: a server may show fewer resources on a page than were asked for, and the rest on the next one: what is there is found
/// there, and is not taken for missing.
#[tokio::test]
async fn a_search_that_goes_on_at_another_page_is_read_on() {
    for (mode, relative) in [(BatchMode::Together, false), (BatchMode::Separately, false), (BatchMode::Together, true)] {
        let (served, client) = served(false).await;
        served.ehr.state().faults.push_back(Fault::ResetAfterStoring);
        served.ehr.state().first_page = Some((0, if relative { "/fhir".to_owned() } else { served.url() }));
        assert_eq!(accepted(&client.deliver(&batch(mode)).await), 5, "the answer was lost");
        assert_eq!(accepted(&client.deliver(&batch(mode)).await), 5, "the server says that they were there");
        assert_eq!((served.ehr.observations(), served.ehr.bundles()), ((5, 5), 2));
    }
}

/// Promises 2 and 4: where a search goes on at what is not the destination, or at a page that is not there, or without an end, what it did
/// not show is not taken for missing: it is held, and why is said. Nobody else is asked.
#[tokio::test]
async fn a_search_that_cannot_be_read_to_its_end_holds_what_is_open() {
    /// Pages of one search that are read.
    const PAGES: usize = 4;
    let elsewhere = Served::start(Ehr::new(false)).await;
    let (served, client) = served(false).await;
    assert_eq!(accepted(&client.deliver(&batch(BatchMode::Together)).await), 5);
    let beside = format!("https://localhost:{}/fhirs/Observation", served.address.port());
    let long = format!("{}/Observation?{}", served.url(), "x".repeat(100_000));
    let not_there = format!("{}/Pages", served.url());
    let again = format!("{}/Observation?again", served.url());
    let unusable = [elsewhere.url(), beside, long, "https://[".to_owned(), String::new()].map(|link| (link, 1));
    for (link, pages) in unusable.into_iter().chain([(not_there, 2), (again, PAGES)]) {
        let before = served.ehr.state().requests.len();
        served.ehr.state().observation_search = Some(reply(200, &going_on(&[], &link)));
        let answer = client.deliver(&batch(BatchMode::Together)).await;
        let Answer::Paused { detail } = &answer else { panic!("{answer:?}") };
        assert!(detail.contains("page") && !detail.contains("account") && !detail.contains("localhost"), "{detail}");
        assert_eq!(served.ehr.state().requests.len() - before, 1 + pages, "the bundle and the pages of one search");
    }
    assert_eq!(elsewhere.ehr.state().requests.len(), 0, "our credentials go to the destination only");
    served.ehr.state().observation_search = None;
    assert_eq!(accepted(&client.deliver(&batch(BatchMode::Together)).await), 5, "mended meanwhile");
    assert_eq!(served.ehr.observations(), (5, 5));
}

/// Promise 4: what confirms a reading and never shows it takes nothing, and what was seen is said: the pipeline alarms with it.
#[tokio::test]
async fn what_a_server_confirms_and_does_not_show_is_said() {
    let (served, client) = served(false).await;
    assert_eq!(accepted(&client.deliver(&batch(BatchMode::Together)).await), 5);
    let nothing = json!({"resourceType": "Bundle", "type": "searchset", "total": 0});
    served.ehr.state().observation_search = Some(reply(200, &nothing));
    let answer = client.deliver(&batch(BatchMode::Together)).await;
    let Answer::Transient { detail, .. } = &answer else { panic!("{answer:?}") };
    assert!(detail.contains("does not show"), "{detail}");
}

/// Promises 2 and 4: we ask for answers as they are. Where something before the server compresses them all the same, that is named, and
/// nothing counts as delivered or refused.
#[tokio::test]
async fn a_compressed_answer_is_named_and_settles_nothing() {
    for policy in [WritePolicy::Auto, WritePolicy::Put, WritePolicy::Conditional] {
        let served = Served::start(Ehr::new(policy != WritePolicy::Conditional)).await;
        let client = FhirClient::new(endpoint(&served.url(), policy), served.certificates.client()).unwrap();
        assert_eq!(accepted(&client.deliver(&batch(BatchMode::Together)).await), 5);
        served.ehr.state().compresses = true;
        let refused = Fault::Answer(400, Vec::new(), outcome("invalid", "").to_string());
        served.ehr.state().faults.extend([Fault::OtherBodyAfterStoring("{}".to_owned()), refused]);
        for _ in 0..2 {
            let answer = client.deliver(&batch(BatchMode::Together)).await;
            let Answer::Paused { detail } = &answer else { panic!("{policy:?}: {answer:?}") };
            assert!(detail.contains("gzip"), "{detail}");
        }
        served.ehr.state().compresses = false;
        served.ehr.state().faults.clear();
        assert_eq!(accepted(&client.deliver(&batch(BatchMode::Together)).await), 5);
        assert_eq!(served.ehr.observations(), (5, 5));
        let asked_for = |request: &common::ehr::Request| request.accept_encoding.as_deref() == Some("identity");
        assert!(served.ehr.state().requests.iter().all(asked_for));
    }
}

/// Promise 2: a server that puts its own reference wherever an entry repeats the name that it gives itself (Medplum) keeps our identifier,
/// and a resend stores nothing again.
#[tokio::test]
async fn a_server_that_rewrites_what_an_entry_is_called_stores_each_reading_once() {
    for mode in [BatchMode::Together, BatchMode::Separately] {
        let (served, client) = served(false).await;
        served.ehr.state().rewrites_full_urls = true;
        for _ in 0..2 {
            let answer = client.deliver(&batch(mode)).await;
            assert_eq!((accepted(&answer), served.ehr.observations()), (5, (5, 5)), "{answer:?}");
        }
    }
}

/// Readings do not wait for a Device resource, however the server answers for it: for a few tries it may pass, then they go and name
/// their device by identifier.
#[tokio::test]
async fn a_server_that_always_fails_at_devices_still_gets_the_readings() {
    const TRIES: usize = 6;
    let another = json!({"resourceType": "Device", "id": "another"});
    let looks = [Some(reply(500, &json!(null))), Some(reply(200, &another)), None];
    let cases = looks.into_iter().map(|look| (true, look, 500)).chain([(true, None, 409), (false, None, 500), (false, None, 409)]);
    for (update_create, look, status) in cases {
        let (served, client) = served(update_create).await;
        served.ehr.state().no_devices = Some(status);
        served.ehr.state().device_look = look;
        let mut answers = Vec::new();
        while answers.last().map_or(0, accepted) < 5 {
            assert!(answers.len() < TRIES, "{status}: {answers:?}");
            answers.push(client.deliver(&batch(BatchMode::Together)).await);
        }
        assert!(answers.len() > 2 && answers.iter().rev().skip(1).all(is_transient), "it may pass: {answers:?}");
        let asked = served.ehr.count("GET", "/fhir/Device") + served.ehr.count("POST", "/fhir/Device");
        assert_eq!(accepted(&client.deliver(&batch_of(6..=6, BatchMode::Together, &patient())).await), 1);
        let again = served.ehr.count("GET", "/fhir/Device") + served.ehr.count("POST", "/fhir/Device");
        assert_eq!(asked, again, "and is left alone for a while");
        let state = served.ehr.state();
        let (_, versions) = state.stored.iter().find(|((kind, _), _)| kind == "Observation").unwrap();
        let device = &versions.last().unwrap()["device"];
        assert!(device["reference"].is_null() && device["identifier"]["value"].is_string(), "{device}");
    }
}

/// What a look at a Device gets no answer to, or a connection that breaks, is no reason for a reading to wait for ever either; and where each
/// look may take the whole time-out, no other device is asked for meanwhile, also where the server fails at one bundle.
#[tokio::test]
async fn a_server_that_is_silent_at_devices_still_gets_the_readings() {
    tokio::join!(silent_at_devices(Ending::Never), silent_at_devices(Ending::Nothing));
}

async fn silent_at_devices(ending: Ending) {
    /// Long enough for a busy machine to do the rest in time, in milliseconds.
    const SHORT_MS: u64 = 2_000;
    /// More than it takes.
    const TRIES: usize = 10;
    let served = Served::start(Ehr::new(true)).await;
    let short = FhirEndpoint { request_timeout_ms: SHORT_MS, ..endpoint(&served.url(), WritePolicy::Auto) };
    let client = FhirClient::new(short, served.certificates.client()).unwrap();
    served.ehr.state().device_look = Some(Reply { ending, ..reply(200, &json!(null)) });
    let mut answers = Vec::new();
    while answers.last().map_or(0, accepted) < 5 {
        assert!(answers.len() < TRIES, "{answers:?}");
        answers.push(client.deliver(&batch(BatchMode::Together)).await);
    }
    let says_where = |answer: &Answer| matches!(answer, Answer::Transient { detail, .. } if detail.contains("Device"));
    assert!(answers.len() > 2 && says_where(&answers[0]), "it may pass: {answers:?}");
    let asked = served.ehr.count("GET", "/fhir/Device");
    let mut of_another = batch_of(6..=6, BatchMode::Together, &patient());
    of_another.items[0].readings[0].1.device = DeviceId::new("monitor-02").unwrap();
    assert_eq!(accepted(&client.deliver(&of_another).await), 1);
    assert_eq!(
        (served.ehr.count("GET", "/fhir/Device"), served.ehr.count("PUT", "/fhir/Device")),
        (asked, 0),
        "it is left alone for a while"
    );
    served.ehr.state().faults.push_back(Fault::Answer(500, Vec::new(), String::new()));
    assert!(is_transient(&client.deliver(&batch(BatchMode::Together)).await));
    assert_eq!(accepted(&client.deliver(&batch(BatchMode::Together)).await), 5, "one bundle failed");
    assert_eq!(served.ehr.count("GET", "/fhir/Device"), asked, "and that says nothing of the server");
    served.ehr.state().faults.push_back(Fault::Reset);
    assert!(is_transient(&client.deliver(&batch(BatchMode::Together)).await));
    assert_eq!(accepted(&client.deliver(&batch(BatchMode::Together)).await), 5, "after a broken request one look is enough");
    assert_eq!(served.ehr.count("GET", "/fhir/Device"), asked + 1);
}

/// Promise 3: an outage of the whole server says nothing of Devices, whether nothing answers or a proxy says that it is away: what is sent
/// once it is back refers to its Device.
#[tokio::test]
async fn an_outage_is_not_taken_for_a_server_without_devices() {
    let away = || reply(503, &json!(null));
    let silent = || Reply { ending: Ending::Nothing, ..away() };
    let away_bundle = || Fault::Answer(503, Vec::new(), String::new());
    outage(WritePolicy::Put, silent(), || Fault::Reset).await;
    outage(WritePolicy::Put, silent(), away_bundle).await;
    outage(WritePolicy::Put, away(), || Fault::Reset).await;
    outage(WritePolicy::Put, away(), away_bundle).await;
    outage(WritePolicy::Conditional, away(), away_bundle).await;
}

async fn outage(policy: WritePolicy, look: Reply, fault: impl Fn() -> Fault) {
    let served = Served::start(Ehr::new(policy == WritePolicy::Put)).await;
    let client = FhirClient::new(endpoint(&served.url(), policy), served.certificates.client()).unwrap();
    {
        let mut state = served.ehr.state();
        state.device_look = Some(look);
        state.no_devices = Some(503);
        state.faults = (0..20).map(|_| fault()).collect();
    }
    for _ in 0..8 {
        let answer = client.deliver(&batch(BatchMode::Together)).await;
        assert_eq!(accepted(&answer), 0, "{answer:?}");
    }
    {
        let mut state = served.ehr.state();
        assert!(state.faults.len() < 20, "the readings were tried as well");
        (state.device_look, state.no_devices) = (None, None);
        state.faults.clear();
    }
    assert_eq!(accepted(&client.deliver(&batch(BatchMode::Together)).await), 5);
    let state = served.ehr.state();
    let (_, observed) = state.stored.iter().find(|((kind, _), _)| kind == "Observation").unwrap();
    let reference = observed.last().unwrap()["device"]["reference"].as_str().unwrap_or_default();
    assert!(reference.starts_with("Device/"), "{policy:?}: {observed:?}");
}

/// Promise 2: after an outage one reading goes first. What the server said of it stands, also where it then refuses the patient of the others.
#[tokio::test]
async fn what_a_server_confirmed_first_after_an_outage_stands_when_the_others_are_refused() {
    let (served, client) = served(false).await;
    let down = || Fault::Answer(503, Vec::new(), String::new());
    let no_patient = || Fault::Answer(400, Vec::new(), outcome("processing", "Resource Patient/4711 not found").to_string());
    served.ehr.state().faults.extend([down(), down(), Fault::TruncateAfterStoring, no_patient(), no_patient()]);
    for _ in 0..2 {
        assert!(is_transient(&client.deliver(&batch(BatchMode::Together)).await));
    }
    let answer = client.deliver(&batch(BatchMode::Together)).await;
    let Answer::Items(items) = &answer else { panic!("{answer:?}") };
    let [first, others @ ..] = items.as_slice() else { panic!("{items:?}") };
    assert!(matches!(first, ItemAnswer::Accepted { .. }), "{first:?}");
    assert!(others.len() == 4 && others.iter().all(|other| matches!(other, ItemAnswer::Transient { .. })), "{others:?}");
    let answer = client.deliver(&batch_of(2..=5, BatchMode::Together, &patient())).await;
    assert!(matches!(answer, Answer::PatientUnknown { .. }), "sent without it, it is said of all: {answer:?}");
}

/// A Device that was deleted on the server makes no dead letters of its readings while those of another device arrive.
#[tokio::test]
async fn a_device_that_was_deleted_is_put_back_for_the_readings_of_two() {
    let of_two: Batch = {
        let mut batch = batch(BatchMode::Separately);
        for item in batch.items.iter_mut().skip(2) {
            let (sequence, mut moved) = (item.readings[0].0, reading(item.readings[0].0.0, &patient()));
            moved.device = DeviceId::new("monitor-02").unwrap();
            item.readings = vec![(sequence, moved)];
        }
        batch
    };
    for update_create in [true, false] {
        let (served, client) = served(update_create).await;
        let record = json!({"resourceType": "Patient", "id": "4711", "identifier": []});
        served.ehr.state().stored.insert(("Patient".into(), "4711".into()), vec![record]);
        served.ehr.state().checks_references = true;
        assert_eq!(accepted(&client.deliver(&of_two).await), 5);
        served.ehr.state().stored.retain(|(kind, _), versions| {
            let is_the_second = versions[0].to_string().contains("monitor-02");
            kind != "Observation" && !(kind == "Device" && is_the_second)
        });
        let answer = client.deliver(&of_two).await;
        assert_eq!((accepted(&answer), served.ehr.observations()), (5, (5, 5)), "{answer:?}");
    }
}
