//! Promises 1 and 2 under kill -9: every acknowledged reading is in the EHR exactly once.

use std::time::Duration;

use vitalgate_e2e::{Ward, WardOptions};
use vitalgate_test_support::wait_until;

/// Kills in the usual run; `VITALGATE_KILLS` sets another number.
const KILLS: u32 = 40;
/// Polled devices.
const MODBUS_DEVICES: usize = 3;
/// Polls of each of them for every kill, at least.
const POLLS_PER_KILL: usize = 2;
/// Polls of the device that is polled before, in and after an outage, at least.
const POLLS_THROUGH_AN_OUTAGE: usize = 20;
/// Every so many kills the EHR goes away or comes back.
const EHR_TURN: u32 = 5;

/// The whole daemon under load from 20 MQTT devices and 3 Modbus devices, killed at random moments,
/// the EHR going up and down meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acknowledged_reading_survives_kill_9_and_is_in_the_ehr_exactly_once() {
    let kills: u32 = std::env::var("VITALGATE_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(KILLS);
    let seed = std::env::var("VITALGATE_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("seed {seed}: {kills} kills");
    let mut random = fastrand::Rng::with_seed(seed);
    let options =
        WardOptions { mqtt_devices: 20, modbus_devices: MODBUS_DEVICES, gap_longest: Duration::from_millis(30), ..WardOptions::default() };
    let mut ward = Ward::start(options).await.unwrap();

    for kill in 1..=kills {
        // A random amount of work, not a time: the moment of the kill is anywhere in it.
        let more = random.u64(1..120);
        ward.wait_acknowledged(more, Duration::from_secs(60)).await.unwrap();
        ward.gateway.kill9().await.unwrap();
        if kill % EHR_TURN == 0 {
            if ward.ehr.is_up().await { ward.ehr.down().await } else { ward.ehr.up().await.unwrap() }
        }
        ward.gateway.restart().await.unwrap();
    }
    if !ward.ehr.is_up().await {
        ward.ehr.up().await.unwrap();
    }
    ward.wait_polled(POLLS_PER_KILL * kills as usize, Duration::from_secs(120)).await.unwrap();
    ward.finish_devices(Duration::from_secs(60)).await.unwrap();
    let verdict = ward.verdict().await.unwrap();
    println!(
        "killed {kills} times: acknowledged {}, in the EHR {}, lost {}, duplicated {}",
        verdict.acknowledged,
        verdict.acknowledged - verdict.lost_count(),
        verdict.lost_count(),
        verdict.duplicated_count()
    );
    assert!(verdict.is_exactly_once(), "{verdict:?}");
    assert!(verdict.acknowledged > u64::from(kills), "the devices hardly spoke: the test would prove nothing");
    assert_eq!(verdict.polls.len(), MODBUS_DEVICES);
    println!("{:?}", verdict.polls);
    // At most one poll of each device was under way at each kill.
    assert!(verdict.polls.values().all(|polls| polls.arrived >= u64::from(kills)), "{:?}", verdict.polls);
    assert!(ward.ehr.duplicated_identifiers().is_empty(), "{:?}", ward.ehr.duplicated_identifiers());
}

/// A stop by the service manager drains to disk, says so by its exit status, and comes back with everything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_drains_to_disk_and_not_to_the_network() {
    let mut ward = Ward::start(WardOptions { mqtt_devices: 3, ..WardOptions::default() }).await.unwrap();
    ward.wait_acknowledged(50, Duration::from_secs(30)).await.unwrap();
    ward.ehr.down().await;
    ward.wait_acknowledged(50, Duration::from_secs(30)).await.unwrap();
    let ended = ward.gateway.terminate().await.unwrap();
    assert!(ended.success(), "a stop is no failure: {ended}\n{}", ward.gateway.log_end());
    ward.gateway.restart().await.unwrap();
    ward.ehr.up().await.unwrap();
    ward.finish_devices(Duration::from_secs(30)).await.unwrap();
    let verdict = ward.verdict().await.unwrap();
    assert!(verdict.is_exactly_once(), "{verdict:?}");
}

/// Promise 1: what waits is delivered, though no device is left that could send more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_without_a_device_delivers_what_waits() {
    let mut ward = Ward::start(WardOptions { mqtt_devices: 2, ..WardOptions::default() }).await.unwrap();
    ward.wait_acknowledged(20, Duration::from_secs(30)).await.unwrap();
    ward.ehr.down().await;
    ward.wait_acknowledged(100, Duration::from_secs(30)).await.unwrap();
    ward.finish_devices(Duration::from_secs(30)).await.unwrap();
    ward.gateway.terminate().await.unwrap();
    ward.gateway.configure(|config| (config.devices, config.mqtt) = (Vec::new(), false)).unwrap();
    ward.gateway.restart().await.unwrap();
    ward.ehr.up().await.unwrap();
    let verdict = ward.verdict().await.unwrap();
    assert!(verdict.is_exactly_once(), "{verdict:?}");
    wait_until("the queue to be empty", Duration::from_secs(30), async || {
        let status = ward.gateway.status().await.ok()?;
        (status["destinations"][0]["queued"] == 0).then_some(())
    })
    .await
    .unwrap_or_else(|error| panic!("{error}\n{}", ward.gateway.log_end()));
    let ended = ward.gateway.terminate().await.unwrap();
    assert!(ended.success(), "a stop is no failure: {ended}\n{}", ward.gateway.log_end());
}

/// Promises 1 and 2: after an outage everything that queued is there, what was polled as well, once, and the queue is empty.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queued_readings_all_arrive_after_an_outage() {
    let mut ward = Ward::start(WardOptions { mqtt_devices: 6, modbus_devices: 1, ..WardOptions::default() }).await.unwrap();
    ward.wait_acknowledged(20, Duration::from_secs(30)).await.unwrap();
    ward.ehr.down().await;
    ward.wait_acknowledged(600, Duration::from_secs(60)).await.unwrap();
    let status = ward.gateway.status().await.unwrap();
    assert!(status["destinations"][0]["queued"].as_u64().unwrap() > 100, "the outage queues: {status}");
    ward.ehr.up().await.unwrap();
    ward.wait_polled(POLLS_THROUGH_AN_OUTAGE, Duration::from_secs(30)).await.unwrap();
    ward.finish_devices(Duration::from_secs(30)).await.unwrap();
    let verdict = ward.verdict().await.unwrap();
    assert!(verdict.is_exactly_once(), "{verdict:?}");
}
