//! What this appliance is: its serial number, its version, and whose signatures it takes.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use vitalgate_layout::path;
use vitalgate_site::{Day, PublicKey};

use crate::places::Places;
use crate::state_file::now_unix_ms;

const SERIAL: &str = "/sys/class/dmi/id/product_serial";
const OS_RELEASE: &str = "/usr/lib/os-release";
/// Digits of the machine's name that stand in for a serial number that its maker left out.
const NAME_DIGITS: usize = 12;
/// What makers write where they have no number.
const NO_SERIALS: [&str; 6] = ["", "0", "none", "not specified", "to be filled by o.e.m.", "default string"];

/// The serial number on the label; where the maker left it out, `VG-` and the beginning of the machine's name.
pub(crate) fn serial(places: &Places) -> String {
    let made = fs::read_to_string(places.at(SERIAL)).unwrap_or_default();
    let made = made.trim();
    if !NO_SERIALS.contains(&made.to_ascii_lowercase().as_str()) {
        return made.to_owned();
    }
    let name = fs::read_to_string(places.at(path::MACHINE_ID)).unwrap_or_default();
    format!("VG-{}", name.trim().chars().take(NAME_DIGITS).collect::<String>().to_uppercase())
}

/// A value of the image's description (os-release(5)).
pub(crate) fn release(places: &Places, name: &str) -> Option<String> {
    let text = fs::read_to_string(places.at(OS_RELEASE)).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))?;
    Some(value.trim_matches('"').to_owned())
}

/// The image's version.
pub(crate) fn version(places: &Places) -> String {
    release(places, "IMAGE_VERSION").or_else(|| release(places, "VERSION_ID")).unwrap_or_else(|| "unknown".to_owned())
}

/// A value that the first program of the boot left (`VITALGATE_SLOT`, `VITALGATE_ROOT_HASH`).
pub(crate) fn boot_value(places: &Places, name: &str) -> Option<String> {
    let text = fs::read_to_string(places.at(path::BOOT_ENV)).ok()?;
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).map(str::to_owned)
}

/// Today, and never before the image was made: a clock at 1970 does not bring an expired file back.
pub(crate) fn today(places: &Places) -> Day {
    Day::from_unix_ms(now_unix_ms().max(image_unix_ms(places)))
}

/// When the image was made, in Unix milliseconds.
pub(crate) fn image_unix_ms(places: &Places) -> i64 {
    fs::metadata(places.at(OS_RELEASE)).map_or(0, |metadata| metadata.mtime().saturating_mul(1000))
}

/// A moment as text (RFC 3339).
pub(crate) fn moment(unix_ms: i64) -> String {
    jiff::Timestamp::from_millisecond(unix_ms).map_or_else(|_| format!("{unix_ms} ms"), |moment| moment.strftime("%FT%TZ").to_string())
}

/// Whose site files and requests are taken.
///
/// # Errors
/// When the image holds no such key.
pub(crate) fn site_roots(places: &Places) -> anyhow::Result<Vec<PublicKey>> {
    let file = places.at(path::TRUST).join(path::SITE_ROOT);
    let text = fs::read_to_string(&file)
        .map_err(|error| anyhow::anyhow!("{} ({error}): the image is incomplete, flash it anew", file.display()))?;
    let keys: Result<Vec<_>, _> = text.lines().filter(|line| !line.trim().is_empty()).map(PublicKey::parse).collect();
    // A PEM key has several lines.
    let keys = keys.or_else(|_| PublicKey::parse(&text).map(|key| vec![key]));
    keys.map_err(|error| anyhow::anyhow!("{} {error}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(files: &[(&str, &str)]) -> (tempfile::TempDir, Places) {
        let folder = tempfile::tempdir().unwrap();
        let places = Places::under(folder.path());
        for (file, text) in files {
            let file = places.at(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        (folder, places)
    }

    /// A board without a number still has one that stays.
    #[test]
    fn every_appliance_has_a_serial_number() {
        let name = (path::MACHINE_ID, "0123456789abcdef0123456789abcdef\n");
        let (_folder, places) = placed(&[(SERIAL, "VG-0001\n"), name]);
        assert_eq!(serial(&places), "VG-0001");
        let (_folder, places) = placed(&[(SERIAL, "To Be Filled By O.E.M.\n"), name]);
        assert_eq!(serial(&places), "VG-0123456789AB");
        let (_folder, places) = placed(&[name]);
        assert_eq!(serial(&places), "VG-0123456789AB");
    }

    /// The image's description is read as os-release(5) has it.
    #[test]
    fn the_version_is_the_image_s() {
        let (_folder, places) = placed(&[(OS_RELEASE, "ID=vitalgate\nVERSION_ID=\"0.1.0\"\n")]);
        assert_eq!(version(&places), "0.1.0");
        assert!(today(&places) >= Day::from_unix_ms(image_unix_ms(&places)));
    }
}
