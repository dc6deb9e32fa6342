//! Bundles as files, reviewed as differences. `VITALGATE_GOLDEN=write` writes them anew.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Test code.

mod common;

use std::path::PathBuf;

use common::{batch, context, encoded, everything};
use vitalgate_domain::{BatchMode, DeviceId, DeviceNamespace};
use vitalgate_fhir::{WriteMode, device_resource_id, encode_device, encode_gateway};

fn compare(name: &str, text: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    // One entry a line keeps the differences readable.
    let text = text.replace("{\"resource\"", "\n{\"resource\"") + "\n";
    if std::env::var("VITALGATE_GOLDEN").as_deref() == Ok("write") {
        std::fs::write(&path, &text).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(kept == text, "{} differs from what is encoded now; if that is meant, run with VITALGATE_GOLDEN=write", path.display());
}

#[test]
fn the_bundles_are_the_ones_on_file() {
    compare("transaction-put.json", &encoded(&batch(BatchMode::Together, everything()), &context(WriteMode::PutById)));
    let few = everything().into_iter().take(3).collect();
    compare("batch-conditional.json", &encoded(&batch(BatchMode::Separately, few), &context(WriteMode::ConditionalCreate)));
    let mut no_devices = context(WriteMode::ConditionalCreate);
    no_devices.gateway_reference.clear();
    let one = batch(BatchMode::Together, everything().into_iter().take(1).collect());
    let body = vitalgate_fhir::encode(&one, &no_devices, &|_| String::new(), "Patient/4711").unwrap().body;
    compare("transaction-without-devices.json", &String::from_utf8(body).unwrap());
}

/// Promise 2: no entry has a name of its own. A server may put its reference wherever an entry repeats that name, also in the identifier and
/// in the condition of a conditional create, and then a resend makes a second resource (Medplum).
#[test]
fn an_entry_holds_no_name_that_a_server_may_put_its_own_reference_for() {
    for (write, mode) in [(WriteMode::PutById, BatchMode::Together), (WriteMode::ConditionalCreate, BatchMode::Separately)] {
        let bundle: serde_json::Value = serde_json::from_str(&encoded(&batch(mode, everything()), &context(write))).unwrap();
        for entry in bundle["entry"].as_array().unwrap() {
            let members: Vec<&String> = entry.as_object().unwrap().keys().collect();
            assert_eq!(members, ["request", "resource"], "{write:?}");
        }
    }
}

#[test]
fn the_device_resources_are_the_ones_on_file() {
    let device = DeviceId::new("monitor-01").unwrap();
    let put = context(WriteMode::PutById);
    compare("device.json", &String::from_utf8(encode_device(&device, &put).body).unwrap());
    compare("gateway.json", &String::from_utf8(encode_gateway(&put).body).unwrap());
    let conditional = encode_device(&device, &context(WriteMode::ConditionalCreate));
    assert!(!String::from_utf8(conditional.body).unwrap().contains("\"id\""), "the server chooses the id of a conditional create");
    assert_eq!(conditional.query, format!("identifier=urn:ietf:rfc:3986|urn:uuid:{}", conditional.id));
}

/// Promise 3: `monitor-01` of another house is another Device, and no reading names it by mistake; gateways that share
/// their devices name the same one, whatever they are called.
#[test]
fn a_device_is_its_own_within_its_namespace() {
    let device = DeviceId::new("monitor-01").unwrap();
    let here = context(WriteMode::PutById);
    let mut there = here.clone();
    there.namespace = DeviceNamespace::new("practice-02").unwrap();
    assert_ne!(encode_device(&device, &here).id, encode_device(&device, &there).id);
    assert_ne!(encode_device(&device, &here).identifier, encode_device(&device, &there).identifier);
    let one = batch(BatchMode::Together, everything().into_iter().take(1).collect());
    let body = vitalgate_fhir::encode(&one, &there, &|_| String::new(), "Patient/4711").unwrap().body;
    let body = String::from_utf8(body).unwrap();
    let named = |context| format!("urn:uuid:{}", device_resource_id(context, &device));
    assert!(body.contains(&named(&there.namespace)) && !body.contains(&named(&here.namespace)), "{body}");
    there.namespace = here.namespace.clone();
    there.gateway = vitalgate_domain::GatewayId::new("practice-02").unwrap();
    assert_eq!(encode_device(&device, &here).id, encode_device(&device, &there).id);
}
