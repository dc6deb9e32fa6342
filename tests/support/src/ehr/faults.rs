//! What can go wrong with a server, on demand or at random from a seed.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

/// Gives the text to refuse an Observation with, `None` to take it.
pub type Poison = Arc<dyn Fn(&Value) -> Option<String> + Send + Sync>;

/// What is asked for, as far as faults care.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Request {
    /// Nothing is changed.
    Read,
    /// One resource is written.
    Write,
    /// A bundle is written: a delivery.
    Bundle,
}

/// One way to misbehave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// Answers with this status and nothing is stored; any request.
    Status(u16),
    /// Answers 429 with `Retry-After` in seconds; any request.
    Busy {
        /// Seconds to wait.
        retry_after_s: u32,
    },
    /// Takes the request and never answers; any request.
    Hang,
    /// Answers late; any request.
    Late(Duration),
    /// Stores everything, then cuts the connection without an answer; writes only.
    ResetAfterStored,
    /// Stores everything and answers 2xx with half of the JSON; writes only.
    TruncatedBody,
    /// Stores everything, announces the whole answer and cuts the connection in its middle; writes only.
    CutBody,
    /// Refuses transactions with 422 and answers this status for every `every`-th entry of a batch.
    PartOfBatch {
        /// From 1: every entry.
        every: usize,
        /// The status of those entries; they are not stored.
        status: u16,
    },
}

/// Faults at random.
#[derive(Debug, Clone, PartialEq)]
pub struct FaultMix {
    /// The same seed and order of requests gives the same faults.
    pub seed: u64,
    /// Part of the requests that meet a fault, 0 to 1.
    pub part: f64,
    /// Those that are drawn from; all alike.
    pub faults: Vec<Fault>,
}

impl FaultMix {
    /// Everything that passes by itself, a third of the requests.
    #[must_use]
    pub fn transient(seed: u64) -> Self {
        let faults = vec![
            Fault::Status(500),
            Fault::Status(502),
            Fault::Status(503),
            Fault::Status(408),
            Fault::Busy { retry_after_s: 1 },
            Fault::ResetAfterStored,
            Fault::TruncatedBody,
            Fault::CutBody,
            Fault::Late(Duration::from_millis(200)),
        ];
        Self { seed, part: 0.33, faults }
    }
}

impl Fault {
    fn concerns(self, request: Request) -> bool {
        match self {
            Self::Status(_) | Self::Busy { .. } | Self::Hang | Self::Late(_) => true,
            Self::ResetAfterStored | Self::TruncatedBody | Self::CutBody | Self::PartOfBatch { .. } => request != Request::Read,
        }
    }
}

/// What stands at the moment.
#[derive(Default)]
pub(crate) struct Faults {
    standing: Option<Fault>,
    queued: VecDeque<(Fault, u32)>,
    mix: Option<(FaultMix, fastrand::Rng)>,
    met: HashMap<Fault, u64>,
    pub(crate) poison: Option<Poison>,
    pub(crate) entries_max: Option<usize>,
}

impl Faults {
    pub(crate) fn stand(&mut self, fault: Fault) {
        self.standing = Some(fault);
    }

    pub(crate) fn queue(&mut self, fault: Fault, times: u32) {
        if times > 0 {
            self.queued.push_back((fault, times));
        }
    }

    pub(crate) fn mix(&mut self, mix: FaultMix) {
        let rng = fastrand::Rng::with_seed(mix.seed);
        self.mix = Some((mix, rng));
    }

    pub(crate) fn clear(&mut self) {
        self.standing = None;
        self.queued.clear();
        self.mix = None;
    }

    /// How many of the queued faults nobody met yet.
    pub(crate) fn left(&self) -> u32 {
        self.queued.iter().map(|(_, times)| times).sum()
    }

    /// How many deliveries met this fault since the start.
    pub(crate) fn met(&self, fault: Fault) -> u64 {
        self.met.get(&fault).copied().unwrap_or(0)
    }

    /// The fault that the next request meets.
    pub(crate) fn next(&mut self, request: Request) -> Option<Fault> {
        let fault = self.draw(request)?;
        if request == Request::Bundle {
            *self.met.entry(fault).or_default() += 1;
        }
        Some(fault)
    }

    fn draw(&mut self, request: Request) -> Option<Fault> {
        if let Some((fault, left)) = self.queued.front_mut().filter(|_| request == Request::Bundle) {
            let fault = *fault;
            *left -= 1;
            if *left == 0 {
                self.queued.pop_front();
            }
            return Some(fault);
        }
        if let Some(fault) = self.standing.filter(|fault| fault.concerns(request)) {
            return Some(fault);
        }
        let (mix, rng) = self.mix.as_mut()?;
        if rng.f64() >= mix.part {
            return None;
        }
        rng.choice(&mix.faults).copied().filter(|fault| fault.concerns(request))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_faults() {
        let drawn = |seed| {
            let mut faults = Faults::default();
            faults.mix(FaultMix::transient(seed));
            (0..50).map(|_| faults.next(Request::Bundle)).collect::<Vec<_>>()
        };
        assert_eq!(drawn(7), drawn(7));
        assert_ne!(drawn(7), drawn(8));
        assert!(drawn(7).iter().any(Option::is_some) && drawn(7).iter().any(Option::is_none));
    }

    #[test]
    fn a_fault_with_a_number_waits_for_a_delivery() {
        let mut faults = Faults::default();
        faults.queue(Fault::Status(500), 1);
        assert_eq!([faults.next(Request::Read), faults.next(Request::Write)], [None, None]);
        assert_eq!(faults.left(), 1);
        assert_eq!([faults.next(Request::Bundle), faults.next(Request::Bundle)], [Some(Fault::Status(500)), None]);
        assert_eq!(faults.left(), 0);
    }

    #[test]
    fn a_fault_counts_as_met_by_a_delivery_only() {
        let mut faults = Faults::default();
        faults.mix(FaultMix { part: 1.0, faults: vec![Fault::Status(500)], seed: 1 });
        for request in [Request::Read, Request::Write, Request::Bundle, Request::Bundle] {
            assert_eq!(faults.next(request), Some(Fault::Status(500)));
        }
        faults.clear();
        assert_eq!((faults.met(Fault::Status(500)), faults.met(Fault::Hang)), (2, 0));
    }

    #[test]
    fn a_standing_fault_of_writes_lets_reads_pass() {
        let mut faults = Faults::default();
        faults.stand(Fault::ResetAfterStored);
        assert_eq!([faults.next(Request::Read), faults.next(Request::Write)], [None, Some(Fault::ResetAfterStored)]);
    }
}
