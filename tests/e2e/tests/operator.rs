//! What a technician does: check, status, trace, dead letters, revoke. And what must not leak.

use std::time::Duration;

use vitalgate_e2e::{Ward, WardOptions};
use vitalgate_test_support::gateway::command;
use vitalgate_test_support::wait_until;

/// Promise 5: whoever asks where a reading is gets the answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trace_says_where_a_reading_is_before_and_after_its_delivery() {
    let mut ward = Ward::start(WardOptions { mqtt_devices: 2, ..WardOptions::default() }).await.unwrap();
    ward.wait_acknowledged(20, Duration::from_secs(30)).await.unwrap();
    ward.finish_devices(Duration::from_secs(30)).await.unwrap();
    ward.verdict().await.unwrap();
    let sighting = ward.ehr.sightings().into_iter().find(|sighting| sighting.device.as_str() == "monitor-00").unwrap();
    let id = sighting.reading.to_string();
    let traced = wait_until("the settlement to be traced", Duration::from_secs(20), async || {
        let traced = command(ward.gateway.config_file(), &["trace", &id]).await.ok()?;
        traced.contains("delivered as").then_some(traced)
    })
    .await
    .unwrap();
    assert!(traced.contains("monitor-00") && traced.contains("stored in journal"), "{traced}");

    let unknown = command(ward.gateway.config_file(), &["trace", "00000000-0000-5000-8000-000000000000"]).await;
    assert!(unknown.is_err(), "an unknown reading is said to be unknown");

    let now = vitalgate_domain::UnixMs(
        i64::try_from(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis()).unwrap(),
    );
    let by_moment = command(ward.gateway.config_file(), &["trace", "--device", "monitor-01", "--at", &now.rfc3339(0), "--window-s", "600"])
        .await
        .unwrap();
    assert!(by_moment.contains("monitor-01"), "{by_moment}");
}

/// A technician sees every device, the store and the destination in one place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_status_names_devices_store_and_destination() {
    let mut ward = Ward::start(WardOptions { mqtt_devices: 2, modbus_devices: 1, ..WardOptions::default() }).await.unwrap();
    ward.wait_acknowledged(10, Duration::from_secs(30)).await.unwrap();
    let status = wait_until("all devices to be seen", Duration::from_secs(30), async || {
        let printed = command(ward.gateway.config_file(), &["status"]).await.ok()?;
        (!printed.contains("not seen")).then_some(printed)
    })
    .await
    .unwrap();
    for word in ["READY", "monitor-00", "polled-00", "ehr", "journal"] {
        assert!(status.contains(word), "{word} is missing:\n{status}");
    }
}

/// A revoked device is disconnected within seconds; the others go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_device_is_out_within_seconds() {
    let mut ward = Ward::start(WardOptions { mqtt_devices: 2, ..WardOptions::default() }).await.unwrap();
    ward.wait_acknowledged(20, Duration::from_secs(30)).await.unwrap();
    command(ward.gateway.config_file(), &["device", "revoke", "monitor-01"]).await.unwrap();
    wait_until("the revoked device to be out", Duration::from_secs(20), async || {
        let metrics = ward.gateway.metrics().await.ok()?;
        metrics.lines().any(|line| line.starts_with("vitalgate_mqtt_connections ") && line.ends_with(" 1")).then_some(())
    })
    .await
    .unwrap();
    ward.wait_acknowledged(20, Duration::from_secs(30)).await.unwrap();
    ward.abandon_devices();
}

/// No value, patient or secret in the log, the metrics or the health.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neither_patients_nor_values_nor_secrets_leave_by_the_side_door() {
    let mut ward = Ward::start(WardOptions { mqtt_devices: 3, modbus_devices: 1, ..WardOptions::default() }).await.unwrap();
    ward.wait_acknowledged(100, Duration::from_secs(30)).await.unwrap();
    ward.ehr.down().await;
    ward.wait_acknowledged(30, Duration::from_secs(30)).await.unwrap();
    let metrics = ward.gateway.metrics().await.unwrap();
    let status = ward.gateway.status().await.unwrap().to_string();
    ward.abandon_devices();
    ward.gateway.terminate().await.unwrap();
    let log = std::fs::read_to_string(ward.gateway.log_file()).unwrap();
    assert!(log.contains("ready"), "there is a log to look at");
    for text in [&metrics, &status, &log] {
        for needle in ["Patient/", "mm[Hg]", "heart_rate", "PRIVATE KEY"] {
            assert!(!text.contains(needle), "{needle} stands where it must not:\n{text}");
        }
    }
}
