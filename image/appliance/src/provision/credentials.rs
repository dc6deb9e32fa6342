//! What publishing devices show to be let in: made by the gateway, as its own account.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use vitalgate_domain::DeviceId;
use vitalgate_layout::{account, path};

use super::Provisioning;
use crate::command::Call;
use crate::storage::give;

/// In memory; only while they are being made.
const FOLDER: &str = "/run/vitalgate-commission";
/// What making one device's credentials may take, in seconds.
const DEADLINE_S: u64 = 60;
/// Largest credential file, in bytes.
const FILE_BYTES_MAX: usize = 64 * 1024;

/// The files for one device.
pub(super) struct Credentials {
    /// The device.
    pub(super) device: DeviceId,
    /// Its folder on the stick; a FAT file system does not tell `A` from `a`.
    pub(super) folder: String,
    /// Names and contents.
    pub(super) files: Vec<(String, Vec<u8>)>,
}

impl Credentials {
    /// The certificate of the gateway's local authority.
    pub(super) fn authority(&self) -> Option<&[u8]> {
        self.files.iter().find(|(name, _)| name == "ca.pem").map(|(_, bytes)| bytes.as_slice())
    }
}

impl Provisioning<'_> {
    /// Makes the credentials of these devices; older ones of theirs are no longer good for anything new.
    pub(super) fn make_credentials<'d>(&self, devices: impl Iterator<Item = &'d DeviceId>) -> anyhow::Result<Vec<Credentials>> {
        let root = self.places.at(FOLDER);
        let _cleaned = Cleaned(&root);
        let mut all: Vec<Credentials> = Vec::new();
        for device in devices {
            let taken = |name: &str| all.iter().any(|other| other.folder.eq_ignore_ascii_case(name));
            let name = device.to_string();
            let folder = if taken(&name) { format!("{name}-{}", all.len()) } else { name };
            all.push(self.make(device, folder, &root).with_context(|| format!("no credentials for {device}"))?);
        }
        Ok(all)
    }

    fn make(&self, device: &DeviceId, folder: String, root: &Path) -> anyhow::Result<Credentials> {
        let output = root.join(&folder);
        fs::create_dir_all(&output)?;
        give(root, account::DAEMON.1)?;
        give(&output, account::DAEMON.1)?;
        let call = Call::new("/usr/bin/vitalgate", "see the journal; power the appliance off and on, and try once more")
            .arguments(["--config".as_ref(), self.places.at(path::DAEMON_CONFIG).as_os_str()])
            .arguments(["device", "add", &device.to_string(), "--output-dir"])
            .arguments([&output])
            .user(account::DAEMON.1, account::DAEMON.1)
            .deadline(Duration::from_secs(DEADLINE_S));
        let answer = self.programs.run(call)?;
        let mut files = vec![("credentials.txt".to_owned(), crate::text::for_windows(&for_people(&answer.text())).into_bytes())];
        for entry in fs::read_dir(&output)? {
            let entry = entry?;
            let bytes = fs::read(entry.path())?;
            anyhow::ensure!(bytes.len() <= FILE_BYTES_MAX, "{} is too large", entry.path().display());
            files.push((entry.file_name().to_string_lossy().into_owned(), bytes));
        }
        files.sort();
        Ok(Credentials { device: device.clone(), folder, files })
    }
}

/// Where the files were in between is of no use to anybody.
fn for_people(output: &str) -> String {
    output.lines().filter(|line| !line.starts_with("written")).map(|line| format!("{line}\n")).collect()
}

/// Removes the folder in memory however the step ends.
struct Cleaned<'a>(&'a Path);

impl Drop for Cleaned<'_> {
    fn drop(&mut self) {
        // It is in memory and root's own; a restart removes what is left.
        let _ = fs::remove_dir_all(self.0);
    }
}
