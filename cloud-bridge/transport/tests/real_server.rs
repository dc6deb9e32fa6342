//! Against programs that others wrote: the FHIR server `sekmet-fhir` and the validator `fhir.resources` (R4B).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Test code.

mod common;

use std::path::PathBuf;
use std::process::Command;

use common::venv::{Sekmet, bin};
use common::{accepted, batch, batch_of, endpoint, patient, plain_client};
use serde_json::{Value as Json, json};
use vitalgate_domain::{Answer, BatchMode, ItemAnswer, PatientReference};
use vitalgate_transport::WritePolicy;

async fn get(url: &str) -> Json {
    let client =
        reqwest::Client::builder().tls_backend_preconfigured(common::Certificates::new(&["localhost"], false).client()).build().unwrap();
    client.get(url).send().await.unwrap().json().await.unwrap()
}

async fn write(method: http::Method, url: &str, resource: &Json) {
    let client =
        reqwest::Client::builder().tls_backend_preconfigured(common::Certificates::new(&["localhost"], false).client()).build().unwrap();
    let response = client.request(method, url).json(resource).send().await.unwrap();
    assert!(response.status().is_success(), "{}", response.text().await.unwrap());
}

async fn total(server: &Sekmet) -> u64 {
    get(&format!("{}/Observation?_summary=count", server.url)).await["total"].as_u64().unwrap()
}

async fn with_patient() -> Sekmet {
    let server = Sekmet::start().await;
    let patient = json!({"resourceType": "Patient", "id": "4711", "identifier": [{"system": "urn:oid:1.2.40", "value": "77"}]});
    write(http::Method::PUT, &format!("{}/Patient/4711", server.url), &patient).await;
    server
}

#[tokio::test]
async fn a_real_server_holds_each_reading_once_after_any_number_of_resends() {
    let server = with_patient().await;
    let mut expected = total(&server).await;
    let by_identifier = PatientReference::Identifier { system: "urn:oid:1.2.40".into(), value: "77".into() };
    let cases = [
        (WritePolicy::Auto, BatchMode::Together, batch_of(1..=10, BatchMode::Together, &patient())),
        (WritePolicy::Conditional, BatchMode::Together, batch_of(11..=20, BatchMode::Together, &by_identifier)),
        (WritePolicy::Put, BatchMode::Separately, batch_of(21..=30, BatchMode::Separately, &by_identifier)),
        (WritePolicy::Conditional, BatchMode::Separately, batch_of(31..=40, BatchMode::Separately, &patient())),
    ];
    for (policy, mode, batch) in cases {
        expected += 10;
        // Each client is another run of the gateway: nothing is remembered between them.
        for _ in 0..3 {
            let client = plain_client(endpoint(&server.url, policy));
            assert_eq!(accepted(&client.deliver(&batch).await), 10, "{policy:?} {mode:?}");
        }
        assert_eq!(total(&server).await, expected, "{policy:?} {mode:?}");
    }
    let devices = get(&format!("{}/Device?_summary=count&identifier=urn:ietf:rfc:3986%7C", server.url)).await["total"].as_u64().unwrap();
    assert_eq!(devices, 2, "the monitor and the gateway, whichever way they were written");
    let one = get(&format!("{}/Observation/{}", server.url, batch(BatchMode::Together).items[0].id)).await;
    assert_eq!((one["valueQuantity"]["value"].as_u64(), one["subject"]["reference"].as_str()), (Some(72), Some("Patient/4711")));
}

/// An identifier that is there twice makes a real server refuse the whole transaction; on its own it is reported, and
/// the others arrive.
#[tokio::test]
async fn a_real_server_that_refuses_one_entry_gets_all_the_others() {
    let server = with_patient().await;
    let client = plain_client(endpoint(&server.url, WritePolicy::Conditional));
    let id = batch(BatchMode::Together).items[2].id;
    let twin = json!({"resourceType": "Observation", "status": "final", "code": {"text": "x"}, "subject": {"reference": "Patient/4711"},
        "identifier": [{"system": "urn:ietf:rfc:3986", "value": format!("urn:uuid:{id}")}]});
    for _ in 0..2 {
        write(http::Method::POST, &format!("{}/Observation", server.url), &twin).await;
    }
    let before = total(&server).await;
    let together = client.deliver(&batch(BatchMode::Together)).await;
    assert!(matches!(together, Answer::RejectedWhole { .. }), "{together:?}");
    assert_eq!(total(&server).await, before, "all or none");
    let Answer::Items(items) = client.deliver(&batch(BatchMode::Separately)).await else { panic!() };
    assert!(matches!(items[2], ItemAnswer::AcceptedWithWarning { .. }), "{items:?}");
    assert_eq!(items.iter().filter(|item| matches!(item, ItemAnswer::Accepted { .. })).count(), 4, "{items:?}");
    assert_eq!(total(&server).await, before + 4);
}

const VALIDATE: &str = r#"
import json, sys
from fhir.resources.R4B.bundle import Bundle
from fhir.resources.R4B.device import Device
count = 0
for name in sys.argv[1:]:
    text = json.load(open(name))
    kind = {"Bundle": Bundle, "Device": Device}[text["resourceType"]]
    kind.model_validate(text)
    count += len(text.get("entry", [None]))
broken = json.load(open(sys.argv[1])); broken["entry"][0]["resource"]["effectiveDateTime"] = "yesterday"
try:
    Bundle.model_validate(broken); sys.exit("the validator takes anything")
except ValueError:
    print(count)
"#;

#[test]
fn every_bundle_on_file_is_valid_to_a_validator_of_others() {
    let golden = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fhir/tests/golden");
    let mut files: Vec<PathBuf> = std::fs::read_dir(golden).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let checked = Command::new(bin().join("python3")).arg("-c").arg(VALIDATE).args(&files).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    let count: usize = String::from_utf8(checked.stdout).unwrap().trim().parse().unwrap();
    assert!(count > 35, "{count} resources in {} files", files.len());
}
