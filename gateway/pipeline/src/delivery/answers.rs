//! What an answer leads to.

use std::sync::Arc;

use vitalgate_domain::{Answer, BatchMode, DeadLetterKind, ItemAnswer, PatientReference, Reading, ReadingId, Sequence};

use super::gate::{Failed, RETRY_AFTER_SILENT_MAX_MS, believed_ms};
use super::message::{AlarmKind, RequestId};
use super::overtaken::Latest;
use super::policy::{
    ISOLATE_EVERY, ISOLATE_FAILURES, PATIENT_FAILURES_MAX, PATIENT_FORGOTTEN_MS, PATIENT_REST_MAX_MS, REJECTIONS_IN_A_ROW,
};
use super::said::Said;
use super::unknown::Unknown;
use super::work::{Parcel, Work};
use super::{BACKOFF_BASE_MS, BACKOFF_MAX_MS, Delivery, PAUSED_BASE_MS, PAUSED_WAIT_MAX_MS, READ_ENTRIES_MIN, Turn};

impl Delivery {
    pub(super) fn take_answer(&mut self, request: RequestId, answer: Answer, turn: &mut Turn) {
        let Some(work) = self.in_flight.remove(&request) else { return };
        let patient = work.patient.clone();
        match answer {
            Answer::Items(answers) if answers.len() == work.parcels.len() => self.take_items(request, work, answers, turn),
            Answer::Items(answers) => {
                let detail = format!("the answer has {} entries for {} sent", answers.len(), work.parcels.len());
                self.whole_failed(request, work, None, detail.into(), turn);
            }
            Answer::Transient { retry_after_ms, detail } => self.whole_failed(request, work, retry_after_ms, detail, turn),
            Answer::TooLarge { detail } => {
                self.destination_answers(turn);
                if work.parcels.len() > 1 {
                    self.items_limit = work.parcels.len() / 2;
                    self.retry_halves(work);
                } else {
                    self.refuse(work, &detail.into(), turn);
                }
            }
            Answer::RejectedWhole { detail } => {
                self.destination_answers(turn);
                self.isolate(work, &detail.into(), turn);
            }
            Answer::Paused { detail } => self.refused(request, work, detail, turn),
            Answer::PatientUnknown { detail } => self.patient_unknown(request, work, &detail.into(), turn),
        }
        self.queue.returned(&patient);
    }

    /// The destination works: the breaker closes, unless it asked to be left alone, and what waited for that goes on.
    fn destination_answers(&mut self, turn: &mut Turn) {
        let reason = self.gate.reason();
        self.gate.answered(turn.now.monotonic_ms);
        if !self.gate.is_closed() {
            return;
        }
        self.clear(AlarmKind::Unreachable, turn);
        self.clear(AlarmKind::Paused, turn);
        if reason == Some(AlarmKind::Unreachable) {
            self.queue.wake_all();
        }
        self.jump_due |= reason.is_some();
    }

    fn take_items(&mut self, request: RequestId, mut work: Work, answers: Vec<ItemAnswer>, turn: &mut Turn) {
        if let Some(detail) = all_transient(&answers) {
            self.whole_failed(request, work, None, detail, turn);
            return;
        }
        self.destination_answers(turn);
        if answers.iter().any(is_taken) {
            self.taken += 1;
            self.unknown = Unknown::default();
            self.clear(AlarmKind::PatientsUnknown, turn);
        }
        self.failing.remove(&work.patient);
        if work.parcels.len() >= self.items_limit {
            self.items_limit = (self.items_limit + 1).min(self.policy.batch_items_max);
        }
        let mut again = Vec::new();
        let mut last_detail = None;
        for (parcel, answer) in std::mem::take(&mut work.parcels).into_iter().zip(answers) {
            match answer {
                ItemAnswer::Accepted { remote_id } => self.accept(parcel, remote_id, turn),
                ItemAnswer::AcceptedWithWarning { detail: _ } => self.accept(parcel, None, turn),
                ItemAnswer::Rejected { detail } => {
                    self.count_refusal(turn);
                    self.reject(parcel, DeadLetterKind::Rejected, &detail.into(), turn);
                }
                ItemAnswer::Transient { detail } => {
                    again.push(parcel);
                    last_detail = Some(detail);
                }
            }
        }
        if let Some(detail) = last_detail {
            let mode = work.mode;
            self.retry_later(work.with(again, mode), detail, turn);
        }
    }

    /// The request failed as a whole and may pass.
    fn whole_failed(&mut self, request: RequestId, work: Work, retry_after_ms: Option<u64>, detail: Arc<str>, turn: &mut Turn) {
        let suspect = self.patient_failed(&work.patient, turn);
        if self.gate.failed(Failed { request, retry_after_ms, counts: !suspect }, turn.now.monotonic_ms, &mut self.jitter) {
            self.clear(AlarmKind::Paused, turn);
            match believed_ms(retry_after_ms) {
                ..=RETRY_AFTER_SILENT_MAX_MS => self.raise(AlarmKind::Unreachable, &detail, turn),
                wait_ms => {
                    let detail = format!("it asked to be left alone for {} s: {detail}", wait_ms / 1_000);
                    self.raise(AlarmKind::Unreachable, &detail, turn);
                }
            }
        }
        self.retry_later(work, detail, turn);
    }

    /// The destination refuses us; or only this patient or this item, if others are taken meanwhile.
    fn refused(&mut self, request: RequestId, work: Work, detail: Arc<str>, turn: &mut Turn) {
        let now_ms = turn.now.monotonic_ms;
        let suspect = self.patient_failed(&work.patient, turn);
        if suspect {
            self.raise_patient_failing(&detail, turn);
        }
        if suspect || work.failures.are_its_own() {
            self.gate.learnt_nothing(request, now_ms);
        } else {
            self.gate.refused(request, now_ms, &mut self.jitter);
            self.clear(AlarmKind::Unreachable, turn);
            self.raise(AlarmKind::Paused, &detail, turn);
        }
        self.retry_later(work, detail, turn);
    }

    /// Where several patients are not known and nothing was taken between, it is not the patients: they rest, and their readings wait.
    fn patient_unknown(&mut self, request: RequestId, mut work: Work, said: &Said, turn: &mut Turn) {
        let now_ms = turn.now.monotonic_ms;
        // A search may have found that, which says nothing of whether it takes what is written.
        self.gate.learnt_nothing(request, now_ms);
        work.failures.again(self.taken, now_ms);
        self.unknown.again(&work.patient, now_ms);
        if self.gate.is_closed() && self.unknown.lasts(now_ms) {
            let detail = "no patient is found there and nothing is taken: see that the gateway may search for patients and is shown them, and that their identifiers are right; what is in the list of dead letters then needs a replay";
            self.raise(AlarmKind::PatientsUnknown, detail, turn);
        }
        if !self.unknown.are_several() || work.failures.passed_over > 0 {
            self.reject_all(work, DeadLetterKind::Unassigned, said, turn);
            return;
        }
        let rest = self.jitter.backoff_ms(self.unknown.answers(), PAUSED_BASE_MS, PAUSED_WAIT_MAX_MS);
        let due = now_ms.saturating_add(rest);
        self.queue.rest(&work.patient, due);
        self.queue.retry_at(due, work);
    }

    /// Counts one more failure of the patient; true if it is the patient's own, who then rests.
    fn patient_failed(&mut self, patient: &PatientReference, turn: &Turn) -> bool {
        let failing = self.failing.entry(patient.clone()).or_default();
        failing.failures.again(self.taken, turn.now.monotonic_ms);
        failing.last_ms = turn.now.monotonic_ms;
        let suspect = failing.failures.are_its_own();
        if suspect {
            let rest = self.jitter.backoff_ms(failing.failures.passed_over, BACKOFF_BASE_MS, PATIENT_REST_MAX_MS);
            self.queue.rest(patient, turn.now.monotonic_ms.saturating_add(rest));
        }
        suspect
    }

    fn raise_patient_failing(&mut self, detail: &str, turn: &mut Turn) {
        let detail = format!("one patient's readings are not taken while others are: {detail}");
        self.raise(AlarmKind::PatientFailing, &detail, turn);
    }

    /// Forgets who does not fail any more; the alarm ends with the last of them.
    pub(super) fn forget_failing(&mut self, turn: &mut Turn) {
        // During an outage nobody's requests show anything.
        if self.gate.is_closed() {
            let now_ms = turn.now.monotonic_ms;
            self.failing.retain(|_, failing| now_ms.saturating_sub(failing.last_ms) < PATIENT_FORGOTTEN_MS);
        }
        let raised = self.alarms.iter().any(|alarm| alarm.kind == AlarmKind::PatientFailing);
        if raised && !self.failing.values().any(|failing| failing.failures.are_its_own()) {
            self.clear(AlarmKind::PatientFailing, turn);
        }
    }

    /// Sends it again after a back-off; in halves if others are taken meanwhile; never again if
    /// memory is full of such failures, or it went on for too long.
    fn retry_later(&mut self, mut work: Work, detail: Arc<str>, turn: &mut Turn) {
        work.failures.again(self.taken, turn.now.monotonic_ms);
        if work.is_hopeless() {
            self.reject_all(work, DeadLetterKind::Rejected, &detail.into(), turn);
            return;
        }
        if self.gate.is_closed() && self.room(work.lane) < READ_ENTRIES_MIN && self.gives_way(&work) {
            self.give_up(work, detail, turn);
            return;
        }
        if work.fails_alone() {
            self.raise_failing(&work, &detail, turn);
        }
        let wait = self.jitter.backoff_ms(work.failures.count, BACKOFF_BASE_MS, BACKOFF_MAX_MS);
        let due = turn.now.monotonic_ms.saturating_add(wait);
        let isolates = work.failures.passed_over >= ISOLATE_FAILURES || work.failures.count.is_multiple_of(ISOLATE_EVERY);
        if isolates && work.parcels.len() > 1 {
            let mode = work.mode;
            let (first, second) = work.halves(mode);
            self.queue.retry_at(due, first);
            self.queue.retry_at(due, second);
        } else {
            self.queue.retry_at(due, work);
        }
    }

    /// The patient where it is all of the patient's, else the one item; each item once, so that two do not take turns.
    fn raise_failing(&mut self, work: &Work, detail: &str, turn: &mut Turn) {
        if self.patient_fails(work) {
            self.raise_patient_failing(detail, turn);
            return;
        }
        let new = work.parcels.iter().filter(|parcel| self.failing_items.insert(parcel.item.id)).count();
        if new > 0 {
            let detail = format!("one reading is not taken while others are: {detail}; after a day of that it becomes a dead letter");
            self.raise(AlarmKind::ReadingFailing, &detail, turn);
        }
    }

    /// The item waits for nothing any more; the alarm ends with the last of those that failed alone.
    fn item_ends(&mut self, id: &ReadingId, turn: &mut Turn) {
        if self.failing_items.remove(id) && self.failing_items.is_empty() {
            self.clear(AlarmKind::ReadingFailing, turn);
        }
    }

    fn patient_fails(&self, work: &Work) -> bool {
        self.failing.get(&work.patient).is_some_and(|failing| failing.failures.passed_over >= PATIENT_FAILURES_MAX)
    }

    /// Whether the others wait for room that this one occupies without hope.
    fn gives_way(&self, work: &Work) -> bool {
        self.patient_fails(work) || work.fails_alone()
    }

    /// Memory is full: all of a failing patient's readings in it, or the one failing item, become dead letters.
    fn give_up(&mut self, work: Work, detail: Arc<str>, turn: &mut Turn) {
        let mut theirs = Vec::new();
        if self.patient_fails(&work) {
            self.raise_patient_failing(&detail, turn);
            theirs = self.queue.take_all(&work.patient);
        }
        let said = detail.into();
        for work in std::iter::once(work).chain(theirs) {
            self.reject_all(work, DeadLetterKind::Rejected, &said, turn);
        }
    }

    fn retry_halves(&mut self, work: Work) {
        let mode = work.mode;
        let (first, second) = work.halves(mode);
        self.queue.retry_now(first);
        self.queue.retry_now(second);
    }

    /// One of them is to blame: each on its own, and if that is refused as a whole too, in halves.
    fn isolate(&mut self, mut work: Work, said: &Said, turn: &mut Turn) {
        match work.mode {
            BatchMode::Together => {
                work.mode = BatchMode::Separately;
                self.queue.retry_now(work);
            }
            BatchMode::Separately if work.parcels.len() > 1 => self.retry_halves(work),
            BatchMode::Separately => self.refuse(work, said, turn),
        }
    }

    fn accept(&mut self, parcel: Parcel, remote_id: Option<Arc<str>>, turn: &mut Turn) {
        self.rejections = 0;
        self.clear(AlarmKind::OnlyRejections, turn);
        // A part of a panel is found there under the panel's id.
        let known_as = remote_id.or_else(|| parcel.item.panel.is_some().then(|| parcel.item.id.to_string().into()));
        let Parcel { item, lane } = parcel;
        self.item_ends(&item.id, turn);
        for (sequence, reading) in item.readings {
            self.queue.release(lane, 1);
            for sequence in std::iter::once(sequence).chain(self.answered(&reading)) {
                turn.settlement.settle(sequence);
                if let Some(id) = &known_as {
                    turn.settlement.known_as(sequence, Arc::clone(id));
                }
            }
        }
    }

    /// The one item of the request was refused for good.
    fn refuse(&mut self, work: Work, said: &Said, turn: &mut Turn) {
        self.count_refusal(turn);
        self.reject_all(work, DeadLetterKind::Rejected, said, turn);
    }

    fn count_refusal(&mut self, turn: &mut Turn) {
        self.rejections = self.rejections.saturating_add(1);
        if self.rejections >= REJECTIONS_IN_A_ROW {
            let detail = format!(
                "the last {REJECTIONS_IN_A_ROW} readings were refused and none was taken: see why in the list of dead letters or in the \
                 EHR's own log, mend that, then replay"
            );
            self.raise(AlarmKind::OnlyRejections, &detail, turn);
        }
    }

    fn reject_all(&mut self, mut work: Work, kind: DeadLetterKind, said: &Said, turn: &mut Turn) {
        for parcel in std::mem::take(&mut work.parcels) {
            self.reject(parcel, kind, said, turn);
        }
    }

    fn reject(&mut self, parcel: Parcel, kind: DeadLetterKind, said: &Said, turn: &mut Turn) {
        let reason = said.reason(kind);
        let Parcel { item, lane } = parcel;
        self.item_ends(&item.id, turn);
        for (sequence, reading) in item.readings {
            self.queue.release(lane, 1);
            for sequence in std::iter::once(sequence).chain(self.ended(&reading, Some(kind))) {
                turn.settlement.reject(sequence, reading.id, reason.clone());
            }
        }
    }

    fn answered(&mut self, reading: &Reading) -> Vec<Sequence> {
        self.ended(reading, None)
    }

    /// Where else the same statement stands, to be settled with it; the identity may come with another patient now.
    fn ended(&mut self, reading: &Reading, refused: Option<DeadLetterKind>) -> Vec<Sequence> {
        let Some(known) = self.identities.remove(&reading.id) else { return Vec::new() };
        if self.lanes.has_unread_before(known.newest) {
            self.overtaken.answered(reading, Latest { sequence: known.newest, refused });
        }
        self.corrected.extend(known.corrected);
        let queue = &mut self.queue;
        let free = |(lane, sequence)| {
            queue.release(lane, 1);
            sequence
        };
        known.again.into_iter().map(free).collect()
    }
}

fn is_taken(answer: &ItemAnswer) -> bool {
    matches!(answer, ItemAnswer::Accepted { .. } | ItemAnswer::AcceptedWithWarning { .. })
}

/// What the destination said, if it said of every item that it may be tried again.
fn all_transient(answers: &[ItemAnswer]) -> Option<Arc<str>> {
    let mut said = None;
    for answer in answers {
        let ItemAnswer::Transient { detail } = answer else { return None };
        said = Some(Arc::clone(detail));
    }
    said
}
