//! Promises 2 and 3 where several gateways deliver to one EHR: devices of one name stay apart, a device that roams stays one.

// Helpers of tests are not test functions for clippy.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{mpsc, watch};
use vitalgate_domain::{DeviceId, UnixMs};
use vitalgate_e2e::Site;
use vitalgate_e2e::programs::Sekmet;
use vitalgate_e2e::ward::recording;
use vitalgate_simulator::Message;
use vitalgate_simulator::replay::wall_now;
use vitalgate_test_support::{DeviceLine, Oracle, wait_until};

const DEADLINE: Duration = Duration::from_secs(60);
/// The name that both houses gave one of their monitors.
const DEVICE: &str = "monitor-1";
const MESSAGES: i64 = 4;

/// A gateway that delivers to the server, with one monitor.
async fn gateway(name: &str, patient: &str, namespace: Option<&str>, sekmet: &Sekmet, write: &str) -> Site {
    let line = DeviceLine::mqtt(DeviceId::new(DEVICE).unwrap(), &format!("Patient/{patient}"));
    Site::start(vec![line], |config| {
        name.clone_into(&mut config.name);
        config.device_namespace = namespace.map(str::to_owned);
        config.destination = Some((sekmet.base_url(), None));
        config.more.push(("destination".to_owned(), format!("write = {write:?}")));
    })
    .await
    .unwrap()
}

/// The same messages at each call: what the monitor says once, or what two monitors of one make say at the same moment.
async fn publish(site: &Site, begin: UnixMs) -> Oracle {
    let recording = recording().unwrap();
    let sets = recording.sets(recording.patients().next().unwrap()).to_vec();
    let (source, messages) = mpsc::channel(sets.len());
    for (counter, set) in (0..MESSAGES).zip(&sets) {
        source.send(Message::of_set(set, begin.plus_ms(counter * 1_000), counter.unsigned_abs())).await.unwrap();
    }
    drop(source);
    let (acknowledge, mut acknowledged) = mpsc::unbounded_channel();
    let (_stop, stopped) = watch::channel(false);
    let report = tokio::time::timeout(DEADLINE, site.monitor(DEVICE).unwrap().run(messages, acknowledge, stopped)).await.unwrap();
    assert_eq!(report.left, 0, "{}", site.gateway.log_end());
    let mut oracle = site.oracle().unwrap();
    while let Ok(one) = acknowledged.try_recv() {
        oracle.acknowledged(&one);
    }
    oracle
}

/// Waits until the gateway has nothing left to deliver.
async fn delivered(site: &Site) {
    wait_until("everything to be delivered", DEADLINE, async || {
        let status = site.gateway.status().await.ok()?;
        (status["destinations"][0]["queued"] == 0).then_some(())
    })
    .await
    .unwrap_or_else(|error| panic!("{error}\n{}", site.gateway.log_end()));
}

fn texts<'a>(observations: &'a [Value], text: impl Fn(&'a Value) -> &'a Value) -> BTreeSet<&'a str> {
    observations.iter().map(|one| text(one).as_str().unwrap_or_default()).collect()
}

/// Two houses, each with its `monitor-1` at a patient of its own, hear the same at the same moments: the record of each patient
/// has all of it, from a Device of its own.
async fn stay_apart(write: &str) {
    let sekmet = Sekmet::start().await.unwrap();
    let mut houses = Vec::new();
    for (name, patient) in [("north", "n1"), ("south", "s1")] {
        sekmet.put_patient(patient).await.unwrap();
        houses.push(gateway(name, patient, None, &sekmet, write).await);
    }
    let begin = wall_now();
    let mut said = 0;
    for site in &houses {
        let oracle = publish(site, begin).await;
        delivered(site).await;
        said += oracle.count();
        let verdict = oracle.compare(&sekmet.sightings().await.unwrap());
        assert!(verdict.is_exactly_once(), "{write}: {verdict}");
    }
    let all = sekmet.observations().await.unwrap();
    let readings = sekmet.sightings().await.unwrap().len() as u64;
    assert_eq!(readings, said, "{write}: a reading of one house took the place of another's");
    assert_eq!(texts(&all, |one| &one["identifier"][0]["value"]).len(), all.len(), "{write}: an identifier is there twice");
    let of =
        |patient| -> Vec<Value> { all.iter().filter(|one| one["subject"]["reference"] == format!("Patient/{patient}")).cloned().collect() };
    let (north, south) = (of("n1"), of("s1"));
    assert_eq!(north.len(), south.len(), "{write}");
    let (one, other) = (texts(&north, |one| &one["device"]["reference"]), texts(&south, |one| &one["device"]["reference"]));
    assert!(one.len() == 1 && other.len() == 1 && one != other, "{write}: {one:?}, {other:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_of_one_name_in_two_houses_stay_apart_by_put() {
    stay_apart("put").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_of_one_name_in_two_houses_stay_apart_by_conditional_create() {
    stay_apart("conditional").await;
}

/// A device roams between two gateways that share it, and repeats at the second what the first one has delivered already: the
/// EHR has it once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reading_that_is_sent_again_through_another_gateway_is_the_same_reading() {
    for write in ["put", "conditional"] {
        let sekmet = Sekmet::start().await.unwrap();
        sekmet.put_patient("p1").await.unwrap();
        let begin = wall_now();
        let mut counts = Vec::new();
        for name in ["north", "south"] {
            let site = gateway(name, "p1", Some("clinic"), &sekmet, write).await;
            let oracle = publish(&site, begin).await;
            delivered(&site).await;
            let verdict = oracle.compare(&sekmet.sightings().await.unwrap());
            assert!(verdict.is_exactly_once(), "{write}: {verdict}");
            counts.push(sekmet.count().await.unwrap());
        }
        assert!(counts[0] > 0 && counts[0] == counts[1], "{write}: {counts:?}");
        let all = sekmet.observations().await.unwrap();
        assert_eq!(texts(&all, |one| &one["device"]["reference"]).len(), 1, "{write}: it is one Device");
    }
}
