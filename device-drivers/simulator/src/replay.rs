//! Replays a patient's recording through a monitor, faster than it was charted.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use vitalgate_domain::UnixMs;

use crate::message::{Message, TimeSeries};
use crate::monitor::stopped;
use crate::recording::ChartedSet;

/// Pause between the end of a recording and its next round.
const ROUND_PAUSE: Duration = Duration::from_secs(1);

/// How a patient's sets are replayed. The device's time is the moment of sending, so that the
/// readings are new ones in every run; the values are the charted ones.
#[derive(Debug, Clone)]
pub struct Replay {
    /// What was charted.
    pub sets: Vec<ChartedSet>,
    /// Charted seconds per second.
    pub speed_up: f64,
    /// Waits at most this long between two sets, whatever the recording's gap.
    pub gap_longest: Duration,
    /// Starts over at the end.
    pub endless: bool,
}

/// Our wall clock in milliseconds since 1970.
#[must_use]
pub fn wall_now() -> UnixMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMs(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

impl Replay {
    /// Sends the sets to `monitor` until the recording ends, the monitor is gone or `stop` turns
    /// true. Returns how many were handed over.
    pub async fn run(&self, monitor: mpsc::Sender<Message>, mut stop: watch::Receiver<bool>) -> u64 {
        let mut series = TimeSeries::from(wall_now());
        let mut handed_over = 0;
        loop {
            let mut due = Instant::now();
            let mut before = self.sets.first().map_or(0, |set| set.offset_s);
            for set in &self.sets {
                due += self.gap(set.offset_s.saturating_sub(before));
                before = set.offset_s;
                tokio::select! {
                    () = tokio::time::sleep_until(due) => {}
                    () = stopped(&mut stop) => return handed_over,
                }
                handed_over += 1;
                let message = Message::of_set(set, series.at(wall_now()), handed_over);
                tokio::select! {
                    sent = monitor.send(message) => if sent.is_err() { return handed_over - 1 },
                    () = stopped(&mut stop) => return handed_over - 1,
                }
            }
            if !self.endless || self.sets.is_empty() {
                return handed_over;
            }
            tokio::select! {
                () = tokio::time::sleep(ROUND_PAUSE) => {}
                () = stopped(&mut stop) => return handed_over,
            }
        }
    }

    fn gap(&self, charted_s: u64) -> Duration {
        let seconds = charted_s as f64 / self.speed_up.max(f64::MIN_POSITIVE);
        Duration::try_from_secs_f64(seconds).unwrap_or(self.gap_longest).min(self.gap_longest)
    }
}
