//! A stick `REPLAY`: what could not be delivered or was not understood is decoded, admitted and sent again, once the
//! reason is gone: a patient that the EHR did not know, a device that had no patient, a profile that an update brought.
//! What nothing helps is discarded, or counted, by a request of another kind ([`discard`]).
//!
//! The gateway does it, asked by its own account; what is refused again is a dead letter again. The report counts by
//! reason and names no patient. A request that was not carried out to its end may come again.

mod discard;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::time::Duration;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use vitalgate_layout::{Rejection, path, stick};
use vitalgate_site::{Action, seal_report_text};

use crate::command::{Call, Programs};
use crate::errand::{self, Errand};
use crate::places::Places;
use crate::report;
use crate::stick::{Mounted, heading, read_report, refused_below, take, tell_refused, write_file};
use crate::text::for_windows;

/// What the gateway may take: it answers for a thousand at a time.
const DEADLINE: Duration = Duration::from_secs(240);
const REMEDY: &str = "see whether the status page says READY, and try once more";
const NOT_SIGNED: &str = "This report is not signed: the appliance's key cannot be had.";

/// What the gateway is asked for.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Wanted {
    /// Send all again.
    Again,
    /// Discard what these words of its command line say.
    Discard(Vec<String>),
}

/// What the gateway said.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Told {
    Again(Replayed),
    Discarded(discard::Discarded),
}

/// What it sends again.
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

/// What is reported.
struct Done {
    text: String,
    /// Why the gateway did not come to the end of it.
    stopped: Option<String>,
}

/// Sends dead letters again or discards them, if the request on the stick is signed.
///
/// # Errors
/// When it is refused, the gateway does not do it to its end, or the stick takes no report.
pub(crate) fn replay(places: &Places, programs: &dyn Programs, mounted: Box<dyn Mounted>) -> anyhow::Result<()> {
    mounted.check_writable()?;
    let tell = |text: &str| write_file(&mounted.folder().join(stick::REPLAY_REPORT), for_windows(text).as_bytes());
    let taken = match take(places, &*mounted, stick::REPLAY_REQUEST, &[Action::Replay, Action::Discard]) {
        Ok(taken) => taken,
        Err(refusal) => {
            let own = read_report(&*mounted, stick::REPLAY_REPORT).and_then(|before| report::text_of_own(places, &before));
            match own.filter(|_| refusal.rejection() == Rejection::CarriedOut) {
                // What was signed stays so, with the refusal in it.
                Some(before) => tell(&signed(places, refused_below(&refusal, places, || Some(before))))?,
                None => tell_refused(&refusal, places, &*mounted, stick::REPLAY_REPORT)?,
            }
            mounted.finish()?;
            anyhow::bail!("REPLAY: {refusal}");
        }
    };
    let done = match &taken.request.discard {
        None => send_again(places, programs),
        Some(asked) => discard::discard(places, programs, &taken, asked),
    };
    let text = match &done {
        Ok(done) => done.text.clone(),
        Err(error) => format!("NOT DONE: {error:#}\nWhat to do: {REMEDY}\n"),
    };
    tell(&signed(places, format!("{}{text}", heading(places))))?;
    mounted.finish()?;
    if let Some(why) = done?.stopped {
        anyhow::bail!("REPLAY: {why}");
    }
    // One that the gateway could not do may come again.
    taken.remember().context("the request cannot be remembered as done")
}

/// With the appliance's signature, as long as there is its key.
fn signed(places: &Places, text: String) -> String {
    let sealed = report::existing_key(places).and_then(|key| seal_report_text(&text, &key).ok());
    sealed.unwrap_or_else(|| format!("{text}\n{NOT_SIGNED}\n"))
}

fn send_again(places: &Places, programs: &dyn Programs) -> anyhow::Result<Done> {
    match errand::send(programs, places, Errand::Replay, &Wanted::Again, DEADLINE)? {
        Told::Again(replayed) => Ok(Done { text: described(&replayed), stopped: None }),
        Told::Discarded(_) => anyhow::bail!("the gateway answers another question"),
    }
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
pub(crate) fn ask_gateway(places: &Places, programs: &dyn Programs, wanted: &Wanted) -> anyhow::Result<Told> {
    match wanted {
        Wanted::Again => again(places, programs).map(Told::Again),
        Wanted::Discard(words) => {
            let told = asked(places, programs, words, DEADLINE)?;
            serde_json::from_str(&told).map(Told::Discarded).context("the gateway's answer cannot be read")
        }
    }
}

fn again(places: &Places, programs: &dyn Programs) -> anyhow::Result<Replayed> {
    let list = asked(places, programs, &["list", "--json"], DEADLINE / 2)?;
    let letters: Vec<DeadLetter> = serde_json::from_str(&list).context("the gateway's list cannot be read")?;
    let mut listed: BTreeMap<(String, String), u64> = BTreeMap::new();
    for letter in letters {
        *listed.entry((letter.kind, letter.device)).or_default() += 1;
    }
    let listed = listed.into_iter().map(|((kind, device), count)| (kind, device, count)).collect();
    let said = asked(places, programs, &["replay"], DEADLINE / 2)?.trim().to_owned();
    Ok(Replayed { listed, said })
}

fn asked(places: &Places, programs: &dyn Programs, words: &[impl AsRef<OsStr>], deadline: Duration) -> anyhow::Result<String> {
    let call = Call::new("/usr/bin/vitalgate", REMEDY)
        .arguments(["--config".as_ref(), places.at(path::DAEMON_CONFIG).as_os_str()])
        .arguments(["dead-letters"])
        .arguments(words)
        .deadline(deadline);
    Ok(programs.run(call)?.text())
}
