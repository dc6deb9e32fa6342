//! What comes after commissioning: support, a certificate for the EHR, another site file, dead letters again, updates from a server, time with proof, the end.

mod certificate;
mod replay;
mod reset;
mod server;
mod site;
mod support;
mod time;

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;

use vitalgate_layout::stick as labels;

use super::exactly_once;
use crate::evidence::Evidence;
use crate::image::{self, Image};
use crate::machine::Running;
use crate::stick::Stick;

/// Number of the virtual machine, as its firmware says.
const SERIAL: &str = crate::machine::SERIAL;
/// Another appliance's.
const OTHER_SERIAL: &str = "VG-TEST-0002";
/// Longest wait for an answer on a stick: the manual says five minutes.
const STICK_WITHIN: Duration = Duration::from_secs(300);
const READINGS_WITHIN: Duration = Duration::from_secs(120);
/// Readings that show that they are taken.
const SOME: u64 = 50;

pub(super) async fn run(evidence: &mut Evidence) -> anyhow::Result<()> {
    let first = Image::first()?;
    if evidence.wants("support") {
        let outcome = support::run(&first, evidence).await;
        evidence.outcome("a bundle for support", outcome);
    }
    if evidence.wants("certificate") {
        let outcome = certificate::run(&first, evidence).await;
        evidence.outcome("an EHR that demands a client certificate", outcome);
    }
    if evidence.wants("site") {
        let outcome = site::run(&first, evidence).await;
        evidence.outcome("another site file in service", outcome);
    }
    if evidence.wants("replay") {
        let outcome = replay::run(&first, evidence).await;
        evidence.outcome("dead letters sent again", outcome);
    }
    if evidence.wants("reset") {
        let outcome = reset::run(&first, evidence).await;
        evidence.outcome("factory reset and decommissioning", outcome);
    }
    if evidence.wants("time") {
        let outcome = time::run(&first, evidence).await;
        evidence.outcome("time with proof", outcome);
    }
    if evidence.wants("server") {
        let outcome = server::run(evidence).await;
        evidence.outcome("an update from a server", outcome);
    }
    Ok(())
}

/// What is asked for by a stick.
#[derive(Debug, Clone, Copy)]
struct Asked {
    /// As `imagectl request` calls it.
    action: &'static str,
    label: &'static str,
    file: &'static str,
}

const SUPPORT: Asked = Asked { action: "support", label: labels::SUPPORT, file: labels::SUPPORT_REQUEST };
const RESET: Asked = Asked { action: "reset", label: labels::RESET, file: labels::RESET_REQUEST };
const DECOMMISSION: Asked = Asked { action: "decommission", ..RESET };

/// Signs a request with the technician's tool.
async fn request(asked: Asked, serial: &str, to: &Path) -> anyhow::Result<()> {
    request_with(asked, serial, to, &[]).await
}

/// The same with more on the command line.
async fn request_with(asked: Asked, serial: &str, to: &Path, more: &[OsString]) -> anyhow::Result<()> {
    let key = image::keys().join("site/root.key");
    let fixed = ["request", asked.action, "--serial", serial, "--expires", "2036-12-31", "--technician", "T. Tester"];
    let fixed = fixed.into_iter().chain(["--reason", "boot test", "--key"]).map(OsString::from);
    let files = [key.as_os_str(), OsStr::new("--output"), to.as_os_str()].map(OsStr::to_owned);
    image::imagectl(fixed.chain(files).chain(more.iter().cloned())).await.map(drop)
}

/// A stick with a signed request.
async fn stick(evidence: &Evidence, name: &str, asked: Asked, serial: &str) -> anyhow::Result<Stick> {
    let file = evidence.folder().join(format!("{name}.request"));
    request(asked, serial, &file).await?;
    Stick::new(&evidence.folder().join(format!("{name}.img")), asked.label, &[(asked.file, &file)]).await
}

/// Plugs a stick in, waits for a report on it and pulls it; what the report says.
async fn answered(running: &mut Running, stick: &Stick, report: &str) -> anyhow::Result<String> {
    let plugged = running.plug(stick).await?;
    let said = stick.written(report, STICK_WITHIN).await;
    running.pull(&plugged).await?;
    said
}

/// A folder of evidence, empty.
fn folder(evidence: &Evidence, name: &str) -> anyhow::Result<PathBuf> {
    let folder = evidence.folder().join(name);
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}
