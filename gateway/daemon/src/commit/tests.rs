mod again;
mod carry;
mod full;
mod load;
mod panels;
mod spared;
mod told;
mod two;
mod upkeep;

use std::path::Path;

use tempfile::TempDir;
use vitalgate_domain::{
    Association, BootId, DeadLetterKind, DeadLetterReason, DestinationId, DeviceId, DeviceNamespace, GatewayId, KeyWrap, KeyWrapError,
    PatientReference, RawSample, Reading, Received, RejectedReading,
};
use vitalgate_pipeline::AdmissionPolicy;
use vitalgate_profile::Profiles;
use vitalgate_store::{FileSystem, Reader, RealFiles, StoreOptions};

use super::*;
use crate::clock::TrustFile;
use crate::devices::Devices;

const MONITOR: &str = "monitor-01";
const EHR: &str = "ehr";
const PATIENCE: Duration = Duration::from_secs(60);

struct PlainWrap;

impl KeyWrap for PlainWrap {
    fn wrap(&self, data_key: &[u8; 32]) -> Result<Vec<u8>, KeyWrapError> {
        Ok(data_key.to_vec())
    }

    fn unwrap(&self, wrapped: &[u8]) -> Result<[u8; 32], KeyWrapError> {
        wrapped.try_into().map_err(|_| KeyWrapError::DoesNotOpen)
    }
}

/// A profile that knows the pulse under the name that the device sends, or does not yet.
fn list_profile(pulse: &str) -> String {
    format!(
        r#"
        id = "test"
        version = "1"
        source = "Test"
        [publish]
        resend_indistinct = true
        [publish.counter]
        field = "/seq"
        source = "Test"
        [publish.array]
        list = "/values"
        metric_field = "/name"
        value_field = "/value"
        source = "Test"
        name = [
            {{ name = "rr", metric = "resp_rate", unit = "/min", source = "Test" }},
            {{ name = "hr", metric = "heart_rate", unit = "/min", source = "Test" }},
            {{ name = "sys", metric = "nibp_sys", unit = "mm[Hg]", source = "Test" }},
            {{ name = "dia", metric = "nibp_dia", unit = "mm[Hg]", source = "Test" }},
            {{ name = "{pulse}", metric = "pulse_rate_spo2", unit = "/min", source = "Test" }},
        ]
    "#
    )
}

/// A profile of one polled block, with how its weight is laid out.
fn polled_profile(weight: &str) -> String {
    format!(
        r#"
        id = "test"
        version = "1"
        source = "Test"
        [polled]
        min_poll_interval_ms = 10
        block = [{{ name = "a", function = "input_registers", address = 0, count = 3, source = "Test" }}]
        register = [
            {{ block = "a", address = 0, type = "u16", metric = "heart_rate", unit = "/min", source = "Test" }},
            {{ block = "a", address = 1, type = "{weight}", metric = "body_weight", unit = "kg", source = "Test" }},
        ]
    "#
    )
}

/// The commit loop over a store in a folder, called by hand.
struct Rig {
    commit: CommitLoop,
    reader: Reader,
    intake: vitalgate_intake::Intake,
    keyed: Arc<vitalgate_store::Keyed>,
}

fn rig(folder: &Path, profile: &str, floor_bytes: u64) -> Rig {
    rig_with(folder, profile, StoreOptions { free_space_floor_bytes: floor_bytes, ..StoreOptions::new(folder.join("store")) })
}

fn rig_with(folder: &Path, profile: &str, options: StoreOptions) -> Rig {
    rig_on(folder, profile, options, Arc::new(RealFiles))
}

fn rig_on(folder: &Path, profile: &str, options: StoreOptions, files: Arc<dyn FileSystem>) -> Rig {
    let mut profiles = Profiles::default();
    let id = profiles.load("test.toml", profile).unwrap();
    let device = DeviceId::new(MONITOR).unwrap();
    let devices = Arc::new(Devices::new([(device.clone(), profiles.get(&id).unwrap())]));
    let options = StoreOptions { background: false, ..options };
    let opened = vitalgate_store::open(options, Arc::new(PlainWrap), files).unwrap();
    let (mut journal, reader) = (opened.journal, opened.reader);
    if opened.state.settled.is_empty() {
        let present = vec![DestinationId::new(EHR).unwrap()];
        journal.append(&[], &[Change::Destinations { present, from: Sequence::FIRST }]).unwrap();
    }
    let patient = PatientReference::Literal("Patient/p1".into());
    let association = Association { device: device.clone(), patient, from: None, until: None, confirmed_by: "test".into() };
    let (intake, queue) = vitalgate_intake::intake();
    let (_command, commands) = mpsc::channel(1);
    let namespace = DeviceNamespace::new("gateway-01").unwrap();
    let commit = CommitLoop {
        queue,
        commands,
        journal,
        admission: Admission::new(GatewayId::new("gateway-01").unwrap(), namespace.clone(), AdmissionPolicy::default(), opened.state.seen),
        associations: Associations::new([association]),
        clock: Clock::start(TrustFile { path: folder.join("clock-trust"), promised: false }).unwrap(),
        shared: Arc::new(Shared::new([device], [DestinationId::new(EHR).unwrap()])),
        committed: watch::channel(reader.committed()).0,
        undated: Undated::of_journal(&reader),
        replay: Replay { reader: reader.clone(), devices, namespace },
        told: Box::new(Arc::clone(&opened.keyed)),
        carry_at_ms: 0,
        carry_seen: None,
        not_carried: None,
        rotation: Rotation::new(0),
        kept: Kept::default(),
        letters: LetterLog::default(),
        beacon: Beacon::new("commit"),
    };
    Rig { commit, reader, intake, keyed: opened.keyed }
}

/// As the gateway does: its buffer has ended before the next start opens it, which would wait for its lock in vain.
impl Drop for Rig {
    fn drop(&mut self) {
        self.keyed.shutdown(PATIENCE);
    }
}

impl Rig {
    /// As configured for the next start.
    fn shares_devices(&mut self, namespace: &str) {
        let namespace = DeviceNamespace::new(namespace).unwrap();
        let (gateway, seen) = (GatewayId::new("gateway-01").unwrap(), self.commit.admission.seen());
        self.commit.admission = Admission::new(gateway, namespace.clone(), AdmissionPolicy::default(), seen);
        self.commit.replay.namespace = namespace;
    }

    fn received(&self, ago_ms: u64) -> Received {
        let now = self.commit.clock.now();
        Received { wall: now.wall.plus_ms(-ago_ms.cast_signed()), monotonic_ms: now.monotonic_ms.saturating_sub(ago_ms), ..now }
    }

    fn commit<T>(&mut self, fill: impl FnOnce(&mut CommitLoop, &mut Group) -> T) -> Receipt {
        let mut group = Group::default();
        fill(&mut self.commit, &mut group);
        let (sender, mut receipt) = oneshot::channel();
        group.answers.push((sender, Answered::default()));
        self.commit.commit(&mut group).unwrap();
        if receipt.try_recv().unwrap().is_ok() { Receipt::Committed } else { Receipt::Refused }
    }

    fn sample(&self, text: &str, received: Received) -> DecodedSample {
        let raw = RawSample { device: DeviceId::new(MONITOR).unwrap(), channel: "vitals".into(), bytes: text.into(), received };
        self.commit.replay.devices.decode(&DeviceId::new(MONITOR).unwrap(), raw).unwrap()
    }

    fn publish(&mut self, text: &str, received: Received) {
        let sample = self.sample(text, received);
        self.commit(|commit, group| commit.admit(sample, group));
    }

    /// As a driver does it.
    fn submit(&mut self, text: &str) -> Receipt {
        let sample = self.sample(text, self.received(0));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(self.intake.submit(Submitted::Sample(sample))).unwrap();
        self.commit(CommitLoop::fill)
    }

    fn last_reading_age_s(&self) -> Option<u64> {
        self.commit.shared.devices[&DeviceId::new(MONITOR).unwrap()].age_s()
    }

    fn is_full(&self) -> bool {
        self.commit.shared.below_floor.load(Ordering::Relaxed)
    }

    /// The EHR's lane settles all, and holds these.
    fn settle(&mut self, held: impl IntoIterator<Item = u64>) {
        let reason = DeadLetterReason::new(DeadLetterKind::TimeUnknown, "test");
        let rejected = held.into_iter().map(|sequence| RejectedReading {
            sequence: Sequence(sequence),
            id: vitalgate_domain::ReadingId::from_bytes([0; 16]),
            reason: reason.clone(),
        });
        let ranges = vec![(Sequence::FIRST, self.reader.committed())];
        let destination = DestinationId::new(EHR).unwrap();
        let change = Change::Settled { destination, ranges, rejected: rejected.collect(), remote_ids: vec![] };
        self.commit(|_, group| group.changes.push(change));
    }

    /// Requests that wait for the same commit, and what each is told.
    fn resolve(&mut self, requests: &[(&[u64], Resolution)]) -> Vec<(u64, u64)> {
        let mut answers = Vec::new();
        self.commit(|commit, group| {
            for (sequences, resolution) in requests {
                let (asker, answer) = oneshot::channel();
                let request = ResolveRequest { sequences: sequences.to_vec(), among: None, resolution: *resolution, by: None };
                commit.obey(Command::Resolve(request, asker), group);
                answers.push(answer);
            }
        });
        let told = answers.iter_mut().map(|answer| answer.try_recv().unwrap().unwrap());
        told.map(|answered| (answered.resolved, answered.remaining)).collect()
    }

    fn readings(&self) -> Vec<Reading> {
        let records = self.reader.read(Sequence::FIRST, self.reader.committed(), usize::MAX, usize::MAX).unwrap().records;
        records.into_iter().filter_map(|record| if let Entry::Reading(reading) = record.entry { Some(reading) } else { None }).collect()
    }

    fn said(&self) -> Vec<String> {
        let value = |value: &vitalgate_domain::Value| match value {
            vitalgate_domain::Value::Quantity(quantity) => quantity.value.to_string(),
            vitalgate_domain::Value::Absent(reason) => format!("{reason:?}"),
        };
        self.readings().iter().map(|reading| format!("{}#{} {}", reading.metric.key(), reading.slot, value(&reading.value))).collect()
    }

    fn unresolved(&self) -> Vec<(u64, u64)> {
        self.commit.journal.state().unresolved.ranges().iter().map(|(first, last)| (first.0, last.0)).collect()
    }
}

fn folder(trust: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    trusting(folder.path(), trust);
    folder
}

fn trusting(folder: &Path, trust: &str) {
    std::fs::write(folder.join("clock-trust"), trust).unwrap();
}

const REPLAY: Resolution = Resolution::Replay;

/// Promise 2: however often a dead letter is named before a commit, it is read again once.
#[test]
fn a_dead_letter_is_replayed_once_in_a_commit() {
    let folder = folder("free");
    let mut rig_before = rig(folder.path(), &list_profile("pr"), 0);
    let received = rig_before.received(500);
    rig_before.publish(r#"{"values": [{"name": "pulse", "value": 71}]}"#, received);
    drop(rig_before);
    let mut rig = rig(folder.path(), &list_profile("pulse"), 0);
    assert_eq!((rig.said(), rig.unresolved()), (vec![], vec![(1, 1)]));
    let told = rig.resolve(&[(&[1, 1], REPLAY), (&[1], REPLAY), (&[], REPLAY), (&[1], Resolution::Discard)]);
    assert_eq!(told, [(1, 0), (0, 0), (0, 0), (0, 0)]);
    assert_eq!((rig.said(), rig.unresolved()), (vec!["pulse_rate_spo2#0 71".to_owned()], vec![]));
}

/// Promise 3: a correction never comes before what it corrects: it waits until every destination has answered for that.
#[test]
fn a_corrected_patient_waits_until_no_destination_has_the_wrong_one_before_it() {
    let folder = folder("free");
    let sends_at_once = list_profile("pulse").replace("[publish]", "[publish]\n        arrival_is_moment = true");
    let mut rig = rig(folder.path(), &sends_at_once, 0);
    let [ehr, archive] = [EHR, "archive"].map(|id| DestinationId::new(id).unwrap());
    let present = Change::Destinations { present: vec![ehr, archive.clone()], from: Sequence::FIRST };
    rig.commit(|_, group| group.changes.push(present));
    rig.publish(r#"{"values": [{"name": "pulse", "value": 71}]}"#, rig.received(500));
    rig.settle([1]);
    let patient = PatientReference::Literal("Patient/p2".into());
    let association = Association {
        device: DeviceId::new(MONITOR).unwrap(),
        patient: patient.clone(),
        from: Some(rig.received(60_000).wall),
        until: None,
        confirmed_by: "test".into(),
    };
    rig.commit.associations = Associations::new([association]);
    assert_eq!(rig.resolve(&[(&[], REPLAY)]), [(0, 1)], "the archive has not answered for the patient of before");

    let ranges = vec![(Sequence::FIRST, rig.reader.committed())];
    let settled = Change::Settled { destination: archive, ranges, rejected: vec![], remote_ids: vec![] };
    rig.commit(|_, group| group.changes.push(settled));
    assert_eq!(rig.resolve(&[(&[], REPLAY)]), [(1, 0)]);
    let subjects: Vec<_> = rig.readings().into_iter().map(|reading| reading.subject).collect();
    assert_eq!(subjects[1], vitalgate_domain::Subject::Patient(patient));
}

/// Promise 2: what could be read the first time is not read once more with the rest of its message, also where the namespace
/// of its device is another one now.
#[test]
fn the_good_values_of_a_message_do_not_come_again_with_its_dead_letter() {
    for (counter, namespace) in [("", "gateway-01"), (r#""seq": 5, "#, "gateway-01"), (r#""seq": 5, "#, "clinic")] {
        let folder = folder("free");
        let mut before = rig(folder.path(), &list_profile("pr"), 0);
        let received = before.received(500);
        before.publish(r#"{"values": [{"name": "hr", "value": 71}]}"#, before.received(900));
        let values = r#"{"name": "hr", "value": 70}, {"name": "pulse", "value": 72}, {"name": "rr", "value": 14}"#;
        before.publish(&format!(r#"{{{counter}"values": [{values}]}}"#), received);
        let first = before.said();
        assert_eq!((first.len(), before.unresolved()), (3, vec![(4, 4)]));
        assert_eq!(before.resolve(&[(&[], REPLAY)]), [(0, 1)], "the profile is not mended");
        drop(before);
        let mut rig = rig(folder.path(), &list_profile("pulse"), 0);
        rig.shares_devices(namespace);
        assert_eq!(rig.resolve(&[(&[], REPLAY)]), [(1, 0)]);
        assert_eq!(rig.said()[3..], ["pulse_rate_spo2#0 72"]);
        assert_eq!(rig.readings()[3].time.received, received);
    }
}

/// Promise 3: when the mended profile says something else of a value that was taken, nobody guesses which is which.
#[test]
fn a_dead_letter_stays_when_a_value_of_its_message_says_something_else_now() {
    let folder = folder("free");
    let mut before = rig(folder.path(), &list_profile("pr"), 0);
    let received = before.received(500);
    before.publish(r#"{"values": [{"name": "other", "value": 90}, {"name": "hr", "value": 70}]}"#, received);
    drop(before);
    // Now both are heart rates, and the one that was taken is the second.
    let mended = list_profile("pr")
        .replace(r#"{ name = "hr","#, r#"{ name = "other", metric = "heart_rate", unit = "/min", source = "Test" }, { name = "hr","#);
    let mut rig = rig(folder.path(), &mended, 0);
    assert_eq!(rig.resolve(&[(&[], REPLAY)]), [(0, 1)]);
    assert_eq!((rig.said(), rig.unresolved()), (vec!["heart_rate#0 70".to_owned()], vec![(2, 2)]));
}

/// Promise 4: a block of registers is read again like a message, and only what was not read.
#[test]
fn what_a_poll_could_not_read_comes_with_the_mended_profile() {
    let folder = folder("free");
    let mut profiles = Profiles::default();
    let id = profiles.load("test.toml", &polled_profile("f32")).unwrap();
    let profile = profiles.get(&id).unwrap();
    let vitalgate_profile::Kind::Polled(polled) = profile.kind() else { panic!("polled") };
    let mut before = rig(folder.path(), &polled_profile("f32"), 0);
    let received = before.received(500);
    let device = DeviceId::new(MONITOR).unwrap();
    let sample = vitalgate_profile::decode_block(&profile, &polled.blocks()[0], &device, &[70, 0x7F7F, 0xFFFF], received);
    before.commit(|commit, group| commit.admit(sample, group));
    assert_eq!((before.said(), before.unresolved()), (vec!["heart_rate#0 70".to_owned()], vec![(2, 2)]));
    assert_eq!(before.resolve(&[(&[], REPLAY)]), [(0, 1)]);
    drop(before);
    let mut rig = rig(folder.path(), &polled_profile("u16"), 0);
    assert_eq!(rig.resolve(&[(&[], REPLAY)]), [(1, 0)]);
    assert_eq!(rig.said(), ["heart_rate#0 70", "body_weight#0 32639"]);
}

const SAMPLE: &str = r#"{"values": [{"name": "hr", "value": 70}, {"name": "rr", "value": 14}, {"name": "pr", "value": 72}]}"#;

/// Samples of three readings each without a moment, and all of them held.
fn undated(rig: &mut Rig, samples: u64) {
    for number in 0..samples {
        let received = rig.received(60_000 - number);
        rig.publish(SAMPLE, received);
    }
    rig.settle(1..=3 * samples);
}

fn dated(rig: &mut Rig) -> usize {
    rig.commit.clock.refresh_trust();
    rig.commit(|commit, group| commit.date_undated(group));
    rig.readings().iter().filter(|reading| reading.time.effective().is_some()).count()
}

/// Promise 3: the parts of a sample go together, however many there are.
#[test]
fn a_round_and_a_request_end_where_a_sample_ends() {
    let folder = folder("unset");
    let mut rig = rig(folder.path(), &list_profile("pr"), 0);
    undated(&mut rig, 400);
    trusting(folder.path(), "free");
    assert_eq!(dated(&mut rig), 999);
    assert_eq!(rig.unresolved(), [(1_000, 1_200)]);
    assert_eq!(dated(&mut rig), 1_200);
    rig.settle(1_201..=2_400);
    let request = ResolveRequest { sequences: vec![], among: None, resolution: REPLAY, by: None };
    let plan = rig.commit.plan(&request, "test", &Group::default()).unwrap();
    assert_eq!((plan.again.len(), plan.answered.not_reached), (999, Some((2_200, 2_400))));
}

/// Promise 4: readings that wait for the clock outlive the gateway that took them.
#[test]
fn readings_without_a_moment_get_it_after_a_restart_too() {
    let folder = folder("unset");
    let mut before = rig(folder.path(), &list_profile("pr"), 0);
    undated(&mut before, 5);
    let (last, received) = (before.readings()[14].clone(), before.received(1_000));
    before.publish(SAMPLE, received);
    let other = Received { boot: BootId::from_bytes([9; 16]), ..before.received(1_000) };
    before.publish(SAMPLE, other);
    drop(before);

    let mut rig = rig(folder.path(), &list_profile("pr"), 0);
    assert_eq!(dated(&mut rig), 0, "the clock is not set");
    trusting(folder.path(), "free");
    assert_eq!(dated(&mut rig), 15, "the rest is not held yet, or of another power-on");
    assert_eq!(rig.readings()[35].id, last.id);
    rig.settle(16..=21);
    assert_eq!((dated(&mut rig), rig.unresolved()), (18, vec![(19, 21)]));
    assert_eq!(dated(&mut rig), 18, "once");
}

/// More of them than the list holds, and all of them held; gives how many.
fn undated_beyond_the_list(rig: &mut Rig) -> usize {
    let received = rig.received(60_000);
    rig.publish(SAMPLE, received);
    let template = rig.readings();
    let samples = crate::undated::REMEMBERED_MAX / 3 + 500;
    for chunk in 0..samples.div_ceil(500) {
        let numbers = (1 + chunk * 500..=(chunk + 1) * 500).filter(|number| *number < samples);
        let of_number = |number: usize| {
            let received = Received { monotonic_ms: received.monotonic_ms + number as u64, ..received };
            template.iter().map(move |reading| {
                let mut reading = reading.clone();
                reading.time.received = received;
                Entry::Reading(reading)
            })
        };
        let entries: Vec<_> = numbers.flat_map(of_number).collect();
        rig.commit(|_, group| group.entries.extend(entries));
    }
    rig.settle(1..=3 * samples as u64);
    3 * samples
}

/// Promise 4: more of them than the list holds are found again in the journal.
#[test]
fn readings_without_a_moment_beyond_the_list_are_found_again() {
    let folder = folder("unset");
    let mut rig = rig(folder.path(), &list_profile("pr"), 0);
    let all = undated_beyond_the_list(&mut rig);
    trusting(folder.path(), "free");
    for _ in 0..=all.div_ceil(900) {
        rig.commit.clock.refresh_trust();
        rig.commit(|commit, group| commit.date_undated(group));
        let left: u64 = rig.unresolved().iter().map(|(first, last)| last - first + 1).sum();
        assert_eq!(left % 3, 0, "a sample was cut");
    }
    let dated = rig.readings().into_iter().filter(|reading| reading.time.effective().is_some()).count();
    assert_eq!((dated, rig.unresolved()), (all, vec![]));
}

/// Promise 4: a full disk puts it off, it does not forget it.
#[test]
fn readings_without_a_moment_outlast_a_full_disk() {
    let folder = folder("unset");
    let mut before = rig(folder.path(), &list_profile("pr"), 0);
    undated(&mut before, 2);
    drop(before);
    trusting(folder.path(), "free");
    let mut full = rig(folder.path(), &list_profile("pr"), u64::MAX / 2);
    let refused = full.commit(|commit, group| commit.date_undated(group));
    assert_eq!((refused, full.unresolved()), (Receipt::Refused, vec![(1, 6)]));
    assert_eq!(full.commit.undated.take_ready(full.commit.journal.state()).len(), 6);
}

/// Promise 2: that a destination is written to by conditional create is on disk before anything is sent to it, outlasts the process, and
/// waits for no room: what is delivered makes room.
#[test]
fn a_way_of_writing_is_kept_before_it_is_used_even_while_the_disk_is_full() {
    let folder = folder("free");
    let destination = DestinationId::new(EHR).unwrap();
    drop(rig(folder.path(), &list_profile("pr"), 0));
    let mut full = rig(folder.path(), &list_profile("pr"), u64::MAX / 2);
    let (asker, mut kept) = oneshot::channel();
    let sample = full.sample(SAMPLE, full.received(0));
    let receipt = full.commit(|commit, group| {
        commit.admit(sample, group);
        commit.obey(Command::WrittenConditionally(destination.clone(), asker), group);
        assert!(kept.try_recv().is_err(), "not yet on disk");
    });
    assert_eq!((receipt, kept.try_recv()), (Receipt::Refused, Ok(true)));
    drop(full);
    let again = rig(folder.path(), &list_profile("pr"), 0);
    assert!(again.commit.journal.state().conditional.contains(&destination));
}

const COUNTED: &str = r#"{"seq": 5, "values": [{"name": "hr", "value": 70}]}"#;

/// Promise 5: a device whose readings are not stored is not said to be heard.
#[test]
fn only_a_stored_reading_is_a_last_reading() {
    let folder = folder("free");
    let mut before = rig(folder.path(), &list_profile("pr"), 0);
    assert_eq!(before.submit(r#"{"values": [{"name": "pulse", "value": 71}]}"#), Receipt::Committed);
    assert_eq!((before.unresolved(), before.last_reading_age_s()), (vec![(1, 1)], None), "it could not be read");
    assert_eq!(before.submit(COUNTED), Receipt::Committed);
    assert!(before.last_reading_age_s().is_some());
    drop(before);
    let mut again = rig(folder.path(), &list_profile("pr"), 0);
    assert_eq!(again.submit(COUNTED), Receipt::Committed);
    assert_eq!(again.readings().len(), 1, "a resend");
    assert!(again.last_reading_age_s().is_some(), "it is stored");
    drop(again);
    let mut full = rig(folder.path(), &list_profile("pr"), u64::MAX / 2);
    assert_eq!((full.submit(SAMPLE), full.last_reading_age_s()), (Receipt::Refused, None));
}

/// Promise 2: what a full disk or a power cut lets through of a replay, without what resolves its dead letters, is the same readings when
/// they are read again.
#[test]
fn a_replay_that_was_cut_short_gives_no_reading_a_second_identity() {
    let folder = folder("free");
    let mut before = rig(folder.path(), &list_profile("pr"), 0);
    for value in [71, 72] {
        before.publish(&format!(r#"{{"values": [{{"name": "pulse", "value": {value}}}]}}"#), before.received(500 - value));
    }
    drop(before);
    let mut rig = rig(folder.path(), &list_profile("pulse"), 0);
    let request = ResolveRequest { sequences: vec![], among: None, resolution: REPLAY, by: None };
    let mut group = Group::default();
    let plan = rig.commit.plan(&request, "test", &group).unwrap();
    rig.commit.carry_out(plan, &mut group);
    rig.commit.journal.append(&group.entries, &[]).unwrap();
    rig.commit.admission.rollback();
    assert_eq!(rig.resolve(&[(&[], REPLAY)]), [(2, 0)]);
    let ids: BTreeSet<_> = rig.readings().iter().map(|reading| reading.id).collect();
    assert_eq!((rig.readings().len(), ids.len()), (4, 2), "one identity a value");
}

/// Promise 4: a clock that nobody vouches for ends no reading's time, and one that was ahead keeps none for ever.
#[test]
fn a_clock_that_was_wrong_is_forgotten_when_it_is_set() {
    const YEAR_2040: vitalgate_domain::UnixMs = vitalgate_domain::UnixMs(2_208_988_800_000);
    let folder = folder("unset");
    let mut rig = rig(folder.path(), &list_profile("pr"), 0);
    rig.commit.upkeep(&mut Group::default()).unwrap();
    assert_eq!(rig.commit.journal.state().latest_wall, None);
    let ahead = Received { wall: YEAR_2040, trust: ClockTrust::Free, ..rig.received(0) };
    rig.publish(SAMPLE, ahead);
    assert_eq!(rig.commit.journal.state().latest_wall, Some(YEAR_2040));
    trusting(folder.path(), "synchronised");
    rig.commit.clock.refresh_trust();
    rig.commit.upkeep(&mut Group::default()).unwrap();
    assert!(rig.commit.journal.state().latest_wall.is_some_and(|wall| wall < YEAR_2040));
}
