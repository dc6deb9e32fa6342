//! What `make image` wrote: disk image, update bundle, keys.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::command::{self, setting};
use crate::machine::model::Model;

/// Folder of the images.
const FOLDER: &str = "target/image";

/// One image.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    /// Its version.
    pub(crate) version: String,
    model: Model,
    folder: PathBuf,
}

impl Image {
    /// The image of this version, `0.3.0-broken` for a variant.
    ///
    /// # Errors
    /// When it was not built.
    pub(crate) fn find(name: &str) -> anyhow::Result<Self> {
        let model = Model::wanted()?;
        let folder = Path::new(&setting("VITALGATE_IMAGES", FOLDER)).join(format!("{name}{}", model.suffix()));
        let version = name.split('-').next().unwrap_or(name).to_owned();
        let image = Self { version, model, folder };
        let (missing, version, machine) = (image.folder.display(), &image.version, model.name());
        ensure!(image.folder.is_dir(), "{missing} is missing; build it with make image VERSION={version} MACHINE={machine}");
        Ok(image)
    }

    /// What a new disk starts with.
    ///
    /// # Errors
    /// When it was not built.
    pub(crate) fn first() -> anyhow::Result<Self> {
        Self::find(&setting("VITALGATE_V1", "0.1.0"))
    }

    /// What it is updated to.
    ///
    /// # Errors
    /// When it was not built.
    pub(crate) fn second() -> anyhow::Result<Self> {
        Self::find(&setting("VITALGATE_V2", "0.2.0"))
    }

    /// A later version that fails its gate.
    ///
    /// # Errors
    /// When it was not built.
    pub(crate) fn broken() -> anyhow::Result<Self> {
        Self::find(&setting("VITALGATE_V3", "0.3.0-broken"))
    }

    fn file(&self, ending: &str) -> PathBuf {
        self.folder.join(format!("vitalgate-{}-{}.{ending}", self.model.name(), self.version))
    }

    /// The compressed disk image.
    pub(crate) fn disk(&self) -> PathBuf {
        self.file("img.zst")
    }

    /// The update bundle.
    pub(crate) fn bundle(&self) -> PathBuf {
        self.file("raucb")
    }

    /// Debian packages that the bill of materials names.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn packages(&self) -> anyhow::Result<usize> {
        let text = std::fs::read(self.file("cdx.json")).context("no bill of materials")?;
        let bill: Value = serde_json::from_slice(&text).context("the bill of materials is no JSON")?;
        let components = bill["components"].as_array().map(Vec::as_slice).unwrap_or_default();
        Ok(components.iter().filter(|one| one["purl"].as_str().is_some_and(|purl| purl.starts_with("pkg:deb/"))).count())
    }

    /// Changes whenever the image does.
    ///
    /// # Errors
    /// When it is not there.
    pub(crate) fn stamp(&self) -> anyhow::Result<String> {
        let about = std::fs::metadata(self.disk()).with_context(|| format!("{} is missing", self.disk().display()))?;
        let modified = about.modified()?.duration_since(std::time::UNIX_EPOCH)?;
        Ok(format!("{} {} {}", self.version, about.len(), modified.as_nanos()))
    }

    /// Flashes it onto a new virtual disk with the technician's tool; the line of proof that it prints.
    ///
    /// # Errors
    /// When the tool refuses.
    pub(crate) async fn flash(&self, disk: &Path) -> anyhow::Result<String> {
        self.flash_sized(disk, DISK_BYTES).await
    }

    /// The same onto a disk of another size.
    ///
    /// # Errors
    /// When the tool refuses.
    pub(crate) async fn flash_sized(&self, disk: &Path, bytes: u64) -> anyhow::Result<String> {
        if disk.exists() {
            std::fs::remove_file(disk)?;
        }
        std::fs::File::create(disk).and_then(|file| file.set_len(bytes)).context("no virtual disk")?;
        let (image, release) = (self.disk(), keys().join("release/pub"));
        let arguments = ["flash".as_ref(), image.as_os_str(), "--to".as_ref(), disk.as_os_str(), "--key".as_ref(), release.as_os_str()]
            .map(std::ffi::OsStr::to_owned);
        let printed = imagectl(arguments).await?;
        let proof = printed.lines().rev().find(|line| line.starts_with("OK ")).context("imagectl printed no line of proof")?;
        Ok(proof.to_owned())
    }
}

/// Size of the virtual disk in bytes: room for about 1.5 GiB of data.
pub(crate) const DISK_BYTES: u64 = 2 * 1024 * 1024 * 1024;

/// Signs a site file's text.
///
/// # Errors
/// When the tool refuses; the error shows what it says.
pub(crate) async fn sign_site(text: &Path, signed: &Path) -> anyhow::Result<()> {
    let key = keys().join("site/root.key");
    let arguments = ["provision".as_ref(), "sign".as_ref(), text.as_os_str(), "--key".as_ref(), key.as_os_str()];
    let arguments = arguments.into_iter().chain(["--output".as_ref(), signed.as_os_str()]);
    imagectl(arguments.map(std::ffi::OsStr::to_owned)).await.map(drop)
}

/// Runs the technician's tool.
///
/// # Errors
/// When it fails.
pub(crate) async fn imagectl(arguments: impl IntoIterator<Item = std::ffi::OsString>) -> anyhow::Result<String> {
    command::run(setting("VITALGATE_IMAGECTL", "target/debug/imagectl"), arguments).await
}

/// The development keys.
pub(crate) fn keys() -> PathBuf {
    PathBuf::from(setting("KEYS", &format!("{FOLDER}/keys")))
}
