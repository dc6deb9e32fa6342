//! Who the server is, whom it lets in, and which patient is meant.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Test code.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::ehr::{Ehr, Fault, capability};
use common::serve::Served;
use common::{Certificates, accepted, batch, batch_of, endpoint, is_transient};
use serde_json::json;
use vitalgate_domain::{Answer, BatchMode, PatientReference, Sequence};
use vitalgate_transport::{FhirClient, FhirEndpoint, KeepConditional, WritePolicy};

fn client(served: &Served) -> FhirClient {
    FhirClient::new(endpoint(&served.url(), WritePolicy::Auto), served.certificates.client()).unwrap()
}

fn detail(answer: &Answer) -> &str {
    match answer {
        Answer::Transient { detail, .. } | Answer::Paused { detail } | Answer::PatientUnknown { detail } => detail,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_token_that_was_renewed_meanwhile_is_used_after_one_refusal() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "old\n").unwrap();
    let ehr = Ehr::new(true);
    ehr.state().token = Some("renewed".into());
    ehr.state().renews_token_in = Some(file.clone());
    let served = Served::start(ehr).await;
    let mut guarded = endpoint(&served.url(), WritePolicy::Put);
    guarded.bearer_token_file = Some(file);
    let client = FhirClient::new(guarded, served.certificates.client()).unwrap();
    assert_eq!(accepted(&client.deliver(&batch(BatchMode::Together)).await), 5);
    let refused = served.ehr.state().requests.iter().filter(|request| request.authorization.as_deref() == Some("Bearer old")).count();
    assert_eq!(refused, 1);
}

#[tokio::test]
async fn a_token_that_stays_refused_pauses_and_is_not_hammered() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "old").unwrap();
    let ehr = Ehr::new(true);
    ehr.state().token = Some("other".into());
    let served = Served::start(ehr).await;
    let mut guarded = endpoint(&served.url(), WritePolicy::Put);
    guarded.bearer_token_file = Some(file.clone());
    let client = FhirClient::new(guarded, served.certificates.client()).unwrap();
    let answer = client.deliver(&batch(BatchMode::Together)).await;
    assert!(matches!(answer, Answer::Paused { .. }), "{answer:?}");
    assert!(!detail(&answer).contains("old"));
    let once = served.ehr.state().requests.len();
    assert!(once <= 2, "one look for the device and one write at most, not {once}");
    // A new token in the file is noticed without a restart.
    std::fs::write(&file, "other").unwrap();
    assert_eq!(accepted(&client.deliver(&batch(BatchMode::Together)).await), 5);
    std::fs::remove_file(&file).unwrap();
    let answer = client.deliver(&batch(BatchMode::Together)).await;
    assert!(matches!(answer, Answer::Paused { .. }) && detail(&answer).contains("token"), "{answer:?}");
}

#[tokio::test]
async fn a_server_that_cannot_prove_who_it_is_gets_nothing_and_the_remedy_is_named() {
    let cases = [
        (Certificates::new(&["localhost"], true), None, "expired"),
        (Certificates::new(&["other.example"], false), None, "another name"),
        (Certificates::new(&["localhost"], false), Some(Certificates::new(&["localhost"], false).roots), "not trusted here"),
        (Certificates::new(&["localhost"], false), Some(rustls::RootCertStore::empty()), "not trusted here"),
    ];
    for (mut certificates, trusted, remedy) in cases {
        certificates.roots = trusted.unwrap_or(certificates.roots);
        let own = certificates.client();
        let served = Served::start_with(Ehr::new(true), certificates).await;
        let client = FhirClient::new(endpoint(&served.url(), WritePolicy::Put), own).unwrap();
        let answer = client.deliver(&batch(BatchMode::Together)).await;
        assert!(is_transient(&answer) && detail(&answer).contains(remedy), "{answer:?}");
        assert!(!detail(&answer).contains("example") && served.ehr.state().requests.is_empty());
    }
}

/// What a technician is pointed to. The words for the very alert are in the unit tests: a connection that is reset while we
/// write to it can lose it.
const POINTED_TO: &str = "client certificate";

/// Whichever HTTP it speaks: the server's no comes after the handshake, in the middle of our first request.
#[tokio::test]
async fn a_server_that_wants_a_client_certificate_gets_it_or_says_so() {
    for alpn in [b"http/1.1".as_slice(), b"h2"] {
        let certificates = Certificates::new(&["localhost"], false);
        let tls = certificates.demanding_server(&[alpn]);
        let served = Served::start_tls(Ehr::new(true), certificates, tls).await;
        let without = FhirClient::new(endpoint(&served.url(), WritePolicy::Put), served.certificates.client()).unwrap();
        let answer = without.deliver(&batch(BatchMode::Together)).await;
        assert!(is_transient(&answer) && detail(&answer).contains(POINTED_TO), "{answer:?}");
        let stranger = Certificates::new(&["localhost"], false).client_of(&served.certificates);
        let unknown = FhirClient::new(endpoint(&served.url(), WritePolicy::Put), stranger).unwrap();
        let answer = unknown.deliver(&batch(BatchMode::Together)).await;
        assert!(is_transient(&answer) && detail(&answer).contains(POINTED_TO), "{answer:?}");
        // This server speaks HTTP/1.1 only, once it lets somebody in.
        if alpn == b"h2" {
            continue;
        }
        let with = FhirClient::new(endpoint(&served.url(), WritePolicy::Put), served.certificates.certified_client()).unwrap();
        assert_eq!(accepted(&with.deliver(&batch(BatchMode::Together)).await), 5);
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named_with_its_place() {
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let client = common::plain_client(endpoint(&format!("http://{closed}/fhir"), WritePolicy::Auto));
    let answer = client.deliver(&batch(BatchMode::Together)).await;
    assert!(is_transient(&answer) && detail(&answer).contains("refused") && detail(&answer).contains(&closed.to_string()), "{answer:?}");
}

#[tokio::test]
async fn a_plain_server_behind_an_https_url_is_told_apart() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        while let Ok((mut socket, _)) = listener.accept().await {
            let _ = socket.read(&mut [0; 1024]).await;
            let _ = socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let client = common::plain_client(endpoint(&format!("https://localhost:{}/fhir", address.port()), WritePolicy::Put));
    let answer = client.deliver(&batch(BatchMode::Together)).await;
    assert!(is_transient(&answer) && detail(&answer).contains("does not speak TLS"), "{answer:?}");
}

#[tokio::test]
async fn the_probe_decides_and_what_could_double_readings_is_refused() {
    let cases = [
        (200, capability(&json!({"updateCreate": false, "conditionalCreate": false})), "neither"),
        (200, json!({"resourceType": "CapabilityStatement", "fhirVersion": "5.0.0"}), "FHIR 5.0.0"),
        (200, json!({"hello": "world"}), "no CapabilityStatement"),
        (200, json!({"resourceType": "CapabilityStatement", "text": "x".repeat(8 * 1024 * 1024)}), "longer than"),
        (404, json!(null), "URL"),
        (400, json!(null), "client certificate"),
        (403, json!(null), "credentials"),
    ];
    for (status, body, words) in cases {
        let ehr = Ehr::new(true);
        ehr.state().metadata = Some((status, body));
        let served = Served::start(ehr).await;
        let answer = client(&served).deliver(&batch(BatchMode::Together)).await;
        assert!(matches!(answer, Answer::Paused { .. }) && detail(&answer).contains(words), "{words}: {answer:?}");
        assert_eq!(served.ehr.bundles(), 0);
    }
    let ehr = Ehr::new(true);
    ehr.state().metadata = Some((503, json!(null)));
    let served = Served::start(ehr).await;
    let client = client(&served);
    assert!(is_transient(&client.deliver(&batch(BatchMode::Together)).await));
    served.ehr.state().metadata = Some((200, capability(&json!({"updateCreate": true}))));
    assert_eq!(accepted(&client.deliver(&batch(BatchMode::Together)).await), 5, "a failed probe is not remembered");
}

/// A reading that was stored under an id of the server's would be stored again under ours.
#[tokio::test]
async fn a_server_that_learns_to_update_does_not_change_the_way_of_writing() {
    let ehr = Ehr::new(false);
    ehr.state().faults.extend([common::ehr::Fault::Answer(503, Vec::new(), String::new()), common::ehr::Fault::Reset]);
    let served = Served::start(ehr).await;
    let client = client(&served);
    client.deliver(&batch(BatchMode::Together)).await;
    served.ehr.state().metadata = Some((200, capability(&json!({"updateCreate": true, "conditionalCreate": true}))));
    client.deliver(&batch(BatchMode::Together)).await;
    assert_eq!(accepted(&client.deliver(&batch(BatchMode::Together)).await), 5);
    assert_eq!(served.ehr.count("GET", "/fhir/metadata"), 2, "asked again after the connection broke");
    let last = served.ehr.state().requests.iter().rev().find(|request| request.target == "/fhir").cloned().unwrap();
    assert!(String::from_utf8(last.body).unwrap().contains("ifNoneExist"));
}

/// The same across a restart: the answer was lost, the process ended, and the server learned to update meanwhile.
#[tokio::test]
async fn a_server_that_learns_to_update_meets_the_same_way_of_writing_after_a_restart() {
    let ehr = Ehr::new(false);
    ehr.state().faults.push_back(Fault::ResetAfterStoring);
    let served = Served::start(ehr).await;
    let kept = Arc::new(AtomicBool::new(false));
    let (seen, journal) = (Arc::clone(&kept), Arc::clone(&served.ehr));
    let first = client(&served).keeping(Box::new(move || {
        assert_eq!(journal.bundles(), 0, "kept before anything is written");
        let disk_is_full = journal.count("GET", "/fhir/metadata") < 2;
        seen.store(!disk_is_full, Ordering::SeqCst);
        Box::pin(std::future::ready(!disk_is_full))
    }));
    assert!(is_transient(&first.deliver(&batch(BatchMode::Together)).await), "it cannot be kept yet");
    assert_eq!(served.ehr.bundles(), 0);
    first.deliver(&batch(BatchMode::Together)).await;
    assert!(kept.load(Ordering::SeqCst) && served.ehr.observations() == (5, 5));
    drop(first);
    served.ehr.state().metadata = Some((200, capability(&json!({"updateCreate": true, "conditionalCreate": true}))));
    let restarted = |write| {
        // Nothing of it is under way any more.
        let remembered = FhirEndpoint { written_conditionally: Some(Sequence(0)), ..endpoint(&served.url(), write) };
        FhirClient::new(remembered, served.certificates.client()).unwrap()
    };
    let never = || -> KeepConditional { Box::new(|| panic!("it is kept already")) };
    assert_eq!(accepted(&restarted(WritePolicy::Auto).keeping(never()).deliver(&batch(BatchMode::Together)).await), 5);
    assert_eq!(served.ehr.observations(), (5, 5));
    let put = restarted(WritePolicy::Put).keeping(never());
    assert_eq!(accepted(&put.deliver(&batch_of(6..=6, BatchMode::Together, &common::patient())).await), 1);
    let last = served.ehr.state().requests.iter().rev().find(|request| request.target == "/fhir").cloned().unwrap();
    assert!(!String::from_utf8(last.body).unwrap().contains("ifNoneExist"), "what is configured wins");
}

/// Promises 2 and 4: a proxy that does not accept our client certificate answers 400 with a page (nginx), as others do for a host that
/// they do not know. No reading is refused by that, and what waits is delivered once it is mended.
#[tokio::test]
async fn a_proxy_that_does_not_let_us_in_refuses_no_reading() {
    const PAGE: &str = "<html><head><title>400 No required SSL certificate was sent</title></head></html>";
    for (update_create, mode) in [true, false].into_iter().flat_map(|way| [(way, BatchMode::Together), (way, BatchMode::Separately)]) {
        let served = Served::start(Ehr::new(update_create)).await;
        let client = client(&served);
        for readings in [1..=5, 1..=1] {
            served.ehr.state().faults.push_back(Fault::Answer(400, vec![("Content-Type", "text/html".to_owned())], PAGE.to_owned()));
            let answer = client.deliver(&batch_of(readings, mode, &common::patient())).await;
            assert!(matches!(answer, Answer::Paused { .. }) && detail(&answer).contains("client certificate"), "{answer:?}");
        }
        assert_eq!(accepted(&client.deliver(&batch(mode)).await), 5);
        assert_eq!(served.ehr.observations(), (5, 5));
    }
}

fn known_by_identifier() -> PatientReference {
    PatientReference::Identifier { system: "urn:oid:1.2.40".into(), value: "77|&x".into() }
}

/// With its identifier, once more as the server of the tests looks for it.
fn patient_resource() -> serde_json::Value {
    json!({"resourceType": "Patient", "identifier": [{"system": "urn:oid:1.2.40", "value": "77|%26x"}, {"system": "urn:oid:1.2.40", "value": "77|&x"}]})
}

#[tokio::test]
async fn a_patient_known_by_identifier_is_found_once_and_never_guessed() {
    let served = Served::start(Ehr::new(true)).await;
    let client = client(&served);
    let batch = batch_of(1..=3, BatchMode::Together, &known_by_identifier());
    let answer = client.deliver(&batch).await;
    assert!(matches!(answer, Answer::PatientUnknown { .. }), "{answer:?}");
    assert!(!detail(&answer).contains("77"));
    let patient = patient_resource();
    let id = served.ehr.state().store("Patient", patient.clone());
    for _ in 0..2 {
        assert_eq!(accepted(&client.deliver(&batch).await), 3);
    }
    assert_eq!(served.ehr.count("GET", "/fhir/Patient"), 2, "remembered once it was found");
    let observation = served.ehr.state().stored.iter().find(|((kind, _), _)| kind == "Observation").unwrap().1[0].clone();
    assert_eq!(observation["subject"]["reference"], format!("Patient/{id}"));
    served.ehr.state().store("Patient", patient);
    let fresh = self::client(&served);
    assert!(matches!(fresh.deliver(&batch).await, Answer::PatientUnknown { .. }), "two patients with one identifier");
}

/// The right patient: a second record with the identifier counts wherever the search shows it, and where the search cannot be read to its
/// end nothing is written.
#[tokio::test]
async fn a_patient_is_not_guessed_from_the_first_page_of_a_search() {
    let served = Served::start(Ehr::new(true)).await;
    let batch = batch_of(1..=3, BatchMode::Together, &known_by_identifier());
    served.ehr.state().store("Patient", patient_resource());
    served.ehr.state().first_page = Some((1, "https://elsewhere.example/fhir".to_owned()));
    let answer = client(&served).deliver(&batch).await;
    assert!(is_transient(&answer) && detail(&answer).contains("page"), "{answer:?}");
    served.ehr.state().first_page = Some((0, served.url()));
    assert_eq!(accepted(&client(&served).deliver(&batch).await), 3, "it stands on the second page");
    served.ehr.state().store("Patient", patient_resource());
    for shown_first in [0, 1] {
        served.ehr.state().first_page = Some((shown_first, served.url()));
        let answer = client(&served).deliver(&batch).await;
        assert!(matches!(answer, Answer::PatientUnknown { .. }) && detail(&answer).contains("several"), "{answer:?}");
    }
}

#[tokio::test]
async fn a_patient_whose_record_was_merged_is_looked_up_again() {
    let served = Served::start(Ehr::new(true)).await;
    served.ehr.state().checks_references = true;
    let client = client(&served);
    let batch = batch_of(1..=3, BatchMode::Together, &known_by_identifier());
    let patient = patient_resource();
    let old = served.ehr.state().store("Patient", patient.clone());
    assert_eq!(accepted(&client.deliver(&batch).await), 3);
    served.ehr.state().stored.remove(&("Patient".to_owned(), old));
    served.ehr.state().store("Patient", patient);
    let more = batch_of(4..=6, BatchMode::Together, &known_by_identifier());
    assert_eq!(accepted(&client.deliver(&more).await), 3, "the new id was found without help");
}

/// Promise 3: a record that another one took the place of keeps its identifier in the EHR, and gets no readings any more.
#[tokio::test]
async fn a_patient_whose_record_was_replaced_gets_nothing_until_the_surviving_one_is_entered() {
    let link = |kind: &str| json!([{"other": {"reference": "Patient/9"}, "type": kind}]);
    let replaced = [json!({"active": false}), json!({"link": link("replaced-by")}), json!({"active": false, "link": link("replaced-by")})];
    for (survivor_has_it_too, marks) in [false, true].into_iter().flat_map(|too| replaced.iter().map(move |marks| (too, marks))) {
        let served = Served::start(Ehr::new(true)).await;
        let mut survivor = patient_resource();
        survivor["active"] = true.into();
        survivor["link"] = link("replaces");
        let mut patient = patient_resource();
        let id = served.ehr.state().store("Patient", survivor.clone());
        let batch = batch_of(1..=3, BatchMode::Together, &known_by_identifier());
        assert_eq!(accepted(&client(&served).deliver(&batch).await), 3, "the one that is in use");
        let bundles = served.ehr.bundles();
        marks.as_object().unwrap().iter().for_each(|(name, value)| patient[name] = value.clone());
        served.ehr.state().stored.remove(&("Patient".to_owned(), id));
        served.ehr.state().store("Patient", patient);
        if survivor_has_it_too {
            served.ehr.state().store("Patient", survivor);
        }
        let answer = client(&served).deliver(&batch).await;
        assert!(matches!(answer, Answer::PatientUnknown { .. }) && detail(&answer).contains("replaced"), "{marks}: {answer:?}");
        assert!(!detail(&answer).contains("77") && served.ehr.bundles() == bundles);
    }
}

/// Promise 2: one thing that changed on the server does not hide the other; both are looked up again.
#[tokio::test]
async fn a_patient_who_was_merged_while_the_devices_were_lost_is_looked_up_again() {
    let served = Served::start(Ehr::new(true)).await;
    served.ehr.state().checks_references = true;
    let client = client(&served);
    let old = served.ehr.state().store("Patient", patient_resource());
    assert_eq!(accepted(&client.deliver(&batch_of(1..=3, BatchMode::Together, &known_by_identifier())).await), 3);
    served.ehr.state().stored.retain(|(kind, _), _| kind != "Device");
    served.ehr.state().stored.remove(&("Patient".to_owned(), old));
    served.ehr.state().store("Patient", patient_resource());
    assert_eq!(accepted(&client.deliver(&batch_of(4..=6, BatchMode::Together, &known_by_identifier())).await), 3);
}

/// A server that is away is asked a small question again and again, and gets its readings when it answers: with fifty readings in
/// each try, an outage of an hour would be a flood.
#[tokio::test]
async fn while_a_server_fails_it_is_asked_and_not_sent_to() {
    let served = Served::start(Ehr::new(true)).await;
    let client = client(&served);
    assert_eq!(accepted(&client.deliver(&batch(BatchMode::Together)).await), 5);
    let good = served.ehr.state().metadata.take();
    served.ehr.state().faults = (0..2).map(|_| Fault::Answer(503, vec![], String::new())).collect();
    for _ in 0..2 {
        assert!(is_transient(&client.deliver(&batch(BatchMode::Together)).await));
    }
    served.ehr.state().metadata = Some((503, json!({})));
    let (bundles, asked) = (served.ehr.bundles(), served.ehr.count("GET", "/fhir/metadata"));
    for _ in 0..5 {
        assert!(is_transient(&client.deliver(&batch(BatchMode::Together)).await));
    }
    assert_eq!((served.ehr.bundles(), served.ehr.count("GET", "/fhir/metadata")), (bundles, asked + 5));
    served.ehr.state().metadata = good;
    assert_eq!(accepted(&client.deliver(&batch(BatchMode::Together)).await), 5);
    assert_eq!(served.ehr.bundles(), bundles + 2, "one reading, then the others");
    assert_eq!(served.ehr.observations(), (5, 5));
}

/// A server that goes on showing its long statement while it takes no readings is sent neither question nor readings in a flood: one
/// reading finds out whether it is back, and then the others follow.
#[tokio::test]
async fn a_server_that_fails_and_shows_its_statement_is_asked_for_it_seldom() {
    const TRIES: usize = 20;
    let served = Served::start(Ehr::new(true)).await;
    if let Some((_, metadata)) = &mut served.ehr.state().metadata {
        metadata["description"] = "x".repeat(500_000).into();
    }
    let client = client(&served);
    assert_eq!(accepted(&client.deliver(&batch(BatchMode::Together)).await), 5);
    served.ehr.state().faults = (0..TRIES).map(|_| Fault::Answer(503, vec![], String::new())).collect();
    for _ in 0..TRIES {
        assert!(is_transient(&client.deliver(&batch_of(6..=10, BatchMode::Together, &common::patient())).await));
    }
    assert_eq!(served.ehr.count("GET", "/fhir/metadata"), 2, "at first, and when it began to fail");
    let sent = |number: u64| {
        let id = batch_of(number..=number, BatchMode::Together, &common::patient()).items[0].id.to_string();
        let state = served.ehr.state();
        state.requests.iter().filter(|request| String::from_utf8_lossy(&request.body).contains(&id)).count()
    };
    assert_eq!((sent(6), sent(10)), (TRIES, 2));
    assert_eq!(accepted(&client.deliver(&batch_of(6..=10, BatchMode::Together, &common::patient())).await), 5);
    assert_eq!((served.ehr.observations(), sent(6)), ((10, 10), TRIES + 1));
}

/// Promise: that the server still finds nobody under an unknown identifier does not make it look like one that takes readings.
#[tokio::test]
async fn a_search_that_finds_nobody_ends_no_outage() {
    let served = Served::start(Ehr::new(true)).await;
    let client = client(&served);
    assert_eq!(accepted(&client.deliver(&batch(BatchMode::Together)).await), 5);
    served.ehr.state().faults = (0..2).map(|_| Fault::Answer(503, vec![], String::new())).collect();
    let unknown = batch_of(1..=3, BatchMode::Together, &known_by_identifier());
    for _ in 0..2 {
        assert!(is_transient(&client.deliver(&batch(BatchMode::Together)).await));
        assert!(matches!(client.deliver(&unknown).await, Answer::PatientUnknown { .. }));
    }
    assert_eq!(accepted(&client.deliver(&batch(BatchMode::Together)).await), 5);
    assert_eq!(served.ehr.count("GET", "/fhir/metadata"), 2, "asked again after two failures");
}
