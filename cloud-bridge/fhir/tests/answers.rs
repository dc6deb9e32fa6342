//! The outcome table: what an answer means, and that nothing counts as delivered unless it truly is.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Test code.

mod common;

use common::{batch, context, ordinary, reading, single};
use proptest::prelude::*;
use vitalgate_domain::{Answer, Batch, BatchMode, ItemAnswer, Metric};
use vitalgate_fhir::{Classified, WriteMode, classify, encode};

const PUT: WriteMode = WriteMode::PutById;
const CONDITIONAL: WriteMode = WriteMode::ConditionalCreate;

fn items(count: u64, mode: BatchMode) -> Batch {
    batch(mode, (1..=count).map(|number| single(reading(number, Metric::HeartRate, ordinary(Metric::HeartRate)))).collect())
}

fn outcome(code: &str, text: &str) -> String {
    format!(r#"{{"resourceType":"OperationOutcome","issue":[{{"severity":"error","code":"{code}","diagnostics":"{text}"}}]}}"#)
}

fn response(mode: BatchMode, entries: &[&str]) -> String {
    let kind = if mode == BatchMode::Together { "transaction-response" } else { "batch-response" };
    let entries: Vec<String> = entries.iter().map(|entry| format!(r#"{{"response":{entry}}}"#)).collect();
    format!(r#"{{"resourceType":"Bundle","type":"{kind}","entry":[{}]}}"#, entries.join(","))
}

fn said(status: u16, body: &str, batch: &Batch, write: WriteMode) -> Classified {
    classify(status, Some(7_000), body.as_bytes(), batch, &context(write))
}

/// The name of the outcome, short enough for a table.
fn name(classified: &Classified) -> &'static str {
    match classified {
        Classified::VerifyById { .. } => "verify",
        Classified::Ongoing { .. } => "ongoing",
        Classified::DevicesUnknown { .. } => "devices",
        Classified::Answer(answer) => match answer {
            Answer::Items(_) => "items",
            Answer::Transient { .. } => "transient",
            Answer::TooLarge { .. } => "too large",
            Answer::RejectedWhole { .. } => "rejected",
            Answer::Paused { .. } => "paused",
            Answer::PatientUnknown { .. } => "patient",
        },
    }
}

#[test]
fn a_status_without_a_bundle_means_what_the_table_says() {
    let table: [(&[u16], &str); 5] = [
        (&[421, 425, 429, 503, 507, 409], "transient"),
        // Nobody who writes no OperationOutcome has looked at the readings: a proxy refuses our client certificate with 400, say.
        (&[400, 422, 401, 403, 404, 410, 405, 406, 415, 301, 302, 307, 308, 501, 407, 451], "paused"),
        (&[413], "too large"),
        (&[200, 201, 204], "verify"),
        (&[0, 100, 600, 999], "transient"),
    ];
    for (statuses, wanted) in table {
        for &status in statuses {
            for write in [PUT, CONDITIONAL] {
                for body in ["", "<html>", "{}", "null"] {
                    let classified = said(status, body, &items(2, BatchMode::Together), write);
                    assert_eq!(name(&classified), wanted, "{status} {body:?}");
                }
            }
        }
    }
}

/// Exactly once: a proxy that gave up says nothing of what the server behind it goes on with. Only PUT by id may be sent beside that.
#[test]
fn what_a_proxy_gave_up_may_still_be_under_way() {
    let batch = items(2, BatchMode::Together);
    for (status, put) in
        [(502, "transient"), (504, "transient"), (520, "transient"), (524, "transient"), (408, "transient"), (202, "verify")]
    {
        for (write, wanted) in [(PUT, put), (CONDITIONAL, "ongoing")] {
            assert_eq!(name(&said(status, "<html>", &batch, write)), wanted, "{status}");
        }
    }
    for (status, body) in [(408, outcome("exception", "")), (500, outcome("exception", "")), (500, "<html>".into())] {
        assert_eq!(name(&said(status, &body, &batch, CONDITIONAL)), "transient", "nobody gave up waiting");
    }
}

/// Exactly once: a mesh says 503 where the connection to the server broke off, and means the same as another proxy's 502. A server that
/// is away, or a limit on the rate, took nothing, and the wait would only be lost.
#[test]
fn a_503_for_an_answer_that_was_lost_is_waited_for_and_an_outage_is_not() {
    let batch = items(2, BatchMode::Together);
    let reset = "upstream connect error or disconnect/reset before headers. reset reason: connection termination";
    assert_eq!(name(&said(503, reset, &batch, CONDITIONAL)), "ongoing");
    assert_eq!(name(&said(503, reset, &batch, PUT)), "transient");
    let unconnected = "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure";
    let away = [
        "no healthy upstream",
        unconnected,
        "<html>503 Service Temporarily Unavailable</html>",
        "",
        &outcome("transient", "reset before headers"),
    ];
    for body in away {
        assert_eq!(name(&said(503, body, &batch, CONDITIONAL)), "transient", "{body}");
    }
}

/// Exactly once: what an entry was not waited for may still be under way, as what a whole request was not waited for.
#[test]
fn an_entry_that_was_given_up_may_still_be_under_way() {
    for mode in [BatchMode::Together, BatchMode::Separately] {
        let batch = items(2, mode);
        for status in [408, 502, 504] {
            let body = response(mode, &[r#"{"status":"201"}"#, &format!(r#"{{"status":"{status}"}}"#)]);
            assert_eq!(name(&said(200, &body, &batch, CONDITIONAL)), "ongoing", "{status}");
            assert_ne!(name(&said(200, &body, &batch, PUT)), "ongoing", "{status}");
        }
        let done = format!(r#"{{"status":"408","outcome":{}}}"#, outcome("timeout", ""));
        for entry in [&done, r#"{"status":"503"}"#] {
            let classified = said(200, &response(mode, &[r#"{"status":"201"}"#, entry]), &batch, CONDITIONAL);
            assert_ne!(name(&classified), "ongoing", "{entry}");
        }
    }
}

/// Promises 2 and 4: no reading becomes a dead letter by an answer that no FHIR server gave, and the remedy is named.
#[test]
fn a_refusal_that_no_fhir_server_wrote_blames_no_reading() {
    let pages = ["<html>400 No required SSL certificate was sent</html>", "", "{\"error\":\"Invalid Hostname\"}", "{\"issue\":[]}"];
    for (status, page) in [400, 422].into_iter().flat_map(|status| pages.map(|page| (status, page))) {
        for (mode, count) in [(BatchMode::Together, 3), (BatchMode::Separately, 3), (BatchMode::Separately, 1)] {
            for write in [PUT, CONDITIONAL] {
                let Classified::Answer(Answer::Paused { detail }) = said(status, page, &items(count, mode), write) else {
                    panic!("{page}")
                };
                assert!(detail.contains("client certificate"), "{detail}");
            }
        }
    }
}

/// A server that wants every update to name a version refuses the resend of what it holds: that is no dead letter before it was
/// looked for. What is refused and not there stays refused.
#[test]
fn a_refused_put_is_looked_for_before_it_is_believed() {
    let refusal = outcome("invalid", "If-Match is required");
    let alone = items(1, BatchMode::Separately);
    let Classified::VerifyById { known, .. } = said(400, &refusal, &alone, PUT) else { panic!() };
    assert!(matches!(known[..], [Some(ItemAnswer::Rejected { .. })]), "{known:?}");
    assert_eq!(name(&said(400, &refusal, &alone, CONDITIONAL)), "rejected");
    assert_eq!(name(&said(422, &refusal, &alone, PUT)), "rejected");
    assert_eq!(name(&said(400, &refusal, &items(2, BatchMode::Separately), PUT)), "rejected", "to be halved first");
    for mode in [BatchMode::Together, BatchMode::Separately] {
        let Classified::VerifyById { known, .. } = said(412, "", &items(2, mode), PUT) else { panic!() };
        assert_eq!(known, [None, None]);
    }
    let entry = |status: u16| format!(r#"{{"status":"{status}","outcome":{refusal}}}"#);
    let entries = ["{\"status\":\"201\"}", &entry(400), &entry(412)];
    let body = response(BatchMode::Separately, &entries);
    let Classified::VerifyById { known, .. } = said(200, &body, &items(3, BatchMode::Separately), PUT) else { panic!() };
    assert!(matches!(known[..], [Some(ItemAnswer::Accepted { .. }), Some(ItemAnswer::Rejected { .. }), None]), "{known:?}");
}

/// Where a server takes no batches, one reading on its own goes as a transaction, and its answer is read as one.
#[test]
fn a_server_without_batches_is_sent_a_transaction_of_one() {
    let (alone, mut context) = (items(1, BatchMode::Separately), context(PUT));
    context.batches = false;
    let sent = encode(&alone, &context, &|_| String::new(), "Patient/4711").unwrap();
    assert!(sent.body.starts_with(br#"{"resourceType":"Bundle","type":"transaction""#));
    for (mode, wanted) in [(BatchMode::Together, "items"), (BatchMode::Separately, "verify")] {
        let body = response(mode, &["{\"status\":\"201\"}"]);
        assert_eq!(name(&classify(200, None, body.as_bytes(), &alone, &context)), wanted);
    }
    let elsewhere = classify(404, None, outcome("not-supported", "unknown path").as_bytes(), &alone, &context);
    assert_eq!(name(&elsewhere), "paused", "the address is wrong, not the reading");
}

#[test]
fn a_wait_that_the_server_asks_for_is_passed_on() {
    let Classified::Answer(Answer::Transient { retry_after_ms, .. }) = said(429, "", &items(1, BatchMode::Together), PUT) else { panic!() };
    assert_eq!(retry_after_ms, Some(7_000));
}

#[test]
fn a_refusal_is_told_apart_by_what_it_says() {
    let many = items(3, BatchMode::Together);
    let table = [
        (400, outcome("invalid", "status is missing"), PUT, "rejected"),
        (400, outcome("invalid", "The number of entries in the bundle exceeded the configured limit of 500"), PUT, "too large"),
        (422, outcome("too-costly", ""), PUT, "too large"),
        (400, outcome("not-found", "Resource Patient/4711 not found, specified in path: Observation.subject"), PUT, "patient"),
        (404, outcome("not-found", "Patient/4711 is not known"), PUT, "patient"),
        (400, outcome("processing", "Unable to resolve reference to target 'Patient/4711'"), PUT, "patient"),
        (422, outcome("processing", "Patient/4711 could not be resolved"), PUT, "patient"),
        (404, outcome("processing", "Device/4711 not found"), PUT, "devices"),
        (410, outcome("deleted", "Observation was deleted"), PUT, "rejected"),
        (409, outcome("conflict", "version"), PUT, "transient"),
        (409, outcome("duplicate", "already exists"), CONDITIONAL, "rejected"),
        (400, outcome("processing", "Device/77 does not exist"), PUT, "devices"),
        (412, outcome("multiple-matches", ""), CONDITIONAL, "rejected"),
        (412, outcome("conflict", ""), PUT, "verify"),
    ];
    for (status, body, write, wanted) in table {
        assert_eq!(name(&said(status, &body, &many, write)), wanted, "{status} {body}");
    }
    let alone = items(3, BatchMode::Separately);
    assert_eq!(name(&said(404, &outcome("not-supported", "unknown path"), &alone, PUT)), "paused", "the address is wrong, not an entry");
    let single = items(1, BatchMode::Together);
    assert_eq!(name(&said(413, "", &single, PUT)), "paused", "one entry cannot be halved, and is not to blame");
    assert_eq!(name(&said(400, &outcome("invalid", "request too large: limit"), &single, PUT)), "rejected");
    assert_eq!(name(&said(412, &outcome("multiple-matches", ""), &single, CONDITIONAL)), "verify");
}

/// One unsound reading is isolated and the others arrive, whatever the server says beside the error: only where an error itself says
/// that the patient is not there are all of them held.
#[test]
fn a_word_about_the_patient_beside_another_error_blames_no_patient() {
    let issue = |severity: &str, code: &str, text: &str, place: &str| {
        format!(r#"{{"severity":"{severity}","code":"{code}","diagnostics":"{text}","expression":["{place}"]}}"#)
    };
    let unsound = issue("error", "invalid", "the value set is unknown", "Observation.code");
    let of_subject = |severity: &str| issue(severity, "not-found", "display is not known", "Observation.subject");
    let odd_subject = issue("error", "invariant", "the display is too long", "Observation.subject");
    let table = [
        (vec![of_subject("warning"), unsound.clone()], "rejected"),
        (vec![unsound.clone(), of_subject("information")], "rejected"),
        (vec![unsound.clone(), odd_subject], "rejected"),
        (vec![of_subject("warning"), of_subject("error")], "patient"),
        (vec![unsound, of_subject("fatal")], "patient"),
        (vec![r#"{"code":"not-found","diagnostics":"Patient/4711 is unknown"}"#.to_owned()], "patient"),
    ];
    for (issues, wanted) in table {
        let body = format!(r#"{{"resourceType":"OperationOutcome","issue":[{}]}}"#, issues.join(","));
        assert_eq!(name(&said(422, &body, &items(3, BatchMode::Together), PUT)), wanted, "{body}");
        let entry = format!(r#"{{"status":"422","outcome":{body}}}"#);
        let alone = said(200, &response(BatchMode::Separately, &[&entry, &entry]), &items(2, BatchMode::Separately), PUT);
        assert_eq!(name(&alone), if wanted == "patient" { wanted } else { "items" }, "{body}");
    }
}

/// A reading whose patient was corrected counts as delivered only in the right record: that one was there already does not say whose,
/// whether it was replayed or its device sent it once more.
#[test]
fn a_reading_that_was_there_already_is_looked_up_where_it_was_not_written() {
    for mode in [BatchMode::Together, BatchMode::Separately] {
        let batch = items(2, mode);
        let body = response(mode, &[r#"{"status":"200"}"#, r#"{"status":"201"}"#]);
        let Classified::VerifyById { known, .. } = said(200, &body, &batch, CONDITIONAL) else { panic!() };
        assert_eq!(known.iter().map(Option::is_some).collect::<Vec<_>>(), [false, true]);
        assert_eq!(accepted(&said(200, &body, &batch, PUT)), 2, "it was written");
    }
    let batch = items(2, BatchMode::Separately);
    let doubled = format!(r#"{{"status":"412","outcome":{}}}"#, outcome("multiple-matches", ""));
    let body = response(batch.mode, &[&doubled, r#"{"status":"201"}"#]);
    let Classified::VerifyById { known, .. } = said(200, &body, &batch, CONDITIONAL) else { panic!() };
    assert_eq!(known.iter().map(Option::is_some).collect::<Vec<_>>(), [false, true]);
}

#[test]
fn items_count_as_delivered_only_in_a_complete_answer_of_the_right_kind() {
    for mode in [BatchMode::Together, BatchMode::Separately] {
        let batch = items(2, mode);
        let whole = response(mode, &[r#"{"status":"201 Created","location":"Observation/abc/_history/1"}"#, r#"{"status":"201"}"#]);
        let Classified::Answer(Answer::Items(answers)) = said(200, &whole, &batch, CONDITIONAL) else { panic!("{whole}") };
        assert_eq!(answers[0], ItemAnswer::Accepted { remote_id: Some("abc".into()) });
        assert_eq!(answers[1], ItemAnswer::Accepted { remote_id: None });
        let other = if mode == BatchMode::Together { BatchMode::Separately } else { BatchMode::Together };
        let broken = [
            whole[..whole.len() - 1].to_owned(),
            response(mode, &[r#"{"status":"201"}"#]),
            response(mode, &[r#"{"status":"201"}"#; 3]),
            response(mode, &[r#"{"status":"201"}"#, "{}"]),
            response(mode, &[r#"{"status":"201"}"#, r#"{"status":"2011"}"#]),
            response(mode, &[r#"{"status":"201"}"#, r#"{"status":" OK"}"#]),
            response(other, &[r#"{"status":"201"}"#, r#"{"status":"201"}"#]),
            whole.replace("Bundle", "Basic"),
        ];
        for body in broken {
            assert_eq!(name(&said(200, &body, &batch, CONDITIONAL)), "verify", "{body}");
        }
    }
}

#[test]
fn our_own_id_is_not_reported_as_the_servers() {
    let batch = items(1, BatchMode::Together);
    let location = format!(r#"{{"status":"201","location":"http://ehr/fhir/Observation/{}/_history/1"}}"#, batch.items[0].id);
    let answer = said(200, &response(BatchMode::Together, &[&location]), &batch, PUT);
    assert_eq!(answer, Classified::Answer(Answer::Items(vec![ItemAnswer::Accepted { remote_id: None }])));
}

/// Promises 2 and 4: an entry that names another item of ours says nothing of the one at its place. Answered in order of completion,
/// the refused one would count as delivered and the stored one as a dead letter.
#[test]
fn an_entry_that_names_another_observation_is_no_answer_to_ours() {
    let batch = items(2, BatchMode::Separately);
    let stored = |location: String| format!(r#"{{"status":"201 Created","location":"{location}"}}"#);
    let [first, second] = [0, 1].map(|index| batch.items[index].id);
    let refused = r#"{"status":"422"}"#;
    let whole = Batch { mode: BatchMode::Together, ..batch.clone() };
    let strange = [
        (&batch, [stored(format!("Observation/{second}/_history/1")), refused.into()]),
        (&batch, [refused.into(), stored(format!("http://ehr/fhir/Observation/{first}/_history/1"))]),
        (&batch, [stored(format!("/fhir/Observation/{second}")), stored(format!("Observation/{first}"))]),
        (&batch, [r#"{"status":"201"}"#.into(), stored("Observation/1/_history/1".into())]),
        (&whole, [stored(format!("Observation/{second}/_history/1")), stored(format!("Observation/{first}/_history/1"))]),
    ];
    for (batch, entries) in strange {
        let body = response(batch.mode, &entries.each_ref().map(String::as_str));
        let Classified::VerifyById { known, .. } = said(200, &body, batch, PUT) else { panic!("{body}") };
        assert_eq!(known, [None, None], "{body}");
    }
    // What names ours, in all the ways that servers write it, or names nothing.
    for place in ["Observation/{}/_history/1", "Observation/{}", "/fhir/Observation/{}/_history/2", "https://ehr/a/Observation/{}?v=1", ""]
    {
        let entries = [stored(place.replace("{}", &first.to_string())), stored(place.replace("{}", &second.to_string()))];
        for batch in [&batch, &whole] {
            let classified = said(200, &response(batch.mode, &entries.each_ref().map(String::as_str)), batch, PUT);
            assert_eq!(classified, Classified::Answer(Answer::Items(vec![ItemAnswer::Accepted { remote_id: None }; 2])), "{place}");
        }
    }
}

#[test]
fn each_entry_of_a_batch_gets_its_own_answer() {
    let batch = items(6, BatchMode::Separately);
    let poison = format!(r#"{{"status":"422","outcome":{}}}"#, outcome("invalid", "value of Patient/4711"));
    let multiple = format!(r#"{{"status":"412","outcome":{}}}"#, outcome("multiple-matches", ""));
    let entries = [r#"{"status":"201"}"#, &poison, r#"{"status":"503"}"#, r#"{"status":"409"}"#, r#"{"status":"429"}"#, &multiple];
    let Classified::VerifyById { known, .. } = said(200, &response(BatchMode::Separately, &entries), &batch, CONDITIONAL) else { panic!() };
    assert_eq!(known[0], Some(ItemAnswer::Accepted { remote_id: None }));
    assert_eq!(known[1], Some(ItemAnswer::Rejected { detail: "HTTP 422 error/invalid: value of Patient/***".into() }));
    for answer in &known[2..5] {
        assert!(matches!(answer, Some(ItemAnswer::Transient { .. })), "{answer:?}");
    }
    assert_eq!(known[5], None, "whose they are is to be seen");
}

#[test]
fn an_entry_that_leaves_its_fate_open_is_looked_up_and_the_others_are_not() {
    let batch = items(3, BatchMode::Separately);
    let entries = [r#"{"status":"201"}"#, r#"{"status":"202"}"#, r#"{"status":"412"}"#];
    let Classified::VerifyById { known, .. } = said(200, &response(BatchMode::Separately, &entries), &batch, CONDITIONAL) else { panic!() };
    assert_eq!(known, [Some(ItemAnswer::Accepted { remote_id: None }), None, None]);
}

#[test]
fn a_transaction_that_claims_success_with_a_refused_entry_settles_nothing() {
    let batch = items(2, BatchMode::Together);
    let refused = response(BatchMode::Together, &[r#"{"status":"201"}"#, r#"{"status":"422"}"#]);
    assert_eq!(name(&said(200, &refused, &batch, PUT)), "rejected");
    let passing = response(BatchMode::Together, &[r#"{"status":"201"}"#, r#"{"status":"503"}"#]);
    assert_eq!(name(&said(200, &passing, &batch, PUT)), "transient");
}

#[test]
fn what_is_wrong_with_all_entries_is_not_blamed_on_them() {
    let batch = items(2, BatchMode::Separately);
    let all = |entry: &str| response(BatchMode::Separately, &[entry, entry]);
    assert_eq!(name(&said(200, &all(r#"{"status":"403"}"#), &batch, PUT)), "paused");
    let patient = format!(r#"{{"status":"400","outcome":{}}}"#, outcome("not-found", "Patient/4711 not found"));
    assert_eq!(name(&said(200, &all(&patient), &batch, PUT)), "patient");
    let device = format!(r#"{{"status":"400","outcome":{}}}"#, outcome("not-found", "Device/1 not found"));
    assert_eq!(name(&said(200, &all(&device), &batch, PUT)), "devices");
    // A server that gives its own ids only, and was configured to take ours.
    let no_such_place = |text| format!(r#"{{"status":"404","outcome":{}}}"#, outcome("not-found", text));
    assert_eq!(name(&said(200, &all(&no_such_place("no such resource")), &batch, PUT)), "paused");
    assert_eq!(name(&said(200, &all(&no_such_place("Patient/4711")), &batch, PUT)), "patient");
    assert_eq!(name(&said(200, &all(&no_such_place("no such resource")), &batch, CONDITIONAL)), "items");
    let one = response(BatchMode::Separately, &[r#"{"status":"201"}"#, &no_such_place("no such resource")]);
    assert_eq!(name(&said(200, &one, &batch, PUT)), "items");
    // The patient is that of all of them: those that the server had already are delivered, and the others are no dead letters.
    let body = response(BatchMode::Separately, &[r#"{"status":"201"}"#, &patient]);
    let Classified::Answer(Answer::Items(answers)) = said(200, &body, &batch, CONDITIONAL) else { panic!("{body}") };
    assert!(matches!(answers[..], [ItemAnswer::Accepted { .. }, ItemAnswer::Transient { .. }]), "{answers:?}");
}

/// A Device that was deleted on the server makes no dead letters of its readings, whoever else's are in the batch. Where no Device is
/// referred to, a refusal is about its entry.
#[test]
fn a_device_that_only_some_entries_miss_is_put_there_again() {
    let entry = |status: u16| format!(r#"{{"status":"{status}","outcome":{}}}"#, outcome("not-found", "Device/1 not found"));
    for (status, write) in [400, 404, 409, 410, 422].into_iter().flat_map(|status| [(status, PUT), (status, CONDITIONAL)]) {
        let batch = items(2, BatchMode::Separately);
        let body = response(BatchMode::Separately, &[r#"{"status":"201"}"#, &entry(status)]);
        assert_eq!(name(&said(200, &body, &batch, write)), "devices", "{status}");
        let mut by_identifier = context(write);
        by_identifier.refers_to_devices = false;
        let classified = classify(200, None, body.as_bytes(), &batch, &by_identifier);
        assert!(matches!(name(&classified), "items" | "verify"), "{status}: {classified:?}");
    }
}

#[test]
fn what_may_be_logged_never_repeats_the_servers_text() {
    let secret = "Max Muster";
    let batch = items(2, BatchMode::Separately);
    for status in [401, 403, 404, 405, 408, 409, 413, 429, 500, 501, 503] {
        let classified = said(status, &outcome("processing", secret), &batch, PUT);
        assert!(!format!("{classified:?}").contains(secret), "{classified:?}");
    }
}

fn accepted(classified: &Classified) -> usize {
    match classified {
        Classified::Answer(Answer::Items(answers)) => answers.iter().filter(|answer| matches!(answer, ItemAnswer::Accepted { .. })).count(),
        Classified::VerifyById { known, .. } => known.iter().filter(|answer| matches!(answer, Some(ItemAnswer::Accepted { .. }))).count(),
        _ => 0,
    }
}

proptest! {
    /// Bytes changed, cut or doubled in a good answer: no panic, and an item counts as delivered only where the changed
    /// answer is still a complete bundle that says so.
    #[test]
    fn a_damaged_answer_never_delivers_what_it_does_not_state(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6), cut in any::<Option<prop::sample::Index>>(),
        together in any::<bool>(), write in prop::sample::select(vec![PUT, CONDITIONAL]),
    ) {
        let mode = if together { BatchMode::Together } else { BatchMode::Separately };
        let batch = items(3, mode);
        let entries = [r#"{"status":"201 Created","location":"Observation/1/_history/1"}"#, r#"{"status":"200"}"#, r#"{"status":"422"}"#];
        let mut body = response(mode, &entries).into_bytes();
        for (place, byte) in changes {
            let place = place.index(body.len());
            body[place] = byte;
        }
        if let Some(cut) = cut {
            body.truncate(cut.index(body.len()));
        }
        let classified = classify(200, None, &body, &batch, &context(write));
        // What is not read may hold anything, also no UTF-8.
        let stated = serde_json::from_str::<serde_json::Value>(&String::from_utf8_lossy(&body)).ok().map_or(0, |bundle| {
            let entries = bundle["entry"].as_array().cloned().unwrap_or_default();
            let good = |entry: &&serde_json::Value| entry["response"]["status"].as_str().is_some_and(|s| s.trim_start().starts_with("20"));
            entries.iter().filter(good).count()
        });
        prop_assert!(accepted(&classified) <= stated);
        if together && write == PUT {
            prop_assert!(accepted(&classified) == 0 || accepted(&classified) == 3);
        }
    }

    /// Any status and any bytes at all.
    #[test]
    fn any_answer_at_all_is_classified(status in any::<u16>(), body in prop::collection::vec(any::<u8>(), 0..400)) {
        let classified = classify(status, None, &body, &items(2, BatchMode::Separately), &context(CONDITIONAL));
        prop_assert_eq!(accepted(&classified), 0);
    }
}

#[test]
fn an_answer_of_a_million_entries_is_refused_without_growing() {
    let body = format!(r#"{{"resourceType":"Bundle","type":"batch-response","entry":[{}{{}}]}}"#, "{},".repeat(1_000_000));
    assert_eq!(name(&said(200, &body, &items(2, BatchMode::Separately), PUT)), "verify");
    let deep = "[".repeat(100_000);
    assert_eq!(name(&said(200, &deep, &items(2, BatchMode::Separately), PUT)), "verify");
}
