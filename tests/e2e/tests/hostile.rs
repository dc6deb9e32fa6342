//! Promise 6: devices that are broken or mean are refused with a reason, and the others do not wait for them.

// Helpers of tests are not test functions for clippy.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::{JoinError, JoinSet};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;
use vitalgate_domain::DeviceId;
use vitalgate_e2e::{Publishers, Site};
use vitalgate_simulator::{Acknowledged, MqttMonitor, Transport};
use vitalgate_test_support::DeviceLine;

const NORMAL_DEVICES: usize = 5;
/// Pause between two messages of a normal device: twenty times as often as a bedside monitor speaks.
const GAP: Duration = Duration::from_millis(50);
/// Acknowledgements before the attack: every normal device is connected.
const BEFORE: usize = 100;
/// Messages per second that one device may send, more than twice what a normal one does.
const MESSAGES_PER_SECOND_MAX: u32 = 50;
/// Messages of the flood on their way at a time. More than may come within a second: too many at once, however slow the disk is.
const FLOOD_IN_FLIGHT: usize = 64;
/// Each attacker tries again after this long: slow enough for the limit on log lines, which is for all together.
const ATTACK_INTERVAL: Duration = Duration::from_secs(1);
const IDLE_CONNECTIONS: usize = 200;
/// Addresses that the idle connections come from.
const IDLE_ADDRESSES: u8 = 2;
const DEADLINE: Duration = Duration::from_secs(90);
/// A monitor sends about once a second and shows an alarm when it hears nothing for seconds. An acknowledgement
/// within a quarter of a second is no wait to it, and is far below the deadlines (10 s) that a blocked one would meet.
const P99_MAX: Duration = Duration::from_millis(250);
/// A slow disk keeps everybody waiting longer: no more than so many times as long as a gateway that nobody attacks, meanwhile.
const SLOWDOWN_MAX: u32 = 4;

/// Where an attacker comes from: each from an address of its own, as on a network.
fn source(last: u8) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, last)), 0)
}

async fn open(from: u8, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(source(from))?;
    socket.connect(to).await
}

async fn open_tls(from: u8, monitor: &MqttMonitor) -> std::io::Result<TlsStream<TcpStream>> {
    let Transport::Tls { config, server_name } = &monitor.transport else { panic!("TLS is expected") };
    let name = ServerName::try_from(server_name.to_string()).unwrap();
    TlsConnector::from(Arc::clone(config)).connect(name, open(from, monitor.address).await?).await
}

/// CONNECT of 3.1.1 with a clean session and a keep-alive of a minute.
fn connect(device: &str) -> Vec<u8> {
    let id = device.as_bytes();
    let mut bytes =
        vec![0x10, u8::try_from(12 + id.len()).unwrap(), 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 60, 0, u8::try_from(id.len()).unwrap()];
    bytes.extend_from_slice(id);
    bytes
}

/// Connects with the device's own certificate and is welcomed or not: the return code of CONNACK.
async fn greet(from: u8, monitor: &MqttMonitor) -> std::io::Result<(TlsStream<TcpStream>, u8)> {
    let mut stream = open_tls(from, monitor).await?;
    stream.write_all(&connect(monitor.device.as_str())).await?;
    let mut connack = [0; 4];
    stream.read_exact(&mut connack).await?;
    Ok((stream, connack[3]))
}

/// Reads until the gateway closes; a reset is a close as well.
async fn until_closed(stream: &mut TlsStream<TcpStream>) {
    let mut rest = Vec::new();
    let _reset = stream.read_to_end(&mut rest).await;
}

/// Says that the largest packet of MQTT follows.
async fn oversize(monitor: &MqttMonitor) -> std::io::Result<()> {
    let (mut stream, _) = greet(66, monitor).await?;
    stream.write_all(&[0x32, 0xFF, 0xFF, 0xFF, 0x7F]).await?;
    until_closed(&mut stream).await;
    Ok(())
}

/// A PUBLISH of 4,000 bytes that drips and never ends.
async fn partial(monitor: &MqttMonitor) -> std::io::Result<()> {
    let (mut stream, _) = greet(67, monitor).await?;
    stream.write_all(&[0x32, 0xA0, 0x1F]).await?;
    let mut drip = tokio::time::interval(Duration::from_millis(50));
    let mut one = [0];
    loop {
        tokio::select! {
            _ = drip.tick() => stream.write_all(b"x").await?,
            read = stream.read(&mut one) => if read? == 0 { return Ok(()) },
        }
    }
}

/// No MQTT at all behind the CONNECT, and no TLS at all.
async fn garbage(monitor: &MqttMonitor) -> std::io::Result<()> {
    let mut bytes = [0; 512];
    bytes.fill_with(|| fastrand::u8(..));
    let mut plain = open(68, monitor.address).await?;
    plain.write_all(&bytes).await?;
    let mut rest = Vec::new();
    let _reset = plain.read_to_end(&mut rest).await;
    let (mut stream, _) = greet(69, monitor).await?;
    // A reserved packet type first (MQTT 3.1.1 section 2.2.1), so that it is garbage for certain.
    bytes[0] = 0x00;
    stream.write_all(&bytes).await?;
    until_closed(&mut stream).await;
    Ok(())
}

/// The same certificate and client id as a device that is connected.
async fn second_client(monitor: &MqttMonitor) -> std::io::Result<()> {
    let (_stream, code) = greet(70, monitor).await?;
    assert_eq!(code, 2, "a second client with the same id was let in");
    Ok(())
}

/// Attacks again and again until the task is dropped. A connection that fails is what an attacker expects.
fn attack<F: Future<Output = std::io::Result<()>> + Send>(
    tasks: &mut JoinSet<()>,
    monitor: MqttMonitor,
    act: impl Fn(Arc<MqttMonitor>) -> F + Send + 'static,
) {
    let monitor = Arc::new(monitor);
    tasks.spawn(async move {
        let mut again = tokio::time::interval(ATTACK_INTERVAL);
        loop {
            again.tick().await;
            let _failed = act(Arc::clone(&monitor)).await;
        }
    });
}

/// Connections that say nothing at all.
async fn idle(to: SocketAddr) -> Vec<TcpStream> {
    let mut connections = Vec::new();
    for index in 0..IDLE_CONNECTIONS {
        let from = 80 + u8::try_from(index % usize::from(IDLE_ADDRESSES)).unwrap();
        connections.push(open(from, to).await.unwrap());
    }
    connections
}

fn p99(acknowledged: &[Acknowledged]) -> Duration {
    let mut waits: Vec<Duration> = acknowledged.iter().map(|one| one.waited).collect();
    waits.sort();
    waits[waits.len() * 99 / 100]
}

fn lines(names: &[String]) -> Vec<DeviceLine> {
    names.iter().map(|name| DeviceLine::mqtt(DeviceId::new(name).unwrap(), &format!("Patient/of-{name}"))).collect()
}

/// The normal devices at work.
fn publishing(names: &[String], site: &Site) -> Publishers {
    Publishers::start(names.iter().map(|name| site.monitor(name).unwrap()).collect(), GAP).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attackers_are_refused_with_a_reason_and_the_others_do_not_wait() {
    let names: Vec<String> = (0..NORMAL_DEVICES).map(|index| format!("monitor-{index:02}")).collect();
    let attackers = ["oversize", "partial", "garbage", "flood", "late-comer"].map(str::to_owned);
    // On the same disk, for comparison.
    let peaceful = Site::start(lines(&names), |_| {}).await.unwrap();
    let site = Site::start(lines(&[names.as_slice(), &attackers].concat()), |config| {
        config.more.push(("log".to_owned(), "format = \"json\"".to_owned()));
        config.more.push(("mqtt".to_owned(), format!("messages_per_second_max = {MESSAGES_PER_SECOND_MAX}")));
    })
    .await
    .unwrap();
    let (mut unharmed, mut normal) = (publishing(&names, &peaceful), publishing(&names, &site));
    unharmed.more(BEFORE, DEADLINE).await.unwrap();
    let mut before = normal.more(BEFORE, DEADLINE).await.unwrap();

    let mut tasks = JoinSet::new();
    attack(&mut tasks, site.monitor("partial").unwrap(), |monitor| async move { partial(&monitor).await });
    attack(&mut tasks, site.monitor("oversize").unwrap(), |monitor| async move { oversize(&monitor).await });
    attack(&mut tasks, site.monitor("garbage").unwrap(), |monitor| async move { garbage(&monitor).await });
    attack(&mut tasks, site.monitor("monitor-00").unwrap(), |monitor| async move { second_client(&monitor).await });
    let silent = idle(site.gateway.mqtt_address()).await;
    let flood = MqttMonitor { in_flight_max: FLOOD_IN_FLIGHT, ..site.monitor("flood").unwrap() };
    let flood = Publishers::start(vec![flood], Duration::ZERO).unwrap();
    let begun = Instant::now();
    // From here on they are compared.
    unharmed.take();
    before.extend(normal.take());
    let mut late = Publishers::start(vec![site.monitor("late-comer").unwrap()], GAP).unwrap();
    let mut acknowledged = late.more(1, DEADLINE).await.unwrap();
    let let_in = begun.elapsed();

    // Metric and log line of each; the last two take the endpoint's own deadline of 10 s.
    for (reason, times) in [
        ("oversize", 3.0),
        ("tls_handshake", 3.0),
        ("malformed", 3.0),
        ("second_client", 3.0),
        ("greeting_timeout", 32.0),
        ("partial_packet", 1.0),
    ] {
        site.wait_refused(reason, times).await.unwrap();
    }
    let throttled = site.metric("vitalgate_mqtt_throttled_total").await.unwrap();
    assert!(throttled > 0.0, "the flood was not slowed down");
    let (attacked, usual) = (normal.take(), unharmed.take());
    drop((unharmed, peaceful));
    tasks.abort_all();
    while let Some(attacker) = tasks.join_next().await {
        // An attacker whose assertion failed has ended before it was told to.
        assert!(!attacker.as_ref().is_err_and(JoinError::is_panic), "{attacker:?}");
    }
    drop(silent);

    let (without, during) = (p99(&usual), p99(&attacked));
    println!(
        "p99 of an acknowledgement: {without:?} without ({}), {during:?} under attack ({}); let in under attack after {let_in:?}",
        usual.len(),
        attacked.len()
    );
    assert!(during <= P99_MAX.max(without * SLOWDOWN_MAX), "{during:?} under attack, {without:?} without");
    assert!(let_in < Duration::from_secs(5), "a device that came under attack waited {let_in:?}");
    assert!(attacked.len() * 2 > usual.len(), "{} acknowledgements under attack, {} without", attacked.len(), usual.len());

    // Nothing of anybody is lost, the flood included; and it was held to its rate.
    let flooded = flood.finish(DEADLINE).await.unwrap();
    let rate = flooded.len() as f64 / begun.elapsed().as_secs_f64();
    assert!(rate < f64::from(MESSAGES_PER_SECOND_MAX) * 1.3, "the flood went on at {rate} messages a second");
    acknowledged.extend(before.into_iter().chain(attacked).chain(flooded));
    acknowledged.extend(late.finish(DEADLINE).await.unwrap());
    acknowledged.extend(normal.finish(DEADLINE).await.unwrap());
    let mut oracle = site.oracle().unwrap();
    acknowledged.iter().for_each(|one| oracle.acknowledged(one));
    site.arrived_once("ehr", &site.ehr, &oracle).await.unwrap();
    // Those who said nothing that is a message have no reading, not even a made-up one.
    for attacker in ["oversize", "partial", "garbage"] {
        assert_eq!(site.observations(attacker), Vec::<serde_json::Value>::new());
    }
}
