//! The record of the last rollback: which version was left, and why.

use std::fs;

use serde::{Deserialize, Serialize};
use vitalgate_layout::{Slot, Version, path};

use super::esp::Esp;
use crate::places::Places;
use crate::state_file::{now_unix_ms, replace};

/// Largest record that is read, in bytes.
const RECORD_BYTES_MAX: u64 = 16 * 1024;

/// One rollback.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Rollback {
    /// Letter of the slot that was left.
    pub(crate) slot: String,
    /// The version that was left.
    pub(crate) version: String,
    /// Why.
    pub(crate) reason: String,
    /// When, in Unix milliseconds by the clock of that moment.
    pub(crate) at_unix_ms: i64,
    /// A later update went well: no longer a condition, only history.
    #[serde(default)]
    pub(crate) superseded: bool,
}

impl Rollback {
    /// A rollback now.
    pub(crate) fn now(slot: Slot, version: Version, reason: String) -> Self {
        Self { slot: slot.to_string(), version: version.to_string(), reason, at_unix_ms: now_unix_ms(), superseded: false }
    }

    /// Whether it is about this version in this slot.
    pub(crate) fn is_of(&self, slot: Slot, version: Version) -> bool {
        self.slot == slot.letter() && self.version == version.to_string()
    }
}

/// The last rollback that is on record.
pub(crate) fn last_rollback(places: &Places, esp: &Esp<'_>) -> Option<Rollback> {
    esp.rollback().or_else(|| {
        let file = places.at(path::LAST_ROLLBACK);
        let small = fs::metadata(&file).ok()?.len() <= RECORD_BYTES_MAX;
        small.then(|| serde_json::from_slice(&fs::read(file).ok()?).ok())?
    })
}

/// Puts a rollback on record: in sealed storage, or beside the boot entries while that is closed.
///
/// # Errors
/// When neither takes it.
pub(crate) fn record(places: &Places, esp: &Esp<'_>, rollback: &Rollback) -> anyhow::Result<()> {
    let text = serde_json::to_vec_pretty(rollback)?;
    match replace(&places.at(path::LAST_ROLLBACK), &text, 0o600) {
        Ok(()) => Ok(esp.forget_rollback()?),
        Err(_closed) => Ok(esp.set_rollback(rollback)?),
    }
}
