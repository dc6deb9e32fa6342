//! Admission: identity, duplicates, plausibility and subject of what a device said.
//!
//! Nothing is dropped. A reading is admitted, or it is a duplicate of one that is on disk or in the
//! commit under way, or it becomes a dead letter that names why. A device's own counter or time is
//! never taken as an order. It is taken as an identity: where a clock or a counter begins again and nothing names the new run,
//! another value is refused as a contradiction, and an equal one is taken for the reading of before.

use std::collections::HashMap;
use std::sync::Arc;

use vitalgate_domain::limits::{PAYLOAD_BYTES_MAX, READINGS_PER_SAMPLE_MAX};
use vitalgate_domain::{
    Associations, DeadLetter, DeadLetterKind, DeadLetterReason, DecodedReading, DecodedSample, DeviceId, DeviceNamespace, Entry, Flags,
    GatewayId, NoReading, Reading, ReadingId, ReadingTime, Received, Reported, SeenReading, Sequence, SourceIdentity, Subject, UnixMs,
    Value,
};

use crate::recent::RecentIds;

/// What is decided about admission once for the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdmissionPolicy {
    /// Ids remembered per device, 1 to [`RECENT_IDS_MAX`].
    pub recent_ids_per_device: usize,
}

/// Most ids remembered per device.
pub const RECENT_IDS_MAX: usize = 4_096;
/// An arrival is moved by so much at most, in milliseconds, to tell a sample from the one before it.
const ARRIVAL_MOVED_MAX_MS: u64 = 1_000;

impl Default for AdmissionPolicy {
    /// 512 ids per device.
    fn default() -> Self {
        Self { recent_ids_per_device: 512 }
    }
}

/// What a sample became.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Admitted {
    /// To be committed, in this order, from the sequence that was given.
    pub entries: Vec<Entry>,
    /// Readings that were here before. They are acknowledged with the commit under way, since what
    /// they repeat may be part of it.
    pub duplicates: u32,
}

/// Decides what becomes of a decoded sample. One owner; lives beside the commit.
///
/// Devices come from the configuration ([`vitalgate_domain::limits::DEVICES_MAX`]); each keeps its
/// last ids at 24 bytes apiece, so a thousand devices with 512 ids take 12 MiB.
#[derive(Debug)]
pub struct Admission {
    gateway: GatewayId,
    namespace: DeviceNamespace,
    policy: AdmissionPolicy,
    places: HashMap<DeviceId, usize>,
    devices: Vec<(DeviceId, RecentIds)>,
    /// When the last sample of each device arrived.
    arrivals: Vec<Option<Received>>,
    /// Devices with ids that are not durable.
    touched: Vec<usize>,
}

/// What is the same for all readings of a sample.
struct SampleContext<'a> {
    device: &'a DeviceId,
    channel: &'a Arc<str>,
    received: Received,
    associations: &'a Associations,
    /// The last answer of the associations: nearly always the same for the whole sample.
    subject: Option<(Option<UnixMs>, Flags, Subject)>,
}

impl SampleContext<'_> {
    fn subject_of(&mut self, time: &ReadingTime, flags: Flags) -> Subject {
        let (moment, doubt) = (time.effective(), Flags(flags.0 & Flags::CLOCK_DOUBTFUL.with(Flags::DATED_BY_ARRIVAL).0));
        if let Some((asked, asked_doubt, subject)) = &self.subject
            && (*asked, *asked_doubt) == (moment, doubt)
        {
            return subject.clone();
        }
        let subject = self.associations.subject_of(self.device, time, doubt);
        self.subject = Some((moment, doubt, subject.clone()));
        subject
    }

    fn dead_letter(&self, reason: DeadLetterReason, mut bytes: Vec<u8>) -> Entry {
        bytes.truncate(PAYLOAD_BYTES_MAX);
        let (device, channel) = (self.device.clone(), Arc::clone(self.channel));
        Entry::DeadLetter(DeadLetter { device, channel, received: self.received, reason, bytes })
    }
}

impl Admission {
    /// Starts with the readings that the journal remembers, oldest first. `namespace` is what the ids of its
    /// devices are unique within.
    #[must_use]
    pub fn new(gateway: GatewayId, namespace: DeviceNamespace, policy: AdmissionPolicy, seen: Vec<(DeviceId, Vec<SeenReading>)>) -> Self {
        let policy = AdmissionPolicy { recent_ids_per_device: policy.recent_ids_per_device.clamp(1, RECENT_IDS_MAX) };
        let mut admission =
            Self { gateway, namespace, policy, places: HashMap::new(), devices: Vec::new(), arrivals: Vec::new(), touched: Vec::new() };
        for (device, readings) in seen {
            let place = admission.place_of(&device);
            if let Some((_, recent)) = admission.devices.get_mut(place) {
                *recent = RecentIds::restore(&readings, policy.recent_ids_per_device);
            }
        }
        admission
    }

    /// Admits a sample; `next` is the sequence that its first entry will get.
    pub fn admit(&mut self, mut sample: DecodedSample, associations: &Associations, next: Sequence) -> Admitted {
        let place = self.place_of(&sample.device);
        let is_anonymous = |reading: &DecodedReading| matches!(reading.identity, SourceIdentity::None);
        let anonymous = sample.unreadable.is_some() || sample.readings.iter().any(is_anonymous);
        sample.received = self.arrival(place, sample.received, anonymous);
        let mut admitted = self.take_apart(place, sample, associations, |_, entries| next.plus(entries as u64));
        if !anonymous {
            self.tell_apart(place, &mut admitted.entries);
        }
        admitted
    }

    /// Admits what a dead letter holds, whose place tells it from everything else: however often it is read again, it is the
    /// same readings.
    pub fn admit_again(&mut self, sample: DecodedSample, associations: &Associations, letter: Sequence) -> Admitted {
        let place = self.place_of(&sample.device);
        self.take_apart(place, sample, associations, |index, _| letter.plus(index as u64))
    }

    /// `sequence_of` says by which sequence a reading is told that says nothing of its own: from its place in the sample and
    /// the number of entries before it.
    fn take_apart(
        &mut self,
        place: usize,
        sample: DecodedSample,
        associations: &Associations,
        sequence_of: impl Fn(usize, usize) -> Sequence,
    ) -> Admitted {
        let DecodedSample { device, channel, received, readings, payload, unreadable } = sample;
        let (unread, message) = match unreadable {
            Some((reason, bytes)) => (Some(reason), bytes),
            None => (None, payload),
        };
        let mut refusals = Refusals::default();
        let mut context = SampleContext { device: &device, channel: &channel, received, associations, subject: None };
        let mut admitted = Admitted { entries: Vec::with_capacity(readings.len() + 1), duplicates: 0 };
        for (index, decoded) in readings.into_iter().enumerate() {
            let sequence = sequence_of(index, admitted.entries.len());
            let outcome = if index < READINGS_PER_SAMPLE_MAX {
                self.reading(place, decoded, sequence, &mut context)
            } else {
                let detail = "more values in one message than a sample may hold; send them in several messages";
                Err(Refused::new(DeadLetterKind::Undecodable, detail, decoded))
            };
            match outcome {
                Ok(Some(reading)) => admitted.entries.push(Entry::Reading(reading)),
                Ok(None) => admitted.duplicates += 1,
                Err(refused) if message.is_empty() => {
                    let reason = DeadLetterReason::new(refused.kind, refused.detail);
                    admitted.entries.push(context.dead_letter(reason, rendered(&refused.decoded).into_bytes()));
                }
                Err(refused) => refusals.note(&refused),
            }
        }
        // One letter for all that is left of the message, and behind what was taken: a replay is told by that what went already.
        if let Some(reason) = refusals.beside(unread) {
            admitted.entries.push(context.dead_letter(reason, message));
        }
        admitted
    }

    /// Whether an earlier reading of the device that is remembered says something else under this identity.
    #[must_use]
    pub fn contradicts(&self, device: &DeviceId, id: ReadingId, value: &Value) -> bool {
        let recent = self.places.get(device).and_then(|&place| self.devices.get(place));
        recent.and_then(|(_, recent)| recent.digest_of(id)).is_some_and(|known| known != value.digest())
    }

    /// A message that was refused in part is told from the one before it by its arrival too.
    fn tell_apart(&mut self, place: usize, entries: &mut [Entry]) {
        let refused = entries.iter().find_map(|entry| if let Entry::DeadLetter(letter) = entry { Some(letter.received) } else { None });
        let Some(received) = refused else { return };
        let moved = self.arrival(place, received, true);
        for entry in entries {
            match entry {
                Entry::Reading(reading) => reading.time.received = moved,
                Entry::DeadLetter(letter) => letter.received = moved,
                Entry::DeviceEvent(_) => {}
            }
        }
    }

    /// The commit of everything admitted since the last `confirm` or `rollback` is durable.
    pub fn confirm(&mut self) {
        for place in std::mem::take(&mut self.touched) {
            if let Some((_, recent)) = self.devices.get_mut(place) {
                recent.confirm(self.policy.recent_ids_per_device);
            }
        }
    }

    /// That commit failed: what it held was never seen.
    pub fn rollback(&mut self) {
        for place in std::mem::take(&mut self.touched) {
            if let Some((_, recent)) = self.devices.get_mut(place) {
                recent.rollback();
            }
        }
    }

    /// The readings that a restart must remember, oldest first; only what is durable.
    #[must_use]
    pub fn seen(&self) -> Vec<(DeviceId, Vec<SeenReading>)> {
        let durable = self.devices.iter().map(|(device, recent)| (device.clone(), recent.durable()));
        durable.filter(|(_, readings)| !readings.is_empty()).collect()
    }

    fn place_of(&mut self, device: &DeviceId) -> usize {
        if let Some(&place) = self.places.get(device) {
            return place;
        }
        let place = self.devices.len();
        self.devices.push((device.clone(), RecentIds::default()));
        self.arrivals.push(None);
        self.places.insert(device.clone(), place);
        place
    }

    /// The arrival of a sample. What says nothing of its own is told from the sample before it by this
    /// alone, so it gets another one, by a millisecond, where both came with one packet of the network.
    fn arrival(&mut self, place: usize, mut received: Received, anonymous: bool) -> Received {
        let Some(last) = self.arrivals.get_mut(place) else { return received };
        if let Some(last) = last.filter(|last| anonymous && last.boot == received.boot) {
            let behind_ms = (last.monotonic_ms + 1).saturating_sub(received.monotonic_ms);
            if behind_ms <= ARRIVAL_MOVED_MAX_MS {
                received.monotonic_ms += behind_ms;
            }
        }
        let later = last.filter(|last| last.boot == received.boot && last.monotonic_ms > received.monotonic_ms);
        *last = Some(later.unwrap_or(received));
        received
    }

    /// One reading; `None` for a duplicate.
    fn reading(
        &mut self,
        place: usize,
        decoded: DecodedReading,
        sequence: Sequence,
        context: &mut SampleContext<'_>,
    ) -> Result<Option<Reading>, Box<Refused>> {
        let decoded = checked(decoded)?;
        let id = self.identity(context, &decoded, sequence);
        let value_digest = decoded.value.digest();
        let Some((_, recent)) = self.devices.get_mut(place) else { return Ok(None) };
        match recent.digest_of(id) {
            Some(known) if known == value_digest => return Ok(None),
            Some(_) => {
                let detail = "another value under the time or counter of an earlier reading; \
                              the device's profile needs a finer time, or identity = \"counter\"";
                let refused = Refused::new(DeadLetterKind::Undecodable, detail, decoded);
                return Err(Box::new(Refused { taken: Some(id), ..*refused }));
            }
            None => recent.push(SeenReading { id, value_digest }),
        }
        if self.touched.last() != Some(&place) {
            self.touched.push(place);
        }
        let time = ReadingTime { device: decoded.device_time, received: context.received, correction_ms: 0 };
        let flags = flags(&decoded);
        let subject = context.subject_of(&time, flags);
        Ok(Some(Reading {
            id,
            device: context.device.clone(),
            metric: decoded.metric,
            slot: decoded.slot,
            flags,
            value: decoded.value,
            reported: decoded.reported,
            time,
            device_sequence: match decoded.identity {
                SourceIdentity::Counter { sequence, .. } => Some(sequence),
                SourceIdentity::Time(_) | SourceIdentity::None => None,
            },
            subject,
        }))
    }

    fn identity(&self, context: &SampleContext<'_>, decoded: &DecodedReading, sequence: Sequence) -> ReadingId {
        let (device, metric, slot) = (context.device, decoded.metric, decoded.slot);
        match &decoded.identity {
            SourceIdentity::Time(text) => ReadingId::from_device_time(&self.namespace, device, metric, text, slot),
            SourceIdentity::Counter { epoch, sequence } => {
                ReadingId::from_device_sequence(&self.namespace, device, metric, epoch, *sequence, slot)
            }
            SourceIdentity::None => ReadingId::from_commit(&self.gateway, &context.received, sequence, device, metric, slot),
        }
    }
}

/// Why a decoded reading is not admitted.
struct Refused {
    kind: DeadLetterKind,
    detail: &'static str,
    decoded: DecodedReading,
    /// Its identity, where that is an earlier reading's.
    taken: Option<ReadingId>,
}

impl Refused {
    fn new(kind: DeadLetterKind, detail: &'static str, decoded: DecodedReading) -> Box<Self> {
        Box::new(Self { kind, detail, decoded, taken: None })
    }
}

/// What of a message is not admitted.
#[derive(Default)]
struct Refusals {
    first: Option<(DeadLetterKind, &'static str)>,
    taken: Option<ReadingId>,
    count: usize,
}

impl Refusals {
    fn note(&mut self, refused: &Refused) {
        self.first = self.first.or(Some((refused.kind, refused.detail)));
        self.taken = self.taken.or(refused.taken);
        self.count += 1;
    }

    /// The reason of the message's letter, of which a part may be unread besides. It names an identity that is taken: under that
    /// nothing of the message may ever be stored, also when the earlier reading is not remembered any more.
    fn beside(self, unread: Option<DeadLetterReason>) -> Option<DeadLetterReason> {
        let Some((kind, detail)) = self.first else { return unread };
        let taken = self.taken.map_or_else(String::new, |id| format!(" (reading {id})"));
        let others = if self.count > 1 { format!(" ({} more values of the message)", self.count - 1) } else { String::new() };
        let (kind, unread) = unread.map_or((kind, String::new()), |unread| (unread.kind, format!("; {}", unread.detail)));
        Some(DeadLetterReason::new(kind, &format!("{detail}{taken}{others}{unread}")))
    }
}

/// What every profile should have done already, once more for all of them: the metric's own unit,
/// no 0 from a sensor that is off, no impossible time.
fn checked(mut decoded: DecodedReading) -> Result<DecodedReading, Box<Refused>> {
    let refused = |kind, detail, decoded| Err(Refused::new(kind, detail, decoded));
    if decoded.device_time.is_some_and(|time| !time.unix_ms.can_be_a_devices()) {
        return refused(DeadLetterKind::ImpossibleTime, "the device's clock was never set; set it", decoded);
    }
    let definition = decoded.metric.definition();
    let Some(unit) = definition.unit else {
        return refused(DeadLetterKind::UnknownMetric, "a panel has no value of its own; the profile must name its parts", decoded);
    };
    let Value::Quantity(quantity) = decoded.value else { return Ok(decoded) };
    if quantity.unit != unit {
        let Ok(converted) = quantity.convert(unit) else {
            return refused(DeadLetterKind::WrongUnit, "the unit is not one of this metric; correct the profile", decoded);
        };
        keep_reported(&mut decoded, &quantity);
        decoded.value = Value::Quantity(converted);
    }
    if definition.zero_is_absence && quantity.value.is_zero() {
        keep_reported(&mut decoded, &quantity);
        decoded.value = Value::Absent(NoReading::SensorDisconnected);
    }
    Ok(decoded)
}

fn keep_reported(decoded: &mut DecodedReading, quantity: &vitalgate_domain::Quantity) {
    if decoded.reported.is_none() {
        decoded.reported = Some(Reported { value: quantity.value.to_string().into(), unit: quantity.unit.ucum().into() });
    }
}

/// The device's or its profile's marks, among them those of its clock, and ours.
fn flags(decoded: &DecodedReading) -> Flags {
    match &decoded.value {
        Value::Quantity(quantity) if !decoded.metric.is_plausible(quantity) => decoded.flags.with(Flags::IMPLAUSIBLE),
        _ => decoded.flags,
    }
}

/// A decoded reading as text, for a dead letter of a sample that had no message.
fn rendered(decoded: &DecodedReading) -> String {
    let value = match &decoded.value {
        Value::Quantity(quantity) => format!("{} {}", quantity.value, quantity.unit.ucum()),
        Value::Absent(reason) => format!("{reason:?}"),
    };
    let time = decoded.device_time.map(|time| time.unix_ms.rfc3339(time.offset_minutes.unwrap_or(0)));
    format!(
        "{} slot {} value {value} time {} identity {:?}",
        decoded.metric.key(),
        decoded.slot,
        time.as_deref().unwrap_or("-"),
        decoded.identity
    )
}
