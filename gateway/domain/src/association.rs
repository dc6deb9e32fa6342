//! Which patient a device was attached to, when, and who said so.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::name::DeviceId;
use crate::reading::{PatientReference, Subject};
use crate::time::UnixMs;

/// One device at one patient for an interval of time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Association {
    /// The device.
    pub device: DeviceId,
    /// The patient.
    pub patient: PatientReference,
    /// From this moment on, inclusive; `None` is since ever.
    pub from: Option<UnixMs>,
    /// Until this moment, exclusive; `None` is until further notice.
    pub until: Option<UnixMs>,
    /// Who confirmed it: a person's or a file's name.
    pub confirmed_by: Arc<str>,
}

impl Association {
    fn covers(&self, moment: UnixMs) -> bool {
        self.from.is_none_or(|from| from <= moment) && self.until.is_none_or(|until| moment < until)
    }
}

/// All associations, asked by device and moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Associations(BTreeMap<DeviceId, Vec<Association>>);

impl Associations {
    /// Takes a list; overlapping intervals of one device are kept and answered as unassigned.
    #[must_use]
    pub fn new(list: impl IntoIterator<Item = Association>) -> Self {
        let mut associations = Self::default();
        for association in list {
            associations.0.entry(association.device.clone()).or_default().push(association);
        }
        associations
    }

    /// Whom a reading of the device at that moment is about. Two different patients at one moment
    /// are a contradiction: then nobody is named.
    #[must_use]
    pub fn subject_at(&self, device: &DeviceId, moment: Option<UnixMs>) -> Subject {
        self.at(device, moment).map_or(Subject::Unassigned, |association| Subject::Patient(association.patient.clone()))
    }

    /// Whom a reading is about that was bound to `bound` before. One that was bound to a patient goes
    /// over to another only where it is stated since when the device was there: an association
    /// without a beginning says nothing about the time before it was written down.
    #[must_use]
    pub fn subject_again(&self, bound: &Subject, device: &DeviceId, moment: Option<UnixMs>) -> Subject {
        match (bound, self.at(device, moment)) {
            (Subject::Patient(_), Some(association)) if association.from.is_none() => bound.clone(),
            (_, Some(association)) => Subject::Patient(association.patient.clone()),
            (_, None) => bound.clone(),
        }
    }

    /// The only association that covers the moment.
    fn at(&self, device: &DeviceId, moment: Option<UnixMs>) -> Option<&Association> {
        let moment = moment?;
        let mut covering = self.0.get(device).into_iter().flatten().filter(|association| association.covers(moment));
        match (covering.next(), covering.next()) {
            (Some(only), None) => Some(only),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(patient: &str, from: Option<i64>, until: Option<i64>) -> Association {
        Association {
            device: DeviceId::new("m1").unwrap(),
            patient: PatientReference::Literal(patient.into()),
            from: from.map(UnixMs),
            until: until.map(UnixMs),
            confirmed_by: "test".into(),
        }
    }

    #[test]
    fn a_reading_goes_to_the_patient_of_its_own_moment_and_to_nobody_in_doubt() {
        let table =
            Associations::new([at("Patient/a", None, Some(100)), at("Patient/b", Some(100), Some(200)), at("Patient/c", Some(150), None)]);
        let device = DeviceId::new("m1").unwrap();
        let subject = |moment| table.subject_at(&device, Some(UnixMs(moment)));
        assert_eq!(subject(99), Subject::Patient(PatientReference::Literal("Patient/a".into())));
        assert_eq!(subject(100), Subject::Patient(PatientReference::Literal("Patient/b".into())));
        assert_eq!(subject(160), Subject::Unassigned, "two patients at once");
        assert_eq!(subject(200), Subject::Patient(PatientReference::Literal("Patient/c".into())));
        assert_eq!(table.subject_at(&device, None), Subject::Unassigned, "moment unknown");
    }

    /// The device went from bed to bed since: a reading that is sent again stays with the patient of its own moment.
    #[test]
    fn a_bound_reading_changes_its_patient_only_for_a_stated_interval() {
        let device = DeviceId::new("m1").unwrap();
        let patient = |name: &str| Subject::Patient(PatientReference::Literal(name.into()));
        let again = |table: &Associations, bound: &Subject, moment| table.subject_again(bound, &device, moment);
        let since_ever = Associations::new([at("Patient/b", None, None)]);
        assert_eq!(again(&since_ever, &patient("Patient/a"), Some(UnixMs(5))), patient("Patient/a"));
        assert_eq!(again(&since_ever, &Subject::Unassigned, Some(UnixMs(5))), patient("Patient/b"));
        let since = Associations::new([at("Patient/b", Some(100), None)]);
        assert_eq!(again(&since, &patient("Patient/a"), Some(UnixMs(99))), patient("Patient/a"));
        assert_eq!(again(&since, &patient("Patient/a"), Some(UnixMs(100))), patient("Patient/b"), "it is stated");
        assert_eq!(again(&since, &Subject::Unassigned, Some(UnixMs(99))), Subject::Unassigned);
        assert_eq!(again(&since, &Subject::Unassigned, None), Subject::Unassigned);
    }
}
