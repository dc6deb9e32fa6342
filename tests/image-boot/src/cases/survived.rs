//! What the appliance lives through: power cuts during an installation, another TPM, no clock and no
//! network, a full disk.

use std::time::Duration;

use anyhow::Context as _;
use vitalgate_layout::{StateWord, stick as labels};

use super::exactly_once;
use crate::appliance::{Appliance, IN_SERVICE};
use crate::evidence::{Evidence, figure};
use crate::image::Image;
use crate::machine::console::Heard;
use crate::machine::{Running, Surroundings, patience};
use crate::stick::Stick;

/// Points of an installation at which the power is cut, in hundredths of what it copies and unpacks. Journals and what is
/// taken meanwhile are written besides, so that it ends somewhere above 100; the last point is its end.
const CUTS: [u64; 14] = [1, 20, 45, 52, 60, 70, 80, 90, 100, 106, 112, 118, 124, 1000];
/// How often the written bytes are asked for.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// What the console says last before the restart into the new version.
const INSTALLED: &str = "is installed; the appliance restarts now";
const INSTALL_WITHIN: Duration = Duration::from_secs(600);
const READINGS_WITHIN: Duration = Duration::from_secs(120);
const OPENED_WITHIN: Duration = Duration::from_secs(300);
/// Readings that show that they are taken.
const SOME: u64 = 50;

pub(super) async fn run(evidence: &mut Evidence) -> anyhow::Result<()> {
    let first = Image::first()?;
    if evidence.wants("alone") {
        let outcome = nothing_around(&first, evidence).await;
        evidence.outcome("no clock, no network, garbage on a stick", outcome);
    }
    if evidence.wants("tpm") {
        let outcome = another_tpm(&first, evidence).await;
        evidence.outcome("another TPM", outcome);
    }
    if evidence.wants("cuts") {
        let outcome = cuts(&first, &Image::second()?, evidence).await;
        evidence.outcome("power cuts during an installation", outcome);
    }
    if evidence.wants("full") {
        let outcome = super::full::run(&first, evidence).await;
        evidence.outcome("a full disk", outcome);
    }
    Ok(())
}

/// The clock at 1970, no way out for the whole run, a stick of garbage: readings are taken and kept, and
/// are in the EHR exactly once when there is a network.
async fn nothing_around(first: &Image, evidence: &mut Evidence) -> anyhow::Result<()> {
    let mut appliance = Appliance::commissioned(first, "survived-machine", evidence).await?;
    let mut devices = appliance.devices()?;
    // An appliance that was commissioned just now has delivered what it polled.
    let before = appliance.practice.ehr.observation_count();
    let alone = Surroundings { clock: Some("1970-01-01T00:00:00".to_owned()), cut_off: true, ..Surroundings::default() };
    let (mut running, _) = appliance.machine.boot_to(&alone, &IN_SERVICE).await?;
    let garbage = Stick::garbage(&evidence.folder().join("garbage.img"), 7)?;
    running.plug(&garbage).await?;
    let taken = devices.more(SOME, READINGS_WITHIN).await;
    evidence.outcome("readings are acknowledged with the clock at 1970 and no network", taken);
    let told = appliance.status(&running, "the page", serde_json::Value::is_object).await;
    if let Some(status) = evidence.outcome("the status page answers", told) {
        evidence.keep("page-alone.json", serde_json::to_string_pretty(&status)?);
    }
    evidence.check("nothing arrived in the EHR", appliance.practice.ehr.observation_count() == before);
    running.cut().await?;
    let running = appliance.boot(evidence).await?;
    devices.more(SOME, READINGS_WITHIN).await?;
    exactly_once(&appliance, &mut devices, evidence).await?;
    running.cut().await
}

/// With a new TPM the data stay sealed and the state word says so; the recovery key opens them.
async fn another_tpm(first: &Image, evidence: &mut Evidence) -> anyhow::Result<()> {
    let mut appliance = Appliance::commissioned(first, "survived-machine", evidence).await?;
    appliance.machine.replace_tpm().await?;
    let mut running = appliance.machine.power_on(&Surroundings::default()).await?;
    let sealed = running.state(&[&IN_SERVICE[..], &[StateWord::Tamper]].concat(), OPENED_WITHIN).await?;
    evidence.check(&format!("with another TPM: {sealed:?}"), matches!(sealed, Heard::Yes((StateWord::Tamper, _), _)));
    let mut devices = appliance.devices()?;
    let key = appliance.handed_over.join(labels::RECOVERY_KEY);
    let stick = Stick::new(&evidence.folder().join("recovery.img"), labels::RECOVERY, &[(labels::RECOVERY_KEY, &key)]).await?;
    running.plug(&stick).await?;
    let opened = running.state(&IN_SERVICE, OPENED_WITHIN).await?;
    evidence.check(&format!("the recovery key opens the data: {opened:?}"), matches!(opened, Heard::Yes(..)));
    let taken = devices.more(SOME, READINGS_WITHIN).await;
    evidence.outcome("the devices of before are known", taken);
    running.cut().await?;
    let running = appliance.boot(evidence).await?;
    evidence.check("the next start needs no key", true);
    exactly_once(&appliance, &mut devices, evidence).await?;
    running.cut().await
}

/// The power is cut at many points of an installation; every time the appliance comes back into service.
async fn cuts(first: &Image, second: &Image, evidence: &mut Evidence) -> anyhow::Result<()> {
    let mut appliance = Appliance::commissioned(first, "survived-machine", evidence).await?;
    let mut devices = appliance.devices()?;
    let file = evidence.folder().join("update.img");
    let stick = Stick::new(&file, labels::UPDATE, &[("update.raucb", &second.bundle())]).await?;
    // The bundle is copied to sealed storage first; then what is in it is written: root, hashes, kernel image.
    let bytes = std::fs::metadata(second.bundle())?.len() * 2;
    let mut survived = 0;
    let mut running = appliance.boot(evidence).await?;
    let mut version = first.version.clone();
    for part in CUTS {
        let before = running.written().await?;
        running.plug(&stick).await?;
        let went = until_written(&mut running, before + bytes * part / 100).await.with_context(|| running.console.end())?;
        running.cut().await?;
        let starts = appliance.machine.starts();
        running = appliance.boot(evidence).await?;
        // One that came up by going back from a version that did not would need more.
        let at_once = appliance.machine.starts() == starts + 1 && !running.console.said(StateWord::RolledBack.word());
        let status = appliance.status(&running, "the version on the page", |status| status["identity"]["version"].is_string()).await?;
        status["identity"]["version"].as_str().unwrap_or_default().clone_into(&mut version);
        let known = at_once && (version == first.version || version == second.version);
        evidence.check(&format!("cut at {part} % ({went}): {version} is in service at the first start"), known);
        survived += u32::from(known);
        devices.more(SOME, READINGS_WITHIN).await?;
        if version == second.version {
            break;
        }
    }
    evidence.check(&format!("an installation that was complete is in service in the end: {version}"), version == second.version);
    figure("power_cuts_survived", survived)?;
    exactly_once(&appliance, &mut devices, evidence).await?;
    running.cut().await
}

/// Waits until so much was written, or the installation is over.
async fn until_written(running: &mut Running, wanted: u64) -> anyhow::Result<String> {
    let mut tick = tokio::time::interval(LOOK_EVERY);
    let looking = async {
        loop {
            tick.tick().await;
            if running.console.said(INSTALLED) {
                return anyhow::Ok("installed, about to restart".to_owned());
            }
            let written = running.written().await?;
            if written >= wanted {
                return Ok(format!("{} MiB written", written / 1024 / 1024));
            }
        }
    };
    tokio::time::timeout(patience(INSTALL_WITHIN), looking).await.context("the installation does not come to this point")?
}
