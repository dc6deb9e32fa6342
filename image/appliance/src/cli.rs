//! The command line: one subcommand a unit.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::errand::{self, Errand};
use crate::{boot, clock, configure, gate, identity, provision, stick, storage, update};

/// Names by which the updater calls this program.
const OTHER_NAMES: [&str; 2] = ["bootchooser", "pre-install"];

/// The appliance's privileged steps; each is started by its own unit.
#[derive(Debug, Parser)]
#[command(name = "vitalgate-appliance", version)]
struct Arguments {
    /// The step.
    #[command(subcommand)]
    step: Step,
}

/// One step.
#[derive(Debug, Subcommand)]
enum Step {
    /// Sealed storage.
    Data {
        /// What to do with it.
        #[command(subcommand)]
        action: DataAction,
    },
    /// Wait for the site file on a stick labelled PROVISION, and keep it.
    Provision,
    /// Test the appliance in its place, write report and credentials to the stick, close the window.
    Commission,
    /// Make what the appliance identifies itself with, where the site file asks for it.
    Identity,
    /// Make the daemon's, the firewall's, the clock's and the network's files from the site file.
    Configure,
    /// Do what a stick asks for, by its label.
    Stick(stick::Arguments),
    /// Which slot starts next; called by the updater.
    Bootchooser(boot::Arguments),
    /// Refuse or prepare an installation; called by the updater.
    PreInstall(boot::HandlerArguments),
    /// Wait until the appliance is healthy, or go back to the other slot.
    Gate,
    /// Keep the running slot.
    MarkGood,
    /// Look for an update where the site file says.
    Update(update::Arguments),
    /// Do what another step may not do itself; started by the errand's unit.
    Errand {
        /// What.
        errand: Errand,
    },
    /// Say how far the clock can be trusted.
    Clock(clock::Arguments),
}

/// What to do with sealed storage.
#[derive(Debug, Clone, Copy, Subcommand)]
enum DataAction {
    /// Open it; at the first boot make it.
    Open,
    /// Give its folders to their accounts.
    Folders,
}

/// Carries out the step that the arguments name.
pub(crate) fn execute(arguments: impl IntoIterator<Item = OsString>) -> anyhow::Result<ExitCode> {
    match Arguments::parse_from(by_own_name(arguments)).step {
        Step::Data { action: DataAction::Open } => storage::open(),
        Step::Data { action: DataAction::Folders } => storage::folders(),
        Step::Provision => provision::provision(),
        Step::Commission => provision::commission(),
        Step::Identity => identity::identity(),
        Step::Configure => configure::configure(),
        Step::Stick(arguments) => stick::stick(&arguments),
        Step::Bootchooser(arguments) => boot::bootchooser(&arguments),
        Step::PreInstall(_words) => boot::pre_install(),
        Step::Gate => gate::gate(),
        Step::MarkGood => boot::mark_good(),
        Step::Update(arguments) => update::update(&arguments),
        Step::Errand { errand } => errand::go(errand),
        Step::Clock(arguments) => clock::clock(&arguments),
    }
}

/// Puts the name that the program was called by in front of the arguments where it is one of the other names.
fn by_own_name(arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = arguments.into_iter().collect();
    let called = arguments.first().and_then(|first| Path::new(first).file_name()).map(OsString::from);
    if let Some(called) = called.filter(|called| OTHER_NAMES.iter().any(|name| called == name)) {
        arguments.insert(1, called);
    }
    arguments
}

/// Says an error with its whole chain of causes; the unit's output goes to the journal.
#[allow(clippy::print_stderr, reason = "the journal takes what a step says")]
pub(crate) fn say_error(error: &anyhow::Error) {
    eprintln!("vitalgate-appliance: {error:#}");
}

/// Says what a step did, in one line.
#[allow(clippy::print_stderr, reason = "the journal takes what a step says")]
pub(crate) fn say(text: &str) {
    eprintln!("vitalgate-appliance: {text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    /// The updater knows the program by its links only.
    #[test]
    fn a_link_names_the_step() {
        assert_eq!(
            by_own_name(words("/usr/lib/vitalgate/bootchooser get-primary")),
            words("/usr/lib/vitalgate/bootchooser bootchooser get-primary")
        );
        assert_eq!(by_own_name(words("/usr/lib/vitalgate/pre-install")), words("/usr/lib/vitalgate/pre-install pre-install"));
        assert_eq!(by_own_name(words("/usr/bin/vitalgate-appliance gate")), words("/usr/bin/vitalgate-appliance gate"));
    }
}
