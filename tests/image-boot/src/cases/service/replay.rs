//! A device without a patient: its readings are held, not dropped. Another site file says whose they are, a signed request
//! sends them again, and then each is in the EHR once. What nobody can read is counted and discarded by signed requests.

use serde_json::Value;
use vitalgate_layout::stick as labels;

use super::site::{RESTART_WITHIN, site_stick};
use super::{Asked, READINGS_WITHIN, SERIAL, SOME, STICK_WITHIN, answered, exactly_once, request_with, stick};
use crate::appliance::{Appliance, Order, practice};
use crate::evidence::Evidence;
use crate::image::{self, DISK_BYTES, Image};
use crate::machine::{Running, Surroundings};
use crate::practice::device_text;
use crate::stick::Stick;

const REPLAY: Asked = Asked { action: "replay", label: labels::REPLAY, file: labels::REPLAY_REQUEST };
const DISCARD: Asked = Asked { action: "discard", ..REPLAY };
/// The device that says something that no profile reads.
const GARBLED: &str = "monitor-01";
/// The device that nobody has a patient for at first.
const HELD: &str = "monitor-03";

pub(super) async fn run(first: &Image, evidence: &mut Evidence) -> anyhow::Result<()> {
    let practice = practice().await?;
    let whole = practice.site_text()?;
    let with_patient = device_text(HELD);
    let bare: String = with_patient.lines().filter(|line| !line.starts_with("patient")).map(|line| format!("{line}\n")).collect();
    let site = whole.replace(&with_patient, &bare);
    let order = Order { machine: "replay-machine", disk_bytes: DISK_BYTES, site, surroundings: Surroundings::default() };
    let mut appliance = Appliance::commission_as(first, &order, practice, evidence).await?;
    let mut devices = appliance.devices()?;
    let mut running = appliance.boot(evidence).await?;
    devices.more(SOME, READINGS_WITHIN).await?;
    let held = appliance.status(&running, "that readings are held", |status| dead_letters(status) > 0).await;
    if let Some(status) = evidence.outcome("what has no patient is held and counted on the page", held) {
        evidence.say(&format!("{} dead letters", dead_letters(&status)));
    }
    evidence.check("none of it is in the EHR", !appliance.practice.ehr.sightings().iter().any(|sighting| sighting.device == HELD));

    let since = format!("{with_patient}patient_since = \"2020-01-01T00:00:00Z\"\n");
    let next = site_stick(evidence, "next", &whole.replace(&with_patient, &since)).await?;
    running.plug(&next).await?;
    let said = next.written(labels::PROVISION_REPORT, STICK_WITHIN).await?;
    evidence.check("a site file that says whose they are is accepted", said.contains("ACCEPTED"));
    running.ended(RESTART_WITHIN).await?;
    drop(running);

    let mut running = appliance.boot(evidence).await?;
    devices.more(SOME, READINGS_WITHIN).await?;
    let request = stick(evidence, "replay", REPLAY, SERIAL).await?;
    let said = answered(&mut running, &request, labels::REPLAY_REPORT).await?;
    evidence.say(&said.lines().collect::<Vec<_>>().join(" | "));
    evidence.check("the request is carried out", said.contains("DONE: ") && said.contains(HELD));
    let none = appliance.status(&running, "no dead letters", |status| status["queue"]["dead_letters"] == 0).await;
    evidence.outcome("nothing is held any more", none);
    // What was held as well: each in the EHR, once.
    exactly_once(&appliance, &mut devices, evidence).await?;
    counted_and_discarded(&mut running, &appliance, evidence).await?;
    running.cut().await
}

/// A message that nobody can read is set aside, counted by one request and discarded by another.
async fn counted_and_discarded(running: &mut Running, appliance: &Appliance, evidence: &mut Evidence) -> anyhow::Result<()> {
    appliance.publish_unreadable(GARBLED, READINGS_WITHIN).await?;
    let held = appliance.status(running, "a dead letter", |status| dead_letters(status) == 1).await;
    evidence.outcome("what nobody can read is set aside", held);
    for (name, with, answer, left) in [
        ("count", "--count", "COUNTED: 1 dead letters would be discarded, 0 would remain", 1),
        ("discard", "--device=monitor-01", "DONE: 1 dead letters discarded, 0 remain", 0),
    ] {
        let file = evidence.folder().join(format!("{name}.request"));
        request_with(DISCARD, SERIAL, &file, &["--kind=Undecodable".into(), with.into()]).await?;
        let asking = Stick::new(&evidence.folder().join(format!("{name}.img")), DISCARD.label, &[(DISCARD.file, &file)]).await?;
        let said = answered(running, &asking, labels::REPLAY_REPORT).await?;
        evidence.say(&said.lines().collect::<Vec<_>>().join(" | "));
        evidence.check(&format!("{name}: the request is carried out"), said.contains(answer));
        let report = evidence.folder().join(format!("{name}-report.txt"));
        std::fs::write(&report, said)?;
        let signed = image::imagectl(["report".into(), "verify".into(), report.into_os_string()]).await;
        evidence.outcome(&format!("{name}: the appliance signed the report"), signed);
        let counted = appliance.status(running, "the dead letters", |status| status["queue"]["dead_letters"] == left).await;
        evidence.outcome(&format!("{name}: the page counts {left}"), counted);
    }
    Ok(())
}

fn dead_letters(status: &Value) -> u64 {
    status["queue"]["dead_letters"].as_u64().unwrap_or_default()
}
