//! CONNECT (section 3.1 of both versions): walked here, its texts read by the codec.

use bytes::BytesMut;
use rumqttc::mqttbytes::v4;
use rumqttc::v5::mqttbytes::v5;

use super::frame::Frame;
use super::property::{self, Section};
use super::{Level, WireFault, field_at, text_at, u16_at};

const RESERVED: u8 = 0b0000_0001;
const CLEAN: u8 = 0b0000_0010;
const WILL: u8 = 0b0000_0100;
const WILL_QOS: u8 = 0b0001_1000;
const WILL_RETAIN: u8 = 0b0010_0000;
const PASSWORD: u8 = 0b0100_0000;
const USERNAME: u8 = 0b1000_0000;

/// User name and password. No `Debug`: it must not reach a log.
pub(crate) struct Login {
    /// The user name.
    pub(crate) username: String,
    /// The password.
    pub(crate) password: String,
}

/// What a client asks for when it connects.
pub(crate) struct Connect {
    /// The version it speaks.
    pub(crate) level: Level,
    /// The client id; may be empty.
    pub(crate) client_id: String,
    /// Whether what was kept for it is to be forgotten.
    pub(crate) clean: bool,
    /// The keep-alive in seconds; 0 for none.
    pub(crate) keep_alive_s: u16,
    /// How long its state is to be kept after the connection, in seconds; `u32::MAX` for ever.
    pub(crate) session_expiry_s: u32,
    /// Whether it left a will, and after how many seconds that is due.
    pub(crate) will_delay_s: Option<u32>,
    /// User name and password.
    pub(crate) login: Option<Login>,
    /// The largest packet in bytes that it takes.
    pub(crate) packet_bytes_max: usize,
}

/// The version a CONNECT names, readable even where the rest is not.
pub(crate) fn level(body: &[u8]) -> Result<Level, WireFault> {
    let (name, place) = field_at(body, 0)?;
    match (name, body.get(place)) {
        (b"MQTT", Some(4)) => Ok(Level::V311),
        (b"MQTT", Some(5)) => Ok(Level::V5),
        (b"MQTT" | b"MQIsdp", Some(&other)) => Err(WireFault::Version(other)),
        _ => Err(WireFault::Malformed("CONNECT does not name MQTT")),
    }
}

/// Reads a whole CONNECT packet.
pub(crate) fn read(frame: Frame, packet: &[u8]) -> Result<Connect, WireFault> {
    let body = frame.body(packet);
    let level = level(body)?;
    let walked = walk(level, body)?;
    let mut bytes = BytesMut::from(packet.get(..frame.total).unwrap_or_default());
    let malformed = WireFault::Malformed("CONNECT");
    let (client_id, login) = match level {
        Level::V311 => match v4::Packet::read(&mut bytes, frame.total) {
            Ok(v4::Packet::Connect(connect)) => {
                let login = connect.login.map(|login| Login { username: login.username, password: login.password });
                (connect.client_id, login)
            }
            _ => return Err(malformed),
        },
        Level::V5 => match v5::Packet::read(&mut bytes, None) {
            Ok(v5::Packet::Connect(connect, _will, login)) => {
                let login = login.map(|login| Login { username: login.username, password: login.password });
                (connect.client_id, login)
            }
            _ => return Err(malformed),
        },
    };
    let clean = walked.flags & CLEAN != 0;
    let session_expiry_s = match level {
        Level::V311 if clean => 0,
        Level::V311 => u32::MAX,
        Level::V5 => walked.section.session_expiry_s.unwrap_or(0),
    };
    Ok(Connect {
        level,
        client_id,
        clean,
        keep_alive_s: walked.keep_alive_s,
        session_expiry_s,
        will_delay_s: (walked.flags & WILL != 0).then_some(walked.will_delay_s),
        login,
        packet_bytes_max: walked.section.packet_bytes_max.map_or(usize::MAX, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX)),
    })
}

struct Walked {
    flags: u8,
    keep_alive_s: u16,
    section: Section,
    will_delay_s: u32,
}

/// Walks the body to exactly its end, so that the codec cannot misread it.
fn walk(level: Level, body: &[u8]) -> Result<Walked, WireFault> {
    let flags = *body.get(7).ok_or(WireFault::Malformed("CONNECT is cut off"))?;
    check_flags(level, flags)?;
    let keep_alive_s = u16_at(body, 8)?;
    let mut section = Section { end: 10, ..Section::default() };
    if level == Level::V5 {
        section = property::walk(body, 10, property::IN_CONNECT)?;
        if section.authentication {
            return Err(WireFault::Authentication);
        }
    }
    let (_client_id, mut place) = text_at(body, section.end)?;
    let mut will_delay_s = 0;
    if flags & WILL != 0 {
        if level == Level::V5 {
            let will = property::walk(body, place, property::IN_WILL)?;
            will_delay_s = will.will_delay_s.unwrap_or(0);
            place = will.end;
        }
        let (topic, after_topic) = text_at(body, place)?;
        if topic.is_empty() || topic.contains(['+', '#']) {
            return Err(WireFault::Malformed("the will's topic is empty or holds a wildcard"));
        }
        place = field_at(body, after_topic)?.1;
    }
    if flags & USERNAME != 0 {
        place = text_at(body, place)?.1;
    }
    if flags & PASSWORD != 0 {
        place = field_at(body, place)?.1;
    }
    if place == body.len() {
        Ok(Walked { flags, keep_alive_s, section, will_delay_s })
    } else {
        Err(WireFault::Malformed("bytes left over after CONNECT"))
    }
}

fn check_flags(level: Level, flags: u8) -> Result<(), WireFault> {
    let will_parts = flags & (WILL_QOS | WILL_RETAIN);
    if flags & RESERVED != 0 {
        return Err(WireFault::Malformed("the reserved flag of CONNECT is set"));
    }
    if (flags & WILL == 0 && will_parts != 0) || flags & WILL_QOS == WILL_QOS {
        return Err(WireFault::Malformed("the will's flags"));
    }
    if level == Level::V311 && flags & PASSWORD != 0 && flags & USERNAME == 0 {
        return Err(WireFault::Malformed("a password without a user name"));
    }
    Ok(())
}
