//! What an attacker or an accident would hand to the appliance.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};

use crate::command;
use crate::image::{Image, keys};

/// A key that nobody enrolled, with its certificate.
#[derive(Debug, Clone)]
pub(crate) struct Stranger {
    key: PathBuf,
    certificate: PathBuf,
}

impl Stranger {
    /// Makes one in `folder`.
    ///
    /// # Errors
    /// When openssl fails.
    pub(crate) async fn new(folder: &Path) -> anyhow::Result<Self> {
        let stranger = Self { key: folder.join("stranger.key"), certificate: folder.join("stranger.crt") };
        let fixed = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "3650", "-subj", "/CN=stranger"].map(OsStr::new);
        let files = ["-keyout".as_ref(), stranger.key.as_os_str(), "-out".as_ref(), stranger.certificate.as_os_str()];
        command::run("openssl", fixed.into_iter().chain(files)).await?;
        Ok(stranger)
    }

    /// Signs a kernel image.
    ///
    /// # Errors
    /// When sbsign fails.
    pub(crate) async fn sign_kernel(&self, unsigned: &Path, signed: &Path) -> anyhow::Result<()> {
        let arguments = ["--key".as_ref(), self.key.as_os_str(), "--cert".as_ref(), self.certificate.as_os_str()];
        let files = ["--output".as_ref(), signed.as_os_str(), unsigned.as_os_str()];
        command::run("sbsign", arguments.into_iter().chain(files)).await.map(drop)
    }

    /// Makes a bundle of a folder.
    ///
    /// # Errors
    /// When rauc fails.
    pub(crate) async fn bundle(&self, folder: &Path, bundle: &Path) -> anyhow::Result<()> {
        make_bundle(&self.certificate, &self.key, folder, bundle).await
    }
}

/// A copy of a signed kernel image without its signature.
///
/// # Errors
/// When sbattach fails.
pub(crate) async fn unsigned(signed: &Path, unsigned: &Path) -> anyhow::Result<()> {
    std::fs::copy(signed, unsigned)?;
    command::run("sbattach", ["--remove".as_ref(), unsigned.as_os_str()]).await.map(drop)
}

/// Unpacks a bundle, for changing it.
///
/// # Errors
/// When its signature is not the release's.
pub(crate) async fn unpack(image: &Image, folder: &Path) -> anyhow::Result<()> {
    if folder.exists() {
        std::fs::remove_dir_all(folder)?;
    }
    let keyring = format!("--keyring={}", keys().join("rauc/ca.crt").display());
    let bundle = image.bundle();
    command::run("rauc", ["extract".as_ref(), OsStr::new(&keyring), bundle.as_os_str(), folder.as_os_str()]).await.map(drop)
}

/// Changes one line of the manifest of an unpacked bundle.
///
/// # Errors
/// When there is no such line.
pub(crate) fn change_manifest(folder: &Path, name: &str, value: &str) -> anyhow::Result<()> {
    let file = folder.join("manifest.raucm");
    let text = std::fs::read_to_string(&file).context("the bundle has no manifest")?;
    let begin = format!("{name}=");
    ensure!(text.lines().any(|line| line.starts_with(&begin)), "the manifest says nothing of {name}:\n{text}");
    // Hashes and sizes are written anew by whoever makes the bundle.
    let changed: Vec<String> = text
        .lines()
        .filter(|line| !line.starts_with("sha256=") && !line.starts_with("size=") && !line.starts_with("verity-"))
        .map(|line| if line.starts_with(&begin) { format!("{begin}{value}") } else { line.to_owned() })
        .collect();
    std::fs::write(&file, changed.join("\n") + "\n").context("the manifest cannot be written")
}

/// Makes an unpacked bundle one of another version throughout: manifest and kernel image, the latter signed again by the
/// release's key. Both versions must be equally long as text.
///
/// # Errors
/// When a tool fails or the kernel image does not name its version.
pub(crate) async fn change_version(folder: &Path, from: &str, to: &str) -> anyhow::Result<()> {
    ensure!(from.len() == to.len(), "{from} and {to} are not equally long");
    change_manifest(folder, "version", to)?;
    let kernel = folder.join("vitalgate.efi");
    command::run("sbattach", ["--remove".as_ref(), kernel.as_os_str()]).await?;
    let mut bytes = std::fs::read(&kernel)?;
    let mut named = 0;
    for begin in ["IMAGE_VERSION=", "VERSION_ID="] {
        let (old, new) = (format!("{begin}{from}\n"), format!("{begin}{to}\n"));
        if let Some(at) = bytes.windows(old.len()).position(|part| part == old.as_bytes()) {
            bytes[at..at + new.len()].copy_from_slice(new.as_bytes());
            named += 1;
        }
    }
    ensure!(named > 0, "the kernel image does not name version {from}");
    std::fs::write(&kernel, bytes)?;
    let keys = keys().join("secureboot");
    let (key, certificate) = (keys.join("db.key"), keys.join("db.crt"));
    let arguments = ["--key".as_ref(), key.as_os_str(), "--cert".as_ref(), certificate.as_os_str()];
    let files = ["--output".as_ref(), kernel.as_os_str(), kernel.as_os_str()];
    command::run("sbsign", arguments.into_iter().chain(files)).await.map(drop)
}

/// Makes a bundle that is signed by the release's key.
///
/// # Errors
/// When rauc fails.
pub(crate) async fn bundle(folder: &Path, bundle: &Path) -> anyhow::Result<()> {
    let keys = keys().join("rauc");
    make_bundle(&keys.join("release.crt"), &keys.join("release.key"), folder, bundle).await
}

async fn make_bundle(certificate: &Path, key: &Path, folder: &Path, bundle: &Path) -> anyhow::Result<()> {
    if bundle.exists() {
        std::fs::remove_file(bundle)?;
    }
    let (certificate, key) = (format!("--cert={}", certificate.display()), format!("--key={}", key.display()));
    let arguments = ["bundle".as_ref(), OsStr::new(&certificate), OsStr::new(&key), folder.as_os_str(), bundle.as_os_str()];
    command::run("rauc", arguments).await.map(drop)
}

/// Turns one bit of a file over.
///
/// # Errors
/// When it cannot be read or written, or is shorter.
pub(crate) fn flip(from: &Path, to: &Path, offset: usize) -> anyhow::Result<()> {
    let mut bytes = std::fs::read(from)?;
    *bytes.get_mut(offset).context("the file is shorter")? ^= 1;
    std::fs::write(to, bytes).context("the changed file cannot be written")
}
