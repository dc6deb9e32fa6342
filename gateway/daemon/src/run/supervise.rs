//! Watches the loops: pets the watchdog while every beacon moves, ends the process when one hangs.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::signal::unix::{SignalKind, signal};
use vitalgate_store::Keyed;
use vitalgate_store::keyed::KeyedStatus;

use crate::beacon::Beacon;
use crate::clock::{Clock, monotonic_ms};
use crate::devices::Admitted;
use crate::notify;

/// Time between two looks.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// What is watched.
pub(super) struct Watch {
    /// One beacon a loop.
    pub(super) beacons: Vec<Beacon>,
    /// The keyed copy.
    pub(super) keyed: Arc<Keyed>,
    /// Clock.
    pub(super) clock: Clock,
    /// Who is let in.
    pub(super) admitted: Option<Arc<Admitted>>,
}

impl Watch {
    /// Ends when a stop is asked for, or with an error when a loop hangs or the keyed copy failed.
    pub(super) async fn until_stop(&self) -> anyhow::Result<()> {
        let mut terminate = signal(SignalKind::terminate()).context("no signal handler")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("no signal handler")?;
        let mut look = tokio::time::interval(LOOK_INTERVAL);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = terminate.recv() => return Ok(()),
                _ = interrupt.recv() => return Ok(()),
                _ = look.tick() => self.look()?,
            }
        }
    }

    fn look(&self) -> anyhow::Result<()> {
        self.clock.refresh_trust();
        if let Some(admitted) = &self.admitted {
            admitted.reload();
        }
        let now_ms = monotonic_ms();
        if let Some(name) = self.beacons.iter().find_map(|beacon| beacon.stalled(now_ms)) {
            bail!("the {name} loop hangs; the gateway restarts");
        }
        if let KeyedStatus::Failed(reason) = self.keyed.status() {
            bail!("the keyed copy failed ({reason}); the gateway restarts and rebuilds it");
        }
        notify::alive();
        Ok(())
    }
}
