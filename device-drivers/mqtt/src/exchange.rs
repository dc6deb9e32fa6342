//! The conversation with one connected device, without any input or output: packets in, samples to
//! submit and answers to write out, acknowledgements in the order of the messages.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use vitalgate_domain::{ClockTrust, DeadLetterKind, DeadLetterReason, DecodedSample, DeviceId, RawSample, Received};
use vitalgate_intake::{PendingReceipt, Receipt};

use crate::Decode;
use crate::channel::Channels;
use crate::ending::Ending;
use crate::refusal::Refusal;
use crate::session::{Recall, Session};
use crate::stats::Tally;
use crate::wire::answer::{Answers, Grant};
use crate::wire::frame::Frame;
use crate::wire::publish::Publish;
use crate::wire::request::{self, Request};
use crate::wire::{Level, Qos};

/// What a packet asks of the connection.
#[derive(Debug)]
pub(crate) enum Step {
    /// Nothing more.
    Done,
    /// Submit this, then call [`Exchange::expect`].
    Submit(DecodedSample, Due),
}

/// The answer that is due once a message is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    /// QoS 0: none.
    Nothing,
    /// QoS 1: PUBACK.
    Puback(u16),
    /// QoS 2: PUBREC, with the message's digest.
    Pubrec(u16, u64),
}

/// What came of waiting for receipts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Settled {
    /// At least one message is on disk; its answer is in [`Exchange::answers`].
    Progress,
    /// The oldest message could not be stored: nothing more may be acknowledged.
    Refused,
    /// The gateway stops: nothing more may be acknowledged.
    Stopping,
}

#[derive(Debug)]
struct Waiting {
    due: Due,
    /// `None`: known to be on disk.
    receipt: Option<PendingReceipt>,
}

/// The state of the conversation.
pub(crate) struct Exchange {
    level: Level,
    device: DeviceId,
    channels: Channels,
    decode: Decode,
    /// What is kept beyond the connection.
    pub(crate) session: Session,
    waiting: VecDeque<Waiting>,
    in_flight_max: usize,
    /// The oldest message was not stored: from here on nothing is acknowledged.
    verdict: Option<Settled>,
    /// Session expiry in seconds that DISCONNECT asked for.
    pub(crate) session_expiry_s: Option<u32>,
    /// Messages of this connection that are on disk.
    pub(crate) committed: u64,
    /// What is to be written.
    pub(crate) answers: Answers,
    /// What is to be counted.
    pub(crate) tally: Tally,
}

impl Exchange {
    /// For a device that was taken.
    pub(crate) fn new(device: DeviceId, session: Session, answers: Answers, level: Level, decode: Decode, in_flight_max: u16) -> Self {
        Self {
            level,
            channels: Channels::new(&device),
            device,
            decode,
            session,
            waiting: VecDeque::new(),
            in_flight_max: usize::from(in_flight_max),
            verdict: None,
            session_expiry_s: None,
            committed: 0,
            answers,
            tally: Tally::default(),
        }
    }

    /// Whether no further message may be taken before a receipt comes. A v5 client that sends more than the
    /// receive maximum is slowed down as one of 3.1.1 is, not sent away: paho-mqtt sends everything it kept
    /// through an outage at once, and would be sent away with it for ever.
    pub(crate) fn is_full(&self) -> bool {
        self.waiting.len() >= self.in_flight_max
    }

    /// Whether receipts are waited for.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Takes the packet that `frame` found at the start of `packet`.
    pub(crate) fn take(&mut self, frame: Frame, packet: &[u8], received: Received) -> Result<Step, Ending> {
        match request::read(self.level, frame, packet)? {
            Request::Publish(publish) => self.publish(publish, received),
            Request::Release(id) => self.release(id),
            Request::Subscribe { id, filters } => {
                self.subscribe(id, &filters, received);
                Ok(Step::Done)
            }
            Request::Unsubscribe { id, filters } => {
                self.unsubscribe(id, &filters);
                Ok(Step::Done)
            }
            Request::Ping => {
                self.answers.pong();
                Ok(Step::Done)
            }
            Request::Leave { with_will, session_expiry_s } => {
                self.session_expiry_s = session_expiry_s;
                Err(Ending::Left { with_will })
            }
        }
    }

    fn publish(&mut self, publish: Publish<'_>, received: Received) -> Result<Step, Ending> {
        let channel = self.channels.of(publish.topic).ok_or(Refusal::ForeignTopic)?;
        self.tally.messages += 1;
        self.tally.bytes += publish.payload.len() as u64;
        let due = match publish.qos {
            Qos::Zero => Due::Nothing,
            Qos::One => Due::Puback(publish.id),
            Qos::Two => {
                let digest = self.session.digest(publish.topic, publish.payload);
                let due = Due::Pubrec(publish.id, digest);
                if self.waiting.iter().any(|waiting| waiting.due == due) {
                    return Ok(Step::Done); // Its PUBREC is on its way already.
                }
                match self.session.recall(publish.id, digest) {
                    Recall::Committed => return Ok(self.wait_for(due, None)),
                    Recall::Submitted(receipt) => return Ok(self.wait_for(due, Some(receipt))),
                    Recall::New if !self.session.has_room(publish.id) => return Err(Refusal::ReceiveMaximum.into()),
                    Recall::New => due,
                }
            }
        };
        if publish.payload.is_empty() && publish.retain {
            return Ok(self.wait_for(due, None)); // It clears a retained message: nothing to store.
        }
        let bytes = publish.payload.to_vec();
        let sample = RawSample { device: self.device.clone(), channel: Arc::clone(&channel), bytes, received };
        let decoded = (self.decode)(&self.device, sample).unwrap_or_else(|| self.unknown(channel, publish.payload, received));
        self.tally.unreadable += u64::from(decoded.unreadable.is_some());
        Ok(Step::Submit(decoded, due))
    }

    fn unknown(&self, channel: Arc<str>, payload: &[u8], received: Received) -> DecodedSample {
        let detail = "the device has no profile; add one in the configuration, then replay this dead letter";
        let reason = DeadLetterReason::new(DeadLetterKind::UnknownDevice, detail);
        let unreadable = Some((reason, payload.to_vec()));
        DecodedSample { device: self.device.clone(), channel, received, readings: Vec::new(), payload: Vec::new(), unreadable }
    }

    /// A submitted message waits for its receipt; its answer keeps the message's place.
    pub(crate) fn expect(&mut self, due: Due, receipt: PendingReceipt) {
        self.wait_for(due, Some(receipt));
    }

    fn wait_for(&mut self, due: Due, receipt: Option<PendingReceipt>) -> Step {
        self.waiting.push_back(Waiting { due, receipt });
        Step::Done
    }

    fn release(&mut self, id: u16) -> Result<Step, Ending> {
        let not_told = |waiting: &Waiting| matches!(waiting.due, Due::Pubrec(pending, _) if pending == id);
        if self.waiting.iter().any(not_told) {
            // To say PUBCOMP now would be to acknowledge what is not on disk yet.
            return Err(Refusal::Protocol.into());
        }
        let known = self.session.release(id);
        self.answers.pubcomp(id, known);
        Ok(Step::Done)
    }

    /// Takes every receipt that has come, in the order of the messages, and writes the answers. After
    /// [`Settled::Refused`] or [`Settled::Stopping`] it says the same for ever.
    pub(crate) fn poll_settled(&mut self, context: &mut Context<'_>) -> Poll<Settled> {
        if let Some(verdict) = self.verdict {
            return Poll::Ready(verdict);
        }
        let mut progress = false;
        while let Some(front) = self.waiting.front_mut() {
            let committed = Poll::Ready(Ok(Receipt::Committed));
            let verdict = match front.receipt.as_mut().map_or(committed, |receipt| Pin::new(receipt).poll(context)) {
                Poll::Ready(Ok(Receipt::Committed)) => {
                    let due = front.due;
                    self.waiting.pop_front();
                    self.acknowledge(due);
                    progress = true;
                    continue;
                }
                Poll::Pending => break,
                Poll::Ready(Ok(Receipt::Refused)) => Settled::Refused,
                Poll::Ready(Err(_stopping)) => Settled::Stopping,
            };
            // A receipt is read once. What was acknowledged before it is still written.
            front.receipt = None;
            self.verdict = Some(verdict);
            return Poll::Ready(if progress { Settled::Progress } else { verdict });
        }
        if progress { Poll::Ready(Settled::Progress) } else { Poll::Pending }
    }

    fn acknowledge(&mut self, due: Due) {
        self.committed += 1;
        self.tally.acknowledged += 1;
        match due {
            Due::Nothing => {}
            Due::Puback(id) => self.answers.puback(id),
            Due::Pubrec(id, digest) => {
                self.session.committed(id, digest);
                self.answers.pubrec(id);
            }
        }
    }

    fn subscribe(&mut self, id: u16, filters: &[String], received: Received) {
        let mut grants = Vec::with_capacity(filters.len());
        let mut wants_time = false;
        for filter in filters {
            let grant = if filter == self.channels.time_topic() {
                wants_time = true;
                Grant::Granted
            } else if filter == self.channels.acknowledgements_topic() {
                self.session.acknowledgements = true;
                Grant::Granted
            } else if filter.starts_with("$share/") {
                Grant::Shared
            } else if filter.contains(['+', '#']) {
                Grant::Wildcard
            } else {
                Grant::NotOwn
            };
            grants.push(grant);
        }
        self.answers.suback(id, &grants);
        if wants_time {
            self.session.time = true;
            self.tell_time(received);
        }
    }

    fn unsubscribe(&mut self, id: u16, filters: &[String]) {
        let mut existed = Vec::with_capacity(filters.len());
        for filter in filters {
            existed.push(if filter == self.channels.time_topic() {
                std::mem::take(&mut self.session.time)
            } else if filter == self.channels.acknowledgements_topic() {
                std::mem::take(&mut self.session.acknowledgements)
            } else {
                false
            });
        }
        self.answers.unsuback(id, &existed);
    }

    /// Writes the time to the device. A clock that was never set says `null`: no time is better than a wrong one.
    pub(crate) fn tell_time(&mut self, now: Received) {
        let trust = match now.trust {
            ClockTrust::Unset => "unset",
            ClockTrust::Free => "free",
            ClockTrust::Synchronised => "synchronised",
            ClockTrust::Authenticated => "authenticated",
        };
        let payload = match now.trust {
            ClockTrust::Unset => format!(r#"{{"time":null,"unix_ms":null,"trust":"{trust}"}}"#),
            _ => format!(r#"{{"time":"{}","unix_ms":{},"trust":"{trust}"}}"#, now.wall.rfc3339(0), now.wall.0),
        };
        self.answers.publish(self.channels.time_topic(), payload);
    }

    /// Tells the device how many messages of this connection are on disk: the only word a QoS 0 publisher gets.
    pub(crate) fn tell_committed(&mut self) {
        let payload = format!(r#"{{"committed":{}}}"#, self.committed);
        self.answers.publish(self.channels.acknowledgements_topic(), payload);
    }

    /// The connection is over: what is left of the conversation goes into the session.
    pub(crate) fn into_session(mut self) -> Session {
        for waiting in self.waiting {
            if let (Due::Pubrec(id, digest), Some(receipt)) = (waiting.due, waiting.receipt) {
                self.session.abandon(id, digest, receipt);
            }
        }
        self.session
    }
}
