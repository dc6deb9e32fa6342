//! The bounded queue between the drivers and the commit, and the receipts that come back.
//!
//! A driver submits a decoded sample and gets a [`PendingReceipt`]. It may acknowledge the device
//! only when that receipt says [`Receipt::Committed`]. A full queue makes `submit` wait, so the
//! driver stops reading its socket or polling its bus: that is the only back-pressure there is.

#![forbid(unsafe_code)]

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::{mpsc, oneshot};
use vitalgate_domain::{DecodedSample, DeviceEvent};

/// Most submissions that wait for the commit. A message is carried whole, of at most
/// [`vitalgate_domain::limits::PAYLOAD_BYTES_MAX`]: 256 MiB together, and far less of the usual ones.
pub const QUEUE_SUBMISSIONS_MAX: usize = 4_096;

/// What became of a submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Receipt {
    /// It is on disk, or was there before: acknowledge.
    Committed,
    /// It is not on disk (free space below the floor): do not acknowledge, the device keeps it.
    Refused,
}

/// The gateway is stopping: nothing more is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the gateway takes no more samples: it is stopping")]
pub struct Stopping;

/// What is submitted.
#[derive(Debug)]
pub enum Submitted {
    /// A decoded sample.
    Sample(DecodedSample),
    /// A device's coming or going.
    Event(DeviceEvent),
}

/// A submission on its way to the commit.
#[derive(Debug)]
pub struct Submission {
    /// What it is.
    pub submitted: Submitted,
    receipt: oneshot::Sender<Receipt>,
}

impl Submission {
    /// Tells the driver; a driver that went away is not waited for.
    pub fn answer(self, receipt: Receipt) {
        let _gone = self.receipt.send(receipt);
    }

    /// Takes the submission apart: what was submitted, and where the receipt goes.
    #[must_use]
    pub fn into_parts(self) -> (Submitted, ReceiptSender) {
        (self.submitted, ReceiptSender(self.receipt))
    }
}

/// Where a receipt goes once the commit is durable.
#[derive(Debug)]
pub struct ReceiptSender(oneshot::Sender<Receipt>);

impl ReceiptSender {
    /// Tells the driver; a driver that went away is not waited for.
    pub fn answer(self, receipt: Receipt) {
        let _gone = self.0.send(receipt);
    }
}

/// The drivers' end.
#[derive(Debug, Clone)]
pub struct Intake(mpsc::Sender<Submission>);

impl Intake {
    /// Waits for room, then queues. Dropping the receipt does not take the submission back.
    ///
    /// # Errors
    /// [`Stopping`] when the commit side is gone.
    pub async fn submit(&self, submitted: Submitted) -> Result<PendingReceipt, Stopping> {
        let (receipt, pending) = oneshot::channel();
        self.0.send(Submission { submitted, receipt }).await.map_err(|_closed| Stopping)?;
        Ok(PendingReceipt(pending))
    }
}

/// Resolves when the submission is durable or refused. [`Stopping`] when the gateway stopped
/// first: then nothing may be acknowledged.
#[derive(Debug)]
pub struct PendingReceipt(oneshot::Receiver<Receipt>);

impl Future for PendingReceipt {
    type Output = Result<Receipt, Stopping>;
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map_err(|_gone| Stopping)
    }
}

/// The commit's end.
#[derive(Debug)]
pub struct IntakeQueue(mpsc::Receiver<Submission>);

impl IntakeQueue {
    /// Takes one submission if there is one.
    pub fn try_next(&mut self) -> Option<Submission> {
        self.0.try_recv().ok()
    }

    /// Blocks the calling thread (never an async task) until there is a submission; `None` when
    /// every driver is gone.
    pub fn blocking_next(&mut self) -> Option<Submission> {
        self.0.blocking_recv()
    }

    /// Waits for a submission; `None` when every driver is gone.
    pub async fn next(&mut self) -> Option<Submission> {
        self.0.recv().await
    }

    /// Stops taking; what is queued can still be drained.
    pub fn close(&mut self) {
        self.0.close();
    }
}

/// A new queue of [`QUEUE_SUBMISSIONS_MAX`].
#[must_use]
pub fn intake() -> (Intake, IntakeQueue) {
    let (sender, receiver) = mpsc::channel(QUEUE_SUBMISSIONS_MAX);
    (Intake(sender), IntakeQueue(receiver))
}

#[cfg(test)]
mod tests {
    use vitalgate_domain::{BootId, ClockTrust, DeviceEventKind, DeviceId, Received, UnixMs};

    use super::*;

    fn event() -> Submitted {
        let received = Received { wall: UnixMs(0), monotonic_ms: 0, boot: BootId::from_bytes([0; 16]), trust: ClockTrust::Free };
        Submitted::Event(DeviceEvent { device: DeviceId::new("m1").unwrap(), kind: DeviceEventKind::Lost, received })
    }

    /// Promise 1: an acknowledgement follows the commit, never a gateway that went away.
    #[tokio::test]
    async fn a_receipt_is_only_given_by_the_commit() {
        let (intake, mut queue) = intake();
        let committed = intake.submit(event()).await.unwrap();
        let abandoned = intake.submit(event()).await.unwrap();
        queue.try_next().unwrap().answer(Receipt::Committed);
        drop(queue);
        assert_eq!(committed.await, Ok(Receipt::Committed));
        assert_eq!(abandoned.await, Err(Stopping));
        assert_eq!(intake.submit(event()).await.err(), Some(Stopping));
    }
}
