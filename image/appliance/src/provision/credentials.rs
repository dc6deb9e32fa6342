//! What publishing devices show to be let in: made by the gateway, as its own account.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use vitalgate_domain::DeviceId;
use vitalgate_layout::path;

use super::Provisioning;
use crate::command::{Call, Programs};
use crate::errand::{self, Errand};
use crate::places::Places;

/// What making one device's credentials may take, in seconds.
const DEADLINE_S: u64 = 60;
/// Largest credential file, in bytes.
const FILE_BYTES_MAX: usize = 64 * 1024;
/// Most files of a device.
const FILES_MAX: usize = 16;

/// The files for one device.
#[derive(Serialize, Deserialize)]
pub(crate) struct Credentials {
    /// The device.
    pub(super) device: String,
    /// Its folder on the stick; a FAT file system does not tell `A` from `a`.
    pub(super) folder: String,
    /// Names and contents.
    pub(super) files: Vec<(String, String)>,
}

impl Credentials {
    /// The certificate of the gateway's local authority.
    pub(super) fn authority(&self) -> Option<&[u8]> {
        self.files.iter().find(|(name, _)| name == "ca.pem").map(|(_, text)| text.as_bytes())
    }

    /// Whether the files go where they should: the one who made them is not root, who writes them to the stick.
    fn is_sound(&self) -> bool {
        let plain = |name: &str| Path::new(name).file_name().is_some_and(|last| last == name);
        let sound = |(name, text): &(String, String)| plain(name) && text.len() <= FILE_BYTES_MAX;
        plain(&self.folder) && self.files.len() <= FILES_MAX && self.files.iter().all(sound)
    }
}

impl Provisioning<'_> {
    /// Has the credentials of these devices made; what they had before, from a try that failed for example, is worth nothing then.
    pub(super) fn credentials<'d>(&self, devices: impl Iterator<Item = &'d DeviceId>) -> anyhow::Result<Vec<Credentials>> {
        let devices: Vec<String> = devices.map(ToString::to_string).collect();
        if devices.is_empty() {
            return Ok(Vec::new());
        }
        let deadline = Duration::from_secs(DEADLINE_S.saturating_mul(devices.len() as u64));
        let made: Vec<Credentials> = errand::send(self.programs, self.places, Errand::Credentials, &devices, deadline)?;
        let asked_for = made.iter().map(|one| &one.device).eq(devices.iter());
        anyhow::ensure!(asked_for && made.iter().all(Credentials::is_sound), "the gateway made something else than credentials");
        Ok(made)
    }
}

/// Makes the credentials of these devices; an errand, gone on by the daemon's account.
///
/// # Errors
/// When the gateway makes none.
pub(crate) fn make_credentials(places: &Places, programs: &dyn Programs, devices: &[String]) -> anyhow::Result<Vec<Credentials>> {
    let root = Errand::Credentials.folder(places).join("files");
    let _cleaned = Cleaned(&root);
    let mut all: Vec<Credentials> = Vec::new();
    for device in devices {
        let taken = |name: &str| all.iter().any(|other| other.folder.eq_ignore_ascii_case(name));
        let folder = if taken(device) { format!("{device}-{}", all.len()) } else { device.clone() };
        let output = root.join(&folder);
        all.push(make(places, programs, device, folder, output).with_context(|| format!("no credentials for {device}"))?);
    }
    Ok(all)
}

fn make(places: &Places, programs: &dyn Programs, device: &str, folder: String, output: PathBuf) -> anyhow::Result<Credentials> {
    fs::create_dir_all(&output)?;
    let call = Call::new("/usr/bin/vitalgate", "see the journal; power the appliance off and on, and try once more")
        .arguments(["--config".as_ref(), places.at(path::DAEMON_CONFIG).as_os_str()])
        .arguments(["device", "add", device, "--replace", "--output-dir"])
        .arguments([&output])
        .deadline(Duration::from_secs(DEADLINE_S));
    let answer = programs.run(call)?;
    let mut files = vec![("credentials.txt".to_owned(), crate::text::for_windows(&for_people(&answer.text())))];
    for entry in fs::read_dir(&output)? {
        let entry = entry?;
        files.push((entry.file_name().to_string_lossy().into_owned(), fs::read_to_string(entry.path())?));
    }
    files.sort();
    Ok(Credentials { device: device.to_owned(), folder, files })
}

/// Where the files were in between is of no use to anybody.
fn for_people(output: &str) -> String {
    output.lines().filter(|line| !line.starts_with("written")).map(|line| format!("{line}\n")).collect()
}

/// Removes the folder in memory however the step ends.
struct Cleaned<'a>(&'a Path);

impl Drop for Cleaned<'_> {
    fn drop(&mut self) {
        // It is in memory, and goes with the unit.
        let _ = fs::remove_dir_all(self.0);
    }
}
