//! Sticks, by the label of their file system.

#[cfg(test)]
pub(crate) mod drawer;
mod kernel;
mod port;

use std::path::Path;
use std::process::ExitCode;

pub(crate) use kernel::{KernelSticks, mount_data};
pub(crate) use port::{Mounted, Plugged, StickError, Sticks, read_file, write_file};

/// Does what the stick asks for.
pub(crate) fn stick(device: &Path) -> anyhow::Result<ExitCode> {
    anyhow::bail!("stick {}: not in this image", device.display())
}
