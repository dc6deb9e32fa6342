//! Sticks, by the label of their file system.

#[cfg(test)]
pub(crate) mod drawer;
mod kernel;
mod port;
mod request;
#[cfg(test)]
pub(crate) mod rig;

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use vitalgate_layout::stick;

pub(crate) use kernel::{KernelSticks, mount_data};
pub(crate) use port::{Mounted, Plugged, StickError, Sticks, read_file, write_file};
pub(crate) use request::{Taken, heading, refused_text, take};

use crate::command::System;
use crate::places::Places;
use crate::{provision, reset, support, update};

/// Labels that mean something.
const LABELS: [&str; 5] = [stick::PROVISION, stick::UPDATE, stick::SUPPORT, stick::RESET, stick::RECOVERY];

/// Does what the stick asks for. The sticks that a step waits for by itself are that step's.
pub(crate) fn stick(device: &Path) -> anyhow::Result<ExitCode> {
    let places = Places::system();
    let sticks = KernelSticks::of(&places);
    let device = fs::canonicalize(device).with_context(|| format!("{} is not plugged in", device.display()))?;
    let label = label_of(&sticks, &device).with_context(|| format!("{} has none of the labels {}", device.display(), LABELS.join(", ")))?;
    if [stick::PROVISION, stick::RECOVERY].contains(&label) {
        let closed = provision::is_commissioned(&places);
        crate::cli::say(if closed {
            "the window for provisioning is closed; nothing is done with this stick"
        } else {
            "the step that waits for it takes it"
        });
        return Ok(ExitCode::SUCCESS);
    }
    let mounted = sticks.mount(&device)?;
    match label {
        stick::UPDATE => {
            // An update that cannot leave its report is installed all the same.
            if let Err(error) = mounted.make_writable() {
                crate::cli::say(&error.to_string());
            }
            update::from_stick(mounted.folder())?;
            // The stick may be pulled while the update is checked.
            if let Err(error) = mounted.finish() {
                crate::cli::say(&error.to_string());
            }
        }
        stick::SUPPORT => support::support(&places, &System, mounted)?,
        stick::RESET => reset::reset(&places, &System, mounted)?,
        other => bail!("{other}: nothing is done"),
    }
    Ok(ExitCode::SUCCESS)
}

fn label_of(sticks: &dyn Sticks, device: &Path) -> Option<&'static str> {
    LABELS.into_iter().find(|label| sticks.find(label).is_some_and(|stick| stick.device == device))
}
