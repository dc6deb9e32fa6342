//! A FHIR R4 server that keeps what it is sent and misbehaves on demand.
//!
//! TLS 1.3, HTTP/1.1 and HTTP/2. Semantics from HL7 FHIR R4 (4.0.1) `http.html`: transaction (all or
//! nothing), batch, update as create, conditional create.

mod answer;
mod bundle;
mod faults;
mod listen;
mod null;
mod records;
mod request;
mod rules;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use vitalgate_domain::GatewayId;
use vitalgate_trust::{ClientCertificate, LocalAuthority, server_config};

pub use faults::{Fault, FaultMix, Poison};
pub use records::{Kept, Sighting, Stated, sightings_in};

use crate::oracle::Oracle;
use faults::Faults;
use listen::Listening;
use records::Records;

/// Path that the server's FHIR base lies under.
pub const BASE_PATH: &str = "/fhir";

/// How the server is set up.
#[derive(Clone)]
pub struct EhrOptions {
    /// Whether `/metadata` promises update as create, and PUT to a new id works.
    pub update_create: bool,
    /// Whether TLS is used; without it the server speaks plain HTTP on loopback.
    pub tls: bool,
    /// Answer `401` to whoever does not bring this token.
    pub bearer_token: Option<String>,
    /// PEM of the authority whose client certificates are demanded.
    pub client_ca_pem: Option<String>,
    /// Only count entries and accept them all: for benchmarks.
    pub null: bool,
    /// Waits this long before it answers a write.
    pub answer_delay: Duration,
    /// Refuses Observations that break the R4 vital-signs rules.
    pub vital_sign_rules: bool,
    /// The port; a free one when `None`.
    pub port: Option<u16>,
    /// More names and addresses that the certificate is for.
    pub names: Vec<String>,
    /// Where the authority is kept, for a server that comes back as the same one; a folder of its own when `None`.
    pub folder: Option<PathBuf>,
}

impl Default for EhrOptions {
    fn default() -> Self {
        Self {
            update_create: true,
            tls: true,
            bearer_token: None,
            client_ca_pem: None,
            null: false,
            answer_delay: Duration::ZERO,
            vital_sign_rules: true,
            port: None,
            names: Vec::new(),
            folder: None,
        }
    }
}

/// Counts since the start.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) requests: AtomicU64,
    pub(crate) observations: AtomicU64,
}

/// What every connection shares.
pub(crate) struct Shared {
    pub(crate) options: EhrOptions,
    pub(crate) base_url: String,
    pub(crate) records: Mutex<Records>,
    pub(crate) faults: Mutex<Faults>,
    pub(crate) counters: Counters,
    pub(crate) null: null::Answers,
}

impl Shared {
    pub(crate) fn records(&self) -> std::sync::MutexGuard<'_, Records> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn faults(&self) -> std::sync::MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The server; it stops when this is dropped.
pub struct Ehr {
    address: SocketAddr,
    shared: Arc<Shared>,
    tls: Option<Arc<ServerConfig>>,
    listening: tokio::sync::Mutex<Option<Listening>>,
    ca_file: PathBuf,
    _folder: tempfile::TempDir,
}

impl Ehr {
    /// Starts to listen on loopback.
    ///
    /// # Errors
    /// When no certificate can be made or the port cannot be listened on.
    pub async fn start(options: EhrOptions) -> anyhow::Result<Self> {
        let own_folder = tempfile::tempdir().context("no temporary folder for the EHR")?;
        let folder = options.folder.clone().unwrap_or_else(|| own_folder.path().to_owned());
        let port = match options.port {
            Some(port) => port,
            None => crate::wait::free_port()?,
        };
        let ca_file = folder.join("ehr-ca.pem");
        let tls = if options.tls { Some(certificates(&folder, &ca_file, &options)?) } else { None };
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let scheme = if options.tls { "https" } else { "http" };
        let shared = Arc::new(Shared {
            base_url: format!("{scheme}://localhost:{port}{BASE_PATH}"),
            options,
            records: Mutex::new(Records::default()),
            faults: Mutex::new(Faults::default()),
            counters: Counters::default(),
            null: null::Answers::default(),
        });
        let ehr = Self { address, shared, tls, listening: tokio::sync::Mutex::new(None), ca_file, _folder: own_folder };
        ehr.up().await?;
        Ok(ehr)
    }

    /// The FHIR base URL. Over TLS the certificate is for `localhost` and `127.0.0.1`.
    #[must_use]
    pub fn base_url(&self) -> &str {
        &self.shared.base_url
    }

    /// The file with the authority that signed the server's certificate.
    #[must_use]
    pub fn ca_file(&self) -> &Path {
        &self.ca_file
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops listening and cuts every connection: connections are refused from now on.
    pub async fn down(&self) {
        if let Some(listening) = self.listening.lock().await.take() {
            listening.stop().await;
        }
    }

    /// Listens again on the same port.
    ///
    /// # Errors
    /// When the port cannot be listened on.
    pub async fn up(&self) -> anyhow::Result<()> {
        let mut listening = self.listening.lock().await;
        if listening.is_none() {
            *listening = Some(Listening::start(self.address, self.tls.clone(), self.shared.clone()).await?);
        }
        Ok(())
    }

    /// Whether it listens.
    pub async fn is_up(&self) -> bool {
        self.listening.lock().await.is_some()
    }

    /// Misbehaves like this until told otherwise.
    pub fn misbehave(&self, fault: Fault) {
        self.shared.faults().stand(fault);
    }

    /// Misbehaves like this for the next `times` deliveries: bundles, and no other request.
    pub fn misbehave_times(&self, fault: Fault, times: u32) {
        self.shared.faults().queue(fault, times);
    }

    /// How many of the faults that [`Self::misbehave_times`] asked for no delivery met yet.
    #[must_use]
    pub fn faults_left(&self) -> u32 {
        self.shared.faults().left()
    }

    /// How many deliveries met this fault, however it was asked for.
    #[must_use]
    pub fn faults_met(&self, fault: Fault) -> u64 {
        self.shared.faults().met(fault)
    }

    /// Misbehaves at random, but the same for the same seed and order of requests.
    pub fn misbehave_at_random(&self, mix: FaultMix) {
        self.shared.faults().mix(mix);
    }

    /// Behaves from now on. A poison and a limit of entries stay.
    pub fn behave(&self) {
        self.shared.faults().clear();
    }

    /// Refuses every Observation that the predicate names, for good, with the text it gives.
    pub fn poison(&self, poison: Option<Poison>) {
        self.shared.faults().poison = poison;
    }

    /// Answers 413 to bundles of more entries than this.
    pub fn limit_entries(&self, entries_max: Option<usize>) {
        self.shared.faults().entries_max = entries_max;
    }

    /// Puts a resource there as if somebody else had, a Patient for example.
    ///
    /// # Errors
    /// When it has no type.
    pub fn plant(&self, resource: serde_json::Value) -> anyhow::Result<String> {
        self.shared.records().plant(resource).context("the planted resource has no resourceType")
    }

    /// Every Observation, in the order of first arrival.
    #[must_use]
    pub fn observations(&self) -> Vec<Kept> {
        self.shared.records().observations_since(0)
    }

    /// The Observations that first arrived after the first `known` ones.
    #[must_use]
    pub fn observations_since(&self, known: usize) -> Vec<Kept> {
        self.shared.records().observations_since(known)
    }

    /// How many distinct Observations there are. In null mode: how many were sent.
    #[must_use]
    pub fn observation_count(&self) -> u64 {
        if self.shared.options.null {
            self.shared.counters.observations.load(Ordering::Relaxed)
        } else {
            self.shared.records().observation_count() as u64
        }
    }

    /// Requests that reached it.
    #[must_use]
    pub fn request_count(&self) -> u64 {
        self.shared.counters.requests.load(Ordering::Relaxed)
    }

    /// Every single reading that the Observations state: their own value, or one for each component.
    #[must_use]
    pub fn sightings(&self) -> Vec<Sighting> {
        self.shared.records().sightings()
    }

    /// How many of the oracle's readings, those of polled devices left aside, are not there yet:
    /// cheap enough to be asked again and again.
    #[must_use]
    pub fn missing_of(&self, oracle: &Oracle) -> u64 {
        let records = self.shared.records();
        oracle.identities().filter(|identity| !records.has_reading(identity)).count() as u64
    }

    /// The ids of Observations that were later written with other content.
    #[must_use]
    pub fn altered(&self) -> Vec<Arc<str>> {
        self.shared.records().altered()
    }

    /// Identifiers that more than one Observation carries.
    #[must_use]
    pub fn duplicated_identifiers(&self) -> Vec<String> {
        self.shared.records().duplicated_identifiers()
    }
}

fn certificates(folder: &Path, ca_file: &Path, options: &EhrOptions) -> anyhow::Result<Arc<ServerConfig>> {
    let authority =
        LocalAuthority::open_or_create(&folder.join("authority"), &GatewayId::new("demo-ehr")?).context("no authority for the EHR")?;
    std::fs::write(ca_file, authority.ca_certificate_pem()).context("the EHR's authority cannot be written")?;
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    names.extend(options.names.iter().cloned());
    let server = authority.issue_server(&names).context("no certificate for the EHR")?;
    let key: PrivateKeyDer<'static> = server.key;
    let demanded = match options.client_ca_pem {
        Some(_) => ClientCertificate::Required,
        None => ClientCertificate::Optional,
    };
    // Without an authority for clients nobody is asked for a certificate that matters.
    let roots = options.client_ca_pem.as_deref();
    let mut config = (*server_config(server.chain, key, roots, demanded).context("no TLS for the EHR")?).clone();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
