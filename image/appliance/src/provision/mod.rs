//! Provisioning: from a signed site file on a stick to an appliance in service.

use std::process::ExitCode;

/// Waits for the site file, applies it and reports.
pub(crate) fn provision() -> anyhow::Result<ExitCode> {
    anyhow::bail!("provision: not in this image")
}
