//! `vitalgate status`.

use std::process::ExitCode;

use vitalgate_console::{DestinationStatus, DeviceStatus, Status};

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
    let problems = &status.health.problems;
    for line in problems.iter().chain(status.warnings.iter().filter(|warning| !problems.contains(warning))) {
        println!("warning   {line}");
    }
    let store = &status.store;
    let days = store.days_left.map_or_else(String::new, |days| format!(", {days:.1} days left if nothing is delivered"));
    println!("store     {} entries, journal {} MiB, free {} MiB{days}", store.committed, mib(store.journal_bytes), mib(store.free_bytes));
    println!("buffer    {}, holds up to {}, checkpoint at {}", store.keyed_state, store.keyed_applied, store.keyed_checkpointed);
    if store.dead_letters > 0 {
        println!("dead      {} dead letters; see `vitalgate dead-letters list`", store.dead_letters);
    }
    for destination in &status.destinations {
        println!("to        {}", destination_line(destination));
    }
    for device in &status.devices {
        println!("from      {}", device_line(device));
    }
}

fn destination_line(destination: &DestinationStatus) -> String {
    let accepted = match destination.last_acknowledgement_age_s {
        Some(age) => format!("last accepted {} ago", seconds(age)),
        None => "nothing accepted since the start".to_owned(),
    };
    let oldest = destination.oldest_age_s.map_or_else(String::new, |age| format!(", oldest {}", seconds(age)));
    format!("{}: {} queued{oldest}, {accepted}", destination.id, destination.queued)
}

/// When it last sent something, and how it is now.
fn device_line(device: &DeviceStatus) -> String {
    let last = match device.last_reading_age_s {
        Some(age) => format!("last reading {} ago", seconds(age)),
        None => "no reading since the start".to_owned(),
    };
    let state = match (device.connected, device.driver.as_str()) {
        (Some(true), _) => ", connected".to_owned(),
        (Some(false), _) => ", not connected".to_owned(),
        (None, "modbus") => format!(", {}", device.state),
        (None, _) => String::new(),
    };
    format!("{} ({}, {}): {last}{state}", device.id, device.driver, device.profile)
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Promise 5: a device that is gone is not shown as one that was just heard.
    #[test]
    fn a_device_that_is_gone_is_said_to_be() {
        let device = |driver: &str, connected, last_reading_age_s, state: &str| DeviceStatus {
            id: "bed-1".to_owned(),
            profile: "p".to_owned(),
            driver: driver.to_owned(),
            connected,
            last_reading_age_s,
            state: state.to_owned(),
        };
        for (device, line) in [
            (device("modbus", None, Some(180), "down"), "bed-1 (modbus, p): last reading 3 min ago, down"),
            (device("modbus", None, Some(1), "ok"), "bed-1 (modbus, p): last reading 1 s ago, ok"),
            (device("modbus", None, None, "waiting"), "bed-1 (modbus, p): no reading since the start, waiting"),
            (device("mqtt", Some(false), Some(180), "seen"), "bed-1 (mqtt, p): last reading 3 min ago, not connected"),
            (device("mqtt", Some(true), None, "no reading since the start"), "bed-1 (mqtt, p): no reading since the start, connected"),
            (device("mqtt", None, Some(180), "seen"), "bed-1 (mqtt, p): last reading 3 min ago"),
        ] {
            assert_eq!(device_line(&device), line);
        }
    }

    /// Promise 5: what is known since the start only is not said of the time before it.
    #[test]
    fn a_restart_is_no_never() {
        let destination = |last_acknowledgement_age_s| DestinationStatus {
            id: "ehr".to_owned(),
            queued: 7,
            oldest_age_s: Some(60),
            last_acknowledgement_age_s,
            refused_readings: 0,
            alarm: None,
        };
        assert_eq!(destination_line(&destination(None)), "ehr: 7 queued, oldest 60 s, nothing accepted since the start");
        assert_eq!(destination_line(&destination(Some(5))), "ehr: 7 queued, oldest 60 s, last accepted 5 s ago");
    }
}
