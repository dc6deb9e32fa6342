//! The fixed header: where a packet ends, decided before anything of it is kept or decoded.

use super::{WireFault, variable_at};

/// CONNECT.
pub(crate) const CONNECT: u8 = 1;
/// PUBLISH.
pub(crate) const PUBLISH: u8 = 3;
/// PUBACK.
pub(crate) const PUBACK: u8 = 4;
/// PUBREC.
pub(crate) const PUBREC: u8 = 5;
/// PUBREL.
pub(crate) const PUBREL: u8 = 6;
/// PUBCOMP.
pub(crate) const PUBCOMP: u8 = 7;
/// SUBSCRIBE.
pub(crate) const SUBSCRIBE: u8 = 8;
/// UNSUBSCRIBE.
pub(crate) const UNSUBSCRIBE: u8 = 10;
/// PINGREQ.
pub(crate) const PINGREQ: u8 = 12;
/// DISCONNECT.
pub(crate) const DISCONNECT: u8 = 14;

/// What is taken at this moment of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Whether only CONNECT may come.
    pub(crate) greeting: bool,
    /// Largest PUBLISH in bytes, header included.
    pub(crate) publish_bytes_max: usize,
    /// Largest packet of any other kind in bytes, header included.
    pub(crate) control_bytes_max: usize,
}

/// The extent of one whole packet at the start of a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame {
    /// The first byte: packet type and flags.
    pub(crate) first: u8,
    /// Bytes of the fixed header.
    pub(crate) header: usize,
    /// Bytes of the packet, header included.
    pub(crate) total: usize,
}

impl Frame {
    /// The packet type.
    pub(crate) fn kind(self) -> u8 {
        self.first >> 4
    }

    /// The bytes after the fixed header.
    pub(crate) fn body(self, buffer: &[u8]) -> &[u8] {
        buffer.get(self.header..self.total).unwrap_or_default()
    }
}

/// What stands at the start of a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framed {
    /// The packet is not complete; `bytes` are needed in all as far as that is known.
    Incomplete { bytes: usize },
    /// A whole packet.
    Complete(Frame),
}

/// Finds the packet at the start of `buffer`. A packet that is not allowed, or is larger than its
/// limit, is refused as soon as its header says so.
pub(crate) fn frame(buffer: &[u8], limits: &Limits) -> Result<Framed, WireFault> {
    let Some(&first) = buffer.first() else { return Ok(Framed::Incomplete { bytes: 2 }) };
    check_first(first, limits)?;
    let Some((remaining, header)) = variable_at(buffer, 1)? else {
        return Ok(Framed::Incomplete { bytes: buffer.len() + 1 });
    };
    let total = header + remaining;
    let limit = if first >> 4 == PUBLISH { limits.publish_bytes_max } else { limits.control_bytes_max };
    if total > limit {
        return Err(WireFault::Oversize { bytes: total, limit });
    }
    if buffer.len() < total {
        return Ok(Framed::Incomplete { bytes: total });
    }
    Ok(Framed::Complete(Frame { first, header, total }))
}

/// Type and flags (table 2.2 of both versions).
fn check_first(first: u8, limits: &Limits) -> Result<(), WireFault> {
    let (kind, flags) = (first >> 4, first & 0x0F);
    if limits.greeting && kind != CONNECT {
        return Err(WireFault::Protocol("the first packet is not CONNECT"));
    }
    let expected = match kind {
        CONNECT if !limits.greeting => return Err(WireFault::Protocol("a second CONNECT")),
        CONNECT | PUBACK | PUBREC | PUBCOMP | PINGREQ | DISCONNECT => 0,
        PUBREL | SUBSCRIBE | UNSUBSCRIBE => 2,
        PUBLISH if flags & 0b0110 == 0b0110 => return Err(WireFault::Malformed("QoS 3")),
        PUBLISH => flags,
        15 => return Err(WireFault::Protocol("AUTH without enhanced authentication")),
        0 => return Err(WireFault::Malformed("packet type 0")),
        _ => return Err(WireFault::Protocol("a packet that only a server sends")),
    };
    if flags == expected { Ok(()) } else { Err(WireFault::Malformed("flags of the fixed header")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { greeting: false, publish_bytes_max: 1_000, control_bytes_max: 100 };

    /// An oversize packet is known from its header: nothing of its body is needed or kept.
    #[test]
    fn an_oversize_packet_is_refused_from_its_header_alone() {
        assert_eq!(frame(&[0x30, 0xFF, 0xFF, 0xFF, 0x7F], &LIMITS), Err(WireFault::Oversize { bytes: 268_435_460, limit: 1_000 }));
        assert_eq!(frame(&[0x82, 0x7F], &LIMITS), Err(WireFault::Oversize { bytes: 129, limit: 100 }));
        assert_eq!(frame(&[0x30, 0xE5, 0x07], &LIMITS), Ok(Framed::Incomplete { bytes: 1_000 }));
        assert!(matches!(frame(&[0x30, 0xFF, 0xFF, 0xFF, 0xFF], &LIMITS), Err(WireFault::Malformed(_))));
    }

    #[test]
    fn only_packets_that_a_client_may_send_now_pass_the_first_byte() {
        let greeting = Limits { greeting: true, ..LIMITS };
        for first in 0..=255_u8 {
            let now = frame(&[first, 0], &LIMITS).is_ok();
            let allowed = matches!(first, 0x30..=0x35 | 0x38..=0x3D | 0x40 | 0x50 | 0x62 | 0x70 | 0x82 | 0xA2 | 0xC0 | 0xE0);
            assert_eq!(now, allowed, "{first:#04x}");
            assert_eq!(frame(&[first, 0], &greeting).is_ok(), first == 0x10, "{first:#04x} as greeting");
        }
    }
}
