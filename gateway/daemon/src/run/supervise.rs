//! Watches the loops: pets the watchdog while every beacon moves, ends the process when one hangs.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::signal::unix::{SignalKind, signal};
use vitalgate_store::keyed::{KeyedEvent, KeyedStatus};
use vitalgate_store::{Finding, Keyed, Reader};

use super::drivers::Listener;
use crate::beacon::Beacon;
use crate::clock::{Clock, awake_ms, monotonic_ms};
use crate::growth::Growth;
use crate::notify;
use crate::shared::Shared;

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
    /// Damage that is found while the gateway runs.
    pub(super) damage: Damage,
}

/// What the store found, as far as it was taken over into the status.
pub(super) struct Damage {
    reader: Reader,
    shared: Arc<Shared>,
    findings: Vec<Finding>,
    events: usize,
}

impl Damage {
    /// With these taken over already.
    pub(super) fn new(reader: Reader, shared: Arc<Shared>, findings: Vec<Finding>) -> Self {
        Self { reader, shared, findings, events: 0 }
    }

    /// Takes over what is new.
    fn look(&mut self, keyed: &Keyed) {
        let findings = self.reader.findings();
        if findings != self.findings {
            let new = findings.iter().filter(|finding| finding.is_damage() && !self.findings.contains(finding));
            self.shared.add_damage(new.map(ToString::to_string));
            self.findings = findings;
        }
        let events = keyed.events();
        let new = events.iter().skip(self.events).filter(|event| is_damage(event));
        self.shared.add_damage(new.map(ToString::to_string));
        self.events = events.len();
    }
}

fn is_damage(event: &KeyedEvent) -> bool {
    !matches!(event, KeyedEvent::SnapshotSetAside { .. } | KeyedEvent::Salvaged { .. })
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
        self.growth.note(monotonic_ms(), self.damage.reader.committed().0);
        self.damage.look(&self.keyed);
        if let Some(listener) = &mut self.listener {
            listener.admitted.reload(&self.damage.shared);
            let now = self.clock.now();
            if listener.renewal.is_due(&now) {
                tokio::task::block_in_place(|| listener.renewal.look(&now));
            }
        }
        let now_ms = awake_ms();
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;
    use std::time::Instant;

    use vitalgate_domain::{BootId, ClockTrust, DeviceEvent, DeviceEventKind, DeviceId, Entry, Received, Sequence, UnixMs};
    use vitalgate_store::{KeyedCopy as _, RealFiles, StoreOptions};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    /// Promise 5: damage of a segment that nobody has written to for long is told while the gateway runs, once.
    #[test]
    fn damage_that_is_mended_while_the_gateway_runs_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let keys = Arc::new(vitalgate_trust::FileKeyWrap::open_or_create(&folder.path().join("kek")).unwrap());
        let options = StoreOptions { segment_bytes: 64 * 1024, ..StoreOptions::new(folder.path().join("store")) };
        let mut opened = vitalgate_store::open(options, keys, Arc::new(RealFiles)).unwrap();
        let received = Received { wall: UnixMs(0), monotonic_ms: 1, boot: BootId::from_bytes([1; 16]), trust: ClockTrust::Unset };
        let event = DeviceEvent { device: DeviceId::new("monitor-01").unwrap(), kind: DeviceEventKind::Lost, received };
        for _ in 0..40 {
            opened.journal.append(&vec![Entry::DeviceEvent(event.clone()); 250], &[]).unwrap();
        }
        let shared = Arc::new(Shared::new([], []));
        let mut damage = Damage::new(opened.reader.clone(), Arc::clone(&shared), opened.report.findings);
        damage.look(&opened.keyed);
        assert_eq!(shared.damage(), Vec::<String>::new());

        let journal = folder.path().join("store/journal");
        let segments = std::fs::read_dir(&journal).unwrap().map(|entry| entry.unwrap().path());
        let oldest = segments.filter(|path| path.extension().is_some_and(|extension| extension == "segment")).min().unwrap();
        std::fs::File::options().write(true).open(&oldest).unwrap().write_all_at(&[0xff; 64], 20_000).unwrap();
        let end = Instant::now() + PATIENCE;
        // The copy that heals it may still be catching up.
        while opened.reader.clone().read(Sequence::FIRST, opened.reader.committed(), usize::MAX, usize::MAX).is_err() {
            assert!(Instant::now() < end, "{:?}", opened.keyed.status());
            let next = opened.keyed.applied().ordinal.next();
            let _progress = opened.keyed.wait_reached(next, false, Duration::from_millis(100));
        }
        damage.look(&opened.keyed);
        let told = shared.damage();
        assert!(told.iter().any(|line| line.contains("restored from")), "{told:?}");
        damage.look(&opened.keyed);
        assert_eq!(shared.damage(), told);
    }
}
