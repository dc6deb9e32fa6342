//! What the gateway is told by its surroundings: the key of its store, and how far its clock may be trusted.

// Helpers of tests are not test functions for clippy.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::time::Duration;

use vitalgate_domain::DeviceId;
use vitalgate_e2e::ward::recording;
use vitalgate_e2e::{Publishers, Site};
use vitalgate_simulator::{ModbusMonitor, ServedSet};
use vitalgate_test_support::{ConfigText, DeviceLine, Oracle, wait_until};

const DEADLINE: Duration = Duration::from_secs(60);
const GAP: Duration = Duration::from_millis(5);
/// Messages that are acknowledged before the EHR gets any.
const MESSAGES: usize = 20;
const CREDENTIAL: &str = "vitalgate-kek";

fn with_credential(config: &mut ConfigText, folder: &Path) {
    config.credentials_dir = Some(folder.to_owned());
    config.more.push(("store".to_owned(), format!("key_credential = {CREDENTIAL:?}")));
}

fn monitor() -> Vec<DeviceLine> {
    vec![DeviceLine::mqtt(DeviceId::new("monitor-01").unwrap(), "Patient/p1")]
}

async fn acknowledged(site: &Site) -> Oracle {
    let mut publishers = Publishers::start(vec![site.monitor("monitor-01").unwrap()], GAP).unwrap();
    let mut oracle = site.oracle().unwrap();
    publishers.more(MESSAGES, DEADLINE).await.unwrap().iter().for_each(|message| oracle.acknowledged(message));
    publishers.finish(DEADLINE).await.unwrap().iter().for_each(|message| oracle.acknowledged(message));
    oracle
}

async fn arrived_once(site: &Site, oracle: &Oracle) {
    wait_until("every acknowledged reading to be in the EHR", DEADLINE, async || (site.ehr.missing_of(oracle) == 0).then_some(()))
        .await
        .unwrap_or_else(|error| panic!("{error}\n{}", site.gateway.log_end()));
    let verdict = oracle.compare(&site.ehr.sightings());
    assert!(verdict.is_exactly_once(), "{verdict:?}");
    let status = site.gateway.status().await.unwrap();
    assert_eq!(status["store"]["damage"], serde_json::json!([]), "nothing was damaged");
}

/// The store opens with the credential's key and no other; a start without the right one changes nothing on disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_under_a_credential_opens_with_that_credential_only() {
    let credentials = tempfile::tempdir().unwrap();
    let file = credentials.path().join(CREDENTIAL);
    std::fs::write(&file, [7; 32]).unwrap();
    let mut site = Site::start(monitor(), |config| with_credential(config, credentials.path())).await.unwrap();
    site.ehr.down().await;
    let oracle = acknowledged(&site).await;
    assert!(!site.gateway.config().state_dir.join("trust/store.key").exists(), "a key lies beside the store");
    site.gateway.terminate().await.unwrap();

    std::fs::write(&file, [8; 32]).unwrap();
    let refused = site.gateway.restart().await.unwrap_err().to_string();
    assert!(refused.contains("does not open with this gateway's key-encryption key"), "{refused}");
    std::fs::remove_file(&file).unwrap();
    let refused = site.gateway.restart().await.unwrap_err().to_string();
    assert!(refused.contains("add LoadCredentialEncrypted="), "{refused}");

    std::fs::write(&file, [7; 32]).unwrap();
    site.gateway.restart().await.unwrap();
    site.ehr.up().await.unwrap();
    arrived_once(&site, &oracle).await;
}

/// A gateway that began with a key file goes over to a credential, and what waits in its store is delivered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_file_becomes_a_credential_and_the_store_stays_readable() {
    let mut site = Site::start(monitor(), |_| {}).await.unwrap();
    site.ehr.down().await;
    let oracle = acknowledged(&site).await;
    site.gateway.terminate().await.unwrap();

    let credentials = tempfile::tempdir().unwrap();
    let trust = site.gateway.config().state_dir.join("trust");
    std::fs::copy(trust.join("store.key"), credentials.path().join(CREDENTIAL)).unwrap();
    std::fs::remove_file(trust.join("store.key")).unwrap();
    std::fs::remove_file(trust.join("store.key.copy")).unwrap();
    let refused = site.gateway.restart().await.unwrap_err().to_string();
    assert!(refused.contains("store.key"), "no new key is made for a store that holds something: {refused}");
    site.gateway.configure(|config| with_credential(config, credentials.path())).unwrap();
    site.gateway.restart().await.unwrap();
    site.ehr.up().await.unwrap();
    arrived_once(&site, &oracle).await;
    assert!(!trust.join("store.key").exists());
}

/// A device without a clock, a gateway whose clock is not set: nothing is sent with a guessed time, and everything goes, once,
/// as soon as the time service says that the clock is good.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readings_without_a_moment_wait_for_the_clock_and_then_go_by_themselves() {
    let word = tempfile::tempdir().unwrap();
    let file = word.path().join("clock-trust");
    std::fs::write(&file, "unset\n").unwrap();
    let recording = recording().unwrap();
    let set = &recording.sets(recording.patients().next().unwrap())[0];
    let polled = ModbusMonitor::start("127.0.0.1:0".parse().unwrap(), 1, ServedSet::of_set(set, 1)).await.unwrap();
    let devices = vec![DeviceLine::modbus(DeviceId::new("polled-01").unwrap(), "Patient/p1", polled.address(), 100)];
    let site =
        Site::start(devices, |config| config.more.push(("gateway".to_owned(), format!("clock_trust_file = {file:?}")))).await.unwrap();
    let held = wait_until("readings that are held", DEADLINE, async || {
        let status = site.gateway.status().await.ok()?;
        assert_eq!(status["clock_trust"], "Unset");
        status["store"]["dead_letters"].as_u64().filter(|held| *held > 8)
    })
    .await
    .unwrap_or_else(|error| panic!("{error}\n{}", site.gateway.log_end()));
    assert_eq!(site.ehr.observation_count(), 0, "a reading went with a guessed time");

    std::fs::write(&file, "authenticated\n").unwrap();
    wait_until("everything that was held to go", DEADLINE, async || {
        let status = site.gateway.status().await.ok()?;
        (status["clock_trust"] == "Authenticated" && status["store"]["dead_letters"] == 0).then_some(())
    })
    .await
    .unwrap_or_else(|error| panic!("{error}\n{}", site.gateway.log_end()));
    wait_until("the readings in the EHR", DEADLINE, async || (site.ehr.sightings().len() as u64 > held).then_some(()))
        .await
        .unwrap_or_else(|error| panic!("{error}\n{}", site.gateway.log_end()));
    assert_eq!(site.ehr.duplicated_identifiers(), Vec::<String>::new());
}
