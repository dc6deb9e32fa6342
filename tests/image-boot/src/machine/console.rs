//! The serial console: kept in a file, and read line by line as it comes.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::sync::watch;
use tokio::time::Instant;
use vitalgate_layout::StateWord;
use vitalgate_layout::state::CONSOLE_PREFIX;

/// Last lines that an error shows.
const LAST_LINES: usize = 30;

/// One line and when it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    /// Time since the power came on. Without an instruction counter the guest's seconds are the host's.
    pub(crate) at: Duration,
    /// Without control sequences.
    pub(crate) text: String,
}

/// What a wait ended with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Heard<T> {
    /// What was waited for, and when it came.
    Yes(T, Duration),
    /// The machine went off first.
    Off,
}

/// The console of one run of the machine.
pub(crate) struct Console {
    lines: Arc<Mutex<Vec<Line>>>,
    changed: watch::Receiver<()>,
    next: usize,
}

impl Console {
    /// Reads `output` until it ends; `file` gets every byte.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn read(output: impl AsyncRead + Unpin + Send + 'static, file: &Path) -> anyhow::Result<Self> {
        let log = File::create(file).with_context(|| format!("{} cannot be written", file.display()))?;
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (tell, changed) = watch::channel(());
        tokio::spawn(listen(output, log, lines.clone(), tell));
        Ok(Self { lines, changed, next: 0 })
    }

    fn since(&self, index: usize) -> Vec<Line> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).get(index..).unwrap_or_default().to_vec()
    }

    /// Everything so far.
    pub(crate) fn all(&self) -> Vec<Line> {
        self.since(0)
    }

    /// Whether any line so far contains this.
    pub(crate) fn said(&self, part: &str) -> bool {
        self.all().iter().any(|line| line.text.contains(part))
    }

    /// The last lines, for an error.
    pub(crate) fn end(&self) -> String {
        let all = self.all();
        all[all.len().saturating_sub(LAST_LINES)..].iter().map(|line| format!("{:7.1} {}\n", line.at.as_secs_f64(), line.text)).collect()
    }

    /// Waits for the first line, from where the last wait ended, that `wanted` takes.
    ///
    /// # Errors
    /// When none comes in time; the error shows the last lines.
    pub(crate) async fn wait<T>(
        &mut self,
        what: &str,
        within: Duration,
        mut wanted: impl FnMut(&str) -> Option<T>,
    ) -> anyhow::Result<Heard<T>> {
        let deadline = Instant::now() + within;
        loop {
            let came = self.since(self.next);
            for line in came {
                self.next += 1;
                if let Some(found) = wanted(&line.text) {
                    return Ok(Heard::Yes(found, line.at));
                }
            }
            match tokio::time::timeout_at(deadline, self.changed.changed()).await {
                // The last lines may have come together with the end.
                Ok(Err(_)) if self.since(self.next).is_empty() => return Ok(Heard::Off),
                Ok(_) => {}
                Err(_) => bail!("waited {within:?} in vain for {what}; the console ends with\n{}", self.end()),
            }
        }
    }
}

/// The state word of a line on the console, with its detail.
pub(crate) fn state_of(line: &str) -> Option<(StateWord, String)> {
    let rest = line.split_once(CONSOLE_PREFIX)?.1.trim_start();
    let length = rest.find(|character: char| character != '-' && !character.is_ascii_uppercase()).unwrap_or(rest.len());
    let word = StateWord::ALL.into_iter().find(|word| word.word() == &rest[..length])?;
    Some((word, rest[length..].trim().to_owned()))
}

async fn listen(mut output: impl AsyncRead + Unpin, mut log: File, lines: Arc<Mutex<Vec<Line>>>, tell: watch::Sender<()>) {
    let began = Instant::now();
    let mut chunk = [0_u8; 4096];
    let mut rest = Vec::new();
    loop {
        let count = output.read(&mut chunk).await.unwrap_or(0);
        let ended = count == 0;
        // Evidence that cannot be written is missed by whoever looks for it, not by the test.
        let _ = log.write_all(&chunk[..count]);
        rest.extend_from_slice(&chunk[..count]);
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n').or_else(|| (ended && !rest.is_empty()).then(|| rest.len() - 1)) {
            let line: Vec<u8> = rest.drain(..=end).collect();
            let text = plain(&String::from_utf8_lossy(&line));
            if !text.is_empty() {
                lines.lock().unwrap_or_else(PoisonError::into_inner).push(Line { at: began.elapsed(), text });
            }
        }
        if ended {
            return;
        }
        // Nobody waiting is no error.
        let _ = tell.send(());
    }
}

/// The text without terminal control sequences (ECMA-48, section 5.4) and other control characters.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        if character == '\u{1b}' {
            if characters.next_if_eq(&'[').is_some() {
                while characters.next_if(|next| !('@'..='~').contains(next)).is_some() {}
            }
            characters.next();
        } else if !character.is_control() {
            out.push(character);
        }
    }
    out.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_read_from_the_console_with_its_detail() {
        assert_eq!(state_of("[   12.3] VITALGATE STATE READY"), Some((StateWord::Ready, String::new())));
        let rejected = state_of("VITALGATE STATE PROVISION-REJECTED (13: the signature does not match)");
        assert_eq!(rejected, Some((StateWord::ProvisionRejected, "(13: the signature does not match)".to_owned())));
        assert_eq!(state_of("VITALGATE STATE DEGRADED(monitor-01)"), Some((StateWord::Degraded, "(monitor-01)".to_owned())));
        assert_eq!(state_of("VITALGATE STATE READYISH"), None);
        assert_eq!(state_of("nothing"), None);
    }

    #[test]
    fn control_sequences_of_the_firmware_are_no_text() {
        assert_eq!(plain("\u{1b}[2J\u{1b}[01;01H\u{1b}[0mBdsDxe: loading\r\n"), "BdsDxe: loading");
    }

    #[tokio::test]
    async fn what_was_waited_for_is_found_once_and_the_end_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let mut console = Console::read(&b"one\ntwo\none\nlast"[..], &folder.path().join("log")).unwrap();
        let within = Duration::from_secs(5);
        let is = |wanted: &'static str| move |line: &str| (line == wanted).then_some(());
        assert!(matches!(console.wait("one", within, is("one")).await.unwrap(), Heard::Yes((), _)));
        assert!(matches!(console.wait("one", within, is("one")).await.unwrap(), Heard::Yes((), _)));
        assert!(matches!(console.wait("last", within, is("last")).await.unwrap(), Heard::Yes((), _)));
        assert_eq!(console.wait("one", within, is("one")).await.unwrap(), Heard::Off);
    }
}
