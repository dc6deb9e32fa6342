//! Room on sealed storage: what readings need is not taken by anything else.

use std::io;
use std::path::Path;

use vitalgate_config::schema::FREE_SPACE_FLOOR_MIB;
use vitalgate_site::Site;

/// Room above the gateway's floor that is left to readings, in MiB: the hours in which nobody looks.
const READINGS_MIB: u64 = 128;
/// Bytes of a MiB, as a shift.
const MIB_SHIFT: u32 = 20;

/// Why an update is not put beside the readings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "no room for an update: {free_mib} MiB are free, {needed_mib} MiB are needed so that readings keep theirs; it waits until there is room"
)]
pub(crate) struct NoRoom {
    free_mib: u64,
    needed_mib: u64,
}

/// What stays free for readings, in MiB.
pub(crate) fn kept_free_mib(site: Option<&Site>) -> u64 {
    floor_mib(site).saturating_add(READINGS_MIB)
}

/// What an update that a person brings leaves free, in MiB. Where the gateway takes no readings for want of room, nothing is
/// taken from them, and the update may be what helps.
pub(crate) fn kept_free_mib_by_hand(site: Option<&Site>, free_mib: u64) -> u64 {
    if free_mib < floor_mib(site) { READINGS_MIB } else { kept_free_mib(site) }
}

/// The free space at which the gateway takes no more readings, in MiB: the site's own, or the default.
fn floor_mib(site: Option<&Site>) -> u64 {
    let config = site.and_then(|site| vitalgate_site::render_daemon_config(site).parse::<toml::Table>().ok());
    let own = config.as_ref().and_then(|config| config.get("store")?.get("free_space_floor_mib")?.as_integer());
    own.and_then(|mib| u64::try_from(mib).ok()).or(FREE_SPACE_FLOOR_MIB.default).unwrap_or(FREE_SPACE_FLOOR_MIB.max)
}

/// Refuses what would leave less than `kept_mib` free.
///
/// # Errors
/// Says what is free, and what is needed.
pub(crate) fn check(free_mib: u64, kept_mib: u64, bytes: u64) -> Result<(), NoRoom> {
    let needed_mib = kept_mib.saturating_add(bytes.div_ceil(1 << MIB_SHIFT));
    if free_mib < needed_mib { Err(NoRoom { free_mib, needed_mib }) } else { Ok(()) }
}

/// What is free in the file system of a folder, in MiB.
///
/// # Errors
/// When it does not say.
pub(crate) fn free_mib(folder: &Path) -> io::Result<u64> {
    let space = nix::sys::statvfs::statvfs(folder)?;
    Ok(space.blocks_available().saturating_mul(space.fragment_size()) >> MIB_SHIFT)
}

#[cfg(test)]
mod tests {
    use vitalgate_site::SiteFile;

    use super::*;

    /// The floor is the site's own, so that nothing is filled up that the gateway keeps free.
    #[test]
    fn the_floor_is_the_site_s_own() {
        let text = |mib: &str| format!("{}[storage]\n{mib}", crate::provision::SITE_EXAMPLE);
        let site = |mib: &str| SiteFile::check(&text(mib), "site.toml").unwrap();
        assert_eq!(floor_mib(Some(&site("free_space_floor_mib = 2048\n"))), 2048);
        assert_eq!(floor_mib(Some(&site(""))), 256);
        assert_eq!(floor_mib(None), 256);
    }

    /// The last byte of a begun MiB counts, and exactly enough is enough.
    #[test]
    fn what_is_kept_free_stays_free() {
        assert_eq!(check(385, 384, 1 << 20), Ok(()));
        let refused = check(385, 384, (1 << 20) + 1).unwrap_err();
        assert!(refused.to_string().contains("385 MiB are free, 386 MiB are needed"), "{refused}");
        assert!(check(u64::MAX, u64::MAX, u64::MAX).is_ok());
    }
}
