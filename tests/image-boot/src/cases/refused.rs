//! What must not boot, not be installed, not be taken.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use vitalgate_layout::{Rejection, Slot, StateWord, stick as labels};

use crate::appliance::{Appliance, IN_SERVICE, Updated, practice, site_file};
use crate::disk;
use crate::evidence::{Evidence, FOLDER};
use crate::forgery::{self, Stranger};
use crate::image::{self, Image};
use crate::machine::console::Heard;
use crate::machine::{Machine, Running, Surroundings, patience};
use crate::stick::Stick;

/// Longest wait for the firmware's or the boot loader's refusal.
const REFUSAL_WITHIN: Duration = Duration::from_secs(120);
/// Longest wait for a report on a stick.
const REPORT_WITHIN: Duration = Duration::from_secs(420);
/// Longest boot until a stick is asked for.
const ASKED_WITHIN: Duration = Duration::from_secs(400);
/// What firmware and boot loader say of a signature that is missing or unknown (UEFI 2.10, section 7.4.1).
const REFUSALS: [&str; 4] = ["Access Denied", "Access denied", "Security Violation", "Security violation"];
/// A byte of the squashfs superblock (its time of making): read when the root is mounted.
const SUPERBLOCK_BYTE: u64 = 8;
/// Bundles that are refused, and what the report says of each.
const REASONS: [(&str, &str); 4] = [
    ("signed by a stranger", "not accepted"),
    ("changed after signing", "not installed"),
    ("for another machine", "is made for"),
    ("older than the floor", "is older than"),
];
/// Why an update is refused that has nothing to do with the bundle.
const OTHER_REASONS: [&str; 2] = ["no room for an update", "another update is under way"];
/// A byte of a bundle that belongs to its contents.
const BUNDLE_BYTE: usize = 1_000_000;

pub(super) async fn run(evidence: &mut Evidence) -> anyhow::Result<()> {
    let first = Image::first()?;
    let stranger = Stranger::new(evidence.folder()).await?;
    if evidence.wants("kernels") {
        let outcome = kernels(&first, &stranger, evidence).await;
        evidence.outcome("kernel images were tried", outcome);
    }
    if evidence.wants("site-files") {
        let outcome = site_files(&first, evidence).await;
        evidence.outcome("site files were tried", outcome);
    }
    if evidence.wants("bundles") {
        let outcome = bundles(&first, &stranger, evidence).await;
        evidence.outcome("bundles were tried", outcome);
    }
    if evidence.wants("flipped") {
        let outcome = flipped(&first, evidence).await;
        evidence.outcome("a flipped byte was tried", outcome);
    }
    Ok(())
}

/// Bundles that are not for this appliance: the report on the stick says why, and nothing is installed.
async fn bundles(first: &Image, stranger: &Stranger, evidence: &mut Evidence) -> anyhow::Result<()> {
    let second = &Image::second()?;
    let folder = evidence.folder().join("bundles");
    std::fs::create_dir_all(&folder)?;
    let unpacked = folder.join("unpacked");
    let file = |name: &str| folder.join(format!("{name}.raucb"));
    forgery::unpack(second, &unpacked).await?;
    stranger.bundle(&unpacked, &file("signed by a stranger")).await?;
    forgery::flip(&second.bundle(), &file("changed after signing"), BUNDLE_BYTE)?;
    forgery::change_manifest(&unpacked, "compatible", "vitalgate-other-machine")?;
    forgery::bundle(&unpacked, &file("for another machine")).await?;
    forgery::unpack(second, &unpacked).await?;
    forgery::change_version(&unpacked, &second.version, "0.0.1").await?;
    forgery::bundle(&unpacked, &file("older than the floor")).await?;
    std::fs::remove_dir_all(&unpacked)?;

    let mut appliance = Appliance::commissioned(first, "refused-machine", evidence).await?;
    let mut running = appliance.boot(evidence).await?;
    for (name, reason) in REASONS {
        let stick = Stick::new(&folder.join("stick.img"), labels::UPDATE, &[("update.raucb", &file(name))]).await?;
        let plugged = running.plug(&stick).await?;
        let report = stick.written(labels::UPDATE_REPORT, REPORT_WITHIN).await.with_context(|| running.console.end());
        if let Some(report) = evidence.outcome(&format!("the stick says what became of a bundle {name}"), report) {
            let result = report.lines().find_map(|line| line.strip_prefix("Result:")).unwrap_or_default().trim().to_owned();
            let is_for_it = result.contains(reason) && !OTHER_REASONS.iter().any(|other| result.contains(other));
            evidence.check(&format!("a bundle {name} is refused: {result}"), is_for_it);
            evidence.keep(&format!("report {name}.txt"), report);
        }
        running.pull(&plugged).await?;
    }
    running.cut().await?;
    let entries = disk::boot_entries(&appliance.machine.disk).await?;
    evidence.check(&format!("nothing was installed: {entries:?}"), entries.iter().all(|entry| entry.slot == Slot::A));
    Ok(())
}

/// Kernel images without a signature or with that of a stranger: the firmware starts none of them.
async fn kernels(first: &Image, stranger: &Stranger, evidence: &mut Evidence) -> anyhow::Result<()> {
    let mut machine = blank(first, evidence).await?;
    let entries = disk::boot_entries(&machine.disk).await?;
    let entry = entries.first().context("no boot entry on the disk")?;
    let folder = evidence.folder().to_owned();
    let (signed, bare, strange) = (folder.join("signed.efi"), folder.join("unsigned.efi"), folder.join("stranger.efi"));
    disk::take_entry(&machine.disk, entry, &signed).await?;
    forgery::unsigned(&signed, &bare).await?;
    stranger.sign_kernel(&bare, &strange).await?;
    for (what, kernel) in [("without a signature", &bare), ("signed by a stranger", &strange)] {
        // The loader counts its tries in the name.
        let entries = disk::boot_entries(&machine.disk).await?;
        disk::put_entry(&machine.disk, entries.first().context("no boot entry on the disk")?, kernel).await?;
        let mut running = machine.power_on(&Surroundings::default()).await?;
        let heard = running
            .console
            .wait("a refusal", patience(REFUSAL_WITHIN), |line| REFUSALS.iter().any(|word| line.contains(word)).then(|| line.to_owned()))
            .await;
        let started = running.console.all().iter().any(|line| line.text.contains("Linux version") || line.text.contains("VITALGATE"));
        let said = evidence.outcome(&format!("a kernel image {what} meets a refusal"), heard);
        evidence.check(&format!("a kernel image {what} does not boot ({said:?})"), !started && matches!(said, Some(Heard::Yes(..))));
        running.cut().await?;
    }
    for file in [signed, bare, strange] {
        std::fs::remove_file(file)?;
    }
    Ok(())
}

/// A byte of the root that every boot reads: the kernel panics; with another slot, that one comes up.
async fn flipped(first: &Image, evidence: &mut Evidence) -> anyhow::Result<()> {
    let updated = Updated { first, second: &Image::second()? }.machine(evidence)?;
    evidence.check("the machine of the case `day` is there, of these images, whose other slot comes up", updated.is_some());
    let mut machine = match updated {
        Some(machine) => machine.duplicate(&Path::new(FOLDER).join("refused-machine"), evidence.folder()).await?,
        None => Appliance::commissioned(first, "refused-machine", evidence).await?.machine,
    };
    let entries = disk::boot_entries(&machine.disk).await?;
    let newest = entries.iter().max_by_key(|entry| entry.version).context("no boot entry on the disk")?;
    disk::flip(&machine.disk, newest.slot.root_label(), SUPERBLOCK_BYTE).await?;
    let mut running = machine.power_on(&Surroundings::default()).await?;
    let heard = running.state(&IN_SERVICE, ASKED_WITHIN).await?;
    evidence.check("a root with a flipped byte does not come into service", heard == Heard::Off);
    let lines = running.console.all();
    let told = lines.iter().find(|line| line.text.contains("corrupted") || line.text.contains("verity")).map(|line| line.text.clone());
    evidence.check(&format!("the console says why: {told:?}"), told.is_some());
    drop(running);
    if entries.len() > 1 {
        let (running, _) = machine.boot_to(&Surroundings::default(), &IN_SERVICE).await?;
        evidence.check(&format!("the other slot comes up after {} starts", machine.starts()), true);
        running.cut().await?;
    }
    Ok(())
}

/// A machine that was flashed and never started.
async fn blank(first: &Image, evidence: &Evidence) -> anyhow::Result<Machine> {
    let machine = Machine::at(&Path::new(FOLDER).join("refused-machine"), evidence.folder())?;
    first.flash(&machine.disk).await?;
    machine.manufacture(&image::keys().join("secureboot")).await?;
    Ok(machine)
}

/// A site file that was changed after signing: state word, number and report; the right one is then taken.
async fn site_files(first: &Image, evidence: &mut Evidence) -> anyhow::Result<()> {
    let folder = evidence.folder().join("site");
    std::fs::create_dir_all(&folder)?;
    let practice = practice().await?;
    let good = site_file(&practice, &folder).await?;
    let tampered = folder.join("tampered.provision");
    let text = std::fs::read_to_string(&good)?;
    std::fs::write(&tampered, text.replacen("Patient/monitor-01", "Patient/monitor-02", 1))?;
    let bad = Stick::new(&folder.join("bad.img"), labels::PROVISION, &[(labels::SITE_FILE, &tampered)]).await?;
    let right = Stick::new(&folder.join("good.img"), labels::PROVISION, &[(labels::SITE_FILE, &good)]).await?;
    let garbage = Stick::garbage(&folder.join("garbage.img"), 3)?;

    let mut machine = blank(first, evidence).await?;
    let mut running = machine.power_on(&Surroundings::default()).await?;
    let asked = running.state(&[StateWord::AwaitProvision], ASKED_WITHIN).await?;
    evidence.check("a new appliance asks for its site file", matches!(asked, Heard::Yes(..)));
    let garbage = running.plug(&garbage).await?;
    let plugged = running.plug(&bad).await?;
    let rejected = running.state(&[StateWord::ProvisionRejected], REPORT_WITHIN).await?;
    evidence.check(&format!("a changed site file is refused: {rejected:?}"), matches!(rejected, Heard::Yes(..)));
    let said = bad.written(labels::PROVISION_REPORT, REPORT_WITHIN).await;
    if let Some(said) = evidence.outcome("the stick has a report", said) {
        let reason = format!("REFUSED ({})", Rejection::SignatureWrong.code());
        evidence.check(&format!("it names the signature: {reason}"), said.contains(&reason));
        evidence.keep("provision-report.txt", said);
    }
    running.pull(&plugged).await?;
    running.pull(&garbage).await?;
    accepted(&mut running, &right, evidence).await?;
    running.cut().await
}

async fn accepted(running: &mut Running, stick: &Stick, evidence: &mut Evidence) -> anyhow::Result<()> {
    running.plug(stick).await?;
    let service = running.state(&IN_SERVICE, ASKED_WITHIN).await?;
    evidence.check("the right site file is then taken", matches!(service, Heard::Yes(..)));
    Ok(())
}
