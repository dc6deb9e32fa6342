//! Patients that are known by an identifier only: found on the server, remembered for a while, never created.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use vitalgate_domain::{Answer, PatientReference};
use vitalgate_fhir::{Found, find_patient};

use crate::exchange::{Exchange, Response, coded};
use crate::verify::query;

/// How long a patient's id is remembered, in milliseconds: records are merged in an EHR, and then the id changes.
const FRESH_MS: u64 = 600_000;
/// Most patients that are remembered.
const PATIENTS_MAX: usize = 4_096;

type Remembered = HashMap<PatientReference, (Arc<str>, Instant)>;

/// The patients of one server.
#[derive(Default)]
pub(crate) struct Patients(Mutex<Remembered>);

impl Patients {
    fn remembered(&self) -> std::sync::MutexGuard<'_, Remembered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The reference for the subject: `Patient/{id}`.
    pub(crate) async fn reference(&self, exchange: &Exchange, patient: &PatientReference) -> Result<Arc<str>, Answer> {
        let (system, value) = match patient {
            PatientReference::Literal(reference) => return Ok(Arc::clone(reference)),
            PatientReference::Identifier { system, value } => (system, value),
        };
        let fresh = Duration::from_millis(FRESH_MS);
        if let Some((reference, _)) = self.remembered().get(patient).filter(|(_, found)| found.elapsed() < fresh) {
            return Ok(Arc::clone(reference));
        }
        let path = format!("/Patient?{}&_elements=identifier,active,link&_count=2", query(system, value));
        let pages = match exchange.search("patient", "Patient", path).await.map_err(|failure| failure.answer())? {
            Ok(pages) => pages,
            Err(response) => return Err(refused(&response)),
        };
        let found = find_patient(&pages, system, value)
            .map_err(|error| Answer::Transient { retry_after_ms: None, detail: format!("looking up the patient: {error}").into() })?;
        let unknown = |detail: &str| Err(Answer::PatientUnknown { detail: detail.into() });
        match found {
            Some(Found::One(id)) => {
                let reference: Arc<str> = format!("Patient/{id}").into();
                self.remember(patient, &reference);
                Ok(reference)
            }
            Some(Found::None) => unknown("no patient of the server has the identifier that the device is associated with"),
            Some(Found::Several) => unknown("several patients of the server have the identifier that the device is associated with"),
            None => unknown(
                "the record with the identifier that the device is associated with was replaced, or is not in use: enter the surviving patient",
            ),
        }
    }

    fn remember(&self, patient: &PatientReference, reference: &Arc<str>) {
        let mut remembered = self.remembered();
        if remembered.len() >= PATIENTS_MAX {
            remembered.retain(|_, (_, found)| found.elapsed() < Duration::from_millis(FRESH_MS));
        }
        if remembered.len() >= PATIENTS_MAX {
            remembered.clear();
        }
        remembered.insert(patient.clone(), (Arc::clone(reference), Instant::now()));
    }

    /// Forgets the patient; true if it had been remembered, so that looking again can help.
    pub(crate) fn forget(&self, patient: &PatientReference) -> bool {
        self.remembered().remove(patient).is_some()
    }
}

fn refused(response: &Response) -> Answer {
    match response.status {
        401 | 403 => Answer::Paused { detail: coded("the server forbids to look up patients; check our rights", response) },
        404 | 405 => Answer::Paused { detail: coded("the server does not search for patients; check the URL", response) },
        _ => Answer::Transient { retry_after_ms: response.retry_after_ms, detail: coded("looking up the patient", response) },
    }
}
