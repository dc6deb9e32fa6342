//! PUBLISH (section 3.3 of both versions), read in place: the way that every reading comes.

use super::{Level, Qos, WireFault, property, text_at, u16_at};

/// A message, borrowed from the buffer it arrived in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Publish<'a> {
    /// How surely it is to be handed over.
    pub(crate) qos: Qos,
    /// The retain flag: nothing is ever kept for other clients, so it only tells an empty payload
    /// that clears a topic from one that is broken.
    pub(crate) retain: bool,
    /// The packet identifier; 0 for QoS 0.
    pub(crate) id: u16,
    /// The topic.
    pub(crate) topic: &'a str,
    /// The payload, which may be empty.
    pub(crate) payload: &'a [u8],
}

/// Reads the body of a PUBLISH with the given first byte.
pub(crate) fn read(level: Level, first: u8, body: &[u8]) -> Result<Publish<'_>, WireFault> {
    let (topic, mut place) = text_at(body, 0)?;
    let qos = match (first >> 1) & 0b11 {
        0 => Qos::Zero,
        1 => Qos::One,
        2 => Qos::Two,
        _ => return Err(WireFault::Malformed("QoS 3")),
    };
    let mut id = 0;
    if qos != Qos::Zero {
        id = u16_at(body, place)?;
        place += 2;
        if id == 0 {
            return Err(WireFault::Protocol("packet identifier 0"));
        }
    }
    if level == Level::V5 {
        let section = property::walk(body, place, property::IN_PUBLISH)?;
        if section.topic_alias {
            return Err(WireFault::TopicAlias);
        }
        place = section.end;
    }
    if topic.is_empty() || topic.contains(['+', '#']) {
        return Err(WireFault::Malformed("a topic that is empty or holds a wildcard"));
    }
    let payload = body.get(place..).ok_or(WireFault::Malformed("PUBLISH is cut off"))?;
    Ok(Publish { qos, retain: first & 1 != 0, id, topic, payload })
}
