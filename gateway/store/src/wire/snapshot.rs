//! The state in a snapshot record.

use serde::{Deserialize, Serialize};
use vitalgate_domain::{BootId, DestinationId, DeviceId, ReadingId, Sequence, SequenceRanges, UnixMs};

use super::WireError;
use super::blob::{Blob, Id};
use crate::state::State;

type WireRanges = Vec<(u64, u64)>;

/// Settled by destination, recent ids by device (one after the other), unresolved, clocks, latest wall clock.
#[derive(Debug, Serialize, Deserialize)]
struct WireState<'a>(
    #[serde(borrow)] Vec<(&'a str, WireRanges)>,
    #[serde(borrow)] Vec<(&'a str, Blob<'a>)>,
    WireRanges,
    Vec<(Id, i64)>,
    Option<i64>,
);

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
    let joined: Vec<Vec<u8>> =
        state.seen.iter().map(|(_, ids)| ids.iter().flat_map(|id| id.as_bytes().iter().copied()).collect()).collect();
    let wire = WireState(
        state.settled.iter().map(|(destination, settled)| (destination.as_str(), wire_ranges(settled))).collect(),
        state.seen.iter().zip(&joined).map(|((device, _), ids)| (device.as_str(), Blob(ids))).collect(),
        wire_ranges(&state.unresolved),
        state.clocks.iter().map(|(boot, offset)| (Id(*boot.as_bytes()), *offset)).collect(),
        state.latest_wall.map(|wall| wall.0),
    );
    Ok(serde_cbor::to_writer(body, &wire)?)
}

/// Reads a snapshot.
///
/// # Errors
/// When it is not what this version writes.
pub(crate) fn state(body: &[u8]) -> Result<State, WireError> {
    let WireState(settled, seen, unresolved, clocks, latest_wall) = serde_cbor::from_slice(body)?;
    let mut state = State { unresolved: ranges(&unresolved)?, latest_wall: latest_wall.map(UnixMs), ..State::default() };
    for (destination, wire) in &settled {
        let destination = DestinationId::new(destination).map_err(|_| WireError::Range("destination"))?;
        state.settled.insert(destination, ranges(wire)?);
    }
    for (device, joined) in seen {
        let device = DeviceId::new(device).map_err(|_| WireError::Range("device"))?;
        let (ids, rest) = joined.0.as_chunks::<16>();
        if !rest.is_empty() {
            return Err(WireError::Range("list of ids"));
        }
        state.seen.push((device, ids.iter().map(|id| ReadingId::from_bytes(*id)).collect()));
    }
    state.clocks = clocks.into_iter().map(|(boot, offset)| (BootId::from_bytes(boot.0), offset)).collect();
    Ok(state)
}
