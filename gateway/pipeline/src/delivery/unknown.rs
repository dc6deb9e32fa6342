//! Patients that the destination did not know, one after the other, since it last took something.

use vitalgate_domain::PatientReference;

use super::policy::{PATIENTS_UNKNOWN_IN_A_ROW, PATIENTS_UNKNOWN_MS};

#[derive(Debug, Default)]
pub(super) struct Unknown {
    /// The first of them, no more than it takes to tell one from several.
    patients: Vec<PatientReference>,
    answers: u32,
    since_ms: Option<u64>,
}

impl Unknown {
    /// Once more, of that patient.
    pub(super) fn again(&mut self, patient: &PatientReference, now_ms: u64) {
        self.answers = self.answers.saturating_add(1);
        self.since_ms.get_or_insert(now_ms);
        if self.patients.len() < PATIENTS_UNKNOWN_IN_A_ROW && !self.patients.contains(patient) {
            self.patients.push(patient.clone());
        }
    }

    pub(super) fn answers(&self) -> u32 {
        self.answers
    }

    /// Whether it is not one patient.
    pub(super) fn are_several(&self) -> bool {
        self.patients.len() >= PATIENTS_UNKNOWN_IN_A_ROW
    }

    /// Whether it has been so for long.
    pub(super) fn lasts(&self, now_ms: u64) -> bool {
        self.since_ms.is_some_and(|since| now_ms.saturating_sub(since) >= PATIENTS_UNKNOWN_MS)
    }
}
