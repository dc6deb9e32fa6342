//! `vitalgate dead-letters discard` of what a selector names: step by step, the oldest first, and counted by kind.
//!
//! What is discarded stays so wherever it ends, and asked once more it goes on with the rest.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde::Serialize;
use vitalgate_console::{DEAD_LETTERS_PER_ANSWER_MAX, DeadLetterView, Resolution};
use vitalgate_domain::{DeadLetterSelector, Metric, UnixMs};

use super::dead_letters::resolved;
use crate::admin::Admin;
use crate::replay::PANEL_PLACES_MAX;

// An answer goes on behind what the next one may still take along.
const _: () = assert!(DEAD_LETTERS_PER_ANSWER_MAX as u64 > 2 * PANEL_PLACES_MAX + 1);

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
    /// Those that go and may come in the next answer as well.
    #[serde(skip)]
    gone: BTreeSet<u64>,
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
    let reach = Reach::of(&letters);
    let named = told.named(&wish.selector, &letters, &reach);
    let resolution = if wish.count { Resolution::Count } else { Resolution::Discard };
    // A request that names none is one for all.
    let go = if named.is_empty() { Vec::new() } else { resolved(admin, named, resolution, wish.by.clone()).await?.places };
    told.take(&wish.selector, &letters, &go.into_iter().collect(), &reach);
    Ok(reach.left.map(|left| left.saturating_add(1)))
}

/// How far an answer is gone through. The parts of a panel go together, and what is named may take along what stands in the answer
/// before it or after it.
struct Reach {
    /// Up to here they are named; without it all of them.
    named: Option<u64>,
    /// Up to here is known which are left. What comes behind it comes in the next answer.
    left: Option<u64>,
}

impl Reach {
    fn of(letters: &[DeadLetterView]) -> Self {
        let last = letters.last().filter(|_| letters.len() >= DEAD_LETTERS_PER_ANSWER_MAX).map(|last| last.sequence);
        let Some(last) = last else { return Self { named: None, left: None } };
        let named = last.saturating_sub(PANEL_PLACES_MAX);
        let has_parts = letters.iter().rev().take_while(|letter| letter.sequence > named).any(is_part);
        if has_parts {
            Self { named: Some(named), left: Some(named.saturating_sub(PANEL_PLACES_MAX)) }
        } else {
            Self { named: Some(last), left: Some(last) }
        }
    }
}

fn is_part(letter: &DeadLetterView) -> bool {
    letter.metric.as_deref().and_then(Metric::parse).is_some_and(|metric| metric.definition().panel.is_some())
}

fn is_within(sequence: u64, end: Option<u64>) -> bool {
    end.is_none_or(|end| sequence <= end)
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
    /// The places of those that are named and are not known to go.
    fn named(&self, selector: &DeadLetterSelector, letters: &[DeadLetterView], reach: &Reach) -> Vec<u64> {
        let new = letters.iter().filter(|letter| is_within(letter.sequence, reach.named) && !self.gone.contains(&letter.sequence));
        new.filter(|letter| names(selector, letter)).map(|letter| letter.sequence).collect()
    }

    /// Counts what goes, named or along with what is named, and what is left. What another discards or replays meanwhile is not
    /// counted; what is moved meanwhile comes once more at the end.
    fn take(&mut self, selector: &DeadLetterSelector, letters: &[DeadLetterView], go: &BTreeSet<u64>, reach: &Reach) {
        for letter in letters {
            let goes = go.contains(&letter.sequence);
            let is_left = is_within(letter.sequence, reach.left) && !names(selector, letter);
            if self.gone.contains(&letter.sequence) || !(goes || is_left) {
                continue;
            }
            let kinds: Vec<&str> = [&letter.kind].into_iter().chain(&letter.other_kinds).map(String::as_str).collect();
            let counted = self.kinds.entry(kinds.join(" and ")).or_default();
            if goes {
                counted.discarded += 1;
                self.discarded += 1;
                self.gone.insert(letter.sequence);
            } else {
                counted.remain += 1;
                self.remain += 1;
                self.undated += u64::from(selector.before.is_some() && !letter.dated && but_for_the_moment(selector, letter));
            }
        }
        self.gone.retain(|place| !is_within(*place, reach.left));
    }

    /// For a program. One that set the time itself reads in the answer how far that went.
    pub(super) fn code(&self, is_time_set: bool) -> ExitCode {
        if self.stopped.is_none() || is_time_set { ExitCode::SUCCESS } else { ExitCode::FAILURE }
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
            let (mut told, all) = (Told::default(), Reach::of(&letters));
            let selector = DeadLetterSelector::parse(kind, device, before).unwrap();
            let named = told.named(&selector, &letters, &all);
            told.take(&selector, &letters, &named.iter().copied().collect(), &all);
            assert_eq!((told.discarded, told.discarded + told.remain), (named.len() as u64, 6));
            (named, told.undated)
        };
        assert_eq!(by(Some("Undecodable"), None, None), (vec![5, 6, 8, 9], 0));
        assert_eq!(by(Some("Undecodable"), Some("a"), None), (vec![5, 6, 9], 0));
        assert_eq!(by(Some("Undecodable"), None, Some("2026-11-01")), (vec![6, 8], 1), "nobody knows when the other came");
        assert_eq!(by(Some("Rejected"), None, None), (vec![], 0), "another destination has it for another reason");
        assert_eq!(by(None, Some("a"), None), (vec![4, 5, 6, 7, 9], 0));
        assert_eq!(by(None, None, None), (vec![4, 5, 6, 7, 8, 9], 0));
    }

    /// What goes and what stays is told by kind; what is here for several is a kind of its own. What another took meanwhile is neither.
    #[test]
    fn both_are_told_by_kind() {
        let mut letters: Vec<_> = (1..=4).map(|sequence| letter(sequence, "Rejected", "a", "")).collect();
        letters[1].device = "b".into();
        letters[2].other_kinds = vec!["Unassigned".into()];
        let (mut told, all) = (Told::default(), Reach::of(&letters));
        let selector = DeadLetterSelector::parse(Some("Rejected"), Some("a"), None).unwrap();
        assert_eq!(told.named(&selector, &letters, &all), [1, 4]);
        told.take(&selector, &letters, &[1].into(), &all);
        let counted = |discarded, remain| Counted { discarded, remain };
        assert_eq!(told.kinds, [("Rejected".into(), counted(1, 1)), ("Rejected and Unassigned".into(), counted(0, 1))].into());
    }

    /// Promise 4: a script that reads nothing but the exit code does not take a part for all of them.
    #[test]
    fn a_part_is_no_success() {
        let code = |stopped: Option<&str>, is_time_set| {
            let told = Told { discarded: 1, stopped: stopped.map(str::to_owned), ..Told::default() };
            format!("{:?}", told.code(is_time_set))
        };
        let [success, failure] = [ExitCode::SUCCESS, ExitCode::FAILURE].map(|code| format!("{code:?}"));
        assert_eq!([code(None, false), code(None, true)], [success.clone(), success.clone()]);
        assert_eq!(code(Some("the gateway broke off"), false), failure);
        assert_eq!(code(Some(TIME_IS_OVER), true), success, "whoever set the time is told by the answer");
    }

    /// Promise 4: what is counted is what goes. The parts of a panel go together, also those that are not named, and are counted once each,
    /// by their own kind: wherever an answer ends, and whether they are counted or discarded.
    #[test]
    fn what_goes_along_with_what_is_named_is_counted() {
        const LETTERS: u64 = 4_000;
        let selector = DeadLetterSelector::parse(None, Some("a"), None).unwrap();
        for (apart, every) in [(1, 2), (7, 16), (PANEL_PLACES_MAX, 600)] {
            // Of two parts of each panel one is named, in turn the first and the second.
            let first_of = |place: u64| place.checked_sub(place % every).filter(|first| place == *first || place == first + apart);
            let letters = (0..LETTERS).map(|place| {
                let is_named = first_of(place).is_some_and(|first| (place == first) == (first / every % 2 == 0));
                let mut letter = letter(place, if is_named { "Rejected" } else { "Unassigned" }, if is_named { "a" } else { "b" }, "");
                letter.metric = first_of(place).map(|_| Metric::SystolicCuff.key().to_owned());
                letter
            });
            let letters: Vec<_> = letters.collect();
            let panels = (0..LETTERS).filter(|place| place % every == 0 && place + apart < LETTERS).count() as u64;
            let alone = letters.iter().filter(|letter| letter.device == "a").count() as u64 - panels;
            for is_discarded in [false, true] {
                let mut there = letters.clone();
                let (mut told, mut from) = (Told::default(), Some(0));
                while let Some(begin) = from {
                    let page: Vec<_> =
                        there.iter().filter(|letter| letter.sequence >= begin).take(DEAD_LETTERS_PER_ANSWER_MAX).cloned().collect();
                    let reach = Reach::of(&page);
                    let named = told.named(&selector, &page, &reach);
                    let whole = named.iter().filter_map(|place| first_of(*place)).flat_map(|first| [first, first + apart]);
                    let go: BTreeSet<u64> = whole.filter(|place| there.iter().any(|letter| letter.sequence == *place)).collect();
                    told.take(&selector, &page, &go, &reach);
                    there.retain(|letter| !is_discarded || !go.contains(&letter.sequence));
                    from = reach.left.map(|left| left + 1);
                }
                let going = 2 * panels + alone;
                assert_eq!((told.discarded, told.remain), (going, LETTERS - going), "{apart} apart");
                assert_eq!(told.kinds["Rejected"], Counted { discarded: panels + alone, remain: 0 });
                assert_eq!(told.kinds["Unassigned"], Counted { discarded: panels, remain: LETTERS - going });
            }
        }
    }
}
