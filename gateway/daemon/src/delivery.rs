//! One delivery loop a destination: it carries out what the pipeline's state machine decides.
//!
//! Each loop has its own thread and its own single-threaded runtime, so that a slow destination
//! takes time from nobody else: not from the drivers, not from another destination.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use vitalgate_domain::{Answer, Change, DeadLetterKind, DestinationId, ItemAnswer, RejectedReading, Sequence};
use vitalgate_pipeline::{DAMAGED_LISTED_MAX, Delivery, DeliveryAction, DeliveryEvent, Lane, RequestId};
use vitalgate_store::Reader;
use vitalgate_transport::FhirClient;

use crate::alarm_log::{AlarmLog, Line};
use crate::beacon::{Beacon, IDLE_BEAT_MS};
use crate::clock::{Clock, monotonic_ms};
use crate::commit::{Command, spare};
use crate::shared::{DestinationFacts, Shared};

/// Bytes of stored records that one read may bring into memory.
const READ_BYTES_MAX: usize = 1024 * 1024;

/// Everything that the loop owns.
pub(crate) struct DeliveryLoop {
    /// The destination.
    pub(crate) destination: DestinationId,
    /// What decides.
    pub(crate) machine: Delivery,
    /// What sends.
    pub(crate) client: Arc<FhirClient>,
    /// Where the readings are.
    pub(crate) reader: Reader,
    /// How far the journal reaches.
    pub(crate) committed: watch::Receiver<Sequence>,
    /// Where settled ranges go.
    pub(crate) commands: mpsc::Sender<Command>,
    /// Clock.
    pub(crate) clock: Clock,
    /// Facts for status and metrics.
    pub(crate) shared: Arc<Shared>,
    /// Sign of life.
    pub(crate) beacon: Beacon,
    /// Turns true when the gateway stops.
    pub(crate) shutdown: watch::Receiver<bool>,
}

/// Why the reads of each lane fail, while they do.
#[derive(Debug, Default)]
struct Unread(BTreeMap<Lane, Arc<str>>);

impl Unread {
    /// The lane's read failed; whether the one before did not, or for another reason.
    fn is_new(&mut self, lane: Lane, why: &Arc<str>) -> bool {
        self.0.insert(lane, Arc::clone(why)).as_ref() != Some(why)
    }

    /// The lane was read.
    fn read(&mut self, lane: Lane) {
        self.0.remove(&lane);
    }
}

struct Session {
    in_flight: JoinSet<(RequestId, Answer)>,
    pending: VecDeque<DeliveryEvent>,
    wake_at_ms: Option<u64>,
    alarm_log: AlarmLog,
    unread: Unread,
}

impl DeliveryLoop {
    /// Starts the loop's thread.
    ///
    /// # Errors
    /// When the thread or its runtime cannot be made.
    pub(crate) fn spawn(self) -> anyhow::Result<std::thread::JoinHandle<()>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime for delivery")?;
        let name = format!("deliver-{}", self.destination);
        std::thread::Builder::new().name(name).spawn(move || runtime.block_on(self.run())).context("no thread for delivery")
    }

    async fn run(mut self) {
        let pending = VecDeque::from([DeliveryEvent::Tick]);
        let mut session =
            Session { in_flight: JoinSet::new(), pending, wake_at_ms: None, alarm_log: AlarmLog::default(), unread: Unread::default() };
        loop {
            self.beacon.moved();
            let Some(event) = self.next_event(&mut session).await else { return };
            if let DeliveryEvent::Answered { answer, .. } = &event {
                note_answer(self.facts(), answer);
            }
            let now = self.clock.now();
            for action in self.machine.handle(event, &now) {
                if self.act(action, &mut session).await.is_none() {
                    return;
                }
            }
            self.write(session.alarm_log.due(monotonic_ms()));
        }
    }

    /// `None` when the gateway stops. What is under way is left: it is sent again after the start.
    async fn next_event(&mut self, session: &mut Session) -> Option<DeliveryEvent> {
        // What is read next waits behind what came meanwhile: a long stretch of the journal must not keep answers and new
        // readings from being looked at.
        tokio::task::yield_now().await;
        if *self.shutdown.borrow() {
            return None;
        }
        if let Some(joined) = session.in_flight.try_join_next() {
            let (request, answer) = joined.ok()?;
            return Some(DeliveryEvent::Answered { request, answer });
        }
        if self.committed.has_changed().ok()? {
            let sequence = *self.committed.borrow_and_update();
            return Some(DeliveryEvent::Committed(sequence));
        }
        if session.wake_at_ms.is_some_and(|at| at <= monotonic_ms()) {
            session.wake_at_ms = None;
            return Some(DeliveryEvent::Tick);
        }
        if let Some(event) = session.pending.pop_front() {
            return Some(event);
        }
        let idle_ms = session.wake_at_ms.map_or(IDLE_BEAT_MS, |at| at.saturating_sub(monotonic_ms()).min(IDLE_BEAT_MS));
        tokio::select! {
            biased;
            _ = self.shutdown.wait_for(|stop| *stop) => None,
            Some(joined) = session.in_flight.join_next() => {
                // The client never panics by its contract; were it to, the process ends (see panics).
                let (request, answer) = joined.ok()?;
                Some(DeliveryEvent::Answered { request, answer })
            }
            changed = self.committed.changed() => {
                changed.ok()?;
                let sequence = *self.committed.borrow_and_update();
                Some(DeliveryEvent::Committed(sequence))
            }
            () = tokio::time::sleep(Duration::from_millis(idle_ms)) => {
                // An idle beat that comes first is not the moment that was asked for.
                session.wake_at_ms = session.wake_at_ms.filter(|at| *at > monotonic_ms());
                Some(DeliveryEvent::Tick)
            }
        }
    }

    /// `None` when the commit loop is gone.
    async fn act(&mut self, action: DeliveryAction, session: &mut Session) -> Option<()> {
        match action {
            DeliveryAction::Read { lane, from, until, entries_max } => {
                let event = self.read(lane, from, until, entries_max, &mut session.unread);
                session.pending.push_back(event);
            }
            DeliveryAction::Send { request, batch } => {
                let client = Arc::clone(&self.client);
                session.in_flight.spawn(async move { (request, client.deliver(&batch).await) });
            }
            DeliveryAction::Settle { ranges, rejected, remote_ids } => {
                note_refused(self.facts(), &rejected);
                let change = Change::Settled { destination: self.destination.clone(), ranges, rejected, remote_ids };
                self.commands.send(Command::Change(change)).await.ok()?;
            }
            DeliveryAction::WakeAt { monotonic_ms } => session.wake_at_ms = Some(monotonic_ms),
            DeliveryAction::Alarm(alarm) => {
                session.alarm_log.raised(&alarm);
                self.facts().raise(&alarm);
            }
            DeliveryAction::Cleared(alarm) => {
                session.alarm_log.cleared(alarm.kind);
                self.facts().clear(alarm.kind);
            }
        }
        Some(())
    }

    fn write(&self, lines: Vec<Line>) {
        for line in lines {
            match line {
                Line::HeldUp(alarm) => tracing::error!(destination = %self.destination, %alarm, "delivery is held up"),
                Line::Over(alarm) => tracing::info!(destination = %self.destination, %alarm, "delivery is no longer held up by this"),
            }
        }
    }

    fn read(&self, lane: Lane, from: Sequence, until: Sequence, entries_max: usize, unread: &mut Unread) -> DeliveryEvent {
        if self.facts().settling_waits.load(Ordering::Relaxed) {
            // What is held would be settled at once, and waits with the rest.
            return DeliveryEvent::ReadPutOff { lane };
        }
        match self.reader.read(from, until, entries_max, READ_BYTES_MAX) {
            Ok(mut outcome) => {
                spare(&mut outcome.records, &self.shared, &self.destination);
                unread.read(lane);
                self.shared.add_damage(outcome.damaged.iter().map(|(first, last)| damaged(*first, *last)));
                DeliveryEvent::Read { lane, records: outcome.records, reached: outcome.reached }
            }
            Err(error) => {
                let detail: Arc<str> = error.to_string().into();
                if unread.is_new(lane, &detail) {
                    tracing::error!(destination = %self.destination, %error, "the journal cannot be read; trying again");
                }
                DeliveryEvent::ReadFailed { lane, detail }
            }
        }
    }

    fn facts(&self) -> &DestinationFacts {
        // The map is built from the same configuration as the loops.
        static NONE: std::sync::OnceLock<DestinationFacts> = std::sync::OnceLock::new();
        self.shared.destinations.get(&self.destination).unwrap_or_else(|| NONE.get_or_init(DestinationFacts::default))
    }
}

fn damaged(first: Sequence, last: Sequence) -> String {
    let listed = match last.0.saturating_sub(first.0) {
        0..DAMAGED_LISTED_MAX => "they are".to_owned(),
        _ => format!("the first {DAMAGED_LISTED_MAX} of them are"),
    };
    format!("entries {first} to {last} are damaged in every copy; {listed} listed as dead letters")
}

fn note_answer(facts: &DestinationFacts, answer: &Answer) {
    let Answer::Items(items) = answer else { return };
    let accepted = items.iter().filter(|item| matches!(item, ItemAnswer::Accepted { .. } | ItemAnswer::AcceptedWithWarning { .. }));
    let accepted = accepted.count() as u64;
    if accepted > 0 {
        facts.accepted_items.fetch_add(accepted, Ordering::Relaxed);
        facts.accepted.note(monotonic_ms());
    }
}

/// What is held for want of a patient or a moment was not refused.
fn note_refused(facts: &DestinationFacts, rejected: &[RejectedReading]) {
    let refused = rejected.iter().filter(|reading| reading.reason.kind == DeadLetterKind::Rejected).count();
    facts.refused_readings.fetch_add(refused as u64, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use vitalgate_domain::{DeadLetterReason, ReadingId};

    use super::*;

    /// Promise 5: a destination that answers and takes nothing is not said to have accepted something.
    #[test]
    fn only_what_was_accepted_is_an_acknowledgement() {
        let facts = DestinationFacts::default();
        let rejected = || ItemAnswer::Rejected { detail: "refused".into() };
        let transient = || ItemAnswer::Transient { detail: "busy".into() };
        for items in [vec![], vec![rejected(), rejected()], vec![transient(), transient()], vec![rejected(), transient()]] {
            note_answer(&facts, &Answer::Items(items));
            assert_eq!((facts.accepted.age_s(), facts.accepted_items.load(Ordering::Relaxed)), (None, 0));
        }
        note_answer(&facts, &Answer::Items(vec![rejected(), ItemAnswer::Accepted { remote_id: None }]));
        assert_eq!(facts.accepted_items.load(Ordering::Relaxed), 1);
        assert!(facts.accepted.age_s().is_some());
    }

    /// Promise 5: a journal that cannot be read for hours is one line of the log, and what changes of it is one more.
    #[test]
    fn what_cannot_be_read_is_said_once() {
        let mut unread = Unread::default();
        let (disk, key) = (Arc::from("os error 5"), Arc::from("no key"));
        assert_eq!([&disk, &disk, &key, &key].map(|why| unread.is_new(Lane::Backlog, why)), [true, false, true, false]);
        assert!(unread.is_new(Lane::Live, &key), "each lane for itself");
        unread.read(Lane::Live);
        assert!(!unread.is_new(Lane::Backlog, &key) && unread.is_new(Lane::Live, &key), "it came back");
    }

    /// Promise 5: nobody looks for dead letters that are not there.
    #[test]
    fn of_a_long_damaged_stretch_only_so_many_are_said_to_be_listed() {
        let said = |last| damaged(Sequence(1), Sequence(last));
        assert_eq!(said(1_024), "entries 1 to 1024 are damaged in every copy; they are listed as dead letters");
        assert_eq!(said(1_025), "entries 1 to 1025 are damaged in every copy; the first 1024 of them are listed as dead letters");
    }

    /// Promise 5: what a destination refused is told apart from what waits for a patient or for the clock.
    #[test]
    fn what_is_held_is_not_refused() {
        let facts = DestinationFacts::default();
        let kinds = [DeadLetterKind::Unassigned, DeadLetterKind::Rejected, DeadLetterKind::TimeUnknown, DeadLetterKind::Rejected];
        let rejected = kinds.map(|kind| RejectedReading {
            sequence: Sequence::FIRST,
            id: ReadingId::from_bytes([0; 16]),
            reason: DeadLetterReason::new(kind, "test"),
        });
        note_refused(&facts, &rejected);
        assert_eq!(facts.refused_readings.load(Ordering::Relaxed), 2);
    }
}
