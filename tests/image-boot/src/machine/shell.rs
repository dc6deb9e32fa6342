//! The shell on the second serial port, which only the variant `shell` of the image has: for steps that
//! a test cannot wait for, such as the hourly look for an update.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use super::patience;

/// What the shell writes when it waits for a command.
const PROMPT: &str = "inspect# ";
/// What it is made to write when a command has ended, before the exit code.
const ENDED: &str = "command-ended:";
/// Longest wait for the prompt.
const PROMPT_WITHIN: Duration = Duration::from_secs(60);

/// A connection to the shell.
pub(crate) struct Shell {
    stream: UnixStream,
    heard: String,
}

impl Shell {
    /// Connects to the port, before the machine needs it.
    ///
    /// # Errors
    /// When QEMU does not listen.
    pub(crate) async fn connect(socket: &Path) -> anyhow::Result<Self> {
        let stream = UnixStream::connect(socket).await.context("no second serial port")?;
        Ok(Self { stream, heard: String::new() })
    }

    /// Runs a command; its exit code.
    ///
    /// # Errors
    /// When the shell does not answer, or the command does not end in time.
    pub(crate) async fn run(&mut self, command: &str, within: Duration) -> anyhow::Result<i32> {
        self.send("\n").await?;
        self.until(PROMPT_WITHIN, |heard| heard.contains(PROMPT).then_some(0)).await.context("no prompt")?;
        self.heard.clear();
        self.send(&format!("{command}; echo {ENDED}$?\n")).await?;
        self.until(within, exit_code).await.with_context(|| format!("{command} does not end"))
    }

    async fn send(&mut self, text: &str) -> anyhow::Result<()> {
        self.stream.write_all(text.as_bytes()).await.context("the shell takes nothing")
    }

    async fn until(&mut self, within: Duration, wanted: impl Fn(&str) -> Option<i32>) -> anyhow::Result<i32> {
        let reading = async {
            let mut piece = [0; 1024];
            loop {
                if let Some(found) = wanted(&self.heard) {
                    return Ok(found);
                }
                match self.stream.read(&mut piece).await? {
                    0 => bail!("the machine went off"),
                    read => self.heard.push_str(&String::from_utf8_lossy(&piece[..read])),
                }
            }
        };
        tokio::time::timeout(patience(within), reading).await.with_context(|| format!("waited {within:?} in vain"))?
    }
}

/// What the shell echoes of the command itself has no digits there.
fn exit_code(heard: &str) -> Option<i32> {
    heard.split(ENDED).skip(1).find_map(|rest| {
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        // The line must be whole.
        rest[digits.len()..].starts_with(['\r', '\n']).then(|| digits.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_is_read_and_not_the_echo() {
        assert_eq!(exit_code("inspect# false; echo command-ended:$?\r\n"), None);
        assert_eq!(exit_code("inspect# false; echo command-ended:$?\r\ncommand-ended:1"), None);
        assert_eq!(exit_code("inspect# false; echo command-ended:$?\r\ncommand-ended:1\r\ninspect# "), Some(1));
    }
}
