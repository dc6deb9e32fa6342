//! Another site file for an appliance in service: refused where readings would suffer, else taken with one restart. A
//! device more gets its credentials, the others go on with theirs.

use std::path::Path;
use std::time::Duration;

use vitalgate_layout::{StateWord, stick as labels};

use super::{READINGS_WITHIN, SOME, STICK_WITHIN, answered, exactly_once, folder};
use crate::appliance::{Appliance, sign};
use crate::evidence::Evidence;
use crate::image::Image;
use crate::machine::Running;
use crate::practice::device_text;
use crate::stick::Stick;

/// The device that comes later.
const NEW: &str = "monitor-04";
/// Longest way down to a restart: the gateway drains to disk first.
pub(super) const RESTART_WITHIN: Duration = Duration::from_secs(120);

pub(super) async fn run(first: &Image, evidence: &mut Evidence) -> anyhow::Result<()> {
    let mut appliance = Appliance::commissioned(first, "site-machine", evidence).await?;
    let mut devices = appliance.devices()?;
    let mut running = appliance.boot(evidence).await?;
    devices.more(SOME, READINGS_WITHIN).await?;

    let text = appliance.practice.site_text()?;
    let other = site_stick(evidence, "other-gateway", &text.replace("boot-test-01", "boot-test-02")).await?;
    let said = answered(&mut running, &other, labels::PROVISION_REPORT).await?;
    evidence
        .check("a site file with another gateway is refused (22)", said.contains("REFUSED (22)") && said.contains("it stays boot-test-01"));
    devices.more(SOME, READINGS_WITHIN).await?;

    let next = site_stick(evidence, "next", &format!("{text}{}patient_since = \"2020-01-01T00:00:00Z\"\n", device_text(NEW))).await?;
    running.plug(&next).await?;
    let said = next.written(labels::PROVISION_REPORT, STICK_WITHIN).await?;
    evidence.check("a site file with a device more is accepted", said.contains("ACCEPTED"));
    // The machine of these tests ends where the appliance restarts, so that the stick is plugged in once more.
    running.ended(RESTART_WITHIN).await?;
    drop(running);
    evidence.check("the appliance restarts with it", true);

    let mut running = appliance.boot(evidence).await?;
    devices.more(SOME, READINGS_WITHIN).await?;
    let owed = |status: &serde_json::Value| status.to_string().contains("plug in the PROVISION stick");
    let waits = appliance.status(&running, "that report and credentials wait for the stick", owed).await;
    evidence.outcome("the page says that report and credentials wait for the stick", waits);
    let handed_over = paid(&mut running, &next, evidence).await?;
    evidence.check("the devices of before get no other credentials", !handed_over.join("monitor-01").exists());
    devices.join(NEW, &handed_over.join(NEW))?;
    devices.more(SOME, READINGS_WITHIN).await?;
    let nothing_owed = |status: &serde_json::Value| status["word"] == StateWord::Ready.word() && !owed(status);
    let ready = appliance.status(&running, "READY", nothing_owed).await;
    evidence.outcome("READY, and nothing waits for a stick any more", ready);
    running.cut().await?;

    let running = appliance.boot(evidence).await?;
    devices.more(SOME, READINGS_WITHIN).await?;
    let ready = appliance.status(&running, "READY", nothing_owed).await;
    evidence.outcome("nor after a power cut", ready);
    exactly_once(&appliance, &mut devices, evidence).await?;
    let of_the_new = appliance.practice.ehr.sightings().iter().filter(|sighting| sighting.device == NEW).count();
    evidence.check(&format!("{of_the_new} readings of the new device are in the EHR"), of_the_new > 0);
    running.cut().await
}

/// Plugs the stick in once more; the folder with what it got.
async fn paid(running: &mut Running, stick: &Stick, evidence: &mut Evidence) -> anyhow::Result<std::path::PathBuf> {
    let plugged = running.plug(stick).await?;
    let report = stick.written(labels::COMMISSIONING_REPORT_TEXT, STICK_WITHIN).await;
    running.pull(&plugged).await?;
    evidence.check("the stick gets a report that names the new device", report?.contains(NEW));
    let back = folder(evidence, "handed-over")?;
    stick.read_back(&back).await?;
    Ok(back.join(labels::DEVICES))
}

/// A stick with this text as a signed site file.
pub(super) async fn site_stick(evidence: &Evidence, name: &str, site: &str) -> anyhow::Result<Stick> {
    let signed = sign(site, &folder(evidence, name)?).await?;
    Stick::new(&evidence.folder().join(format!("{name}.img")), labels::PROVISION, &[(labels::SITE_FILE, Path::new(&signed))]).await
}
