//! QEMU's machine protocol: one command, one answer (QEMU QMP Specification).

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use vitalgate_test_support::wait_until;

/// Longest wait for an answer; a machine under load answers late.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// A connection to a running QEMU.
pub(crate) struct Qmp {
    stream: BufReader<UnixStream>,
}

impl Qmp {
    /// Connects as soon as the socket is there.
    ///
    /// # Errors
    /// When it is not there in time, or does not speak the protocol.
    pub(crate) async fn connect(socket: &Path) -> anyhow::Result<Self> {
        let stream = wait_until("QEMU's socket", ANSWER_WITHIN, async || UnixStream::connect(socket).await.ok()).await?;
        let mut qmp = Self { stream: BufReader::new(stream) };
        qmp.until(|answer| answer.get("QMP").is_some()).await?;
        qmp.execute("qmp_capabilities", json!({})).await?;
        Ok(qmp)
    }

    async fn until(&mut self, wanted: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
        let reading = async {
            let mut line = String::new();
            loop {
                line.clear();
                if self.stream.read_line(&mut line).await? == 0 {
                    bail!("QEMU closed its socket");
                }
                let answer: Value = serde_json::from_str(&line).context("QEMU does not speak JSON")?;
                if wanted(&answer) {
                    return Ok(answer);
                }
            }
        };
        tokio::time::timeout(ANSWER_WITHIN, reading).await.context("QEMU gives no answer")?
    }

    /// Runs a command; what it returns. Events that come in between are passed over.
    ///
    /// # Errors
    /// When QEMU refuses it or does not answer in time.
    pub(crate) async fn execute(&mut self, command: &str, arguments: Value) -> anyhow::Result<Value> {
        let mut line = json!({"execute": command, "arguments": arguments}).to_string();
        line.push('\n');
        self.stream.write_all(line.as_bytes()).await.context("QEMU takes no command")?;
        let answer = self.until(|answer| answer.get("return").is_some() || answer.get("error").is_some()).await?;
        match answer.get("error") {
            Some(error) => bail!("QEMU refuses {command}: {error}"),
            None => Ok(answer["return"].clone()),
        }
    }

    /// Why QEMU said that the machine ends; asked when it has ended.
    ///
    /// # Errors
    /// When QEMU did not say.
    pub(crate) async fn shutdown_reason(&mut self) -> anyhow::Result<String> {
        let event = self.until(|answer| answer["event"] == "SHUTDOWN").await?;
        event["data"]["reason"].as_str().map(str::to_owned).context("QEMU names no reason")
    }

    /// Waits until QEMU says that a device is gone.
    ///
    /// # Errors
    /// When that takes too long.
    pub(crate) async fn deleted(&mut self, device: &str) -> anyhow::Result<()> {
        self.until(|answer| answer["event"] == "DEVICE_DELETED" && answer["data"]["device"] == device).await.map(drop)
    }
}
