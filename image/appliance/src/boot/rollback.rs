//! The record of the last rollback: which version was left, and why.

use std::fs;

use serde::{Deserialize, Serialize};
use vitalgate_layout::{Slot, Version, path};

use super::esp::Esp;
use crate::places::Places;
use crate::state_file::{now_unix_ms, replace};

/// Largest record that is read, in bytes.
const RECORD_BYTES_MAX: u64 = 16 * 1024;
/// Most characters of why: the record stays below what is read of it, whatever they are.
const REASON_CHARS_MAX: usize = 500;
/// Most earlier versions that are remembered as undone; the oldest is forgotten first.
const EARLIER_MAX: usize = 16;
/// Most characters of why, for each of these.
const EARLIER_REASON_CHARS_MAX: usize = 100;

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
    /// The version had shown before that it is healthy: left, but not undone. It may come again.
    #[serde(default)]
    pub(crate) was_kept: bool,
    /// What was undone before it, with no update since that went well; the newest last.
    #[serde(default)]
    pub(crate) earlier: Vec<Undone>,
}

/// A version that is not tried again by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Undone {
    /// The version.
    pub(crate) version: String,
    /// Why it was left.
    pub(crate) reason: String,
}

impl Rollback {
    /// A rollback now.
    pub(crate) fn now(slot: Slot, version: Version, reason: String) -> Self {
        Self {
            slot: slot.to_string(),
            version: version.to_string(),
            reason: reason.chars().take(REASON_CHARS_MAX).collect(),
            at_unix_ms: now_unix_ms(),
            superseded: false,
            was_kept: false,
            earlier: Vec::new(),
        }
    }

    /// The same, with what is known of earlier ones. Two versions that are undone one after the other would replace each other for
    /// ever if only the last were remembered.
    pub(crate) fn after(self, known: Option<&Self>) -> Self {
        let Some(known) = known.filter(|known| !known.superseded && !self.superseded) else {
            return Self { earlier: Vec::new(), ..self };
        };
        let last = Undone { version: known.version.clone(), reason: known.reason.chars().take(EARLIER_REASON_CHARS_MAX).collect() };
        let last = (!known.was_kept).then_some(last);
        let mut earlier: Vec<Undone> = known.earlier.iter().cloned().chain(last).filter(|undone| undone.version != self.version).collect();
        earlier.drain(..earlier.len().saturating_sub(EARLIER_MAX));
        Self { earlier, ..self }
    }

    /// Why this version was left, if it was and nothing went well since.
    pub(crate) fn why_undone(&self, version: Version) -> Option<&str> {
        let version = version.to_string();
        if self.superseded {
            return None;
        }
        if self.version == version && !self.was_kept {
            return Some(&self.reason);
        }
        self.earlier.iter().find(|undone| undone.version == version).map(|undone| undone.reason.as_str())
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
    let rollback = &rollback.clone().after(last_rollback(places, esp).as_ref());
    let text = serde_json::to_vec_pretty(rollback)?;
    match replace(&places.at(path::LAST_ROLLBACK), &text, 0o600) {
        Ok(()) => Ok(esp.forget_rollback()?),
        Err(_closed) => Ok(esp.set_rollback(rollback)?),
    }
}
