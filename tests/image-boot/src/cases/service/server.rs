//! Updates from a server: only what is newer, whole and signed by the release is taken, only in the
//! maintenance window, and readings go on meanwhile.
//!
//! The appliance looks about once an hour. The variant of the image with a shell on its second serial
//! port is made to look at once; nothing else is different, and it is updated to the image that ships.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use serde_json::Value;
use vitalgate_layout::{Slot, StateWord};
use vitalgate_test_support::free_port;

use super::{READINGS_WITHIN, SOME, exactly_once, folder};
use crate::appliance::{Appliance, Order, practice};
use crate::command::{self, setting};
use crate::disk;
use crate::evidence::{Evidence, figure, tenths};
use crate::forgery::{self, Stranger};
use crate::image::{DISK_BYTES, Image};
use crate::machine::console::Heard;
use crate::machine::{Running, Surroundings};
use crate::practice::{Devices, SiteOptions};
use crate::release_server::{LIST, ReleaseServer};

/// From the begin of the case to the window, and how long it is open, in seconds.
const OPENS_AFTER_S: i64 = 3 * 3600;
const OPEN_FOR_S: i64 = 2 * 3600;
const DAY_S: i64 = 86_400;
/// Longest look for an update: a bundle is fetched and checked by a machine without hardware virtualisation.
const LOOK_WITHIN: Duration = Duration::from_secs(300);
const INSTALL_WITHIN: Duration = Duration::from_secs(600);
/// Where the server breaks off, in bytes.
const BROKEN_OFF_AT: u64 = 20 * 1024 * 1024;
/// A version that no server of these tests has.
const NEWER: &str = "0.9.0";

/// What stands around the case.
struct Scene<'s> {
    appliance: Appliance,
    devices: Devices,
    server: &'s ReleaseServer,
}

pub(super) async fn run(evidence: &mut Evidence) -> anyhow::Result<()> {
    let first = Image::find(&setting("VITALGATE_SHELL", "0.1.0-shell"))?;
    let second = Image::second()?;
    let server = ReleaseServer::start(free_port()?, &folder(evidence, "release-authority")?).await?;
    let now = now_s()?;
    let window = format!("{}-{}", of_day(now + OPENS_AFTER_S), of_day(now + OPENS_AFTER_S + OPEN_FOR_S));
    let practice = practice().await?;
    let options = SiteOptions { window: Some(window.clone()), update: Some(server.for_site()), ..SiteOptions::default() };
    let order = Order {
        machine: "server-machine",
        disk_bytes: DISK_BYTES,
        site: practice.site_text_with(&options)?,
        surroundings: Surroundings { shell: true, ..Surroundings::default() },
    };
    let appliance = Appliance::commission_as(&first, &order, practice, evidence).await?;
    let devices = appliance.devices()?;
    let mut scene = Scene { appliance, devices, server: &server };

    let mut running = scene.appliance.boot_in(&order.surroundings, evidence).await?;
    scene.devices.more(SOME, READINGS_WITHIN).await?;
    refused(&mut scene, &mut running, &first, &second, evidence).await?;
    waits(&mut scene, &mut running, &second, &window, evidence).await?;
    running.cut().await?;
    let entries = disk::boot_entries(&scene.appliance.machine.disk).await?;
    evidence.check(&format!("before the window nothing is installed: {entries:?}"), entries.iter().all(|entry| entry.slot == Slot::A));

    let middle = OPENS_AFTER_S + OPEN_FOR_S / 2;
    let within = Surroundings { clock: Some(clock(now + middle).await?), shell: true, ..Surroundings::default() };
    // The time server and the appliance's own clock agree on the hour of the window.
    scene.appliance.practice.shift_clock(middle);
    installed(&mut scene, &within, &second, evidence).await
}

/// Older, another than listed, a stranger's, an older one under a newer name: none is installed, and the page says why.
async fn refused(
    scene: &mut Scene<'_>,
    running: &mut Running,
    first: &Image,
    second: &Image,
    evidence: &mut Evidence,
) -> anyhow::Result<()> {
    let server = scene.server;
    let forged = folder(evidence, "forged")?;
    let strange = forged.join("strange.raucb");
    forgery::unpack(second, &forged.join("content")).await?;
    Stranger::new(&forged).await?.bundle(&forged.join("content"), &strange).await?;
    std::fs::remove_dir_all(forged.join("content"))?;

    server.offer(&name("0.0.9"), &first.bundle(), None).await?;
    server.offer(&name(&first.version), &first.bundle(), None).await?;
    server.offer("vitalgate-arm64-0.9.0.raucb", &second.bundle(), None).await?;
    let code = look(running).await?;
    let asked = server.asked();
    evidence.check(
        &format!("older versions and other machines' are not fetched (exit code {code}, asked for {asked:?})"),
        code == 0 && asked == [LIST],
    );

    let wrong = "0".repeat(64);
    for (what, file, sum, reason) in [
        ("another file than listed", second.bundle(), Some(wrong.as_str()), "is not the file that SHA256SUMS names"),
        ("a bundle signed by a stranger", strange.clone(), None, "the bundle is not accepted"),
        ("an older version under a newer name", first.bundle(), None, "holds version 0.1.0"),
    ] {
        server.offer(&name(NEWER), &file, sum).await?;
        let said = look_until_said(scene, running, reason).await;
        if let Some(said) = evidence.outcome(&format!("{what} is refused"), said) {
            evidence.say(&said);
        }
        let asked = server.asked();
        evidence.check(&format!("it was fetched to know that: {asked:?}"), asked == [LIST.to_owned(), name(NEWER)]);
    }
    server.withdraw(&name(NEWER));
    std::fs::remove_file(strange)?;
    Ok(())
}

/// What is newer is fetched at the second try, checked and waits; what waits is not fetched again.
async fn waits(scene: &mut Scene<'_>, running: &mut Running, second: &Image, window: &str, evidence: &mut Evidence) -> anyhow::Result<()> {
    let server = scene.server;
    server.offer(&name(&second.version), &second.bundle(), None).await?;
    server.break_off_after(BROKEN_OFF_AT);
    let said = look_until_said(scene, running, "broke off").await;
    evidence.outcome("a connection that breaks off is said on the page", said);
    server.asked();

    let before = scene.devices.acknowledged();
    let began = std::time::Instant::now();
    let waits = format!("version {} is ready and waits for {window}", second.version);
    let said = look_until_said(scene, running, &waits).await;
    figure("update_fetched_s", tenths(began.elapsed().as_secs_f64()))?;
    evidence.outcome(&format!("outside the window the page says: {waits}"), said);
    let asked = server.asked();
    evidence.check(&format!("it was fetched: {asked:?}"), asked == [LIST.to_owned(), name(&second.version)]);
    let meanwhile = scene.devices.acknowledged() - before;
    evidence.check(&format!("{meanwhile} readings were acknowledged meanwhile"), meanwhile > 0);
    look(running).await?;
    let asked = server.asked();
    evidence.check(&format!("what waits is not fetched again: {asked:?}"), asked == [LIST]);
    Ok(())
}

/// In the window it is installed and restarts by itself into the new version.
async fn installed(scene: &mut Scene<'_>, within: &Surroundings, second: &Image, evidence: &mut Evidence) -> anyhow::Result<()> {
    let mut running = scene.appliance.boot_in(within, evidence).await?;
    scene.devices.more(SOME, READINGS_WITHIN).await?;
    let before = scene.devices.acknowledged();
    let began = std::time::Instant::now();
    let shell = running.shell.as_mut().context("no shell")?;
    shell.run("systemctl --no-block start vitalgate-update.service", LOOK_WITHIN).await?;
    let word = running.state(&[StateWord::Updating], INSTALL_WITHIN).await?;
    evidence.check(&format!("in the window it is installed: {word:?}"), matches!(word, Heard::Yes(..)));
    running.ended(INSTALL_WITHIN).await?;
    drop(running);
    let meanwhile = scene.devices.acknowledged() - before;
    evidence.check(&format!("{meanwhile} readings were acknowledged during the installation"), meanwhile > 0);
    let asked = scene.server.asked();
    evidence.check(&format!("it was not fetched again: {asked:?}"), asked == [LIST]);

    // The image that ships has no shell.
    let surroundings = Surroundings { shell: false, ..within.clone() };
    let running = scene.appliance.boot_in(&surroundings, evidence).await?;
    let took = tenths(began.elapsed().as_secs_f64());
    figure("update_from_server_s", took)?;
    let says = |status: &Value| status["identity"]["version"] == second.version.as_str();
    let status = scene.appliance.status(&running, "the new version on the page", says).await;
    if let Some(status) = evidence.outcome(&format!("{} is in service {took} s after the look", second.version), status) {
        evidence.keep("page-updated.json", serde_json::to_string_pretty(&status)?);
    }
    scene.devices.more(SOME, READINGS_WITHIN).await?;
    exactly_once(&scene.appliance, &mut scene.devices, evidence).await?;
    running.cut().await
}

fn name(version: &str) -> String {
    format!("vitalgate-amd64-{version}.raucb")
}

/// Lets it look for an update; the exit code.
async fn look(running: &mut Running) -> anyhow::Result<i32> {
    let shell = running.shell.as_mut().context("no shell")?;
    shell.run("systemctl start vitalgate-update.service", LOOK_WITHIN).await
}

/// Lets it look, and waits until the page says this of the update; what it says.
async fn look_until_said(scene: &Scene<'_>, running: &mut Running, wanted: &str) -> anyhow::Result<String> {
    look(running).await?;
    let said = |status: &Value| status["parts"]["update"]["said"]["detail"].as_str().unwrap_or_default().to_owned();
    let status = scene.appliance.status(running, wanted, |status| said(status).contains(wanted)).await?;
    Ok(said(&status))
}

fn now_s() -> anyhow::Result<i64> {
    Ok(i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())?)
}

/// `14:05`, UTC.
fn of_day(unix_s: i64) -> String {
    let minute = unix_s.rem_euclid(DAY_S) / 60;
    format!("{:02}:{:02}", minute / 60, minute % 60)
}

/// As QEMU takes a moment.
async fn clock(unix_s: i64) -> anyhow::Result<String> {
    let printed = command::run(Path::new("date"), ["-u", "-d", &format!("@{unix_s}"), "+%FT%T"]).await?;
    Ok(printed.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn moments_are_written_as_they_are_read() {
        assert_eq!(of_day(1_795_305_600 + 3 * 3600 + 65 * 60), "04:05");
        assert_eq!(clock(1_795_305_600).await.unwrap(), "2026-11-22T00:00:00");
    }
}
