//! Compares what was acknowledged with what arrived.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use uuid::Uuid;
use vitalgate_domain::{DeviceId, DeviceNamespace, Metric, ReadingId, UnixMs};
use vitalgate_simulator::{Acknowledged, ReadSet, SERVED_METRICS};

use crate::ehr::{Sighting, Stated};
use crate::gateway::DeviceLine;
use crate::polls::{Found, Polls};

/// Examples that a verdict names of each kind of failure.
const EXAMPLES_MAX: usize = 10;
/// Largest difference that is still the same number after decimal text became binary twice.
const SAME_NUMBER: f64 = 1e-6;

/// One acknowledged reading.
#[derive(Debug, Clone, PartialEq)]
pub struct Expected {
    /// The device.
    pub device: DeviceId,
    /// What was observed.
    pub metric: Metric,
    /// The device's time as sent, for a person who looks for it.
    pub time: String,
    /// The same moment as a number; `None` where the device says none and the gateway's own counts.
    pub effective: Option<UnixMs>,
    /// The reference of the device's patient; `None` where the oracle was not told.
    pub subject: Option<String>,
    /// The number that was sent, in the unit of the catalogue; `None` for an absence.
    pub value: Option<f64>,
}

/// Everything that was acknowledged.
#[derive(Debug)]
pub struct Oracle {
    namespace: DeviceNamespace,
    expected: HashMap<Uuid, Expected>,
    patients: BTreeMap<DeviceId, String>,
    polled: BTreeMap<DeviceId, u64>,
    polls: BTreeMap<DeviceId, Vec<ReadSet>>,
}

/// How the two sets compare.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Verdict {
    /// Readings acknowledged to their devices.
    pub acknowledged: u64,
    /// Distinct readings of these devices in the EHR.
    pub in_the_ehr: u64,
    /// Acknowledged and not in the EHR.
    pub lost: Vec<String>,
    /// In the EHR in more than one Observation.
    pub duplicated: Vec<String>,
    /// In the EHR with something else than was sent: value, unit, code, patient, device or moment.
    pub altered: Vec<String>,
    /// In the EHR although the device never got its acknowledgement: it may send them again. Of a device that had every
    /// acknowledgement, each is a reading that nobody sent.
    pub unacknowledged: Vec<String>,
    /// The polls of each device that was polled, see [`Oracle::polls`].
    pub polls: BTreeMap<DeviceId, Polls>,
    lost_count: u64,
    duplicated_count: u64,
    altered_count: u64,
    unacknowledged_count: u64,
}

impl Oracle {
    /// Nothing was acknowledged yet by the gateways whose devices are unique within this namespace.
    #[must_use]
    pub fn new(namespace: DeviceNamespace) -> Self {
        let (expected, patients, polled, polls) = Default::default();
        Self { namespace, expected, patients, polled, polls }
    }

    /// The same; the patients are those of the configuration.
    #[must_use]
    pub fn of(namespace: DeviceNamespace, devices: &[DeviceLine]) -> Self {
        let patients = devices.iter().filter_map(|device| Some((device.id.clone(), device.patient.clone()?))).collect();
        Self { patients, ..Self::new(namespace) }
    }

    /// Takes note of an acknowledged message.
    pub fn acknowledged(&mut self, acknowledged: &Acknowledged) {
        let message = &acknowledged.message;
        for reading in &message.readings {
            let id = ReadingId::from_device_time(&self.namespace, &acknowledged.device, reading.metric, &message.time, reading.slot);
            let value = reading.value.as_deref().and_then(|value| value.parse::<f64>().ok());
            let expected = Expected {
                device: acknowledged.device.clone(),
                metric: reading.metric,
                time: message.time.to_string(),
                effective: Some(message.time_unix_ms),
                subject: self.patients.get(&acknowledged.device).cloned(),
                value: value.filter(|value| *value != 0.0 || !reading.metric.definition().zero_is_absence),
            };
            self.expect(id, expected);
        }
    }

    /// Takes note of one acknowledged reading.
    pub fn expect(&mut self, id: ReadingId, expected: Expected) {
        self.expected.insert(Uuid::from_bytes(*id.as_bytes()), expected);
    }

    /// Takes note that the gateway committed this many readings of a polled device. Nobody but the
    /// gateway gives those readings an identity, so they are compared by their number.
    pub fn polled(&mut self, device: &DeviceId, committed: u64) {
        self.polled.insert(device.clone(), committed);
    }

    /// Takes note of the sets that were read of a polled device, each a different one. The readings of a poll have one moment
    /// in common, by which the polls in the EHR are told apart; each must be one of these sets, value by value.
    pub fn polls(&mut self, device: &DeviceId, read: Vec<ReadSet>) {
        self.polls.insert(device.clone(), read);
    }

    /// Acknowledged readings so far, those of polled devices included.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.expected.len() as u64 + self.polled.values().sum::<u64>()
    }

    /// Whether this device is one that was polled.
    #[must_use]
    pub fn is_polled(&self, device: &str) -> bool {
        self.polled.keys().any(|polled| polled.as_str() == device)
    }

    /// How many of the acknowledged readings are among the sightings, those of polled devices left
    /// aside. For asking again and again, [`crate::Ehr::missing_of`] is far cheaper.
    #[must_use]
    pub fn arrived(&self, sightings: &[Sighting]) -> usize {
        let seen: BTreeSet<Uuid> = sightings.iter().map(|sighting| sighting.reading).collect();
        self.expected.keys().filter(|id| seen.contains(id)).count()
    }

    /// The identities of the acknowledged readings, those of polled devices left aside.
    pub fn identities(&self) -> impl Iterator<Item = &Uuid> {
        self.expected.keys()
    }

    /// Whether it stands at another patient than its device's.
    fn is_elsewhere(&self, sighting: &Sighting) -> bool {
        let patient = self.patients.iter().find(|(device, _)| device.as_str() == sighting.device).map(|(_, patient)| patient);
        patient.is_some_and(|patient| *patient != sighting.subject)
    }

    /// Compares with what the EHR holds. Sightings of devices that the oracle never heard of are
    /// only looked at for duplicates.
    #[must_use]
    pub fn compare(&self, sightings: &[Sighting]) -> Verdict {
        let mut seen: BTreeMap<Uuid, Vec<&Sighting>> = BTreeMap::new();
        for sighting in sightings {
            seen.entry(sighting.reading).or_default().push(sighting);
        }
        let devices: BTreeSet<&str> = self.expected.values().map(|expected| expected.device.as_str()).collect();
        let mut verdict = Verdict { acknowledged: self.count(), ..Verdict::default() };
        let mut polled: BTreeMap<&str, u64> = self.polled.keys().map(|device| (device.as_str(), 0)).collect();
        for (id, found) in &seen {
            let resources: BTreeSet<&str> = found.iter().map(|sighting| &*sighting.resource).collect();
            if resources.len() > 1 || found.len() > resources.len() {
                note(&mut verdict.duplicated, &mut verdict.duplicated_count, || format!("{id} in {resources:?}"));
            }
            if let Some(expected) = self.expected.get(id) {
                verdict.in_the_ehr += 1;
                if let Some((what, sighting)) = found.iter().find_map(|sighting| Some((expected.difference(sighting)?, sighting))) {
                    note(&mut verdict.altered, &mut verdict.altered_count, || format!("{expected}: another {what} in {sighting:?}"));
                }
            } else if let Some(arrived) = found.first().and_then(|sighting| polled.get_mut(sighting.device.as_str())) {
                *arrived += 1;
                verdict.in_the_ehr += 1;
                if let Some(sighting) = found.iter().find(|sighting| self.is_elsewhere(sighting)) {
                    note(&mut verdict.altered, &mut verdict.altered_count, || format!("another patient in {sighting:?}"));
                }
            } else if found.iter().any(|sighting| devices.contains(sighting.device.as_str())) {
                verdict.in_the_ehr += 1;
                note(&mut verdict.unacknowledged, &mut verdict.unacknowledged_count, || format!("{found:?}"));
            }
        }
        for (id, expected) in &self.expected {
            if !seen.contains_key(id) {
                note(&mut verdict.lost, &mut verdict.lost_count, || format!("{id} {expected}"));
            }
        }
        for (device, committed) in &self.polled {
            verdict.count_polled(device, *committed, polled.get(device.as_str()).copied().unwrap_or(0));
        }
        for (device, read) in &self.polls {
            let of_device: Vec<_> = sightings.iter().filter(|sighting| sighting.device == device.as_str()).collect();
            verdict.take_polls(device, &Found::compare(read, self.patients.get(device).map(String::as_str), &of_device));
        }
        verdict
    }
}

fn note(examples: &mut Vec<String>, count: &mut u64, text: impl FnOnce() -> String) {
    *count += 1;
    if examples.len() < EXAMPLES_MAX {
        examples.push(text());
    }
}

impl Expected {
    /// What the sighting says otherwise.
    fn difference(&self, found: &Sighting) -> Option<&'static str> {
        let same = [
            ("device", self.device.as_str() == found.device),
            ("patient", self.subject.as_ref().is_none_or(|subject| *subject == found.subject)),
            ("moment", self.effective.is_none_or(|effective| Some(effective) == found.effective)),
        ];
        same.into_iter().find(|(_, same)| !same).map(|(what, _)| what).or_else(|| stated_otherwise(self.metric, self.value, found))
    }
}

/// What of value, unit and code the sighting states otherwise.
pub(crate) fn stated_otherwise(metric: Metric, value: Option<f64>, found: &Sighting) -> Option<&'static str> {
    let definition = metric.definition();
    let loinc = definition.loinc.iter().map(|(code, _)| (*code).to_owned());
    let codes: Vec<String> = loinc.chain(definition.mdc.map(|(code, _)| code.to_string())).collect();
    if found.codes != codes {
        return Some("code");
    }
    match (value, &found.stated) {
        (Some(_), Stated::Number(_, unit)) if definition.unit.is_none_or(|own| own.ucum() != unit) => Some("unit"),
        (Some(sent), Stated::Number(arrived, _)) if (sent - arrived).abs() <= SAME_NUMBER => None,
        (None, Stated::Absent(_)) => None,
        _ => Some("value"),
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {} at {} ({:?})", self.device, self.metric.key(), self.time, self.value)
    }
}

impl Verdict {
    /// Compares by number: fewer than were committed are lost, more were made of nothing.
    fn count_polled(&mut self, device: &DeviceId, committed: u64, arrived: u64) {
        let text = || format!("{arrived} of {committed} readings polled from {device}");
        if arrived < committed {
            note(&mut self.lost, &mut self.lost_count, text);
            self.lost_count += committed - arrived - 1;
        } else if arrived > committed {
            note(&mut self.duplicated, &mut self.duplicated_count, text);
            self.duplicated_count += arrived - committed - 1;
        }
    }

    fn take_polls(&mut self, device: &DeviceId, found: &Found) {
        let readings = SERVED_METRICS.len() as u64;
        self.acknowledged += (found.polls.arrived + found.lost.len() as u64) * readings;
        self.in_the_ehr += found.polls.arrived * readings;
        self.polls.insert(device.clone(), found.polls);
        for (examples, count, texts) in [
            (&mut self.lost, &mut self.lost_count, &found.lost),
            (&mut self.duplicated, &mut self.duplicated_count, &found.duplicated),
            (&mut self.altered, &mut self.altered_count, &found.altered),
        ] {
            texts.iter().for_each(|text| note(examples, count, || format!("{device}: {text}")));
        }
    }

    /// Whether every acknowledged reading is there exactly once, as it was sent.
    #[must_use]
    pub fn is_exactly_once(&self) -> bool {
        self.lost_count == 0 && self.duplicated_count == 0 && self.altered_count == 0
    }

    /// How many were lost.
    #[must_use]
    pub fn lost_count(&self) -> u64 {
        self.lost_count
    }

    /// How many are there more than once.
    #[must_use]
    pub fn duplicated_count(&self) -> u64 {
        self.duplicated_count
    }

    /// How many say something else than was sent.
    #[must_use]
    pub fn altered_count(&self) -> u64 {
        self.altered_count
    }

    /// How many are there that no device had an acknowledgement for.
    #[must_use]
    pub fn unacknowledged_count(&self) -> u64 {
        self.unacknowledged_count
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "acknowledged {}, in the EHR {}, lost {}, duplicated {}",
            self.acknowledged, self.in_the_ehr, self.lost_count, self.duplicated_count
        )?;
        if self.altered_count > 0 {
            write!(formatter, ", altered {}", self.altered_count)?;
        }
        if self.unacknowledged_count > 0 {
            write!(formatter, ", stored before the device knew {}", self.unacknowledged_count)?;
        }
        let examples = [("lost", &self.lost), ("duplicated", &self.duplicated), ("altered", &self.altered)];
        for (name, examples) in examples.into_iter().chain([("unacknowledged", &self.unacknowledged)]) {
            for example in examples {
                write!(formatter, "\n  {name}: {example}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    const MOMENT: UnixMs = UnixMs(1_795_341_600_120);

    fn sighting(id: &ReadingId, resource: &str, value: f64) -> Sighting {
        Sighting {
            reading: Uuid::from_bytes(*id.as_bytes()),
            resource: Arc::from(resource),
            device: "m".into(),
            subject: "Patient/1".into(),
            codes: vec!["8867-4".into(), "147842".into()],
            effective: Some(MOMENT),
            stated: Stated::Number(value, "/min".into()),
        }
    }

    fn namespace() -> DeviceNamespace {
        DeviceNamespace::new("g").unwrap()
    }

    fn oracle(times: &[&str]) -> (Oracle, Vec<ReadingId>) {
        let device = DeviceId::new("m").unwrap();
        let mut oracle = Oracle::new(namespace());
        let ids = times
            .iter()
            .map(|time| {
                let id = ReadingId::from_device_time(&namespace(), &device, Metric::HeartRate, time, 0);
                let expected = Expected {
                    device: device.clone(),
                    metric: Metric::HeartRate,
                    time: (*time).into(),
                    effective: Some(MOMENT),
                    subject: Some("Patient/1".into()),
                    value: Some(72.0),
                };
                oracle.expect(id, expected);
                id
            })
            .collect();
        (oracle, ids)
    }

    /// The reading `a`, differing in one point, is altered, and the verdict names the point.
    fn altered(point: &str, differ: impl FnOnce(&mut Sighting)) {
        let (oracle, ids) = oracle(&["a"]);
        let mut found = sighting(&ids[0], "1", 72.0);
        assert!(oracle.compare(std::slice::from_ref(&found)).is_exactly_once());
        differ(&mut found);
        let verdict = oracle.compare(&[found]);
        assert_eq!((verdict.altered_count(), verdict.lost_count(), verdict.is_exactly_once()), (1, 0, false), "{verdict}");
        assert!(verdict.altered[0].contains(&format!("another {point} ")), "{verdict}");
    }

    #[test]
    fn another_value_is_found() {
        altered("value", |found| found.stated = Stated::Number(72.1, "/min".into()));
    }

    #[test]
    fn an_absence_for_a_value_is_found() {
        altered("value", |found| found.stated = Stated::Absent("unknown".into()));
    }

    #[test]
    fn another_unit_is_found() {
        altered("unit", |found| found.stated = Stated::Number(72.0, "Hz".into()));
    }

    #[test]
    fn another_code_is_found() {
        // The pulse rate of an oximeter has the same LOINC code.
        altered("code", |found| found.codes[1] = "149530".into());
    }

    #[test]
    fn another_patient_is_found() {
        altered("patient", |found| found.subject = "Patient/2".into());
    }

    #[test]
    fn another_device_is_found() {
        altered("device", |found| found.device = "n".into());
    }

    #[test]
    fn another_moment_is_found() {
        altered("moment", |found| found.effective = Some(MOMENT.plus_ms(1)));
    }

    #[test]
    fn a_lost_a_doubled_and_an_altered_reading_are_each_found() {
        let (oracle, ids) = oracle(&["a", "b", "c"]);
        let all = [sighting(&ids[0], "1", 72.0), sighting(&ids[1], "2", 72.0), sighting(&ids[2], "3", 72.0)];
        let verdict = oracle.compare(&all);
        assert_eq!(verdict.to_string(), "acknowledged 3, in the EHR 3, lost 0, duplicated 0");
        assert!(verdict.is_exactly_once());
        let bad = [sighting(&ids[0], "1", 72.0), sighting(&ids[0], "9", 72.0), sighting(&ids[1], "2", 7.0)];
        let verdict = oracle.compare(&bad);
        assert_eq!((verdict.lost_count(), verdict.duplicated_count(), verdict.altered_count()), (1, 1, 1));
        assert!(!verdict.is_exactly_once());
    }

    #[test]
    fn readings_of_a_polled_device_are_compared_by_their_number() {
        let (mut oracle, ids) = oracle(&["a"]);
        oracle.polled(&DeviceId::new("p").unwrap(), 2);
        let polled = |number: u128| Sighting { reading: Uuid::from_u128(number), device: "p".into(), ..sighting(&ids[0], "p", 1.0) };
        let sightings = [sighting(&ids[0], "1", 72.0), polled(1), polled(2)];
        assert_eq!(oracle.compare(&sightings).to_string(), "acknowledged 3, in the EHR 3, lost 0, duplicated 0");
        assert_eq!(oracle.compare(&sightings[..2]).lost_count(), 1);
        let more = [&sightings[..], &[polled(3), polled(4)]].concat();
        assert_eq!((oracle.compare(&more).duplicated_count(), oracle.compare(&more).is_exactly_once()), (2, false));
        oracle.patients.insert(DeviceId::new("p").unwrap(), "Patient/2".into());
        assert_eq!(oracle.compare(&sightings).altered_count(), 2, "each at another patient");
    }

    #[test]
    fn what_was_stored_but_never_acknowledged_is_counted_apart() {
        let (oracle, ids) = oracle(&["a"]);
        let other = ReadingId::from_device_time(&namespace(), &DeviceId::new("m").unwrap(), Metric::HeartRate, "z", 0);
        let verdict = oracle.compare(&[sighting(&ids[0], "1", 72.0), sighting(&other, "2", 72.0)]);
        assert_eq!((verdict.in_the_ehr, verdict.unacknowledged_count(), verdict.unacknowledged.len()), (2, 1, 1));
        assert!(verdict.is_exactly_once());
    }
}
