//! Updates by stick and from the configured server.

use std::path::Path;
use std::process::ExitCode;

/// How to look for an update.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {}

/// Looks for an update where the site file says.
pub(crate) fn update(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    anyhow::bail!("update {arguments:?}: not in this image")
}

/// Installs from a mounted stick.
pub(crate) fn from_stick(stick: &Path) -> anyhow::Result<()> {
    anyhow::bail!("update from {}: not in this image", stick.display())
}
