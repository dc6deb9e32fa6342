//! A destination that leaves the configuration while readings wait for it, and comes back.

// Helpers of tests are not test functions for clippy.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use vitalgate_domain::DeviceId;
use vitalgate_e2e::{Publishers, Site};
use vitalgate_test_support::{ConfigText, DeviceLine, Ehr, EhrOptions, Oracle, wait_until};

const DEADLINE: Duration = Duration::from_secs(60);
const GAP: Duration = Duration::from_millis(5);
/// Messages that are acknowledged.
const MESSAGES: usize = 10;

/// A second destination, at a server with the patients of the first.
fn second(url: &str, ca_file: &std::path::Path) -> (String, String) {
    let table = "[[destination]]\nid = \"second\"\nkind = \"fhir\"\nsame_patient_ids_as = \"ehr\"";
    ("destination".to_owned(), format!("{table}\nurl = {url:?}\nca_file = {ca_file:?}"))
}

async fn restarted(site: &mut Site, change: impl FnOnce(&mut ConfigText)) {
    site.gateway.terminate().await.unwrap();
    site.gateway.configure(change).unwrap();
    site.gateway.restart().await.unwrap();
}

async fn acknowledged(site: &Site, oracle: &mut Oracle) {
    let mut publishers = Publishers::start(vec![site.monitor("monitor-01").unwrap()], GAP).unwrap();
    publishers.more(MESSAGES, DEADLINE).await.unwrap().iter().for_each(|message| oracle.acknowledged(message));
    publishers.finish(DEADLINE).await.unwrap().iter().for_each(|message| oracle.acknowledged(message));
}

/// How many entries the log says were given up for a destination.
fn given_up(site: &Site, destination: &str) -> Option<u64> {
    let log = std::fs::read_to_string(site.gateway.log_file()).unwrap();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut told = lines.filter(|line| line["message"].as_str().is_some_and(|message| message.starts_with("given up, as [store] says")));
    told.find(|line| line["destination"] == destination)?["entries"].as_u64()
}

/// Promises 2, 4 and 5: what waits for a destination outlasts that it is taken out of the file, the status says so until it is back, and
/// then everything arrives; given up by name it is gone from the status, and the log says how much that was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_destination_that_leaves_and_comes_back_loses_nothing() {
    let (ehr, local) = (Ehr::start(EhrOptions::default()).await.unwrap(), Ehr::start(EhrOptions::default()).await.unwrap());
    let monitor = DeviceLine::mqtt(DeviceId::new("monitor-01").unwrap(), "Patient/p1");
    let mut site = Site::start(vec![monitor], |config| {
        config.destination = Some((ehr.base_url().to_owned(), Some(ehr.ca_file().to_owned())));
        config.more.push(("store".to_owned(), "retention_days = 0".to_owned()));
        config.more.push(("log".to_owned(), "format = \"json\"".to_owned()));
        // Nobody is there.
        config.more.push(second("https://127.0.0.1:9/fhir", ehr.ca_file()));
    })
    .await
    .unwrap();
    let mut oracle = site.oracle().unwrap();
    acknowledged(&site, &mut oracle).await;
    site.arrived_once("ehr", &ehr, &oracle).await.unwrap();

    restarted(&mut site, |config| config.more.retain(|(section, _)| section != "destination")).await;
    let status = site.gateway.status().await.unwrap();
    let waits = &status["destinations"][1];
    assert!(waits["id"] == "second" && waits["queued"].as_u64().unwrap() >= MESSAGES as u64, "{status}");
    assert!(waits["alarm"].as_str().is_some_and(|alarm| alarm.contains("given_up = [\"second\"]")), "{status}");
    assert_eq!(status["health"]["state"], "OFFLINE-BUFFERING");

    restarted(&mut site, |config| config.more.push(second(local.base_url(), local.ca_file()))).await;
    site.arrived_once("second", &local, &oracle).await.unwrap();

    local.down().await;
    let waited_for = oracle.count();
    acknowledged(&site, &mut oracle).await;
    site.arrived_once("ehr", &ehr, &oracle).await.unwrap();
    let readings = oracle.count() - waited_for;
    wait_until("the readings to wait, and nothing else", DEADLINE, async || {
        let status = site.gateway.status().await.ok()?;
        (status["destinations"][1]["queued"] == readings).then_some(())
    })
    .await
    .unwrap_or_else(|error| panic!("{error}\n{}", site.gateway.log_end()));
    restarted(&mut site, |config| {
        config.more.retain(|(section, _)| section != "destination");
        config.more.push(("store".to_owned(), "given_up = [\"second\"]".to_owned()));
    })
    .await;
    let status = site.gateway.status().await.unwrap();
    assert_eq!(status["destinations"].as_array().unwrap().len(), 1, "{status}");
    let entries = given_up(&site, "second").unwrap_or_else(|| panic!("{}", site.gateway.log_end()));
    assert_eq!(entries, readings);
}
