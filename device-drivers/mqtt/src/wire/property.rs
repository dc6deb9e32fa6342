//! The property sections of MQTT 5 (section 2.2.2), walked strictly before the codec sees them.

use super::{WireFault, field_at, text_at, u16_at, variable_at};

/// Properties that may come more than once: user property.
const REPEATABLE: u64 = 1 << 38;

/// Which properties a section may hold, one bit for each identifier.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Allowed(u64);

const fn allowed(identifiers: &[u8]) -> Allowed {
    let (mut bits, mut index) = (0_u64, 0);
    while index < identifiers.len() {
        bits |= 1 << identifiers[index];
        index += 1;
    }
    Allowed(bits)
}

/// CONNECT: session expiry, receive maximum, maximum packet size, topic alias maximum, request
/// response and problem information, user property, authentication method and data.
pub(crate) const IN_CONNECT: Allowed = allowed(&[17, 33, 39, 34, 25, 23, 38, 21, 22]);
/// The will: delay, payload format, message expiry, content type, response topic, correlation, user property.
pub(crate) const IN_WILL: Allowed = allowed(&[24, 1, 2, 3, 8, 9, 38]);
/// PUBLISH from a client. Topic alias is in, to be named when it is refused.
pub(crate) const IN_PUBLISH: Allowed = allowed(&[1, 2, 35, 8, 9, 38, 3]);
/// SUBSCRIBE; subscription identifiers are announced as not available.
pub(crate) const IN_SUBSCRIBE: Allowed = allowed(&[38]);
/// UNSUBSCRIBE.
pub(crate) const IN_UNSUBSCRIBE: Allowed = allowed(&[38]);
/// PUBREL: reason string, user property.
pub(crate) const IN_ACKNOWLEDGEMENT: Allowed = allowed(&[31, 38]);
/// DISCONNECT: session expiry, reason string, user property.
pub(crate) const IN_DISCONNECT: Allowed = allowed(&[17, 31, 38]);

/// What a walk over a section found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Section {
    /// The place after the section.
    pub(crate) end: usize,
    /// The session expiry interval in seconds.
    pub(crate) session_expiry_s: Option<u32>,
    /// The will delay interval in seconds.
    pub(crate) will_delay_s: Option<u32>,
    /// Whether there is a topic alias.
    pub(crate) topic_alias: bool,
    /// Whether there is an authentication method.
    pub(crate) authentication: bool,
    /// The largest packet in bytes that the client takes.
    pub(crate) packet_bytes_max: Option<u32>,
}

/// Walks the section at `at` to exactly its declared end.
pub(crate) fn walk(bytes: &[u8], at: usize, allowed: Allowed) -> Result<Section, WireFault> {
    let Some((length, start)) = variable_at(bytes, at)? else {
        return Err(WireFault::Malformed("the properties' length is missing"));
    };
    let end = start.saturating_add(length);
    let section = bytes.get(..end).ok_or(WireFault::Malformed("the properties run past the packet"))?;
    let mut found = Section { end, ..Section::default() };
    let (mut place, mut seen) = (start, 0_u64);
    while let Some(&identifier) = section.get(place) {
        let bit = 1_u64.checked_shl(u32::from(identifier)).unwrap_or(0);
        if bit & allowed.0 == 0 {
            return Err(WireFault::Protocol("a property that does not belong into this packet"));
        }
        if bit & seen & !REPEATABLE != 0 {
            return Err(WireFault::Protocol("a property that comes twice"));
        }
        seen |= bit;
        place = take(section, identifier, place + 1, &mut found)?;
    }
    Ok(found)
}

/// Reads one value, keeps what matters here, gives the place after it.
fn take(section: &[u8], identifier: u8, at: usize, found: &mut Section) -> Result<usize, WireFault> {
    match identifier {
        1 | 23 | 25 => match section.get(at) {
            Some(0 | 1) => Ok(at + 1),
            _ => Err(WireFault::Protocol("a yes-or-no property is neither")),
        },
        33 if u16_at(section, at)? == 0 => Err(WireFault::Protocol("receive maximum 0")),
        33 | 34 => u16_at(section, at).map(|_value| at + 2),
        35 => {
            found.topic_alias = true;
            u16_at(section, at).map(|_value| at + 2)
        }
        2 | 17 | 24 | 39 => {
            let value = u32::from(u16_at(section, at)?) << 16 | u32::from(u16_at(section, at + 2)?);
            match identifier {
                17 => found.session_expiry_s = Some(value),
                24 => found.will_delay_s = Some(value),
                39 if value == 0 => return Err(WireFault::Protocol("maximum packet size 0")),
                39 => found.packet_bytes_max = Some(value),
                _ => {}
            }
            Ok(at + 4)
        }
        9 | 22 => field_at(section, at).map(|(_value, end)| end),
        38 => text_at(section, at).and_then(|(_name, end)| text_at(section, end)).map(|(_value, end)| end),
        _ => {
            found.authentication |= identifier == 21;
            text_at(section, at).map(|(_value, end)| end)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A section that lies about its length would shift what follows it: here the payload.
    #[test]
    fn a_property_never_runs_past_its_section() {
        let overrun = [6, 38, 0, 1, b'a', 0, 1, b'b', b'!'];
        assert!(matches!(walk(&overrun, 0, IN_PUBLISH), Err(WireFault::Malformed(_))));
        let exact = [7, 38, 0, 1, b'a', 0, 1, b'b', b'!'];
        assert_eq!(walk(&exact, 0, IN_PUBLISH).map(|section| section.end), Ok(8));
    }

    #[test]
    fn a_property_comes_once_and_only_where_it_belongs() {
        assert!(walk(&[10, 17, 0, 0, 0, 1, 17, 0, 0, 0, 1], 0, IN_CONNECT).is_err());
        assert!(walk(&[2, 11, 1], 0, IN_PUBLISH).is_err());
        assert!(walk(&[5, 39, 0, 0, 0, 0], 0, IN_CONNECT).is_err());
        assert!(walk(&[2, 200, 1], 0, IN_CONNECT).is_err());
        assert_eq!(walk(&[5, 17, 0, 0, 1, 0], 0, IN_CONNECT).map(|section| section.session_expiry_s), Ok(Some(256)));
    }
}
