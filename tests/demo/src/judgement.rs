//! When the proof holds: what was compared must be all there was, and something of everybody.

use vitalgate_simulator::SERVED_METRICS;
use vitalgate_test_support::Verdict;
use vitalgate_test_support::ehr::Sighting;

/// What the demonstration has seen when it compares.
pub(crate) struct Evidence<'a> {
    /// How both sets compare.
    pub(crate) verdict: &'a Verdict,
    /// Messages that were handed to the monitors.
    pub(crate) handed_over: u64,
    /// Messages of which the monitors had an acknowledgement.
    pub(crate) acknowledged: u64,
    /// Monitors without one acknowledgement.
    pub(crate) silent: Vec<String>,
    /// Readings of the polled monitor that the gateway stored.
    pub(crate) polled: u64,
    /// Observations in the EHR that state no reading, or one of a device that does not take part. Nobody else writes there.
    pub(crate) of_nobody: u64,
}

/// How many of these Observations, told by what they state, name no reading or one of a device that is not among these.
pub(crate) fn of_nobody<'a>(stated: impl Iterator<Item = &'a [Sighting]>, devices: &[String]) -> u64 {
    let is_of_somebody = |sightings: &[Sighting]| !sightings.is_empty() && sightings.iter().all(|one| devices.contains(&one.device));
    stated.filter(|sightings| !is_of_somebody(sightings)).count() as u64
}

impl Evidence<'_> {
    /// What stands against the proof, for a person; nothing when it holds.
    pub(crate) fn against(&self) -> Vec<String> {
        let unanswered = self.handed_over.saturating_sub(self.acknowledged);
        let unasked = self.verdict.unacknowledged_count();
        let mut against = Vec::new();
        let mut say = |applies: bool, text: String| {
            if applies {
                against.push(text);
            }
        };
        say(!self.verdict.is_exactly_once(), "the two sets differ".to_owned());
        say(unanswered > 0, format!("{unanswered} messages were not acknowledged"));
        say(!self.silent.is_empty(), format!("nothing was acknowledged to {}", self.silent.join(", ")));
        say(self.polled == 0, "no poll was stored".to_owned());
        // What was read and never stored had no acknowledgement: it need not be there. What was stored must be.
        let polls: u64 = self.verdict.polls.values().map(|polls| polls.arrived).sum();
        let arrived = polls * SERVED_METRICS.len() as u64;
        say(self.polled != arrived, format!("{} readings of polls were stored and {arrived} are in the EHR", self.polled));
        say(self.of_nobody > 0, format!("{} Observations in the EHR name no reading of these devices", self.of_nobody));
        // Every message has its acknowledgement by now: what has none was sent by nobody.
        say(unanswered == 0 && unasked > 0, format!("{unasked} readings in the EHR were sent by nobody"));
        against
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use uuid::Uuid;
    use vitalgate_domain::{DeviceId, DeviceNamespace, Metric, ReadingId, UnixMs};
    use vitalgate_simulator::{ReadSet, Recording, ServedSet};
    use vitalgate_test_support::ehr::Stated;
    use vitalgate_test_support::{DeviceLine, Expected, Oracle};

    use super::*;

    const MOMENT: UnixMs = UnixMs(1_795_341_600_120);

    fn id(time: &str) -> ReadingId {
        ReadingId::from_device_time(&DeviceNamespace::new("g").unwrap(), &DeviceId::new("m").unwrap(), Metric::HeartRate, time, 0)
    }

    fn sighting(time: &str, patient: &str) -> Sighting {
        Sighting {
            reading: Uuid::from_bytes(*id(time).as_bytes()),
            resource: Arc::from(time),
            device: "m".into(),
            subject: patient.into(),
            codes: vec!["8867-4".into(), "147842".into()],
            effective: Some(MOMENT),
            stated: Stated::Number(72.0, "/min".into()),
        }
    }

    /// One reading `a` of the monitor `m` at Patient/1 was acknowledged.
    fn oracle() -> Oracle {
        let (device, polled) = (DeviceId::new("m").unwrap(), DeviceId::new("p").unwrap());
        let devices = [DeviceLine::mqtt(device.clone(), "Patient/1"), DeviceLine::mqtt(polled, "Patient/2")];
        let mut oracle = Oracle::of(DeviceNamespace::new("g").unwrap(), &devices);
        let expected = Expected {
            device,
            metric: Metric::HeartRate,
            time: "a".into(),
            effective: Some(MOMENT),
            subject: Some("Patient/1".into()),
            value: Some(72.0),
        };
        oracle.expect(id("a"), expected);
        oracle
    }

    /// Set `number` of the polled monitor `p`, whose sets have a weight each.
    fn read(number: u32) -> ReadSet {
        let text = "patient,offset_s,vital,value,unit\nx,0,heart_rate,72,/min\n";
        let recording = Recording::parse(text).unwrap();
        ReadSet { set: ServedSet::marked(&recording.sets("x")[0], number), connection: 1 }
    }

    /// The sightings of this set, arrived as the poll at moment `at`.
    fn poll(set: &ReadSet, at: i64) -> Vec<Sighting> {
        let sighting = |(index, metric): (usize, &Metric)| {
            let definition = metric.definition();
            let held = set.set.values.iter().find(|(held, _)| held == metric).map(|(_, value)| *value);
            let codes = definition.loinc.iter().map(|(code, _)| (*code).to_owned());
            Sighting {
                reading: Uuid::from_u128((at as u128) << 8 | index as u128),
                device: "p".into(),
                codes: codes.chain(definition.mdc.map(|(code, _)| code.to_string())).collect(),
                effective: Some(UnixMs(at)),
                stated: held.map_or(Stated::Absent("unknown".into()), |held| Stated::Number(held, definition.unit.unwrap().ucum().into())),
                ..sighting(&format!("{at}-{index}"), "Patient/2")
            }
        };
        SERVED_METRICS.iter().enumerate().map(sighting).collect()
    }

    /// The same, and these sets were read of the polled monitor.
    fn compared(read: &[ReadSet], sightings: &[Sighting]) -> Verdict {
        let mut oracle = oracle();
        oracle.polls(&DeviceId::new("p").unwrap(), read.to_vec());
        oracle.compare(sightings)
    }

    /// The same with one poll, which arrived.
    fn verdict(sightings: &[Sighting]) -> Verdict {
        compared(&[read(1)], &[sightings, &poll(&read(1), 1)].concat())
    }

    fn whole(verdict: &Verdict) -> Evidence<'_> {
        Evidence { verdict, handed_over: 1, acknowledged: 1, silent: vec![], polled: 8, of_nobody: 0 }
    }

    #[test]
    fn the_proof_holds_for_all_that_was_sent() {
        assert_eq!(whole(&verdict(&[sighting("a", "Patient/1")])).against(), Vec::<String>::new());
    }

    /// Two empty sets are equal and prove nothing.
    #[test]
    fn a_demonstration_in_which_nothing_flowed_proves_nothing() {
        let verdict = Oracle::new(DeviceNamespace::new("g").unwrap()).compare(&[]);
        assert!(verdict.is_exactly_once());
        let nothing = Evidence { acknowledged: 0, silent: vec!["m".to_owned()], polled: 0, ..whole(&verdict) };
        assert_eq!(nothing.against(), ["1 messages were not acknowledged", "nothing was acknowledged to m", "no poll was stored"]);
    }

    /// A reading that is written a second time without its identifier, or under another device's name, is seen.
    #[test]
    fn an_observation_without_a_reading_of_the_ward_is_counted() {
        let (known, stranger) = (sighting("a", "Patient/1"), Sighting { device: "x".into(), ..sighting("a", "Patient/1") });
        let stated = [vec![known.clone()], vec![], vec![known, stranger]];
        assert_eq!(of_nobody(stated.iter().map(Vec::as_slice), &["m".to_owned()]), 2);
    }

    #[test]
    fn another_patient_a_loss_and_a_reading_of_nobody_stand_against_it() {
        let difference = ["the two sets differ"];
        assert_eq!(whole(&verdict(&[sighting("a", "Patient/2")])).against(), difference);
        assert_eq!(whole(&verdict(&[])).against(), difference);
        let both = verdict(&[sighting("a", "Patient/1"), sighting("b", "Patient/1")]);
        assert_eq!(whole(&both).against(), ["1 readings in the EHR were sent by nobody"]);
        let sound = verdict(&[sighting("a", "Patient/1")]);
        let said = Evidence { of_nobody: 2, ..whole(&sound) }.against();
        assert_eq!(said, ["2 Observations in the EHR name no reading of these devices"]);
    }

    /// Promise: polls are compared one by one, not by their number.
    #[test]
    fn a_poll_that_is_lost_and_another_that_came_twice_stand_against_it() {
        let (sets, sent) = ([read(1), read(2), read(3)], sighting("a", "Patient/1"));
        let against = |polls: &[Vec<Sighting>], stored: u64| {
            let verdict = compared(&sets, &[&polls.concat()[..], std::slice::from_ref(&sent)].concat());
            Evidence { polled: stored, ..whole(&verdict) }.against()
        };
        let [first, second, third] = [poll(&sets[0], 1), poll(&sets[1], 2), poll(&sets[2], 3)];
        assert_eq!(against(&[first.clone(), second, third.clone()], 24), Vec::<String>::new());
        // The second is lost, the first came again under an identity of its own: as many as were stored.
        assert_eq!(against(&[first.clone(), poll(&sets[0], 2), third], 24), ["the two sets differ"]);
        // The last may have been read and never stored, but not stored and lost.
        let but_the_last = [first, poll(&sets[1], 2)];
        assert_eq!(against(&but_the_last, 16), Vec::<String>::new());
        assert_eq!(against(&but_the_last, 24), ["24 readings of polls were stored and 16 are in the EHR"]);
    }
}
