//! `vitalgate dead-letters discard` of what a selector names: step by step, the oldest first, and counted by kind.
//!
//! What is discarded stays so wherever it ends, and asked once more it goes on with the rest.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde::Serialize;
use vitalgate_console::{DEAD_LETTERS_PER_ANSWER_MAX, DeadLetterView, Resolution};
use vitalgate_domain::{DeadLetterSelector, UnixMs};

use super::dead_letters::resolved;
use crate::admin::Admin;

const TIME_IS_OVER: &str = "the time for it was over";

/// How it is asked for.
pub(super) struct Wish {
    pub(super) selector: DeadLetterSelector,
    /// Discard nothing.
    pub(super) count: bool,
    /// Who asks.
    pub(super) by: Option<String>,
    /// Seconds after which no other step is begun.
    pub(super) within_s: Option<u64>,
}

/// What became of it.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Told {
    /// Those that are discarded now, or would be.
    discarded: u64,
    /// Those that are left, or would be.
    remain: u64,
    /// Both by kind.
    kinds: BTreeMap<String, Counted>,
    /// Left because nobody knows when they were received, and otherwise named.
    undated: u64,
    /// Why it did not come to all of them.
    stopped: Option<String>,
}

#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Counted {
    discarded: u64,
    remain: u64,
}

/// Discards what the selector names, or counts it.
///
/// # Errors
/// When the gateway does not answer, and nothing is discarded.
pub(super) async fn discard(admin: &Admin, wish: &Wish) -> anyhow::Result<Told> {
    let began = Instant::now();
    let mut told = Told::default();
    let mut from = 0;
    loop {
        match step(admin, wish, from, &mut told).await {
            Ok(Some(next)) => from = next,
            Ok(None) => break,
            Err(error) if told.discarded > 0 => {
                told.stopped = Some(format!("{error:#}"));
                break;
            }
            Err(error) => return Err(error),
        }
        if wish.within_s.is_some_and(|within_s| began.elapsed() >= Duration::from_secs(within_s)) {
            told.stopped = Some(TIME_IS_OVER.to_owned());
            break;
        }
    }
    Ok(told)
}

/// Takes the dead letters of one answer from a place on; gives the place to go on with.
async fn step(admin: &Admin, wish: &Wish, from: u64, told: &mut Told) -> anyhow::Result<Option<u64>> {
    let letters: Vec<DeadLetterView> = admin.get("/dead-letters", &[("from", from.to_string())]).await?;
    for (kind, named) in told.sorted(&wish.selector, &letters) {
        // What another discards or replays meanwhile is not counted; what is moved meanwhile comes once more at the end.
        let count =
            if wish.count { named.len() as u64 } else { resolved(admin, named, Resolution::Discard, wish.by.clone()).await?.resolved };
        told.kinds.entry(kind).or_default().discarded += count;
        told.discarded += count;
    }
    let last = letters.last().filter(|_| letters.len() >= DEAD_LETTERS_PER_ANSWER_MAX);
    Ok(last.map(|last| last.sequence.saturating_add(1)))
}

/// Names only what is certain: not by one kind what is here for several, since one of its destinations may still be helped, nor
/// by its moment what came when no clock was set.
fn names(selector: &DeadLetterSelector, letter: &DeadLetterView) -> bool {
    but_for_the_moment(selector, letter)
        && selector
            .before
            .is_none_or(|before| letter.dated && UnixMs::parse_rfc3339(&letter.received).is_some_and(|received| received < before))
}

fn but_for_the_moment(selector: &DeadLetterSelector, letter: &DeadLetterView) -> bool {
    selector.kind.is_none_or(|kind| letter.kind == kind.word() && letter.other_kinds.is_empty())
        && selector.device.as_ref().is_none_or(|device| letter.device == device.as_str())
}

impl Told {
    /// Counts what is left, and gives what is named by kind.
    fn sorted(&mut self, selector: &DeadLetterSelector, letters: &[DeadLetterView]) -> BTreeMap<String, Vec<u64>> {
        let mut named: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for letter in letters {
            let kinds: Vec<&str> = [&letter.kind].into_iter().chain(&letter.other_kinds).map(String::as_str).collect();
            let kind = kinds.join(" and ");
            if names(selector, letter) {
                named.entry(kind).or_default().push(letter.sequence);
                continue;
            }
            self.kinds.entry(kind).or_default().remain += 1;
            self.remain += 1;
            self.undated += u64::from(selector.before.is_some() && !letter.dated && but_for_the_moment(selector, letter));
        }
        named
    }

    /// For a person.
    ///
    /// # Errors
    /// When it did not come to all of them.
    pub(super) fn say(&self, count: bool) -> anyhow::Result<ExitCode> {
        let word = if count { "would be discarded" } else { "discarded" };
        for (kind, Counted { discarded, remain }) in &self.kinds {
            println!("{kind}: {discarded} {word}, {remain} remain");
        }
        if self.undated > 0 {
            println!("{} of these came when no clock was set: no moment names them", self.undated);
        }
        println!("{} {word}, {} remain", self.discarded, self.remain);
        match &self.stopped {
            Some(why) => anyhow::bail!("these are not all of them: {why}; ask once more, it goes on with the rest"),
            None => Ok(ExitCode::SUCCESS),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(sequence: u64, kind: &str, device: &str, received: &str) -> DeadLetterView {
        DeadLetterView {
            sequence,
            device: device.into(),
            metric: None,
            received: received.into(),
            dated: true,
            kind: kind.into(),
            other_kinds: Vec::new(),
            detail: String::new(),
            destination: None,
        }
    }

    /// Promise 4: only what is named for certain is discarded: by all that the selector says, and by nothing that is not known.
    #[test]
    fn a_selector_names_what_is_certain() {
        let mut letters = vec![
            letter(4, "Unknown", "a", "2026-10-01T00:00:00.000Z"),
            letter(5, "Undecodable", "a", "1970-01-01T00:00:09.000Z"),
            letter(6, "Undecodable", "a", "2026-10-01T00:00:00.000Z"),
            letter(7, "Rejected", "a", "2026-10-01T00:00:00.000Z"),
            letter(8, "Undecodable", "b", "2026-10-31T23:59:59.999Z"),
            letter(9, "Undecodable", "a", "2026-11-01T00:00:00.000Z"),
        ];
        letters[1].dated = false;
        letters[3].other_kinds = vec!["Unassigned".into()];
        let by = |kind, device, before| {
            let mut told = Told::default();
            let named = told.sorted(&DeadLetterSelector::parse(kind, device, before).unwrap(), &letters);
            let mut named: Vec<u64> = named.into_values().flatten().collect();
            named.sort_unstable();
            assert_eq!(told.remain + named.len() as u64, 6);
            (named, told.undated)
        };
        assert_eq!(by(Some("Undecodable"), None, None), (vec![5, 6, 8, 9], 0));
        assert_eq!(by(Some("Undecodable"), Some("a"), None), (vec![5, 6, 9], 0));
        assert_eq!(by(Some("Undecodable"), None, Some("2026-11-01")), (vec![6, 8], 1), "nobody knows when the other came");
        assert_eq!(by(Some("Rejected"), None, None), (vec![], 0), "another destination has it for another reason");
        assert_eq!(by(None, Some("a"), None), (vec![4, 5, 6, 7, 9], 0));
        assert_eq!(by(None, None, None), (vec![4, 5, 6, 7, 8, 9], 0));
    }

    /// What goes and what stays is told by kind; what is here for several is a kind of its own.
    #[test]
    fn both_are_told_by_kind() {
        let mut letters = vec![letter(1, "Rejected", "a", ""), letter(2, "Rejected", "b", ""), letter(3, "Rejected", "a", "")];
        letters[2].other_kinds = vec!["Unassigned".into()];
        let mut told = Told::default();
        let named = told.sorted(&DeadLetterSelector::parse(Some("Rejected"), Some("a"), None).unwrap(), &letters);
        assert_eq!(named, [("Rejected".to_owned(), vec![1])].into());
        let left = |remain| Counted { discarded: 0, remain };
        assert_eq!(told.kinds, [("Rejected".into(), left(1)), ("Rejected and Unassigned".into(), left(1))].into());
    }
}
