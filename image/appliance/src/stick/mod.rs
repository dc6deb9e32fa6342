//! Sticks, by the label of their file system.

#[cfg(test)]
pub(crate) mod drawer;
mod managed;
mod port;
mod request;
#[cfg(test)]
pub(crate) mod rig;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use vitalgate_layout::stick;

pub(crate) use managed::{ManagedSticks, mount_data};
pub(crate) use port::{Mounted, Plugged, StickError, Sticks, read_file, write_file};
pub(crate) use request::{Taken, heading, read_report, refused_below, refused_text, take, tell_refused};

use crate::command::System;
use crate::places::Places;
use crate::{identity, provision, replay, reset, support, update};

/// A stick that asks for something.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Its label: what it asks for.
    label: Label,
    /// The block device.
    device: std::path::PathBuf,
}

/// Labels that ask for something by themselves; the sticks that a step waits for are that step's.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Label {
    /// To be updated.
    #[value(name = "UPDATE")]
    Update,
    /// To tell support how it is.
    #[value(name = "SUPPORT")]
    Support,
    /// To send dead letters again, or discard them.
    #[value(name = "REPLAY")]
    Replay,
    /// To be erased.
    #[value(name = "RESET")]
    Reset,
    /// To go on with another site file.
    #[value(name = "PROVISION")]
    Provision,
    /// To show another certificate to the EHR.
    #[value(name = "CERTIFICATE")]
    Certificate,
}

impl Label {
    const fn text(self) -> &'static str {
        match self {
            Self::Update => stick::UPDATE,
            Self::Support => stick::SUPPORT,
            Self::Replay => stick::REPLAY,
            Self::Reset => stick::RESET,
            Self::Certificate => stick::CERTIFICATE,
            Self::Provision => stick::PROVISION,
        }
    }
}

/// Does what the stick asks for.
pub(crate) fn stick(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let places = Places::system();
    let sticks = ManagedSticks::of(&places);
    if matches!(arguments.label, Label::Provision) {
        // Before it is mounted: whoever waits may pull it.
        provision::wait_for_trial(&places);
    }
    let mounted = sticks.mount(&found(&sticks, arguments)?)?;
    match arguments.label {
        Label::Update => {
            // An update that cannot leave its report is installed all the same.
            if let Err(error) = mounted.check_writable() {
                crate::cli::say(&error.to_string());
            }
            update::from_stick(mounted.folder())?;
            // The stick may be pulled while the update is checked.
            if let Err(error) = mounted.finish() {
                crate::cli::say(&error.to_string());
            }
        }
        Label::Support => support::support(&places, &System, mounted)?,
        Label::Replay => replay::replay(&places, &System, mounted)?,
        Label::Reset => reset::reset(&places, &System, mounted)?,
        Label::Certificate => identity::take_certificate(&places, &System, mounted)?,
        Label::Provision => provision::in_service(&places, &System, mounted)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The plugged stick that the unit was started for: with two of the same label it is the other one's turn first.
fn found(sticks: &dyn Sticks, arguments: &Arguments) -> anyhow::Result<Plugged> {
    let label = arguments.label.text();
    let found = sticks.find(label).with_context(|| format!("no stick labelled {label} is plugged in"))?;
    let same = found.device.file_name() == Path::new(&arguments.device).file_name();
    ensure!(same, "{} is another stick labelled {label}; pull one of them", found.device.display());
    Ok(found)
}
