//! A TPM 2.0 in software (swtpm), one process a run of the machine.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use tokio::process::{Child, Command};
use vitalgate_test_support::wait_until;

use crate::command;

/// Longest wait for its socket.
const READY_WITHIN: Duration = Duration::from_secs(20);

/// Makes a new TPM in `folder`; what was in an older one there is gone.
///
/// # Errors
/// When it cannot be made.
pub(crate) async fn manufacture(folder: &Path) -> anyhow::Result<()> {
    if folder.exists() {
        std::fs::remove_dir_all(folder).context("the old TPM cannot be taken away")?;
    }
    std::fs::create_dir_all(folder).context("no folder for the TPM")?;
    let state = folder.to_str().context("the folder's name is not UTF-8")?;
    command::run("swtpm_setup", ["--tpm2", "--tpmstate", state, "--pcr-banks", "sha256", "--overwrite"]).await.map(drop)
}

/// Starts it; it ends with the machine.
///
/// # Errors
/// When it cannot be started.
pub(crate) async fn start(folder: &Path, socket: &Path) -> anyhow::Result<Child> {
    let child = Command::new("swtpm")
        .args(["socket", "--tpm2", "--terminate"])
        .arg("--tpmstate")
        .arg(format!("dir={}", folder.display()))
        .arg("--ctrl")
        .arg(format!("type=unixio,path={}", socket.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .context("swtpm cannot be started")?;
    wait_until("swtpm's socket", READY_WITHIN, async || socket.exists().then_some(())).await?;
    Ok(child)
}
