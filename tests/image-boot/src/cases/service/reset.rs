//! The end: after a factory reset nothing that was stored opens any more and the appliance asks for a site
//! file; after decommissioning it is off. Both are certified.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;
use vitalgate_layout::{StateWord, partition, stick as labels};

use super::{Asked, DECOMMISSION, OTHER_SERIAL, READINGS_WITHIN, RESET, SERIAL, SOME, answered, folder, stick};
use crate::appliance::{Appliance, IN_SERVICE, site_file};
use crate::command;
use crate::disk;
use crate::evidence::{Evidence, figure, tenths};
use crate::image::{self, Image};
use crate::machine::console::Heard;
use crate::machine::{Running, Surroundings};
use crate::practice::Devices;
use crate::stick::Stick;

const REPORT: &str = "reset-report.txt";
const CERTIFICATE: &str = "erase-certificate.json";
const CERTIFICATE_TEXT: &str = "erase-certificate.txt";
/// What of a partition tells whether it is encrypted storage, and whose: both headers and all key slots.
const HEADER_BYTES: u64 = 16 * 1024 * 1024;
/// Longest wait until the appliance is off after it took the stick.
const ERASED_WITHIN: Duration = Duration::from_secs(300);
const ASKED_WITHIN: Duration = Duration::from_secs(400);
const KEY_WITHIN: Duration = Duration::from_secs(120);

pub(super) async fn run(first: &Image, evidence: &mut Evidence) -> anyhow::Result<()> {
    let mut appliance = Appliance::commissioned(first, "service-machine", evidence).await?;
    let old_key = recovery_key(&appliance.handed_over)?;
    let old_authority = std::fs::read(appliance.handed_over.join(labels::DEVICES).join("ca.pem"))?;
    // The checks below would hold for nothing if this did not.
    evidence.check("before: the recovery key opens the storage", opens(&appliance.machine.disk, partition::DATA, &old_key).await?);
    let mut devices = appliance.devices()?;
    let mut running = appliance.boot(evidence).await?;
    devices.more(SOME, READINGS_WITHIN).await?;
    refused(&mut running, evidence).await?;
    devices.more(SOME, READINGS_WITHIN).await?;
    evidence.check("readings are taken after the refusals", true);
    drop(devices);

    let used = erased(&mut running, RESET, "guest-reset", evidence).await?;
    drop(running);
    no_header(&appliance, &old_key, evidence).await?;

    let mut running = asks_again(&mut appliance, &used, evidence).await?;
    let (handed_over, mut devices) = anew(&mut running, &mut appliance, evidence).await?;
    let new_key = recovery_key(&handed_over)?;
    let authority = std::fs::read(handed_over.join(labels::DEVICES).join("ca.pem"))?;
    evidence.check("recovery key and device authority are new", new_key != old_key && authority != old_authority);
    devices.more(SOME, READINGS_WITHIN).await?;
    let verdict = finish(&appliance, &mut devices).await?;
    evidence.check(&format!("in service again: {verdict}"), true);

    erased(&mut running, DECOMMISSION, "guest-shutdown", evidence).await?;
    drop(running);
    no_header(&appliance, &new_key, evidence).await?;
    let mut running = appliance.machine.power_on(&Surroundings::default()).await?;
    let word = running.state(&[&IN_SERVICE[..], &[StateWord::AwaitProvision]].concat(), ASKED_WITHIN).await?;
    let asks = matches!(word, Heard::Yes((StateWord::AwaitProvision, _), _));
    evidence.check(&format!("switched on after decommissioning it knows nobody: {word:?}"), asks);
    running.cut().await?;
    let disk = &appliance.machine.disk;
    let (old, new) = (opens(disk, partition::DATA, &old_key).await?, opens(disk, partition::DATA, &new_key).await?);
    evidence.check("new storage was made; neither recovery key opens it", !old && !new);
    Ok(())
}

/// A request for another appliance, and one that was changed after it was signed: nothing is erased.
async fn refused(running: &mut Running, evidence: &mut Evidence) -> anyhow::Result<()> {
    let other = stick(evidence, "reset-other", RESET, OTHER_SERIAL).await?;
    let said = answered(running, &other, REPORT).await?;
    evidence.check(&format!("a request for another appliance is refused: {said:?}"), said.contains("REFUSED (16)"));
    let file = evidence.folder().join("reset-other.request");
    let changed = evidence.folder().join("reset-changed.request");
    std::fs::write(&changed, std::fs::read_to_string(&file)?.replace(OTHER_SERIAL, SERIAL))?;
    let forged = Stick::new(&evidence.folder().join("reset-changed.img"), labels::RESET, &[(labels::RESET_REQUEST, &changed)]).await?;
    let said = answered(running, &forged, REPORT).await?;
    evidence.check(&format!("a request that was changed is refused: {said:?}"), said.contains("REFUSED (13)"));
    Ok(())
}

/// Erases by a stick; the stick with its certificate, checked with the technician's tool.
async fn erased(running: &mut Running, asked: Asked, ends: &str, evidence: &mut Evidence) -> anyhow::Result<Stick> {
    let key = running.report_key(KEY_WITHIN).await?;
    let stick = stick(evidence, asked.action, asked, SERIAL).await?;
    let began = std::time::Instant::now();
    running.plug(&stick).await?;
    let how = running.ended_how(ERASED_WITHIN).await?;
    let took = tenths(began.elapsed().as_secs_f64());
    figure(&format!("{}_s", asked.action), took)?;
    evidence.check(&format!("{} takes {took} s and ends with {how}", asked.action), how == ends);
    let back = folder(evidence, &format!("{}-stick", asked.action))?;
    stick.read_back(&back).await?;
    let report = std::fs::read_to_string(back.join(REPORT)).context("no report on the stick")?;
    evidence.check(&format!("the report says that it is done: {report:?}"), report.contains(&format!("{} done", asked.action)));
    for name in [CERTIFICATE, CERTIFICATE_TEXT] {
        let verify = ["report".as_ref(), "verify".as_ref(), back.join(name).as_os_str(), "--key".as_ref(), key.as_ref()]
            .map(std::ffi::OsStr::to_owned);
        let checked = image::imagectl(verify).await;
        evidence.outcome(&format!("{name} was signed by the key on the console, {key}"), checked);
    }
    let certificate: Value = serde_json::from_slice(&std::fs::read(back.join(CERTIFICATE))?).context("the certificate is no JSON")?;
    let says = |name: &str, what: &str| certificate["report"][name] == what;
    let right = says("serial", SERIAL) && says("action", asked.action) && says("key_slots", "destroyed") && says("technician", "T. Tester");
    evidence.check(&format!("the certificate says what was done: {}", certificate["report"]), right);
    evidence.check("the disk was told to forget", certificate["report"]["discarded"] == true);
    Ok(stick)
}

/// With the power off: no header, no key slot, no key that opens it.
async fn no_header(appliance: &Appliance, key: &str, evidence: &mut Evidence) -> anyhow::Result<()> {
    let disk = &appliance.machine.disk;
    evidence.check("the partition is called unfinished", disk::find(disk, partition::DATA).await.is_err());
    let head = tempfile::NamedTempFile::new()?;
    disk::head(disk, partition::DATA_UNFINISHED, HEADER_BYTES, head.path()).await?;
    let zeros = std::fs::read(head.path())?.iter().all(|byte| *byte == 0);
    evidence.check("where headers and key slots were are zeros", zeros);
    evidence.check("the recovery key opens nothing", !opens(disk, partition::DATA_UNFINISHED, key).await?);
    Ok(())
}

/// It asks for a site file, and does not do the same request twice.
async fn asks_again(appliance: &mut Appliance, used: &Stick, evidence: &mut Evidence) -> anyhow::Result<Running> {
    let mut running = appliance.machine.power_on(&Surroundings::default()).await?;
    let word = running.state(&[&IN_SERVICE[..], &[StateWord::AwaitProvision, StateWord::Tamper]].concat(), ASKED_WITHIN).await?;
    evidence.check(&format!("it asks for a site file: {word:?}"), matches!(word, Heard::Yes((StateWord::AwaitProvision, _), _)));
    used.remove(REPORT).await?;
    let said = answered(&mut running, used, REPORT).await?;
    evidence.check(&format!("the same request again is refused: {said:?}"), said.contains("REFUSED (19)"));
    Ok(running)
}

/// Commissions it again; what came back on the stick, and devices with their new credentials.
async fn anew(running: &mut Running, appliance: &mut Appliance, evidence: &mut Evidence) -> anyhow::Result<(std::path::PathBuf, Devices)> {
    let site = site_file(&appliance.practice, evidence.folder()).await?;
    let stick = Stick::new(&evidence.folder().join("provision.img"), labels::PROVISION, &[(labels::SITE_FILE, &site)]).await?;
    let plugged = running.plug(&stick).await?;
    let word = running.state(&IN_SERVICE, ASKED_WITHIN).await?;
    evidence.check(&format!("it takes a site file again: {word:?}"), matches!(word, Heard::Yes(..)));
    stick.written(labels::COMMISSIONING_REPORT, ASKED_WITHIN).await?;
    running.pull(&plugged).await?;
    let handed_over = folder(evidence, "handed-over")?;
    stick.read_back(&handed_over).await?;
    let devices = Devices::start(&handed_over.join(labels::DEVICES), appliance.machine.mqtt_port)?;
    Ok((handed_over, devices))
}

async fn finish(appliance: &Appliance, devices: &mut Devices) -> anyhow::Result<String> {
    devices.finish(READINGS_WITHIN).await?;
    let verdict = devices.verdict(&appliance.practice).await;
    anyhow::ensure!(verdict.is_exactly_once(), "{verdict}");
    Ok(verdict.to_string())
}

/// The line of the file that is the passphrase.
fn recovery_key(handed_over: &Path) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(handed_over.join(labels::RECOVERY_KEY)).context("no recovery key")?;
    let line = text.lines().find(|line| line.matches('-').count() == 12).context("no line holds the recovery key")?;
    Ok(line.trim().to_owned())
}

/// Whether a key opens a partition, by the header alone, as any Linux would.
async fn opens(disk: &Path, label: &str, key: &str) -> anyhow::Result<bool> {
    let folder = tempfile::tempdir()?;
    let (head, file) = (folder.path().join("head"), folder.path().join("key"));
    disk::head(disk, label, HEADER_BYTES, &head).await?;
    std::fs::write(&file, key)?;
    let line = ["open".as_ref(), "--test-passphrase".as_ref(), "--key-file".as_ref(), file.as_os_str(), head.as_os_str()];
    Ok(command::run("cryptsetup", line).await.is_ok())
}
