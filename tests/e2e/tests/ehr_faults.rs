//! Promise 2 and 4 with an EHR that misbehaves: exactly once, poison isolated, the rest delivered.

#![allow(clippy::print_stdout, reason = "the time that was seen is part of the proof")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use vitalgate_e2e::{Ward, WardOptions};
use vitalgate_test_support::gateway::command;
use vitalgate_test_support::{EhrOptions, Fault, FaultMix, wait_until};

/// Deliveries that meet the fault before the EHR behaves again.
const TIMES: u32 = 6;
/// Longest wait until so many deliveries met it; between two of them the gateway waits longer each time.
const FAULTS_WITHIN: Duration = Duration::from_secs(90);

async fn exactly_once_through(fault: Fault, update_create: bool) -> anyhow::Result<()> {
    let options = WardOptions {
        mqtt_devices: 3,
        ehr: EhrOptions { update_create, ..EhrOptions::default() },
        more: vec![("destination".to_owned(), "request_timeout_ms = 1000".to_owned())],
        ..WardOptions::default()
    };
    let mut ward = Ward::start(options).await?;
    wait_until("the first readings in the EHR", Duration::from_secs(30), async || (ward.ehr.observation_count() > 0).then_some(())).await?;
    ward.ehr.misbehave_times(fault, TIMES);
    ward.wait_acknowledged(150, Duration::from_secs(60)).await?;
    wait_until("every fault to be met", FAULTS_WITHIN, async || (ward.ehr.faults_left() == 0).then_some(()))
        .await
        .with_context(|| format!("{} of {TIMES} were not\n{}", ward.ehr.faults_left(), ward.gateway.log_end()))?;
    ward.finish_devices(Duration::from_secs(30)).await?;
    let verdict = ward.verdict().await?;
    assert!(verdict.is_exactly_once(), "{fault:?}, PUT by id {update_create}: {verdict:?}");
    assert!(ward.ehr.duplicated_identifiers().is_empty());
    Ok(())
}

macro_rules! through {
    ($($name:ident: $fault:expr;)*) => {
        mod put_by_id {
            use super::*;
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)] async fn $name() { exactly_once_through($fault, true).await.unwrap(); })*
        }
        mod conditional_create {
            use super::*;
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)] async fn $name() { exactly_once_through($fault, false).await.unwrap(); })*
        }
    };
}

through! {
    internal_error: Fault::Status(500);
    unavailable: Fault::Status(503);
    busy_with_retry_after: Fault::Busy { retry_after_s: 1 };
    hang: Fault::Hang;
    reset_after_it_stored: Fault::ResetAfterStored;
    success_with_a_truncated_body: Fault::TruncatedBody;
    cut_in_the_answer: Fault::CutBody;
    partial_failure_of_a_batch: Fault::PartOfBatch { every: 2, status: 503 };
    too_large: Fault::Status(413);
    conflict: Fault::Status(409);
    precondition: Fault::Status(412);
}

/// Deliveries that meet each fault of the mix, at least.
const TIMES_IN_A_MIX: u64 = 2;
/// Longest wait until each was met so often.
const MIX_WITHIN: Duration = Duration::from_secs(240);

/// A mix of everything that passes by itself, a third of the requests, until each of it was met.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_random_mix_of_faults_loses_and_doubles_nothing() {
    let options = WardOptions {
        mqtt_devices: 6,
        more: vec![("destination".to_owned(), "request_timeout_ms = 1000".to_owned())],
        ..WardOptions::default()
    };
    let mut ward = Ward::start(options).await.unwrap();
    let mix = FaultMix::transient(17);
    let kinds = mix.faults.clone();
    ward.ehr.misbehave_at_random(mix);
    ward.wait_acknowledged(800, Duration::from_secs(120)).await.unwrap();
    let met = || kinds.iter().map(|fault| (*fault, ward.ehr.faults_met(*fault))).collect::<Vec<_>>();
    let all_met = async || met().iter().all(|(_, times)| *times >= TIMES_IN_A_MIX).then_some(());
    wait_until("each fault of the mix to be met", MIX_WITHIN, all_met)
        .await
        .unwrap_or_else(|error| panic!("{error}: {:?}\n{}", met(), ward.gateway.log_end()));
    println!("deliveries that met a fault: {:?}", met());
    ward.ehr.behave();
    ward.finish_devices(Duration::from_secs(30)).await.unwrap();
    let verdict = ward.verdict().await.unwrap();
    assert!(verdict.is_exactly_once(), "{verdict:?}");
}

/// Promise 2: a reading that was created there, and whose confirmation was lost with the process, is not written there once more by `PUT`
/// when that is offered or no longer forbidden after the restart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conditional_create_outlasts_the_process_whose_answer_was_lost() {
    let conditional = ("destination".to_owned(), "write = \"conditional\"".to_owned());
    let mut ward = Ward::start(WardOptions { mqtt_devices: 2, more: vec![conditional], ..WardOptions::default() }).await.unwrap();
    wait_until("the first readings in the EHR", Duration::from_secs(30), async || (ward.ehr.observation_count() > 0).then_some(()))
        .await
        .unwrap_or_else(|error| panic!("{error}\n{}", ward.gateway.log_end()));
    // The next bundle is stored, and from then on nothing is answered.
    ward.ehr.misbehave(Fault::Hang);
    ward.ehr.misbehave_times(Fault::ResetAfterStored, 1);
    wait_until("an answer to be lost", Duration::from_secs(30), async || {
        ward.gateway.metrics().await.ok()?.contains(r#"purpose="bundle",class="broken""#).then_some(())
    })
    .await
    .unwrap_or_else(|error| panic!("{error}\n{}", ward.gateway.log_end()));
    ward.gateway.kill9().await.unwrap();
    ward.ehr.behave();
    let soon = ("destination".to_owned(), "request_timeout_ms = 2000".to_owned());
    ward.gateway.configure(|config| config.more = vec![soon]).unwrap();
    ward.gateway.restart().await.unwrap();
    ward.wait_acknowledged(50, Duration::from_secs(60)).await.unwrap();
    ward.finish_devices(Duration::from_secs(30)).await.unwrap();
    let verdict = ward.verdict().await.unwrap();
    assert!(verdict.is_exactly_once(), "{verdict:?}");
    assert_eq!(ward.ehr.duplicated_identifiers(), Vec::<String>::new());
}

/// One entry that the EHR refuses becomes a dead letter with the EHR's reason; its neighbours arrive.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poisoned_entry_is_isolated_as_a_dead_letter_and_the_rest_is_delivered() {
    let mut ward = Ward::start(WardOptions { mqtt_devices: 3, ..WardOptions::default() }).await.unwrap();
    ward.ehr.poison(Some(Arc::new(|observation| {
        let code = observation["code"]["coding"][0]["code"].as_str().unwrap_or_default();
        (code == "29463-7").then(|| "weight is not accepted on this ward".to_owned())
    })));
    ward.wait_acknowledged(300, Duration::from_secs(60)).await.unwrap();
    ward.finish_devices(Duration::from_secs(30)).await.unwrap();
    // Until all are, a replay would leave out those whose refusal is not on disk yet.
    wait_until("everything to be delivered or refused", Duration::from_secs(60), async || {
        let status = ward.gateway.status().await.ok()?;
        (status["destinations"][0]["queued"] == 0).then_some(())
    })
    .await
    .unwrap_or_else(|error| panic!("{error}\n{}", ward.gateway.log_end()));
    let verdict = ward.oracle.compare(&ward.ehr.sightings());
    assert!(verdict.lost_count() > 0, "the poison was delivered");
    assert!(verdict.lost.iter().all(|line| line.contains("body_weight")), "{verdict:?}");
    assert_eq!(verdict.duplicated_count(), 0, "{verdict:?}");
    wait_until("the EHR's own reason to be listed", Duration::from_secs(30), async || {
        let listed = command(ward.gateway.config_file(), &["dead-letters", "list"]).await.ok()?;
        listed.contains("weight is not accepted on this ward").then_some(())
    })
    .await
    .unwrap_or_else(|error| panic!("{error}\n{}", ward.gateway.log_end()));

    // Promise 4: once the EHR is mended they can be replayed, and arrive once.
    ward.ehr.poison(None);
    command(ward.gateway.config_file(), &["dead-letters", "replay"]).await.unwrap();
    let verdict = ward.verdict().await.unwrap();
    assert!(verdict.is_exactly_once(), "{verdict:?}");
}

/// Wrong credentials pause the delivery; nothing becomes a dead letter.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_credentials_pause_and_raise_an_alarm() {
    let mut ward = Ward::start(WardOptions { mqtt_devices: 2, ..WardOptions::default() }).await.unwrap();
    ward.ehr.misbehave(Fault::Status(403));
    ward.wait_acknowledged(60, Duration::from_secs(30)).await.unwrap();
    wait_until("the alarm", Duration::from_secs(30), async || {
        let status = ward.gateway.status().await.ok()?;
        status["destinations"][0]["alarm"].as_str().map(str::to_owned)
    })
    .await
    .unwrap();
    let status = ward.gateway.status().await.unwrap();
    assert_eq!(status["store"]["dead_letters"], 0, "{status}");
    ward.ehr.behave();
    ward.finish_devices(Duration::from_secs(30)).await.unwrap();
    assert!(ward.verdict().await.unwrap().is_exactly_once());
}

/// After an outage that is long enough for any back-off to have grown, what waits is on its way again within seconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_return_of_the_ehr_is_noticed_within_seconds() {
    /// Two seconds by the rule for probes, and the rest for a busy machine.
    const NOTICED_WITHIN: Duration = Duration::from_secs(8);
    /// Long enough for a back-off that doubles to have come far beyond that, in seconds.
    const OUTAGE_S: u64 = 30;
    let mut ward = Ward::start(WardOptions { mqtt_devices: 3, ..WardOptions::default() }).await.unwrap();
    let silent_s = async |ward: &Ward| ward.gateway.status().await.ok()?["destinations"][0]["last_acknowledgement_age_s"].as_u64();
    wait_until("the first delivery", Duration::from_secs(30), async || silent_s(&ward).await).await.unwrap();
    ward.ehr.down().await;
    ward.wait_acknowledged(60, Duration::from_secs(30)).await.unwrap();
    wait_until("the outage to last", Duration::from_secs(90), async || silent_s(&ward).await.filter(|silent_s| *silent_s >= OUTAGE_S))
        .await
        .unwrap_or_else(|error| panic!("{error}\n{}", ward.gateway.log_end()));
    let before = ward.ehr.observation_count();
    ward.ehr.up().await.unwrap();
    let back = Instant::now();
    wait_until("the first reading after the outage", Duration::from_secs(60), async || {
        (ward.ehr.observation_count() > before).then_some(())
    })
    .await
    .unwrap();
    let noticed = back.elapsed();
    println!("the EHR's return was noticed after {} ms", noticed.as_millis());
    assert!(noticed <= NOTICED_WITHIN, "noticed after {noticed:?}");
    ward.finish_devices(Duration::from_secs(30)).await.unwrap();
    assert!(ward.verdict().await.unwrap().is_exactly_once());
}
