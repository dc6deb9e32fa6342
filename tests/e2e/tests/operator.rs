//! What a technician does: check, status, trace, dead letters, revoke. And what must not leak.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use vitalgate_domain::DeviceId;
use vitalgate_e2e::ward::recording;
use vitalgate_e2e::{Site, Ward, WardOptions};
use vitalgate_simulator::Message;
use vitalgate_simulator::replay::wall_now;
use vitalgate_test_support::ehr::Kept;
use vitalgate_test_support::gateway::command;
use vitalgate_test_support::{DeviceLine, Ehr, EhrOptions, Fault, wait_until};

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

    let unknown = command(ward.gateway.config_file(), &["trace", "00000000-0000-5000-8000-000000000000"]).await.unwrap_err();
    assert!(unknown.to_string().contains("nothing of it is found here"), "{unknown}");

    let now = vitalgate_domain::UnixMs(
        i64::try_from(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis()).unwrap(),
    );
    let by_moment = command(ward.gateway.config_file(), &["trace", "--device", "monitor-01", "--at", &now.rfc3339(0), "--window-s", "600"])
        .await
        .unwrap();
    assert!(by_moment.contains("monitor-01"), "{by_moment}");
}

/// Promise 5: a blood pressure is found by the id that the EHR shows, with each of its parts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trace_finds_the_parts_of_a_blood_pressure_by_its_own_id() {
    let mut ward = Ward::start(WardOptions { mqtt_devices: 2, ..WardOptions::default() }).await.unwrap();
    ward.wait_acknowledged(40, Duration::from_secs(30)).await.unwrap();
    ward.finish_devices(Duration::from_secs(30)).await.unwrap();
    ward.verdict().await.unwrap();
    let observations = ward.ehr.observations();
    let parts = |observation: &serde_json::Value| -> Vec<String> {
        let components = observation["component"].as_array().into_iter().flatten();
        components.filter_map(|component| component["id"].as_str()).map(ToOwned::to_owned).collect()
    };
    let pressure = observations.iter().map(Kept::json).find(|observation| parts(observation).len() > 1).expect("a blood pressure");
    let shown = pressure["identifier"][0]["value"].as_str().unwrap();
    let delivered_as = format!("delivered as Observation/{}", shown.trim_start_matches("urn:uuid:"));
    let mut printed = String::new();
    let traced = wait_until("each part to be traced", Duration::from_secs(20), async || {
        printed = command(ward.gateway.config_file(), &["trace", shown]).await.ok()?;
        let all = parts(&pressure).iter().all(|part| printed.contains(part.as_str()));
        (all && printed.matches(&delivered_as).count() == parts(&pressure).len()).then_some(())
    });
    traced.await.unwrap_or_else(|error| panic!("{error}\n{printed}"));
}

/// Promise 5: what is held is never said to be delivered, whichever destination is asked for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trace_says_of_a_held_reading_that_no_destination_has_it() {
    let second = Ehr::start(EhrOptions::default()).await.unwrap();
    let (url, ca_file) = (second.base_url(), second.ca_file());
    let more = format!("[[destination]]\nid = \"second\"\nkind = \"fhir\"\nurl = {url:?}\nca_file = {ca_file:?}\n");
    let device = DeviceLine { patient: None, ..DeviceLine::mqtt(DeviceId::new("monitor-01").unwrap(), "") };
    let site = Site::start(vec![device], |config| config.more.push(("destination".into(), more))).await.unwrap();
    let recording = recording().unwrap();
    let now = wall_now();
    let (source, messages) = mpsc::channel(1);
    source.send(Message::of_set(&recording.sets(recording.patients().next().unwrap())[0], now, 0)).await.unwrap();
    drop(source);
    let (acknowledge, _acknowledged) = mpsc::unbounded_channel();
    let (_stop, stopped) = watch::channel(false);
    let report = site.monitor("monitor-01").unwrap().run(messages, acknowledge, stopped).await;
    assert_eq!((report.acknowledged, report.left), (1, 0), "{}", site.gateway.log_end());

    let at = now.rfc3339(0);
    let trace = ["trace", "--device", "monitor-01", "--at", &at, "--window-s", "60"];
    let mut printed = String::new();
    let held = wait_until("each destination to hold it", Duration::from_secs(30), async || {
        printed = command(site.gateway.config_file(), &trace).await.ok()?;
        assert!(!printed.contains("delivered"), "{printed}");
        let held = |destination: &str| printed.contains(&format!("{destination}: dead letter: Unassigned"));
        (held("ehr") && held("second")).then_some(())
    });
    held.await.unwrap_or_else(|error| panic!("{error}\n{printed}\n{}", site.gateway.log_end()));
}

/// A technician sees every device, the store and the destination in one place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_status_names_devices_store_and_destination() {
    let mut ward = Ward::start(WardOptions { mqtt_devices: 2, modbus_devices: 1, ..WardOptions::default() }).await.unwrap();
    ward.wait_acknowledged(10, Duration::from_secs(30)).await.unwrap();
    let status = wait_until("all devices to be seen", Duration::from_secs(30), async || {
        let printed = command(ward.gateway.config_file(), &["status"]).await.ok()?;
        (!printed.contains("no reading")).then_some(printed)
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

/// What an EHR says of a refusal may name a patient and a value: it stands in the dead letters, and neither in the log nor in the metrics
/// nor in the status, however it refuses.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_words_of_an_ehr_do_not_leave_by_the_side_door() {
    /// What the EHR of the tests says where it fails.
    const FAILING: &str = "was told to say so";
    let mut ward = Ward::start(WardOptions { mqtt_devices: 3, ..WardOptions::default() }).await.unwrap();
    let mut seen = String::new();
    let mut alarm = async |ward: &Ward, words: &str| {
        let raised = wait_until("the alarm", Duration::from_secs(60), async || {
            let status = ward.gateway.status().await.ok()?;
            status["destinations"][0]["alarm"].as_str().is_some_and(|alarm| alarm.contains(words)).then(|| status.to_string())
        });
        seen += &raised.await.unwrap_or_else(|error| panic!("{words}: {error}\n{}", ward.gateway.log_end()));
    };
    ward.ehr.poison(Some(Arc::new(|_| Some("Maria Muster (born 1950-02-03): value 182 outside".to_owned()))));
    alarm(&ward, "none was taken").await;
    // The alarm may come before a refusal is on disk.
    wait_until("its words to be where they belong", Duration::from_secs(60), async || {
        let dead_letters = command(ward.gateway.config_file(), &["dead-letters", "list"]).await.ok()?;
        dead_letters.contains("Maria Muster").then_some(())
    })
    .await
    .unwrap_or_else(|error| panic!("{error}\n{}", ward.gateway.log_end()));
    ward.ehr.poison(None);
    for status in [401, 500] {
        ward.ehr.misbehave(Fault::Status(status));
        alarm(&ward, &format!("HTTP {status}")).await;
    }
    let metrics = ward.gateway.metrics().await.unwrap();
    ward.abandon_devices();
    ward.gateway.terminate().await.unwrap();
    let log = std::fs::read_to_string(ward.gateway.log_file()).unwrap();
    assert!(
        log.contains("none was taken") && log.contains("HTTP 401") && log.contains("HTTP 500"),
        "what is in the way is in the log:\n{log}"
    );
    for text in [&metrics, &seen, &log] {
        for needle in ["Muster", "1950-02-03", "182 outside", FAILING] {
            assert!(!text.contains(needle), "{needle} stands where it must not:\n{text}");
        }
    }
}
