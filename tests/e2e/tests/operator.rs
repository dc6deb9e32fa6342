//! What a technician does: check, status, trace, dead letters, revoke. And what must not leak.

// Helpers of tests are not test functions for clippy.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use vitalgate_domain::DeviceId;
use vitalgate_e2e::ward::recording;
use vitalgate_e2e::{Publishers, Site, Ward, WardOptions};
use vitalgate_simulator::replay::wall_now;
use vitalgate_simulator::{Message, ModbusMonitor, ServedSet};
use vitalgate_test_support::ehr::Kept;
use vitalgate_test_support::gateway::command;
use vitalgate_test_support::http::get;
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
    const GAP: Duration = Duration::from_millis(20);
    const DEADLINE: Duration = Duration::from_secs(30);
    let devices = ["monitor-00", "monitor-01"].map(|name| DeviceLine::mqtt(DeviceId::new(name).unwrap(), "Patient/p1"));
    let site = Site::start(devices.to_vec(), |_| {}).await.unwrap();
    let publishing = |name| Publishers::start(vec![site.monitor(name).unwrap()], GAP).unwrap();
    let (mut stays, mut revoked) = (publishing("monitor-00"), publishing("monitor-01"));
    stays.more(10, DEADLINE).await.unwrap();
    revoked.more(10, DEADLINE).await.unwrap();
    command(site.gateway.config_file(), &["device", "revoke", "monitor-01"]).await.unwrap();
    // One refusal ends its connection; the others are of its return, for which it has first taken what it was told before.
    let refused = async |times: f64| {
        let refused = wait_until("the revoked device to be refused", DEADLINE, async || {
            site.refused("not_admitted").await.ok().filter(|refused| *refused >= times)
        });
        refused.await.unwrap_or_else(|error| panic!("{error}\n{}", site.gateway.log_end()))
    };
    let out = refused(2.0).await;
    stays.take();
    revoked.take();
    refused(out + 2.0).await;
    stays.more(20, DEADLINE).await.unwrap();
    assert_eq!(site.metric("vitalgate_mqtt_connections").await.unwrap(), 1.0);
    assert_eq!(revoked.take().len(), 0, "a revoked device got an acknowledgement");
}

/// Publishes these and waits until each is acknowledged.
async fn publish(site: &Site, device: &str, payloads: Vec<String>) {
    let (source, messages) = mpsc::channel(payloads.len());
    for payload in payloads {
        // What it states is of no interest here.
        let (time, time_unix_ms, readings) = ("".into(), wall_now(), Vec::new());
        source.send(Message { channel: "vitals".into(), payload: payload.into(), time, time_unix_ms, readings }).await.unwrap();
    }
    drop(source);
    let (acknowledge, _acknowledged) = mpsc::unbounded_channel();
    let (_stop, stopped) = watch::channel(false);
    let report = site.monitor(device).unwrap().run(messages, acknowledge, stopped).await;
    assert_eq!(report.left, 0, "{}", site.gateway.log_end());
}

/// No value, patient or secret in the log, the metrics, the status or the health: not of a reading that goes well, nor of one that is
/// implausible or unassigned, nor of a message that is none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neither_patients_nor_values_nor_secrets_leave_by_the_side_door() {
    const DEADLINE: Duration = Duration::from_secs(60);
    /// Stands nowhere by chance.
    const WEIGHT: &str = "71.828182";
    /// The weight that is polled.
    const POLLED: &str = "40.109375";
    /// Nobody has it.
    const PULSE: &str = "31415.9265";
    let assigned = DeviceLine::mqtt(DeviceId::new("monitor-01").unwrap(), "Patient/canary-patient");
    let unassigned = DeviceLine { patient: None, ..DeviceLine::mqtt(DeviceId::new("monitor-02").unwrap(), "") };
    let recording = recording().unwrap();
    let set = ServedSet::marked(&recording.sets(recording.patients().next().unwrap())[0], 7);
    let monitor = ModbusMonitor::start("127.0.0.1:0".parse().unwrap(), 1, set).await.unwrap();
    let polled = DeviceLine::modbus(DeviceId::new("polled-01").unwrap(), "Patient/canary-polled", monitor.address(), 100);
    let mut site = Site::start(vec![assigned, unassigned, polled], |_| {}).await.unwrap();
    let message = |time: &str, metric: &str, value: &str, unit: &str| {
        format!(r#"{{"time":{time:?},"values":[{{"metric":{metric:?},"value":{value},"unit":{unit:?}}}]}}"#)
    };
    let now = wall_now().rfc3339(0);
    let [weight, pulse] = [message(&now, "body_weight", WEIGHT, "kg"), message(&now, "heart_rate", PULSE, "/min")];
    let no_messages = [
        "{canary-text".to_owned(),
        message("canary-time", "heart_rate", PULSE, "/min"),
        message(&now, "canary-metric", PULSE, "/min"),
        message(&now, "heart_rate", "\"canary-value\"", "/min"),
        message(&now, "heart_rate", PULSE, "canary-unit"),
    ];
    publish(&site, "monitor-01", [weight.clone(), pulse].into_iter().chain(no_messages).collect()).await;
    publish(&site, "monitor-02", vec![weight]).await;
    // All of it was there to be told of.
    let happened = wait_until("the readings to be sent and the rest to be held", DEADLINE, async || {
        let kept: String = site.ehr.observations().iter().map(|kept| kept.json().to_string()).collect();
        let dead_letters = command(site.gateway.config_file(), &["dead-letters", "list"]).await.ok()?;
        let sent = [WEIGHT, POLLED, PULSE, "canary-patient", "canary-polled"].iter().all(|needle| kept.contains(needle));
        (sent && dead_letters.contains("Undecodable") && dead_letters.contains("Unassigned")).then_some(())
    });
    happened.await.unwrap_or_else(|error| panic!("{error}\n{}", site.gateway.log_end()));
    site.ehr.down().await;
    publish(&site, "monitor-01", vec![message(&wall_now().rfc3339(0), "body_weight", WEIGHT, "kg")]).await;
    wait_until("the outage to be told", DEADLINE, async || {
        let status = site.gateway.status().await.ok()?;
        status["destinations"][0]["alarm"].as_str().map(drop)
    })
    .await
    .unwrap_or_else(|error| panic!("{error}\n{}", site.gateway.log_end()));
    let metrics = site.gateway.metrics().await.unwrap();
    let status = site.gateway.status().await.unwrap().to_string();
    let console = SocketAddr::from(([127, 0, 0, 1], site.gateway.config().console_port));
    let health = get(console, "/health").await.unwrap();
    site.gateway.terminate().await.unwrap();
    let log = std::fs::read_to_string(site.gateway.log_file()).unwrap();
    assert!(log.contains("ready") && health.contains("state"), "there is something to look at");
    let password = &site.credentials("monitor-01").unwrap().password;
    assert!(!password.is_empty());
    for text in [&metrics, &status, &health, &log] {
        for needle in ["Patient/", "canary", WEIGHT, POLLED, PULSE, "mm[Hg]", "heart_rate", "PRIVATE KEY", password] {
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

/// Promise 5: what is wrong elsewhere in the file by now takes away no answer of a gateway that runs, and shuts nobody in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_was_spoilt_since_takes_no_answer_away() {
    const DEADLINE: Duration = Duration::from_secs(60);
    let mut ward = Ward::start(WardOptions { mqtt_devices: 1, ..WardOptions::default() }).await.unwrap();
    ward.wait_acknowledged(1, DEADLINE).await.unwrap();
    let file = ward.gateway.config_file().to_owned();
    let sound = std::fs::read_to_string(&file).unwrap();
    let spoilt = sound.replace("vitals-json", "no-such-profile");
    std::fs::write(&file, format!("[unknown]\nkey = 1\n{spoilt}")).unwrap();
    std::fs::remove_file(ward.ehr.ca_file()).unwrap();
    let wrong = command(&file, &["check"]).await.unwrap_err().to_string();
    assert!(["unknown", "no-such-profile", "ca_file"].iter().all(|word| wrong.contains(word)), "{wrong}");

    let at = wall_now().rfc3339(0);
    assert!(command(&file, &["status"]).await.unwrap().contains("monitor-00"));
    command(&file, &["dead-letters", "list"]).await.unwrap();
    command(&file, &["trace", "--device", "monitor-00", "--at", &at, "--window-s", "86400"]).await.unwrap();
    command(&file, &["device", "revoke", "monitor-00"]).await.unwrap();
    wait_until("the revoked device to be out", DEADLINE, async || {
        let metrics = ward.gateway.metrics().await.ok()?;
        metrics.lines().any(|line| line == "vitalgate_mqtt_connections 0").then_some(())
    })
    .await
    .unwrap();
    ward.abandon_devices();
    ward.gateway.terminate().await.unwrap();
    assert!(command(&file, &["store", "stats"]).await.unwrap().contains("entries"));

    std::fs::write(&file, sound.replace("state_dir", "state_folder")).unwrap();
    let wrong = command(&file, &["status"]).await.unwrap_err().to_string();
    assert!(wrong.contains("vitalgate.toml:3: unknown key \"state_folder\"") && wrong.contains("nothing was done"), "{wrong}");
}

/// Promise 5: whoever watches a gateway finds every metric in the document, and no other. One that counts by destination, device or
/// reason is there once it has counted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_document_names_the_metrics_that_there_are() {
    const DEADLINE: Duration = Duration::from_secs(60);
    let document = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/operating.md");
    let document = std::fs::read_to_string(document).unwrap();
    let cells = document.lines().filter_map(|line| line.strip_prefix("| `vitalgate_")?.split(" | ").next());
    let names = cells.flat_map(|cell| cell.split("`vitalgate_").map(|name| name.trim_end_matches([',', ' ', '`'])));
    let documented: BTreeSet<_> = names.map(|name| format!("vitalgate_{}", name.split('{').next().unwrap())).collect();

    let mut ward = Ward::start(WardOptions { mqtt_devices: 1, modbus_devices: 1, ..WardOptions::default() }).await.unwrap();
    ward.wait_acknowledged(1, DEADLINE).await.unwrap();
    command(ward.gateway.config_file(), &["device", "revoke", "monitor-00"]).await.unwrap();
    let mut given = BTreeSet::new();
    let same = wait_until("every metric", DEADLINE, async || {
        let metrics = ward.gateway.metrics().await.ok()?;
        given = metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")).map(name_of_type).collect();
        (given == documented).then_some(())
    });
    same.await.unwrap_or_else(|error| {
        let only = |these: &BTreeSet<String>, those: &BTreeSet<String>| these.difference(those).cloned().collect::<Vec<_>>();
        panic!("{error}: not documented {:?}, not given {:?}", only(&given, &documented), only(&documented, &given))
    });
    ward.abandon_devices();
}

/// The name that the values of a metric stand under.
fn name_of_type(line: &str) -> String {
    match line.split_once(' ') {
        Some((name, "counter")) => format!("{name}_total"),
        _ => line.split(' ').next().unwrap_or_default().to_owned(),
    }
}
