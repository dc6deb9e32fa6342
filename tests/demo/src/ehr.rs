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
            Self::Sekmet(sekmet) => sekmet.child.lock().await.is_some(),
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
            std::fs::File::options().create(true).append(true).open(self.folder.join("sekmet.log")).context("no log file for sekmet")?;
        let started = Command::new(&self.program)
            .args(["serve", "--config", "settings.yaml"])
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("no log file for sekmet")?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .context("sekmet cannot be started")?;
        *child = Some(started);
        drop(child);
        wait_until("sekmet to answer", SEKMET_WITHIN, async || get_json(self.address, "/fhir/metadata").await.ok()).await?;
        Ok(())
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
