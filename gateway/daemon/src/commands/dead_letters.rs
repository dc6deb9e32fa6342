//! `vitalgate dead-letters`.

use std::process::ExitCode;

use vitalgate_console::{Answered, DEAD_LETTERS_PER_ANSWER_MAX, DeadLetterView, Resolution, ResolveRequest, Status};
use vitalgate_domain::DeadLetterSelector;

use super::discard::{Wish, discard};
use super::{print_json, received};
use crate::admin::Admin;
use crate::cli::DeadLetterAction;

/// Lists, replays or discards.
pub(super) async fn dead_letters(admin: &Admin, action: DeadLetterAction) -> anyhow::Result<ExitCode> {
    match action {
        DeadLetterAction::List { json } => list(admin, json).await,
        DeadLetterAction::Replay { sequences } => resolve(admin, sequences, Resolution::Replay, None).await,
        DeadLetterAction::Discard { sequences, by, .. } if !sequences.is_empty() => {
            resolve(admin, sequences, Resolution::Discard, by).await
        }
        DeadLetterAction::Discard { named, count, by, json, within_s, .. } => {
            let selector = DeadLetterSelector::parse(named.kind.as_deref(), named.device.as_deref(), named.before.as_deref())?;
            let told = discard(admin, &Wish { selector, count, by, within_s }).await?;
            if json {
                print_json(&told)?;
                return Ok(told.code(within_s.is_some()));
            }
            told.say(count)
        }
    }
}

async fn list(admin: &Admin, json: bool) -> anyhow::Result<ExitCode> {
    let letters: Vec<DeadLetterView> = admin.get("/dead-letters", &[]).await?;
    if json {
        print_json(&letters)?;
    } else if letters.is_empty() {
        println!("no dead letters");
    }
    letters.iter().filter(|_| !json).for_each(|letter| println!("{}", line(letter)));
    if letters.len() >= DEAD_LETTERS_PER_ANSWER_MAX {
        let status: Status = admin.get("/status", &[]).await?;
        let cut = format!("these are the newest {} of {} dead letters", letters.len(), status.store.dead_letters);
        if json {
            eprintln!("{cut}");
        } else {
            println!("{cut}");
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn line(letter: &DeadLetterView) -> String {
    let whose = letter.destination.as_deref().map_or_else(String::new, |destination| format!(" for {destination}"));
    let what = letter.metric.as_deref().map_or_else(String::new, |metric| format!(" {metric}"));
    let received = received(&letter.received, letter.dated);
    format!("{:>10}  {received}  {}{what}  {}{whose}: {}", letter.sequence, letter.device, letter.kind, letter.detail)
}

async fn resolve(admin: &Admin, sequences: Vec<u64>, resolution: Resolution, by: Option<String>) -> anyhow::Result<ExitCode> {
    let Answered { resolved, remaining, .. } = resolved(admin, sequences, resolution, by).await?;
    println!("{resolved} {}, {remaining} remain", resolution.word());
    Ok(ExitCode::SUCCESS)
}

/// Replays, discards or counts, request after request until each was come to.
///
/// # Errors
/// When the gateway does not answer.
pub(super) async fn resolved(admin: &Admin, sequences: Vec<u64>, resolution: Resolution, by: Option<String>) -> anyhow::Result<Answered> {
    let mut request = ResolveRequest { sequences, among: None, resolution, by };
    let (mut resolved, mut places) = (0, Vec::new());
    loop {
        let mut answered: Answered = admin.post("/dead-letters/resolve", &request).await?;
        resolved += answered.resolved;
        places.append(&mut answered.places);
        if answered.not_reached.is_none() {
            return Ok(Answered { resolved, places, ..answered });
        }
        request.among = answered.not_reached;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Promise 5: what a clock showed that was never set is not printed as the time when something came.
    #[test]
    fn a_clock_that_was_not_set_tells_no_time() {
        let letter = |received: &str, dated| DeadLetterView {
            sequence: 7,
            device: "m1".to_owned(),
            metric: None,
            received: received.to_owned(),
            dated,
            kind: "TimeUnknown".to_owned(),
            other_kinds: Vec::new(),
            detail: "no clock".to_owned(),
            destination: None,
        };
        let time = "1970-01-01T00:00:07.000+00:00";
        assert_eq!(line(&letter(time, true)), format!("         7  {time}  m1  TimeUnknown: no clock"));
        assert_eq!(line(&letter(time, false)), "         7  while no clock was set  m1  TimeUnknown: no clock");
        let part = DeadLetterView { metric: Some("nibp_sys".to_owned()), ..letter(time, true) };
        assert_eq!(line(&part), format!("         7  {time}  m1 nibp_sys  TimeUnknown: no clock"), "parts of one panel are told apart");
        assert_eq!(line(&letter("", false)), "         7    m1  TimeUnknown: no clock", "nothing is known of what no copy holds");
    }
}
