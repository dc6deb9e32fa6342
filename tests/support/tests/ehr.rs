//! The fake EHR is a FHIR server where it matters: all or nothing, no second resource for one
//! condition, and faults that do what they say.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use hyper::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use vitalgate_test_support::http::{ask, get_json};
use vitalgate_test_support::{Ehr, EhrOptions, Fault};
use vitalgate_trust::{ClientProfile, client_config};

const ID: &str = "00000000-0000-5000-8000-00000000000";

fn observation(number: u32) -> Value {
    json!({
        "resourceType": "Observation", "id": format!("{ID}{number}"), "status": "final",
        "identifier": [{"system": "urn:ietf:rfc:3986", "value": format!("urn:uuid:{ID}{number}")}],
        "category": [{"coding": [{"system": "http://terminology.hl7.org/CodeSystem/observation-category", "code": "vital-signs"}]}],
        "code": {"coding": [{"system": "http://loinc.org", "code": "8867-4"}]},
        "subject": {"reference": "Patient/1"}, "effectiveDateTime": "2026-11-22T10:00:00Z", "device": {"display": "m"},
        "valueQuantity": {"value": 72, "unit": "/min", "system": "http://unitsofmeasure.org", "code": "/min"},
    })
}

fn without_subject(number: u32) -> Value {
    let mut observation = observation(number);
    observation["subject"] = Value::Null;
    observation
}

fn entry(resource: Value, conditional: bool) -> Value {
    let request = if conditional {
        json!({"method": "POST", "url": "Observation", "ifNoneExist": format!("identifier=urn:ietf:rfc:3986|{}", resource["identifier"][0]["value"].as_str().unwrap_or(""))})
    } else {
        json!({"method": "PUT", "url": format!("Observation/{}", resource["id"].as_str().unwrap_or(""))})
    };
    json!({"resource": resource, "request": request})
}

fn bundle(kind: &str, entries: Vec<Value>) -> Value {
    json!({"resourceType": "Bundle", "type": kind, "entry": entries})
}

async fn plain(update_create: bool) -> anyhow::Result<Ehr> {
    Ehr::start(EhrOptions { tls: false, update_create, ..EhrOptions::default() }).await
}

async fn post(ehr: &Ehr, body: &Value) -> anyhow::Result<(u16, Value)> {
    let (status, text) = ask(ehr.address(), Method::POST, "/fhir", Some(body), &[]).await?;
    Ok((status, serde_json::from_str(&text).unwrap_or(Value::Null)))
}

fn statuses(answer: &Value) -> Vec<&str> {
    let entries = answer["entry"].as_array().map(Vec::as_slice).unwrap_or_default();
    entries.iter().filter_map(|entry| entry["response"]["status"].as_str()).map(|status| &status[..3]).collect()
}

#[tokio::test]
async fn a_transaction_with_one_bad_entry_stores_nothing_and_a_batch_stores_the_good_one() -> anyhow::Result<()> {
    let ehr = plain(true).await?;
    let entries = || vec![entry(observation(1), false), entry(without_subject(2), false)];
    let (status, answer) = post(&ehr, &bundle("transaction", entries())).await?;
    assert_eq!((status, answer["resourceType"].as_str()), (422, Some("OperationOutcome")));
    assert_eq!(ehr.observation_count(), 0);
    let (status, answer) = post(&ehr, &bundle("batch", entries())).await?;
    assert_eq!((status, statuses(&answer)), (200, vec!["201", "422"]));
    assert_eq!(ehr.observation_count(), 1);
    assert_eq!(ehr.sightings().len(), 1);
    Ok(())
}

#[tokio::test]
async fn the_same_put_or_condition_again_makes_no_second_resource() -> anyhow::Result<()> {
    for conditional in [false, true] {
        let ehr = plain(!conditional).await?;
        for expected in ["201", "200"] {
            let (_, answer) = post(&ehr, &bundle("transaction", vec![entry(observation(1), conditional)])).await?;
            assert_eq!(statuses(&answer), [expected], "conditional {conditional}");
        }
        assert_eq!((ehr.observation_count(), ehr.duplicated_identifiers().len()), (1, 0));
        let query = format!("/fhir/Observation?identifier=urn:ietf:rfc:3986%7Curn:uuid:{ID}1");
        assert_eq!(get_json(ehr.address(), &query).await?["total"], 1);
    }
    Ok(())
}

#[tokio::test]
async fn a_server_that_chooses_ids_refuses_a_new_one_of_ours() -> anyhow::Result<()> {
    let ehr = plain(false).await?;
    let (status, _) = post(&ehr, &bundle("transaction", vec![entry(observation(1), false)])).await?;
    assert_eq!(status, 405);
    let metadata = get_json(ehr.address(), "/fhir/metadata").await?;
    assert_eq!(metadata["rest"][0]["resource"][0]["updateCreate"], false);
    Ok(())
}

#[tokio::test]
async fn two_resources_that_match_a_condition_are_a_412() -> anyhow::Result<()> {
    let ehr = plain(false).await?;
    for id in ["a", "b"] {
        let mut resource = observation(1);
        resource["id"] = json!(id);
        ehr.plant(resource)?;
    }
    let (status, _) = post(&ehr, &bundle("transaction", vec![entry(observation(1), true)])).await?;
    assert_eq!(status, 412);
    assert_eq!(ehr.duplicated_identifiers().len(), 1);
    Ok(())
}

#[tokio::test]
async fn a_reset_comes_after_everything_was_stored() -> anyhow::Result<()> {
    for fault in [Fault::ResetAfterStored, Fault::CutBody] {
        let ehr = plain(true).await?;
        ehr.misbehave_times(fault, 1);
        let body = bundle("transaction", vec![entry(observation(1), false)]);
        assert!(post(&ehr, &body).await.is_err(), "{fault:?}");
        assert_eq!(ehr.observation_count(), 1, "{fault:?}");
        assert_eq!(statuses(&post(&ehr, &body).await?.1), ["200"], "{fault:?}");
    }
    let ehr = plain(true).await?;
    ehr.misbehave_times(Fault::TruncatedBody, 1);
    let (status, answer) = post(&ehr, &bundle("transaction", vec![entry(observation(1), false)])).await?;
    assert_eq!((status, answer, ehr.observation_count()), (200, Value::Null, 1));
    Ok(())
}

#[tokio::test]
async fn a_poisoned_entry_is_refused_and_a_long_bundle_is_too() -> anyhow::Result<()> {
    let ehr = plain(true).await?;
    ehr.poison(Some(Arc::new(|observation| (observation["id"] == format!("{ID}2").as_str()).then(|| "it is poison".to_owned()))));
    let all = || vec![entry(observation(1), false), entry(observation(2), false)];
    assert_eq!(post(&ehr, &bundle("transaction", all())).await?.0, 422);
    assert_eq!(statuses(&post(&ehr, &bundle("batch", all())).await?.1), ["201", "422"]);
    ehr.limit_entries(Some(1));
    assert_eq!(post(&ehr, &bundle("transaction", all())).await?.0, 413);
    ehr.misbehave_times(Fault::Busy { retry_after_s: 7 }, 1);
    assert_eq!(post(&ehr, &bundle("transaction", all())).await?.0, 429);
    Ok(())
}

#[tokio::test]
async fn an_outage_refuses_connections_and_ends_on_the_same_port_with_everything_kept() -> anyhow::Result<()> {
    let ehr = plain(true).await?;
    post(&ehr, &bundle("transaction", vec![entry(observation(1), false)])).await?;
    ehr.down().await;
    assert!(TcpStream::connect(ehr.address()).await.is_err());
    ehr.up().await?;
    assert_eq!(get_json(ehr.address(), &format!("/fhir/Observation/{ID}1")).await?["id"], format!("{ID}1"));
    Ok(())
}

#[tokio::test]
async fn over_tls_a_client_that_knows_the_authority_is_answered() -> anyhow::Result<()> {
    let ehr = Ehr::start(EhrOptions::default()).await?;
    let profile = ClientProfile { ca_file: Some(ehr.ca_file().to_owned()), certificate_file: None, key_file: None };
    let asking = async {
        let tcp = TcpStream::connect(ehr.address()).await?;
        let mut tls = TlsConnector::from(Arc::new(client_config(&profile)?)).connect(ServerName::try_from("localhost")?, tcp).await?;
        tls.write_all(b"GET /fhir/metadata HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await?;
        let mut answer = String::new();
        tls.read_to_string(&mut answer).await?;
        ensure!(answer.starts_with("HTTP/1.1 200") && answer.contains("CapabilityStatement"), "{answer}");
        anyhow::Ok(())
    };
    tokio::time::timeout(Duration::from_secs(20), asking).await.context("in vain")?
}

#[tokio::test]
async fn in_null_mode_every_entry_is_counted_and_accepted() -> anyhow::Result<()> {
    let ehr = Ehr::start(EhrOptions { tls: false, null: true, ..EhrOptions::default() }).await?;
    let (status, answer) = post(&ehr, &bundle("transaction", vec![entry(observation(1), false), entry(observation(2), false)])).await?;
    assert_eq!((status, statuses(&answer), ehr.observation_count()), (200, vec!["201", "201"], 2));
    let (status, _) = ask(ehr.address(), Method::GET, "/fhir/Device/anything", None, &[]).await?;
    assert_eq!(status, 404, "a gateway looks for its Device before it writes it");
    Ok(())
}
