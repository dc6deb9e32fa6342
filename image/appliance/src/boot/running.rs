//! What runs: slot, version, and the oldest version that may be installed.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, bail};
use vitalgate_layout::{Slot, Version, path};

use super::kernel_image::version_of;
use crate::places::Places;
use crate::state_file::replace;

/// Says what this image is, os-release(5).
const OS_RELEASE: &str = "/usr/lib/os-release";

/// The running image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Running {
    /// Where it was started from.
    pub(crate) slot: Slot,
    /// Its version.
    pub(crate) version: Version,
}

impl Running {
    /// Asks the files of this start.
    ///
    /// # Errors
    /// When they do not say.
    pub(crate) fn read(places: &Places) -> anyhow::Result<Self> {
        let file = places.at(OS_RELEASE);
        let release = fs::read_to_string(&file).with_context(|| format!("{} cannot be read", file.display()))?;
        let Some(version) = version_of(&release) else {
            bail!("{} names no version major.minor.patch; the image was not built by its Makefile", file.display());
        };
        Ok(Self { slot: running_slot(places)?, version })
    }
}

/// The slot that this start is from.
///
/// # Errors
/// When the first program of the boot did not say.
pub(crate) fn running_slot(places: &Places) -> anyhow::Result<Slot> {
    let file = places.at(path::BOOT_ENV);
    let text = fs::read_to_string(&file).with_context(|| format!("{} cannot be read", file.display()))?;
    let slot = text.lines().find_map(|line| line.trim().strip_prefix("VITALGATE_SLOT="));
    slot.and_then(|slot| Slot::parse(slot.trim_matches('"'))).with_context(|| format!("{} names no slot", file.display()))
}

/// The oldest version that may be installed: what this image asks for or what was asked for before, whichever is newer.
pub(crate) fn version_floor(places: &Places) -> Option<Version> {
    baked_floor(places).max(kept_floor(places))
}

/// Keeps the floor that this image asks for, unless a newer one is kept already.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn raise_floor(places: &Places) -> std::io::Result<()> {
    match baked_floor(places) {
        Some(floor) if Some(floor) > kept_floor(places) => replace(&places.at(path::VERSION_FLOOR), format!("{floor}\n").as_bytes(), 0o600),
        _ => Ok(()),
    }
}

fn baked_floor(places: &Places) -> Option<Version> {
    version_in(&places.at(path::TRUST).join(path::IMAGE_VERSION_FLOOR))
}

fn kept_floor(places: &Places) -> Option<Version> {
    version_in(&places.at(path::VERSION_FLOOR))
}

fn version_in(file: &Path) -> Option<Version> {
    Version::parse(fs::read_to_string(file).ok()?.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The floor only ever rises, and what is no version does not lower it.
    #[test]
    fn the_floor_rises() {
        let folder = tempfile::tempdir().unwrap();
        let places = Places::under(folder.path());
        assert_eq!(version_floor(&places), None);
        let baked = places.at(path::TRUST).join(path::IMAGE_VERSION_FLOOR);
        for file in [&baked, &places.at(path::VERSION_FLOOR)] {
            fs::create_dir_all(file.parent().unwrap()).unwrap();
        }
        for (in_image, expected) in [("0.2.0\n", "0.2.0"), ("0.1.0", "0.2.0"), ("nonsense", "0.2.0"), ("0.10.0", "0.10.0")] {
            fs::write(&baked, in_image).unwrap();
            raise_floor(&places).unwrap();
            assert_eq!(version_floor(&places), Version::parse(expected), "{in_image}");
            assert_eq!(kept_floor(&places), Version::parse(expected), "{in_image}");
        }
    }
}
