//! Keeping the running slot, and finding out what became of the other.

use std::collections::BTreeMap;

use vitalgate_layout::entry::{BootEntry, TRIES};
use vitalgate_layout::fact;
use vitalgate_layout::state::StateWord;

use super::esp::{Esp, EspError, Trial};
use super::rollback::{Rollback, last_rollback, record};
use super::running::{Running, raise_floor, version_floor};
use crate::places::Places;

/// What the part `Slots` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SlotsSaid {
    /// The condition.
    pub(crate) word: StateWord,
    /// Why.
    pub(crate) detail: String,
    /// Slots, versions, floor and the last rollback.
    pub(crate) facts: BTreeMap<String, String>,
}

/// Gives the running slot all its tries back and ends its trial; a slot that died without a word is
/// given one. Returns the rollback that was put on record just now.
///
/// # Errors
/// When the EFI system partition or the records cannot be written.
pub(crate) fn keep(places: &Places, esp: &Esp<'_>, running: Running) -> anyhow::Result<Option<Rollback>> {
    esp.set_good(running.slot)?;
    let trial = esp.trial();
    let other = esp.entry(running.slot.other())?;
    let known = last_rollback(places, esp);
    let found = silent_death(other, known.as_ref(), trial.as_ref());
    let passed = trial.as_ref().is_some_and(|trial| trial.is_of(running.slot, running.version));
    let to_keep = match (found.clone(), known) {
        (Some(found), _) => Some(found),
        (None, Some(known)) => Some(Rollback { superseded: known.superseded || passed, ..known }),
        (None, None) => None,
    };
    if let Some(rollback) = to_keep {
        record(places, esp, &rollback)?;
    }
    // While an update is being installed its slot has no entry.
    let waits = |trial: &Trial| other.is_none_or(|entry| entry.is_good() && trial.is_of(entry.slot, entry.version));
    if passed || trial.is_some_and(|trial| !waits(&trial)) {
        esp.end_trial()?;
    }
    if let Err(error) = raise_floor(places) {
        // The floor in the image holds as well; sealed storage may be closed.
        crate::cli::say(&format!("the version floor is not kept ({error})"));
    }
    Ok(found)
}

/// The version that was undone last and by nothing made good since, with those before it; one that died without a word
/// counts before it is on record.
///
/// # Errors
/// When the EFI system partition cannot be read.
pub(crate) fn undone(places: &Places, esp: &Esp<'_>, running: Running) -> Result<Option<Rollback>, EspError> {
    let known = last_rollback(places, esp);
    let died = silent_death(esp.entry(running.slot.other())?, known.as_ref(), esp.trial().as_ref());
    Ok(died.map(|died| died.after(known.as_ref())).or(known.filter(|known| !known.superseded)))
}

/// An entry that used up its tries, and no record says why. An older version that was asked for
/// leaves the newer without tries too, but with none used. One that was not on trial had been kept: power that went three times is
/// nothing to hold against it.
fn silent_death(entry: Option<BootEntry>, known: Option<&Rollback>, trial: Option<&Trial>) -> Option<Rollback> {
    let entry = entry.filter(|entry| !entry.is_good() && entry.done > 0)?;
    let was_kept = !trial.is_some_and(|trial| trial.is_of(entry.slot, entry.version));
    // One that had only been left, or went well after it was undone, may die in its next trial: that counts.
    let counts_anew = |known: &Rollback| !was_kept && (known.was_kept || known.superseded);
    if known.is_some_and(|known| known.is_of(entry.slot, entry.version) && !counts_anew(known)) {
        return None;
    }
    let starts = entry.done.min(TRIES);
    let reason = format!("slot {} ({}) did not come up in {starts} starts", entry.slot, entry.version);
    Some(Rollback { was_kept, ..Rollback::now(entry.slot, entry.version, reason) })
}

/// What the part `Slots` shows now.
///
/// # Errors
/// When the EFI system partition cannot be read.
pub(crate) fn describe(places: &Places, esp: &Esp<'_>, running: Running, degraded: Option<&str>) -> Result<SlotsSaid, EspError> {
    let mut facts = BTreeMap::from([(fact::RUNNING.to_owned(), format!("slot {} ({})", running.slot, running.version))]);
    for slot in vitalgate_layout::Slot::ALL {
        let text = match esp.entry(slot)? {
            None => "empty".to_owned(),
            Some(entry) if entry.is_good() => {
                let left = entry.left.map_or_else(|| "not counted".to_owned(), |left| format!("{left} starts left"));
                format!("{} good, {left}", entry.version)
            }
            Some(entry) => format!("{} not started any more", entry.version),
        };
        facts.insert(fact::slot(slot).to_owned(), text);
    }
    if let Some(floor) = version_floor(places) {
        facts.insert(fact::VERSION_FLOOR.to_owned(), floor.to_string());
    }
    let rollback = last_rollback(places, esp);
    if let Some(rollback) = &rollback {
        facts.insert(fact::LAST_ROLLBACK.to_owned(), format!("{} (slot {}): {}", rollback.version, rollback.slot, rollback.reason));
        facts.insert(fact::LAST_ROLLBACK_UNIX_MS.to_owned(), rollback.at_unix_ms.to_string());
    }
    let standing = rollback.filter(|rollback| !rollback.superseded);
    let (word, detail) = match (degraded, standing) {
        (Some(reason), _) => (StateWord::Degraded, reason.to_owned()),
        (None, Some(rollback)) => (StateWord::RolledBack, format!("{} was undone: {}", rollback.version, rollback.reason)),
        (None, None) => (StateWord::Ready, String::new()),
    };
    Ok(SlotsSaid { word, detail, facts })
}
