//! When each device of a bus is polled: a fixed rhythm while it answers, ever longer pauses while it
//! does not, and a bounded share of the bus for all that do not.

use std::time::Duration;

use tokio::time::Instant;

/// Shortest pause after a failed poll, in milliseconds.
const PAUSE_MS_MIN: u64 = 500;
/// Longest pause after failed polls, in milliseconds, unless the device's own interval is longer.
const PAUSE_MS_MAX: u64 = 15_000;
/// Failures after which the pause grows no more.
const DOUBLINGS_MAX: u32 = 10;
/// After failing devices have used up some time of the bus, they leave it alone for this many times
/// as long: together they take at most a fifth of it.
const REST_FACTOR: u32 = 4;

/// The plan of one device.
#[derive(Debug, Clone)]
struct Plan {
    interval: Duration,
    due: Instant,
    failures: u32,
    last_success: Option<Instant>,
}

/// The plan of a bus.
#[derive(Debug)]
pub(crate) struct Schedule {
    plans: Vec<Plan>,
    /// Failing devices are not asked before this.
    rest_until: Instant,
    last_failed: bool,
}

impl Schedule {
    /// Every device is due at once, then by its interval.
    pub(crate) fn new(intervals: &[Duration], now: Instant) -> Self {
        let plan = |&interval| Plan { interval, due: now, failures: 0, last_success: None };
        Self { plans: intervals.iter().map(plan).collect(), rest_until: now, last_failed: false }
    }

    fn due(&self, plan: &Plan) -> Instant {
        if plan.failures == 0 { plan.due } else { plan.due.max(self.rest_until) }
    }

    /// Which device is next, and when. Right after a failure the device that answered last goes
    /// first among those that are due: when many fall silent at once, the living one is not kept
    /// waiting for all their timeouts in a row.
    pub(crate) fn next(&self, now: Instant) -> Option<(usize, Instant)> {
        let all = || self.plans.iter().enumerate();
        if self.last_failed {
            let alive = all().filter(|(_, plan)| plan.failures == 0 && plan.last_success.is_some() && plan.due <= now);
            if let Some((index, plan)) = alive.max_by_key(|(_, plan)| plan.last_success) {
                return Some((index, plan.due));
            }
        }
        all().map(|(index, plan)| (index, self.due(plan))).min_by_key(|(index, due)| (*due, *index))
    }

    /// The poll counted: the next one is on the device's rhythm. Missed ones are skipped, not made up for.
    pub(crate) fn succeeded(&mut self, index: usize, now: Instant) {
        self.last_failed = false;
        let Some(plan) = self.plans.get_mut(index) else { return };
        plan.last_success = Some(now);
        if plan.failures > 0 {
            plan.failures = 0;
            plan.due = now + plan.interval;
            return;
        }
        let late = now.saturating_duration_since(plan.due);
        let interval_ns = plan.interval.as_nanos().max(1);
        let missed = u32::try_from(late.as_nanos() / interval_ns).unwrap_or(u32::MAX - 1);
        plan.due += plan.interval * (missed + 1);
    }

    /// The poll did not count. `jitter` is 0 to 1 and spreads devices that failed together.
    pub(crate) fn failed(&mut self, index: usize, now: Instant, took: Duration, jitter: f64) {
        self.last_failed = true;
        self.rest_until = now + took * REST_FACTOR;
        let Some(plan) = self.plans.get_mut(index) else { return };
        plan.due = now + pause(plan.interval, plan.failures, jitter);
        plan.failures = plan.failures.saturating_add(1);
    }
}

/// The pause after one more failure: doubling from the interval, three to five quarters of it by chance.
pub(crate) fn pause(interval: Duration, failures: u32, jitter: f64) -> Duration {
    let least = interval.max(Duration::from_millis(PAUSE_MS_MIN));
    let most = interval.max(Duration::from_millis(PAUSE_MS_MAX));
    let doubled = least.saturating_mul(1 << failures.min(DOUBLINGS_MAX)).min(most);
    doubled.mul_f64(0.75 + 0.5 * jitter.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_rhythm_does_not_drift_and_missed_polls_are_skipped() {
        let start = Instant::now();
        let mut schedule = Schedule::new(&[SECOND], start);
        schedule.succeeded(0, start + Duration::from_millis(300));
        assert_eq!(schedule.next(start), Some((0, start + SECOND)), "an answer that took time does not move the rhythm");
        schedule.succeeded(0, start + Duration::from_millis(4_700));
        assert_eq!(schedule.next(start), Some((0, start + 5 * SECOND)), "the polls of 2, 3 and 4 s are not made up for");
    }

    #[test]
    fn pauses_grow_to_their_limit_and_end_with_the_first_success() {
        let start = Instant::now();
        let mut schedule = Schedule::new(&[SECOND], start);
        let mut last = Duration::ZERO;
        for _ in 0..20 {
            schedule.failed(0, start, Duration::ZERO, 0.5);
            let (_, due) = schedule.next(start).unwrap();
            assert!(due - start >= last && due - start <= Duration::from_millis(PAUSE_MS_MAX));
            last = due - start;
        }
        assert_eq!(last, Duration::from_millis(PAUSE_MS_MAX));
        schedule.succeeded(0, start);
        assert_eq!(schedule.next(start), Some((0, start + SECOND)));
        assert!(pause(SECOND, 3, 0.0) < pause(SECOND, 3, 1.0), "devices that fail together do not come back together");
    }

    /// However many units of a gateway are dead, the living one keeps four fifths of the bus.
    #[test]
    fn dead_devices_together_take_a_bounded_share_of_the_bus() {
        let start = Instant::now();
        let timeout = SECOND;
        let mut schedule = Schedule::new(&[SECOND; 31], start);
        let (mut now, mut polls_of_living, mut time_of_dead, mut longest_gap) = (start, 0, Duration::ZERO, Duration::ZERO);
        let mut last_of_living = start;
        while now < start + 600 * SECOND {
            let (index, due) = schedule.next(now).unwrap();
            now = now.max(due);
            if index == 30 {
                now += Duration::from_millis(5);
                longest_gap = longest_gap.max(now - last_of_living);
                last_of_living = now;
                polls_of_living += 1;
                schedule.succeeded(index, now);
            } else {
                now += timeout;
                if now > start + 60 * SECOND {
                    time_of_dead += timeout;
                }
                schedule.failed(index, now, timeout, 0.5);
            }
        }
        assert!(time_of_dead <= 540 * SECOND / 5 + timeout, "dead units took {time_of_dead:?} of 540 s");
        assert!(polls_of_living > 450, "only {polls_of_living} polls of 600");
        assert!(longest_gap < 35 * SECOND, "{longest_gap:?}");
    }
}
