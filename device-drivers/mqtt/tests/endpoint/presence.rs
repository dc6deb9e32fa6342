//! Coming and going, keep-alive, and what a device may hear.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use vitalgate_domain::{DeviceEventKind, DeviceId};
use vitalgate_mqtt::EndpointConfig;

use crate::raw::{Raw, ack, connect, connect5, packet, publish, subscribe, unsubscribe};
use crate::rig::{Rig, Seen, commit_all, eventually, next_event};

fn event(device: &str, kind: DeviceEventKind) -> Seen {
    Seen::Event { device: device.to_owned(), kind }
}

#[tokio::test]
async fn coming_going_and_vanishing_are_recorded_in_order() {
    let (rig, mut queue) = Rig::plain(EndpointConfig::default()).await;
    let mut device = Raw::open(rig.address).await;
    device.send(&connect("monitor-1", 60, true)).await;
    assert_eq!(next_event(&mut queue).await, event("monitor-1", DeviceEventKind::Connected));
    device.read().await;
    device.send(&[0xE0, 0]).await;
    assert_eq!(next_event(&mut queue).await, event("monitor-1", DeviceEventKind::Disconnected));
    let mut device = Raw::open(rig.address).await;
    device.send(&connect("monitor-1", 60, true)).await;
    assert_eq!(next_event(&mut queue).await, event("monitor-1", DeviceEventKind::Connected));
    device.read().await;
    drop(device);
    assert_eq!(next_event(&mut queue).await, event("monitor-1", DeviceEventKind::Lost));
    let heard = rig.stats.last_heard_ms(&DeviceId::new("monitor-1").unwrap());
    assert!(heard.is_some_and(|at| at > 0), "{heard:?}");
    assert_eq!(rig.stats.last_heard_ms(&DeviceId::new("monitor-2").unwrap()), None);
}

/// Section 3.1.2.5 of v5: a will with a delay is not due if the device comes back in time.
#[tokio::test]
async fn a_delayed_will_is_not_due_when_the_device_comes_back() {
    let (rig, mut queue) = Rig::plain(EndpointConfig::default()).await;
    // Will delay 100 s, topic "w", payload "gone"; session expiry 600 s.
    let will = b"\x05\x18\x00\x00\x00\x64\x00\x01w\x00\x04gone";
    let greeting = connect5("monitor-1", 0b110, b"\x11\x00\x00\x02\x58", will);
    for _ in 0..2 {
        let mut device = Raw::open(rig.address).await;
        device.send(&greeting).await;
        assert_eq!(next_event(&mut queue).await, event("monitor-1", DeviceEventKind::Connected), "nothing is due in between");
        device.read().await;
        device.0.shutdown().await.unwrap();
        device.until_closed().await;
    }
    // With a DISCONNECT that asks for it (0x04) it is due; here it waits until the gateway stops.
    rig.stop.send(true).unwrap();
    assert_eq!(next_event(&mut queue).await, event("monitor-1", DeviceEventKind::Lost));
}

/// Section 3.14.4 of v5: only a normal DISCONNECT (0x00, or none said) takes the will back. It is due where the device asks for it
/// (0x04), and where it leaves for a fault of its own.
#[tokio::test]
async fn a_will_is_due_unless_the_device_leaves_normally() {
    let (rig, mut queue) = Rig::plain(EndpointConfig::default()).await;
    let farewells: [(&[u8], DeviceEventKind); 6] = [
        (&[4], DeviceEventKind::Lost),
        (&[0x80], DeviceEventKind::Lost),
        (&[0x83, 0], DeviceEventKind::Lost),
        (&[], DeviceEventKind::Disconnected),
        (&[0], DeviceEventKind::Disconnected),
        (&[0, 0], DeviceEventKind::Disconnected),
    ];
    for (farewell, expected) in farewells {
        let mut device = Raw::open(rig.address).await;
        device.send(&connect5("monitor-1", 0b110, &[], b"\x00\x00\x01w\x00\x04gone")).await;
        next_event(&mut queue).await;
        device.read().await;
        device.send(&packet(0xE0, farewell)).await;
        assert_eq!(next_event(&mut queue).await, event("monitor-1", expected), "{farewell:02x?}");
    }
}

#[tokio::test]
async fn keep_alive_ends_a_silent_connection_and_a_ping_keeps_it() {
    let (rig, mut queue) = Rig::plain(EndpointConfig::default()).await;
    let mut pinging = Raw::open(rig.address).await;
    pinging.send(&connect("monitor-pinging", 1, true)).await;
    next_event(&mut queue).await;
    pinging.read().await;
    let mut silent = Raw::open(rig.address).await;
    silent.send(&connect("monitor-silent", 1, true)).await;
    next_event(&mut queue).await;
    silent.read().await;
    let mut tick = tokio::time::interval(Duration::from_millis(500));
    for _ in 0..5 {
        tick.tick().await;
        assert!(pinging.is_silent().await);
    }
    assert!(silent.until_closed().await.is_empty());
    assert_eq!(next_event(&mut queue).await, event("monitor-silent", DeviceEventKind::Lost));
    rig.refused("keep_alive", 1).await;
    assert!(pinging.is_silent().await);
}

/// A device hears the time and its own acknowledgements, and nothing of any other device.
#[tokio::test]
async fn a_device_may_subscribe_to_its_own_topics_only() {
    let (rig, queue) = Rig::plain(EndpointConfig::default()).await;
    let _log = commit_all(queue);
    let filters = [
        "devices/monitor-1/acknowledgements",
        "devices/monitor-2/time",
        "#",
        "devices/+/time",
        "$share/g/devices/monitor-1/time",
        "vitals/monitor-1/a",
        "devices/monitor-1/time",
    ];
    for (v5, expected) in [(false, [0, 0x80, 0x80, 0x80, 0x80, 0x80, 0]), (true, [0, 0x87, 0xA2, 0xA2, 0x9E, 0x87, 0])] {
        let mut device = if v5 { Raw::connected5(rig.address, "monitor-1").await } else { Raw::connected(rig.address, "monitor-1").await };
        device.send(&subscribe(v5, 3, &filters)).await;
        let suback = device.read().await;
        assert_eq!(suback[0], 0x90);
        assert!(suback.ends_with(&expected), "{suback:02x?}");
        let time = String::from_utf8_lossy(&device.read().await).into_owned();
        assert!(time.contains("devices/monitor-1/time"), "{time}");
        assert!(time.ends_with(r#"{"time":"2026-11-22T10:00:00.120+00:00","unix_ms":1795341600120,"trust":"synchronised"}"#), "{time}");
        let topic = "vitals/monitor-1/a";
        device.send(&if v5 { crate::raw::publish5(topic, 0, 0, &[], b"x") } else { publish(topic, 0, 0, b"x") }).await;
        let committed = String::from_utf8_lossy(&device.read().await).into_owned();
        assert!(committed.contains("devices/monitor-1/acknowledgements") && committed.ends_with(r#"{"committed":1}"#), "{committed}");
        device.send(&unsubscribe(v5, 4, &filters[..2])).await;
        let unsuback = device.read().await;
        assert_eq!(unsuback, if v5 { vec![0xB0, 5, 0, 4, 0, 0, 0x11] } else { vec![0xB0, 2, 0, 4] });
        device.send(&[0xE0, 0]).await;
        device.until_closed().await;
    }
}

/// A device without a clock of its own needs the time before it can date anything: it comes at once, also where the subscription was
/// kept and is not made again.
#[tokio::test]
async fn the_time_comes_at_once_to_a_subscription_that_was_kept() {
    let (rig, queue) = Rig::plain(EndpointConfig::default()).await;
    let _log = commit_all(queue);
    for session_present in [0, 1, 1] {
        let mut device = Raw::open(rig.address).await;
        device.send(&connect("monitor-1", 60, false)).await;
        assert_eq!(device.read().await, [0x20, 2, session_present, 0]);
        if session_present == 0 {
            device.send(&subscribe(false, 1, &["devices/monitor-1/time"])).await;
            assert_eq!(device.read().await, [0x90, 3, 0, 1, 0]);
        }
        let time = String::from_utf8_lossy(&device.read().await).into_owned();
        assert!(time.contains("devices/monitor-1/time") && time.ends_with(r#""trust":"synchronised"}"#), "{time}");
        assert!(device.is_silent().await, "it was told twice");
        device.send(&[0xE0, 0]).await;
        device.until_closed().await;
    }
}

/// Two devices publish; neither ever gets a packet that is not its own acknowledgement.
#[tokio::test]
async fn nothing_goes_from_one_device_to_another() {
    let (rig, queue) = Rig::plain(EndpointConfig::default()).await;
    let _log = commit_all(queue);
    let mut first = Raw::connected(rig.address, "monitor-1").await;
    let mut second = Raw::connected(rig.address, "monitor-2").await;
    first.send(&subscribe(false, 1, &["vitals/monitor-2/a", "#"])).await;
    assert_eq!(first.read().await, [0x90, 4, 0, 1, 0x80, 0x80]);
    let mut retained = publish("vitals/monitor-2/a", 1, 1, b"x");
    retained[0] |= 1;
    second.send(&retained).await;
    assert_eq!(second.read().await, ack(0x40, 1));
    assert!(first.is_silent().await);
}

#[tokio::test]
async fn a_revoked_device_is_disconnected_soon() {
    let (rig, queue) = Rig::plain(EndpointConfig { admission_check_ms: 50, ..EndpointConfig::default() }).await;
    let _log = commit_all(queue);
    let mut device = Raw::connected5(rig.address, "monitor-1").await;
    let mut other = Raw::connected(rig.address, "monitor-2").await;
    rig.book.revoked.lock().unwrap().insert("monitor-1".to_owned());
    let rest = device.until_closed().await;
    assert_eq!((rest[0], rest[2]), (0xE0, 0x87), "{rest:02x?}");
    let mut back = Raw::open(rig.address).await;
    back.send(&connect("monitor-1", 60, true)).await;
    assert_eq!(back.read().await, [0x20, 2, 0, 5], "not authorised");
    assert!(other.is_silent().await);
    eventually("both are counted", || rig.stats.refused("not_admitted") == 2).await;
}

/// What a v5 client asked for is granted within limits, and what is not is said in CONNACK.
#[tokio::test]
async fn v5_terms_are_announced() {
    let (rig, queue) = Rig::plain(EndpointConfig::default()).await;
    let _log = commit_all(queue);
    let mut device = Raw::open(rig.address).await;
    let mut greeting = connect5("monitor-1", 0, b"\x11\xff\xff\xff\xff", &[]);
    greeting[10..12].copy_from_slice(&[0, 0]); // keep-alive 0
    device.send(&greeting).await;
    let connack = device.read().await;
    let has = |property: &[u8]| connack.windows(property.len()).any(|window| window == property);
    assert!(has(&[33, 0, 64]), "receive maximum: {connack:02x?}");
    assert!(has(&[39, 0, 1, 0, 0]), "maximum packet size");
    assert!(has(&[17, 0, 9, 0x3a, 0x80]), "session expiry of 7 days");
    assert!(has(&[19, 0x0e, 0x10]), "server keep-alive of an hour");
    assert!(has(&[40, 0]) && has(&[41, 0]) && has(&[42, 0]), "no wildcards, subscription identifiers, shared subscriptions");
}
