//! The circuit breaker in front of one destination.

use super::jitter::Jitter;
use super::message::{AlarmKind, RequestId};

/// So many failures of whole requests in a row open the breaker.
pub const BREAKER_FAILURES: u32 = 5;
/// Shortest wait between two probes of a destination that does not answer, in milliseconds.
pub const PROBE_WAIT_MIN_MS: u64 = 1_000;
/// Longest wait between two probes of a destination that does not answer, in milliseconds.
///
/// It does not grow with the outage: what waits is to be on its way again about two seconds after the
/// destination is. That costs it less than one request a second from a gateway that has something to send, and
/// nothing from one that has not; one at a time, spread at random so that gateways do not come in step, never
/// before its `Retry-After`, and small (the transport sends a server that failed one reading before the others).
pub const PROBE_WAIT_MAX_MS: u64 = 2_000;
/// Upper bound of the wait before the first probe of a destination that refuses us, in milliseconds.
pub const PAUSED_BASE_MS: u64 = 1_000;
/// Longest wait between two probes of a destination that refuses us, in milliseconds.
pub const PAUSED_WAIT_MAX_MS: u64 = 60_000;
/// Longest time that a destination's `Retry-After` is believed, in milliseconds.
pub const RETRY_AFTER_MAX_MS: u64 = 3_600_000;
/// Longest `Retry-After` that is waited for without an alarm, in milliseconds.
pub const RETRY_AFTER_SILENT_MAX_MS: u64 = 10_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Everything may go.
    Closed,
    /// Nothing may go before this moment, then one probe.
    Open { until_ms: u64 },
    /// One probe is under way.
    Probing(RequestId),
}

/// What may be sent now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Permission {
    /// As much as there is room for.
    Free,
    /// One request, to see whether the destination is back.
    Probe,
    /// Nothing.
    Shut,
}

/// The failure of a whole request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Failed {
    pub(super) request: RequestId,
    pub(super) retry_after_ms: Option<u64>,
    /// Whether it says something about the destination.
    pub(super) counts: bool,
}

/// The breaker. It remembers failures of whole requests only: a destination that answers for each
/// reading is there.
#[derive(Debug)]
pub(super) struct Gate {
    state: State,
    failures: u32,
    /// How often in a row it opened or a probe failed.
    openings: u32,
    reason: AlarmKind,
    /// The destination asked to be left alone until then.
    hold_until_ms: u64,
}

impl Gate {
    pub(super) fn new() -> Self {
        Self { state: State::Closed, failures: 0, openings: 0, reason: AlarmKind::Unreachable, hold_until_ms: 0 }
    }

    pub(super) fn permission(&self, now_ms: u64) -> Permission {
        if now_ms < self.hold_until_ms {
            return Permission::Shut;
        }
        match self.state {
            State::Closed => Permission::Free,
            State::Open { until_ms } if until_ms <= now_ms => Permission::Probe,
            State::Open { .. } | State::Probing(_) => Permission::Shut,
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// How many probes were tried since it opened, to vary whom they try.
    pub(super) fn openings(&self) -> u32 {
        self.openings
    }

    /// Why it is open; `None` when it is closed.
    pub(super) fn reason(&self) -> Option<AlarmKind> {
        (!self.is_closed()).then_some(self.reason)
    }

    /// When it lets something through again; `None` when it does already, or waits for an answer.
    pub(super) fn wake_ms(&self, now_ms: u64) -> Option<u64> {
        let hold = (now_ms < self.hold_until_ms).then_some(self.hold_until_ms);
        match self.state {
            State::Open { until_ms } if until_ms > now_ms => Some(until_ms.max(self.hold_until_ms)),
            State::Open { .. } | State::Closed | State::Probing(_) => hold,
        }
    }

    /// A probe left.
    pub(super) fn probing(&mut self, request: RequestId) {
        self.state = State::Probing(request);
    }

    /// The destination gave an answer that only a working destination gives.
    pub(super) fn answered(&mut self, now_ms: u64) {
        self.failures = 0;
        if !self.is_closed() && now_ms < self.hold_until_ms {
            // It answers for what was sent before it asked to be left alone, and takes nothing new until then.
            self.state = State::Open { until_ms: self.hold_until_ms };
            return;
        }
        self.state = State::Closed;
        self.openings = 0;
    }

    /// A whole request failed and may be tried again. True when the breaker just opened: after several
    /// failures, or at once where it asks for a long wait. A failure that is known to be a patient's own
    /// does not count.
    pub(super) fn failed(&mut self, failed: Failed, now_ms: u64, jitter: &mut Jitter) -> bool {
        let Failed { request, retry_after_ms, counts } = failed;
        let wait_ms = believed_ms(retry_after_ms);
        self.hold_until_ms = self.hold_until_ms.max(now_ms.saturating_add(wait_ms));
        self.failures = self.failures.saturating_add(u32::from(counts));
        let opens = match self.state {
            State::Closed => wait_ms > RETRY_AFTER_SILENT_MAX_MS || (counts && self.failures >= BREAKER_FAILURES),
            State::Probing(probe) => probe == request,
            State::Open { .. } => false,
        };
        if opens {
            self.open(AlarmKind::Unreachable, now_ms, jitter);
        }
        opens
    }

    /// The destination refuses us, whatever we send.
    pub(super) fn refused(&mut self, request: RequestId, now_ms: u64, jitter: &mut Jitter) {
        let opens = match self.state {
            State::Closed => true,
            State::Probing(probe) => probe == request,
            State::Open { .. } => false,
        };
        if opens {
            self.open(AlarmKind::Paused, now_ms, jitter);
        }
    }

    /// The answer says nothing of the destination: after a probe the next one may go at once.
    pub(super) fn learnt_nothing(&mut self, request: RequestId, now_ms: u64) {
        if self.state == State::Probing(request) {
            self.state = State::Open { until_ms: now_ms };
        }
    }

    fn open(&mut self, reason: AlarmKind, now_ms: u64, jitter: &mut Jitter) {
        self.reason = reason;
        self.openings = self.openings.saturating_add(1);
        let wait_ms = match reason {
            // A person has to mend that.
            AlarmKind::Paused => jitter.backoff_ms(self.openings, PAUSED_BASE_MS, PAUSED_WAIT_MAX_MS),
            _ => jitter.between_ms(PROBE_WAIT_MIN_MS, PROBE_WAIT_MAX_MS),
        };
        self.state = State::Open { until_ms: now_ms.saturating_add(wait_ms) };
    }
}

/// How long a destination is left alone for asking so.
pub(super) fn believed_ms(retry_after_ms: Option<u64>) -> u64 {
    retry_after_ms.unwrap_or(0).min(RETRY_AFTER_MAX_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(request: RequestId, retry_after_ms: Option<u64>) -> Failed {
        Failed { request, retry_after_ms, counts: true }
    }

    fn open_gate(jitter: &mut Jitter) -> Gate {
        let mut gate = Gate::new();
        for number in 0..u64::from(BREAKER_FAILURES) {
            assert_eq!(gate.permission(0), Permission::Free);
            gate.failed(failed(RequestId(number), None), 0, jitter);
        }
        gate
    }

    /// A destination that is down is asked once at a time, after a second at the earliest and two at the latest.
    #[test]
    fn an_open_breaker_lets_one_probe_through_at_a_time() {
        let mut jitter = Jitter::new(3);
        let mut gate = open_gate(&mut jitter);
        let mut now = 0;
        for number in 100..200 {
            let wake = gate.wake_ms(now).expect("an open breaker says when it probes");
            assert!((PROBE_WAIT_MIN_MS..=PROBE_WAIT_MAX_MS).contains(&(wake - now)));
            assert_eq!(gate.permission(wake - 1), Permission::Shut);
            now = wake;
            assert_eq!(gate.permission(now), Permission::Probe);
            gate.probing(RequestId(number));
            assert_eq!(gate.permission(now), Permission::Shut, "one probe at a time");
            gate.failed(failed(RequestId(1), None), now, &mut jitter);
            assert_eq!(gate.permission(now), Permission::Shut, "a straggler's failure is not the probe's");
            gate.failed(failed(RequestId(number), None), now, &mut jitter);
        }
        gate.probing(RequestId(500));
        gate.answered(now);
        assert_eq!(gate.permission(now), Permission::Free);
    }

    /// An answer that says nothing of the destination neither closes the breaker nor forgives a failure.
    #[test]
    fn an_answer_that_says_nothing_leaves_the_breaker_as_it_is() {
        let mut jitter = Jitter::new(3);
        let mut gate = Gate::new();
        for number in 0..u64::from(BREAKER_FAILURES) {
            gate.learnt_nothing(RequestId(number), 0);
            assert_eq!(gate.permission(0), Permission::Free);
            gate.failed(failed(RequestId(number), None), 0, &mut jitter);
        }
        let wake = gate.wake_ms(0).expect("it is open");
        gate.learnt_nothing(RequestId(1), wake - 1);
        assert_eq!(gate.permission(wake - 1), Permission::Shut, "a straggler is no probe");
        gate.probing(RequestId(100));
        gate.learnt_nothing(RequestId(1), wake);
        assert_eq!(gate.permission(wake), Permission::Shut, "a straggler is not the probe");
        gate.learnt_nothing(RequestId(100), wake);
        assert_eq!(gate.permission(wake), Permission::Probe, "one at a time, as before");
    }

    /// Retry-After is honoured to the millisecond, and a server cannot silence us for ever with it.
    #[test]
    fn retry_after_is_honoured_and_capped() {
        let mut jitter = Jitter::new(3);
        let mut gate = Gate::new();
        gate.failed(failed(RequestId(1), Some(7_000)), 1_000, &mut jitter);
        assert_eq!((gate.permission(7_999), gate.permission(8_000)), (Permission::Shut, Permission::Free));
        gate.answered(7_999);
        assert!(gate.is_closed(), "a short wait is no outage");
        gate.failed(failed(RequestId(2), Some(u64::MAX)), 8_000, &mut jitter);
        assert_eq!(gate.wake_ms(8_000), Some(8_000 + RETRY_AFTER_MAX_MS));
        gate.answered(9_000);
        assert!(!gate.is_closed(), "it takes nothing new before the hour is over");
        let over = 8_000 + RETRY_AFTER_MAX_MS;
        assert_eq!((gate.permission(over - 1), gate.permission(over)), (Permission::Shut, Permission::Probe));
        gate.answered(over);
        assert!(gate.is_closed());
    }
}
