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
        let (wanted, not_reached) = wanted(request, unresolved);
        for sequence in wanted {
            let taken = match request.resolution {
                Resolution::Discard => true,
                Resolution::Replay => self.read_again(sequence, associations, now, &mut plan)?,
            };
            if taken {
                resolved.push(sequence);
            }
        }
        plan.answered = Answered { resolved: resolved.len() as u64, remaining: count(unresolved) - resolved.len() as u64, not_reached };
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

/// What one request takes, and between which places lies what it leaves to the next.
fn wanted(request: &ResolveRequest, unresolved: &SequenceRanges) -> (Vec<Sequence>, Option<(u64, u64)>) {
    if !request.sequences.is_empty() {
        let named = request.sequences.iter().map(|sequence| Sequence(*sequence));
        return (named.filter(|sequence| unresolved.contains(*sequence)).take(RESOLVED_PER_REQUEST_MAX).collect(), None);
    }
    let (from, until) = request.among.unwrap_or((0, u64::MAX));
    let mut every = unresolved.ranges().iter().flat_map(|(first, last)| first.0.max(from)..=last.0.min(until));
    let taken = every.by_ref().take(RESOLVED_PER_REQUEST_MAX).map(Sequence).collect();
    let next = every.next();
    let newest = unresolved.ranges().last().map(|(_, last)| last.0.min(until));
    (taken, next.zip(newest))
}

/// How many sequences a set holds.
pub(crate) fn count(ranges: &SequenceRanges) -> u64 {
    ranges.ranges().iter().map(|(first, last)| last.0 - first.0 + 1).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Promise 4: all means all, also behind a thousand that cannot be read again, and what comes meanwhile is not waited for.
    #[test]
    fn request_after_request_comes_to_each_dead_letter_once() {
        let mut unresolved = SequenceRanges::default();
        unresolved.insert(Sequence(5), Sequence(1_199));
        unresolved.insert(Sequence(2_000), Sequence(3_899));
        let mut request = ResolveRequest { sequences: Vec::new(), among: None, resolution: Resolution::Replay };
        let mut reached = Vec::new();
        loop {
            let (taken, rest) = wanted(&request, &unresolved);
            assert!(!taken.is_empty() && taken.len() <= RESOLVED_PER_REQUEST_MAX);
            reached.extend(taken.iter().map(|sequence| sequence.0));
            let came = Sequence(10_000 + reached.len() as u64);
            unresolved.insert(came, came);
            if rest.is_none() {
                break;
            }
            request.among = rest;
        }
        assert_eq!(reached, (5..1_200).chain(2_000..3_900).collect::<Vec<_>>());
        request = ResolveRequest { sequences: vec![7, 4, 2_000], among: None, ..request };
        assert_eq!(wanted(&request, &unresolved), (vec![Sequence(7), Sequence(2_000)], None));
    }
}
