//! The one word that stands for the whole appliance.

use serde::Serialize;
use vitalgate_layout::state::Part;
use vitalgate_layout::{StateWord, fact};

use crate::daemon::{Daemon, DaemonStatus};
use crate::parts::{Parts, Said};

/// How long a part may say nothing after the start, in seconds.
pub const PART_SILENT_S: u64 = 600;
/// How long the daemon may take to answer once it can be expected, in seconds.
pub const DAEMON_START_S: u64 = 180;
/// Most reasons of one word that are named.
const REASONS_MAX: usize = 3;

/// The appliance's condition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Overall {
    /// The most urgent word.
    pub word: StateWord,
    /// Number of its reason, where it has one.
    pub code: Option<u16>,
    /// Reason and remedy.
    pub detail: String,
    /// Less urgent words that hold as well, most urgent first.
    pub also: Vec<StateWord>,
    /// Their reasons, each behind its word.
    pub also_because: Vec<String>,
    /// Whether readings are taken and stored.
    pub in_service: bool,
}

/// One reason for a word.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Cause {
    word: StateWord,
    code: Option<u16>,
    detail: String,
}

impl Cause {
    fn new(word: StateWord, detail: impl Into<String>) -> Self {
        Self { word, code: None, detail: detail.into() }
    }
}

/// The word by rank over everything that is known. `up_s`: seconds since the status page started,
/// which is early in the boot.
#[must_use]
pub fn overall(parts: &Parts, daemon: &Daemon, up_s: u64) -> Overall {
    let mut causes: Vec<Cause> = Part::ALL.into_iter().filter_map(|part| of_part(parts, part, up_s)).collect();
    causes.extend(of_file_system(parts));
    causes.extend(of_daemon(parts, daemon));
    let ready = daemon.status().is_some_and(|status| status.health.ready);
    by_rank(&causes, ready)
}

fn by_rank(causes: &[Cause], in_service: bool) -> Overall {
    let word = causes.iter().map(|cause| cause.word).max().unwrap_or(StateWord::Ready);
    let reasons: Vec<&str> =
        causes.iter().filter(|cause| cause.word == word && !cause.detail.is_empty()).map(|cause| cause.detail.as_str()).collect();
    let mut detail = reasons.iter().take(REASONS_MAX).copied().collect::<Vec<_>>().join("; ");
    if reasons.len() > REASONS_MAX {
        detail.push_str(&format!("; and {} more", reasons.len() - REASONS_MAX));
    }
    let mut also: Vec<StateWord> =
        causes.iter().map(|cause| cause.word).filter(|other| *other != word && *other != StateWord::Ready).collect();
    also.sort_unstable_by(|a, b| b.cmp(a));
    also.dedup();
    let code = causes.iter().find_map(|cause| if cause.word == word { cause.code } else { None });
    let first = |word: &StateWord| causes.iter().find(|cause| cause.word == *word && !cause.detail.is_empty());
    let also_because = also.iter().filter_map(|word| first(word).map(|cause| format!("{word}: {}", cause.detail))).collect();
    Overall { word, code, detail, also, also_because, in_service }
}

fn of_part(parts: &Parts, part: Part, up_s: u64) -> Option<Cause> {
    match (parts.get(part), part) {
        // Our own file is written for others.
        (_, Part::Status) => None,
        (Said::State(state), _) => Some(Cause { word: state.word, code: state.code, detail: state.detail.clone() }),
        (Said::Unreadable(reason), _) => {
            Some(Cause::new(StateWord::Degraded, format!("the state file {} cannot be read: {reason}", part.file_name())))
        }
        (Said::Missing, Part::Data) if up_s <= PART_SILENT_S => Some(Cause::new(StateWord::Selftest, "opening the sealed storage")),
        (Said::Missing, Part::Data) => {
            Some(Cause::new(StateWord::Tamper, "the sealed storage has not been opened since the start; power the appliance off and on"))
        }
        (Said::Missing, Part::Provision) => of_missing_provision(parts, up_s),
        (Said::Missing, _) => None,
    }
}

/// Storage that opened is in order for whoever waited for it; what is damaged in it is for a person.
fn of_file_system(parts: &Parts) -> Option<Cause> {
    let failed = parts.fact(Part::Data, fact::FILE_SYSTEM).is_some_and(|said| said.starts_with(fact::FAILED));
    let what = "the file system of the sealed storage is damaged and was not mended; replace the disk";
    failed.then(|| Cause::new(StateWord::Degraded, what))
}

fn of_missing_provision(parts: &Parts, up_s: u64) -> Option<Cause> {
    // Without storage nothing is provisioned; that has its own word.
    let storage = parts.state(Part::Data).is_some_and(|state| state.word == StateWord::Ready);
    match (storage, up_s <= PART_SILENT_S) {
        (false, _) => None,
        (true, true) => Some(Cause::new(StateWord::Selftest, "looking for the site file")),
        (true, false) => {
            Some(Cause::new(StateWord::Degraded, "the commissioning step has said nothing since the start; power the appliance off and on"))
        }
    }
}

/// Whether the daemon should be running: the site file is accepted.
fn expected(parts: &Parts) -> bool {
    let ready = |part| parts.state(part).is_some_and(|state| state.word == StateWord::Ready);
    ready(Part::Data) && ready(Part::Provision)
}

fn of_daemon(parts: &Parts, daemon: &Daemon) -> Vec<Cause> {
    match daemon {
        Daemon::Answers(status) => of_answer(parts, status),
        Daemon::Silent { .. } if !expected(parts) => Vec::new(),
        Daemon::Silent { for_s, .. } if *for_s <= DAEMON_START_S => vec![Cause::new(StateWord::Selftest, "the gateway is starting")],
        Daemon::Silent { reason, ever, .. } => {
            let since = if *ever { "no longer answers" } else { "has not answered since the start" };
            let what = format!("the gateway {since} ({reason}): no readings are taken; it restarts by itself, else power off and on");
            vec![Cause::new(StateWord::Degraded, what)]
        }
    }
}

fn of_answer(parts: &Parts, status: &DaemonStatus) -> Vec<Cause> {
    let mut causes = Vec::new();
    causes.extend(of_health(status));
    let uptime_s = status.uptime_s.unwrap_or(0);
    for device in &status.devices {
        if let Some(why) = device.missing(uptime_s) {
            causes.push(Cause::new(StateWord::Degraded, format!("{} {why}", device.id)));
        }
    }
    // The clock's own part knows more: server names, what is authenticated.
    if parts.state(Part::Clock).is_none() {
        causes.extend(of_clock(status));
    }
    causes
}

fn of_health(status: &DaemonStatus) -> Option<Cause> {
    let first = || status.health.problems.first().cloned().unwrap_or_default();
    let cause = match status.health.state.as_str() {
        "READY" => return None,
        "STARTING" => Cause::new(StateWord::Selftest, "the gateway opens its store"),
        "STOPPING" => Cause::new(StateWord::Selftest, "the gateway restarts"),
        "OFFLINE-BUFFERING" => Cause::new(StateWord::OfflineBuffering, first()),
        "STORE-FULL" => Cause::new(StateWord::StoreFull, first()),
        "DEGRADED" => Cause::new(StateWord::Degraded, first()),
        other => Cause::new(StateWord::Degraded, format!("the gateway says {other:?}, which this version of the page does not know")),
    };
    Some(cause)
}

fn of_clock(status: &DaemonStatus) -> Option<Cause> {
    match status.clock_trust.as_deref().map(str::to_ascii_lowercase).as_deref() {
        Some("unset") => Some(Cause::new(StateWord::TimeUntrusted, "the clock has not been set since power-on")),
        Some("free") => Some(Cause::new(StateWord::TimeUntrusted, "no time source answers; the clock runs by itself")),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
