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
        let Some(moment) = moment else { return Subject::Unassigned };
        let mut covering = self.0.get(device).into_iter().flatten().filter(|association| association.covers(moment));
        match (covering.next(), covering.next()) {
            (Some(only), None) => Subject::Patient(only.patient.clone()),
            _ => Subject::Unassigned,
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
}
