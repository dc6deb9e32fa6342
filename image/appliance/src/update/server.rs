//! What the configured server offers: its list of checksums names the bundles.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::digest;
use vitalgate_layout::{Version, path};
use vitalgate_site::Update;

use super::fetch::{FETCHED, From, Wanted};
use crate::boot::COMPATIBLE;
use crate::cli::say_error;
use crate::command::Programs;
use crate::errand::{self, Errand, ErrandError};
use crate::places::Places;

/// The list of a release set; only a hint at what is there, since a bundle is trusted by its own signature.
const LIST: &str = "SHA256SUMS";
/// Longest list, in bytes.
const LIST_BYTES_MAX: u64 = 256 * 1024;
/// Largest bundle, in bytes.
pub(crate) const BUNDLE_BYTES_MAX: u64 = 160 * 1024 * 1024;
/// How long the list may take.
const LIST_DEADLINE: Duration = Duration::from_secs(120);
/// How long a bundle may take.
const BUNDLE_DEADLINE: Duration = Duration::from_secs(2 * 3600 + 60);

/// A bundle on the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    /// Its version, by its name.
    pub(crate) version: Version,
    /// Its file name.
    name: String,
    /// SHA-256 in hex.
    sha256: String,
}

impl Listed {
    /// What tells it from another that is listed.
    pub(super) fn mark(&self) -> String {
        format!("{}  {}", self.sha256, self.name)
    }

    /// What is said where another file lies under its name.
    pub(super) fn is_another(&self) -> anyhow::Error {
        anyhow::anyhow!("{} is not the file that {LIST} names; check the folder on the update server", self.name)
    }
}

/// The newest bundle for this machine in a list of checksums (sha256sum(1)).
pub(crate) fn newest(list: &str) -> Option<Listed> {
    let listed = list.lines().filter_map(|line| {
        let (sha256, name) = line.split_once([' ', '\t'])?;
        let name = name.trim_start().trim_start_matches('*').trim_end();
        let version = name.strip_prefix(COMPATIBLE)?.strip_prefix('-')?.strip_suffix(".raucb")?;
        let hex = sha256.len() == 64 && sha256.bytes().all(|byte| byte.is_ascii_hexdigit());
        let version = Version::parse(version)?;
        hex.then(|| Listed { version, name: name.to_owned(), sha256: sha256.to_ascii_lowercase() })
    });
    listed.max_by_key(|listed| listed.version)
}

/// Asks the server for its list.
///
/// # Errors
/// When it does not answer.
pub(crate) fn list(programs: &dyn Programs, places: &Places, update: &Update) -> Result<String, ErrandError> {
    ask(programs, places, &Wanted::Text(file(update, LIST, LIST_BYTES_MAX)), LIST_DEADLINE)
}

/// Fetches a bundle to where [`path::UPDATE_BUNDLE`] is; so much stays free beside it. Says whether it is the one that the list names;
/// another is not kept.
///
/// # Errors
/// When it does not come, or has no room.
pub(crate) fn get(programs: &dyn Programs, places: &Places, update: &Update, listed: &Listed, kept_free_mib: u64) -> anyhow::Result<bool> {
    let wanted = From { kept_free_mib, ..file(update, &listed.name, BUNDLE_BYTES_MAX) };
    let fetched = ask(programs, places, &Wanted::File(wanted), BUNDLE_DEADLINE);
    let bundle = places.at(path::UPDATE_BUNDLE);
    let taken = fetched.map_err(anyhow::Error::from).and_then(|_nothing| Ok(take_over(&places.at(FETCHED), &bundle)?));
    forget(programs, places);
    let is_listed = taken? == listed.sha256;
    if !is_listed {
        std::fs::remove_file(&bundle)?;
    }
    Ok(is_listed)
}

/// Takes away what was fetched, and what was taken over in part.
pub(crate) fn forget(programs: &dyn Programs, places: &Places) {
    // What stays is tried again at the next look.
    let _ = std::fs::remove_file(unfinished(&places.at(path::UPDATE_BUNDLE)));
    if !places.at(FETCHED).exists() {
        return;
    }
    if let Err(error) = ask(programs, places, &Wanted::Nothing, LIST_DEADLINE) {
        say_error(&error.into());
    }
}

fn ask(programs: &dyn Programs, places: &Places, wanted: &Wanted, deadline: Duration) -> Result<String, ErrandError> {
    errand::send(programs, places, Errand::Fetch, wanted, deadline)
}

fn file(update: &Update, name: &str, bytes_max: u64) -> From {
    From { url: format!("{}/{name}", update.server), bytes_max, kept_free_mib: 0, authorities: update.ca_pem.clone() }
}

/// Copies a file that somebody else wrote into a place of our own and gives its SHA-256 in hex.
///
/// # Errors
/// When it is no plain file of a sensible size, or cannot be kept; then nothing of it stays.
pub(crate) fn take_over(from: &Path, to: &Path) -> io::Result<String> {
    let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
    let opened = File::options().read(true).custom_flags(flags).open(from)?;
    let known = opened.metadata()?;
    if !known.is_file() || known.len() > BUNDLE_BYTES_MAX {
        return Err(io::Error::other("no file of at most 160 MiB"));
    }
    let unfinished = unfinished(to);
    let kept = copy(opened, &unfinished).and_then(|hash| std::fs::rename(&unfinished, to).map(|()| hash));
    kept.inspect_err(|_error| {
        let _ = std::fs::remove_file(&unfinished);
    })
}

/// Where a file lies until it is whole.
fn unfinished(to: &Path) -> PathBuf {
    to.with_extension("new")
}

fn copy(from: File, to: &Path) -> io::Result<String> {
    let mut kept = File::options().write(true).create(true).truncate(true).mode(0o600).open(to)?;
    let mut hash = Hashing { from: from.take(BUNDLE_BYTES_MAX), context: digest::Context::new(&digest::SHA256) };
    io::copy(&mut hash, &mut kept)?;
    kept.sync_all()?;
    Ok(hash.context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect())
}

struct Hashing<R> {
    from: R,
    context: digest::Context,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.from.read(buffer)?;
        self.context.update(buffer.get(..bytes).unwrap_or_default());
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The newest by number, not by letter, and only for this machine.
    #[test]
    fn the_newest_bundle_is_found() {
        let sha = "0".repeat(64);
        let list = ["0.9.0.raucb", "0.10.0.raucb", "0.11.0.img.zst", "next.raucb"].map(|end| format!("{sha}  {COMPATIBLE}-{end}\n"));
        let list = format!("{}{sha} *vitalgate-other-1.0.0.raucb\nshort  {COMPATIBLE}-2.0.0.raucb\ngarbage\n", list.concat());
        let found = newest(&list).unwrap();
        assert_eq!((found.version.to_string(), found.name), ("0.10.0".to_owned(), format!("{COMPATIBLE}-0.10.0.raucb")));
        assert_eq!(newest("<html>not found</html>"), None);
    }

    /// A link that the fetching account leaves is not followed.
    #[test]
    fn only_a_plain_file_is_taken_over() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        std::fs::write(&from, b"abc").unwrap();
        assert_eq!(take_over(&from, &to).unwrap(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(std::fs::read(&to).unwrap(), b"abc");
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&from, &link).unwrap();
        assert!(take_over(&link, &to).is_err());
        assert!(take_over(folder.path(), &to).is_err());
    }

    /// A copy that cannot be finished, such as on a full disk, leaves nothing behind that takes room.
    #[test]
    fn a_copy_that_fails_takes_no_room() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        std::fs::write(&from, b"abc").unwrap();
        std::fs::create_dir(&to).unwrap();
        assert!(take_over(&from, &to).is_err());
        assert!(!unfinished(&to).exists());
    }
}
