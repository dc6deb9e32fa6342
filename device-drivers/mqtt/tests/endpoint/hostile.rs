//! Devices that are broken or mean: each is refused with a reason that is counted, and nobody else notices.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use vitalgate_domain::DeviceEventKind;
use vitalgate_mqtt::EndpointConfig;

use crate::raw::{Raw, ack, connect, connect5, packet, publish, publish5, subscribe};
use crate::rig::{PATIENCE, Rig, Seen, commit_all, eventually, texts};

const TOPIC: &str = "vitals/monitor-1/a";
/// Longest wait of a device for its acknowledgement: far more than a loopback commit takes on a busy machine, and half of what one
/// would see that waits for another's deadline, of the greeting or of a packet. Where the deadlines are [`DEADLINE_MS`] it shows only a
/// wait for several of them, one after the other.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// The same deadlines where a test waits for them: a device on a busy machine still keeps them.
const DEADLINE_MS: u64 = 1_000;

/// A well-behaved device that publishes all the time; gives the longest wait for an acknowledgement, and how many there were.
struct Bystander {
    stop: watch::Sender<bool>,
    task: JoinHandle<(Duration, u32)>,
    progress: watch::Receiver<u32>,
}

impl Bystander {
    async fn start(rig: &Rig) -> Self {
        let mut device = Raw::connected(rig.address, "monitor-bystander").await;
        let (stop, stopped) = watch::channel(false);
        let (report, progress) = watch::channel(0);
        let task = tokio::spawn(async move {
            let (mut longest, mut count) = (Duration::ZERO, 0_u32);
            while !*stopped.borrow() {
                let begun = Instant::now();
                let id = u16::try_from(count % 60_000 + 1).unwrap();
                device.send(&publish("vitals/monitor-bystander/a", 1, id, b"steady")).await;
                assert_eq!(device.read().await, ack(0x40, id));
                longest = longest.max(begun.elapsed());
                count += 1;
                report.send_replace(count);
            }
            (longest, count)
        });
        Self { stop, task, progress }
    }

    /// Waits until it got as many more acknowledgements.
    async fn goes_on(&mut self, more: u32) {
        let until = *self.progress.borrow() + more;
        let waiting = self.progress.wait_for(|count| *count >= until);
        tokio::time::timeout(PATIENCE, waiting).await.expect("the bystander is not served").unwrap();
    }

    async fn ends_unharmed(self) {
        self.stop.send_replace(true);
        let (longest, count) = self.task.await.unwrap();
        assert!(longest < WAIT_MAX && count > 0, "longest wait {longest:?} among {count}");
    }
}

#[tokio::test]
async fn an_oversize_packet_is_refused_from_its_header() {
    let (rig, queue) = Rig::plain(EndpointConfig::default()).await;
    let _log = commit_all(queue);
    let mut bystander = Bystander::start(&rig).await;
    let mut device = Raw::connected5(rig.address, "monitor-1").await;
    device.send(&[0x32, 0xFF, 0xFF, 0xFF, 0x7F]).await;
    let rest = device.until_closed().await;
    assert_eq!((rest[0], rest[2]), (0xE0, 0x95), "DISCONNECT, packet too large: {rest:02x?}");
    let mut device = Raw::connected(rig.address, "monitor-2").await;
    device.send(&subscribe(false, 1, &[&"x".repeat(5_000)])).await;
    assert!(device.until_closed().await.is_empty());
    let mut greeting = Raw::open(rig.address).await;
    greeting.send(&packet(0x10, &[0; 9_000])).await;
    greeting.until_closed().await;
    rig.refused("oversize", 3).await;
    bystander.goes_on(20).await;
    bystander.ends_unharmed().await;
}

#[tokio::test]
async fn the_largest_packet_is_taken_and_one_byte_more_is_not() {
    let (rig, queue) = Rig::plain(EndpointConfig { packet_bytes_max: 9_000, ..EndpointConfig::default() }).await;
    let log = commit_all(queue);
    let mut device = Raw::connected(rig.address, "monitor-1").await;
    let overhead = publish(TOPIC, 1, 1, &[b'x'; 8_000]).len() - 8_000;
    let largest = "x".repeat(9_000 - overhead);
    device.send(&publish(TOPIC, 1, 1, largest.as_bytes())).await;
    assert_eq!(device.read().await, ack(0x40, 1));
    assert_eq!(texts(&log, "monitor-1").concat(), largest);
    device.send_anyhow(&publish(TOPIC, 1, 2, format!("{largest}x").as_bytes())).await;
    device.until_closed().await;
    rig.refused("oversize", 1).await;
    assert_eq!(texts(&log, "monitor-1").len(), 1);
}

/// A byte now and then must not keep a packet, and with it the device's place, open for ever.
#[tokio::test]
async fn an_endless_partial_packet_is_ended_by_its_deadline() {
    let (rig, queue) =
        Rig::plain(EndpointConfig { partial_packet_ms: DEADLINE_MS, greeting_ms: DEADLINE_MS, ..EndpointConfig::default() }).await;
    let _log = commit_all(queue);
    let mut bystander = Bystander::start(&rig).await;
    let mut device = Raw::connected5(rig.address, "monitor-1").await;
    device.send(&publish5(TOPIC, 1, 1, &[], b"whole")).await;
    assert_eq!(device.read().await, ack(0x40, 1));
    let whole = publish5(TOPIC, 1, 2, &[], &[b'x'; 4_000]);
    let mut drip = tokio::time::interval(Duration::from_millis(10));
    for byte in &whole {
        drip.tick().await;
        if device.0.write_all(&[*byte]).await.is_err() || rig.stats.refused("partial_packet") > 0 {
            break;
        }
    }
    rig.refused("partial_packet", 1).await;
    // The same before CONNECT is whole, and for a peer that says nothing at all.
    let mut greeting = Raw::open(rig.address).await;
    greeting.send(&connect("monitor-2", 60, true)[..9]).await;
    let mut silent = Raw::open(rig.address).await;
    greeting.until_closed().await;
    silent.until_closed().await;
    rig.refused("greeting_timeout", 2).await;
    bystander.goes_on(20).await;
    bystander.ends_unharmed().await;
}

#[tokio::test]
async fn another_devices_topic_is_refused_and_not_stored() {
    let (rig, queue) = Rig::plain(EndpointConfig::default()).await;
    let log = commit_all(queue);
    for (times, topic) in ["vitals/monitor-2/a", "vitals/monitor-1", "vitals/monitor-1/", "a"].into_iter().enumerate() {
        let mut device = Raw::connected5(rig.address, "monitor-1").await;
        device.send(&publish5(topic, 1, 1, &[], b"x")).await;
        let rest = device.until_closed().await;
        assert_eq!((rest[0], rest[2]), (0xE0, 0x87), "DISCONNECT, not authorised, and no PUBACK: {rest:02x?}");
        rig.refused("foreign_topic", u64::try_from(times).unwrap() + 1).await;
    }
    assert!(!log.lock().unwrap().iter().any(|seen| matches!(seen, Seen::Reading { .. } | Seen::DeadLetter { .. })));
}

#[tokio::test]
async fn a_second_client_with_the_same_id_is_refused_and_the_first_stays() {
    let (rig, queue) = Rig::plain(EndpointConfig { contest_ms: 300, ..EndpointConfig::default() }).await;
    let log = commit_all(queue);
    let mut first = Raw::connected(rig.address, "monitor-1").await;
    for _ in 0..3 {
        let mut second = Raw::open(rig.address).await;
        second.send(&connect("monitor-1", 60, true)).await;
        assert_eq!(second.read().await, [0x20, 2, 0, 2], "identifier rejected");
    }
    rig.refused("second_client", 3).await;
    first.send(&publish(TOPIC, 1, 1, b"still here")).await;
    assert_eq!(first.read().await, ack(0x40, 1));
    assert_eq!(texts(&log, "monitor-1"), ["still here"]);
}

/// The first is heard at once, so the second does not even wait.
#[tokio::test]
async fn a_second_client_is_refused_at_once_when_the_first_is_busy() {
    let (rig, queue) = Rig::plain(EndpointConfig { contest_ms: 600_000, ..EndpointConfig::default() }).await;
    let _log = commit_all(queue);
    let mut bystander = Bystander::start(&rig).await;
    let mut second = Raw::open(rig.address).await;
    second.send(&connect5("monitor-bystander", 2, &[], &[])).await;
    let connack = second.read().await;
    assert_eq!((connack[0], connack[3]), (0x20, 0x85), "{connack:02x?}");
    bystander.goes_on(20).await;
    bystander.ends_unharmed().await;
}

/// A device that restarts finds its own place free as soon as its old connection is gone, however that went.
#[tokio::test]
async fn a_device_that_comes_back_is_let_in_when_its_old_connection_ends() {
    let (rig, queue) = Rig::plain(EndpointConfig { contest_ms: 600_000, ..EndpointConfig::default() }).await;
    let _log = commit_all(queue);
    let mut silent = Raw::open(rig.address).await;
    silent.send(&connect("monitor-1", 1, true)).await;
    assert_eq!(silent.read().await, [0x20, 2, 0, 0]);
    // The old connection says nothing any more: its keep-alive of 1 s ends it after 1.5 s.
    let mut back = Raw::open(rig.address).await;
    back.send(&connect("monitor-1", 60, true)).await;
    assert_eq!(back.read().await, [0x20, 2, 0, 0]);
    assert!(silent.until_closed().await.is_empty());
    rig.refused("keep_alive", 1).await;
    let mut again = Raw::open(rig.address).await;
    again.send(&connect("monitor-1", 60, true)).await;
    back.0.shutdown().await.unwrap();
    assert_eq!(again.read().await, [0x20, 2, 0, 0]);
}

/// A flood is slowed down to the device's rate; nothing of it is lost, and others do not wait for it.
#[tokio::test]
async fn a_flood_is_slowed_and_nothing_of_it_is_dropped() {
    let (rig, queue) = Rig::plain(EndpointConfig { packets_per_second_max: 200, ..EndpointConfig::default() }).await;
    let log = commit_all(queue);
    let mut flooding = Raw::connected(rig.address, "monitor-1").await;
    let begun = Instant::now();
    let flood: Vec<u8> = (1..=500).flat_map(|id| publish(TOPIC, 1, id, id.to_string().as_bytes())).collect();
    flooding.send(&flood).await;
    for id in 1..=500 {
        assert_eq!(flooding.read().await, ack(0x40, id));
    }
    // 200 at once, 300 more at 200/s.
    assert!(begun.elapsed() > Duration::from_millis(1_400), "{:?}", begun.elapsed());
    assert!(rig.stats.throttled() > 0);
    let expected: Vec<String> = (1..=500).map(|id| id.to_string()).collect();
    assert_eq!(texts(&log, "monitor-1"), expected);
}

#[tokio::test]
async fn a_flooding_device_does_not_slow_others() {
    let (rig, queue) = Rig::plain(EndpointConfig { packets_per_second_max: 500, ..EndpointConfig::default() }).await;
    let _log = commit_all(queue);
    let mut flooding = Raw::connected(rig.address, "monitor-1").await;
    let flood = tokio::spawn(async move {
        let message = publish(TOPIC, 0, 0, &[b'x'; 1_000]);
        while flooding.0.write_all(&message).await.is_ok() {}
    });
    eventually("the flood is throttled", || rig.stats.throttled() > 0).await;
    let mut bystander = Bystander::start(&rig).await;
    bystander.goes_on(100).await;
    bystander.ends_unharmed().await;
    flood.abort();
}

/// Many connections that say nothing leave room for a device that greets, from the same address even.
#[tokio::test]
async fn silent_connections_do_not_keep_a_device_out() {
    let (rig, queue) = Rig::plain(EndpointConfig { greeting_ms: DEADLINE_MS, ..EndpointConfig::default() }).await;
    let _log = commit_all(queue);
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(Raw::open(rig.address).await);
    }
    let mut device = Raw::connected(rig.address, "monitor-1").await;
    device.send(&publish(TOPIC, 1, 1, b"x")).await;
    assert_eq!(device.read().await, ack(0x40, 1));
    rig.refused("greeting_timeout", 100).await;
}

#[tokio::test]
async fn connections_are_limited() {
    let (rig, queue) = Rig::plain(EndpointConfig { connections_max: 2, ..EndpointConfig::default() }).await;
    let _log = commit_all(queue);
    let _first = Raw::connected(rig.address, "monitor-1").await;
    let second = Raw::connected(rig.address, "monitor-2").await;
    let mut third = Raw::open(rig.address).await;
    third.send(&connect5("monitor-3", 2, &[], &[])).await;
    assert_eq!(third.read().await[3], 0x89, "server busy");
    drop(second);
    eventually("the second is gone", || rig.stats.connections() == 1).await;
    let mut third = Raw::connected_when_free(&rig, "monitor-3").await;
    third.send(&publish("vitals/monitor-3/a", 1, 1, b"x")).await;
    assert_eq!(third.read().await, ack(0x40, 1));
}

/// A device that never reads its answers fills its own socket and is ended: nothing piles up for it.
#[tokio::test]
async fn a_device_that_does_not_read_its_answers_is_ended() {
    let config = EndpointConfig { write_ms: 200, packets_per_second_max: 1_000_000, ..EndpointConfig::default() };
    let (rig, queue) = Rig::plain(config).await;
    let _log = commit_all(queue);
    let mut bystander = Bystander::start(&rig).await;
    let mut deaf = Raw::connected(rig.address, "monitor-1").await;
    let ask = subscribe(false, 1, &["devices/monitor-1/time"]).repeat(100);
    let flood = tokio::spawn(async move { while deaf.0.write_all(&ask).await.is_ok() {} });
    rig.refused("slow_reader", 1).await;
    tokio::time::timeout(PATIENCE, flood).await.expect("the connection was not closed").unwrap();
    bystander.goes_on(20).await;
    bystander.ends_unharmed().await;
}

fn events(log: &Mutex<Vec<Seen>>, of: &str) -> Vec<DeviceEventKind> {
    let log = log.lock().unwrap();
    log.iter()
        .filter_map(|seen| match seen {
            Seen::Event { device, kind } if device == of => Some(*kind),
            _ => None,
        })
        .collect()
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A refusal is one log line with device, reason and remedy, without payloads, passwords or what strangers call
/// themselves; and a device that is refused without end does not fill the log.
#[tokio::test]
async fn a_refusal_is_logged_with_its_remedy_and_without_secrets() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let (rig, queue) = Rig::plain(EndpointConfig::default()).await;
    let _log = commit_all(queue);
    let mut device = Raw::connected(rig.address, "monitor-1").await;
    device.send(&publish("vitals/monitor-2/a", 1, 1, b"PATIENT-DATA")).await;
    device.until_closed().await;
    rig.refused("foreign_topic", 1).await;
    for _ in 0..200 {
        let mut stranger = Raw::open(rig.address).await;
        stranger.send(&connect5("STRANGER", 0b1100_0010, &[], b"\x00\x05login\x00\x06SECRET")).await;
        stranger.until_closed().await;
    }
    rig.refused("credentials", 200).await;
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let line = text.lines().find(|line| line.contains("foreign_topic")).unwrap();
    assert!(line.contains("WARN") && line.contains("monitor-1") && line.contains("publish to vitals/<device-id>/<channel>"), "{line}");
    for secret in ["PATIENT-DATA", "SECRET", "STRANGER"] {
        assert!(!text.contains(secret), "{secret} stands in the log");
    }
    let logged = text.lines().filter(|line| line.contains("reason=\"credentials\"")).count();
    assert!((1..200).contains(&logged), "{logged} lines for 200 refusals");
}

/// Bytes that no client sends, before and after CONNECT, from many seeds: each connection ends, the gateway goes on.
#[tokio::test]
async fn garbage_ends_its_connection_and_nothing_else() {
    let (rig, queue) =
        Rig::plain(EndpointConfig { partial_packet_ms: DEADLINE_MS, greeting_ms: DEADLINE_MS, ..EndpointConfig::default() }).await;
    let log: Arc<Mutex<Vec<Seen>>> = commit_all(queue);
    let mut bystander = Bystander::start(&rig).await;
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        u8::try_from(state >> 56).unwrap()
    };
    let mut clients = tokio::task::JoinSet::new();
    for seed in 0..200_u32 {
        let mut bytes: Vec<u8> = (0..64).map(|_| random()).collect();
        let address = rig.address;
        clients.spawn(async move {
            let mut raw = Raw::open(address).await;
            if seed % 2 == 0 {
                raw.send_anyhow(&connect(&format!("monitor-garbage-{seed}"), 60, true)).await;
                bytes[0] |= 0x01; // not a PINGREQ or a DISCONNECT
            }
            raw.send_anyhow(&bytes).await;
            raw.until_closed().await;
        });
    }
    while let Some(client) = clients.join_next().await {
        client.unwrap();
    }
    bystander.goes_on(20).await;
    bystander.ends_unharmed().await;
    eventually("every place is given back", || rig.stats.connections() == 0).await;
    assert_eq!(events(&log, "monitor-garbage-0"), [DeviceEventKind::Connected, DeviceEventKind::Lost]);
}

#[tokio::test]
async fn protocol_levels_other_than_3_1_1_and_5_are_refused() {
    let (rig, queue) = Rig::plain(EndpointConfig::default()).await;
    let _log = commit_all(queue);
    let mut old = Raw::open(rig.address).await;
    old.send(&packet(0x10, b"\x00\x06MQIsdp\x03\x02\x00\x3c\x00\x09monitor-1")).await;
    assert_eq!(old.read().await, [0x20, 2, 0, 1], "unacceptable protocol version");
    let mut new = Raw::open(rig.address).await;
    new.send(&packet(0x10, b"\x00\x04MQTT\x06\x02\x00\x3c\x00\x00\x09monitor-1")).await;
    assert_eq!(new.read().await, [0x20, 2, 0, 1]);
    let mut enhanced = Raw::open(rig.address).await;
    enhanced.send(&connect5("monitor-1", 2, b"\x15\x00\x01x", &[])).await;
    assert_eq!(enhanced.read().await[3], 0x8C, "bad authentication method");
    rig.refused("protocol_version", 2).await;
}
