//! Compares what was read of a polled device with what arrived. Nobody but the gateway gives those readings an identity: each
//! set is told by its value, and what arrived together by its moment.

use std::collections::BTreeMap;

use vitalgate_domain::{Metric, UnixMs};
use vitalgate_simulator::{ReadSet, SERVED_METRICS, ServedSet};

use crate::ehr::Sighting;
use crate::oracle::stated_otherwise;

/// The polls of one device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Polls {
    /// Sets that were read.
    pub read: u64,
    /// Polls in the EHR.
    pub arrived: u64,
    /// Sets that are not in the EHR and were the last that was read over their connection: the poller may have gone away
    /// with them before they were on its disk.
    pub cut_off: u64,
}

/// How the polls compare; every text is one poll.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) polls: Polls,
    pub(crate) lost: Vec<String>,
    pub(crate) duplicated: Vec<String>,
    pub(crate) altered: Vec<String>,
}

impl Found {
    /// Compares the sets that were read of a device with all its sightings.
    pub(crate) fn compare(read: &[ReadSet], subject: Option<&str>, sightings: &[&Sighting]) -> Self {
        let mut moments: BTreeMap<Option<UnixMs>, Vec<&Sighting>> = BTreeMap::new();
        for sighting in sightings {
            moments.entry(sighting.effective).or_default().push(sighting);
        }
        let mut found = Self { polls: Polls { read: read.len() as u64, arrived: moments.len() as u64, cut_off: 0 }, ..Self::default() };
        let mut times = vec![0_u64; read.len()];
        // Polls mostly lie in the order of their sets: each is looked for where the one before it was found.
        let mut next = 0;
        for (moment, poll) in &moments {
            match (next..read.len()).chain(0..next).find(|index| is_poll_of(&read[*index].set, subject, poll)) {
                Some(index) => {
                    times[index] += 1;
                    next = index;
                }
                None => found.altered.push(format!("no set that was read says what came at {moment:?}: {poll:?}")),
            }
        }
        for (index, (read_set, times)) in read.iter().zip(times).enumerate() {
            let counter = read_set.set.counter;
            let last_of_connection = !read[index + 1..].iter().any(|later| later.connection == read_set.connection);
            match times {
                0 if last_of_connection => found.polls.cut_off += 1,
                0 => found.lost.push(format!("set {counter}")),
                1 => {}
                _ => found.duplicated.push(format!("set {counter} came {times} times")),
            }
        }
        found
    }
}

/// Whether the poll says of every metric what the set does, once, and of the right patient.
fn is_poll_of(set: &ServedSet, subject: Option<&str>, poll: &[&Sighting]) -> bool {
    poll.len() == SERVED_METRICS.len()
        && poll.iter().all(|sighting| subject.is_none_or(|subject| sighting.subject == subject))
        && SERVED_METRICS.iter().all(|metric| poll.iter().any(|sighting| stated_otherwise(*metric, held(set, *metric), sighting).is_none()))
}

/// The number that the set holds of a metric.
fn held(set: &ServedSet, metric: Metric) -> Option<f64> {
    let value = set.values.iter().find(|(held, _)| *held == metric).map(|(_, value)| *value);
    value.filter(|value| *value != 0.0 || !metric.definition().zero_is_absence)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use uuid::Uuid;
    use vitalgate_domain::{DeviceId, DeviceNamespace, UnixMs};
    use vitalgate_simulator::Recording;

    use super::*;
    use crate::ehr::Stated;
    use crate::{DeviceLine, Oracle, Verdict};

    /// Set `counter` as it was read over a connection; its weight is its counter.
    fn read(counter: u32, connection: u64) -> ReadSet {
        let text = format!("patient,offset_s,vital,value,unit\np,0,heart_rate,72,/min\np,0,body_weight,{counter},kg\n");
        let set = Recording::parse(&text).unwrap().sets("p")[0].clone();
        ReadSet { set: ServedSet::of_set(&set, counter), connection }
    }

    /// The sightings of a poll at moment `at`.
    fn poll(set: &ReadSet, at: i64) -> Vec<Sighting> {
        let sighting = |(index, metric): (usize, &Metric)| {
            let definition = metric.definition();
            let loinc = definition.loinc.iter().map(|(code, _)| (*code).to_owned());
            Sighting {
                reading: Uuid::from_u128((at as u128) << 8 | index as u128),
                resource: Arc::from(format!("{at}-{index}")),
                device: "p".into(),
                subject: "Patient/1".into(),
                codes: loinc.chain(definition.mdc.map(|(code, _)| code.to_string())).collect(),
                effective: Some(UnixMs(at)),
                stated: match held(&set.set, *metric) {
                    Some(value) => Stated::Number(value, definition.unit.unwrap().ucum().into()),
                    None => Stated::Absent("unknown".into()),
                },
            }
        };
        SERVED_METRICS.iter().enumerate().map(sighting).collect()
    }

    fn verdict(read: &[ReadSet], polls: &[Vec<Sighting>]) -> Verdict {
        let device = DeviceId::new("p").unwrap();
        let mut oracle = Oracle::of(DeviceNamespace::new("g").unwrap(), &[DeviceLine::mqtt(device.clone(), "Patient/1")]);
        oracle.polls(&device, read.to_vec());
        oracle.compare(&polls.concat())
    }

    fn counts(verdict: &Verdict) -> (u64, u64, u64, u64) {
        let cut_off = verdict.polls.values().map(|polls| polls.cut_off).sum();
        (verdict.lost_count(), verdict.duplicated_count(), verdict.altered_count(), cut_off)
    }

    /// Three sets, the second the last of its connection.
    fn three() -> [ReadSet; 3] {
        [read(1, 1), read(2, 1), read(3, 2)]
    }

    #[test]
    fn polls_that_all_arrived_once_are_exactly_once() {
        let sets = three();
        let all: Vec<_> = sets.iter().zip(1..).map(|(set, at)| poll(set, at)).collect();
        let verdict = verdict(&sets, &all);
        assert_eq!((counts(&verdict), verdict.acknowledged, verdict.in_the_ehr), ((0, 0, 0, 0), 24, 24));
        assert!(verdict.is_exactly_once());
    }

    #[test]
    fn only_the_last_poll_of_a_connection_may_be_missing() {
        let sets = three();
        assert_eq!(counts(&verdict(&sets, &[poll(&sets[0], 1), poll(&sets[2], 3)])), (0, 0, 0, 1));
        assert_eq!(counts(&verdict(&sets, &[poll(&sets[1], 2), poll(&sets[2], 3)])), (1, 0, 0, 0));
    }

    #[test]
    fn a_poll_that_arrived_twice_under_other_identities_is_found() {
        let sets = three();
        let all = [poll(&sets[0], 1), poll(&sets[1], 2), poll(&sets[2], 3), poll(&sets[2], 4)];
        assert_eq!(counts(&verdict(&sets, &all)), (0, 1, 0, 0));
    }

    #[test]
    fn a_poll_that_came_with_another_value_another_patient_or_in_part_is_found() {
        let sets = three();
        let changes: [fn(&mut Vec<Sighting>); 3] = [
            |poll| poll[0].stated = Stated::Number(73.0, "/min".into()),
            |poll| poll[0].subject = "Patient/2".into(),
            |poll| poll.truncate(7),
        ];
        for change in changes {
            let mut bad = poll(&sets[0], 1);
            change(&mut bad);
            let verdict = verdict(&sets, &[bad, poll(&sets[1], 2), poll(&sets[2], 3)]);
            assert_eq!((counts(&verdict), verdict.is_exactly_once()), ((1, 0, 1, 0), false));
        }
    }
}
