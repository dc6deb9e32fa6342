//! `vitalgate trace`: where is this reading now?

use std::process::ExitCode;

use anyhow::{Context as _, bail};
use vitalgate_console::Trace;
use vitalgate_domain::{DeviceId, ReadingId};

use super::print_json;
use crate::admin::Admin;

/// What is asked, checked before the daemon is.
pub(crate) struct Question(Vec<(&'static str, String)>);

impl Question {
    /// By id, or by device and moment.
    ///
    /// # Errors
    /// When neither is whole.
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
                Ok(Self(vec![("device", device.to_string()), ("at_unix_ms", moment.0.to_string()), ("window_ms", window_ms.to_string())]))
            }
            _ => bail!("name a reading id, or a device with --device and --at"),
        }
    }
}

/// Prints where the readings are; fails when there is none.
pub(super) async fn trace(admin: &Admin, question: &Question, json: bool) -> anyhow::Result<ExitCode> {
    let traces: Vec<Trace> = admin.get("/trace", &question.0).await?;
    if json {
        print_json(&traces)?;
    } else if traces.is_empty() {
        println!("no such reading is stored here (it never arrived, or its retention is over)");
    } else {
        traces.iter().for_each(print);
    }
    Ok(if traces.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn print(trace: &Trace) {
    let at = trace.at.as_deref().unwrap_or("moment not known yet");
    println!("{}  {} of {} at {at}", trace.reading_id, trace.metric, trace.device);
    println!("  received {} as number {}, stored in {}", trace.received, trace.sequence, trace.stored_in.join(" and "));
    for destination in &trace.destinations {
        let state = match (&destination.state, &destination.remote_id, &destination.reason) {
            (vitalgate_console::DeliveryState::Delivered, Some(id), _) => format!("delivered as {id}"),
            (vitalgate_console::DeliveryState::Delivered, None, _) => "delivered".to_owned(),
            (vitalgate_console::DeliveryState::Queued, _, _) => "queued".to_owned(),
            (vitalgate_console::DeliveryState::DeadLetter, _, reason) => {
                format!("dead letter: {}", reason.as_deref().unwrap_or("no reason kept"))
            }
        };
        println!("  {}: {state}", destination.destination);
    }
}
