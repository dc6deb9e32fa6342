//! A full disk: what is acknowledged is stored, what has no room is not acknowledged, and it goes on by
//! itself when the EHR has taken what waited.

use std::time::Duration;

use serde_json::Value;
use vitalgate_layout::{StateWord, stick as labels};
use vitalgate_test_support::wait_until;

use crate::appliance::{Appliance, Order, practice};
use crate::evidence::{Evidence, figure, tenths};
use crate::image::Image;
use crate::machine::console::Heard;
use crate::machine::{Running, Surroundings, patience};
use crate::practice::{Devices, SiteOptions};

/// Size of the virtual disk in bytes: the sealed storage has about as little as it works with.
const SMALL_DISK_BYTES: u64 = 832 * 1024 * 1024;
/// Longest flood until nothing more is taken.
const FULL_WITHIN: Duration = Duration::from_secs(1_200);
/// How long it is watched while it takes nothing.
const WATCHED_FOR: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_secs(3);
/// Longest wait until the EHR has everything that waited.
const DRAINED_WITHIN: Duration = Duration::from_secs(900);
const READINGS_WITHIN: Duration = Duration::from_secs(120);
/// Readings that show that they are taken.
const SOME: u64 = 50;
/// What the store takes from the disk at once, in bytes.
const SEGMENT_BYTES: f64 = 16.0 * MIB;
const MIB: f64 = 1024.0 * 1024.0;

pub(super) async fn run(first: &Image, evidence: &mut Evidence) -> anyhow::Result<()> {
    let practice = practice().await?;
    // What was delivered gives its space back at once.
    let site = practice.site_text_with(&SiteOptions { retention_days: Some(0), ..SiteOptions::default() })?;
    let order = Order { machine: "full-machine", disk_bytes: SMALL_DISK_BYTES, site, surroundings: Surroundings::default() };
    let mut appliance = Appliance::commission_as(first, &order, practice, evidence).await?;
    appliance.practice.ehr.down().await;
    let mut running = appliance.boot(evidence).await?;
    let mut devices = Devices::start_with(&appliance.handed_over.join(labels::DEVICES), appliance.machine.mqtt_port, Duration::ZERO)?;
    devices.more(SOME, READINGS_WITHIN).await?;

    flood(&mut running, &mut devices, evidence).await?;
    takes_nothing(&appliance, &running, &mut devices, evidence).await?;
    running.cut().await?;
    let before = devices.acknowledged();
    let (running, _) = appliance.machine.boot_to(&Surroundings::default(), &[StateWord::StoreFull]).await?;
    evidence.check("after a power cut it says again that it is full", true);
    let more = devices.acknowledged() - before;
    evidence.check(&format!("{more} readings were acknowledged by the start on the full disk"), more == 0);

    goes_on(&appliance, &running, &mut devices, evidence).await?;
    running.cut().await
}

/// Until nothing more is taken.
async fn flood(running: &mut Running, devices: &mut Devices, evidence: &mut Evidence) -> anyhow::Result<()> {
    let began = std::time::Instant::now();
    let full = running.state(&[StateWord::StoreFull], FULL_WITHIN).await?;
    let (took, count) = (began.elapsed().as_secs_f64(), devices.acknowledged());
    evidence.check(
        &format!("the console says that it is full, {took:.0} s and {count} acknowledged readings later: {full:?}"),
        matches!(full, Heard::Yes(..)),
    );
    figure("full_after_readings", count)?;
    figure("full_readings_per_s", tenths(count as f64 / took))
}

/// Below the floor no reading is acknowledged, for as long as one looks; page and health say why.
async fn takes_nothing(appliance: &Appliance, running: &Running, devices: &mut Devices, evidence: &mut Evidence) -> anyhow::Result<()> {
    let status = appliance.status(running, "the page says that it is full", |status| status["word"] == "STORE-FULL").await?;
    evidence.keep("page-full.json", serde_json::to_string_pretty(&status)?);
    let bytes = |name: &str| status["queue"][name].as_f64().unwrap_or_default();
    let (free, floor) = (bytes("free_bytes"), bytes("floor_bytes"));
    let full = floor > 0.0 && free < floor + SEGMENT_BYTES;
    evidence.check(&format!("{:.1} MiB are free, the floor is at {:.1}: no room for a segment", free / MIB, floor / MIB), full);
    evidence.check("the floor is kept for others", free > floor - SEGMENT_BYTES);
    let health = appliance.page(running)?.get("/health").await;
    let refusal = health.as_ref().err().map(ToString::to_string).unwrap_or_default();
    evidence.check(&format!("/health is not well: {refusal}"), refusal.contains("503"));

    let before = devices.acknowledged();
    let watched = tokio::time::timeout(patience(WATCHED_FOR), changed(appliance, running, devices, before)).await;
    match watched {
        Err(_) => evidence.check(&format!("nothing more is acknowledged for {:.0} s", patience(WATCHED_FOR).as_secs_f64()), true),
        Ok(what) => evidence.check(&format!("nothing more is acknowledged, but {what}"), false),
    }
    let waits = status["queue"]["depth"].as_u64().unwrap_or_default();
    evidence.check(&format!("{waits} readings wait for the EHR, {before} are acknowledged"), waits >= before);
    Ok(())
}

/// Ends when it takes a reading, or no longer says that it is full.
async fn changed(appliance: &Appliance, running: &Running, devices: &mut Devices, before: u64) -> String {
    let mut tick = tokio::time::interval(LOOK_EVERY);
    loop {
        tick.tick().await;
        let more = devices.acknowledged() - before;
        if more > 0 {
            return format!("{more} were");
        }
        let Ok(page) = appliance.page(running) else { return "the page is gone".to_owned() };
        // A page that answers late says nothing.
        if let Ok(status) = page.status().await
            && status["word"] != "STORE-FULL"
        {
            return format!("the page says {}", status["word"]);
        }
    }
}

/// The EHR is back: everything that waited arrives, readings are taken again without anybody's help.
async fn goes_on(appliance: &Appliance, running: &Running, devices: &mut Devices, evidence: &mut Evidence) -> anyhow::Result<()> {
    let waited = devices.acknowledged();
    let began = std::time::Instant::now();
    appliance.practice.ehr.up().await?;
    devices.more(SOME, DRAINED_WITHIN).await?;
    let took = tenths(began.elapsed().as_secs_f64());
    figure("full_goes_on_after_s", took)?;
    evidence.check(&format!("readings are taken again {took} s after the EHR is back"), true);
    devices.finish(READINGS_WITHIN).await?;
    let acknowledged = devices.acknowledged();
    let arrived = async || (appliance.practice.ehr.missing_of(&devices.oracle) == 0).then_some(());
    // What does not arrive is counted by the comparison.
    let _ = wait_until("everything in the EHR", patience(DRAINED_WITHIN), arrived).await;
    evidence.say(&format!(
        "{acknowledged} acknowledged, {waited} of them before the EHR was back; drained after {:.0} s",
        began.elapsed().as_secs_f64()
    ));
    let verdict = devices.verdict(&appliance.practice).await;
    evidence.say(&verdict.to_string());
    evidence.check("every acknowledged reading is in the EHR exactly once", verdict.acknowledged > SOME && verdict.is_exactly_once());
    let well =
        |status: &Value| status["word"] != "STORE-FULL" && status["queue"]["free_bytes"].as_u64() > status["queue"]["floor_bytes"].as_u64();
    let status = appliance.status(running, "there is room again", well).await;
    if let Some(status) = evidence.outcome("the page says that there is room again", status) {
        evidence.say(&format!("{}: {}", status["word"], status["queue"]));
        evidence.keep("page-drained.json", serde_json::to_string_pretty(&status)?);
    }
    Ok(())
}
