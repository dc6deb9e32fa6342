//! A machine with our image on its disk: flashed, provisioned, in service.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::Value;
use vitalgate_layout::{StateWord, stick as labels};
use vitalgate_test_support::wait_until;

use crate::evidence::{Evidence, FOLDER, figure};
use crate::image::{self, DISK_BYTES, Image};
use crate::machine::console::Heard;
use crate::machine::model::Model;
use crate::machine::{Machine, Running, Surroundings, patience};
use crate::page::{Page, fingerprint_in};
use crate::practice::{self, Devices, PUBLISHERS, Practice};
use crate::stick::Stick;

/// The appliance takes readings.
pub(crate) const IN_SERVICE: [StateWord; 5] =
    [StateWord::Ready, StateWord::RolledBack, StateWord::Degraded, StateWord::OfflineBuffering, StateWord::TimeUntrusted];
/// Longest wait for commissioning after the boot.
const COMMISSIONING_WITHIN: Duration = Duration::from_secs(300);
/// Longest wait for the page after a state word.
const PAGE_WITHIN: Duration = Duration::from_secs(120);

/// What an appliance is commissioned with, where it differs from that of most tests.
pub(crate) struct Order<'o> {
    /// Folder of the machine, under that of all evidence.
    pub(crate) machine: &'o str,
    /// Size of its disk.
    pub(crate) disk_bytes: u64,
    /// Text of the site file.
    pub(crate) site: String,
    /// How the machine stands in the world.
    pub(crate) surroundings: Surroundings,
}

/// A commissioned appliance with its surroundings, the power off.
pub(crate) struct Appliance {
    /// The machine.
    pub(crate) machine: Machine,
    /// The servers around it.
    pub(crate) practice: Practice,
    /// Credentials, reports and recovery key, as they came back on the stick.
    pub(crate) handed_over: PathBuf,
}

/// Folder of the machine that other cases begin with.
const BASE: &str = "base";
/// What it was made from.
const STAMP: &str = "stamp";

fn base() -> PathBuf {
    Path::new(FOLDER).join(BASE)
}

/// Changes whenever image or site file do.
fn stamp(image: &Image, practice: &Practice) -> anyhow::Result<String> {
    Ok(format!("{}\n{}", image.stamp()?, practice.site_text()?))
}

/// The machine whose two slots hold these versions, both of which came up: other cases begin with it.
pub(crate) struct Updated<'a> {
    /// The version it came from.
    pub(crate) first: &'a Image,
    /// The version it runs.
    pub(crate) second: &'a Image,
}

impl Updated<'_> {
    fn folder() -> PathBuf {
        Path::new(FOLDER).join("updated")
    }

    fn stamp(&self) -> anyhow::Result<String> {
        Ok(format!("{}\n{}", self.first.stamp()?, self.second.stamp()?))
    }

    /// What an earlier run left counts for nothing from here on.
    ///
    /// # Errors
    /// When it cannot be deleted.
    pub(crate) fn forget() -> anyhow::Result<()> {
        match std::fs::remove_dir_all(Self::folder()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).context("the updated machine of an earlier run stays"),
            _ => Ok(()),
        }
    }

    /// Keeps a copy of this machine.
    ///
    /// # Errors
    /// When it cannot be copied.
    pub(crate) async fn keep(&self, machine: &Machine, evidence: &mut Evidence) -> anyhow::Result<()> {
        machine.duplicate(&Self::folder(), evidence.folder()).await?;
        Ok(std::fs::write(Self::folder().join(STAMP), self.stamp()?)?)
    }

    /// The machine, if it was made of just these images.
    ///
    /// # Errors
    /// When an image is not there, or its folder cannot be used.
    pub(crate) fn machine(&self, evidence: &mut Evidence) -> anyhow::Result<Option<Machine>> {
        let is_made_of_these = is_stamped(&Self::folder(), &self.stamp()?);
        is_made_of_these.then(|| Machine::at(&Self::folder(), evidence.folder())).transpose()
    }
}

fn is_stamped(folder: &Path, stamp: &str) -> bool {
    std::fs::read_to_string(folder.join(STAMP)).is_ok_and(|made| made == stamp)
}

/// The servers around every appliance of these tests.
///
/// # Errors
/// When they cannot be started.
pub(crate) async fn practice() -> anyhow::Result<Practice> {
    practice_for(None).await
}

/// The same with an EHR that lets in only clients of this authority (PEM).
///
/// # Errors
/// When they cannot be started.
pub(crate) async fn practice_for(clients: Option<String>) -> anyhow::Result<Practice> {
    Practice::open(&Path::new(FOLDER).join("practice"), clients).await
}

/// The signed site file.
///
/// # Errors
/// When it cannot be signed.
pub(crate) async fn site_file(practice: &Practice, folder: &Path) -> anyhow::Result<PathBuf> {
    sign(&practice.site_text()?, folder).await
}

/// This text as a signed site file.
///
/// # Errors
/// When it cannot be signed.
pub(crate) async fn sign(site: &str, folder: &Path) -> anyhow::Result<PathBuf> {
    let (text, signed) = (folder.join("site.toml"), folder.join(labels::SITE_FILE));
    std::fs::write(&text, site)?;
    image::sign_site(&text, &signed).await?;
    Ok(signed)
}

impl Appliance {
    /// Flashes and commissions a new appliance, and keeps it as the base of later cases.
    ///
    /// # Errors
    /// When a step fails.
    pub(crate) async fn commission(image: &Image, evidence: &mut Evidence) -> anyhow::Result<Self> {
        let practice = practice().await?;
        let stamp = stamp(image, &practice)?;
        let order = Order { machine: BASE, disk_bytes: DISK_BYTES, site: practice.site_text()?, surroundings: Surroundings::default() };
        let appliance = Self::commission_as(image, &order, practice, evidence).await?;
        std::fs::write(base().join(STAMP), stamp)?;
        Ok(appliance)
    }

    /// Flashes and commissions a new appliance as ordered.
    ///
    /// # Errors
    /// When a step fails.
    pub(crate) async fn commission_as(
        image: &Image,
        order: &Order<'_>,
        practice: Practice,
        evidence: &mut Evidence,
    ) -> anyhow::Result<Self> {
        let folder = Path::new(FOLDER).join(order.machine);
        if folder.exists() {
            std::fs::remove_dir_all(&folder)?;
        }
        let mut machine = Machine::at(&folder, evidence.folder())?;
        let proof = image.flash_sized(&machine.disk, order.disk_bytes).await?;
        evidence.say(&format!("flashed: {proof}"));
        machine.manufacture(&image::keys().join("secureboot")).await?;
        let site = sign(&order.site, evidence.folder()).await?;
        let stick = Stick::new(&folder.join("provision.img"), labels::PROVISION, &[(labels::SITE_FILE, &site)]).await?;

        let mut running = machine.power_on(&order.surroundings).await?;
        running.plug(&stick).await?;
        let outcome = wait_commissioned(&mut running, order.machine == BASE, evidence).await;
        // A picture of the screen is for the manual; without one the case goes on.
        let _ = running.screenshot(&evidence.folder().join("screen-commissioned.png")).await;
        outcome?;
        running.cut().await?;
        let handed_over = folder.join("handed-over");
        stick.read_back(&handed_over).await?;
        check_handed_over(&handed_over, evidence);
        Ok(Self { machine, practice, handed_over })
    }

    /// A commissioned appliance from an earlier run with the same image, or a new one; `twin` names the copy.
    ///
    /// # Errors
    /// When a step fails.
    pub(crate) async fn commissioned(image: &Image, twin: &str, evidence: &mut Evidence) -> anyhow::Result<Self> {
        let base = base();
        let mut practice = practice().await?;
        let now = stamp(image, &practice)?;
        if is_stamped(&base, &now) {
            evidence.say("an appliance that was commissioned earlier with the same image and site file");
        } else {
            // Its servers keep their ports.
            drop(practice);
            practice = Self::commission(image, evidence).await?.practice;
        }
        let machine = Machine::at(&base, evidence.folder())?.duplicate(&Path::new(FOLDER).join(twin), evidence.folder()).await?;
        Ok(Self { machine, practice, handed_over: base.join("handed-over") })
    }

    /// Devices with the credentials of this appliance.
    ///
    /// # Errors
    /// When there are none.
    pub(crate) fn devices(&self) -> anyhow::Result<Devices> {
        Devices::start(&self.handed_over.join(labels::DEVICES), self.machine.mqtt_port)
    }

    /// Lets a device that is not publishing say something that no profile reads.
    ///
    /// # Errors
    /// When that is not acknowledged in time.
    pub(crate) async fn publish_unreadable(&self, device: &str, within: Duration) -> anyhow::Result<()> {
        let folder = self.handed_over.join(labels::DEVICES).join(device);
        practice::publish_unreadable(device, &folder, self.machine.mqtt_port, within).await
    }

    /// Boots until it is in service.
    ///
    /// # Errors
    /// When it never is.
    pub(crate) async fn boot(&mut self, evidence: &Evidence) -> anyhow::Result<Running> {
        self.boot_in(&Surroundings::default(), evidence).await
    }

    /// The same, standing in the world in another way.
    ///
    /// # Errors
    /// When it never is.
    pub(crate) async fn boot_in(&mut self, surroundings: &Surroundings, evidence: &Evidence) -> anyhow::Result<Running> {
        let (running, at) = self.machine.boot_to(surroundings, &IN_SERVICE).await?;
        evidence.say(&format!("in service {:.0} s after power on (start {})", at.as_secs_f64(), self.machine.starts()));
        Ok(running)
    }

    /// The status page of the running machine.
    ///
    /// # Errors
    /// When the console shows no fingerprint.
    pub(crate) fn page(&self, running: &Running) -> anyhow::Result<Page> {
        let lines = running.console.all();
        let fingerprint = lines.iter().rev().find_map(|line| fingerprint_in(&line.text));
        Page::new(self.machine.page_port, fingerprint.context("no fingerprint of the status page on the console")?)
    }

    /// What the status page says as soon as `wanted` finds in it what it looks for.
    ///
    /// # Errors
    /// When it does not in time.
    pub(crate) async fn status(&self, running: &Running, what: &str, wanted: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
        self.status_within(running, what, PAGE_WITHIN, wanted).await
    }

    /// The same with another deadline.
    ///
    /// # Errors
    /// When it does not in time.
    pub(crate) async fn status_within(
        &self,
        running: &Running,
        what: &str,
        within: Duration,
        wanted: impl Fn(&Value) -> bool,
    ) -> anyhow::Result<Value> {
        let mut last = Value::Null;
        let found = wait_until(what, patience(within), async || {
            // The first state words come before the page and its fingerprint.
            last = match self.page(running) {
                Ok(page) => page.status().await.unwrap_or_else(|error| Value::from(format!("{error:#}"))),
                Err(error) => Value::from(format!("{error:#}")),
            };
            wanted(&last).then_some(())
        })
        .await;
        found.with_context(|| format!("the page says {last}"))?;
        Ok(last)
    }
}

async fn wait_commissioned(running: &mut Running, usual: bool, evidence: &mut Evidence) -> anyhow::Result<()> {
    let mut outcomes = [&IN_SERVICE[..], &[StateWord::ProvisionRejected]].concat();
    // Without a TPM that is the first word: the site file's leave to go on without is still on the stick.
    if Model::wanted()?.has_tpm() {
        outcomes.push(StateWord::Tamper);
    }
    match running.state(&outcomes, COMMISSIONING_WITHIN * 2).await? {
        Heard::Off => bail!("it went off; the console ends with\n{}", running.console.end()),
        Heard::Yes((word, detail), at) => {
            evidence.say(&format!("{word} {detail} {:.0} s after power on", at.as_secs_f64()));
            if usual {
                figure("first_boot_to_service_s", crate::evidence::tenths(at.as_secs_f64()))?;
            }
            anyhow::ensure!(IN_SERVICE.contains(&word), "{word} {detail}\n{}", running.console.end());
            Ok(())
        }
    }
}

/// What a technician takes away.
fn check_handed_over(folder: &Path, evidence: &mut Evidence) {
    for name in [labels::COMMISSIONING_REPORT, labels::COMMISSIONING_REPORT_TEXT, labels::RECOVERY_KEY] {
        evidence.check(&format!("{name} is on the stick"), folder.join(name).is_file());
    }
    for device in PUBLISHERS {
        let folder = folder.join(labels::DEVICES).join(device);
        let all = ["certificate.pem", "key.pem", "ca.pem"].iter().all(|name| folder.join(name).is_file());
        evidence.check(&format!("credentials of {device} are on the stick"), all);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine that was made of other images proves nothing about these.
    #[test]
    fn what_was_made_of_other_images_does_not_count() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!is_stamped(folder.path(), "0.1.0 7 8"), "nothing is there");
        std::fs::write(folder.path().join(STAMP), "0.1.0 7 8").unwrap();
        assert!(is_stamped(folder.path(), "0.1.0 7 8"));
        assert!(!is_stamped(folder.path(), "0.1.0 7 9"));
    }
}
