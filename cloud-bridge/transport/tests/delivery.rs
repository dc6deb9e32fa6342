//! Delivery to a server of our own that misbehaves: exactly once, and the outcome is the true one.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Test code.

mod common;

use std::time::{Duration, Instant};

use common::ehr::{Ehr, Ending, Fault, Reply, outcome, reply};
use common::serve::Served;
use common::warnings::Warnings;
use common::{accepted, batch, batch_of, endpoint, is_transient, patient, reading};
use serde_json::{Value as Json, json};
use vitalgate_domain::{Answer, Batch, BatchMode, ClockTrust, Flags, Item, ItemAnswer, PatientReference, Sequence};
use vitalgate_transport::{FhirClient, FhirEndpoint, TransportMetrics, WritePolicy};

const MODES: [bool; 2] = [true, false];

fn client(served: &Served) -> FhirClient {
    FhirClient::new(endpoint(&served.url(), WritePolicy::Auto), served.certificates.client()).unwrap()
}

async fn served(update_create: bool, faults: impl IntoIterator<Item = Fault>) -> (Served, FhirClient) {
    let ehr = Ehr::new(update_create);
    ehr.state().faults.extend(faults);
    let served = Served::start(ehr).await;
    let client = client(&served);
    (served, client)
}

#[tokio::test]
async fn a_batch_sent_twice_is_there_once_in_both_modes_together_and_separately() {
    for update_create in MODES {
        for mode in [BatchMode::Together, BatchMode::Separately] {
            let (served, client) = served(update_create, []).await;
            for _ in 0..2 {
                assert_eq!(accepted(&client.deliver(&batch(mode)).await), 5);
            }
            assert_eq!(served.ehr.observations(), (5, 5));
            assert_eq!(served.ehr.count("GET", "/fhir/metadata"), 1, "the probe is remembered");
        }
    }
}

#[tokio::test]
async fn the_servers_ids_are_reported_where_it_chose_them() {
    let (_, client) = served(false, []).await;
    let Answer::Items(items) = client.deliver(&batch(BatchMode::Together)).await else { panic!() };
    assert!(items.iter().all(|item| matches!(item, ItemAnswer::Accepted { remote_id: Some(_) })), "{items:?}");
    let (_, client) = served(true, []).await;
    let Answer::Items(items) = client.deliver(&batch(BatchMode::Together)).await else { panic!() };
    assert!(items.iter().all(|item| *item == ItemAnswer::Accepted { remote_id: None }), "{items:?}");
}

#[tokio::test]
async fn a_server_in_trouble_is_tried_again_and_its_wish_to_wait_is_passed_on() {
    let busy = Fault::Answer(429, vec![("Retry-After", "7".to_owned())], String::new());
    let down = Fault::Answer(503, Vec::new(), "<html>".to_owned());
    let (served, client) = served(true, [busy, down]).await;
    let answer = client.deliver(&batch(BatchMode::Together)).await;
    assert!(matches!(answer, Answer::Transient { retry_after_ms: Some(7_000), .. }), "{answer:?}");
    assert!(matches!(client.deliver(&batch(BatchMode::Together)).await, Answer::Transient { retry_after_ms: None, .. }));
    assert_eq!(accepted(&client.deliver(&batch(BatchMode::Together)).await), 5);
    assert_eq!(served.ehr.observations(), (5, 5));
}

/// Time-out of the tests that wait for one, in milliseconds: long enough for a busy machine to do the rest in time.
const SHORT_MS: u64 = 2_000;

async fn hung(update_create: bool, fault: Fault) {
    let served = Served::start(Ehr::new(update_create)).await;
    let mut short = endpoint(&served.url(), WritePolicy::Auto);
    short.request_timeout_ms = SHORT_MS;
    let client = FhirClient::new(short, served.certificates.client()).unwrap();
    assert_eq!(
        accepted(&client.deliver(&batch_of(6..=6, BatchMode::Together, &patient())).await),
        1,
        "all is known that must be asked first"
    );
    let known = !update_create && fault == Fault::HangAfterStoring;
    served.ehr.state().faults.push_back(fault);
    let started = Instant::now();
    let answer = client.deliver(&batch(BatchMode::Together)).await;
    assert_eq!((accepted(&answer), is_transient(&answer)), if known { (5, false) } else { (0, true) }, "{answer:?}");
    assert!(started.elapsed() < Duration::from_millis(10 * SHORT_MS));
    assert_eq!(accepted(&client.deliver(&batch(BatchMode::Together)).await), 5);
    assert_eq!(served.ehr.observations(), (6, 6));
}

#[tokio::test]
async fn a_server_that_never_answers_holds_nothing_up_longer_than_the_time_out() {
    tokio::join!(
        hung(true, Fault::Hang),
        hung(true, Fault::HangAfterStoring),
        hung(false, Fault::Hang),
        hung(false, Fault::HangAfterStoring)
    );
}

/// Exactly once: a proxy or we gave up, and the server commits after that. Where the server looks up before it creates, nothing is
/// sent beside a request that may still be under way.
#[tokio::test]
async fn what_the_server_stores_after_a_time_out_is_there_once() {
    const LATER: Duration = Duration::from_millis(300);
    /// Far more tries than it takes.
    const TRIES: usize = 100;
    let given_up = |status: Option<u16>, after: Duration| async move {
        let served = Served::start(Ehr::new(false)).await;
        let mut short = endpoint(&served.url(), WritePolicy::Auto);
        short.request_timeout_ms = SHORT_MS;
        let client = FhirClient::new(short, served.certificates.client()).unwrap();
        assert_eq!(accepted(&client.deliver(&batch_of(6..=6, BatchMode::Together, &patient())).await), 1);
        served.ehr.state().faults.push_back(Fault::StoreLate(status, after));
        let mut answers = Vec::new();
        while answers.last().map_or(0, accepted) < 5 {
            assert!(answers.len() < TRIES, "{answers:?}");
            answers.push(client.deliver(&batch(BatchMode::Together)).await);
        }
        served.ehr.finish_late();
        assert_eq!((served.ehr.observations(), served.ehr.bundles()), ((6, 6), 2), "{status:?}: {answers:?}");
    };
    let after_ours = Duration::from_millis(SHORT_MS) + LATER;
    tokio::join!(given_up(None, after_ours), given_up(Some(200), after_ours));
    let proxies = [202, 408, 502, 504, 524].map(|status| given_up(Some(status), LATER));
    let [accepted, timed_out, bad_gateway, gateway_timed_out, origin_timed_out] = proxies;
    tokio::join!(accepted, timed_out, bad_gateway, gateway_timed_out, origin_timed_out);
}

/// Promise 2: the gateway is restarted while the server works on a request. What may have been in it is not sent beside it; what was
/// stored since goes at once.
#[tokio::test]
async fn what_the_server_stores_after_a_restart_is_there_once() {
    const LATER: Duration = Duration::from_millis(SHORT_MS / 2);
    let served = Served::start(Ehr::new(false)).await;
    let short = FhirEndpoint { request_timeout_ms: SHORT_MS, ..endpoint(&served.url(), WritePolicy::Auto) };
    let process = |written_conditionally| {
        let endpoint = FhirEndpoint { written_conditionally, ..short.clone() };
        FhirClient::new(endpoint, served.certificates.client()).unwrap()
    };
    let first = process(None);
    assert_eq!(accepted(&first.deliver(&batch_of(6..=6, BatchMode::Together, &patient())).await), 1);
    served.ehr.state().faults.push_back(Fault::StoreLate(None, LATER));
    let unsettled = batch(BatchMode::Together);
    let under_way = async {
        while served.ehr.bundles() < 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        answer = first.deliver(&unsettled) => panic!("{answer:?}"),
        () = under_way => {}
    }
    drop(first);
    let second = process(Some(Sequence(6)));
    let fresh = batch_of(7..=7, BatchMode::Together, &patient());
    let (of_before, of_now) = tokio::join!(second.deliver(&unsettled), second.deliver(&fresh));
    served.ehr.finish_late();
    assert_eq!((accepted(&of_before), accepted(&of_now), served.ehr.observations()), (5, 1, (7, 7)), "{of_before:?}");
    let last = served.ehr.state().requests.iter().rev().find(|request| request.method == "POST").cloned().unwrap();
    let body = String::from_utf8(last.body).unwrap();
    assert!(body.contains(&unsettled.items[0].id.to_string()), "what was stored since the start did not wait");
}

#[tokio::test]
async fn a_connection_that_breaks_after_storing_doubles_nothing() {
    for update_create in MODES {
        let (served, client) = served(update_create, [Fault::ResetAfterStoring]).await;
        let first = client.deliver(&batch(BatchMode::Together)).await;
        if update_create {
            assert!(is_transient(&first), "PUT by id needs no question: {first:?}");
            assert_eq!(accepted(&client.deliver(&batch(BatchMode::Together)).await), 5);
        } else {
            assert_eq!(accepted(&first), 5, "asked the server before sending again: {first:?}");
            assert_eq!(served.ehr.bundles(), 1);
        }
        assert_eq!(served.ehr.observations(), (5, 5));
    }
}

#[tokio::test]
async fn a_connection_that_breaks_before_storing_loses_nothing() {
    for update_create in MODES {
        let (served, client) = served(update_create, [Fault::Reset]).await;
        assert!(is_transient(&client.deliver(&batch(BatchMode::Together)).await));
        assert_eq!(served.ehr.observations(), (0, 0));
        assert_eq!(accepted(&client.deliver(&batch(BatchMode::Together)).await), 5);
        assert_eq!(served.ehr.observations(), (5, 5));
    }
}

#[tokio::test]
async fn half_an_answer_or_another_one_is_believed_only_after_a_look_at_the_server() {
    for update_create in MODES {
        for mode in [BatchMode::Together, BatchMode::Separately] {
            let odd = ["<html>OK</html>", "", "{\"resourceType\":\"Bundle\",\"type\":\"batch-response\"}"]
                .map(|body| Fault::OtherBodyAfterStoring(body.into()));
            let huge = Fault::OtherBodyAfterStoring(" ".repeat(5 * 1024 * 1024));
            for fault in odd.into_iter().chain([Fault::TruncateAfterStoring, huge]) {
                let (served, client) = served(update_create, [fault]).await;
                assert_eq!(accepted(&client.deliver(&batch(mode)).await), 5);
                assert_eq!((served.ehr.bundles(), served.ehr.observations()), (1, (5, 5)));
            }
            let empty = Fault::Answer(200, Vec::new(), "<html>OK</html>".to_owned());
            let (served, client) = served(update_create, [empty]).await;
            assert!(is_transient(&client.deliver(&batch(mode)).await), "200, and nothing is there");
            assert_eq!(served.ehr.observations(), (0, 0));
        }
    }
}

#[tokio::test]
async fn a_poison_entry_is_isolated_with_its_reason_and_the_others_arrive() {
    for update_create in MODES {
        let (served, client) = served(update_create, []).await;
        let poison = format!("urn:uuid:{}", batch(BatchMode::Together).items[2].id);
        served.ehr.state().poison.push(poison);
        let together = client.deliver(&batch(BatchMode::Together)).await;
        assert!(matches!(together, Answer::RejectedWhole { .. }), "{together:?}");
        assert_eq!(served.ehr.observations(), (0, 0));
        let Answer::Items(items) = client.deliver(&batch(BatchMode::Separately)).await else { panic!() };
        for (index, item) in items.iter().enumerate() {
            match item {
                ItemAnswer::Rejected { detail } if index == 2 => assert!(detail.contains("422 error/invalid"), "{detail}"),
                ItemAnswer::Accepted { .. } if index != 2 => {}
                other => panic!("{index}: {other:?}"),
            }
        }
        assert_eq!(served.ehr.observations(), (4, 4));
    }
}

fn another() -> PatientReference {
    PatientReference::Literal("Patient/4712".into())
}

/// The five readings of [`batch`] after their patient was corrected: replayed, or sent once more by their device.
fn corrected(mode: BatchMode) -> Batch {
    let mut batch = batch_of(1..=5, mode, &another());
    batch.items.iter_mut().take(3).for_each(|item| item.readings[0].1.flags = Flags::REPLAYED);
    batch
}

fn held_under_another(answer: &Answer) -> bool {
    let of_another = |item: &ItemAnswer| matches!(item, ItemAnswer::Rejected { detail } if detail.contains("another patient"));
    matches!(answer, Answer::Items(items) if items.len() == 5 && items.iter().all(of_another))
}

/// No reading counts as delivered for a patient while it is in another one's record: it becomes a dead letter that says so, and
/// is taken once the EHR's keeper has corrected it there.
#[tokio::test]
async fn a_corrected_reading_that_the_server_holds_under_another_patient_is_not_delivered() {
    let unread = [None, Some(Fault::TruncateAfterStoring), Some(Fault::ResetAfterStoring)];
    for (fault, mode) in unread.into_iter().flat_map(|fault| [(fault.clone(), BatchMode::Together), (fault, BatchMode::Separately)]) {
        let (served, client) = served(false, []).await;
        assert_eq!(accepted(&client.deliver(&batch(mode)).await), 5);
        served.ehr.state().faults.extend(fault);
        let answer = client.deliver(&corrected(mode)).await;
        assert!(held_under_another(&answer), "{answer:?}");
        for ((_, _), versions) in served.ehr.state().stored.iter_mut().filter(|((kind, _), _)| kind == "Observation") {
            versions.last_mut().unwrap()["subject"] = json!({"reference": "https://ehr.example/fhir/Patient/4712/_history/2"});
        }
        assert_eq!(accepted(&client.deliver(&corrected(mode)).await), 5, "corrected there");
        assert_eq!(served.ehr.observations(), (5, 5));
    }
}

/// PUT by id puts it into the right record; an answer that nobody can read is believed only where that is seen to be done.
#[tokio::test]
async fn a_corrected_reading_that_was_perhaps_not_written_is_looked_for_in_its_own_record() {
    for mode in [BatchMode::Together, BatchMode::Separately] {
        let (served, client) = served(true, []).await;
        assert_eq!(accepted(&client.deliver(&batch(mode)).await), 5);
        let half = Fault::Answer(200, Vec::new(), "{\"resourceType\":\"Bun".to_owned());
        served.ehr.state().faults.extend([half, Fault::TruncateAfterStoring]);
        let answer = client.deliver(&corrected(mode)).await;
        assert!(held_under_another(&answer), "{answer:?}");
        assert_eq!(accepted(&client.deliver(&corrected(mode)).await), 5, "written now");
        assert_eq!(served.ehr.observations(), (5, 5));
    }
}

/// Promise: what the EHR holds twice is not sent a third time, and can be found: the log names the reading and the server, no patient.
#[tokio::test]
async fn an_identifier_that_is_there_twice_already_is_reported_and_not_sent_a_third_time() {
    let (served, client) = served(false, []).await;
    let id = batch(BatchMode::Together).items[1].id;
    let identifier = json!([{"system": "urn:ietf:rfc:3986", "value": format!("urn:uuid:{id}")}]);
    let twin = json!({"resourceType": "Observation", "identifier": identifier, "subject": {"reference": "Patient/4711"}});
    for _ in 0..2 {
        served.ehr.state().store("Observation", twin.clone());
    }
    let warnings = Warnings::default();
    let _guard = tracing::subscriber::set_default(warnings.clone());
    let together = client.deliver(&batch(BatchMode::Together)).await;
    assert!(matches!(together, Answer::RejectedWhole { .. }), "{together:?}");
    let Answer::Items(items) = client.deliver(&batch(BatchMode::Separately)).await else { panic!() };
    assert!(matches!(items[1], ItemAnswer::AcceptedWithWarning { .. }), "{items:?}");
    assert_eq!(served.ehr.observations(), (6, 5));
    let said = warnings.said();
    let place = served.address.port().to_string();
    assert_eq!(said.matches("more than once").count(), 1, "{said}");
    assert!(said.contains(&id.to_string()) && said.contains(&place) && !said.contains("Patient"), "{said}");
}

/// Promises 2 and 3: a server that wants every update to name a version holds each reading once, and none of them becomes a dead letter
/// because its first answer was lost.
#[tokio::test]
async fn a_resend_that_must_name_a_version_is_found_there() {
    for status in [400, 412] {
        for mode in [BatchMode::Together, BatchMode::Separately] {
            let served = Served::start(Ehr::new(true)).await;
            served.ehr.state().versioned_update = Some(status);
            served.ehr.state().faults.push_back(Fault::ResetAfterStoring);
            let client = FhirClient::new(endpoint(&served.url(), WritePolicy::Put), served.certificates.client()).unwrap();
            assert!(is_transient(&client.deliver(&batch(mode)).await), "its answer was lost");
            let mut resent = client.deliver(&batch(mode)).await;
            if matches!(resent, Answer::RejectedWhole { .. }) {
                resent = client.deliver(&batch(BatchMode::Separately)).await;
            }
            assert_eq!((accepted(&resent), served.ehr.observations()), (5, (5, 5)), "{status}: {resent:?}");
            let held = corrected(BatchMode::Separately);
            assert!(held_under_another(&client.deliver(&held).await), "{status}: it cannot be moved");
            served.ehr.state().faults.push_back(Fault::Answer(400, Vec::new(), outcome("invalid", "value").to_string()));
            let unsound = client.deliver(&batch_of(6..=6, BatchMode::Separately, &patient())).await;
            let Answer::Items(items) = &unsound else { panic!("{unsound:?}") };
            assert!(matches!(&items[..], [ItemAnswer::Rejected { detail }] if detail.contains("value")), "{items:?}");
        }
    }
}

/// Promise: of a server that takes transactions only, one unsound reading is told apart and the others arrive.
#[tokio::test]
async fn a_server_without_batches_is_sent_one_reading_at_a_time_where_one_is_refused() {
    let ehr = Ehr::new(true);
    let mut metadata: Json = ehr.state().metadata.clone().unwrap().1;
    metadata["rest"][0]["interaction"] = json!([{"code": "transaction"}]);
    ehr.state().metadata = Some((200, metadata));
    ehr.state().no_batches = true;
    ehr.state().poison.push(format!("urn:uuid:{}", batch(BatchMode::Together).items[2].id));
    let served = Served::start(ehr).await;
    let client = client(&served);
    assert!(matches!(client.deliver(&batch(BatchMode::Together)).await, Answer::RejectedWhole { .. }));
    let answer = client.deliver(&batch(BatchMode::Separately)).await;
    let Answer::Items(answers) = &answer else { panic!("{answer:?}") };
    assert!(accepted(&answer) == 4 && matches!(answers[2], ItemAnswer::Rejected { .. }), "{answers:?}");
    assert_eq!((served.ehr.bundles(), served.ehr.observations()), (6, (4, 4)), "no batch was sent");
    served.ehr.state().faults.push_back(Fault::Answer(403, Vec::new(), String::new()));
    let answer = client.deliver(&batch(BatchMode::Separately)).await;
    assert!(matches!(answer, Answer::Paused { .. }), "what is wrong with all is said of all: {answer:?}");
}

#[tokio::test]
async fn what_the_server_calls_too_large_is_to_be_halved() {
    let limit = outcome("invalid", "The bundle has more entries than the limit").to_string();
    let faults = [Fault::Answer(413, Vec::new(), String::new()), Fault::Answer(400, Vec::new(), limit)];
    let (_, client) = served(true, faults).await;
    for _ in 0..2 {
        let answer = client.deliver(&batch(BatchMode::Together)).await;
        assert!(matches!(answer, Answer::TooLarge { .. }), "{answer:?}");
    }
}

#[tokio::test]
async fn a_redirect_is_never_followed_with_readings() {
    let other = Served::start(Ehr::new(true)).await;
    for status in [301, 302, 307, 308] {
        let (_, client) = served(true, [Fault::Answer(status, vec![("Location", other.url())], String::new())]).await;
        let answer = client.deliver(&batch(BatchMode::Together)).await;
        assert!(matches!(answer, Answer::Paused { .. }), "{answer:?}");
    }
    assert!(other.ehr.state().requests.is_empty());
}

/// Promise 2: a server that takes bundles only at the base as it was entered can be delivered to.
#[tokio::test]
async fn bundles_go_to_the_base_exactly_as_it_was_entered() {
    let ehr = Ehr::new(true);
    ehr.state().base_ends_in_slash = true;
    let served = Served::start(ehr).await;
    let client = |url: &str| FhirClient::new(endpoint(url, WritePolicy::Auto), served.certificates.client()).unwrap();
    let answer = client(&served.url()).deliver(&batch(BatchMode::Together)).await;
    assert!(matches!(&answer, Answer::Paused { detail } if detail.contains("final URL")), "{answer:?}");
    assert_eq!(accepted(&client(&format!("{}/", served.url())).deliver(&batch(BatchMode::Together)).await), 5);
    assert_eq!(served.ehr.observations(), (5, 5));
}

#[tokio::test]
async fn a_faulty_item_never_holds_back_the_others() {
    for mode in [BatchMode::Together, BatchMode::Separately] {
        let (served, client) = served(true, []).await;
        let mut odd = batch(mode);
        odd.items.push(odd.items[0].clone());
        let mut timeless = reading(77, &patient());
        timeless.time.device = None;
        timeless.time.received.trust = ClockTrust::Unset;
        odd.items.insert(0, Item { id: timeless.id, panel: None, readings: vec![(Sequence(77), timeless)] });
        let Answer::Items(items) = client.deliver(&odd).await else { panic!() };
        assert!(matches!(items[0], ItemAnswer::Rejected { .. }), "without a moment");
        assert!(items[1..6].iter().all(|item| matches!(item, ItemAnswer::Accepted { .. })));
        assert!(matches!(items[6], ItemAnswer::Transient { .. }), "its twin was in the same bundle");
        assert_eq!((served.ehr.bundles(), served.ehr.observations()), (1, (5, 5)));
    }
}

#[tokio::test]
async fn devices_are_made_sure_of_once_and_never_overwritten() {
    for update_create in MODES {
        let (served, client) = served(update_create, []).await;
        served.ehr.state().checks_references = true;
        served
            .ehr
            .state()
            .stored
            .insert(("Patient".into(), "4711".into()), vec![json!({"resourceType": "Patient", "id": "4711", "identifier": []})]);
        for _ in 0..3 {
            assert_eq!(accepted(&client.deliver(&batch(BatchMode::Together)).await), 5);
        }
        let writes = served.ehr.count("PUT", "/fhir/Device") + served.ehr.count("POST", "/fhir/Device");
        assert_eq!(writes, 2, "the gateway's and the monitor's");
        // Another process of ours finds them there and leaves what the EHR's keeper added.
        let again = self::client(&served);
        assert_eq!(accepted(&again.deliver(&batch(BatchMode::Together)).await), 5);
        assert!(served.ehr.state().stored.iter().all(|((kind, _), versions)| kind != "Device" || versions.len() == 1));
        // The server lost them (restored from a backup): they are put back, and nothing is refused.
        served.ehr.state().stored.retain(|(kind, _), _| kind != "Device");
        assert_eq!(accepted(&client.deliver(&batch_of(6..=9, BatchMode::Together, &patient())).await), 4);
    }
}

/// What the EHR's keeper added to a Device stays, also where the server does not say whether it is there.
#[tokio::test]
async fn a_device_that_cannot_be_looked_at_is_not_overwritten() {
    let refusal = |status| reply(status, &Json::Null);
    let half = |device: &Json| Reply { ending: Ending::Half, ..reply(200, device) };
    let (served, client) = served(true, []).await;
    assert_eq!(accepted(&client.deliver(&batch(BatchMode::Together)).await), 5);
    let device = served.ehr.state().stored.iter().find(|((kind, _), _)| kind == "Device").unwrap().1[0].clone();
    let looks = [(refusal(403), true), (refusal(405), true), (refusal(429), false), (refusal(503), false), (half(&device), false)];
    for (look, goes_on) in looks {
        let status = (look.status, look.ending);
        served.ehr.state().device_look = Some(look);
        let answer = self::client(&served).deliver(&batch(BatchMode::Together)).await;
        assert_eq!((accepted(&answer) == 5, is_transient(&answer)), (goes_on, !goes_on), "{status:?}: {answer:?}");
        assert_eq!(served.ehr.count("PUT", "/fhir/Device"), 2, "{status:?}: only at first");
    }
    served.ehr.state().device_look = Some(refusal(410));
    assert_eq!(accepted(&self::client(&served).deliver(&batch(BatchMode::Together)).await), 5);
    assert_eq!(served.ehr.count("PUT", "/fhir/Device"), 4, "what was removed there is put back");
}

#[tokio::test]
async fn a_server_that_takes_no_devices_still_gets_the_readings() {
    let (served, client) = served(true, []).await;
    served.ehr.state().no_devices = Some(422);
    for _ in 0..2 {
        assert_eq!(accepted(&client.deliver(&batch(BatchMode::Together)).await), 5);
    }
    assert_eq!(served.ehr.count("PUT", "/fhir/Device"), 2, "asked once for each, then believed");
    let state = served.ehr.state();
    let observation = state.stored.values().next().unwrap().last().unwrap();
    assert!(observation["device"]["reference"].is_null());
    assert!(observation["device"]["identifier"]["value"].as_str().unwrap().starts_with("urn:uuid:"));
}

#[tokio::test]
async fn a_server_that_confirms_devices_and_does_not_find_them_still_gets_the_readings() {
    for mode in [BatchMode::Together, BatchMode::Separately] {
        let (served, client) = served(true, []).await;
        served.ehr.state().loses_devices = true;
        for _ in 0..2 {
            assert_eq!(accepted(&client.deliver(&batch(mode)).await), 5);
        }
        assert_eq!((served.ehr.observations(), served.ehr.bundles()), ((5, 5), 4), "two refusals, then by identifier");
    }
}

#[tokio::test]
async fn more_items_than_a_bundle_holds_are_not_sent() {
    let (served, client) = served(true, []).await;
    let answer = client.deliver(&batch_of(1..=101, BatchMode::Together, &patient())).await;
    assert!(matches!(answer, Answer::TooLarge { .. }), "{answer:?}");
    assert!(served.ehr.state().requests.is_empty());
}

#[tokio::test]
async fn one_connection_serves_many_batches() {
    let (served, client) = served(true, []).await;
    for number in 0..20 {
        assert_eq!(accepted(&client.deliver(&batch_of(number * 5 + 1..=number * 5 + 5, BatchMode::Together, &patient())).await), 5);
    }
    assert_eq!(served.connections.load(std::sync::atomic::Ordering::SeqCst), 1);
    assert_eq!(served.ehr.observations(), (100, 100));
}

#[tokio::test]
async fn http2_is_spoken_where_the_server_offers_it() {
    let served = Served::start_http2(Ehr::new(true)).await;
    let client = client(&served);
    assert_eq!(accepted(&client.deliver(&batch(BatchMode::Together)).await), 5);
    assert_eq!(served.connections.load(std::sync::atomic::Ordering::SeqCst), 1);
}

#[tokio::test]
async fn no_more_requests_are_under_way_than_allowed() {
    let served = Served::start(Ehr::new(true)).await;
    let mut narrow = endpoint(&served.url(), WritePolicy::Put);
    narrow.requests_in_flight_max = 2;
    narrow.request_timeout_ms = SHORT_MS;
    let client = FhirClient::new(narrow, served.certificates.client()).unwrap();
    assert_eq!(accepted(&client.deliver(&batch_of(8..=8, BatchMode::Together, &patient())).await), 1);
    served.ehr.state().faults.extend([Fault::Hang, Fault::Hang]);
    let (first, second, third) =
        (batch(BatchMode::Together), batch_of(6..=6, BatchMode::Together, &patient()), batch_of(7..=7, BatchMode::Together, &patient()));
    let (one, two, three) = tokio::join!(client.deliver(&first), client.deliver(&second), client.deliver(&third));
    assert!(is_transient(&one) && is_transient(&two));
    assert_eq!(accepted(&three), 1, "it came after the time-out of another: {three:?}");
}

#[tokio::test]
async fn what_is_counted_names_no_patient_and_no_url() {
    let (served, client) = served(false, [Fault::ResetAfterStoring]).await;
    let metrics = TransportMetrics::default();
    client.counted_by(metrics.of("ehr")).deliver(&batch(BatchMode::Together)).await;
    let text = encoded(&metrics);
    assert!(text.contains("delivery_items_total{destination=\"ehr\",outcome=\"accepted\"} 5"), "{text}");
    assert!(text.contains("delivery_requests_total{destination=\"ehr\",purpose=\"bundle\",class=\"broken\"} 1"), "{text}");
    assert!(!text.contains("4711") && !text.contains(&served.address.port().to_string()), "{text}");
}

fn encoded(metrics: &TransportMetrics) -> String {
    let mut registry = prometheus_client::registry::Registry::default();
    metrics.register(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    text
}

/// What is counted for several destinations is one text that a scraper takes: each name is described once.
#[tokio::test]
async fn what_is_counted_for_two_destinations_is_described_once() {
    let metrics = TransportMetrics::default();
    for destination in ["ehr", "lab"] {
        let served = Served::start(Ehr::new(true)).await;
        client(&served).counted_by(metrics.of(destination)).deliver(&batch(BatchMode::Together)).await;
    }
    let text = encoded(&metrics);
    let types: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let once: std::collections::BTreeSet<_> = types.iter().collect();
    assert!(once.len() == types.len() && types.len() == 5, "{text}");
    for destination in ["ehr", "lab"] {
        let count = format!("delivery_request_duration_seconds_count{{destination=\"{destination}\"}} 1");
        assert!(text.contains(&count), "{text}");
    }
}

/// Promise: a server that takes no transactions is sent a batch at once, and what it says of it is the answer: an outage is one.
#[tokio::test]
async fn a_server_without_transactions_is_asked_separately() {
    let ehr = Ehr::new(true);
    let mut metadata: Json = ehr.state().metadata.clone().unwrap().1;
    metadata["rest"][0]["interaction"] = json!([{"code": "batch"}]);
    ehr.state().metadata = Some((200, metadata));
    ehr.state().faults.push_back(Fault::Answer(503, Vec::new(), String::new()));
    let served = Served::start(ehr).await;
    let client = client(&served);
    assert!(is_transient(&client.deliver(&batch(BatchMode::Together)).await));
    assert_eq!(accepted(&client.deliver(&batch(BatchMode::Together)).await), 5);
    assert_eq!((served.ehr.bundles(), served.ehr.observations()), (2, (5, 5)), "one request each");
}
