//! The state in a snapshot record.

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use vitalgate_domain::{DestinationId, DeviceId, ReadingId, SeenReading, Sequence, SequenceRanges, UnixMs};

use super::WireError;
use super::blob::Blob;
use crate::state::State;

type WireRanges = Vec<(u64, u64)>;

/// Bytes of a recent reading: its id, then the hash of its value, little endian.
const SEEN_BYTES: usize = 20;

/// Settled by destination, recent readings by device (one after the other), unresolved, latest wall clock, destinations that were
/// written to by conditional create.
#[derive(Debug, Serialize, Deserialize)]
struct WireState<'a>(
    #[serde(borrow)] Vec<(&'a str, WireRanges)>,
    #[serde(borrow)] Vec<(&'a str, Blob<'a>)>,
    WireRanges,
    Option<i64>,
    #[serde(borrow)] Vec<&'a str>,
);

/// As it was before conditional create was kept: settled by destination, recent readings, unresolved, latest wall clock.
#[derive(Debug, Deserialize)]
struct WireStateBefore<'a>(#[serde(borrow)] Vec<(&'a str, WireRanges)>, #[serde(borrow)] Vec<(&'a str, Blob<'a>)>, WireRanges, Option<i64>);

/// The first one: with the recent readings' ids alone, and, before the latest wall clock, the clocks of boots that nobody used.
#[derive(Debug, Deserialize)]
struct WireStateFirst<'a>(#[serde(borrow)] Vec<(&'a str, WireRanges)>, IgnoredAny, WireRanges, IgnoredAny, Option<i64>);

fn wire_ranges(ranges: &SequenceRanges) -> WireRanges {
    ranges.ranges().iter().map(|(first, last)| (first.0, last.0)).collect()
}

fn ranges(wire: &WireRanges) -> Result<SequenceRanges, WireError> {
    let mut ranges = SequenceRanges::new();
    for (first, last) in wire {
        if first > last || *first == 0 {
            return Err(WireError::Range("range"));
        }
        ranges.insert(Sequence(*first), Sequence(*last));
    }
    Ok(ranges)
}

/// Writes a snapshot.
///
/// # Errors
/// Never for a valid state; CBOR's interface allows it.
pub(crate) fn state_into(state: &State, body: &mut Vec<u8>) -> Result<(), WireError> {
    let joined: Vec<Vec<u8>> = state.seen.iter().map(|(_, readings)| joined(readings)).collect();
    let wire = WireState(
        state.settled.iter().map(|(destination, settled)| (destination.as_str(), wire_ranges(settled))).collect(),
        state.seen.iter().zip(&joined).map(|((device, _), readings)| (device.as_str(), Blob(readings))).collect(),
        wire_ranges(&state.unresolved),
        state.latest_wall.map(|wall| wall.0),
        state.conditional.iter().map(DestinationId::as_str).collect(),
    );
    Ok(serde_cbor::to_writer(body, &wire)?)
}

/// Reads a snapshot, also of an earlier version: each layout has another shape.
///
/// # Errors
/// When it is not what this version or one before wrote.
pub(crate) fn state(body: &[u8]) -> Result<State, WireError> {
    let read = serde_cbor::from_slice(body).or_else(|error| before(body).or_else(|_| first(body)).map_err(|_| error));
    let WireState(settled, seen, unresolved, latest_wall, conditional) = read?;
    let mut state = State { unresolved: ranges(&unresolved)?, latest_wall: latest_wall.map(UnixMs), ..State::default() };
    for (destination, wire) in &settled {
        state.settled.insert(self::destination(destination)?, ranges(wire)?);
    }
    state.conditional = conditional.into_iter().map(destination).collect::<Result<_, _>>()?;
    for (device, joined) in seen {
        let device = DeviceId::new(device).map_err(|_| WireError::Range("device"))?;
        let (readings, rest) = joined.0.as_chunks::<SEEN_BYTES>();
        if !rest.is_empty() {
            return Err(WireError::Range("list of recent readings"));
        }
        state.seen.push((device, readings.iter().map(seen_reading).collect()));
    }
    Ok(state)
}

fn before(body: &[u8]) -> Result<WireState<'_>, serde_cbor::Error> {
    let WireStateBefore(settled, seen, unresolved, latest_wall) = serde_cbor::from_slice(body)?;
    Ok(WireState(settled, seen, unresolved, latest_wall, Vec::new()))
}

/// Without the recent ids: of which values they were is not known, and that a resend of them is stored again does no harm.
fn first(body: &[u8]) -> Result<WireState<'_>, serde_cbor::Error> {
    let WireStateFirst(settled, _, unresolved, _, latest_wall) = serde_cbor::from_slice(body)?;
    Ok(WireState(settled, Vec::new(), unresolved, latest_wall, Vec::new()))
}

fn destination(id: &str) -> Result<DestinationId, WireError> {
    DestinationId::new(id).map_err(|_| WireError::Range("destination"))
}

fn joined(readings: &[SeenReading]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(readings.len() * SEEN_BYTES);
    for reading in readings {
        bytes.extend_from_slice(reading.id.as_bytes());
        bytes.extend_from_slice(&reading.value_digest.to_le_bytes());
    }
    bytes
}

fn seen_reading(bytes: &[u8; SEEN_BYTES]) -> SeenReading {
    let [id @ .., a, b, c, d] = *bytes;
    SeenReading { id: ReadingId::from_bytes(id), value_digest: u32::from_le_bytes([a, b, c, d]) }
}
