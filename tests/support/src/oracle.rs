//! Compares what was acknowledged with what arrived.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;
use uuid::Uuid;
use vitalgate_domain::{DeviceId, Metric, ReadingId};
use vitalgate_simulator::Acknowledged;

use crate::ehr::{Sighting, Stated};

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
    /// The number that was sent; `None` for an absence.
    pub value: Option<f64>,
}

/// Everything that was acknowledged.
#[derive(Debug, Default)]
pub struct Oracle {
    expected: HashMap<Uuid, Expected>,
    polled: BTreeMap<DeviceId, u64>,
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
    /// In the EHR with another value than was sent.
    pub altered: Vec<String>,
    /// In the EHR although the device never got its acknowledgement: it may send them again.
    pub unacknowledged: u64,
    lost_count: u64,
    duplicated_count: u64,
    altered_count: u64,
}

impl Oracle {
    /// Nothing was acknowledged yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes note of an acknowledged message.
    pub fn acknowledged(&mut self, acknowledged: &Acknowledged) {
        let message = &acknowledged.message;
        for reading in &message.readings {
            let id = ReadingId::from_device_time(&acknowledged.device, reading.metric, &message.time, reading.slot);
            let value = reading.value.as_deref().and_then(|value| value.parse::<f64>().ok());
            let value = value.filter(|value| *value != 0.0 || !reading.metric.definition().zero_is_absence);
            let expected = Expected { device: acknowledged.device.clone(), metric: reading.metric, time: message.time.to_string(), value };
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

    /// Takes note of everything that comes from `heard`, in a task of its own that ends with the
    /// last monitor.
    #[must_use]
    pub fn listen(mut heard: mpsc::UnboundedReceiver<Acknowledged>) -> Arc<Mutex<Self>> {
        let oracle = Arc::new(Mutex::new(Self::new()));
        let listening = oracle.clone();
        tokio::spawn(async move {
            while let Some(acknowledged) = heard.recv().await {
                listening.lock().unwrap_or_else(PoisonError::into_inner).acknowledged(&acknowledged);
            }
        });
        oracle
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
            if let Some(arrived) = found.first().and_then(|sighting| polled.get_mut(sighting.device.as_str())) {
                *arrived += 1;
                verdict.in_the_ehr += 1;
                continue;
            }
            if !found.iter().any(|sighting| devices.contains(sighting.device.as_str())) {
                continue;
            }
            verdict.in_the_ehr += 1;
            match self.expected.get(id) {
                None => verdict.unacknowledged += 1,
                Some(expected) if !found.iter().all(|sighting| expected.is_stated(&sighting.stated)) => {
                    note(&mut verdict.altered, &mut verdict.altered_count, || format!("{expected}: {:?}", found[0].stated));
                }
                Some(_) => {}
            }
        }
        for (id, expected) in &self.expected {
            if !seen.contains_key(id) {
                note(&mut verdict.lost, &mut verdict.lost_count, || format!("{id} {expected}"));
            }
        }
        for (device, committed) in &self.polled {
            let arrived = polled.get(device.as_str()).copied().unwrap_or(0);
            let missing = committed.saturating_sub(arrived);
            if missing > 0 {
                note(&mut verdict.lost, &mut verdict.lost_count, || format!("{missing} of {committed} readings polled from {device}"));
                verdict.lost_count += missing - 1;
            }
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
    fn is_stated(&self, stated: &Stated) -> bool {
        match (self.value, stated) {
            (Some(sent), Stated::Number(arrived, _)) => (sent - arrived).abs() <= SAME_NUMBER,
            (None, Stated::Absent(_)) => true,
            _ => false,
        }
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {} at {} ({:?})", self.device, self.metric.key(), self.time, self.value)
    }
}

impl Verdict {
    /// Whether every acknowledged reading is there exactly once with its value.
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

    /// How many carry another value.
    #[must_use]
    pub fn altered_count(&self) -> u64 {
        self.altered_count
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
        if self.unacknowledged > 0 {
            write!(formatter, ", stored before the device knew {}", self.unacknowledged)?;
        }
        for (name, examples) in [("lost", &self.lost), ("duplicated", &self.duplicated), ("altered", &self.altered)] {
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

    fn sighting(id: &ReadingId, resource: &str, value: f64) -> Sighting {
        let stated = Stated::Number(value, "/min".into());
        Sighting { reading: Uuid::from_bytes(*id.as_bytes()), resource: Arc::from(resource), device: "m".into(), stated }
    }

    fn oracle(times: &[&str]) -> (Oracle, Vec<ReadingId>) {
        let device = DeviceId::new("m").unwrap();
        let mut oracle = Oracle::new();
        let ids = times
            .iter()
            .map(|time| {
                let id = ReadingId::from_device_time(&device, Metric::HeartRate, time, 0);
                oracle.expect(id, Expected { device: device.clone(), metric: Metric::HeartRate, time: (*time).into(), value: Some(72.0) });
                id
            })
            .collect();
        (oracle, ids)
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
    }

    #[test]
    fn what_was_stored_but_never_acknowledged_is_counted_apart() {
        let (oracle, ids) = oracle(&["a"]);
        let other = ReadingId::from_device_time(&DeviceId::new("m").unwrap(), Metric::HeartRate, "z", 0);
        let verdict = oracle.compare(&[sighting(&ids[0], "1", 72.0), sighting(&other, "2", 72.0)]);
        assert_eq!((verdict.in_the_ehr, verdict.unacknowledged), (2, 1));
        assert!(verdict.is_exactly_once());
    }
}
