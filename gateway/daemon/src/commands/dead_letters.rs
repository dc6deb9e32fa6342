//! `vitalgate dead-letters`.

use std::process::ExitCode;

use vitalgate_console::{Answered, DEAD_LETTERS_PER_ANSWER_MAX, DeadLetterView, Resolution, ResolveRequest, Status};

use super::print_json;
use crate::admin::Admin;
use crate::cli::DeadLetterAction;

/// Lists, replays or discards.
pub(super) async fn dead_letters(admin: &Admin, action: DeadLetterAction) -> anyhow::Result<ExitCode> {
    match action {
        DeadLetterAction::List { json } => list(admin, json).await,
        DeadLetterAction::Replay { sequences } => resolve(admin, sequences, Resolution::Replay).await,
        DeadLetterAction::Discard { sequences } => resolve(admin, sequences, Resolution::Discard).await,
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

async fn resolve(admin: &Admin, sequences: Vec<u64>, resolution: Resolution) -> anyhow::Result<ExitCode> {
    let mut request = ResolveRequest { sequences, among: None, resolution };
    let mut answered: Answered = admin.post("/dead-letters/resolve", &request).await?;
    let mut resolved = answered.resolved;
    while answered.not_reached.is_some() {
        request.among = answered.not_reached;
        answered = admin.post("/dead-letters/resolve", &request).await?;
        resolved += answered.resolved;
    }
    let word = if resolution == Resolution::Replay { "replayed" } else { "discarded" };
    println!("{resolved} {word}, {} remain", answered.remaining);
    Ok(ExitCode::SUCCESS)
}
