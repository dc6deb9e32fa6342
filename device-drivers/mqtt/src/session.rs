//! What is kept for a device beyond one connection (section 4.1 of both versions), in memory and bounded.

use std::collections::HashMap;
use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use tokio::task::unconstrained;
use vitalgate_intake::{PendingReceipt, Receipt, Stopping};

use crate::limits::UNRELEASED_MAX;

/// What is known of a QoS 2 message that comes (again).
#[derive(Debug)]
pub(crate) enum Recall {
    /// Nothing, or that it was not stored: submit it.
    New,
    /// It is on disk and the device has not let go of it: only say so again.
    Committed,
    /// It was submitted on an earlier connection and its receipt has not come yet: that is still to be waited for.
    Submitted(PendingReceipt),
}

/// The state of one device.
#[derive(Debug)]
pub(crate) struct Session {
    /// Whether it wants the time.
    pub(crate) time: bool,
    /// Whether it wants to hear how many of its messages were committed.
    pub(crate) acknowledgements: bool,
    /// QoS 2 messages on disk that the device has not let go of, be it that it was not told yet: identifier and digest.
    unreleased: HashMap<u16, u64>,
    /// QoS 2 messages submitted on an earlier connection, with the receipt that was not read there.
    submitted: HashMap<u16, (u64, PendingReceipt)>,
    digests: RandomState,
}

impl Session {
    /// Nothing known.
    pub(crate) fn new() -> Self {
        Self { time: false, acknowledgements: false, unreleased: HashMap::new(), submitted: HashMap::new(), digests: RandomState::new() }
    }

    /// A digest of a message. A device that lost its memory reuses identifiers for other messages:
    /// those must be stored, although the standard would let them pass for a repetition.
    pub(crate) fn digest(&self, topic: &str, payload: &[u8]) -> u64 {
        self.digests.hash_one((topic, payload))
    }

    /// What is known of the QoS 2 message with this identifier and digest.
    pub(crate) fn recall(&mut self, id: u16, digest: u64) -> Recall {
        if self.unreleased.get(&id) == Some(&digest) {
            return Recall::Committed;
        }
        let Some((_, mut receipt)) = self.submitted.remove(&id).filter(|(known, _)| *known == digest) else { return Recall::New };
        match so_far(&mut receipt) {
            Poll::Pending => Recall::Submitted(receipt),
            Poll::Ready(Ok(Receipt::Committed)) => {
                // Noted now: this connection may end before the message has its turn.
                self.unreleased.insert(id, digest);
                Recall::Committed
            }
            // To wait for a refusal of long ago would cost the device a connection for each message.
            Poll::Ready(Ok(Receipt::Refused) | Err(Stopping)) => Recall::New,
        }
    }

    /// Whether one more QoS 2 message can be kept. One with a known identifier takes the place of the message before it.
    pub(crate) fn has_room(&self, id: u16) -> bool {
        self.unreleased.len() < UNRELEASED_MAX || self.unreleased.contains_key(&id)
    }

    /// The message is on disk and the device is about to be told.
    pub(crate) fn committed(&mut self, id: u16, digest: u64) {
        self.unreleased.insert(id, digest);
    }

    /// The device lets go of it; whether it was known.
    pub(crate) fn release(&mut self, id: u16) -> bool {
        self.unreleased.remove(&id).is_some()
    }

    /// The connection ended before the receipt was read.
    pub(crate) fn abandon(&mut self, id: u16, digest: u64, receipt: PendingReceipt) {
        if self.submitted.len() < UNRELEASED_MAX {
            self.submitted.insert(id, (digest, receipt));
        }
    }
}

/// What a receipt says by now. Looked at outside the task's budget: a long row of messages must not make one seem to be outstanding.
fn so_far(receipt: &mut PendingReceipt) -> Poll<Result<Receipt, Stopping>> {
    pin!(unconstrained(receipt)).poll(&mut Context::from_waker(Waker::noop()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A device that lost its memory and reuses an identifier must not have its new reading taken for the old one.
    #[test]
    fn a_reused_identifier_with_another_message_is_new() {
        let mut session = Session::new();
        let first = session.digest("vitals/m1/a", b"72");
        session.committed(5, first);
        assert!(matches!(session.recall(5, first), Recall::Committed));
        let other = session.digest("vitals/m1/a", b"73");
        assert!(matches!(session.recall(5, other), Recall::New));
        assert!(session.release(5));
        assert!(matches!(session.recall(5, first), Recall::New));
        assert!(!session.release(5));
    }
}
