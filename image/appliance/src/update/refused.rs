//! A bundle of the server that was refused: it is not fetched again every hour while the server lists the same.

use std::fs::File;
use std::io::{self, Read as _};

use serde::{Deserialize, Serialize};
use vitalgate_layout::Version;

use super::server::Listed;
use crate::places::Places;
use crate::state_file::replace;

/// The note, in sealed storage: it goes with everything else when the appliance is reset.
const REFUSED: &str = "/data/appliance/refused-bundle.json";
/// Most that is read of it, in bytes.
const REFUSED_BYTES_MAX: u64 = 16 * 1024;
/// Most characters of why that are kept.
const REASON_CHARS_MAX: usize = 1_000;
/// How long it is believed, in milliseconds: what was broken on the way once need not be for ever.
const BELIEVED_MS: i64 = 24 * 3_600 * 1_000;

#[derive(Debug, Serialize, Deserialize)]
struct Note {
    running: String,
    listed: String,
    reason: String,
    at_unix_ms: i64,
}

/// Why what is listed was refused lately by the version that runs.
pub(super) fn why(places: &Places, listed: &Listed, running: Version, now_unix_ms: i64) -> Option<String> {
    let mut text = String::new();
    File::open(places.at(REFUSED)).ok()?.take(REFUSED_BYTES_MAX).read_to_string(&mut text).ok()?;
    let note: Note = serde_json::from_str(&text).ok()?;
    let lately = (note.at_unix_ms..note.at_unix_ms.saturating_add(BELIEVED_MS)).contains(&now_unix_ms);
    (lately && note.listed == listed.mark() && note.running == running.to_string()).then_some(note.reason)
}

/// Notes why it was refused.
///
/// # Errors
/// When sealed storage does not take the note; it is fetched again then.
pub(super) fn note(places: &Places, listed: &Listed, running: Version, reason: &str, now_unix_ms: i64) -> io::Result<()> {
    let note = Note {
        running: running.to_string(),
        listed: listed.mark(),
        reason: reason.chars().take(REASON_CHARS_MAX).collect(),
        at_unix_ms: now_unix_ms,
    };
    replace(&places.at(REFUSED), &serde_json::to_vec(&note)?, 0o600)
}
