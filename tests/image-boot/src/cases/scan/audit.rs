//! What a variant of the image finds that looks at itself: lynis, AppArmor, listening sockets.
//!
//! The variant differs from what is shipped by lynis and what lynis needs. It is commissioned as any other,
//! takes readings, and prints lines `INSPECT <what>` on the serial console once it is in service.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use vitalgate_layout::stick as labels;

use crate::appliance::{Appliance, IN_SERVICE, practice, site_file};
use crate::evidence::{Evidence, FOLDER, figure};
use crate::image::{Image, keys};
use crate::machine::console::{Console, Heard};
use crate::machine::{MQTT_PORT, Machine, PAGE_PORT, Running, Surroundings, patience};
use crate::stick::Stick;

/// The index of lynis to aim for.
const LYNIS_AIM: u32 = 80;
/// Longest boot with commissioning.
const IN_SERVICE_WITHIN: Duration = Duration::from_secs(600);
/// Longest run of lynis.
const AUDIT_WITHIN: Duration = Duration::from_secs(1200);
const READINGS_WITHIN: Duration = Duration::from_secs(180);
/// Readings that take the daemon through all that it does.
const SOME: u64 = 100;
/// What the variant puts before every line.
const PREFIX: &str = "INSPECT ";
/// Its last line.
const LAST: &str = "end";

/// Commissions the variant, lets readings flow through it, and judges what it found.
pub(super) async fn run(image: &Image, evidence: &mut Evidence) -> anyhow::Result<()> {
    let (appliance, mut running) = in_service(image, evidence).await?;
    let mut devices = appliance.devices()?;
    devices.more(SOME, READINGS_WITHIN).await?;
    devices.finish(READINGS_WITHIN).await?;
    let verdict = devices.verdict(&appliance.practice).await;
    evidence.check(&format!("the confined daemon works: {verdict}"), verdict.acknowledged > 0 && verdict.is_exactly_once());
    let found = found(&mut running.console).await?;
    evidence.keep("audit.txt", found.join("\n") + "\n");
    hardening(&found, evidence)?;
    confinement(&found, evidence);
    sockets(&found, evidence);
    running.cut().await
}

async fn in_service(image: &Image, evidence: &Evidence) -> anyhow::Result<(Appliance, Running)> {
    let folder = Path::new(FOLDER).join("inspect-machine");
    let practice = practice().await?;
    let mut machine = Machine::at(&folder, evidence.folder())?;
    image.flash(&machine.disk).await?;
    machine.manufacture(&keys().join("secureboot")).await?;
    let site = site_file(&practice, evidence.folder()).await?;
    let stick = Stick::new(&folder.join("provision.img"), labels::PROVISION, &[(labels::SITE_FILE, &site)]).await?;
    let mut running = machine.power_on(&Surroundings::default()).await?;
    running.plug(&stick).await?;
    match running.state(&IN_SERVICE, IN_SERVICE_WITHIN).await? {
        Heard::Yes((word, detail), at) => evidence.say(&format!("{word} {detail} {:.0} s after power on", at.as_secs_f64())),
        Heard::Off => bail!("it went off\n{}", running.console.end()),
    }
    let handed_over = folder.join("handed-over");
    stick.read_back(&handed_over).await?;
    Ok((Appliance { machine, practice, handed_over }, running))
}

/// What the variant printed, up to its last line. It may have begun before the case listened.
async fn found(console: &mut Console) -> anyhow::Result<Vec<String>> {
    let printed = |line: &str| Some(line.split_once(PREFIX)?.1.trim().to_owned());
    let last = |line: &str| printed(line).filter(|line| line == LAST).map(drop);
    match console.wait("the end of the audit", patience(AUDIT_WITHIN), last).await? {
        Heard::Yes(..) => Ok(console.all().iter().filter_map(|line| printed(&line.text)).collect()),
        Heard::Off => bail!("it went off during the audit\n{}", console.end()),
    }
}

/// The number after `name`.
fn number(found: &[String], name: &str) -> anyhow::Result<u32> {
    let text = found.iter().find_map(|line| line.split_once(name)?.1.split_whitespace().next());
    text.and_then(|text| text.parse().ok()).with_context(|| format!("no line with '{name}' in the audit"))
}

fn hardening(found: &[String], evidence: &mut Evidence) -> anyhow::Result<()> {
    let index = number(found, "Hardening index : ")?;
    evidence.check(&format!("lynis: {index}, aim {LYNIS_AIM}"), index >= LYNIS_AIM);
    figure("lynis", index)
}

/// The daemon is confined, nothing that it does is denied, and the count of what is denied can be trusted.
fn confinement(found: &[String], evidence: &mut Evidence) {
    let confined = found.iter().find_map(|line| line.strip_prefix("daemon confined: ")).unwrap_or("not at all");
    evidence.check(&format!("the daemon is confined: {confined}"), confined == "vitalgate (enforce)");
    let denied: Vec<_> = found.iter().filter(|line| line.contains("apparmor=\"DENIED\"")).collect();
    let (count, on_purpose) = (number(found, "AppArmor denials: "), number(found, "AppArmor denials on purpose: "));
    evidence.check(&format!("AppArmor denied nothing: {count:?} {denied:?}"), denied.is_empty() && count.is_ok_and(|count| count == 0));
    evidence.check(
        &format!("a program that was let loose in its confinement was denied: {on_purpose:?}"),
        on_purpose.is_ok_and(|count| count > 0),
    );
}

/// `listens tcp *:8883`: beyond the machine only what is configured is open.
fn sockets(found: &[String], evidence: &mut Evidence) {
    let listening: Vec<_> = found.iter().filter_map(|line| line.strip_prefix("listens ")).collect();
    evidence.check(&format!("sockets seen from inside: {listening:?}"), open_beyond(&listening) == BTreeSet::from([MQTT_PORT, PAGE_PORT]));
}

/// TCP ports that others than the machine itself can reach.
fn open_beyond(listening: &[&str]) -> BTreeSet<u16> {
    let tcp = listening.iter().filter_map(|line| line.strip_prefix("tcp "));
    let beyond = tcp.filter(|address| !address.starts_with("127.") && !address.starts_with("[::1]"));
    beyond.filter_map(|address| address.rsplit(':').next()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What only the machine itself reaches is not open beyond it.
    #[test]
    fn sockets_of_the_machine_itself_are_told_apart() {
        let listening = ["tcp *:8443", "tcp 0.0.0.0:8883", "tcp [::]:22", "tcp 127.0.0.1:9090", "tcp [::1]:9090", "udp 0.0.0.0:68"];
        assert_eq!(open_beyond(&listening), BTreeSet::from([22, 8443, 8883]));
    }

    #[test]
    fn a_figure_is_read_from_its_line() {
        let found = ["Hardening index : 83 [####]", "AppArmor denials: 0", "AppArmor denials on purpose: 2"].map(str::to_owned);
        assert_eq!(number(&found, "Hardening index : ").unwrap(), 83);
        assert_eq!(number(&found, "AppArmor denials: ").unwrap(), 0);
        assert_eq!(number(&found, "AppArmor denials on purpose: ").unwrap(), 2);
        assert!(number(&found, "another").is_err());
    }
}
