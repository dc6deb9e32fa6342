//! `vitalgate dead-letters`.

use std::process::ExitCode;

use vitalgate_console::{Answered, DEAD_LETTERS_PER_ANSWER_MAX, DeadLetterView, Resolution, ResolveRequest, Status};
use vitalgate_domain::DeadLetterSelector;

use super::discard::{Wish, discard};
use super::print_json;
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
                return Ok(ExitCode::SUCCESS);
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
    for letter in letters.iter().filter(|_| !json) {
        let whose = letter.destination.as_deref().map_or_else(String::new, |destination| format!(" for {destination}"));
        println!("{:>10}  {}  {}  {}{whose}: {}", letter.sequence, letter.received, letter.device, letter.kind, letter.detail);
    }
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

async fn resolve(admin: &Admin, sequences: Vec<u64>, resolution: Resolution, by: Option<String>) -> anyhow::Result<ExitCode> {
    let Answered { resolved, remaining, .. } = resolved(admin, sequences, resolution, by).await?;
    println!("{resolved} {}, {remaining} remain", resolution.word());
    Ok(ExitCode::SUCCESS)
}

/// Replays or discards, request after request until each was come to.
///
/// # Errors
/// When the gateway does not answer.
pub(super) async fn resolved(admin: &Admin, sequences: Vec<u64>, resolution: Resolution, by: Option<String>) -> anyhow::Result<Answered> {
    let mut request = ResolveRequest { sequences, among: None, resolution, by };
    let mut resolved = 0;
    loop {
        let answered: Answered = admin.post("/dead-letters/resolve", &request).await?;
        resolved += answered.resolved;
        if answered.not_reached.is_none() {
            return Ok(Answered { resolved, ..answered });
        }
        request.among = answered.not_reached;
    }
}
