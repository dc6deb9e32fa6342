//! Who is connected, and what is kept for each device between its connections.
//!
//! A second connection with the same device id is not let in and does not end the first: two
//! devices with one id would otherwise throw each other out for ever. But a device that lost power
//! must not be locked out by its own dead connection. So a second connection makes the gateway look
//! whether the first is alive: its next TCP keep-alive probe is sent at once and repeated each
//! second. A host that restarted answers with a reset, one that is gone does not answer: either ends the
//! first connection within [`crate::limits::CONTEST_MS`], and the second, which waits that long, is let in.
//! If a packet comes on the first, or its host still answers, the second is refused with an alarm.
//! Once that is decided the first is probed as rarely as before.
//! A host that answers although the device's program hangs, or left the connection open, is ended by its keep-alive. That may
//! be hours, or none: so the first gives way to a second once it was silent for [`crate::limits::SILENT_FIRST_MS`].

use std::collections::HashMap;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use vitalgate_domain::DeviceId;
use vitalgate_domain::limits::DEVICES_MAX;

use crate::bucket::Bucket;
use crate::limits::{CONNECTS_BURST, CONNECTS_PER_SECOND_MAX};
use crate::refusal::Refusal;
use crate::session::Session;

/// Devices whose state is kept; above it, that of devices which are not connected goes.
const SLOTS_MAX: usize = 2 * DEVICES_MAX;

/// How the gateway speaks to a connection from outside.
#[derive(Debug, Default)]
pub(crate) struct Control {
    /// Something below was set.
    pub(crate) wake: Notify,
    stop: AtomicBool,
    challenged: AtomicBool,
    alive: AtomicBool,
    /// The device's slot changed, or its connection proved alive.
    changed: Arc<Notify>,
}

impl Control {
    /// Whether the gateway stops.
    pub(crate) fn stops(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Whether somebody else came with the same id; asked once, then forgotten.
    pub(crate) fn takes_challenge(&self) -> bool {
        self.challenged.swap(false, Ordering::AcqRel)
    }

    /// The connection heard its device after it was challenged.
    pub(crate) fn proves_alive(&self) {
        self.alive.store(true, Ordering::Release);
        self.changed.notify_waiters();
    }

    fn challenge(&self) {
        self.alive.store(false, Ordering::Release);
        self.challenged.store(true, Ordering::Release);
        self.wake.notify_one();
    }
}

/// What one device may send; it outlives a connection, so that connecting anew gains nothing.
#[derive(Debug, Clone)]
pub(crate) struct Allowance {
    /// Packets.
    pub(crate) packets: Bucket,
    /// Bytes.
    pub(crate) bytes: Bucket,
}

#[derive(Debug)]
struct Slot {
    holder: Option<Arc<Control>>,
    /// The turn of the newest connection.
    turn: u64,
    kept: Option<(Session, Option<Instant>)>,
    allowance: Option<Allowance>,
    connects: Bucket,
    changed: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Inner {
    slots: HashMap<DeviceId, Slot>,
    connected: usize,
    /// Connections that were ever let in.
    turns: u64,
    stopping: bool,
}

/// All devices that are or were connected.
#[derive(Debug)]
pub(crate) struct Roster {
    inner: Mutex<Inner>,
    connections_max: usize,
}

/// The right to be this device's connection; given back when dropped.
#[derive(Debug)]
pub(crate) struct Lease {
    roster: Arc<Roster>,
    device: DeviceId,
    /// Which connection of all it is.
    pub(crate) turn: u64,
    /// How the gateway speaks to this connection.
    pub(crate) control: Arc<Control>,
    /// What was kept from an earlier connection.
    pub(crate) session: Option<Session>,
    /// What the device may send, if it was connected before.
    pub(crate) allowance: Option<Allowance>,
    /// What is to be kept, and until when (`None`: for ever).
    keep: Option<(Session, Option<Instant>)>,
}

enum Claim {
    Taken(Box<Lease>),
    Held(Arc<Control>),
    Refused(Refusal),
}

impl Roster {
    /// Whether the device is connected now.
    pub(crate) fn is_connected(&self, device: &DeviceId) -> bool {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).slots.get(device).is_some_and(|slot| slot.holder.is_some())
    }

    /// Nobody is connected.
    pub(crate) fn new(connections_max: usize) -> Self {
        Self { inner: Mutex::default(), connections_max }
    }

    /// Lets the device in, or finds out within `contest` that its earlier connection is alive.
    pub(crate) async fn admit(self: &Arc<Self>, device: &DeviceId, contest: Duration) -> Result<Lease, Refusal> {
        let deadline = Instant::now() + contest;
        let changed = self.changed(device);
        let mut challenged = false;
        loop {
            let mut notified = pin!(changed.notified());
            notified.as_mut().enable();
            match self.claim(device) {
                Claim::Taken(lease) => return Ok(*lease),
                Claim::Refused(refusal) => return Err(refusal),
                Claim::Held(control) if challenged && control.alive.load(Ordering::Acquire) => return Err(Refusal::SecondClient),
                Claim::Held(control) if !challenged => {
                    control.challenge();
                    challenged = true;
                }
                Claim::Held(_) => {}
            }
            if tokio::time::timeout_at(deadline, notified).await.is_err() {
                return Err(Refusal::SecondClient);
            }
        }
    }

    fn changed(&self, device: &DeviceId) -> Arc<Notify> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&inner.slot(device).changed)
    }

    fn claim(self: &Arc<Self>, device: &DeviceId) -> Claim {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.stopping {
            return Claim::Refused(Refusal::Stopping);
        }
        let full = inner.connected >= self.connections_max;
        let turn = inner.turns + 1;
        let now = Instant::now();
        let slot = inner.slot(device);
        if let Some(holder) = &slot.holder {
            return Claim::Held(Arc::clone(holder));
        }
        if full {
            return Claim::Refused(Refusal::Full);
        }
        if slot.connects.wait_for(1, now).is_some() {
            return Claim::Refused(Refusal::ConnectRate);
        }
        slot.connects.take(1);
        let control = Arc::new(Control { changed: Arc::clone(&slot.changed), ..Control::default() });
        slot.holder = Some(Arc::clone(&control));
        slot.turn = turn;
        slot.changed.notify_waiters();
        let session = slot.kept.take().filter(|(_, until)| until.is_none_or(|until| now < until)).map(|(session, _)| session);
        let allowance = slot.allowance.take();
        inner.connected += 1;
        inner.turns = turn;
        Claim::Taken(Box::new(Lease { roster: Arc::clone(self), device: device.clone(), turn, control, session, allowance, keep: None }))
    }

    /// Waits until the device is connected again after its connection `turn`; at most `delay`. Whether it came, be it
    /// that it has left since.
    pub(crate) async fn returns_within(&self, device: &DeviceId, turn: u64, delay: Duration) -> bool {
        let deadline = Instant::now() + delay;
        let changed = self.changed(device);
        loop {
            let mut notified = pin!(changed.notified());
            notified.as_mut().enable();
            {
                let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
                if inner.stopping || inner.slot(device).turn > turn {
                    return !inner.stopping;
                }
            }
            if tokio::time::timeout_at(deadline, notified).await.is_err() {
                return false;
            }
        }
    }

    /// Lets nobody in any more, and tells every connection to end.
    pub(crate) fn stop(&self) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.stopping = true;
        for slot in inner.slots.values() {
            slot.changed.notify_waiters();
            if let Some(holder) = &slot.holder {
                holder.stop.store(true, Ordering::Release);
                holder.wake.notify_one();
            }
        }
    }
}

impl Inner {
    fn slot(&mut self, device: &DeviceId) -> &mut Slot {
        if self.slots.len() >= SLOTS_MAX && !self.slots.contains_key(device) {
            self.slots.retain(|_, slot| slot.holder.is_some());
        }
        self.slots.entry(device.clone()).or_insert_with(|| Slot {
            holder: None,
            turn: 0,
            kept: None,
            allowance: None,
            connects: Bucket::new(CONNECTS_PER_SECOND_MAX, CONNECTS_BURST, Instant::now()),
            changed: Arc::default(),
        })
    }
}

impl Lease {
    /// Gives the place back and keeps what is to be kept: the session for `expiry` (`None`: for ever).
    pub(crate) fn release(mut self, session: Session, expiry: Option<Duration>, allowance: Allowance) {
        if expiry != Some(Duration::ZERO) {
            self.keep = Some((session, expiry.and_then(|expiry| Instant::now().checked_add(expiry))));
        }
        self.allowance = Some(allowance);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut inner = self.roster.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.connected = inner.connected.saturating_sub(1);
        if let Some(slot) = inner.slots.get_mut(&self.device) {
            slot.holder = None;
            slot.kept = self.keep.take();
            slot.allowance = self.allowance.take();
            slot.changed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTEST: Duration = Duration::from_secs(20);

    fn device() -> DeviceId {
        DeviceId::new("m1").unwrap()
    }

    #[tokio::test]
    async fn a_second_client_is_refused_as_soon_as_the_first_is_heard() {
        let roster = Arc::new(Roster::new(10));
        let first = roster.admit(&device(), CONTEST).await.unwrap();
        let control = Arc::clone(&first.control);
        let heard = tokio::spawn(async move {
            control.wake.notified().await;
            assert!(control.takes_challenge());
            control.proves_alive();
        });
        let begun = Instant::now();
        assert_eq!(roster.admit(&device(), CONTEST).await.err(), Some(Refusal::SecondClient));
        assert!(begun.elapsed() < CONTEST / 2, "the second client waited although the first was heard");
        heard.await.unwrap();
    }

    /// A device that restarted gets in as soon as its dead connection is known to be dead.
    #[tokio::test]
    async fn a_device_takes_the_place_of_its_own_dead_connection() {
        let roster = Arc::new(Roster::new(1));
        let first = roster.admit(&device(), CONTEST).await.unwrap();
        let dying = tokio::spawn(async move {
            first.control.wake.notified().await;
            drop(first);
        });
        let second = roster.admit(&device(), CONTEST).await.unwrap();
        dying.await.unwrap();
        let other = DeviceId::new("m2").unwrap();
        assert_eq!(roster.admit(&other, CONTEST).await.err(), Some(Refusal::Full));
        drop(second);
        assert!(roster.admit(&other, CONTEST).await.is_ok());
    }

    /// A device that came back was not lost, even if it has left again before anybody looks.
    #[tokio::test(start_paused = true)]
    async fn a_short_return_is_a_return() {
        let roster = Arc::new(Roster::new(1));
        let first = roster.admit(&device(), CONTEST).await.unwrap();
        let turn = first.turn;
        drop(first);
        assert!(!roster.returns_within(&device(), turn, CONTEST).await);
        drop(roster.admit(&device(), CONTEST).await.unwrap());
        assert!(roster.returns_within(&device(), turn, CONTEST).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_device_that_connects_without_end_is_refused_but_not_for_ever() {
        let roster = Arc::new(Roster::new(1));
        let mut taken = 0;
        while roster.admit(&device(), CONTEST).await.is_ok() {
            taken += 1;
        }
        assert_eq!(taken, CONNECTS_BURST);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(roster.admit(&device(), CONTEST).await.is_ok());
    }
}
