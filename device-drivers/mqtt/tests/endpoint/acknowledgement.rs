//! Promise: an acknowledgement says that the reading is on disk, and comes in the order of the messages.

use vitalgate_intake::Receipt;
use vitalgate_mqtt::EndpointConfig;
use vitalgate_mqtt::limits::UNRELEASED_MAX;

use crate::raw::{Raw, ack, connect, connect5, packet, publish, publish5, pubrel};
use crate::rig::{Rig, Seen, commit_all, eventually, next_event, next_sample, seen, texts};

const TOPIC: &str = "vitals/monitor-1/a";

fn session_of(client_id: &str) -> Vec<u8> {
    connect(client_id, 60, false)
}

#[tokio::test]
async fn pubacks_leave_in_order_although_receipts_come_in_any() {
    let (rig, mut queue) = Rig::plain(EndpointConfig::default()).await;
    let mut device = Raw::connected_later(&rig, &mut queue, "monitor-1").await;
    for id in 1..=4 {
        device.send(&publish(TOPIC, 1, id, id.to_string().as_bytes())).await;
    }
    let mut waiting = Vec::new();
    for _ in 1..=4 {
        waiting.push(next_sample(&mut queue).await);
    }
    // The last three are on disk, the first is not: nothing may be said.
    let first = waiting.remove(0);
    for submission in waiting.into_iter().rev() {
        submission.answer(Receipt::Committed);
    }
    assert!(device.is_silent().await);
    first.answer(Receipt::Committed);
    for id in 1..=4 {
        assert_eq!(device.read().await, ack(0x40, id));
    }
}

/// While an earlier receipt is outstanding the device is still read, up to the limit and no further.
#[tokio::test]
async fn reading_goes_on_under_outstanding_receipts_up_to_the_limit() {
    let (rig, mut queue) = Rig::plain(EndpointConfig { in_flight_max: 5, ..EndpointConfig::default() }).await;
    let mut device = Raw::connected_later(&rig, &mut queue, "monitor-1").await;
    for id in 1..=8 {
        device.send(&publish(TOPIC, 1, id, b"x")).await;
    }
    let mut waiting = Vec::new();
    for _ in 1..=5 {
        waiting.push(next_sample(&mut queue).await);
    }
    // Another device's message passes meanwhile: by then the sixth of the first would have come if it were read.
    let mut other = Raw::connected_later(&rig, &mut queue, "monitor-2").await;
    other.send(&publish("vitals/monitor-2/a", 1, 9, b"y")).await;
    let submission = next_sample(&mut queue).await;
    assert!(matches!(seen(&submission.submitted), Seen::Reading { device, .. } if device == "monitor-2"));
    submission.answer(Receipt::Committed);
    assert_eq!(other.read().await, ack(0x40, 9));
    assert!(queue.try_next().is_none());
    waiting.remove(0).answer(Receipt::Committed);
    assert_eq!(device.read().await, ack(0x40, 1));
    drop(next_sample(&mut queue).await);
}

#[tokio::test]
async fn qos_2_is_received_once_and_only_said_to_be_after_the_commit() {
    let (rig, mut queue) = Rig::plain(EndpointConfig::default()).await;
    let mut device = Raw::connected_later(&rig, &mut queue, "monitor-1").await;
    let message = publish(TOPIC, 2, 7, b"once");
    device.send(&message).await;
    let submission = next_sample(&mut queue).await;
    device.send(&message).await; // impatient
    assert!(device.is_silent().await, "PUBREC before the commit");
    submission.answer(Receipt::Committed);
    assert_eq!(device.read().await, ack(0x50, 7));
    device.send(&message).await;
    assert_eq!(device.read().await, ack(0x50, 7));
    device.send(&pubrel(7)).await;
    assert_eq!(device.read().await, ack(0x70, 7));
    assert!(queue.try_next().is_none(), "the message was submitted twice");
    device.send(&pubrel(7)).await;
    assert_eq!(device.read().await, ack(0x70, 7));
}

/// PUBREL for a message that is not on disk yet must not be answered: PUBCOMP would be taken for success.
#[tokio::test]
async fn pubrel_before_pubrec_ends_the_connection() {
    let (rig, mut queue) = Rig::plain(EndpointConfig::default()).await;
    let mut device = Raw::connected_later(&rig, &mut queue, "monitor-1").await;
    device.send(&[publish(TOPIC, 2, 7, b"x"), pubrel(7)].concat()).await;
    assert!(device.until_closed().await.is_empty());
    rig.refused("protocol_error", 1).await;
}

/// A device whose connection broke between PUBLISH and PUBREC sends again: it is submitted once, whether
/// the first one is on disk already or not.
#[tokio::test]
async fn a_persistent_session_remembers_qos_2_over_a_broken_connection() {
    let (rig, mut queue) = Rig::plain(EndpointConfig::default()).await;
    let mut device = Raw::open(rig.address).await;
    device.send(&session_of("monitor-1")).await;
    next_event(&mut queue).await;
    assert_eq!(device.read().await, [0x20, 2, 0, 0]);
    device.send(&[publish(TOPIC, 2, 1, b"on disk"), publish(TOPIC, 2, 2, b"on its way")].concat()).await;
    next_sample(&mut queue).await.answer(Receipt::Committed);
    let on_its_way = next_sample(&mut queue).await;
    assert_eq!(device.read().await, ack(0x50, 1));
    drop(device);
    next_event(&mut queue).await;

    let mut device = Raw::open(rig.address).await;
    device.send(&session_of("monitor-1")).await;
    next_event(&mut queue).await;
    assert_eq!(device.read().await, [0x20, 2, 1, 0], "session present");
    device.send(&[publish(TOPIC, 2, 1, b"on disk"), publish(TOPIC, 2, 2, b"on its way")].concat()).await;
    assert_eq!(device.read().await, ack(0x50, 1));
    assert!(device.is_silent().await);
    on_its_way.answer(Receipt::Committed);
    assert_eq!(device.read().await, ack(0x50, 2));
    // The same identifier with another message is another message: a device may have lost its memory.
    device.send(&publish(TOPIC, 2, 2, b"new")).await;
    let submission = next_sample(&mut queue).await;
    assert!(matches!(seen(&submission.submitted), Seen::Reading { text, .. } if text == "new"));
}

/// 3.1.1 has no way to say no, v5 forbids to send again what was answered: so nothing is answered, and
/// the device keeps the message.
#[tokio::test]
async fn what_could_not_be_stored_is_never_acknowledged() {
    let (rig, mut queue) = Rig::plain(EndpointConfig { storage_full_hold_ms: 50, ..EndpointConfig::default() }).await;
    for v5 in [false, true] {
        let mut device = if v5 {
            Raw::connected5_later(&rig, &mut queue, "monitor-1").await
        } else {
            Raw::connected_later(&rig, &mut queue, "monitor-1").await
        };
        for id in 1..=3 {
            device.send(&if v5 { publish5(TOPIC, 1, id, &[], b"x") } else { publish(TOPIC, 1, id, b"x") }).await;
        }
        next_sample(&mut queue).await.answer(Receipt::Committed);
        next_sample(&mut queue).await.answer(Receipt::Refused);
        next_sample(&mut queue).await.answer(Receipt::Committed);
        assert_eq!(device.read().await, ack(0x40, 1));
        let rest = device.until_closed().await;
        if v5 {
            assert_eq!((rest[0], rest[2]), (0xE0, 0x97), "DISCONNECT, quota exceeded: {rest:02x?}");
        } else {
            assert!(rest.is_empty(), "{rest:02x?}");
        }
        next_event(&mut queue).await;
    }
    rig.refused("storage_full", 2).await;
}

/// Promise: what a full disk refused is stored as soon as there is room. A session that is kept remembers no refusal: every message
/// that is sent again is submitted anew, all of them on the first connection.
#[tokio::test]
async fn qos_2_messages_that_a_full_disk_refused_are_stored_at_once_when_there_is_room() {
    let (rig, mut queue) = Rig::plain(EndpointConfig { storage_full_hold_ms: 50, ..EndpointConfig::default() }).await;
    let messages: Vec<u8> = (1..=3).flat_map(|id| publish(TOPIC, 2, id, b"x")).collect();
    let mut device = Raw::open(rig.address).await;
    device.send(&session_of("monitor-1")).await;
    next_event(&mut queue).await;
    assert_eq!(device.read().await, [0x20, 2, 0, 0]);
    device.send(&messages).await;
    let (first, second, third) = (next_sample(&mut queue).await, next_sample(&mut queue).await, next_sample(&mut queue).await);
    second.answer(Receipt::Refused);
    first.answer(Receipt::Refused);
    assert!(device.until_closed().await.is_empty());
    next_event(&mut queue).await;
    // One whose receipt comes after the connection is over.
    third.answer(Receipt::Refused);

    let mut device = Raw::open(rig.address).await;
    device.send(&session_of("monitor-1")).await;
    next_event(&mut queue).await;
    assert_eq!(device.read().await, [0x20, 2, 1, 0], "session present");
    device.send(&messages).await;
    for id in 1..=3 {
        next_sample(&mut queue).await.answer(Receipt::Committed);
        assert_eq!(device.read().await, ack(0x50, id));
    }
    rig.refused("storage_full", 1).await;
}

/// Promise: stored once. A message that is on disk and whose turn never came, since a full disk refused the one before it, is still
/// known on the connection after the next: QoS 2 must not store it a second time.
#[tokio::test]
async fn what_is_on_disk_is_remembered_over_any_number_of_broken_connections() {
    let (rig, mut queue) = Rig::plain(EndpointConfig { storage_full_hold_ms: 50, ..EndpointConfig::default() }).await;
    let messages = [publish(TOPIC, 2, 1, b"refused"), publish(TOPIC, 2, 2, b"on disk")].concat();
    for connection in 0..3 {
        let mut device = Raw::open(rig.address).await;
        device.send(&session_of("monitor-1")).await;
        next_event(&mut queue).await;
        assert_eq!(device.read().await, [0x20, 2, u8::from(connection > 0), 0]);
        device.send(&messages).await;
        let first = next_sample(&mut queue).await;
        if connection == 0 {
            next_sample(&mut queue).await.answer(Receipt::Committed);
        }
        assert!(device.is_silent().await, "both are taken, and neither has its turn");
        assert!(queue.try_next().is_none(), "what is on disk was submitted again on connection {connection}");
        if connection < 2 {
            first.answer(Receipt::Refused);
            assert!(device.until_closed().await.is_empty());
            next_event(&mut queue).await;
        } else {
            first.answer(Receipt::Committed);
            assert_eq!([device.read().await, device.read().await], [ack(0x50, 1), ack(0x50, 2)]);
        }
    }
}

#[tokio::test]
async fn a_gateway_that_stops_acknowledges_what_is_on_disk_and_nothing_else() {
    let (rig, mut queue) = Rig::plain(EndpointConfig::default()).await;
    let mut device = Raw::connected5_later(&rig, &mut queue, "monitor-1").await;
    device.send(&[publish5(TOPIC, 1, 1, &[], b"a"), publish5(TOPIC, 1, 2, &[], b"b")].concat()).await;
    let first = next_sample(&mut queue).await;
    let second = next_sample(&mut queue).await;
    rig.stop.send(true).unwrap();
    first.answer(Receipt::Committed);
    assert_eq!(device.read().await, ack(0x40, 1));
    drop((second, queue));
    let rest = device.until_closed().await;
    assert_eq!((rest[0], rest[2]), (0xE0, 0x8B), "DISCONNECT, server shutting down: {rest:02x?}");
    tokio::time::timeout(crate::rig::PATIENCE, rig.served).await.expect("the listener did not stop").unwrap();
}

/// What no profile can read is kept as a dead letter with its bytes, and acknowledged: it must not block what follows.
#[tokio::test]
async fn unreadable_and_unknown_payloads_are_acknowledged_dead_letters() {
    let (rig, queue) = Rig::plain(EndpointConfig::default()).await;
    let log = commit_all(queue);
    let mut device = Raw::connected(rig.address, "monitor-1").await;
    device.send(&[publish(TOPIC, 1, 1, b"garbage\xFF"), publish(TOPIC, 1, 2, b"fine")].concat()).await;
    assert_eq!([device.read().await, device.read().await], [ack(0x40, 1), ack(0x40, 2)]);
    let mut unknown = Raw::connected(rig.address, "monitor-unknown").await;
    unknown.send(&publish("vitals/monitor-unknown/a", 1, 3, b"x")).await;
    assert_eq!(unknown.read().await, ack(0x40, 3));
    let letters: Vec<Vec<u8>> = log
        .lock()
        .unwrap()
        .iter()
        .filter_map(|seen| if let Seen::DeadLetter { bytes, .. } = seen { Some(bytes.clone()) } else { None })
        .collect();
    assert_eq!(letters, [b"garbage\xFF".to_vec(), b"x".to_vec()]);
    assert_eq!(texts(&log, "monitor-1"), ["fine"]);
    eventually("both counted", || rig.stats.unreadable() == 2).await;
}

/// An empty retained message clears a topic (section 3.3.1.3 of 3.1.1): acknowledged, nothing to store.
#[tokio::test]
async fn clearing_a_retained_message_is_no_fault() {
    let (rig, mut queue) = Rig::plain(EndpointConfig::default()).await;
    let mut device = Raw::connected_later(&rig, &mut queue, "monitor-1").await;
    let mut clear = publish(TOPIC, 1, 5, b"");
    clear[0] |= 1;
    device.send(&clear).await;
    assert_eq!(device.read().await, ack(0x40, 5));
    assert!(queue.try_next().is_none());
}

/// paho-mqtt sends everything that it kept through an outage at once, whatever the receive maximum. Sent away for that it
/// would come back with the same, and nothing would ever arrive.
#[tokio::test]
async fn v5_client_that_exceeds_the_receive_maximum_is_slowed_and_nothing_is_lost() {
    let (rig, mut queue) = Rig::plain(EndpointConfig { in_flight_max: 2, ..EndpointConfig::default() }).await;
    let mut device = Raw::open(rig.address).await;
    device.send(&connect5("monitor-1", 2, &[], &[])).await;
    next_event(&mut queue).await;
    let connack = device.read().await;
    assert!(connack.windows(3).any(|property| property == [33, 0, 2]), "receive maximum 2 announced: {connack:02x?}");
    for id in 1..=50 {
        device.send(&publish5(TOPIC, 1 + u8::from(id % 2 == 0), id, &[], b"x")).await;
    }
    let first = next_sample(&mut queue).await;
    let second = next_sample(&mut queue).await;
    assert!(queue.try_next().is_none(), "a third was taken while two wait for their commit");
    first.answer(Receipt::Committed);
    second.answer(Receipt::Committed);
    let _log = commit_all(queue);
    for id in 1..=50 {
        assert_eq!(device.read().await, ack(if id % 2 == 0 { 0x50 } else { 0x40 }, id));
    }
    assert_eq!(rig.stats.refused("receive_maximum"), 0);
}

/// A device that lost its memory does not let go of what it had sent, and does not know that it should start a new session.
#[tokio::test]
async fn a_device_that_forgot_its_qos_2_messages_is_not_shut_out() {
    let (rig, queue) = Rig::plain(EndpointConfig::default()).await;
    let log = commit_all(queue);
    let known = u16::try_from(UNRELEASED_MAX).unwrap();
    let come = async |session_present: u8| {
        let mut device = Raw::open(rig.address).await;
        device.send(&session_of("monitor-1")).await;
        assert_eq!(device.read().await, [0x20, 2, session_present, 0]);
        device
    };
    let mut device = come(0).await;
    device.send(&(1..=known).flat_map(|id| publish(TOPIC, 2, id, b"before")).collect::<Vec<u8>>()).await;
    for id in 1..=known {
        assert_eq!(device.read().await, ack(0x50, id));
    }
    drop(device);
    let mut device = come(1).await;
    // An identifier that is known takes the place of what it stood for.
    device.send(&publish(TOPIC, 2, 1, b"after")).await;
    assert_eq!(device.read().await, ack(0x50, 1));
    // One more is too many: it is refused, but with a new session it is taken.
    let one_more = publish(TOPIC, 2, known + 1, b"one more");
    device.send(&one_more).await;
    assert!(device.until_closed().await.is_empty());
    rig.refused("receive_maximum", 1).await;
    let mut device = come(0).await;
    device.send(&one_more).await;
    assert_eq!(device.read().await, ack(0x50, known + 1));
    assert_eq!(texts(&log, "monitor-1").len(), usize::from(known) + 2);
}

/// Properties never become part of the payload, and a section that lies about its length is refused.
#[tokio::test]
async fn v5_payload_begins_where_the_properties_end() {
    let (rig, queue) = Rig::plain(EndpointConfig::default()).await;
    let log = commit_all(queue);
    let mut device = Raw::connected5(rig.address, "monitor-1").await;
    device.send(&publish5(TOPIC, 1, 1, &[1, 1, 38, 0, 1, b'k', 0, 1, b'v'], b"payload")).await;
    assert_eq!(device.read().await, ack(0x40, 1));
    assert_eq!(texts(&log, "monitor-1"), ["payload"]);
    let mut lying = publish5(TOPIC, 1, 2, &[38, 0, 1, b'k', 0, 1, b'v'], b"payload");
    let length = lying.iter().position(|byte| *byte == 7).unwrap();
    lying[length] = 5;
    device.send(&lying).await;
    let rest = device.until_closed().await;
    assert_eq!((rest[0], rest[2]), (0xE0, 0x81), "{rest:02x?}");
    let mut device = Raw::connected5(rig.address, "monitor-2").await;
    device.send(&publish5("vitals/monitor-2/a", 0, 0, &[35, 0, 1], b"x")).await;
    let rest = device.until_closed().await;
    assert_eq!((rest[0], rest[2]), (0xE0, 0x94), "topic alias: {rest:02x?}");
    device.send_anyhow(&packet(0xE0, &[])).await;
}
