//! A request to discard dead letters, or to count those that it names.
//!
//! What is discarded stays in the gateway's store for its time, noted as discarded by whose request. One that is cut off
//! goes on with the rest when it comes again.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use vitalgate_domain::DeadLetterSelector;
use vitalgate_domain::dead_letter::RESOLVED_BY_BYTES_MAX;
use vitalgate_site::Discard;

use super::{DEADLINE, Done, Told, Wanted};
use crate::command::Programs;
use crate::errand::{self, Errand};
use crate::places::Places;
use crate::stick::Taken;

/// Seconds after which the gateway's command begins with no more of them; what it has begun, one answer's thousand, it finishes.
const WITHIN_S: u64 = 120;
const AGAIN: &str = "plug the stick in again, it goes on with the rest";

/// What the gateway's command line says.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Discarded {
    /// Those that are discarded, or would be, and those that are left.
    discarded: u64,
    remain: u64,
    /// Both by kind.
    kinds: BTreeMap<String, Counted>,
    /// Left because nobody knows when they were received, and otherwise named.
    undated: u64,
    /// Why it did not come to all of them.
    stopped: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Counted {
    discarded: u64,
    remain: u64,
}

/// Discards what the request names, or counts it.
///
/// # Errors
/// When the gateway does not do it.
pub(super) fn discard(places: &Places, programs: &dyn Programs, taken: &Taken, asked: &Discard) -> anyhow::Result<Done> {
    let words = words(asked, &by(taken));
    match errand::send(programs, places, Errand::Replay, &Wanted::Discard(words), DEADLINE)? {
        Told::Discarded(told) => Ok(Done { text: described(taken, asked, &told), stopped: told.stopped }),
        Told::Again(_) => anyhow::bail!("the gateway answers another question"),
    }
}

/// The request on the gateway's command line.
fn words(asked: &Discard, by: &str) -> Vec<String> {
    let DeadLetterSelector { kind, device, before } = &asked.selector;
    let named = [
        kind.map(|kind| format!("--kind={}", kind.word())),
        device.as_ref().map(|device| format!("--device={device}")),
        before.map(|before| format!("--before={}", before.rfc3339(0))),
        asked.selector.is_all().then(|| "--all".to_owned()),
        asked.count.then(|| "--count".to_owned()),
    ];
    let fixed = ["discard".to_owned(), "--json".to_owned(), format!("--within-s={WITHIN_S}"), format!("--by={by}")];
    fixed.into_iter().chain(named.into_iter().flatten()).collect()
}

/// Who wants it, as it is kept with what is discarded: request and signer, and the technician as far as there is room.
fn by(taken: &Taken) -> String {
    let mut by = format!("request {}, signed by {}, for {}", taken.request.id, taken.signed_by, taken.request.technician);
    while by.len() > RESOLVED_BY_BYTES_MAX {
        by.pop();
    }
    by
}

fn described(taken: &Taken, asked: &Discard, told: &Discarded) -> String {
    let Discarded { discarded, remain, kinds, undated, stopped } = told;
    // The signed report has the lines that are written here, and no others.
    let plain = |text: &str| text.replace(char::is_control, " ");
    let mut text = match (stopped.as_deref().map(plain), asked.count) {
        (None, true) => format!("COUNTED: {discarded} dead letters would be discarded, {remain} would remain; nothing was discarded\n"),
        (None, false) => format!("DONE: {discarded} dead letters discarded, {remain} remain\n"),
        (Some(why), true) => format!("COUNTED IN PART: {discarded} dead letters, and there are more: {why}; nothing was discarded\n"),
        (Some(why), false) => {
            format!("PARTLY DONE: {discarded} dead letters discarded, and there are more: {why}\nWhat to do: {AGAIN}\n")
        }
    };
    text.push_str(&format!("\nNamed    {}\nBy       {}\n\n  discarded    remain\n", asked.selector, by(taken)));
    for (kind, Counted { discarded, remain }) in kinds {
        text.push_str(&format!("  {discarded:>9} {remain:>9}  {}\n", plain(kind)));
    }
    if kinds.is_empty() {
        text.push_str("  there are none\n");
    }
    if *undated > 0 {
        text.push_str(&format!("\n{undated} of those that remain came when no clock was set: no moment names them.\n"));
    }
    text
}
