//! Promise 3: no reading reaches the EHR without a patient, and none reaches another patient than that of its own moment.

// Helpers of tests are not test functions for clippy.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use vitalgate_domain::{DeviceId, UnixMs};
use vitalgate_e2e::Site;
use vitalgate_e2e::ward::recording;
use vitalgate_simulator::replay::wall_now;
use vitalgate_simulator::{Message, MqttMonitor};
use vitalgate_test_support::gateway::command;
use vitalgate_test_support::{DeviceLine, Oracle, wait_until};

const DEADLINE: Duration = Duration::from_secs(60);
/// Messages on their way at a time: one after the other, a slow disk would take longer than the deadline.
const IN_FLIGHT: usize = 20;
const DEVICE: &str = "monitor-01";

fn device(patient: Option<&str>) -> DeviceLine {
    DeviceLine { patient: patient.map(str::to_owned), ..DeviceLine::mqtt(DeviceId::new(DEVICE).unwrap(), "") }
}

/// Publishes one message for each moment and waits until all are acknowledged; gives how many readings they are.
async fn publish(site: &Site, times: &[UnixMs], oracle: &mut Oracle) -> u64 {
    let recording = recording().unwrap();
    let sets = recording.sets(recording.patients().next().unwrap()).to_vec();
    let (source, messages) = mpsc::channel(times.len());
    for (counter, (time, set)) in (0..).zip(times.iter().zip(sets.iter().cycle())) {
        source.send(Message::of_set(set, *time, counter)).await.unwrap();
    }
    drop(source);
    let (acknowledge, mut acknowledged) = mpsc::unbounded_channel();
    let (_stop, stopped) = watch::channel(false);
    let monitor = MqttMonitor { in_flight_max: IN_FLIGHT, ..site.monitor(DEVICE).unwrap() };
    let report = tokio::time::timeout(DEADLINE, monitor.run(messages, acknowledge, stopped)).await.unwrap();
    assert_eq!((report.acknowledged, report.left), (times.len() as u64, 0), "{}", site.gateway.log_end());
    let before = oracle.count();
    while let Ok(one) = acknowledged.try_recv() {
        oracle.acknowledged(&one);
    }
    oracle.count() - before
}

/// One that is not told whose the readings are: that changes here.
fn oracle_of(site: &Site) -> Oracle {
    Oracle::new(site.gateway.config().namespace().unwrap())
}

async fn held(site: &Site, readings: u64) {
    wait_until(&format!("{readings} readings to be held"), DEADLINE, async || {
        (site.gateway.status().await.ok()?["store"]["dead_letters"] == readings).then_some(())
    })
    .await
    .unwrap_or_else(|error| panic!("{error}\n{}", site.gateway.log_end()));
}

async fn arrived(site: &Site, oracle: &Oracle) {
    wait_until("the readings in the EHR", DEADLINE, async || (site.ehr.missing_of(oracle) == 0).then_some(()))
        .await
        .unwrap_or_else(|error| panic!("{error}\n{}", site.gateway.log_end()));
}

async fn reconfigured(site: &mut Site, patient: &str, since: Option<UnixMs>) {
    site.gateway.terminate().await.unwrap();
    let line = DeviceLine { patient_since: since.map(|since| since.rfc3339(60)), ..device(Some(patient)) };
    site.gateway.configure(|config| config.devices = vec![line]).unwrap();
    site.gateway.restart().await.unwrap();
}

async fn replayed(site: &Site) -> String {
    command(site.gateway.config_file(), &["dead-letters", "replay"]).await.unwrap()
}

/// For each moment the patients that Observations of it name.
fn patients_by_moment(site: &Site) -> BTreeMap<String, BTreeSet<String>> {
    let mut patients: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for observation in site.observations(DEVICE) {
        let moment = observation["effectiveDateTime"].as_str().unwrap().to_owned();
        patients.entry(moment).or_default().insert(observation["subject"]["reference"].as_str().unwrap_or_default().to_owned());
    }
    patients
}

fn all_at(times: &[UnixMs], patient: &str) -> Vec<(String, BTreeSet<String>)> {
    times.iter().map(|time| (time.rfc3339(0), BTreeSet::from([patient.to_owned()]))).collect()
}

/// No blood pressure came in two pieces: of each moment there is one of its kind (by cuff, in the artery).
fn panels_are_whole(site: &Site) {
    let observations = site.observations(DEVICE);
    let panels = observations.iter().filter(|observation| observation["component"].is_array());
    let known: Vec<_> = panels.map(|panel| (panel["effectiveDateTime"].to_string(), panel["code"].to_string())).collect();
    assert!(!known.is_empty(), "the recording has blood pressures");
    assert_eq!(BTreeSet::from_iter(&known).len(), known.len(), "a blood pressure was cut in two");
}

fn moments(first: UnixMs, count: i64) -> Vec<UnixMs> {
    (0..count).map(|number| first.plus_ms(number * 1_000)).collect()
}

/// A device that nobody is attached to: taken, acknowledged, shown, kept over a restart, never sent; and sent once when the
/// patient was named and somebody entitled asked for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_without_a_patient_is_held_and_shown_and_goes_once_when_its_patient_is_named() {
    let mut site = Site::start(vec![device(None)], |_| {}).await.unwrap();
    let mut oracle = oracle_of(&site);
    let begin = wall_now();
    let unassigned = publish(&site, &moments(begin.plus_ms(-600_000), 500), &mut oracle).await;
    assert!(unassigned > 1_000, "more than one request takes");
    held(&site, unassigned).await;
    // The count may be known before the reasons.
    let mut listed = String::new();
    let shown = wait_until("the reasons to be listed", DEADLINE, async || {
        listed = command(site.gateway.config_file(), &["dead-letters", "list"]).await.ok()?;
        ["Unassigned", DEVICE, "no patient was associated"].iter().all(|word| listed.contains(word)).then_some(())
    });
    shown.await.unwrap_or_else(|error| panic!("{error}\n{listed}"));
    assert!(replayed(&site).await.starts_with("0 replayed"), "there is still no patient");

    reconfigured(&mut site, "Patient/p1", None).await;
    let later = moments(begin.plus_ms(60_000), 3);
    let mut known = oracle_of(&site);
    publish(&site, &later, &mut known).await;
    arrived(&site, &known).await;
    assert_eq!(patients_by_moment(&site), all_at(&later, "Patient/p1").into_iter().collect(), "what was held went by itself");
    held(&site, unassigned).await;

    assert!(replayed(&site).await.starts_with(&format!("{unassigned} replayed, 0 remain")));
    arrived(&site, &oracle).await;
    held(&site, 0).await;
    assert!(replayed(&site).await.starts_with("0 replayed, 0 remain"));
    let verdict = oracle.compare(&site.ehr.sightings());
    assert!(verdict.lost_count() == 0 && verdict.duplicated_count() == 0, "{verdict:?}");
    assert_eq!(site.ehr.duplicated_identifiers(), Vec::<String>::new());
    assert!(patients_by_moment(&site).values().all(|patients| *patients == BTreeSet::from(["Patient/p1".to_owned()])));
    panels_are_whole(&site);
}

/// A device goes from one patient to the next while the EHR is away. Each reading goes to the patient of its own moment, what
/// the device kept from between the two to nobody until somebody says whose it is; no restart and no replay changes that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_goes_to_another_patient_takes_no_reading_along() {
    let mut site = Site::start(vec![device(Some("Patient/a"))], |_| {}).await.unwrap();
    let mut oracle = oracle_of(&site);
    site.ehr.down().await;
    let since = wall_now();
    let of_a = moments(since.plus_ms(-600_000), 5);
    publish(&site, &of_a, &mut oracle).await;

    reconfigured(&mut site, "Patient/b", Some(since)).await;
    let between = moments(since.plus_ms(-3_000), 3);
    let mut kept = oracle_of(&site);
    let kept_readings = publish(&site, &between, &mut kept).await;
    let of_b = moments(since, 4);
    publish(&site, &of_b, &mut oracle).await;
    held(&site, kept_readings).await;
    assert!(replayed(&site).await.starts_with("0 replayed"), "nobody said whose they are");

    site.ehr.up().await.unwrap();
    arrived(&site, &oracle).await;
    let mut expected = [all_at(&of_a, "Patient/a"), all_at(&of_b, "Patient/b")].concat();
    assert_eq!(patients_by_moment(&site), expected.iter().cloned().collect());

    // The ward's list says: the device was at the first patient until then.
    reconfigured(&mut site, "Patient/a", None).await;
    replayed(&site).await;
    arrived(&site, &kept).await;
    held(&site, 0).await;
    expected.extend(all_at(&between, "Patient/a"));
    assert_eq!(patients_by_moment(&site), expected.into_iter().collect());
    assert_eq!(site.ehr.duplicated_identifiers(), Vec::<String>::new());
}
