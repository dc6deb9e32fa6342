//! `vitalgate trace`: where is this reading now?

use std::process::ExitCode;

use anyhow::{Context as _, bail};
use vitalgate_config::NO_DESTINATION;
use vitalgate_console::{DeliveryState, TRACE_WINDOW_MS_MAX, Trace, TraceDestination, Traced, TracedDeadLetter};
use vitalgate_domain::{DeviceId, ReadingId};

use super::{print_json, received};
use crate::admin::Admin;

/// Said where nobody knows any more which of the two.
const RESOLVED: &str = "replayed or discarded";

/// What is asked, checked before the daemon is.
pub(crate) struct Question(Vec<(&'static str, String)>);

impl Question {
    /// By id, or by device and moment.
    ///
    /// # Errors
    /// When neither is whole, or the window is wider than one question may look.
    pub(crate) fn new(id: Option<String>, device: Option<String>, at: Option<String>, window_s: u64) -> anyhow::Result<Self> {
        match (id, device, at) {
            (Some(id), None, None) => {
                let id: ReadingId = id.parse().with_context(|| format!("{id:?} is no reading id; it has the form of a UUID"))?;
                Ok(Self(vec![("id", id.to_string())]))
            }
            (None, Some(device), Some(at)) => {
                let device = DeviceId::new(&device).context("--device")?;
                let moment = vitalgate_domain::UnixMs::parse_rfc3339(&at)
                    .with_context(|| format!("--at {at:?} is no moment; write it like 2026-11-22T10:00:00+01:00"))?;
                let window_ms = window_s.saturating_mul(1_000);
                if window_ms > TRACE_WINDOW_MS_MAX {
                    bail!(
                        "--window-s {window_s} is too wide; at most {}, one day before and after the moment",
                        TRACE_WINDOW_MS_MAX / 1_000
                    );
                }
                Ok(Self(vec![("device", device.to_string()), ("at_unix_ms", moment.0.to_string()), ("window_ms", window_ms.to_string())]))
            }
            _ => bail!("name a reading id, or a device with --device and --at"),
        }
    }
}

impl Question {
    fn names_an_id(&self) -> bool {
        self.0.iter().any(|(name, _)| *name == "id")
    }
}

/// Prints where the readings are; fails when there is none.
pub(super) async fn trace(admin: &Admin, question: &Question, json: bool) -> anyhow::Result<ExitCode> {
    let traced: Traced = admin.get("/trace", &question.0).await?;
    let is_found = !traced.readings.is_empty() || !traced.dead_letters.is_empty();
    if json {
        print_json(&traced)?;
    } else {
        traced.readings.iter().for_each(print);
        traced.dead_letters.iter().for_each(print_dead_letter);
        if !is_found {
            println!("nothing of it is found here: it was not stored, its retention is over, or it came while no clock was set");
            if question.names_an_id() {
                println!("a blood pressure is found by the ids of its components; or ask by --device and --at");
            }
        }
        print_limits(&traced);
    }
    Ok(if is_found { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print(trace: &Trace) {
    let at = trace.at.as_deref().unwrap_or("a moment that is not known");
    println!("{}  {} of {} at {at}", trace.reading_id, trace.metric, trace.device);
    let received = received(&trace.received, trace.dated);
    println!("  received {received} as number {}, stored in {}", trace.sequence, trace.stored_in.join(" and "));
    if trace.destinations.is_empty() {
        println!("  {NO_DESTINATION}");
    }
    for standing in &trace.destinations {
        println!("  {}: {}", standing.destination, words(standing, trace.resolved.as_deref()));
    }
}

fn words(standing: &TraceDestination, resolved: Option<&str>) -> String {
    let reason = standing.reason.as_deref().unwrap_or("no reason kept");
    match (standing.state, &standing.remote_id) {
        (DeliveryState::Delivered, Some(id)) => format!("delivered as {id}"),
        (DeliveryState::Delivered, None) => "taken; under which id is not at hand".to_owned(),
        (DeliveryState::Queued, _) => "queued".to_owned(),
        (DeliveryState::DeadLetter, _) => format!("dead letter: {reason}"),
        (DeliveryState::Resolved, _) => format!("was a dead letter ({reason}), {}", resolved.unwrap_or(RESOLVED)),
        (DeliveryState::Unknown, _) => match resolved {
            Some(resolved) => format!("settled, and a dead letter of it was {resolved}; the details are not at hand now, ask again"),
            None => {
                "settled; whether it was taken is not at hand: ask again, and if it stays so, ask the destination for its id".to_owned()
            }
        },
    }
}

fn print_dead_letter(traced: &TracedDeadLetter) {
    let TracedDeadLetter { letter, unresolved, resolved } = traced;
    let received = received(&letter.received, letter.dated);
    println!("dead letter {}: {} of {}, received {received}", letter.sequence, letter.kind, letter.device);
    println!("  {}", letter.detail);
    if *unresolved {
        println!("  it waits to be replayed or discarded; see `vitalgate dead-letters`");
    } else {
        println!("  {}", resolved.as_deref().unwrap_or(RESOLVED));
    }
}

/// What the answer does not hold.
fn print_limits(traced: &Traced) {
    if traced.undated > 0 {
        println!(
            "{} of this device came while no clock was set and no moment finds them; see `vitalgate dead-letters list`",
            traced.undated
        );
    }
    if traced.cut {
        let shown = traced.readings.len() + traced.dead_letters.len();
        println!("these {shown} are the nearest to the moment; there may be more in the window: narrow it with --window-s");
    }
    if let Some(below) = traced.not_searched_below {
        println!("what came before number {below} could not be searched in time; ask again");
    }
    if traced.lost_entries > 0 {
        let ranges: Vec<_> = traced.lost.iter().map(|(first, last)| format!("{first} to {last}")).collect();
        let named: u64 = traced.lost.iter().map(|(first, last)| last.saturating_sub(*first) + 1).sum();
        let others = if named < traced.lost_entries { " and others" } else { "" };
        println!(
            "{} entries cannot be read in any copy (numbers {}{others}): what is asked for may have been among them",
            traced.lost_entries,
            ranges.join(", ")
        );
    }
}
