//! What devices, gateways and networks do to a poller, and what must not come of it.

// Helpers of tests are not test functions for clippy.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use support::{Act, Asked, Device, adu, answer, builtin, polled, registers, shown, start, start_unattended, two_blocks, within};
use tokio::net::TcpSocket;
use tokio::time::timeout;
use vitalgate_intake::Receipt;
use vitalgate_modbus::{BusConfig, DeviceState, PollFault};
use vitalgate_profile::Profiles;

/// The healthy answers of the two-block profile.
fn healthy(asked: Asked) -> Act {
    Act::Registers(vec![if asked.address == 0 { 72 } else { 14 }])
}

fn bus(address: &str, devices: Vec<vitalgate_modbus::BusDevice>, response_timeout_ms: u64) -> BusConfig {
    let mut config = BusConfig::new(address, devices);
    config.response_timeout_ms = response_timeout_ms;
    config
}

#[tokio::test]
async fn a_healthy_device_is_polled_on_one_connection_and_shows_it() {
    let mut device = Device::start(healthy).await;
    let mut running = start(bus(&device.address, vec![polled("a", 7, &two_blocks(""), 20)], 5_000));
    for _ in 0..5 {
        assert_eq!(shown(&running.sample().await), ["heart_rate 72"]);
        assert_eq!(shown(&running.sample().await), ["resp_rate 14"]);
    }
    let asked = device.question().await;
    assert_eq!((asked.unit, asked.function, asked.address, asked.count), (7, 3, 0, 1));
    let status = running.until("a", "ok", |status| status.state == DeviceState::Ok).await;
    assert_eq!((status.last_success_monotonic_ms, status.failures), (Some(77), 0));
    assert_eq!(device.connections(), 1);
    assert!(running.beats.load(Ordering::Relaxed) > 0);
    running.end().await;
}

/// D6: on other framings a late answer was returned to the next question, for ever.
#[tokio::test]
async fn an_answer_to_an_earlier_question_is_never_taken_for_the_next() {
    let earlier: Arc<Mutex<Vec<u8>>> = Arc::default();
    let device = Device::start(move |asked: Asked| {
        let mut late = earlier.lock().unwrap();
        let right = if asked.address == 0 { 72 } else { 14 };
        match asked.nth {
            // Not answered in time; its answer, a heart rate of 99, comes with the next one on the old connection.
            2 => {
                *late = answer(asked, &registers(&[99]));
                Act::Silence
            }
            // A gateway that mixes its connections up sends it before the right answer.
            4 => {
                let mut bytes = std::mem::take(&mut *late);
                bytes.extend_from_slice(&answer(asked, &registers(&[right])));
                Act::Raw(bytes)
            }
            _ => Act::Registers(vec![right]),
        }
    })
    .await;
    let mut running = start(bus(&device.address, vec![polled("a", 1, &two_blocks(""), 20)], 1_000));
    for _ in 0..16 {
        for line in shown(&running.sample().await) {
            assert!(line == "heart_rate 72" || line == "resp_rate 14", "{line} answers another question");
        }
    }
    let connections: Vec<_> = device.log.lock().unwrap().iter().map(|asked| asked.connection).collect();
    assert_eq!(connections[..4], [0, 0, 0, 1], "after a timeout nothing is asked on the old connection");
    assert_eq!(connections[5], 2, "after an answer that does not belong to its question the connection is left too");
    running.end().await;
}

/// What a device sends in place of its answer.
type Bytes = fn(Asked) -> Vec<u8>;

/// Every way in which bytes can be wrong: nothing of them becomes a reading, the connection is
/// left, and the device is read again.
#[tokio::test]
async fn garbage_is_never_a_reading_and_costs_one_connection() {
    let cases: Vec<(&str, Bytes)> = vec![
        ("other transaction", |asked| adu(asked.transaction ^ 1, asked.unit, &[3, 2, 0, 99])),
        ("other unit", |asked| adu(asked.transaction, asked.unit ^ 1, &[3, 2, 0, 99])),
        ("other function", |asked| adu(asked.transaction, asked.unit, &[4, 2, 0, 99])),
        ("answer to another kind of request", |asked| adu(asked.transaction, asked.unit, &[0x11, 2, 1, 0xFF])),
        ("unknown function", |asked| adu(asked.transaction, asked.unit, &[0x63, 2, 0, 99])),
        ("too few registers", |asked| adu(asked.transaction, asked.unit, &[3, 0])),
        ("too many registers", |asked| adu(asked.transaction, asked.unit, &[3, 4, 0, 99, 0, 99])),
        ("odd byte count", |asked| adu(asked.transaction, asked.unit, &[3, 1, 99])),
        ("byte count beyond the frame", |asked| adu(asked.transaction, asked.unit, &[3, 200, 0, 99])),
        ("bytes after the registers", |asked| adu(asked.transaction, asked.unit, &[3, 2, 0, 99, 7])),
        ("no function", |asked| adu(asked.transaction, asked.unit, &[])),
        ("exception without a code", |asked| adu(asked.transaction, asked.unit, &[0x83])),
        ("exception of another function", |asked| adu(asked.transaction, asked.unit, &[0x84, 2])),
        ("length zero", |asked| [&asked.transaction.to_be_bytes()[..], &[0, 0, 0, 0, 1, 3, 2, 0, 99]].concat()),
        ("other protocol", |asked| [&asked.transaction.to_be_bytes()[..], &[0, 9, 0, 5, 1, 3, 2, 0, 99]].concat()),
        ("half a frame", |asked| adu(asked.transaction, asked.unit, &[3, 2, 0, 99])[..9].to_vec()),
        ("half a header", |_| vec![0, 0, 0]),
        ("a length that never comes", |asked| [&asked.transaction.to_be_bytes()[..], &[0, 0, 0xFF, 0xFF, 1, 3, 2, 0, 99]].concat()),
        ("text", |_| b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n".to_vec()),
        ("noise", |_| (0..=255).collect()),
    ];
    let trials = cases.into_iter().map(|(name, bytes)| async move {
        let device = Device::start(move |asked: Asked| if asked.nth == 0 { Act::Raw(bytes(asked)) } else { healthy(asked) }).await;
        let mut running = start(bus(&device.address, vec![polled("a", 1, &two_blocks(""), 20)], 1_000));
        running.until("a", "in a fault", |status| matches!(status.state, DeviceState::Degraded(_) | DeviceState::Ok)).await;
        assert_eq!(shown(&running.sample().await), ["heart_rate 72"], "{name}");
        running.until("a", "ok", |status| status.state == DeviceState::Ok).await;
        assert_eq!(device.connections(), 2, "{name}");
        running.end().await;
    });
    let trials: Vec<_> = trials.map(tokio::spawn).collect();
    for trial in trials {
        within("the end of a trial", trial).await.unwrap();
    }
}

/// A half-sent answer of a device that then goes away is no reading either.
#[tokio::test]
async fn a_connection_that_breaks_in_the_middle_is_a_fault_of_that_poll_only() {
    let device = Device::start(|asked: Asked| match asked.nth {
        0 => Act::Close,
        _ => healthy(asked),
    })
    .await;
    let mut running = start(bus(&device.address, vec![polled("a", 1, &two_blocks(""), 20)], 5_000));
    let status = running.until("a", "in a fault", |status| status.failures > 0).await;
    assert_eq!(status.state, DeviceState::Degraded(PollFault::ConnectionLost));
    assert_eq!(shown(&running.sample().await), ["heart_rate 72"]);
    running.end().await;
}

/// Many devices close an idle connection; that says nothing of their health.
#[tokio::test]
async fn a_connection_that_was_closed_while_idle_is_opened_anew_without_a_fault() {
    let device =
        Device::start(|asked: Asked| if asked.address == 0 { Act::Registers(vec![72]) } else { Act::RegistersThenClose(vec![14]) }).await;
    let mut running = start(bus(&device.address, vec![polled("a", 1, &two_blocks(""), 20)], 5_000));
    for _ in 0..6 {
        assert_eq!(shown(&running.sample().await), ["heart_rate 72"]);
        assert_eq!(shown(&running.sample().await), ["resp_rate 14"]);
        assert_eq!(running.status("a").unwrap().failures, 0);
    }
    running.end().await;
}

/// Promise: a device that is seldom polled is polled each time. A firewall forgets a connection that lay idle and then swallows
/// what is asked on it, without a word to either side.
#[tokio::test]
async fn a_connection_that_a_firewall_forgot_while_idle_costs_no_poll() {
    const IDLE_MS: u64 = 50;
    /// The firewall forgets only after a multiple of it: what a busy machine holds up is not idle.
    const FORGOTTEN_AFTER: Duration = Duration::from_millis(15 * IDLE_MS);
    let heard: Mutex<HashMap<usize, Instant>> = Mutex::default();
    let lost = Arc::new(AtomicBool::new(false));
    let swallowed = lost.clone();
    let device = Device::start(move |asked: Asked| {
        let now = Instant::now();
        let before = heard.lock().unwrap().insert(asked.connection, now);
        if before.is_some_and(|before| now - before > FORGOTTEN_AFTER) {
            swallowed.store(true, Ordering::SeqCst);
            return Act::Silence;
        }
        healthy(asked)
    })
    .await;
    let mut config = bus(&device.address, vec![polled("a", 1, &two_blocks(""), 20 * IDLE_MS)], 1_000);
    config.idle_ms = IDLE_MS;
    let mut running = start(config);
    for _ in 0..3 {
        assert_eq!(shown(&running.sample().await), ["heart_rate 72"]);
        assert_eq!(shown(&running.sample().await), ["resp_rate 14"]);
        assert!(!lost.load(Ordering::SeqCst), "a question was swallowed");
    }
    running.end().await;
}

#[tokio::test]
async fn an_exception_concerns_its_block_and_not_the_connection() {
    let device = Device::start(|asked: Asked| if asked.address == 0 { Act::Registers(vec![72]) } else { Act::Exception(2) }).await;
    let mut running = start(bus(&device.address, vec![polled("a", 1, &two_blocks(""), 20)], 5_000));
    for _ in 0..5 {
        assert_eq!(shown(&running.sample().await), ["heart_rate 72"]);
    }
    let status = running.until("a", "degraded", |status| status.state == DeviceState::Degraded(PollFault::Exception(2))).await;
    assert_eq!(status.failures, 0, "what can be read keeps its rhythm");
    assert_eq!(device.connections(), 1);
    running.end().await;
}

#[tokio::test]
async fn a_device_that_only_answers_with_exceptions_is_down_and_the_connection_stays() {
    let sound = Arc::new(AtomicBool::new(false));
    let now = sound.clone();
    let device = Device::start(move |asked: Asked| if now.load(Ordering::SeqCst) { healthy(asked) } else { Act::Exception(0x0B) }).await;
    let mut running = start(bus(&device.address, vec![polled("a", 1, &two_blocks(""), 20)], 5_000));
    running.until("a", "down", |status| status.state == DeviceState::Down(PollFault::Exception(0x0B))).await;
    assert_eq!(device.connections(), 1);
    sound.store(true, Ordering::SeqCst);
    assert_eq!(shown(&running.sample().await), ["heart_rate 72"]);
    running.until("a", "ok", |status| status.state == DeviceState::Ok).await;
    running.end().await;
}

/// One dead unit starved the others of a gateway elsewhere; here all dead ones together get a fifth.
#[tokio::test]
async fn dead_units_of_a_gateway_do_not_starve_the_living_one() {
    const TIMEOUT_MS: u64 = 250;
    let device = Device::start(|asked: Asked| if asked.unit == 1 { healthy(asked) } else { Act::Silence }).await;
    let profile = two_blocks("");
    let mut devices = vec![polled("living", 1, &profile, 50)];
    devices.extend((2..8).map(|unit| polled(&format!("dead-{unit}"), unit, &profile, 50)));
    let started = Instant::now();
    let mut running = start(bus(&device.address, devices, TIMEOUT_MS));
    for _ in 0..60 {
        running.sample().await;
    }
    for unit in 2..8 {
        let status = running.until(&format!("dead-{unit}"), "in a fault", |status| status.state.fault().is_some()).await;
        assert_eq!(status.state.fault(), Some(PollFault::Timeout));
    }
    let dead = device.log.lock().unwrap().iter().filter(|asked| asked.unit != 1).count();
    let elapsed = started.elapsed();
    let time_of_dead = Duration::from_millis(TIMEOUT_MS) * u32::try_from(dead).unwrap();
    let bound = elapsed / 5 + 7 * Duration::from_millis(TIMEOUT_MS);
    assert!(time_of_dead <= bound, "dead units took {time_of_dead:?} of {elapsed:?}");
    assert_eq!(running.status("living").unwrap().failures, 0, "a timeout of another unit is no fault of this one");
    running.end().await;
}

#[tokio::test]
async fn a_bus_that_refuses_connections_is_down_and_comes_back() {
    // Bound, and silent: nobody else takes the port meanwhile.
    let reserved = TcpSocket::new_v4().unwrap();
    reserved.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = reserved.local_addr().unwrap();
    let profile = two_blocks("");
    let mut running = start(bus(&address.to_string(), vec![polled("a", 1, &profile, 20), polled("b", 2, &profile, 20)], 5_000));
    for name in ["a", "b"] {
        running.until(name, "down", |status| status.state == DeviceState::Down(PollFault::Unreachable)).await;
    }
    let _device = Device::on(reserved.listen(16).unwrap(), healthy);
    assert_eq!(shown(&running.sample().await), ["heart_rate 72"]);
    for name in ["a", "b"] {
        running.until(name, "ok", |status| status.state == DeviceState::Ok).await;
    }
    running.end().await;
}

#[tokio::test]
async fn a_poll_counts_only_when_its_readings_are_on_disk() {
    let device = Device::start(healthy).await;
    let mut running = start(bus(&device.address, vec![polled("a", 1, &two_blocks(""), 20)], 5_000));
    running.answer_with(Receipt::Refused);
    let status = running.until("a", "in a fault", |status| status.failures > 0).await;
    assert_eq!(status.state.fault(), Some(PollFault::NotStored));
    running.answer_with(Receipt::Committed);
    let status = running.until("a", "ok", |status| status.state == DeviceState::Ok).await;
    assert_eq!(status.last_success_monotonic_ms, Some(77));
    while running.samples.try_recv().is_ok() {}
    running.sample().await;
    running.end().await;
}

/// Back-pressure reaches the bus: without a receipt nothing more is asked.
#[tokio::test]
async fn without_a_receipt_the_polling_stops_and_the_task_still_shows_life() {
    let mut device = Device::start(healthy).await;
    let (mut running, mut queue, sender) = start_unattended(bus(&device.address, vec![polled("a", 1, &two_blocks(""), 20)], 5_000));
    let first = within("the first block", queue.next()).await.unwrap();
    let second = within("the second block", queue.next()).await.unwrap();
    for _ in 0..2 {
        device.question().await;
    }
    let beats = running.beats.load(Ordering::Relaxed);
    let nothing = timeout(Duration::from_millis(1_500), device.asked.recv()).await;
    assert!(nothing.is_err(), "asked {nothing:?} although the last poll has no receipt");
    assert!(running.beats.load(Ordering::Relaxed) > beats);
    support::pass_on(first, &sender, Receipt::Committed);
    support::pass_on(second, &sender, Receipt::Committed);
    assert_eq!(shown(&running.sample().await), ["heart_rate 72"]);
    device.question().await;
    running.end().await;
}

#[tokio::test]
async fn the_task_ends_when_the_intake_is_stopping() {
    let device = Device::start(healthy).await;
    let (running, queue, _) = start_unattended(bus(&device.address, vec![polled("a", 1, &two_blocks(""), 20)], 5_000));
    drop(queue);
    within("the end of the task", running.task).await.unwrap();
}

#[tokio::test]
async fn a_shutdown_in_the_middle_of_a_question_closes_the_connection() {
    let mut device = Device::start(|_| Act::Silence).await;
    let running = start(bus(&device.address, vec![polled("a", 1, &two_blocks(""), 20)], 10_000));
    device.question().await;
    running.end().await;
    within("the close of the connection", async {
        let mut ticks = tokio::time::interval(Duration::from_millis(5));
        while device.closed.load(Ordering::SeqCst) == 0 {
            ticks.tick().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_device_of_another_kind_is_not_read() {
    let identity = |function: &str, expect: &str| {
        two_blocks(&format!(r#"identity = {{ function = "{function}", address = 50, expect = {expect}, source = "Test" }}"#))
    };
    let device = Device::start(|asked: Asked| match asked.address {
        50 if asked.function == 1 => Act::Bits(vec![0b1000_1101, 0b10]),
        50 => Act::Registers(vec![0xABCD]),
        _ => healthy(asked),
    })
    .await;
    let devices = vec![
        polled("right", 1, &identity("holding_registers", "[0xABCD]"), 20),
        polled("right-by-coils", 2, &identity("coils", "[1, 0, 1, 1, 0, 0, 0, 1, 0, 1]"), 20),
        polled("wrong", 3, &identity("input_registers", "[0x1234]"), 20),
        polled("wrong-by-coils", 4, &identity("coils", "[1, 0, 1, 1, 0, 0, 0, 1, 0, 0]"), 20),
    ];
    let running = start(bus(&device.address, devices, 5_000));
    for name in ["right", "right-by-coils"] {
        running.until(name, "ok", |status| status.state == DeviceState::Ok).await;
    }
    for name in ["wrong", "wrong-by-coils"] {
        running.until(name, "down", |status| status.state == DeviceState::Down(PollFault::WrongDevice)).await;
    }
    let log = device.log.lock().unwrap().clone();
    assert!(log.iter().filter(|asked| asked.unit > 2).all(|asked| asked.address == 50), "a wrong device is asked for nothing else");
    assert_eq!(log.iter().filter(|asked| asked.unit == 1 && asked.address == 50).count(), 1, "proven once per connection");
    running.end().await;
}

/// Promise: a reading is never attributed to the wrong device. A gateway keeps its connection while the device behind it is unplugged
/// and another takes its unit id: what the first one proved does not count for the second.
#[tokio::test]
async fn another_device_behind_a_gateway_is_not_read_as_the_one_before() {
    const HEALTHY: usize = 0;
    const UNPLUGGED: usize = 1;
    let stage = Arc::new(AtomicUsize::new(HEALTHY));
    let now = stage.clone();
    let device = Device::start(move |asked: Asked| match (asked.unit, now.load(Ordering::SeqCst), asked.address) {
        (1, ..) => healthy(asked),
        (_, HEALTHY, 50) => Act::Registers(vec![0xABCD]),
        (_, HEALTHY, _) => healthy(asked),
        (_, UNPLUGGED, _) => Act::Exception(0x0B),
        (_, _, 50) => Act::Registers(vec![0x1234]),
        _ => Act::Registers(vec![99]),
    })
    .await;
    let identity = two_blocks(r#"identity = { function = "holding_registers", address = 50, expect = [0xABCD], source = "Test" }"#);
    let devices = vec![polled("neighbour", 1, &two_blocks(""), 20), polled("exchanged", 3, &identity, 20)];
    let mut running = start(bus(&device.address, devices, 5_000));
    running.until("exchanged", "ok", |status| status.state == DeviceState::Ok).await;
    stage.store(UNPLUGGED, Ordering::SeqCst);
    running.until("exchanged", "down", |status| status.state == DeviceState::Down(PollFault::Exception(0x0B))).await;
    stage.store(UNPLUGGED + 1, Ordering::SeqCst);
    let status = running.until("exchanged", "asked anew", |status| status.state.fault() != Some(PollFault::Exception(0x0B))).await;
    assert_eq!(status.state, DeviceState::Down(PollFault::WrongDevice));
    while let Ok(sample) = running.samples.try_recv() {
        assert!(shown(&sample).iter().all(|line| !line.ends_with(" 99")), "{:?} is of another device", shown(&sample));
    }
    assert_eq!(device.connections(), 1);
    running.end().await;
}

/// The same promise where the exchange falls between two polls and no fault shows it.
#[tokio::test]
async fn a_device_proves_its_kind_again_after_a_while() {
    let proofs = AtomicUsize::new(0);
    let device = Device::start(move |asked: Asked| match asked.address {
        50 if proofs.fetch_add(1, Ordering::SeqCst) < 3 => Act::Registers(vec![0xABCD]),
        50 => Act::Registers(vec![0x1234]),
        _ => healthy(asked),
    })
    .await;
    let identity = two_blocks(r#"identity = { function = "holding_registers", address = 50, expect = [0xABCD], source = "Test" }"#);
    let mut config = bus(&device.address, vec![polled("a", 1, &identity, 20)], 5_000);
    config.proof_ms = 1;
    let running = start(config);
    running.until("a", "down", |status| status.state == DeviceState::Down(PollFault::WrongDevice)).await;
    assert_eq!(device.connections(), 1);
    running.end().await;
}

#[tokio::test]
async fn a_register_that_cannot_be_read_is_kept_and_shown() {
    let text = r#"
        id = "float"
        version = "1"
        source = "Test"
        [polled]
        min_poll_interval_ms = 10
        block = [{ name = "a", function = "input_registers", address = 0, count = 2, source = "Test" }]
        register = [{ block = "a", address = 0, type = "f32", metric = "body_weight", unit = "kg", source = "Test" }]
    "#;
    let mut profiles = Profiles::default();
    let id = profiles.load("float.toml", text).unwrap();
    let device = Device::start(|_| Act::Registers(vec![0x7F7F, 0xFFFF])).await;
    let mut running = start(bus(&device.address, vec![polled("a", 1, &profiles.get(&id).unwrap(), 20)], 5_000));
    assert_eq!(running.sample().await.unreadable.unwrap().1, [0x7F, 0x7F, 0xFF, 0xFF]);
    running.until("a", "degraded", |status| status.state == DeviceState::Degraded(PollFault::Undecodable)).await;
    running.end().await;
}

#[tokio::test]
async fn a_device_with_a_publish_profile_is_down_and_the_others_are_polled() {
    let device = Device::start(|_| Act::Registers(vec![72, 975, 14, 370, 120, 80, 93, 0x42A1, 0, 0, 0, 7])).await;
    let publish = Profiles::builtin().unwrap().get("vitals-json").unwrap();
    let devices = vec![polled("a", 1, &publish, 20), polled("b", 2, &builtin(), 20)];
    let mut running = start(bus(&device.address, devices, 5_000));
    assert_eq!(running.sample().await.readings.len(), 8);
    assert_eq!(running.status("a").unwrap().state, DeviceState::Down(PollFault::Profile));
    running.end().await;
}

#[tokio::test]
async fn the_metrics_tell_what_happened() {
    let device = Device::start(|asked: Asked| if asked.unit == 1 { healthy(asked) } else { Act::Exception(2) }).await;
    let profile = two_blocks("");
    let running = start(bus(&device.address, vec![polled("a", 1, &profile, 20), polled("b", 2, &profile, 20)], 5_000));
    running.until("a", "ok", |status| status.state == DeviceState::Ok).await;
    running.until("b", "in a fault", |status| status.failures > 0).await;
    let mut registry = prometheus_client::registry::Registry::default();
    running.stats.register(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    for line in [
        "modbus_device_up{device=\"a\"} 1",
        "modbus_device_up{device=\"b\"} 0",
        "modbus_polls_total{device=\"b\",outcome=\"exception\"}",
        "modbus_polls_total{device=\"a\",outcome=\"committed\"}",
        "modbus_connections_total 1",
        "modbus_response_seconds_count",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    running.end().await;
}
