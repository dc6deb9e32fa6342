//! Reading dead letters again, for one who is entitled to ask.

use std::sync::Arc;

use vitalgate_console::{Answered, ReadModelError, Resolution, ResolveRequest};
use vitalgate_domain::{
    Associations, Change, ClockTrust, DecodedSample, Entry, Flags, Now, RawSample, Reading, Sequence, SequenceRanges, Subject,
};
use vitalgate_store::Reader;

use crate::devices::Devices;

/// Most dead letters that one request resolves.
pub(crate) const RESOLVED_PER_REQUEST_MAX: usize = 1_000;

/// Reads dead letters again.
pub(crate) struct Replay {
    /// Where they are.
    pub(crate) reader: Reader,
    /// How their bytes are decoded today.
    pub(crate) devices: Arc<Devices>,
}

/// What the commit loop has to do.
#[derive(Default)]
pub(crate) struct Plan {
    /// Samples to admit again.
    pub(crate) samples: Vec<DecodedSample>,
    /// Readings to store again.
    pub(crate) entries: Vec<Entry>,
    /// The change that resolves the old ones, in the same commit.
    pub(crate) change: Option<Change>,
    /// The answer.
    pub(crate) answered: Answered,
}

impl Replay {
    /// Plans what the request asks for. Nothing is changed here; `note` says who wants it.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) fn plan(
        &self,
        request: &ResolveRequest,
        unresolved: &SequenceRanges,
        associations: &Associations,
        now: &Now,
        note: &str,
    ) -> Result<Plan, ReadModelError> {
        let mut plan = Plan::default();
        let mut resolved = Vec::new();
        for sequence in wanted(request, unresolved) {
            let taken = match request.resolution {
                Resolution::Discard => true,
                Resolution::Replay => self.read_again(sequence, associations, now, &mut plan)?,
            };
            if taken {
                resolved.push(sequence);
            }
        }
        plan.answered = Answered { resolved: resolved.len() as u64, remaining: count(unresolved) - resolved.len() as u64 };
        if !resolved.is_empty() {
            plan.change = Some(Change::DeadLettersResolved { sequences: resolved, note: note.into() });
        }
        Ok(plan)
    }

    fn read_again(&self, sequence: Sequence, associations: &Associations, now: &Now, plan: &mut Plan) -> Result<bool, ReadModelError> {
        let record = self.reader.get(sequence).map_err(|error| ReadModelError::Store(error.to_string()))?;
        match record.map(|record| record.entry) {
            Some(Entry::Reading(reading)) => {
                let trust_before = reading.time.received.trust;
                let reading = bound_again(reading, associations, now);
                let got_its_moment = reading.time.received.trust != trust_before;
                let stays = reading.subject == Subject::Unassigned && !got_its_moment;
                if !stays {
                    plan.entries.push(Entry::Reading(reading));
                }
                // Still nobody's: it would only be held once more.
                Ok(!stays)
            }
            Some(Entry::DeadLetter(letter)) => {
                let sample =
                    RawSample { device: letter.device.clone(), channel: letter.channel, bytes: letter.bytes, received: letter.received };
                match self.devices.decode(&letter.device, sample) {
                    Some(sample) if sample.unreadable.is_none() => {
                        plan.samples.push(sample);
                        Ok(true)
                    }
                    // Still not readable: it stays where it is, with its reason.
                    _ => Ok(false),
                }
            }
            _ => Ok(false),
        }
    }
}

/// The reading once more, with today's association for its own moment. Its identity stays, and so
/// does a patient that it was bound to, unless the configuration states another for that moment.
fn bound_again(mut reading: Reading, associations: &Associations, now: &Now) -> Reading {
    let received = &mut reading.time.received;
    if received.trust == ClockTrust::Unset && now.trust != ClockTrust::Unset && received.boot == now.boot {
        // Monotonic time of the same power-on tells how long ago it was.
        let age_ms = i64::try_from(now.monotonic_ms.saturating_sub(received.monotonic_ms)).unwrap_or(i64::MAX);
        received.wall = now.wall.plus_ms(-age_ms);
        received.trust = now.trust;
    }
    reading.subject = associations.subject_again(&reading.subject, &reading.device, reading.time.effective());
    reading.flags = reading.flags.with(Flags::REPLAYED);
    reading
}

fn wanted(request: &ResolveRequest, unresolved: &SequenceRanges) -> Vec<Sequence> {
    if request.sequences.is_empty() {
        let every = unresolved.ranges().iter().flat_map(|(first, last)| (first.0..=last.0).map(Sequence));
        return every.take(RESOLVED_PER_REQUEST_MAX).collect();
    }
    let named = request.sequences.iter().map(|sequence| Sequence(*sequence));
    named.filter(|sequence| unresolved.contains(*sequence)).take(RESOLVED_PER_REQUEST_MAX).collect()
}

/// How many sequences a set holds.
pub(crate) fn count(ranges: &SequenceRanges) -> u64 {
    ranges.ranges().iter().map(|(first, last)| last.0 - first.0 + 1).sum()
}
