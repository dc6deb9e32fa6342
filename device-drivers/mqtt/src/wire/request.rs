//! Every packet that a client may send after CONNECT.

use bytes::BytesMut;
use rumqttc::mqttbytes::v4;
use rumqttc::v5::mqttbytes::v5;

use super::frame::{self, Frame};
use super::publish::{self, Publish};
use super::{Level, WireFault, property, u16_at};

/// The one reason of DISCONNECT (v5) that takes the will back (section 3.14.4); none said counts as this.
const NORMAL_DISCONNECTION: u8 = 0x00;

/// A packet of a connected client.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Request<'a> {
    /// A message.
    Publish(Publish<'a>),
    /// PUBREL: the client let go of this QoS 2 message.
    Release(u16),
    /// SUBSCRIBE.
    Subscribe { id: u16, filters: Vec<String> },
    /// UNSUBSCRIBE.
    Unsubscribe { id: u16, filters: Vec<String> },
    /// PINGREQ.
    Ping,
    /// DISCONNECT, perhaps leaving the will due, perhaps with another session expiry in seconds.
    Leave { with_will: bool, session_expiry_s: Option<u32> },
}

/// Reads the whole packet that `frame` found at the start of `packet`.
pub(crate) fn read(level: Level, frame: Frame, packet: &[u8]) -> Result<Request<'_>, WireFault> {
    let body = frame.body(packet);
    match frame.kind() {
        frame::PUBLISH => publish::read(level, frame.first, body).map(Request::Publish),
        frame::PUBREL => release(level, body).map(Request::Release),
        frame::SUBSCRIBE | frame::UNSUBSCRIBE => filters(level, frame, packet),
        frame::PINGREQ if body.is_empty() => Ok(Request::Ping),
        frame::PINGREQ => Err(WireFault::Malformed("PINGREQ with a body")),
        frame::DISCONNECT => leave(level, body),
        _ => Err(WireFault::Protocol("an acknowledgement of something that was never sent")),
    }
}

fn release(level: Level, body: &[u8]) -> Result<u16, WireFault> {
    let id = identifier(body)?;
    match (level, body.len()) {
        (_, 2) => Ok(id),
        (Level::V311, _) => Err(WireFault::Malformed("PUBREL is not two bytes long")),
        (Level::V5, 3) => Ok(id),
        (Level::V5, _) => whole(body, 3, property::IN_ACKNOWLEDGEMENT).map(|_section| id),
    }
}

fn leave(level: Level, body: &[u8]) -> Result<Request<'static>, WireFault> {
    let with_will = body.first().is_some_and(|reason| *reason != NORMAL_DISCONNECTION);
    match (level, body.len()) {
        (_, 0) => Ok(Request::Leave { with_will: false, session_expiry_s: None }),
        (Level::V311, _) => Err(WireFault::Malformed("DISCONNECT with a body")),
        (Level::V5, 1) => Ok(Request::Leave { with_will, session_expiry_s: None }),
        (Level::V5, _) => {
            let section = whole(body, 1, property::IN_DISCONNECT)?;
            Ok(Request::Leave { with_will, session_expiry_s: section.session_expiry_s })
        }
    }
}

fn identifier(body: &[u8]) -> Result<u16, WireFault> {
    match u16_at(body, 0)? {
        0 => Err(WireFault::Protocol("packet identifier 0")),
        id => Ok(id),
    }
}

/// A property section that ends the packet.
fn whole(body: &[u8], at: usize, allowed: property::Allowed) -> Result<property::Section, WireFault> {
    let section = property::walk(body, at, allowed)?;
    if section.end == body.len() { Ok(section) } else { Err(WireFault::Malformed("bytes left over")) }
}

/// SUBSCRIBE and UNSUBSCRIBE, by the codec once the properties are known to be sound.
fn filters(level: Level, frame: Frame, packet: &[u8]) -> Result<Request<'static>, WireFault> {
    let body = frame.body(packet);
    let id = identifier(body)?;
    let subscribe = frame.kind() == frame::SUBSCRIBE;
    if level == Level::V5 {
        let allowed = if subscribe { property::IN_SUBSCRIBE } else { property::IN_UNSUBSCRIBE };
        property::walk(body, 2, allowed)?;
    }
    let mut bytes = BytesMut::from(packet.get(..frame.total).unwrap_or_default());
    let filters: Vec<String> = match level {
        Level::V311 => match v4::Packet::read(&mut bytes, frame.total) {
            Ok(v4::Packet::Subscribe(packet)) => packet.filters.into_iter().map(|filter| filter.path).collect(),
            Ok(v4::Packet::Unsubscribe(packet)) => packet.topics,
            _ => return Err(WireFault::Malformed("SUBSCRIBE or UNSUBSCRIBE")),
        },
        Level::V5 => match v5::Packet::read(&mut bytes, None) {
            Ok(v5::Packet::Subscribe(packet)) => packet.filters.into_iter().map(|filter| filter.path).collect(),
            Ok(v5::Packet::Unsubscribe(packet)) => packet.filters,
            _ => return Err(WireFault::Malformed("SUBSCRIBE or UNSUBSCRIBE")),
        },
    };
    if filters.is_empty() {
        return Err(WireFault::Protocol("no topic filter"));
    }
    Ok(if subscribe { Request::Subscribe { id, filters } } else { Request::Unsubscribe { id, filters } })
}
