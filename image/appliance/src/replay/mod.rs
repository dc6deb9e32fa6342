//! A stick `REPLAY`: what could not be delivered or was not understood is decoded, admitted and sent again, once the
//! reason is gone: a patient that the EHR did not know, a device that had no patient, a profile that an update brought.
//!
//! The gateway does it, asked by its own account; what is refused again is a dead letter again. The report counts by
//! reason and device, and names no patient.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use vitalgate_layout::{path, stick};
use vitalgate_site::Action;

use crate::command::{Call, Programs};
use crate::errand::{self, Errand};
use crate::places::Places;
use crate::stick::{Mounted, heading, take, tell_refused, write_file};
use crate::text::for_windows;

/// What the gateway may take: it answers for a thousand at a time.
const DEADLINE: Duration = Duration::from_secs(240);
const REMEDY: &str = "see whether the status page says READY, and try once more";

/// What the gateway said.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Replayed {
    /// Dead letters that were listed before, by reason and device.
    listed: Vec<(String, String, u64)>,
    /// How many are sent again, and how many are left.
    said: String,
}

/// One of the gateway's list; the rest of it is the administrator's.
#[derive(Deserialize)]
struct DeadLetter {
    kind: String,
    device: String,
}

/// Sends dead letters again, if the request on the stick is signed.
///
/// # Errors
/// When it is refused, the gateway does not do it, or the stick takes no report.
pub(crate) fn replay(places: &Places, programs: &dyn Programs, mounted: Box<dyn Mounted>) -> anyhow::Result<()> {
    mounted.check_writable()?;
    let tell = |text: &str| write_file(&mounted.folder().join(stick::REPLAY_REPORT), for_windows(text).as_bytes());
    let taken = match take(places, &*mounted, stick::REPLAY_REQUEST, &[Action::Replay]) {
        Ok(taken) => taken,
        Err(refusal) => {
            tell_refused(&refusal, places, &*mounted, stick::REPLAY_REPORT)?;
            mounted.finish()?;
            anyhow::bail!("REPLAY: {refusal}");
        }
    };
    let done: Result<Replayed, _> = errand::send(programs, places, Errand::Replay, &(), DEADLINE);
    let text = match &done {
        Ok(replayed) => described(replayed),
        Err(error) => format!("NOT DONE: {error}\nWhat to do: {REMEDY}\n"),
    };
    tell(&format!("{}{text}", heading(places)))?;
    mounted.finish()?;
    done?;
    // One that the gateway could not do may come again.
    taken.remember().context("the request cannot be remembered as done")
}

fn described(replayed: &Replayed) -> String {
    let mut text = format!("DONE: {}\n\nThere were, among the newest:\n", replayed.said);
    if replayed.listed.is_empty() {
        text.push_str("  none\n");
    }
    for (kind, device, count) in &replayed.listed {
        text.push_str(&format!("  {count:>8}  {kind}, {device}\n"));
    }
    text.push_str("\nWhat is refused again is a dead letter again: see the status page in some minutes.\n");
    text
}

/// Asks the daemon; an errand, gone on by the daemon's account.
///
/// # Errors
/// When it does not answer.
pub(crate) fn send_again(places: &Places, programs: &dyn Programs) -> anyhow::Result<Replayed> {
    let list = asked(places, programs, &["list", "--json"])?;
    let letters: Vec<DeadLetter> = serde_json::from_str(&list).context("the gateway's list cannot be read")?;
    let mut listed: BTreeMap<(String, String), u64> = BTreeMap::new();
    for letter in letters {
        *listed.entry((letter.kind, letter.device)).or_default() += 1;
    }
    let listed = listed.into_iter().map(|((kind, device), count)| (kind, device, count)).collect();
    let said = asked(places, programs, &["replay"])?.trim().to_owned();
    Ok(Replayed { listed, said })
}

fn asked(places: &Places, programs: &dyn Programs, words: &[&str]) -> anyhow::Result<String> {
    let call = Call::new("/usr/bin/vitalgate", REMEDY)
        .arguments(["--config".as_ref(), places.at(path::DAEMON_CONFIG).as_os_str()])
        .arguments(["dead-letters"])
        .arguments(words)
        .deadline(DEADLINE / 2);
    Ok(programs.run(call)?.text())
}
