//! How far the clock can be trusted.

use std::process::ExitCode;

/// How to look at the clock.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {}

/// Says how far the clock can be trusted.
pub(crate) fn clock(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    anyhow::bail!("clock {arguments:?}: not in this image")
}
