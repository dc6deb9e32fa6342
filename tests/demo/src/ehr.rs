//! The EHR of the demonstration: the built-in one over TLS, or sekmet-fhir as a process.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use tokio::process::{Child, Command};
use vitalgate_test_support::http::{get_json, put_json};
use vitalgate_test_support::{Ehr, EhrOptions, free_port, wait_until};

/// Longest wait for sekmet to answer after its start.
const SEKMET_WITHIN: Duration = Duration::from_secs(60);
/// What it says goes here.
const SEKMET_LOG: &str = "sekmet.log";
/// Lines of it that are shown where it does not come up.
const LOG_LINES: usize = 20;
/// Observations asked for in one page of a search.
const PAGE: usize = 200;

/// One Observation as it lies in the EHR.
pub(crate) struct Arrived {
    pub(crate) id: Arc<str>,
    pub(crate) observation: Value,
}

/// The EHR.
pub(crate) enum DemoEhr {
    BuiltIn(Ehr),
    Sekmet(Sekmet),
}

/// A sekmet process.
pub(crate) struct Sekmet {
    program: PathBuf,
    folder: PathBuf,
    address: SocketAddr,
    child: tokio::sync::Mutex<Option<Child>>,
}

impl DemoEhr {
    pub(crate) async fn built_in() -> anyhow::Result<Self> {
        Ok(Self::BuiltIn(Ehr::start(EhrOptions::default()).await?))
    }

    pub(crate) async fn sekmet(program: &Path, folder: &Path) -> anyhow::Result<Self> {
        if !program.is_file() {
            bail!("{} is not there; install it with: tools/setup sekmet", program.display());
        }
        let program = program.canonicalize().context("the path of sekmet")?;
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        // JSON is YAML.
        let settings = json!({
            "base_url": format!("http://{address}/fhir"), "host": "127.0.0.1", "port": address.port(), "data_dir": folder.join("sekmet"),
            "log_inbound": false, "simulator": {"enabled": false},
        });
        std::fs::create_dir_all(folder.join("sekmet")).context("no folder for sekmet")?;
        std::fs::write(folder.join("settings.yaml"), settings.to_string()).context("no settings for sekmet")?;
        let sekmet = Sekmet { program, folder: folder.to_owned(), address, child: tokio::sync::Mutex::new(None) };
        sekmet.up().await?;
        Ok(Self::Sekmet(sekmet))
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::BuiltIn(_) => "built-in EHR",
            Self::Sekmet(_) => "sekmet-fhir",
        }
    }

    pub(crate) fn url(&self) -> String {
        match self {
            Self::BuiltIn(ehr) => ehr.base_url().to_owned(),
            Self::Sekmet(sekmet) => format!("http://{}/fhir", sekmet.address),
        }
    }

    pub(crate) fn ca_file(&self) -> Option<PathBuf> {
        match self {
            Self::BuiltIn(ehr) => Some(ehr.ca_file().to_owned()),
            Self::Sekmet(_) => None,
        }
    }

    pub(crate) async fn add_patient(&self, id: &str) -> anyhow::Result<()> {
        let patient = json!({"resourceType": "Patient", "id": id, "active": true,
            "identifier": [{"system": "urn:vitalgate:demo:patients", "value": id}]});
        match self {
            Self::BuiltIn(ehr) => ehr.plant(patient).map(drop),
            Self::Sekmet(sekmet) => put_json(sekmet.address, &format!("/fhir/Patient/{id}"), &patient).await.map(drop),
        }
    }

    pub(crate) async fn down(&self) -> anyhow::Result<()> {
        match self {
            Self::BuiltIn(ehr) => ehr.down().await,
            Self::Sekmet(sekmet) => sekmet.down().await?,
        }
        Ok(())
    }

    pub(crate) async fn up(&self) -> anyhow::Result<()> {
        match self {
            Self::BuiltIn(ehr) => ehr.up().await,
            Self::Sekmet(sekmet) => sekmet.up().await,
        }
    }

    pub(crate) async fn is_up(&self) -> bool {
        match self {
            Self::BuiltIn(ehr) => ehr.is_up().await,
            // Who starts it holds it.
            Self::Sekmet(sekmet) => sekmet.child.try_lock().is_ok_and(|child| child.is_some()),
        }
    }

    /// The Observations after the first `known` ones; all of them for 0.
    pub(crate) async fn since(&self, known: usize) -> anyhow::Result<Vec<Arrived>> {
        match self {
            Self::BuiltIn(ehr) => {
                let kept = ehr.observations_since(known);
                Ok(kept.into_iter().map(|kept| Arrived { id: kept.id.clone(), observation: kept.json() }).collect())
            }
            Self::Sekmet(sekmet) => sekmet.search_from(known).await,
        }
    }
}

impl Sekmet {
    async fn up(&self) -> anyhow::Result<()> {
        let mut child = self.child.lock().await;
        if child.is_some() {
            return Ok(());
        }
        let log =
            std::fs::File::options().create(true).append(true).open(self.folder.join(SEKMET_LOG)).context("no log file for sekmet")?;
        let mut started = Command::new(&self.program)
            .args(["serve", "--config", "settings.yaml"])
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("no log file for sekmet")?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .context("sekmet cannot be started")?;
        let answers = wait_until("sekmet to answer", SEKMET_WITHIN, async || get_json(self.address, "/fhir/metadata").await.ok());
        let answered = tokio::select! {
            answered = answers => answered.map(drop),
            ended = started.wait() => Err(anyhow::anyhow!("sekmet ended ({})", ended.context("sekmet cannot be waited for")?)),
        };
        answered.with_context(|| format!("the end of its log:\n{}", self.log_end()))?;
        *child = Some(started);
        Ok(())
    }

    fn log_end(&self) -> String {
        let text =
            std::fs::read(self.folder.join(SEKMET_LOG)).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines.get(lines.len().saturating_sub(LOG_LINES)..).unwrap_or_default().join("\n")
    }

    async fn down(&self) -> anyhow::Result<()> {
        if let Some(mut child) = self.child.lock().await.take() {
            child.kill().await.context("sekmet could not be stopped")?;
        }
        Ok(())
    }

    async fn search_from(&self, known: usize) -> anyhow::Result<Vec<Arrived>> {
        let mut arrived = Vec::new();
        loop {
            let offset = known + arrived.len();
            let path = format!("/fhir/Observation?_sort=_lastUpdated&_count={PAGE}&_offset={offset}");
            let page = get_json(self.address, &path).await?;
            let entries = page["entry"].as_array().map(Vec::as_slice).unwrap_or_default();
            let before = arrived.len();
            for entry in entries {
                let observation = entry["resource"].clone();
                if let Some(id) = observation["id"].as_str() {
                    arrived.push(Arrived { id: Arc::from(id), observation });
                }
            }
            if arrived.len() - before < PAGE {
                return Ok(arrived);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that ends at once is told at once, with what it said: its log goes with the demonstration.
    #[tokio::test]
    async fn a_server_that_ends_is_told_with_its_last_words() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let program = folder.path().join("broken");
        std::fs::write(&program, "#!/bin/sh\necho no module named sekmet >&2\nexit 3\n")?;
        std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        let started = tokio::time::timeout(SEKMET_WITHIN / 2, DemoEhr::sekmet(&program, folder.path())).await?;
        let error = format!("{:#}", started.err().context("it came up")?);
        assert!(error.contains("no module named sekmet") && error.contains("sekmet ended (exit status: 3)"), "{error}");
        Ok(())
    }
}
