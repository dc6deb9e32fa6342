//! The installation itself: the updater's service does it, its client tells how far it is.

use std::io::{BufRead as _, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use crate::boot::UPDATER_CONFIG;

/// How long an installation may take: a slow disk, and readings come first.
const INSTALL_DEADLINE: Duration = Duration::from_secs(45 * 60);
/// Longest line of the updater that is read, in bytes.
const LINE_BYTES_MAX: u64 = 4096;
/// Most lines of the updater.
const LINES_MAX: usize = 100_000;

/// Why an installation came to nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InstallError {
    /// The updater could not be called.
    #[error("the updater cannot be called ({0}); restart the appliance and try again")]
    Call(std::io::Error),
    /// It refused or failed.
    #[error("{0}")]
    Failed(String),
    /// It took too long; the updater's service is not stopped in the middle of a write.
    #[error(
        "it did not end within {} minutes and may still do so, then the next start is into the new version; if not, restart the appliance and try again",
        INSTALL_DEADLINE.as_secs() / 60
    )]
    Deadline,
}

/// Who installs; tests put their own here.
pub(crate) trait Installer {
    /// Installs a bundle into the other slot and lets it start next.
    ///
    /// # Errors
    /// When nothing was installed.
    fn install(&self, bundle: &Path, progress: &mut dyn FnMut(u8, &str)) -> Result<(), InstallError>;
}

/// RAUC's service, over its client.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rauc;

impl Installer for Rauc {
    fn install(&self, bundle: &Path, progress: &mut dyn FnMut(u8, &str)) -> Result<(), InstallError> {
        let mut command = Command::new("rauc");
        command
            .args([UPDATER_CONFIG, "install"])
            .arg(bundle)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LC_ALL", "C.UTF-8");
        follow(command, progress)
    }
}

/// Starts the client and listens until it ends.
fn follow(mut command: Command, progress: &mut dyn FnMut(u8, &str)) -> Result<(), InstallError> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(InstallError::Call)?;
    let (sender, lines) = mpsc::sync_channel(64);
    if let Some(output) = child.stdout.take() {
        read_lines(output, sender.clone());
    }
    if let Some(complaint) = child.stderr.take() {
        read_lines(complaint, sender);
    }
    let heard = listen(&lines, progress);
    finish(&mut child, heard)
}

fn read_lines(from: impl Read + Send + 'static, lines: mpsc::SyncSender<String>) {
    thread::spawn(move || {
        let mut reader = BufReader::new(from);
        for _ in 0..LINES_MAX {
            let mut line = Vec::new();
            match reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line) {
                Ok(bytes) if bytes > 0 => {}
                _ => return,
            }
            if lines.send(String::from_utf8_lossy(&line).trim().to_owned()).is_err() {
                return;
            }
        }
    });
}

/// Passes progress on; gives what the updater called its error, or `None` when time is up.
fn listen(lines: &mpsc::Receiver<String>, progress: &mut dyn FnMut(u8, &str)) -> Option<Option<String>> {
    let end = Instant::now() + INSTALL_DEADLINE;
    let (mut own_error, mut last_error) = (None, None);
    loop {
        match lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(line) => match Line::read(&line) {
                // The pre-install handler's reason; what follows only says that it failed.
                Line::HandlerError(reason) => own_error = Some(reason.to_owned()),
                Line::LastError(reason) => last_error = Some(reason.to_owned()),
                Line::Progress(percent, what) => progress(percent, what),
                Line::Other => {}
            },
            Err(RecvTimeoutError::Disconnected) => return Some(own_error.or(last_error)),
            Err(RecvTimeoutError::Timeout) => return None,
        }
    }
}

fn finish(child: &mut Child, heard: Option<Option<String>>) -> Result<(), InstallError> {
    let Some(error) = heard else {
        // Only the client is stopped; it may have gone already.
        let _ = child.kill();
        let _ = child.wait();
        return Err(InstallError::Deadline);
    };
    let status = child.wait().map_err(InstallError::Call)?;
    if status.success() {
        return Ok(());
    }
    let unsaid = || "the updater ended without a reason; restart the appliance and try again".to_owned();
    Err(InstallError::Failed(error.unwrap_or_else(unsaid)))
}

/// One line of `rauc install` (RAUC 1.8, `src/main.c`, `on_installer_changed`).
#[derive(Debug, PartialEq, Eq)]
enum Line<'l> {
    Progress(u8, &'l str),
    HandlerError(&'l str),
    LastError(&'l str),
    Other,
}

impl<'l> Line<'l> {
    fn read(line: &'l str) -> Self {
        if let Some(reason) = line.strip_prefix("LastError: ") {
            return Line::LastError(reason);
        }
        let Some((percent, what)) = line.split_once("% ") else { return Line::Other };
        match percent.trim().parse() {
            Ok(percent) if percent <= 100 => match what.strip_prefix("Error: ") {
                Some(reason) => Line::HandlerError(reason),
                None => Line::Progress(percent, what),
            },
            _ => Line::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn play(script: &str) -> (Result<(), InstallError>, Vec<(u8, String)>) {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        let mut heard = Vec::new();
        let result = follow(command, &mut |percent, what| heard.push((percent, what.to_owned())));
        (result, heard)
    }

    #[test]
    fn progress_is_passed_on() {
        let (result, heard) = play(
            "echo installing; echo '  0% Installing'; echo ' 40% Checking bundle'; echo '100% Installing done.'; echo 'Installing `/b` succeeded'",
        );
        assert!(result.is_ok(), "{result:?}");
        assert_eq!(heard.iter().map(|(percent, _)| *percent).collect::<Vec<_>>(), [0, 40, 100]);
        assert_eq!(heard[1].1, "Checking bundle");
    }

    /// The reason that reaches the technician is the one of whoever refused.
    #[test]
    fn the_reason_is_that_of_the_one_who_refused() {
        let (result, _) = play(
            "echo ' 60% Error: version 0.1.0 is older than 0.2.0'; echo 'LastError: Installation error: Pre-install handler error: Child process exited with code 1'; exit 1",
        );
        assert_eq!(result.unwrap_err().to_string(), "version 0.1.0 is older than 0.2.0");
        let (result, _) = play("echo 'LastError: Failed mounting bundle: no loop device'; echo 'Installing `/b` failed' >&2; exit 1");
        assert_eq!(result.unwrap_err().to_string(), "Failed mounting bundle: no loop device");
        // Nor is one that the updater dies of fetched again and again.
        for dies in ["exit 2", "kill -9 $$"] {
            let (result, heard) = play(dies);
            assert!(
                matches!(&result, Err(InstallError::Failed(why)) if why.contains("without a reason")) && heard.is_empty(),
                "{result:?}"
            );
        }
    }
}
