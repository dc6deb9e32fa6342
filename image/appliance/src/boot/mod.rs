//! Boot entries: which slot starts next, and what may be installed.

use std::process::ExitCode;

/// What the updater asks.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// As the updater passes them.
    words: Vec<String>,
}

/// Which slot starts next.
pub(crate) fn bootchooser(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    anyhow::bail!("bootchooser {:?}: not in this image", arguments.words)
}

/// Refuses or prepares an installation.
pub(crate) fn pre_install() -> anyhow::Result<ExitCode> {
    anyhow::bail!("pre-install: not in this image")
}

/// Keeps the running slot.
pub(crate) fn mark_good() -> anyhow::Result<ExitCode> {
    anyhow::bail!("mark-good: not in this image")
}
