//! What an answer leads to.

use std::sync::Arc;

use vitalgate_domain::{Answer, BatchMode, DeadLetterKind, ItemAnswer, PatientReference, ReadingId, Sequence};

use super::gate::Failed;
use super::message::{AlarmKind, RequestId};
use super::policy::{
    ISOLATE_EVERY, ISOLATE_FAILURES, ITEM_FAILURES_MAX, PATIENT_FAILURES_MAX, PATIENT_FORGOTTEN_MS, PATIENT_REST_MAX_MS,
    REJECTIONS_IN_A_ROW,
};
use super::said::Said;
use super::work::{Parcel, Work};
use super::{BACKOFF_BASE_MS, BACKOFF_MAX_MS, Delivery, READ_ENTRIES_MIN, Turn};

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
            Answer::PatientUnknown { detail } => {
                // A search may have found that, which says nothing of whether it takes what is written.
                self.gate.learnt_nothing(request, turn.now.monotonic_ms);
                self.reject_all(work, DeadLetterKind::Unassigned, &detail.into(), turn);
            }
        }
        self.queue.returned(&patient);
    }

    /// The destination works: the breaker closes, and what waited for that goes on.
    fn destination_answers(&mut self, turn: &mut Turn) {
        let reason = self.gate.reason();
        self.gate.answered();
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
        self.taken += u64::from(answers.iter().any(is_taken));
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
            self.raise(AlarmKind::Unreachable, &detail, turn);
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

    /// Counts one more failure of the patient; true if it is the patient's own, who then rests.
    fn patient_failed(&mut self, patient: &PatientReference, turn: &Turn) -> bool {
        let failing = self.failing.entry(patient.clone()).or_default();
        failing.failures.again(self.taken);
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
    /// memory is full of such failures.
    fn retry_later(&mut self, mut work: Work, detail: Arc<str>, turn: &mut Turn) {
        work.failures.again(self.taken);
        if self.gate.is_closed() && self.room(work.lane) < READ_ENTRIES_MIN && self.gives_way(&work) {
            self.give_up(work, detail, turn);
            return;
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

    fn patient_fails(&self, work: &Work) -> bool {
        self.failing.get(&work.patient).is_some_and(|failing| failing.failures.passed_over >= PATIENT_FAILURES_MAX)
    }

    /// Whether the others wait for room that this one occupies without hope.
    fn gives_way(&self, work: &Work) -> bool {
        self.patient_fails(work) || (work.parcels.len() == 1 && work.failures.passed_over >= ITEM_FAILURES_MAX)
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
        for (sequence, reading) in item.readings {
            self.queue.release(lane, 1);
            for sequence in std::iter::once(sequence).chain(self.answered(&reading.id)) {
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
        for (sequence, reading) in item.readings {
            self.queue.release(lane, 1);
            for sequence in std::iter::once(sequence).chain(self.answered(&reading.id)) {
                turn.settlement.reject(sequence, reading.id, reason.clone());
            }
        }
    }

    /// Where else the same statement stands, to be settled with it; the identity may come with another patient now.
    fn answered(&mut self, id: &ReadingId) -> Vec<Sequence> {
        let Some(known) = self.identities.remove(id) else { return Vec::new() };
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
