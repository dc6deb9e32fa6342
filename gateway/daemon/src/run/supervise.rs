//! Watches the loops: pets the watchdog while every beacon moves, ends the process when one hangs.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::signal::unix::{SignalKind, signal};
use vitalgate_store::Keyed;
use vitalgate_store::keyed::KeyedStatus;

use super::drivers::Listener;
use crate::beacon::Beacon;
use crate::clock::{Clock, monotonic_ms};
use crate::growth::Growth;
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
    /// The listener for devices.
    pub(super) listener: Option<Listener>,
    /// How the journal grows.
    pub(super) growth: Arc<Growth>,
}

impl Watch {
    /// Ends when a stop is asked for, or with an error when a loop hangs or the keyed copy failed.
    pub(super) async fn until_stop(&mut self) -> anyhow::Result<()> {
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

    fn look(&mut self) -> anyhow::Result<()> {
        self.clock.refresh_trust();
        self.growth.note(monotonic_ms());
        if let Some(listener) = &mut self.listener {
            listener.admitted.reload();
            let now = self.clock.now();
            if listener.renewal.is_due(&now) {
                tokio::task::block_in_place(|| listener.renewal.look(&now));
            }
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
