//! Acknowledged messages a second: every one of ours is on disk, mosquitto's are in memory.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use vitalgate_domain::DeviceId;
use vitalgate_simulator::load::{load_devices, run_name};
use vitalgate_simulator::{Load, LoadPayload, LoadReport, Transport};
use vitalgate_test_support::gateway::{add_device, write_config};
use vitalgate_test_support::{ConfigText, DeviceLine, GatewayProcess, wait_until};

use crate::mosquitto;
use crate::table::Table;

/// Connections.
pub(crate) const CLIENTS: usize = 50;
/// Bytes of a payload.
const PAYLOAD_BYTES: usize = 200;
/// Length of one run.
const RUN: Duration = Duration::from_secs(4);
/// Not counted at its start.
const WARM_UP: Duration = Duration::from_secs(1);
/// Longest time the buffer may take to come to where the journal is.
const FOLLOW_DEADLINE: Duration = Duration::from_secs(120);
/// Pairs of runs; the median ratio counts.
const PAIRS: usize = 3;

/// One way to connect, on both sides.
struct Way<'a> {
    name: &'a str,
    in_flight: u16,
    ours: (SocketAddr, Vec<Transport>),
    theirs: (SocketAddr, Transport),
}

/// The configuration of a gateway for load.
pub(crate) fn config(folder: &Path, clients: usize) -> anyhow::Result<ConfigText> {
    let mut config = ConfigText::new(folder)?;
    config.plain_port = Some(vitalgate_test_support::free_port()?);
    config.more.push(("mqtt".to_owned(), "messages_per_second_max = 100000".to_owned()));
    for index in 0..clients {
        config.devices.push(DeviceLine::mqtt(DeviceId::new(&format!("load-{index:04}"))?, &format!("Patient/p{index}")));
    }
    Ok(config)
}

/// All rows of the ingest part.
pub(crate) async fn against_mosquitto(table: &mut Table, folder: &Path) -> anyhow::Result<()> {
    let folder = tempfile::tempdir_in(folder)?;
    let memory = mosquitto::start(&folder.path().join("memory"), false).await?;
    let saved = mosquitto::start(&folder.path().join("saved"), true).await?;
    let config = config(folder.path(), CLIENTS)?;
    let file = write_config(&config, folder.path())?;
    let mut transports = Vec::new();
    for device in &config.devices {
        transports.push(add_device(&file, &device.id, folder.path()).await?.transport);
    }
    let gateway = GatewayProcess::start(config, folder.path()).await?;
    let plain = gateway.plain_address().context("no plain listener")?;
    let loopback = |port| SocketAddr::from(([127, 0, 0, 1], port));
    for in_flight in [1, 10] {
        let ways = [
            Way {
                name: "",
                in_flight,
                ours: (plain, vec![Transport::Plain; CLIENTS]),
                theirs: (loopback(memory.plain_port), Transport::Plain),
            },
            Way {
                name: "_mtls",
                in_flight,
                ours: (gateway.mqtt_address(), transports.clone()),
                theirs: (loopback(memory.mtls_port), memory.transport.clone()),
            },
        ];
        for way in &ways {
            compare(table, way, &gateway).await?;
        }
        let report = run(loopback(saved.plain_port), vec![Transport::Plain; CLIENTS], in_flight, true).await?;
        table.figure(&format!("mosquitto_saved_w{in_flight}_per_s"), "mosquitto that saves on changes", report.per_s, "messages/s", "");
    }
    Ok(())
}

/// Waits until the gateway has no work of its own left, but for so many entries: what is measured next has the machine for itself.
pub(crate) async fn follow(gateway: &GatewayProcess, left: u64) -> anyhow::Result<()> {
    wait_until("the buffer to follow the journal", FOLLOW_DEADLINE, async || {
        let status = gateway.status().await.ok()?;
        (status["store"]["keyed_applied"].as_u64()? + left >= status["store"]["committed"].as_u64()?).then_some(())
    })
    .await
}

async fn compare(table: &mut Table, way: &Way<'_>, gateway: &GatewayProcess) -> anyhow::Result<()> {
    let mut pairs = Vec::new();
    for _ in 0..PAIRS {
        let ours = run(way.ours.0, way.ours.1.clone(), way.in_flight, false).await?;
        follow(gateway, 0).await?;
        let theirs = run(way.theirs.0, vec![way.theirs.1.clone(); CLIENTS], way.in_flight, true).await?;
        pairs.push((ours, theirs));
    }
    pairs.sort_by(|left, right| (left.0.per_s / left.1.per_s).total_cmp(&(right.0.per_s / right.1.per_s)));
    let (ours, theirs) = pairs.get(PAIRS / 2).context("no pair")?;
    let (window, name) = (way.in_flight, way.name);
    let aim = if window == 1 { "at least 1.0" } else { "at least 2.5" };
    table.figure(&format!("ingest_w{window}{name}_per_s"), "ours, each acknowledged after its flush", ours.per_s, "messages/s", "");
    table.figure(&format!("ingest_w{window}{name}_p50_ms"), "publish to PUBACK", ours.p50_us as f64 / 1e3, "ms", "");
    table.figure(&format!("ingest_w{window}{name}_p99_ms"), "publish to PUBACK", ours.p99_us as f64 / 1e3, "ms", "");
    table.figure(&format!("mosquitto_w{window}{name}_per_s"), "mosquitto, nothing on disk", theirs.per_s, "messages/s", "");
    table.figure(&format!("mosquitto_w{window}{name}_p99_ms"), "publish to PUBACK", theirs.p99_us as f64 / 1e3, "ms", "");
    table.figure(
        &format!("ingest_w{window}{name}_vs_mosquitto{name}"),
        "ratio",
        ours.per_s / theirs.per_s,
        "",
        if name.is_empty() { aim } else { "" },
    );
    Ok(())
}

async fn run(address: SocketAddr, transports: Vec<Transport>, in_flight: u16, opaque: bool) -> anyhow::Result<LoadReport> {
    let devices = load_devices(transports.len(), |index| transports[index].clone())?;
    let payload = if opaque { LoadPayload::Opaque(PAYLOAD_BYTES) } else { LoadPayload::OneReading(PAYLOAD_BYTES) };
    let load = Load {
        address,
        devices,
        password: None,
        in_flight,
        payload,
        run: run_name().to_string(),
        rate_per_s: None,
        warm_up: WARM_UP,
        duration: RUN,
    };
    load.run().await.context("a load run")
}
