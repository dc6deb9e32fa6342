//! No bytes that a device can send make the parser panic, loop or read beyond its packet.

use bytes::BytesMut;
use proptest::prelude::*;
use rumqttc::mqttbytes::{QoS as QoSV4, v4};
use rumqttc::v5::mqttbytes::{QoS as QoSV5, v5};

use super::frame::{self, Frame, Framed, Limits};
use super::request::{self, Request};
use super::{Level, Qos, WireFault, connect};

const LIMITS: Limits = Limits { greeting: false, publish_bytes_max: 70_000, control_bytes_max: 8_192 };
const GREETING: Limits = Limits { greeting: true, ..LIMITS };

fn v4_bytes(packet: &v4::Packet) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    packet.write(&mut bytes, 1 << 20).unwrap();
    bytes.to_vec()
}

fn v5_bytes(packet: &v5::Packet) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    packet.write(&mut bytes, None).unwrap();
    bytes.to_vec()
}

fn publish_properties() -> v5::PublishProperties {
    v5::PublishProperties {
        payload_format_indicator: Some(1),
        message_expiry_interval: Some(30),
        topic_alias: None,
        response_topic: Some("a/b".to_owned()),
        correlation_data: Some(vec![1, 2, 3].into()),
        user_properties: vec![("k".to_owned(), "v".to_owned()), ("k".to_owned(), "w".to_owned())],
        subscription_identifiers: Vec::new(),
        content_type: Some("application/json".to_owned()),
    }
}

/// One well-formed packet of every kind that a client sends, in both versions.
fn seeds() -> Vec<(Level, Vec<u8>)> {
    let mut connect = v4::Connect::new("monitor-1");
    connect.set_login("monitor-1", "secret");
    connect.last_will = Some(v4::LastWill::new("vitals/monitor-1/state", "gone", QoSV4::AtLeastOnce, true));
    let mut publish = v4::Publish::new("vitals/monitor-1/a", QoSV4::ExactlyOnce, "{\"seq\":1}");
    publish.pkid = 7;
    let mut subscribe = v4::Subscribe::new("devices/monitor-1/time", QoSV4::AtLeastOnce);
    subscribe.pkid = 8;
    let mut unsubscribe = v4::Unsubscribe::new("devices/monitor-1/time");
    unsubscribe.pkid = 9;
    let v311 = [
        v4::Packet::Connect(connect),
        v4::Packet::Publish(publish),
        v4::Packet::PubRel(v4::PubRel::new(7)),
        v4::Packet::Subscribe(subscribe),
        v4::Packet::Unsubscribe(unsubscribe),
        v4::Packet::PingReq,
        v4::Packet::Disconnect,
    ];
    let mut properties = v5::ConnectProperties::new();
    properties.session_expiry_interval = Some(600);
    properties.receive_maximum = Some(10);
    properties.max_packet_size = Some(4_096);
    properties.request_problem_info = Some(1);
    properties.user_properties = vec![("maker".to_owned(), "x".to_owned())];
    let connect = v5::Connect { keep_alive: 30, client_id: "monitor-1".to_owned(), clean_start: false, properties: Some(properties) };
    let will_properties = v5::LastWillProperties {
        delay_interval: Some(5),
        payload_format_indicator: Some(1),
        message_expiry_interval: Some(9),
        content_type: Some("text/plain".to_owned()),
        response_topic: Some("a".to_owned()),
        correlation_data: Some(vec![9].into()),
        user_properties: vec![("a".to_owned(), "b".to_owned())],
    };
    let will = v5::LastWill::new("vitals/monitor-1/state", "gone", QoSV5::ExactlyOnce, false, Some(will_properties));
    let mut publish = v5::Publish::new("vitals/monitor-1/a", QoSV5::AtLeastOnce, "{\"seq\":1}", Some(publish_properties()));
    publish.pkid = 7;
    let mut subscribe = v5::Subscribe::new(v5::Filter::new("devices/monitor-1/time", QoSV5::ExactlyOnce), None);
    subscribe.pkid = 8;
    let mut unsubscribe = v5::Unsubscribe::new("devices/monitor-1/time", None);
    unsubscribe.pkid = 9;
    let released = v5::PubRelProperties { reason_string: Some("late".to_owned()), user_properties: Vec::new() };
    let left = v5::DisconnectProperties {
        session_expiry_interval: Some(5),
        reason_string: Some("bye".to_owned()),
        user_properties: vec![("a".to_owned(), "b".to_owned())],
        server_reference: None,
    };
    let v5 = [
        v5::Packet::Connect(connect, Some(will), Some(v5::Login::new("monitor-1", "secret"))),
        v5::Packet::Publish(publish),
        v5::Packet::PubRel(v5::PubRel::new(7, Some(released))),
        v5::Packet::Subscribe(subscribe),
        v5::Packet::Unsubscribe(unsubscribe),
        v5::Packet::PingReq(v5::PingReq),
        v5::Packet::Disconnect(v5::Disconnect { reason_code: v5::DisconnectReasonCode::DisconnectWithWillMessage, properties: Some(left) }),
    ];
    let v311 = v311.iter().map(|packet| (Level::V311, v4_bytes(packet)));
    v311.chain(v5.iter().map(|packet| (Level::V5, v5_bytes(packet)))).collect()
}

/// Parses as the connection does; how many bytes were consumed.
fn parse(level: Level, bytes: &[u8]) -> Result<usize, WireFault> {
    let is_connect = bytes.first().is_some_and(|first| first >> 4 == frame::CONNECT);
    match frame::frame(bytes, if is_connect { &GREETING } else { &LIMITS })? {
        Framed::Incomplete { bytes: needed } => {
            assert!(needed > bytes.len(), "waits for bytes that are there: the connection would never go on");
            Ok(0)
        }
        Framed::Complete(frame) => {
            assert!(frame.total <= bytes.len() && frame.total >= 2);
            if is_connect {
                connect::read(frame, bytes).map(|_connect| ())?
            } else {
                request::read(level, frame, bytes).map(|_request| ())?
            }
            Ok(frame.total)
        }
    }
}

#[test]
fn every_wellformed_packet_is_read_and_every_shorter_one_waited_for() {
    for (level, bytes) in seeds() {
        assert_eq!(parse(level, &bytes), Ok(bytes.len()), "{level:?} {bytes:02x?}");
        for end in 0..bytes.len() {
            assert_eq!(parse(level, &bytes[..end]), Ok(0), "{level:?} {bytes:02x?} cut at {end}");
        }
    }
}

/// A packet whose header promises less than its fields need is malformed. (The codec alone would ask for more bytes for ever.)
#[test]
fn a_packet_that_is_too_short_for_its_fields_is_malformed_not_incomplete() {
    for (level, bytes) in seeds() {
        for remaining in 0..(bytes.len() - 2).min(128) {
            let mut short = bytes[..2 + remaining].to_vec();
            short[1] = u8::try_from(remaining).unwrap();
            if let Ok(consumed) = parse(level, &short) {
                assert_eq!(consumed, short.len(), "{level:?} {short:02x?}");
            }
        }
    }
}

/// The two shortest forms of DISCONNECT in v5 (section 3.14.1) are good-byes, not faults.
#[test]
fn the_shortest_disconnects_are_understood() {
    let read = |bytes: &[u8]| {
        let frame = Frame { first: bytes[0], header: 2, total: bytes.len() };
        request::read(Level::V5, frame, bytes)
            .map(|request| matches!(request, Request::Leave { with_will, .. } if with_will == (bytes.len() > 2)))
    };
    assert_eq!(read(&[0xE0, 0]), Ok(true));
    assert_eq!(read(&[0xE0, 1, 4]), Ok(true));
}

/// Mutates bytes: flips, overwrites, removes, inserts, truncates, and doubles what is there.
fn mutate(bytes: &mut Vec<u8>, changes: &[(u8, u16, u8)]) {
    for (how, place, value) in changes {
        let place = usize::from(*place) % bytes.len().max(1);
        match how % 6 {
            0 => bytes.iter_mut().skip(place).take(1).for_each(|byte| *byte ^= 1 << (value % 8)),
            1 => bytes.iter_mut().skip(place).take(1).for_each(|byte| *byte = *value),
            2 if place < bytes.len() => drop(bytes.remove(place)),
            3 => bytes.insert(place, *value),
            4 => bytes.truncate(place),
            _ => bytes.extend_from_within(..),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn mutated_packets_never_break_the_parser(
        index in 0_usize..14,
        other in any::<bool>(),
        fix_length in any::<bool>(),
        changes in prop::collection::vec((any::<u8>(), any::<u16>(), any::<u8>()), 1..6),
    ) {
        let (level, mut bytes) = seeds().swap_remove(index);
        mutate(&mut bytes, &changes);
        if fix_length && bytes.len() >= 2 && bytes.len() < 130 {
            bytes[1] = u8::try_from(bytes.len() - 2).unwrap();
        }
        let level = if other { Level::V5 } else { level };
        let _verdict = parse(level, &bytes);
    }

    #[test]
    fn random_bytes_never_break_the_parser(v5 in any::<bool>(), bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _verdict = parse(if v5 { Level::V5 } else { Level::V311 }, &bytes);
    }

    /// Our PUBLISH reader and the codec agree on every well-formed message.
    #[test]
    fn publish_is_read_as_the_codec_reads_it(
        qos in 0_u8..3, id in 1_u16.., retain in any::<bool>(), dup in any::<bool>(), with_properties in any::<bool>(),
        topic in "[a-zA-Z0-9/_ü-]{1,40}", payload in prop::collection::vec(any::<u8>(), 0..300), v5_level in any::<bool>(),
    ) {
        let bytes = if v5_level {
            let qos = [QoSV5::AtMostOnce, QoSV5::AtLeastOnce, QoSV5::ExactlyOnce][usize::from(qos)];
            let mut packet = v5::Publish::new(topic.clone(), qos, payload.clone(), with_properties.then(publish_properties));
            (packet.pkid, packet.retain, packet.dup) = (if qos == QoSV5::AtMostOnce { 0 } else { id }, retain, dup);
            v5_bytes(&v5::Packet::Publish(packet))
        } else {
            let qos = [QoSV4::AtMostOnce, QoSV4::AtLeastOnce, QoSV4::ExactlyOnce][usize::from(qos)];
            let mut packet = v4::Publish::new(topic.clone(), qos, payload.clone());
            (packet.pkid, packet.retain, packet.dup) = (if qos == QoSV4::AtMostOnce { 0 } else { id }, retain, dup);
            v4_bytes(&v4::Packet::Publish(packet))
        };
        let level = if v5_level { Level::V5 } else { Level::V311 };
        let Ok(Framed::Complete(frame)) = frame::frame(&bytes, &LIMITS) else { return Err(TestCaseError::fail("not framed")) };
        let Ok(Request::Publish(read)) = request::read(level, frame, &bytes) else { return Err(TestCaseError::fail("not read")) };
        prop_assert_eq!(read.topic, topic.as_str());
        prop_assert_eq!(read.payload, payload.as_slice());
        prop_assert_eq!(read.retain, retain);
        prop_assert_eq!(read.qos, [Qos::Zero, Qos::One, Qos::Two][usize::from(qos)]);
        prop_assert_eq!(read.id, if qos == 0 { 0 } else { id });
    }
}
