//! The monitors and the load generator against a real broker: what they speak is MQTT.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, watch};
use tokio::time::{interval, timeout};
use vitalgate_domain::{DeviceId, UnixMs};
use vitalgate_simulator::load::load_devices;
use vitalgate_simulator::{Load, LoadPayload, Message, MqttMonitor, ProtocolVersion, Recording, Transport};

const DEADLINE: Duration = Duration::from_secs(20);

/// Debian's mosquitto on a loopback port.
async fn broker() -> anyhow::Result<(Child, SocketAddr, tempfile::TempDir)> {
    let folder = tempfile::tempdir()?;
    let address = SocketAddr::from(([127, 0, 0, 1], vitalgate_test_support::free_port()?));
    let config = folder.path().join("mosquitto.conf");
    std::fs::write(&config, format!("listener {} 127.0.0.1\nallow_anonymous true\n", address.port()))?;
    // Debian keeps it in /usr/sbin, which need not be in the path.
    let program = ["/usr/sbin/mosquitto", "/usr/bin/mosquitto"].into_iter().find(|path| std::path::Path::new(path).is_file());
    let program = program.unwrap_or("mosquitto");
    let started = Command::new(program).arg("-c").arg(&config).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).spawn();
    let mut child = started.context("mosquitto is missing; install the package mosquitto")?;
    let mut tick = interval(Duration::from_millis(20));
    let listening = async {
        while TcpStream::connect(address).await.is_err() {
            if let Some(ended) = child.try_wait()? {
                anyhow::bail!("mosquitto ended before it listened: {ended}");
            }
            tick.tick().await;
        }
        Ok(())
    };
    timeout(DEADLINE, listening).await.context("mosquitto does not listen")??;
    Ok((child, address, folder))
}

#[tokio::test]
async fn a_broker_acknowledges_every_message_in_both_versions_of_the_protocol() -> anyhow::Result<()> {
    let (_broker, address, _folder) = broker().await?;
    let recording = Recording::parse("patient,offset_s,vital,value,unit\np,0,heart_rate,72,/min\n")?;
    for version in [ProtocolVersion::V311, ProtocolVersion::V5] {
        let (source, messages) = mpsc::channel(100);
        let (acknowledged, mut heard) = mpsc::unbounded_channel();
        let (_stop, stopped) = watch::channel(false);
        for counter in 0..50 {
            source.send(Message::of_set(&recording.sets("p")[0], UnixMs(counter), counter as u64)).await?;
        }
        drop(source);
        let mut monitor = MqttMonitor::new(DeviceId::new("monitor-1")?, address, Transport::Plain);
        monitor.version = version;
        monitor.in_flight_max = 10;
        let report = timeout(DEADLINE, monitor.run(messages, acknowledged, stopped)).await.context("in vain")?;
        assert_eq!((report.acknowledged, report.left, report.connections), (50, 0, 1), "{version:?}");
        let mut reported = 0;
        while heard.recv().await.is_some() {
            reported += 1;
        }
        assert_eq!(reported, 50);
    }
    Ok(())
}

#[tokio::test]
async fn the_load_generator_counts_what_a_broker_acknowledged() -> anyhow::Result<()> {
    let (_broker, address, _folder) = broker().await?;
    let mut load = Load {
        address,
        devices: load_devices(4, |_| Transport::Plain)?,
        password: None,
        in_flight: 10,
        payload: LoadPayload::OneReading(200),
        run: "r1".into(),
        rate_per_s: None,
        warm_up: Duration::from_millis(50),
        duration: Duration::from_millis(400),
    };
    let report = timeout(DEADLINE, load.run()).await.context("in vain")??;
    assert!(report.acknowledged > 0 && report.acknowledged <= report.acknowledged_in_all, "{report:?}");
    assert!(report.p50_us > 0 && report.p50_us <= report.p99_us && report.p99_us <= report.longest_us, "{report:?}");
    load.rate_per_s = Some(200.0);
    load.warm_up = Duration::ZERO;
    load.duration = Duration::from_secs(2);
    let report = timeout(DEADLINE, load.run()).await.context("in vain")??;
    assert!((200..=402).contains(&report.acknowledged_in_all), "about 400 in 2 s at 200/s: {report:?}");
    Ok(())
}
