//! What the gateway is told by its surroundings: the key of its store, and how far its clock may be trusted.

// Helpers of tests are not test functions for clippy.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::time::Duration;

use vitalgate_domain::{DeviceId, Metric, UnixMs};
use vitalgate_e2e::ward::recording;
use vitalgate_e2e::{Publishers, Site};
use vitalgate_simulator::replay::wall_now;
use vitalgate_simulator::{ModbusFault, ModbusMonitor, SERVED_METRICS, ServedSet};
use vitalgate_test_support::ehr::{Sighting, Stated};
use vitalgate_test_support::{ConfigText, DeviceLine, Oracle, Polls, wait_until};

const DEADLINE: Duration = Duration::from_secs(60);
const GAP: Duration = Duration::from_millis(5);
/// Messages that are acknowledged before the EHR gets any.
const MESSAGES: usize = 20;
const CREDENTIAL: &str = "vitalgate-kek";
/// Polls that wait for the clock: from the first to the last it is many times [`MOMENT_TOLERANCE_MS`].
const HELD_POLLS: usize = 30;
/// How far the clock that only counts and the one on the wall may drift apart meanwhile, in milliseconds.
const MOMENT_TOLERANCE_MS: i64 = 250;

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
    site.arrived_once("ehr", &site.ehr, oracle).await.unwrap();
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

/// Looks at how many sets of a polled device were read: the time before, the number, the time after.
type Look = (UnixMs, usize, UnixMs);

/// When a set was received: not before the last look that did not find it yet, and not after the first one that found the next set, which
/// is asked for when this one is on disk.
fn received_within(looks: &[Look], index: usize) -> Option<(UnixMs, UnixMs)> {
    let from = looks.iter().rev().find(|(_, read, _)| *read <= index)?.0;
    let until = looks.iter().find(|(_, read, _)| *read > index + 1)?.2;
    Some((from.plus_ms(-MOMENT_TOLERANCE_MS), until.plus_ms(MOMENT_TOLERANCE_MS)))
}

/// The moment that the EHR gives to the poll of this set, which is told by its weight.
fn moment_of(set: &ServedSet, sightings: &[Sighting]) -> Option<UnixMs> {
    let weight = set.values.iter().find(|(metric, _)| *metric == Metric::BodyWeight)?.1;
    sightings.iter().find(|sighting| sighting.stated == Stated::Number(weight, "kg".to_owned()))?.effective
}

/// A device without a clock, a gateway whose clock is not set: nothing is sent with a guessed time, and everything goes, once, with the
/// moment of its arrival, as soon as the time service says that the clock is good.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readings_without_a_moment_wait_for_the_clock_and_then_go_by_themselves() {
    let word = tempfile::tempdir().unwrap();
    let file = word.path().join("clock-trust");
    std::fs::write(&file, "unset\n").unwrap();
    let recording = recording().unwrap();
    let sets = recording.sets(recording.patients().next().unwrap()).to_vec();
    let polled = ModbusMonitor::start("127.0.0.1:0".parse().unwrap(), 1, ServedSet::marked(&sets[0], 0)).await.unwrap();
    polled.serve_each((1..).zip(sets.into_iter().cycle()).map(|(counter, set)| ServedSet::marked(&set, counter)));
    let device = DeviceId::new("polled-01").unwrap();
    let devices = vec![DeviceLine::modbus(device.clone(), "Patient/p1", polled.address(), 100)];
    let mut looks: Vec<Look> = vec![(wall_now(), 0, wall_now())];
    let site =
        Site::start(devices, |config| config.more.push(("gateway".to_owned(), format!("clock_trust_file = {file:?}")))).await.unwrap();
    wait_until("polls that are held", DEADLINE, async || {
        let before = wall_now();
        let read = polled.read_sets().len();
        looks.push((before, read, wall_now()));
        (read > HELD_POLLS).then_some(())
    })
    .await
    .unwrap_or_else(|error| panic!("{error}\n{}", site.gateway.log_end()));
    polled.misbehave(ModbusFault::Silent);
    let requests = polled.requests();
    wait_until("the poll after the last", DEADLINE, async || (polled.requests() > requests).then_some(())).await.unwrap();
    let read = polled.read_sets();
    let readings = read.len() * SERVED_METRICS.len();
    wait_until("all that was read to be held", DEADLINE, async || {
        let status = site.gateway.status().await.ok()?;
        assert_eq!(status["clock_trust"], "Unset");
        (status["store"]["dead_letters"] == readings).then_some(())
    })
    .await
    .unwrap_or_else(|error| panic!("{error}\n{}", site.gateway.log_end()));
    assert_eq!(site.ehr.observation_count(), 0, "a reading went with a guessed time");

    std::fs::write(&file, "authenticated\n").unwrap();
    wait_until("everything that was held to go", DEADLINE, async || {
        let status = site.gateway.status().await.ok()?;
        let gone = status["clock_trust"] == "Authenticated" && status["store"]["dead_letters"] == 0;
        (gone && site.ehr.sightings().len() >= readings).then_some(())
    })
    .await
    .unwrap_or_else(|error| panic!("{error}\n{}", site.gateway.log_end()));
    let mut oracle = site.oracle().unwrap();
    oracle.polls(&device, read.clone());
    let verdict = site.arrived_once("ehr", &site.ehr, &oracle).await.unwrap();
    assert_eq!(verdict.polls[&device], Polls { read: read.len() as u64, arrived: read.len() as u64, cut_off: 0 });
    let sightings = site.ehr.sightings();
    for (index, known) in read.iter().take(HELD_POLLS).enumerate() {
        let (from, until) = received_within(&looks, index).unwrap();
        let moment = moment_of(&known.set, &sightings).unwrap();
        assert!((from..=until).contains(&moment), "set {index} was received from {from:?} to {until:?} and stands at {moment:?}");
    }
    assert_eq!(site.ehr.duplicated_identifiers(), Vec::<String>::new());
}
