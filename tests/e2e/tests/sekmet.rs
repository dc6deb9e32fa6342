//! Promise 2 against a FHIR server that others wrote: `sekmet-fhir`, killed and started again meanwhile.

// Helpers of tests are not test functions for clippy.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::time::Duration;

use vitalgate_domain::DeviceId;
use vitalgate_e2e::programs::Sekmet;
use vitalgate_e2e::{Publishers, Site};
use vitalgate_test_support::{DeviceLine, wait_until};

const DEVICES: usize = 3;
/// Pause between two messages of a device.
const GAP: Duration = Duration::from_millis(100);
const DEADLINE: Duration = Duration::from_secs(90);

async fn exactly_once(write: &str) {
    let mut sekmet = Sekmet::start().await.unwrap();
    let names: Vec<String> = (0..DEVICES).map(|index| format!("monitor-{index:02}")).collect();
    for index in 0..DEVICES {
        sekmet.put_patient(&format!("p{index}")).await.unwrap();
    }
    let lines = names.iter().enumerate().map(|(index, name)| DeviceLine::mqtt(DeviceId::new(name).unwrap(), &format!("Patient/p{index}")));
    let site = Site::start(lines.collect(), |config| {
        config.destination = Some((sekmet.base_url(), None));
        config.more.push(("destination".to_owned(), format!("write = {write:?}\nrequest_timeout_ms = 10000")));
    })
    .await
    .unwrap();
    let monitors = names.iter().map(|name| site.monitor(name).unwrap()).collect();
    let mut publishers = Publishers::start(monitors, GAP).unwrap();
    let mut oracle = site.oracle().unwrap();
    let mut acknowledged = publishers.more(30, DEADLINE).await.unwrap();
    for _kill in 0..2 {
        // Killed while a request is under way or not, as it comes: the count of what it stored before is no round number.
        let before = sekmet.count().await.unwrap();
        wait_until("something new in sekmet", DEADLINE, async || (sekmet.count().await.ok()? > before).then_some(())).await.unwrap();
        sekmet.kill().await.unwrap();
        acknowledged.extend(publishers.more(40, DEADLINE).await.unwrap());
        sekmet.restart().await.unwrap();
    }
    acknowledged.extend(publishers.more(20, DEADLINE).await.unwrap());
    acknowledged.extend(publishers.finish(DEADLINE).await.unwrap());
    acknowledged.iter().for_each(|one| oracle.acknowledged(one));
    let sightings = wait_until("every acknowledged reading to be in sekmet", DEADLINE, async || {
        let sightings = sekmet.sightings().await.ok()?;
        (oracle.compare(&sightings).lost_count() == 0).then_some(sightings)
    })
    .await;
    let sightings = match sightings {
        Ok(sightings) => sightings,
        Err(error) => {
            let verdict = oracle.compare(&sekmet.sightings().await.unwrap());
            panic!("{write}: {error}: {verdict}\n{}", site.gateway.log_end());
        }
    };
    let verdict = oracle.compare(&sightings);
    println!("{write}: {verdict}");
    assert!(verdict.is_exactly_once(), "{write}: {verdict}");
    let found = sekmet.observations().await.unwrap();
    assert_eq!(sekmet.count().await.unwrap(), found.len() as u64, "{write}: the search counts what it lists");
    let mut identifiers: Vec<_> = found.iter().map(|one| one["identifier"][0]["value"].as_str().unwrap().to_owned()).collect();
    identifiers.sort();
    let all = identifiers.len();
    identifiers.dedup();
    assert_eq!(all, identifiers.len(), "{write}: an identifier is there twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_server_that_dies_holds_each_reading_once_by_put() {
    exactly_once("put").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_server_that_dies_holds_each_reading_once_by_conditional_create() {
    exactly_once("conditional").await;
}
