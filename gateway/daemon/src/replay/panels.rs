//! The parts of a panel go together, whichever of them is named: one that is sent alone is another Observation, and says of the rest
//! that it never arrived.

use std::collections::{BTreeSet, HashSet};
use std::time::{Duration, Instant};

use vitalgate_domain::limits::READINGS_PER_SAMPLE_MAX;
use vitalgate_domain::{DeviceId, Entry, Metric, Reading, Sequence, SequenceRanges, UnixMs};
use vitalgate_store::{ReadError, Reader};

use super::selection::Selection;
use super::window::Window;

/// How long one request may look for parts. The rest is left to the next.
const LOOK_TIME_MAX: Duration = Duration::from_millis(250);
/// Places on either side of a part among which the others are looked for: those of a message, and of messages close to each other.
pub(crate) const PLACES_MAX: u64 = READINGS_PER_SAMPLE_MAX as u64;

/// What the parts of one panel have in common. Those of one device time that arrived far apart have it too: they were two
/// panels before, and are so again.
#[derive(PartialEq, Eq, Hash)]
struct PanelKey {
    device: DeviceId,
    panel: Metric,
    slot: u16,
    moment: Moment,
    count: Option<u64>,
}

#[derive(PartialEq, Eq, Hash)]
enum Moment {
    /// The device's own time, corrected.
    Device(UnixMs),
    /// Boot and time of arrival.
    Arrival([u8; 16], u64),
}

impl PanelKey {
    fn of(reading: &Reading) -> Option<Self> {
        let panel = reading.metric.definition().panel?;
        let time = &reading.time;
        let moment = match time.device {
            Some(device) => Moment::Device(device.unix_ms.plus_ms(time.correction_ms)),
            None => Moment::Arrival(*time.received.boot.as_bytes(), time.received.monotonic_ms),
        };
        Some(Self { device: reading.device.clone(), panel, slot: reading.slot, moment, count: reading.device_sequence })
    }
}

/// Adds to the selection what is unresolved and of one panel with something in it.
pub(super) fn complete(selection: &mut Selection, unresolved: &SequenceRanges, reader: &Reader) -> Result<(), ReadError> {
    let began = Instant::now();
    let mut window = Window::new(reader);
    let mut before = None;
    let mut panels = HashSet::new();
    let mut nearby = BTreeSet::new();
    for sequence in selection.taken.clone() {
        let is_apart = before.replace(sequence).is_some_and(|before: Sequence| before.plus(PLACES_MAX) < sequence);
        if is_apart && began.elapsed() > LOOK_TIME_MAX {
            selection.leave_from(sequence);
            break;
        }
        if let Some(panel) = panel_at(&mut window, sequence)? {
            panels.insert(panel);
            nearby.extend(around(sequence, unresolved));
        }
    }
    for taken in &selection.taken {
        nearby.remove(taken);
    }
    let mut window = Window::new(reader);
    let mut parts = Vec::new();
    for sequence in nearby {
        if panel_at(&mut window, sequence)?.is_some_and(|panel| panels.contains(&panel)) {
            parts.push(sequence);
        }
    }
    selection.add(parts);
    Ok(())
}

fn panel_at(window: &mut Window<'_>, sequence: Sequence) -> Result<Option<PanelKey>, ReadError> {
    let entry = window.come_to(sequence)?;
    Ok(if let Some(Entry::Reading(reading)) = &entry { PanelKey::of(reading) } else { None })
}

fn around(sequence: Sequence, unresolved: &SequenceRanges) -> impl Iterator<Item = Sequence> {
    let places = sequence.0.saturating_sub(PLACES_MAX)..=sequence.plus(PLACES_MAX).0;
    places.map(Sequence).filter(|place| unresolved.contains(*place))
}
