//! Boot entries: which slot starts next, and what may be installed.

mod disk;
mod esp;
mod kernel_image;
mod mark_good;
mod pre_install;
mod rollback;
mod running;

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use vitalgate_layout::state::{Part, PartState, StateWord};
use vitalgate_layout::{Slot, path};

use crate::cli::{say, say_error};
use crate::command::{Call, Programs, System};
use crate::insist::{ATTEMPT_INTERVAL, insist};
use crate::pause::pause;
use crate::places::Places;
use crate::state_file::{Said, StateFiles};

pub(crate) use disk::Mounted;
#[cfg(test)]
pub(crate) use esp::NOTES;
pub(crate) use esp::{Esp, Trial};
pub(crate) use mark_good::{describe, undone};
pub(crate) use pre_install::{COMPATIBLE, check_version};
pub(crate) use rollback::{Rollback, record};
pub(crate) use running::{Running, running_slot, version_floor};

/// Where the updater's configuration is; the version of Debian 12 looks in `/etc` only.
pub(crate) const UPDATER_CONFIG: &str = "--conf=/usr/lib/rauc/system.conf";
/// How long the updater's service may take to note a good slot.
const MARK_DEADLINE: Duration = Duration::from_secs(60);

/// What the updater asks.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// As the updater passes them.
    words: Vec<String>,
}

/// What the updater passes to a handler.
#[derive(Debug, clap::Args)]
pub(crate) struct HandlerArguments {
    /// The bundle's words for its handler, in one argument; not used.
    words: Vec<String>,
}

/// Which slot starts next (RAUC 1.8, `docs/integration.rst`, "Custom Bootloader Backend Interface").
pub(crate) fn bootchooser(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let places = Places::system();
    let disk = Mounted::at(&places.at(path::ESP));
    let words: Vec<&str> = arguments.words.iter().map(String::as_str).collect();
    if let Some(answer) = answer(&places, &Esp::on(&disk), &words)? {
        writeln!(std::io::stdout(), "{answer}").context("the updater does not listen")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Answers one question of the updater or does what it asks.
fn answer(places: &Places, esp: &Esp<'_>, words: &[&str]) -> anyhow::Result<Option<String>> {
    let slot = |name: &str| Slot::parse(name).with_context(|| format!("{name:?} is no slot; there are a and b"));
    match words {
        ["get-primary"] => return Ok(Some(esp.primary()?.to_string())),
        ["get-current"] => return Ok(Some(running_slot(places)?.to_string())),
        ["get-state", name] => {
            let good = esp.is_good(slot(name)?)?;
            return Ok(Some(if good { "good" } else { "bad" }.to_owned()));
        }
        ["set-primary", name] => esp.set_primary(slot(name)?, data_is_open(places))?,
        ["set-state", name, "good"] => esp.set_good(slot(name)?)?,
        ["set-state", name, "bad"] => esp.set_bad(slot(name)?, running_slot(places).ok())?,
        _ => bail!("{words:?}: not a question of the updater"),
    }
    Ok(None)
}

/// Whether sealed storage is open: its folder is made when it is.
pub(crate) fn data_is_open(places: &Places) -> bool {
    places.at(path::APPLIANCE).is_dir()
}

/// Whether the running version has not shown yet that it is healthy.
pub(crate) fn is_on_trial(places: &Places, running: Running) -> bool {
    let disk = Mounted::at(&places.at(path::ESP));
    Esp::on(&disk).trial().is_some_and(|trial| trial.is_of(running.slot, running.version))
}

/// Whether the running version may be left for the one in the other slot: it has not shown yet that it is healthy, and there is one to
/// go back to. Where the boot partition cannot be read, there may be one.
pub(crate) fn may_be_left(places: &Places, running: Running) -> bool {
    let disk = Mounted::at(&places.at(path::ESP));
    is_on_trial(places, running) && Esp::on(&disk).can_go_back_to(running.slot.other()).unwrap_or(true)
}

/// Gives the running version its tries back before a restart, or an update, that is not its fault. One on trial is judged as before, and
/// one that was installed still starts next.
pub(crate) fn stay_with_this_version(places: &Places) {
    let disk = Mounted::at(&places.at(path::ESP));
    let esp = Esp::on(&disk);
    let trial = esp.trial();
    let is_tried = |slot| {
        esp.entry(slot).is_ok_and(|entry| trial.iter().zip(entry).any(|(trial, entry)| trial.is_of(slot, entry.version) && entry.is_good()))
    };
    let kept = Running::read(places).ok().filter(|running| !is_on_trial(places, *running) && !is_tried(running.slot.other()));
    if let Some(Err(error)) = kept.map(|running| esp.set_good(running.slot)) {
        say(&format!("this start counts as one of the version's tries ({error})"));
    }
}

/// Refuses or prepares an installation.
pub(crate) fn pre_install() -> anyhow::Result<ExitCode> {
    let places = Places::system();
    let disk = Mounted::at(&places.at(path::ESP));
    let prepared = pre_install::Request::read(|name| std::env::var(name).ok()).map_err(anyhow::Error::from).and_then(|request| {
        let running = Running::read(&places)?;
        Ok(pre_install::prepare(&request, running, version_floor(&places), &Esp::on(&disk))?)
    });
    match prepared {
        Ok(version) => {
            say(&format!("{version} may be installed"));
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            // The updater passes on what follows these words, and nothing else.
            writeln!(std::io::stdout(), "<< error {error:#}").context("the updater does not listen")?;
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Keeps the running slot.
pub(crate) fn mark_good() -> anyhow::Result<ExitCode> {
    let places = Places::system();
    let disk = Mounted::at(&places.at(path::ESP));
    let esp = Esp::on(&disk);
    // Nothing starts this a second time: a healthy version would be left after a few starts more, and take no update until then.
    let kept = insist(|| pause(ATTEMPT_INTERVAL), || keep_running(&places, &esp));
    let running = kept.inspect_err(|error| say_not_kept(&places, error))?;
    say(&format!("slot {} ({}) is kept", running.slot, running.version));
    Ok(ExitCode::SUCCESS)
}

fn keep_running(places: &Places, esp: &Esp<'_>) -> anyhow::Result<Running> {
    let running = Running::read(places)?;
    if let Some(found) = mark_good::keep(places, esp, running)? {
        say(&found.reason);
    }
    let call =
        Call::new("rauc", "the slot is kept all the same").arguments([UPDATER_CONFIG, "status", "mark-good"]).deadline(MARK_DEADLINE);
    if let Err(error) = System.run(call) {
        say_error(&error.into());
    }
    show(places, esp, running, None)?;
    Ok(running)
}

/// A slot that could not be kept is not well, whatever else is.
fn say_not_kept(places: &Places, error: &anyhow::Error) {
    say_not_well(places, "this healthy version cannot be kept", error);
}

/// Says in place of the slots, which the boot partition does not tell, what could not be done for the running one.
pub(crate) fn say_not_well(places: &Places, what: &str, error: &anyhow::Error) {
    let detail = format!("{what} ({error:#}); switch off and on, and if this comes back, replace the disk");
    if let Err(unsaid) = StateFiles::of(places).say(Part::Slots, Said::new(StateWord::Degraded, &detail)) {
        say_error(&unsaid.into());
    }
}

/// Writes the part `Slots`.
pub(crate) fn show(places: &Places, esp: &Esp<'_>, running: Running, degraded: Option<&str>) -> anyhow::Result<()> {
    let said = describe(places, esp, running, degraded)?;
    let state = Said { facts: said.facts, ..Said::new(said.word, &said.detail) };
    StateFiles::of(places).say(Part::Slots, state).context("the state of the slots cannot be written")
}

/// Shows anew what is in the slots; the word stays that of whoever judged the running version, and before that nothing is said.
pub(crate) fn show_anew(places: &Places) -> anyhow::Result<()> {
    let disk = Mounted::at(&places.at(path::ESP));
    let facts = describe(places, &Esp::on(&disk), Running::read(places)?, None)?.facts;
    let files = StateFiles::of(places);
    let Some(said) = files.read(Part::Slots) else { return Ok(()) };
    files.write(Part::Slots, &PartState { facts, ..said }).context("the state of the slots cannot be written")
}

#[cfg(test)]
mod tests;
