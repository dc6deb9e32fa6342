//! Starts the drivers: the MQTT endpoint and one poller a Modbus bus.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context as _;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use vitalgate_config::{Config, DeviceSource, Mqtt};
use vitalgate_domain::Received;
use vitalgate_intake::Intake;
use vitalgate_modbus::{BusConfig, BusDevice, ModbusStats, run_bus};
use vitalgate_mqtt::{Endpoint, EndpointConfig, MqttStats, Presence};
use vitalgate_trust::{ClientCertificate, DeviceRegistry, device_identity, serving_config};

use super::listen::bind;
use super::{authority_folder, registry_file};
use crate::beacon::Beacon;
use crate::clock::Clock;
use crate::devices::{Admitted, Devices};
use crate::renewal::Renewal;

/// Bytes of a usual message, for the byte rate that belongs to a message rate.
const USUAL_PACKET_BYTES: u32 = 1_024;

type Now = Arc<dyn Fn() -> Received + Send + Sync>;

/// What the rest of the daemon has to do with the drivers.
pub(super) struct Drivers {
    /// The listener for devices; `None` where nobody connects.
    pub(super) listener: Option<Listener>,
    /// The pollers' states.
    pub(super) modbus: ModbusStats,
    /// The pollers' signs of life.
    pub(super) beacons: Vec<Beacon>,
}

/// What is kept up beside the listener for devices.
pub(super) struct Listener {
    /// Who is let in.
    pub(super) admitted: Arc<Admitted>,
    /// Its certificate.
    pub(super) renewal: Renewal,
    /// Who is connected.
    pub(super) presence: Presence,
}

/// Starts every configured driver. They end when `shutdown` turns true.
pub(super) async fn start(
    config: &Config,
    clock: &Clock,
    devices: &Arc<Devices>,
    intake: &Intake,
    registry: &mut Registry,
    shutdown: &watch::Receiver<bool>,
) -> anyhow::Result<Drivers> {
    let clock = clock.clone();
    let now: Now = Arc::new(move || clock.now());
    let (modbus, beacons) = start_buses(config, devices, intake, &now, registry, shutdown)?;
    let listener = match &config.mqtt {
        Some(mqtt) => Some(start_endpoint(config, mqtt, devices, intake, now, registry, shutdown).await?),
        None => None,
    };
    Ok(Drivers { listener, modbus, beacons })
}

fn start_buses(
    config: &Config,
    devices: &Devices,
    intake: &Intake,
    now: &Now,
    registry: &mut Registry,
    shutdown: &watch::Receiver<bool>,
) -> anyhow::Result<(ModbusStats, Vec<Beacon>)> {
    let stats = ModbusStats::default();
    stats.register(registry);
    let mut buses: BTreeMap<String, BusConfig> = BTreeMap::new();
    for device in &config.devices {
        let DeviceSource::Modbus(modbus) = &device.source else { continue };
        let profile = devices.profile(&device.id).with_context(|| format!("device {}: no profile", device.id))?;
        let bus = buses
            .entry(modbus.address.clone())
            .or_insert_with(|| BusConfig { response_timeout_ms: 0, ..BusConfig::new(modbus.address.clone(), Vec::new()) });
        // One wire, one patience: the longest that any of its devices was given.
        bus.response_timeout_ms = bus.response_timeout_ms.max(modbus.response_timeout_ms);
        bus.devices.push(BusDevice {
            device: device.id.clone(),
            unit_id: modbus.unit,
            profile: Arc::clone(profile),
            poll_interval_ms: modbus.poll_interval_ms,
        });
    }
    let mut beacons = Vec::new();
    for bus in buses.into_values() {
        let beacon = Beacon::new("modbus");
        beacons.push(beacon.clone());
        let moved = Arc::new(move || beacon.moved());
        tokio::spawn(run_bus(bus, intake.clone(), Arc::clone(now), stats.clone(), moved, shutdown.clone()));
    }
    Ok((stats, beacons))
}

async fn start_endpoint(
    config: &Config,
    mqtt: &Mqtt,
    devices: &Arc<Devices>,
    intake: &Intake,
    now: Now,
    registry: &mut Registry,
    shutdown: &watch::Receiver<bool>,
) -> anyhow::Result<Listener> {
    let renewal = Renewal::start(&authority_folder(config), &config.gateway.name, &mqtt.server_names, &now())?;
    let required = match mqtt.client_certificate {
        vitalgate_config::ClientCertificate::Required => ClientCertificate::Required,
        vitalgate_config::ClientCertificate::Optional => ClientCertificate::Optional,
    };
    let tls = serving_config(renewal.served(), Some(renewal.authority_pem()), required).context("TLS for devices")?;
    let registered = DeviceRegistry::open(&registry_file(&config.gateway)).context("the list of devices cannot be opened")?;
    let admitted = Arc::new(Admitted::new(registered, Arc::clone(devices)));
    let stats = MqttStats::default();
    stats.register(registry);
    let decoder = Arc::clone(devices);
    let endpoint = Arc::new(Endpoint::new(
        endpoint_config(mqtt),
        intake.clone(),
        Arc::new(move |device, sample| decoder.decode(device, sample)),
        Arc::<Admitted>::clone(&admitted),
        now,
        stats,
    ));
    let listener = bind(mqtt.listen).await?;
    tracing::info!(address = %mqtt.listen, "devices may connect over TLS");
    tokio::spawn(Arc::clone(&endpoint).serve_tls(listener, tls, Arc::new(|der: &[u8]| device_identity(der)), shutdown.clone()));
    if let Some(address) = mqtt.plain_listen {
        let listener = bind(address).await?;
        tracing::info!(%address, "devices may connect without TLS");
        tokio::spawn(Arc::clone(&endpoint).serve_plain(listener, shutdown.clone()));
    }
    // Only the listeners keep the endpoint: with the last of them its way into the queue ends, and the commit loop knows that it is done.
    Ok(Listener { admitted, renewal, presence: endpoint.presence() })
}

fn endpoint_config(mqtt: &Mqtt) -> EndpointConfig {
    let defaults = EndpointConfig::default();
    let packets_per_second_max = u32::try_from(mqtt.messages_per_second_max).unwrap_or(u32::MAX);
    EndpointConfig {
        connections_max: usize::try_from(mqtt.connections_max).unwrap_or(usize::MAX),
        packets_per_second_max,
        // Whoever may send more messages may send as many bytes as usual ones have.
        bytes_per_second_max: defaults.bytes_per_second_max.max(packets_per_second_max.saturating_mul(USUAL_PACKET_BYTES)),
        packet_bytes_max: usize::try_from(mqtt.packet_bytes_max).unwrap_or(usize::MAX),
        ..defaults
    }
}
