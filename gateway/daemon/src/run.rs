//! The composition root: opens the store, starts the loops, watches them, drains to disk.

mod departed;
mod destinations;
mod drivers;
pub(crate) mod keys;
mod listen;
mod profiles;
mod supervise;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context as _;
use prometheus_client::registry::Registry;
use tokio::sync::{mpsc, oneshot, watch};
use vitalgate_config::{Config, Destination, DestinationKind, DeviceSource, Fhir, LogFormat, WriteMode};
use vitalgate_console::{ReadModel, bind_admin, serve_admin, serve_loopback};
use vitalgate_domain::{Associations, Change, DestinationId, Sequence};
use vitalgate_intake::Intake;
use vitalgate_modbus::ModbusStats;
use vitalgate_mqtt::Presence;
use vitalgate_pipeline::{Admission, AdmissionPolicy, Alarm, AlarmKind, Delivery, DeliveryPolicy};
use vitalgate_store::keyed::KeyedOptions;
use vitalgate_store::{Journal, Keyed, Opened, Reader, RealFiles, StoreOptions};
use vitalgate_transport::{FhirClient, FhirEndpoint, KeepConditional, TransportMetrics, WritePolicy};
use vitalgate_trust::{ClientProfile, client_config, credential_file, plain_client_config};

pub(crate) use profiles::profiles;

use crate::beacon::Beacon;
use crate::clock::{Clock, TrustFile, monotonic_ms};
use crate::commit::{COMMANDS_MAX, Command, CommitLoop, Kept, LetterLog};
use crate::delivery::DeliveryLoop;
use crate::devices::Devices;
use crate::growth::Growth;
use crate::metrics::Facts;
use crate::read_model::{DeviceFacts, Model};
use crate::replay::Replay;
use crate::rotation::Rotation;
use crate::shared::{Settlement, Shared};
use crate::{logging, notify};

/// How long the loops may take to drain to disk after a stop was asked for.
const DRAIN_DEADLINE: Duration = Duration::from_secs(20);

/// One mebibyte in bytes.
const MIB: u64 = 1024 * 1024;
/// One day in milliseconds.
const DAY_MS: u64 = 86_400_000;

/// The folder of the store.
pub(crate) fn store_folder(gateway: &vitalgate_config::Gateway) -> PathBuf {
    gateway.state_dir.join("store")
}

/// The folder of the local certificate authority.
pub(crate) fn authority_folder(config: &Config) -> PathBuf {
    config.gateway.state_dir.join("trust")
}

/// The list of admitted devices.
pub(crate) fn registry_file(gateway: &vitalgate_config::Gateway) -> PathBuf {
    gateway.state_dir.join("trust").join("devices.json")
}

/// Runs until a stop is asked for or a loop fails.
pub(crate) fn run(config: &Config) -> anyhow::Result<ExitCode> {
    logging::start(config.log.format == LogFormat::Json, config.log.level.as_str());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("gateway").build()?;
    let outcome = runtime.block_on(Gateway::start(config)?.serve());
    // A loop that hangs must not keep the process: the supervisor starts it again.
    runtime.shutdown_background();
    outcome.map(|()| ExitCode::SUCCESS)
}

struct Gateway<'a> {
    config: &'a Config,
    clock: Clock,
    devices: Arc<Devices>,
    opened: Opened,
    /// The destinations, where the journal could not be told of them.
    unwritten: Option<Change>,
    shared: Arc<Shared>,
}

impl<'a> Gateway<'a> {
    fn start(config: &'a Config) -> anyhow::Result<Self> {
        for warning in config.warnings() {
            tracing::warn!("{warning}");
        }
        let gateway = &config.gateway;
        let clock = Clock::start(TrustFile { path: gateway.clock_trust_file.clone(), promised: gateway.clock_trust_promised })?;
        let devices = Arc::new(devices(config)?);
        make_private_folder(&config.gateway.state_dir)?;
        make_private_folder(&authority_folder(config))?;
        departed::revoke(config)?;
        let keys = keys::for_gateway(config)?;
        let keyed = KeyedOptions { probe: Some(probe_command()?), ..KeyedOptions::new(store_folder(gateway)) };
        let options = store_options(gateway, &config.store);
        notify::opening(vitalgate_store::open_patience(&options, &keyed));
        let mut opened = vitalgate_store::open_with(options, keyed, keys, Arc::new(RealFiles)).context("the store cannot be opened")?;
        let ids = config.devices.iter().map(|device| device.id.clone());
        let unwritten = destinations::announce(config, &mut opened.journal, &opened.reader)?;
        let shared = Arc::new(Shared::new(ids, opened.journal.state().settled.keys().cloned()));
        destinations::tell_of_departed(config, &shared);
        shared.add_damage(opened.report.findings.iter().filter(|finding| finding.is_damage()).map(ToString::to_string));
        Ok(Self { config, clock, devices, opened, unwritten, shared })
    }

    async fn serve(self) -> anyhow::Result<()> {
        let (intake, queue) = vitalgate_intake::intake();
        let (stop, shutdown) = watch::channel(false);
        let (command, commands) = mpsc::channel(COMMANDS_MAX);
        let Opened { journal, reader, keyed, state, report } = self.opened;
        let conditional = journal.state().conditional.clone();
        self.shared.set_settlement(Settlement::from(&journal));

        let (committed, committed_seen) = watch::channel(reader.committed());
        let commit = CommitLoop {
            queue,
            commands,
            journal,
            admission: Admission::new(
                self.config.gateway.name.clone(),
                self.config.gateway.device_namespace.clone(),
                AdmissionPolicy::default(),
                state.seen,
            ),
            associations: Associations::new(self.config.associations()),
            clock: self.clock.clone(),
            shared: Arc::clone(&self.shared),
            committed,
            replay: Replay {
                reader: reader.clone(),
                devices: Arc::clone(&self.devices),
                namespace: self.config.gateway.device_namespace.clone(),
            },
            told: Box::new(Arc::clone(&keyed)),
            carry_at_ms: 0,
            carry_seen: None,
            not_carried: None,
            undated: crate::undated::Undated::of_journal(&reader),
            rotation: Rotation::new(monotonic_ms()),
            kept: Kept::new(self.unwritten),
            letters: LetterLog::default(),
            beacon: Beacon::new("commit"),
        };
        let loops = Loops {
            config: self.config,
            clock: self.clock,
            shared: self.shared,
            devices: self.devices,
            reader,
            keyed,
            command,
            conditional,
            intake,
            stop,
            shutdown,
        };
        let mut registry = Registry::with_prefix("vitalgate");
        let mut beacons = loops.start_deliveries(&committed_seen, &mut registry)?;
        beacons.push(commit.beacon.clone());
        let commit_ended = start_commit(commit)?;
        let drivers = drivers::start(loops.config, &loops.clock, &loops.devices, &loops.intake, &mut registry, &loops.shutdown).await?;
        beacons.extend(drivers.beacons);
        let growth = Arc::new(Growth::new(monotonic_ms(), loops.reader.committed().0));
        let presence = drivers.listener.as_ref().map(|listener| listener.presence.clone());
        loops.listen(registry, drivers.modbus, presence, Arc::clone(&growth)).await?;
        let (keyed, clock) = (Arc::clone(&loops.keyed), loops.clock.clone());
        let damage = supervise::Damage::new(loops.reader.clone(), Arc::clone(&loops.shared), report.findings);
        let watch = supervise::Watch { beacons, keyed, clock, listener: drivers.listener, growth, damage };
        loops.until_stopped(watch, commit_ended).await
    }
}

/// Tells how the commit loop ended.
type CommitEnded = oneshot::Receiver<anyhow::Result<Journal>>;

/// The commit loop blocks in the disk's flush: it has a thread of its own.
fn start_commit(commit: CommitLoop) -> anyhow::Result<CommitEnded> {
    let runtime = tokio::runtime::Handle::current();
    let (ended, commit_ended) = oneshot::channel();
    let run = move || {
        let _main_left = ended.send(runtime.block_on(commit.run()));
    };
    std::thread::Builder::new().name("commit".to_owned()).spawn(run).context("no thread for the commit loop")?;
    Ok(commit_ended)
}

/// What the loops share.
struct Loops<'a> {
    config: &'a Config,
    clock: Clock,
    shared: Arc<Shared>,
    devices: Arc<Devices>,
    reader: Reader,
    keyed: Arc<Keyed>,
    command: mpsc::Sender<Command>,
    /// Destinations that were written to by conditional create before.
    conditional: BTreeSet<DestinationId>,
    /// The commit loop runs on without a single driver: what waits is still delivered.
    intake: Intake,
    stop: watch::Sender<bool>,
    shutdown: watch::Receiver<bool>,
}

impl Loops<'_> {
    fn start_deliveries(&self, committed: &watch::Receiver<Sequence>, registry: &mut Registry) -> anyhow::Result<Vec<Beacon>> {
        registry.register_collector(Box::new(Facts { shared: Arc::clone(&self.shared), reader: self.reader.clone() }));
        let metrics = TransportMetrics::default();
        metrics.register(registry);
        let settled = self.shared.settlement().settled;
        let mut beacons = Vec::new();
        for destination in &self.config.destinations {
            let fhir = fhir(destination)?;
            let client = match self.fhir_client(destination, fhir, &metrics) {
                Ok(client) => Arc::new(client),
                Err(error) => {
                    self.stay_out(&destination.id, &error);
                    continue;
                }
            };
            let settled = settled.get(&destination.id).cloned().unwrap_or_default();
            let machine = Delivery::new(destination.id.clone(), delivery_policy(fhir), settled, self.reader.committed(), fastrand::u64(..));
            let beacon = Beacon::new("delivery");
            beacons.push(beacon.clone());
            let delivery = DeliveryLoop {
                destination: destination.id.clone(),
                machine,
                client,
                reader: self.reader.clone(),
                committed: committed.clone(),
                commands: self.command.clone(),
                clock: self.clock.clone(),
                shared: Arc::clone(&self.shared),
                beacon,
                shutdown: self.shutdown.clone(),
            };
            // Its thread ends by itself when the gateway stops; nobody waits for a network.
            let _thread = delivery.spawn()?;
        }
        Ok(beacons)
    }

    /// A destination that cannot be set up stops neither the intake nor the others: what it is to have is kept, and the next start
    /// tries again.
    fn stay_out(&self, destination: &DestinationId, error: &anyhow::Error) {
        let detail = format!("not started, correct it and restart the gateway: {error:#}");
        tracing::error!(%destination, "{detail}");
        if let Some(facts) = self.shared.destinations.get(destination) {
            facts.raise(&Alarm { kind: AlarmKind::Paused, detail: detail.into() });
        }
    }

    fn fhir_client(&self, destination: &Destination, fhir: &Fhir, metrics: &TransportMetrics) -> anyhow::Result<FhirClient> {
        // Nothing has been committed since the start: whatever an earlier process sent is not after this.
        let conditional = self.conditional.contains(&destination.id).then(|| self.reader.committed());
        if conditional.is_some() && fhir.write == WriteMode::Put {
            tracing::warn!(
                destination = %destination.id,
                "write = \"put\", and readings were written there by conditional create before: those that it has and did not confirm \
                 are there twice then"
            );
        }
        let client = fhir_client(self.config, destination, fhir, conditional)?.counted_by(metrics.of(destination.id.as_str()));
        Ok(client.keeping(keep_conditional(destination.id.clone(), self.command.clone())))
    }

    async fn listen(&self, registry: Registry, modbus: ModbusStats, presence: Option<Presence>, growth: Arc<Growth>) -> anyhow::Result<()> {
        let model: Arc<dyn ReadModel> = Arc::new(Model {
            gateway: self.config.gateway.name.clone(),
            warnings: self.config.warnings(),
            devices: device_facts(self.config),
            shared: Arc::clone(&self.shared),
            modbus,
            reader: self.reader.clone(),
            keyed: Arc::clone(&self.keyed),
            growth,
            presence,
            store_folder: store_folder(&self.config.gateway),
            commands: self.command.clone(),
            registry,
            clock: self.clock.clone(),
            floor_bytes: self.config.store.free_space_floor_mib * MIB,
        });
        let listener = listen::bind(self.config.console.listen).await?;
        let socket = bind_admin(&self.config.console.admin_socket)?;
        tokio::spawn(report(serve_loopback(listener, Arc::clone(&model), self.shutdown.clone())));
        tokio::spawn(report(serve_admin(socket, model, self.shutdown.clone())));
        Ok(())
    }

    async fn until_stopped(self, mut watch: supervise::Watch, mut commit_ended: CommitEnded) -> anyhow::Result<()> {
        self.shared.ready.store(true, Ordering::Relaxed);
        tracing::info!(gateway = %self.config.gateway.name, committed = self.reader.committed().0, "ready");
        notify::ready();
        let outcome = tokio::select! {
            result = &mut commit_ended => {
                result.context("the commit loop vanished")??;
                anyhow::bail!("the commit loop ended before a stop was asked for");
            }
            result = watch.until_stop() => result,
        };
        self.shared.stopping.store(true, Ordering::Relaxed);
        notify::stopping();
        tracing::info!("stopping: draining to disk");
        self.stop.send_replace(true);
        drop(self.intake);
        let drained = drained(commit_ended).await;
        let status = tokio::task::block_in_place(|| self.keyed.shutdown(DRAIN_DEADLINE));
        tracing::info!(buffer = ?status, "stopped");
        outcome.and(drained)
    }
}

/// Waits until what the drivers had taken is written. Whatever was acknowledged is on disk in any case.
async fn drained(commit_ended: CommitEnded) -> anyhow::Result<()> {
    tokio::time::timeout(DRAIN_DEADLINE, commit_ended)
        .await
        .with_context(|| format!("the commit loop did not end within {} s of the stop", DRAIN_DEADLINE.as_secs()))?
        .context("the commit loop vanished")?
        .map(drop)
}

fn devices(config: &Config) -> anyhow::Result<Devices> {
    let (profiles, faults) = profiles(config.profiles.dir.as_deref());
    if !faults.is_empty() {
        anyhow::bail!(faults.join("\n"));
    }
    let pairs: anyhow::Result<Vec<_>> = config
        .devices
        .iter()
        .map(|device| {
            let profile =
                profiles.get(&device.profile).with_context(|| format!("device {}: no profile {:?}", device.id, device.profile))?;
            Ok((device.id.clone(), profile))
        })
        .collect();
    Ok(Devices::new(pairs?))
}

fn device_facts(config: &Config) -> Vec<DeviceFacts> {
    let facts = config.devices.iter().map(|device| DeviceFacts {
        id: device.id.clone(),
        profile: device.profile.clone(),
        polled: matches!(device.source, DeviceSource::Modbus(_)),
    });
    facts.collect()
}

/// This program again, for a first look at the buffer that a damaged file cannot turn against us.
fn probe_command() -> anyhow::Result<Vec<OsString>> {
    let program = std::env::current_exe().context("this program's own file is not known")?;
    Ok(vec![program.into(), "store".into(), "probe".into()])
}

/// How the store is opened.
pub(crate) fn store_options(gateway: &vitalgate_config::Gateway, store: &vitalgate_config::Store) -> StoreOptions {
    StoreOptions {
        free_space_floor_bytes: store.free_space_floor_mib * MIB,
        retention_ms: store.retention_days * DAY_MS,
        ..StoreOptions::new(store_folder(gateway))
    }
}

fn fhir(destination: &Destination) -> anyhow::Result<&Fhir> {
    match &destination.kind {
        DestinationKind::Fhir(fhir) => Ok(fhir),
        _ => anyhow::bail!("destination {}: this version delivers to FHIR servers only", destination.id),
    }
}

fn delivery_policy(fhir: &Fhir) -> DeliveryPolicy {
    let number = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
    DeliveryPolicy {
        batch_items_max: number(fhir.batch_items_max),
        batch_bytes_max: number(fhir.batch_bytes_max),
        requests_in_flight_max: number(fhir.requests_in_flight_max),
        join_window_ms: fhir.join_window_ms,
    }
}

fn fhir_client(config: &Config, destination: &Destination, fhir: &Fhir, conditional: Option<Sequence>) -> anyhow::Result<FhirClient> {
    let credential = fhir.client_key_credential.as_deref().map(credential_file).transpose();
    let key_file = credential.with_context(|| format!("destination {}: client_key_credential", destination.id))?;
    let profile = ClientProfile {
        ca_file: fhir.ca_file.clone(),
        certificate_file: fhir.client_certificate_file.clone(),
        key_file: key_file.or_else(|| fhir.client_key_file.clone()),
    };
    let tls = if fhir.url.starts_with("http://") { plain_client_config() } else { client_config(&profile) };
    let tls = tls.with_context(|| format!("destination {}: TLS", destination.id))?;
    let endpoint = FhirEndpoint {
        request_timeout_ms: fhir.request_timeout_ms,
        bearer_token_file: fhir.bearer_token_file.clone(),
        write: write_policy(fhir.write),
        written_conditionally: conditional,
        requests_in_flight_max: usize::try_from(fhir.requests_in_flight_max).unwrap_or(usize::MAX),
        // The configuration lets plain HTTP pass only with a reason.
        allow_plain_beyond_loopback: fhir.plain_reason.is_some(),
        ..FhirEndpoint::new(&fhir.url, config.gateway.name.clone(), config.gateway.device_namespace.clone())
    };
    FhirClient::new(endpoint, tls).with_context(|| format!("destination {}", destination.id))
}

/// Says that it is kept only once the journal has it.
fn keep_conditional(destination: DestinationId, commands: mpsc::Sender<Command>) -> KeepConditional {
    Box::new(move || {
        let (destination, commands) = (destination.clone(), commands.clone());
        Box::pin(async move {
            let (asker, kept) = oneshot::channel();
            commands.send(Command::WrittenConditionally(destination, asker)).await.is_ok() && kept.await.unwrap_or(false)
        })
    })
}

fn write_policy(write: WriteMode) -> WritePolicy {
    match write {
        WriteMode::Auto => WritePolicy::Auto,
        WriteMode::Put => WritePolicy::Put,
        WriteMode::Conditional => WritePolicy::Conditional,
    }
}

async fn report(serving: impl Future<Output = Result<(), vitalgate_console::ServeError>>) {
    if let Err(error) = serving.await {
        tracing::error!(error = %format!("{:#}", anyhow::Error::from(error)), "a local listener ended");
    }
}

fn make_private_folder(folder: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).with_context(|| format!("cannot make {}", folder.display()))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Promise 1: readings go to a server without TLS from a machine whose list of authorities is empty.
    #[test]
    fn a_destination_without_tls_needs_no_authorities() {
        const NAME: &str = "run::tests::a_destination_without_tls_needs_no_authorities";
        const ALONE: &str = "VITALGATE_TEST_ALONE";
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vitalgate.toml");
        if std::env::var_os(ALONE).is_none() {
            // Where the list is comes from the environment, which can be another one only in a process of its own.
            let empty = folder.path().join("empty.pem");
            std::fs::write(&empty, "").unwrap();
            let mut alone = Command::new(std::env::current_exe().unwrap());
            alone.args(["--exact", NAME]).env(ALONE, "").env("SSL_CERT_FILE", &empty).env_remove("SSL_CERT_DIR");
            let output = alone.output().unwrap();
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && said.contains("1 passed"), "{said}");
            return;
        }
        let client = |url: &str| {
            let gateway = "[gateway]\nname = \"gateway-01\"\nstate_dir = \"/var/lib/vitalgate\"\n";
            std::fs::write(&path, format!("{gateway}[[destination]]\nid = \"ehr\"\nkind = \"fhir\"\nurl = {url:?}\n")).unwrap();
            let config = Config::load(&path).unwrap_or_else(|errors| panic!("{errors:?}"));
            let destination = &config.destinations[0];
            fhir_client(&config, destination, fhir(destination).unwrap(), None).map(|_| ())
        };
        assert!(client("https://127.0.0.1/fhir").is_err(), "nobody is trusted");
        client("http://127.0.0.1/fhir").unwrap();
    }
}
