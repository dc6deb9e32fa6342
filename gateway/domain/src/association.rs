//! Which patient a device was attached to, when, and who said so.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::name::DeviceId;
use crate::reading::{Flags, PatientReference, Subject};
use crate::time::{ClockTrust, ReadingTime, UnixMs};

/// A device whose clock is doubted may have kept a reading for so long beside the error of its
/// clock, in milliseconds: 1 hour.
pub const DOUBTED_MOMENT_MARGIN_MS: u64 = 3_600_000;

/// A reading that came so long after its moment was kept by its device, in milliseconds: 2 minutes.
pub const KEPT_AFTER_MS: i64 = 120_000;

/// The clock of a device that kept a reading may have been ahead by so much when it was made, in milliseconds: 5 minutes. No
/// reading that comes at once shows more without being doubted.
pub const KEPT_MOMENT_MARGIN_MS: i64 = 300_000;

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
        self.touches(moment, moment)
    }

    /// Whether a part of `first..=last` lies in it.
    fn touches(&self, first: UnixMs, last: UnixMs) -> bool {
        self.from.is_none_or(|from| from <= last) && self.until.is_none_or(|until| first < until)
    }
}

/// Between which moments the reading was made. None was made after it came. How far a clock is off
/// shows in a reading that comes at once; in one that was kept it does not, or it is older still.
fn possible(time: &ReadingTime, flags: Flags) -> Option<(UnixMs, UnixMs)> {
    let moment = time.effective()?;
    if time.device.is_some() && time.received.trust == ClockTrust::Unset {
        // There was nothing to compare the device's clock with.
        return Some((UnixMs(i64::MIN), UnixMs(i64::MAX)));
    }
    if flags.contains(Flags::DATED_BY_ARRIVAL) {
        return Some((UnixMs(i64::MIN), moment));
    }
    let arrived = time.received.wall;
    if !flags.contains(Flags::CLOCK_DOUBTFUL) {
        let was_kept = arrived > moment.plus_ms(KEPT_AFTER_MS);
        let margin_ms = if was_kept { KEPT_MOMENT_MARGIN_MS } else { 0 };
        return Some((moment.min(arrived).plus_ms(-margin_ms), moment));
    }
    let error = i64::try_from(moment.0.abs_diff(arrived.0).saturating_add(DOUBTED_MOMENT_MARGIN_MS)).unwrap_or(i64::MAX);
    Some((moment.min(arrived).plus_ms(-error), moment.max(arrived)))
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

    /// Whom a reading is about. A moment that the gateway doubts decides nothing where the device
    /// changed its patient near it: then nobody is named.
    #[must_use]
    pub fn subject_of(&self, device: &DeviceId, time: &ReadingTime, flags: Flags) -> Subject {
        self.of(device, time, flags).map_or(Subject::Unassigned, |association| Subject::Patient(association.patient.clone()))
    }

    /// Whom a reading is about that was bound to `bound` before. One that was bound to a patient goes
    /// over to another only where it is stated since when the device was there: an association
    /// without a beginning says nothing about the time before it was written down.
    #[must_use]
    pub fn subject_again(&self, bound: &Subject, device: &DeviceId, time: &ReadingTime, flags: Flags) -> Subject {
        match (bound, self.of(device, time, flags)) {
            (Subject::Patient(_), Some(association)) if association.from.is_none() => bound.clone(),
            (_, Some(association)) => Subject::Patient(association.patient.clone()),
            (_, None) => bound.clone(),
        }
    }

    /// The only association that the moment may belong to. Two at once are a contradiction.
    fn of(&self, device: &DeviceId, time: &ReadingTime, flags: Flags) -> Option<&Association> {
        let (first, last) = possible(time, flags)?;
        let mut touching = self.0.get(device).into_iter().flatten().filter(|association| association.touches(first, last));
        match (touching.next(), touching.next()) {
            (Some(only), None) if only.covers(first) && only.covers(last) => Some(only),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::BootId;
    use crate::time::{ClockTrust, DeviceTime, Received};

    fn at(patient: &str, from: Option<i64>, until: Option<i64>) -> Association {
        Association {
            device: DeviceId::new("m1").unwrap(),
            patient: PatientReference::Literal(patient.into()),
            from: from.map(UnixMs),
            until: until.map(UnixMs),
            confirmed_by: "test".into(),
        }
    }

    fn unknown() -> ReadingTime {
        let received = Received { wall: UnixMs(0), monotonic_ms: 0, boot: BootId::from_bytes([1; 16]), trust: ClockTrust::Unset };
        ReadingTime { device: None, received, correction_ms: 0 }
    }

    /// A reading that came at once.
    fn said(moment: i64) -> ReadingTime {
        let received = Received { wall: UnixMs(moment), trust: ClockTrust::Free, ..unknown().received };
        ReadingTime { device: Some(DeviceTime { unix_ms: UnixMs(moment), offset_minutes: None }), received, correction_ms: 0 }
    }

    #[test]
    fn a_reading_goes_to_the_patient_of_its_own_moment_and_to_nobody_in_doubt() {
        let table =
            Associations::new([at("Patient/a", None, Some(100)), at("Patient/b", Some(100), Some(200)), at("Patient/c", Some(150), None)]);
        let device = DeviceId::new("m1").unwrap();
        let subject = |moment| table.subject_of(&device, &said(moment), Flags::default());
        assert_eq!(subject(99), Subject::Patient(PatientReference::Literal("Patient/a".into())));
        assert_eq!(subject(100), Subject::Patient(PatientReference::Literal("Patient/b".into())));
        assert_eq!(subject(160), Subject::Unassigned, "two patients at once");
        assert_eq!(subject(200), Subject::Patient(PatientReference::Literal("Patient/c".into())));
        assert_eq!(table.subject_of(&device, &unknown(), Flags::default()), Subject::Unassigned, "moment unknown");
    }

    /// The device's clock is an hour ahead, and it moved from one patient to the other at 10:00: what it
    /// measured before that, and sends after it, is stamped with a moment of the second patient.
    #[test]
    fn a_doubted_moment_names_nobody_near_a_change_of_patient() {
        const MINUTE_MS: i64 = 60_000;
        let device = DeviceId::new("m1").unwrap();
        let moved_ms = 1_795_341_600_000;
        let moved = Associations::new([at("Patient/b", Some(moved_ms), None)]);
        let stays = Associations::new([at("Patient/b", None, None)]);
        let stamped = |stamped_min: i64, arrived_min: i64| {
            let mut time = said(moved_ms + stamped_min * MINUTE_MS);
            time.received.wall = UnixMs(moved_ms + arrived_min * MINUTE_MS);
            time
        };
        let (doubted, trusted) = (Flags::CLOCK_DOUBTFUL, Flags::default());
        let second = Subject::Patient(PatientReference::Literal("Patient/b".into()));
        assert_eq!(moved.subject_of(&device, &stamped(30, 5), doubted), Subject::Unassigned);
        assert_eq!(moved.subject_of(&device, &stamped(179, 119), doubted), Subject::Unassigned, "it may be two hours old");
        assert_eq!(moved.subject_of(&device, &stamped(180, 120), doubted), second, "long after the change");
        assert_eq!(moved.subject_of(&device, &stamped(30, 30), trusted), second);
        assert_eq!(stays.subject_of(&device, &stamped(30, 5), doubted), second, "the device never moved");
        let year_min = 365 * 24 * 60;
        assert_eq!(moved.subject_of(&device, &stamped(year_min, 200), doubted), Subject::Unassigned, "a year ahead");
        assert_eq!(moved.subject_again(&Subject::Unassigned, &device, &stamped(30, 5), doubted), Subject::Unassigned, "nor by a replay");
    }

    /// A clock that is ahead, but not so far that it is doubted, gives a reading of the first patient a moment of the second one. Where
    /// the reading came before that moment, or was kept so that its clock's error is not seen, it names nobody (promise 3).
    #[test]
    fn a_clock_that_is_ahead_a_little_takes_no_reading_over_a_change_of_patient() {
        const MOVED_MS: i64 = 1_795_341_600_000;
        let device = DeviceId::new("m1").unwrap();
        let moved = Associations::new([at("Patient/b", Some(MOVED_MS), None)]);
        let stays = Associations::new([at("Patient/b", None, None)]);
        let second = Subject::Patient(PatientReference::Literal("Patient/b".into()));
        let (margin, live) = (KEPT_MOMENT_MARGIN_MS, KEPT_AFTER_MS);
        for (stamped, arrived, known) in [
            (60_000, -1, false),
            (60_000, 0, true),
            (0, 0, true),
            (0, live, true),
            (0, live + 1, false),
            (margin - 1, 3_600_000, false),
            (margin, 3_600_000, true),
            (-1, 3_600_000, false),
        ] {
            let mut time = said(MOVED_MS + stamped);
            time.received.wall = UnixMs(MOVED_MS + arrived);
            let subject = if known { second.clone() } else { Subject::Unassigned };
            let flags = Flags::default();
            assert_eq!(moved.subject_of(&device, &time, flags), subject, "{stamped} {arrived}");
            assert_eq!(moved.subject_again(&Subject::Unassigned, &device, &time, flags), subject, "{stamped} {arrived} by a replay");
            assert_eq!(stays.subject_of(&device, &time, flags), second, "{stamped} {arrived}: the device never moved");
        }
    }

    /// A message without a time may have been kept since before the device came to its patient, and a device's clock that was
    /// compared with none may show anything (promise 3).
    #[test]
    fn what_may_be_of_before_names_nobody_where_a_beginning_is_stated() {
        let device = DeviceId::new("m1").unwrap();
        let second = Subject::Patient(PatientReference::Literal("Patient/b".into()));
        let stated = Associations::new([at("Patient/b", Some(100), None)]);
        let since_ever = Associations::new([at("Patient/b", None, None)]);
        let arrived = ReadingTime { device: None, ..said(5_000) };
        let arrived = ReadingTime { received: Received { wall: UnixMs(5_000), ..arrived.received }, ..arrived };
        let compared_with_none = ReadingTime { received: unknown().received, ..said(5_000) };
        for (time, flags) in [(arrived, Flags::DATED_BY_ARRIVAL), (compared_with_none, Flags::default())] {
            assert_eq!(stated.subject_of(&device, &time, flags), Subject::Unassigned, "{time:?}");
            assert_eq!(stated.subject_again(&Subject::Unassigned, &device, &time, flags), Subject::Unassigned, "nor by a replay");
            assert_eq!(since_ever.subject_of(&device, &time, flags), second, "the device never moved");
        }
        assert_eq!(stated.subject_of(&device, &arrived, Flags::default()), second, "a poll is of its own moment");
    }

    /// The device went from bed to bed since: a reading that is sent again stays with the patient of its own moment.
    #[test]
    fn a_bound_reading_changes_its_patient_only_for_a_stated_interval() {
        let device = DeviceId::new("m1").unwrap();
        let patient = |name: &str| Subject::Patient(PatientReference::Literal(name.into()));
        let again = |table: &Associations, bound: &Subject, moment| table.subject_again(bound, &device, &said(moment), Flags::default());
        let since_ever = Associations::new([at("Patient/b", None, None)]);
        assert_eq!(again(&since_ever, &patient("Patient/a"), 5), patient("Patient/a"));
        assert_eq!(again(&since_ever, &Subject::Unassigned, 5), patient("Patient/b"));
        let since = Associations::new([at("Patient/b", Some(100), None)]);
        assert_eq!(again(&since, &patient("Patient/a"), 99), patient("Patient/a"));
        assert_eq!(again(&since, &patient("Patient/a"), 100), patient("Patient/b"), "it is stated");
        assert_eq!(again(&since, &Subject::Unassigned, 99), Subject::Unassigned);
        assert_eq!(since.subject_again(&Subject::Unassigned, &device, &unknown(), Flags::default()), Subject::Unassigned);
    }
}
