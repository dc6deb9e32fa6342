//! What runs: slot, version, and the oldest version that may be installed.

use std::fs;
use std::io::{self, Read as _};
use std::path::Path;

use anyhow::{Context as _, bail};
use vitalgate_layout::{Slot, Version, path};

use super::kernel_image::version_of;
use crate::cli::say;
use crate::places::Places;
use crate::state_file::replace;

/// Says what this image is, os-release(5).
const OS_RELEASE: &str = "/usr/lib/os-release";

/// A copy of the kept floor beside the boot loader, since a reset erases everything else.
const FLOOR_COPY: &str = "vitalgate/version-floor";
/// Most that is read of a floor, in bytes.
const FLOOR_BYTES_MAX: u64 = 64;

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
    baked_floor(places).max(kept_floor(places)).max(copied_floor(places))
}

/// Keeps the floor that this image asks for, in both places, unless a newer one is kept there already.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn raise_floor(places: &Places) -> io::Result<()> {
    let (baked, kept) = (baked_floor(places), kept_floor(places));
    // First the one that can be written while sealed storage is closed.
    let copied = raise_copy(places, baked.max(kept));
    // Not from the copy: whoever has the disk can write that.
    raise(&places.at(path::VERSION_FLOOR), baked, kept).and(copied)
}

fn raise_copy(places: &Places, floor: Option<Version>) -> io::Result<()> {
    let file = places.at(path::ESP).join(FLOOR_COPY);
    if let Some(folder) = file.parent().filter(|_folder| floor.is_some()) {
        fs::create_dir_all(folder)?;
    }
    raise(&file, floor, copied_floor(places))
}

fn raise(file: &Path, floor: Option<Version>, kept: Option<Version>) -> io::Result<()> {
    match floor {
        Some(floor) if Some(floor) > kept => replace(file, format!("{floor}\n").as_bytes(), 0o600),
        _ => Ok(()),
    }
}

fn baked_floor(places: &Places) -> Option<Version> {
    version_in(&places.at(path::TRUST).join(path::IMAGE_VERSION_FLOOR))
}

fn kept_floor(places: &Places) -> Option<Version> {
    version_in(&places.at(path::VERSION_FLOOR))
}

/// Nobody vouches for this one: it can only ask for more than the others.
fn copied_floor(places: &Places) -> Option<Version> {
    let file = places.at(path::ESP).join(FLOOR_COPY);
    let floor = version_in(&file);
    if floor.is_none() && file.exists() {
        say(&format!("{} names no version and is not heeded; it is written anew when the running version is kept", file.display()));
    }
    floor
}

fn version_in(file: &Path) -> Option<Version> {
    let mut text = String::new();
    fs::File::open(file).ok()?.take(FLOOR_BYTES_MAX).read_to_string(&mut text).ok()?;
    Version::parse(text.trim())
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
        fs::create_dir_all(places.at(path::ESP)).unwrap();
        for (in_image, expected) in [("0.2.0\n", "0.2.0"), ("0.1.0", "0.2.0"), ("nonsense", "0.2.0"), ("0.10.0", "0.10.0")] {
            fs::write(&baked, in_image).unwrap();
            raise_floor(&places).unwrap();
            assert_eq!(version_floor(&places), Version::parse(expected), "{in_image}");
            assert_eq!(kept_floor(&places), Version::parse(expected), "{in_image}");
        }
    }

    /// A factory reset erases sealed storage, not the floor: versions with known holes stay away. What stands on the open
    /// partition can only raise it.
    #[test]
    fn the_floor_outlasts_a_reset() {
        let folder = tempfile::tempdir().unwrap();
        let places = Places::under(folder.path());
        let baked = places.at(path::TRUST).join(path::IMAGE_VERSION_FLOOR);
        for folder in [baked.parent().unwrap(), &places.at(path::APPLIANCE), &places.at(path::ESP)] {
            fs::create_dir_all(folder).unwrap();
        }
        // Kept by a version that made no copy yet, and the older one that runs now asks for less.
        fs::write(places.at(path::VERSION_FLOOR), "0.3.0\n").unwrap();
        fs::write(&baked, "0.1.0").unwrap();
        raise_floor(&places).unwrap();
        fs::remove_dir_all(places.at(path::APPLIANCE)).unwrap();
        assert_eq!(version_floor(&places), Version::parse("0.3.0"));
        let copy = places.at(path::ESP).join(FLOOR_COPY);
        assert!(raise_floor(&places).is_err(), "sealed storage is closed");
        assert_eq!(version_floor(&places), Version::parse("0.3.0"));

        fs::create_dir_all(places.at(path::APPLIANCE)).unwrap();
        for (written, expected) in [("0.0.1\n", "0.1.0"), ("nonsense", "0.1.0"), ("", "0.1.0"), ("0.4.0\n", "0.4.0")] {
            fs::write(&copy, written).unwrap();
            assert_eq!(version_floor(&places), Version::parse(expected), "{written}");
            raise_floor(&places).unwrap();
            assert_eq!(version_in(&copy), Version::parse(expected), "{written}");
            assert_eq!(kept_floor(&places), Version::parse("0.1.0"), "{written}");
        }
    }
}
