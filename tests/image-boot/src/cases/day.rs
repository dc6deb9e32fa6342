//! A day in the life: flashed, commissioned, updated while readings flow, a power cut under load, a bad
//! update undone. In the end every acknowledged reading is in the EHR exactly once.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use vitalgate_layout::{StateWord, stick as labels};
use vitalgate_simulator::SERVED_METRICS;
use vitalgate_test_support::wait_until;

use super::nothing_else;
use crate::appliance::{Appliance, Updated};
use crate::evidence::{Evidence, figure, tenths};
use crate::image::Image;
use crate::machine::console::Heard;
use crate::machine::{Running, Surroundings, patience};
use crate::practice::Devices;
use crate::stick::Stick;

/// Longest install, restart included, until the machine goes off.
const INSTALL_WITHIN: Duration = Duration::from_secs(600);
/// Longest wait for readings.
const READINGS_WITHIN: Duration = Duration::from_secs(120);
/// Readings that show that they flow.
const SOME: u64 = 100;
/// The same of the polled device: more than one poll.
const SOME_POLLED: usize = 2 * SERVED_METRICS.len();
/// Polls that may have been read and not stored: one for each of the six starts, commissioning among them, one each for the self
/// test of commissioning and the end.
const CUT_OFF_MAX: u64 = 8;

pub(super) async fn run(evidence: &mut Evidence) -> anyhow::Result<()> {
    Updated::forget()?;
    let first = Image::first()?;
    let mut appliance = Appliance::commission(&first, evidence).await?;
    // What was commissioned stays as it is, for other cases.
    let twin = appliance.machine.duplicate(&std::path::Path::new(crate::evidence::FOLDER).join("day-machine"), evidence.folder()).await?;
    appliance.machine = twin;
    let mut devices = appliance.devices()?;

    let running = first_service(&mut appliance, &mut devices, evidence).await?;
    let second = Image::second()?;
    let running = update(&mut appliance, &mut devices, running, &second, evidence).await?;

    devices.more(SOME, READINGS_WITHIN).await?;
    evidence.say(&format!("power cut under load, {} acknowledged", devices.acknowledged()));
    running.cut().await?;
    Updated { first: &first, second: &second }.keep(&appliance.machine, evidence).await?;
    let running = appliance.boot(evidence).await?;
    devices.more(SOME, READINGS_WITHIN).await?;
    evidence.check("readings are taken after the power cut", true);
    polled_again(&appliance, "after the power cut", evidence).await;

    let broken = Image::broken()?;
    let running = undone(&mut appliance, &mut devices, running, &second, &broken, evidence).await?;
    devices.more(SOME, READINGS_WITHIN).await?;
    polled_again(&appliance, "after the version was undone", evidence).await;
    devices.finish(READINGS_WITHIN).await?;
    count(&appliance, &mut devices, &running, evidence).await?;
    running.cut().await
}

/// The first day: readings of publishing and polled devices arrive.
async fn first_service(appliance: &mut Appliance, devices: &mut Devices, evidence: &mut Evidence) -> anyhow::Result<Running> {
    let began = Instant::now();
    let mut running = appliance.machine.power_on(&Surroundings::default()).await?;
    devices.more(1, Duration::from_secs(400)).await.with_context(|| running.console.end())?;
    let first = began.elapsed().as_secs_f64();
    evidence.check(&format!("the first reading is accepted {first:.0} s after power on"), true);
    figure("boot_to_first_reading_s", tenths(first))?;
    match running.state(&[StateWord::Ready], READINGS_WITHIN).await? {
        Heard::Yes((word, _), at) => evidence.check(&format!("{word} {:.0} s after power on", at.as_secs_f64()), true),
        Heard::Off => anyhow::bail!("it went off\n{}", running.console.end()),
    }
    devices.more(SOME, READINGS_WITHIN).await?;
    polled_again(appliance, "on the first day", evidence).await;
    let status = appliance.status(&running, "the status page", serde_json::Value::is_object).await;
    if let Some(status) = evidence.outcome("the status page answers with the certificate of the console's fingerprint", status) {
        evidence.keep("page-v1.json", serde_json::to_string_pretty(&status)?);
        if let Ok(html) = appliance.page(&running)?.get("/").await {
            evidence.keep("page-v1.html", html);
        }
    }
    // For the manual.
    let _ = running.screenshot(&evidence.folder().join("screen-ready.png")).await;
    Ok(running)
}

/// Installs from a stick while readings flow, until the machine restarts by itself.
async fn install(
    appliance: &Appliance,
    devices: &mut Devices,
    running: &mut Running,
    image: &Image,
    evidence: &mut Evidence,
) -> anyhow::Result<Stick> {
    let file = appliance.machine.evidence().join(format!("update-{}.img", image.version));
    let stick = Stick::new(&file, labels::UPDATE, &[("update.raucb", &image.bundle())]).await?;
    let before = devices.acknowledged();
    running.plug(&stick).await?;
    match running.state(&[StateWord::Updating], INSTALL_WITHIN).await? {
        Heard::Yes(..) => evidence.check(&format!("{} is being installed", image.version), true),
        Heard::Off => anyhow::bail!("it went off before it said that it installs\n{}", running.console.end()),
    }
    running.ended(INSTALL_WITHIN).await?;
    let meanwhile = devices.acknowledged() - before;
    evidence.check(&format!("{meanwhile} readings were acknowledged during the installation of {}", image.version), meanwhile > 0);
    Ok(stick)
}

async fn update(
    appliance: &mut Appliance,
    devices: &mut Devices,
    mut running: Running,
    image: &Image,
    evidence: &mut Evidence,
) -> anyhow::Result<Running> {
    let began = Instant::now();
    let stick = install(appliance, devices, &mut running, image, evidence).await?;
    drop(running);
    let running = appliance.boot(evidence).await?;
    let took = began.elapsed().as_secs_f64();
    figure("update_s", tenths(took))?;
    let version = image.version.clone();
    let status = appliance.status(&running, "the new version on the page", |status| says_version(status, &version)).await;
    if let Some(status) = evidence.outcome(&format!("{version} is in service {took:.0} s after the stick came in"), status) {
        evidence.keep("page-v2.json", serde_json::to_string_pretty(&status)?);
    }
    if let Some(report) = stick.text(labels::UPDATE_REPORT).await {
        evidence.keep("update-report-v2.txt", report);
        evidence.check("the stick carries a report of the update", true);
    } else {
        evidence.check("the stick carries a report of the update", false);
    }
    devices.more(SOME, READINGS_WITHIN).await?;
    polled_again(appliance, "after the update", evidence).await;
    Ok(running)
}

/// A version whose daemon fails: the appliance returns by itself and says why.
async fn undone(
    appliance: &mut Appliance,
    devices: &mut Devices,
    mut running: Running,
    before: &Image,
    broken: &Image,
    evidence: &mut Evidence,
) -> anyhow::Result<Running> {
    install(appliance, devices, &mut running, broken, evidence).await?;
    drop(running);
    let mut failing = appliance.machine.power_on(&Surroundings::default()).await?;
    failing.ended(INSTALL_WITHIN).await?;
    let gave_up = |line: &str| line.contains("ROLLED-BACK").then_some(());
    let said = failing.console.wait("that it gave itself up", READINGS_WITHIN, gave_up).await?;
    evidence.check(&format!("{} gave itself up in its first start", broken.version), matches!(said, Heard::Yes(..)));
    drop(failing);
    let running = appliance.boot(evidence).await?;
    let version = before.version.clone();
    let status = appliance.status(&running, "the old version on the page", |status| says_version(status, &version)).await;
    evidence.outcome(&format!("{version} is in service again"), status);
    // The slots are told when this start has shown that it is healthy.
    let told = |status: &serde_json::Value| status["updates"]["last_rollback"].is_string();
    let status = appliance.status(&running, "the reason on the page", told).await;
    if let Some(status) = evidence.outcome("the page shows why the version was undone", status) {
        let reason = status["updates"]["last_rollback"].as_str().unwrap_or_default();
        evidence.check(
            &format!("the reason names version and cause: {reason}"),
            reason.starts_with(&broken.version) && reason.contains("gateway"),
        );
        evidence.keep("page-undone.json", serde_json::to_string_pretty(&status)?);
        if let Ok(html) = appliance.page(&running)?.get("/").await {
            evidence.keep("page-undone.html", html);
        }
    }
    Ok(running)
}

fn says_version(status: &serde_json::Value, version: &str) -> bool {
    status["identity"]["version"] == version
}

/// What is read of the polled device from now on arrives as well.
async fn polled_again(appliance: &Appliance, when: &str, evidence: &mut Evidence) {
    let practice = &appliance.practice;
    let known = practice.polled_observations();
    let more = async || (practice.polled_observations() >= known + SOME_POLLED).then_some(());
    let arrived = wait_until("polled readings in the EHR", patience(READINGS_WITHIN), more).await;
    evidence.outcome(&format!("readings of the polled device arrive {when}"), arrived);
}

/// Compares what was acknowledged and what was read with what arrived.
async fn count(appliance: &Appliance, devices: &mut Devices, running: &Running, evidence: &mut Evidence) -> anyhow::Result<()> {
    let polled = devices.count_polls(&appliance.practice)?;
    devices.verdict(&appliance.practice).await;
    let is_done = |status: &serde_json::Value| status["queue"]["depth"] == 0;
    let status = appliance.status(running, "an empty queue", is_done).await;
    if let Some(status) = evidence.outcome("nothing is queued any more", status) {
        evidence.check("nothing is held or refused", status["queue"]["dead_letters"] == 0);
    }
    let verdict = devices.verdict(&appliance.practice).await;
    evidence.say(&verdict.to_string());
    let polls = verdict.polls.get(&polled).copied().unwrap_or_default();
    evidence.say(&format!("the polled device: {polls:?}"));
    evidence.keep("verdict.txt", verdict.to_string());
    figure("acknowledged", verdict.acknowledged)?;
    figure("lost", verdict.lost_count())?;
    figure("doubled", verdict.duplicated_count())?;
    evidence.check("every acknowledged reading is in the EHR exactly once", verdict.acknowledged > SOME && verdict.is_exactly_once());
    nothing_else(appliance, &verdict, evidence);
    evidence.check("polls were cut off by the end of their connection only now and then", polls.cut_off <= CUT_OFF_MAX);
    evidence.check("no identifier is carried by two resources", appliance.practice.ehr.duplicated_identifiers().is_empty());
    Ok(())
}
