//! A full disk: what is acknowledged is stored, what has no room is not acknowledged, and it goes on by
//! itself when the EHR has taken what waited.

use std::time::{Duration, Instant};

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
/// How long it has to take nothing.
const WATCHED_FOR: Duration = Duration::from_secs(60);
/// Longest until that is so: what the store needs for a while only, it gives back once it has caught up.
const STAYS_FULL_WITHIN: Duration = Duration::from_secs(600);
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
    stays_full("filled", &appliance, &running, &mut devices, evidence).await?;
    running.cut().await?;
    let (running, _) = appliance.machine.boot_to(&Surroundings::default(), &[StateWord::StoreFull]).await?;
    evidence.check("after a power cut it says again that it is full", true);
    stays_full("started", &appliance, &running, &mut devices, evidence).await?;

    goes_on(&appliance, &running, &mut devices, evidence).await?;
    running.cut().await
}

/// Until nothing more is taken.
async fn flood(running: &mut Running, devices: &mut Devices, evidence: &mut Evidence) -> anyhow::Result<()> {
    let began = Instant::now();
    let full = running.state(&[StateWord::StoreFull], FULL_WITHIN).await?;
    let (took, count) = (began.elapsed().as_secs_f64(), devices.acknowledged());
    evidence.check(
        &format!("the console says that it is full, {took:.0} s and {count} acknowledged readings later: {full:?}"),
        matches!(full, Heard::Yes(..)),
    );
    figure("full_after_readings", count)?;
    figure("full_readings_per_s", tenths(count as f64 / took))
}

/// Below the floor no reading is acknowledged, for as long as one looks; page and health say why. Room that the store gives
/// back first, once its second copy has caught up, it may fill again.
async fn stays_full(
    when: &str,
    appliance: &Appliance,
    running: &Running,
    devices: &mut Devices,
    evidence: &mut Evidence,
) -> anyhow::Result<()> {
    let (began, at_first) = (Instant::now(), devices.acknowledged());
    let (mut quiet_since, mut before) = (began, at_first);
    let mut watch = FloorWatch::default();
    let mut tick = tokio::time::interval(LOOK_EVERY);
    let full = loop {
        tick.tick().await;
        if began.elapsed() >= patience(STAYS_FULL_WITHIN) {
            break None;
        }
        let now = devices.acknowledged();
        // A page that answers late says nothing.
        let Ok(status) = appliance.page(running)?.status().await else { continue };
        watch.look(&status);
        if now > before || status["word"] != "STORE-FULL" {
            (quiet_since, before) = (Instant::now(), now);
        }
        if quiet_since.elapsed() >= patience(WATCHED_FOR) {
            break Some(status);
        }
    };
    evidence.keep(&format!("page-{when}.txt"), watch.trace);
    let more = before - at_first;
    evidence.check(
        &format!(
            "nothing is acknowledged for {:.0} s ({more} readings before, {:.0} s in all)",
            patience(WATCHED_FOR).as_secs_f64(),
            began.elapsed().as_secs_f64()
        ),
        full.is_some(),
    );
    let Some(status) = full else { return Ok(()) };
    evidence.keep(&format!("page-{when}.json"), serde_json::to_string_pretty(&status)?);
    evidence.check(
        &format!("at least {:.1} MiB were free, the floor is at {:.1}: it is kept for others", watch.least / MIB, watch.floor / MIB),
        watch.floor > 0.0 && watch.least > watch.floor - SEGMENT_BYTES,
    );
    let free = bytes_of(&status, "free_bytes").unwrap_or(f64::INFINITY);
    evidence.check(&format!("{:.1} MiB are free: no room for a segment", free / MIB), free < watch.floor + SEGMENT_BYTES);
    let health = appliance.page(running)?.get("/health").await;
    let refusal = health.as_ref().err().map(ToString::to_string).unwrap_or_default();
    evidence.check(&format!("/health is not well: {refusal}"), refusal.contains("503"));
    let waits = status["queue"]["depth"].as_u64().unwrap_or_default();
    evidence.check(&format!("{waits} readings wait for the EHR, {before} are acknowledged"), waits >= before);
    Ok(())
}

/// What the pages said of the disk's room.
struct FloorWatch {
    least: f64,
    floor: f64,
    trace: String,
}

impl Default for FloorWatch {
    fn default() -> Self {
        Self { least: f64::INFINITY, floor: 0.0, trace: String::new() }
    }
}

impl FloorWatch {
    fn look(&mut self, status: &Value) {
        let Some(free) = bytes_of(status, "free_bytes") else { return };
        self.least = self.least.min(free);
        self.floor = bytes_of(status, "floor_bytes").unwrap_or(self.floor);
        self.trace.push_str(&format!("{} {free} {}\n", status["word"], status["queue"]["depth"]));
    }
}

fn bytes_of(status: &Value, name: &str) -> Option<f64> {
    status["queue"][name].as_f64()
}

/// The EHR is back: everything that waited arrives, readings are taken again without anybody's help.
async fn goes_on(appliance: &Appliance, running: &Running, devices: &mut Devices, evidence: &mut Evidence) -> anyhow::Result<()> {
    let waited = devices.acknowledged();
    let began = Instant::now();
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
