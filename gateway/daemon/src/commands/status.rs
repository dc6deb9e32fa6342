//! `vitalgate status`.

use std::process::ExitCode;

use vitalgate_console::Status;

use super::print_json;
use crate::admin::Admin;

/// Prints the status; the exit code says whether readings are taken.
pub(super) async fn status(admin: &Admin, json: bool) -> anyhow::Result<ExitCode> {
    let status: Status = admin.get("/status", &[]).await?;
    if json {
        print_json(&status)?;
    } else {
        print(&status);
    }
    Ok(if status.health.ready { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print(status: &Status) {
    println!("{}  {}  vitalgate {}  up {}", status.gateway, status.health.state, status.version, seconds(status.uptime_s));
    println!("clock     {}", status.clock_trust);
    for line in status.health.problems.iter().chain(&status.warnings) {
        println!("warning   {line}");
    }
    let store = &status.store;
    let days = store.days_left.map_or_else(String::new, |days| format!(", {days:.1} days left at today's rate"));
    println!("store     {} entries, journal {} MiB, free {} MiB{days}", store.committed, mib(store.journal_bytes), mib(store.free_bytes));
    println!("buffer    {}, holds up to {}, checkpoint at {}", store.keyed_state, store.keyed_applied, store.keyed_checkpointed);
    if store.dead_letters > 0 {
        println!("dead      {} dead letters; see `vitalgate dead-letters list`", store.dead_letters);
    }
    for destination in &status.destinations {
        let last = destination.last_acknowledgement_age_s.map_or_else(|| "never".to_owned(), |age| format!("{} ago", seconds(age)));
        let oldest = destination.oldest_age_s.map_or_else(String::new, |age| format!(", oldest {}", seconds(age)));
        println!("to        {}: {} queued{oldest}, last accepted {last}", destination.id, destination.queued);
    }
    for device in &status.devices {
        let last = device.last_reading_age_s.map_or_else(|| device.state.clone(), |age| format!("{} ago", seconds(age)));
        println!("from      {} ({}, {}): {last}", device.id, device.driver, device.profile);
    }
}

fn seconds(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

fn mib(bytes: u64) -> u64 {
    bytes / (1024 * 1024)
}
