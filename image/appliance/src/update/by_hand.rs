//! The newest version that a person left for an older one: it does not come back by itself.
//!
//! Whoever brings an older version by stick has a reason that the appliance does not know. Without this note the server's next
//! look would undo it within the hour.

use std::fs::File;
use std::io::{self, Read as _};

use vitalgate_layout::Version;

use crate::places::Places;
use crate::state_file::replace;

/// The note, in sealed storage: it goes with everything else when the appliance is reset.
const LEFT: &str = "/data/appliance/left-by-hand";
/// Most that is read of it, in bytes.
const LEFT_BYTES_MAX: u64 = 64;

/// The newest version that was left.
pub(super) fn left(places: &Places) -> Option<Version> {
    let mut text = String::new();
    File::open(places.at(LEFT)).ok()?.take(LEFT_BYTES_MAX).read_to_string(&mut text).ok()?;
    Version::parse(text.trim())
}

/// Notes that a version is left, before it is: a power cut must not forget it. While it goes on running, the note
/// changes nothing.
///
/// # Errors
/// When sealed storage does not take the note.
pub(super) fn leave(places: &Places, version: Version) -> io::Result<()> {
    let newest = left(places).map_or(version, |before| before.max(version));
    replace(&places.at(LEFT), format!("{newest}\n").as_bytes(), 0o600)
}
