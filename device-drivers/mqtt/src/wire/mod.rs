//! MQTT on the wire: framing and guards of our own, packet bodies by the codec of rumqttc 0.25.1.
//!
//! The codec was written for clients. What it gets wrong as a server, found by reading it and held
//! by the tests here, and how it is kept from mattering:
//! - Its framing answers "more bytes needed" for a body that is too short. [`frame`] frames first and
//!   gives it one whole packet; any error after that is a malformed packet.
//! - Its v5 properties may run past their declared length, so that a malformed PUBLISH shifts its
//!   payload; a subscription identifier is counted twice. [`property`] walks every section strictly first,
//!   and [`publish`] reads PUBLISH without the codec (and without allocating).
//! - Its v5 reader refuses the two shortest DISCONNECT packets, and its writer makes a malformed one
//!   without properties. [`request`] reads DISCONNECT itself, [`answer`] always writes a reason string.
//! - It does not check the flags of the fixed header, the reserved flag of CONNECT, nor bytes left over.

pub(crate) mod answer;
pub(crate) mod connect;
pub(crate) mod frame;
pub(crate) mod property;
pub(crate) mod publish;
pub(crate) mod request;

#[cfg(test)]
mod mutation_tests;

/// The version that CONNECT named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    /// MQTT 3.1.1 (protocol level 4).
    V311,
    /// MQTT 5 (protocol level 5).
    V5,
}

/// How surely a message is handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Qos {
    /// At most once.
    Zero,
    /// At least once.
    One,
    /// Exactly once.
    Two,
}

/// What is wrong with bytes from a device, with the place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WireFault {
    /// It is not MQTT.
    #[error("malformed packet: {0}")]
    Malformed(&'static str),
    /// It is MQTT, but not now or not to a server.
    #[error("protocol error: {0}")]
    Protocol(&'static str),
    /// Larger than what is taken.
    #[error("packet of {bytes} bytes, at most {limit} are taken")]
    Oversize { bytes: usize, limit: usize },
    /// Neither 3.1.1 nor 5.
    #[error("MQTT protocol level {0}, only 4 (3.1.1) and 5 are spoken")]
    Version(u8),
    /// A topic alias, though none was allowed.
    #[error("topic alias used, though the gateway announced none")]
    TopicAlias,
    /// Enhanced authentication (v5), which is not offered.
    #[error("enhanced authentication asked for, it is not offered")]
    Authentication,
}

/// Reads the big-endian number at `at`.
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Result<u16, WireFault> {
    match bytes.get(at..at.saturating_add(2)) {
        Some([high, low]) => Ok(u16::from_be_bytes([*high, *low])),
        _ => Err(WireFault::Malformed("a number is cut off")),
    }
}

/// Reads a length-prefixed field at `at`: the field and the place after it.
pub(crate) fn field_at(bytes: &[u8], at: usize) -> Result<(&[u8], usize), WireFault> {
    let start = at.saturating_add(2);
    let end = start.saturating_add(usize::from(u16_at(bytes, at)?));
    bytes.get(start..end).map(|field| (field, end)).ok_or(WireFault::Malformed("a field is cut off"))
}

/// As [`field_at`], for UTF-8 text without U+0000 (section 1.5.3 of 3.1.1, 1.5.4 of 5).
pub(crate) fn text_at(bytes: &[u8], at: usize) -> Result<(&str, usize), WireFault> {
    let (field, end) = field_at(bytes, at)?;
    let text = std::str::from_utf8(field).map_err(|_invalid| WireFault::Malformed("text is not UTF-8"))?;
    if field.contains(&0) {
        return Err(WireFault::Malformed("text holds U+0000"));
    }
    Ok((text, end))
}

/// Reads a variable byte integer at `at`: the number and the place after it; `None` while it is
/// not complete (section 2.2.3 of 3.1.1, 1.5.5 of 5).
pub(crate) fn variable_at(bytes: &[u8], at: usize) -> Result<Option<(usize, usize)>, WireFault> {
    let mut number = 0_usize;
    for index in 0..4 {
        let Some(byte) = bytes.get(at + index) else { return Ok(None) };
        number |= usize::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok(Some((number, at + index + 1)));
        }
    }
    Err(WireFault::Malformed("a length has more than four bytes"))
}
