//! What the updater asks before it writes: whether this bundle may be installed, and its kernel image
//! put beside the boot entries.
//!
//! Source: RAUC 1.8, `docs/using.rst`, "System-Based Customization: Handlers": called with the bundle
//! verified and mounted at `RAUC_BUNDLE_MOUNT_POINT`, the target slots numbered in
//! `RAUC_TARGET_SLOTS`, before any slot is marked bad or written.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest;
use vitalgate_layout::{Slot, Version};

use super::esp::{Esp, EspError};
use super::kernel_image::{ImageError, KernelImage};
use super::running::Running;

/// The machine that bundles are made for; also in the updater's configuration.
pub(crate) const COMPATIBLE: &str = if cfg!(target_arch = "aarch64") { "vitalgate-arm64" } else { "vitalgate-amd64" };
/// The kernel image in a bundle.
const KERNEL_IMAGE: &str = "vitalgate.efi";
/// The updater's manifest in a bundle.
const MANIFEST: &str = "manifest.raucm";
/// Largest kernel image, in bytes: two entries and one that waits fit the partition.
const KERNEL_IMAGE_BYTES_MAX: u64 = 48 * 1024 * 1024;
/// Largest manifest, in bytes.
const MANIFEST_BYTES_MAX: u64 = 64 * 1024;
/// Size of a block of hashes and place of the topmost one (dm-verity superblock version 1, hash blocks of 4096 bytes).
const HASH_BLOCK_BYTES: u64 = 4096;
/// Longest salt of a dm-verity superblock, in bytes.
const SALT_BYTES_MAX: u16 = 256;

/// What the updater tells its handlers.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// Where the bundle's content is.
    pub(crate) bundle: PathBuf,
    /// Where it will be written.
    pub(crate) target: Slot,
}

/// Why a bundle is not installed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// The updater did not say what it should have.
    #[error("the updater does not say {0}")]
    Question(&'static str),
    /// A file of the bundle is not there.
    #[error("the bundle's {file} cannot be read ({reason}); get the bundle anew")]
    File {
        /// The file.
        file: &'static str,
        /// Why.
        reason: io::Error,
    },
    /// The manifest lacks something.
    #[error("the bundle's manifest names no {0}; get the bundle anew")]
    Manifest(&'static str),
    /// For another machine.
    #[error("the bundle is made for {0:?}, this appliance is {COMPATIBLE:?}; get the bundle for this machine")]
    Machine(String),
    /// Too old.
    #[error("version {version} is older than {floor}, the oldest that this appliance still takes; get a newer bundle")]
    BelowFloor {
        /// The bundle's version.
        version: Version,
        /// The oldest allowed.
        floor: Version,
    },
    /// Into the running slot.
    #[error("slot {0} is running and is not written")]
    Running(Slot),
    /// The kernel image is too large.
    #[error("the bundle's kernel image has {0} bytes, more than {KERNEL_IMAGE_BYTES_MAX}")]
    TooLarge(u64),
    /// The kernel image is none of ours.
    #[error("{0}; get the bundle anew")]
    Image(#[from] ImageError),
    /// Manifest and kernel image differ.
    #[error("the bundle says version {manifest}, its kernel image {image}; get the bundle anew")]
    OtherVersion {
        /// In the manifest.
        manifest: Version,
        /// In the kernel image.
        image: Version,
    },
    /// Kernel image and root differ.
    #[error("the bundle's kernel image does not belong to its root; get the bundle anew")]
    OtherRoot,
    /// The boot entries' partition refused it.
    #[error("{0}")]
    Esp(#[from] EspError),
}

/// The bundle's manifest, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Manifest {
    compatible: String,
    version: Version,
    verity: String,
}

impl Request {
    /// Reads the updater's variables.
    ///
    /// # Errors
    /// When one is missing.
    pub(crate) fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, Refusal> {
        let bundle = variable("RAUC_BUNDLE_MOUNT_POINT").ok_or(Refusal::Question("where the bundle is"))?;
        let targets = variable("RAUC_TARGET_SLOTS").ok_or(Refusal::Question("which slots it writes"))?;
        let mut names = targets.split_ascii_whitespace().filter_map(|number| variable(&format!("RAUC_SLOT_BOOTNAME_{number}")));
        let target = names.find_map(|name| Slot::parse(&name)).ok_or(Refusal::Question("which slot it writes"))?;
        Ok(Self { bundle: PathBuf::from(bundle), target })
    }
}

/// Refuses a bundle, or puts its kernel image beside the boot entries.
///
/// # Errors
/// Says why it is refused.
pub(crate) fn prepare(request: &Request, running: Running, floor: Option<Version>, esp: &Esp<'_>) -> Result<Version, Refusal> {
    if request.target == running.slot {
        return Err(Refusal::Running(request.target));
    }
    let manifest = read_manifest(&request.bundle)?;
    check_version(&manifest.compatible, manifest.version, floor)?;
    let mut kernel = open(&request.bundle, KERNEL_IMAGE, KERNEL_IMAGE)?;
    let bytes = kernel.metadata().map_err(|reason| Refusal::File { file: KERNEL_IMAGE, reason })?.len();
    if bytes > KERNEL_IMAGE_BYTES_MAX {
        return Err(Refusal::TooLarge(bytes));
    }
    let image = KernelImage::read(&kernel)?;
    if image.version != manifest.version {
        return Err(Refusal::OtherVersion { manifest: manifest.version, image: image.version });
    }
    let verity = open(&request.bundle, &manifest.verity, "hash image")?;
    let hash = root_hash(&verity).map_err(|reason| Refusal::File { file: "hash image", reason })?;
    if hash != image.root_hash {
        return Err(Refusal::OtherRoot);
    }
    esp.stage(request.target, &mut kernel)?;
    Ok(manifest.version)
}

/// Whether a bundle for this machine and of this version may be installed.
///
/// # Errors
/// Says why not.
pub(crate) fn check_version(compatible: &str, version: Version, floor: Option<Version>) -> Result<(), Refusal> {
    if compatible != COMPATIBLE {
        return Err(Refusal::Machine(compatible.to_owned()));
    }
    match floor {
        Some(floor) if version < floor => Err(Refusal::BelowFloor { version, floor }),
        _ => Ok(()),
    }
}

fn open(bundle: &Path, name: &str, file: &'static str) -> Result<File, Refusal> {
    // A file's name, not a way out of the bundle.
    let plain = Path::new(name).file_name().filter(|plain| *plain == name).ok_or(Refusal::Manifest("file"))?;
    File::open(bundle.join(plain)).map_err(|reason| Refusal::File { file, reason })
}

fn read_manifest(bundle: &Path) -> Result<Manifest, Refusal> {
    let failed = |reason| Refusal::File { file: MANIFEST, reason };
    let path = bundle.join(MANIFEST);
    if fs::metadata(&path).map_err(failed)?.len() > MANIFEST_BYTES_MAX {
        return Err(failed(io::Error::other("too large")));
    }
    parse_manifest(&fs::read_to_string(&path).map_err(failed)?)
}

/// Reads the manifest (RAUC, `docs/reference.rst`, "Manifest": a key file of groups).
fn parse_manifest(text: &str) -> Result<Manifest, Refusal> {
    let version = value(text, "update", "version").ok_or(Refusal::Manifest("version"))?;
    Ok(Manifest {
        compatible: value(text, "update", "compatible").ok_or(Refusal::Manifest("machine"))?,
        version: Version::parse(&version).ok_or(Refusal::Manifest("version major.minor.patch"))?,
        verity: value(text, "image.verity", "filename").ok_or(Refusal::Manifest("hash image"))?,
    })
}

fn value(text: &str, group: &str, key: &str) -> Option<String> {
    let mut lines = text.lines().map(str::trim).skip_while(|line| *line != format!("[{group}]"));
    lines.next()?;
    let mut own = lines.take_while(|line| !line.starts_with('['));
    own.find_map(|line| line.strip_prefix(key)?.trim_start().strip_prefix('=')).map(|value| value.trim().to_owned())
}

/// The root hash of a hash image: its topmost block, salted (dm-verity, superblock version 1).
fn root_hash(image: &File) -> io::Result<String> {
    let mut salt_bytes = [0; 2];
    image.read_exact_at(&mut salt_bytes, 80)?;
    let salt_bytes = u16::from_le_bytes(salt_bytes).min(SALT_BYTES_MAX);
    let mut salted = vec![0; usize::from(salt_bytes)];
    image.read_exact_at(&mut salted, 88)?;
    let mut block = [0; HASH_BLOCK_BYTES as usize];
    image.read_exact_at(&mut block, HASH_BLOCK_BYTES)?;
    salted.extend_from_slice(&block);
    let hash = digest::digest(&digest::SHA256, &salted);
    Ok(hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests;
