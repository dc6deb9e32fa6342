//! What the file system says of the store's folder.

use std::path::Path;

/// Bytes that an unprivileged process may still write there; 0 when the system does not say.
pub(crate) fn free_bytes(folder: &Path) -> u64 {
    nix::sys::statvfs::statvfs(folder).map_or(0, |space| space.blocks_available().saturating_mul(space.fragment_size()))
}

/// Bytes of the files directly in a folder; 0 when it cannot be listed.
pub(crate) fn folder_bytes(folder: &Path) -> u64 {
    let Ok(listing) = std::fs::read_dir(folder) else { return 0 };
    listing.filter_map(|entry| entry.ok()?.metadata().ok()).filter(std::fs::Metadata::is_file).map(|file| file.len()).sum()
}
