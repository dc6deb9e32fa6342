//! Programs of the host.

use std::ffi::OsStr;
use std::path::Path;

use anyhow::{Context as _, bail};
use tokio::process::Command;

/// Runs a program to its end and gives what it printed.
///
/// # Errors
/// When it cannot be started or fails; the error carries what it printed.
pub(crate) async fn run<A: AsRef<OsStr>>(program: impl AsRef<Path>, arguments: impl IntoIterator<Item = A>) -> anyhow::Result<String> {
    let program = program.as_ref();
    let mut command = Command::new(program);
    command.args(arguments).kill_on_drop(true);
    let output =
        command.output().await.with_context(|| format!("{} cannot be started; `tools/setup image` installs it", program.display()))?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let line = format!("{:?}", command.as_std());
        bail!("{line}: {}\n{printed}{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(printed)
}

/// Copies a file and keeps its holes, so that a large disk costs what is on it.
///
/// # Errors
/// When it cannot be copied.
pub(crate) async fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    let arguments = ["--archive", "--sparse=always", "--reflink=auto", "--no-target-directory"].map(OsStr::new);
    run("cp", arguments.into_iter().chain([from.as_os_str(), to.as_os_str()])).await.map(drop)
}

/// The value of an environment variable, or what stands for it. make passes on what nobody has set as an empty text.
pub(crate) fn setting(name: &str, otherwise: &str) -> String {
    std::env::var(name).ok().filter(|value| !value.is_empty()).unwrap_or_else(|| otherwise.to_owned())
}
