//! The health gate after a start: a new version shows that it is as well as the one before, or is left.

mod before;
mod daemon;
mod verdict;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use vitalgate_layout::state::{Part, StateWord};
use vitalgate_layout::{Rejection, path};

use crate::boot::{Esp, Mounted, Rollback, Running, Trial, data_is_open, record, say_not_well, show};
use crate::cli::{say, say_error};
use crate::command::{Call, Programs, System};
use crate::errand::{self, Errand};
use crate::insist::{ATTEMPT_INTERVAL, insist};
use crate::lock;
use crate::pause::pause;
use crate::places::Places;
use crate::state_file::StateFiles;

pub(crate) use before::Before;
use verdict::{Known, Seen, Verdict, decide};

/// How often the gate looks.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// How long the monitor shows why, before the restart takes it away.
const SHOWN_FOR: Duration = Duration::from_secs(15);
/// How long an orderly restart may take before it is forced.
const RESTART_DEADLINE: Duration = Duration::from_secs(90);
/// How long the service manager may take to answer.
const MANAGER_DEADLINE: Duration = Duration::from_secs(20);
/// How long the daemon may take to say what it has.
const BEFORE_DEADLINE: Duration = Duration::from_secs(20);
/// How often a gateway that has only just started is looked at before an update.
const SETTLE_LOOK_INTERVAL: Duration = Duration::from_secs(10);
/// Most looks at it: one that starts over and over keeps no update away.
const SETTLE_LOOKS_MAX: u32 = 30;
/// The unit that opens sealed storage.
const DATA_UNIT: &str = "vitalgate-data.service";
/// How long a start stays as it is whose gateway was never started, before the appliance starts again: a technician with a stick
/// has time to mend it. The loader counts starts, and comes to the other slot where there is one.
const STAY: Duration = Duration::from_secs(15 * 60);
/// The daemon's unit.
const DAEMON_UNIT: &str = "vitalgate.service";

/// Waits until the appliance is healthy, or goes back to the other slot.
pub(crate) fn gate() -> anyhow::Result<ExitCode> {
    let places = Places::system();
    let disk = Mounted::at(&places.at(path::ESP));
    let esp = Esp::on(&disk);
    let wait = || pause(ATTEMPT_INTERVAL);
    let (running, known) = begin(&places, &esp, wait)?;
    if known.on_trial {
        say(&format!("slot {} ({}) is on trial", running.slot, running.version));
    }
    let verdict = watch(&places, &known);
    let code = insist(wait, || conclude(&places, &esp, running, &verdict));
    if let Verdict::Stay(reason) = &verdict {
        match stay(&places, &known) {
            Stayed::Well => return conclude(&places, &esp, running, &Verdict::Pass),
            Stayed::Ended => {}
            Stayed::Restart => {
                say(&format!("the gateway was not started for {} min ({reason}): the appliance starts again", STAY.as_secs() / 60));
                restart(&System);
            }
        }
    }
    // Also where the disk did not take it: the loader takes a try at each start, and leaves the version by that.
    if matches!(verdict, Verdict::Return(_)) {
        pause(SHOWN_FOR);
        restart(&System);
    }
    code
}

/// What runs, and what it is held to. Where that cannot be read, the version is neither kept nor left, and the page says so.
fn begin(places: &Places, esp: &Esp<'_>, wait: impl Fn()) -> anyhow::Result<(Running, Known)> {
    let begun = insist(wait, || {
        let running = Running::read(places)?;
        let trial = esp.trial().filter(|trial| trial.is_of(running.slot, running.version));
        Ok((running, known(places, esp, running, trial.as_ref())?))
    });
    begun.inspect_err(|error| say_not_well(places, "whether this version is healthy cannot be decided", error))
}

/// Does what the verdict asks, but for the restart.
fn conclude(places: &Places, esp: &Esp<'_>, running: Running, verdict: &Verdict) -> anyhow::Result<ExitCode> {
    match verdict {
        // No word: what is not well may be mended later (a recovery key, room on the disk), and whoever
        // sees it says so while it lasts: sealed storage, the gateway, the status page for a device.
        Verdict::Degraded(reason) => {
            say(&format!("kept, but not well: {reason}"));
            Ok(ExitCode::SUCCESS)
        }
        Verdict::Return(reason) => {
            go_back(places, esp, running, reason)?;
            Ok(ExitCode::FAILURE)
        }
        Verdict::Stay(reason) => {
            say(&format!("not healthy, and not left: {reason}"));
            show(places, esp, running, Some(&format!("this start was not healthy: {reason}")))?;
            Ok(ExitCode::FAILURE)
        }
        Verdict::Pass | Verdict::Wait(_) => {
            say("healthy");
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// What the daemon has now; asked by an errand.
///
/// # Errors
/// When it does not answer.
pub(crate) fn before_now() -> anyhow::Result<Before> {
    Ok(Before::of(&daemon::status(path::DAEMON_STATUS)?))
}

fn ask_before(places: &Places, programs: &dyn Programs) -> Option<Before> {
    errand::send(programs, places, Errand::Before, &(), BEFORE_DEADLINE).map_err(|error| say_error(&error.into())).ok()
}

/// Waits while the gateway has only just started, or is just starting: nothing that is there has shown itself, and a new version would
/// be held to nothing. One that does not come up is not waited for.
pub(crate) fn wait_until_settled(places: &Places, programs: &impl Programs, pause: impl Fn(Duration)) {
    let is_starting = || property(programs, DAEMON_UNIT, "ActiveState").as_deref() == Some("activating") && daemon_ends(programs) == 0;
    for _ in 0..SETTLE_LOOKS_MAX {
        // One that ends again and again restarts the machine before it settles.
        let gives_up = daemon_ends(programs) >= verdict::ENDS_MAX;
        if gives_up || !ask_before(places, programs).map_or_else(is_starting, |before| before.settling) {
            return;
        }
        pause(SETTLE_LOOK_INTERVAL);
    }
}

/// What the daemon had before an update, for the gate of the new version.
///
/// # Errors
/// When sealed storage does not take the record.
pub(crate) fn keep_before(places: &Places, programs: &dyn Programs) -> std::io::Result<Before> {
    // A gateway that does not answer has nothing that a new version could lose.
    let before = ask_before(places, programs).unwrap_or_default();
    before.keep(places)?;
    Ok(before)
}

/// The same at a restart long after the installation; where the gateway cannot say it now, what was there then stays expected.
///
/// # Errors
/// When sealed storage does not take the record.
pub(crate) fn renew_before(places: &Places, programs: &dyn Programs) -> std::io::Result<()> {
    let known = Before::read(places).is_some();
    ask_before(places, programs).filter(|before| !(known && before.settling)).map_or(Ok(()), |before| before.keep(places))
}

/// Asks for a restart and goes on.
pub(crate) fn restart_in_order(programs: &dyn Programs) {
    ask_for_restart(programs, &["--no-block", "reboot"]);
}

/// Restarts in order, and by force where that does not come.
fn restart(programs: &impl Programs) {
    // Should neither come, the watchdogs of the manager and of the machine are left.
    for arguments in [&["--no-block", "reboot"][..], &["--force", "reboot"]] {
        ask_for_restart(programs, arguments);
        pause(RESTART_DEADLINE);
    }
}

fn ask_for_restart(programs: &dyn Programs, arguments: &[&str]) {
    let call = Call::new("systemctl", "switch the appliance off and on").arguments(arguments).deadline(MANAGER_DEADLINE);
    if let Err(error) = programs.run(call) {
        say_error(&error.into());
    }
}

fn known(places: &Places, esp: &Esp<'_>, running: Running, trial: Option<&Trial>) -> anyhow::Result<Known> {
    Ok(Known {
        on_trial: trial.is_some(),
        data_was_open: trial.is_some_and(|trial| trial.data_was_open),
        way_back: esp.can_go_back_to(running.slot.other())?,
        before: Before::read(places).unwrap_or_default(),
        data_closed_s: 0,
        not_unwell_s: 0,
    })
}

/// Looks until there is a verdict. Every wait of [`decide`] has a deadline.
fn watch(places: &Places, known: &Known) -> Verdict {
    let begun = Instant::now();
    let mut waiting_for = String::new();
    // The record lies in sealed storage, which may open later than the gate begins.
    let mut known = known.clone();
    loop {
        known.before = Before::read(places).unwrap_or_default();
        let (seen, elapsed_s) = (look(places), begun.elapsed().as_secs());
        known.note(&seen, elapsed_s);
        match decide(&known, &seen, elapsed_s) {
            Verdict::Wait(reason) if reason == waiting_for => {}
            Verdict::Wait(reason) => {
                say(&format!("waiting: {reason}"));
                waiting_for = reason;
            }
            verdict => return verdict,
        }
        pause(LOOK_INTERVAL);
    }
}

/// What became of a start that was not healthy and had no other version to go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stayed {
    /// It got well after all.
    Well,
    /// The gateway's unit runs or is started again by itself; what ends too often restarts the machine without the gate.
    Ended,
    /// Nothing would start it any more.
    Restart,
}

/// Waits what becomes of it. A unit that did not start because one before it failed is not started again by anybody.
fn stay(places: &Places, known: &Known) -> Stayed {
    let begun = Instant::now();
    loop {
        pause(LOOK_INTERVAL);
        let seen = look(places);
        // Storage that is closed waits for a person with the recovery key.
        let never_started = seen.data && was_never_started(&System);
        if let Some(stayed) = stayed(decide(known, &seen, 0) == Verdict::Pass, never_started, || is_updating(places), begun.elapsed()) {
            return stayed;
        }
    }
}

fn stayed(well: bool, never_started: bool, updating: impl FnOnce() -> bool, waited: Duration) -> Option<Stayed> {
    match (well, never_started) {
        (true, _) => Some(Stayed::Well),
        _ if waited < STAY || updating() => None,
        (false, true) => Some(Stayed::Restart),
        (false, false) => Some(Stayed::Ended),
    }
}

/// Whether the daemon's unit is down and nothing of its own brings it up: it never ran in this start.
fn was_never_started(programs: &impl Programs) -> bool {
    property(programs, DAEMON_UNIT, "ActiveState").as_deref() == Some("inactive")
}

/// Whether something is being fetched or installed: that is not cut off. By its lock, since the last word of a program that was killed
/// stays.
fn is_updating(places: &Places) -> bool {
    lock::is_taken(places, path::UPDATE_LOCK)
}

fn look(places: &Places) -> Seen {
    let data = data_is_open(places);
    let daemon = daemon::status(path::DAEMON_STATUS).ok();
    Seen {
        data,
        data_checking: !data && data_is_checked(places),
        data_given_up: !data && data_given_up(places, &System),
        site: places.at(path::SITE_FILE).exists(),
        site_for_another: site_is_for_another(places),
        site_refused: site_refused(places),
        daemon_ends: if daemon.is_some() { 0 } else { daemon_ends(&System) },
        daemon,
    }
}

/// Whether the step that opens sealed storage said that it does not open, or ended without saying so.
fn data_given_up(places: &Places, programs: &impl Programs) -> bool {
    let said = StateFiles::of(places).read(Part::Data).is_some_and(|state| state.word == StateWord::Tamper);
    said || property(programs, DATA_UNIT, "ActiveState").as_deref() == Some("failed")
}

/// Whether the step that opens sealed storage looks at its file system.
fn data_is_checked(places: &Places) -> bool {
    StateFiles::of(places).read(Part::Data).is_some_and(|state| state.word == StateWord::Selftest)
}

/// Whether the site file was turned down for its serial number. Anything else that it is turned down for may be the version's fault.
fn site_is_for_another(places: &Places) -> bool {
    StateFiles::of(places).read(Part::Provision).is_some_and(|state| state.code == Some(Rejection::OtherSerial.code()))
}

/// Why this version turned the site file in service down, in one line.
fn site_refused(places: &Places) -> Option<String> {
    let said = StateFiles::of(places).read(Part::Provision).filter(|said| said.word == StateWord::ProvisionRejected)?;
    Some(said.detail.replace('\n', " "))
}

/// How often the service manager started the daemon again.
fn daemon_ends(programs: &impl Programs) -> u32 {
    property(programs, DAEMON_UNIT, "NRestarts").and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// What the service manager says of a unit (systemd 252, org.freedesktop.systemd1(5)).
fn property(programs: &impl Programs, unit: &str, name: &str) -> Option<String> {
    let call = Call::new("systemctl", "").arguments(["show", "--property", name, unit]).deadline(MANAGER_DEADLINE);
    let answer = programs.run(call).ok()?.text();
    Some(answer.trim().strip_prefix(name)?.strip_prefix('=')?.to_owned())
}

/// Leaves the running version: the reason first, so that no start is without it, then the entry.
fn go_back(places: &Places, esp: &Esp<'_>, running: Running, reason: &str) -> anyhow::Result<()> {
    say(&format!("{} is left: {reason}", running.version));
    record(places, esp, &Rollback::now(running.slot, running.version, reason.to_owned()))?;
    esp.leave(running.slot)?;
    show(places, esp, running, None)
}

#[cfg(test)]
mod tests;
