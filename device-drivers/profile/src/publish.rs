//! Reads a publishing device's message: what can be read becomes readings, what cannot be read is
//! said, with the bytes.

use std::sync::Arc;

use rust_decimal::Decimal;
use vitalgate_domain::limits::{PAYLOAD_BYTES_MAX, READINGS_PER_SAMPLE_MAX};
use vitalgate_domain::{
    DeadLetterKind, DeadLetterReason, DecodedReading, DecodedSample, DeviceTime, Flags, Metric, NoReading, Quantity, RawSample, Received,
    Reported, SourceIdentity, Unit, Value,
};

use crate::json::{self, Element, Message, Scalar};
use crate::json_profile::{ArrayRule, METRIC, MetricRule, PublishProfile, STATUS, UNIT, VALUE};
use crate::meaning::Meaning;
use crate::number;
use crate::profiles::{Kind, Profile};

/// Longest name of a run, in bytes. It becomes part of the reading's identity.
const RUN_BYTES_MAX: usize = 64;
/// Most members of one status list.
const STATUSES_MAX: usize = 16;
/// So many elements of a list that name no metric may be one part each of two panels: what is read of these then looks like one.
const NAMELESS_OF_A_PAIR: usize = 2;

/// Reads one message by its profile. It never panics and never loses a part: what is not in the
/// readings is in `unreadable`, with the whole bytes.
#[must_use]
pub fn decode_publish(profile: &Profile, sample: RawSample) -> DecodedSample {
    let outcome = match profile.kind() {
        Kind::Publish(publish) => decode(publish, &sample),
        Kind::Polled(_) => Err(DeadLetterReason::new(
            DeadLetterKind::Undecodable,
            "the device's profile is for polling, but it published; give the device a publish profile",
        )),
    };
    let (readings, failed) = match outcome {
        Ok((readings, failed)) => (readings, failed),
        Err(reason) => (Vec::new(), Some(reason)),
    };
    let RawSample { device, channel, bytes, received } = sample;
    let (payload, unreadable) = match failed {
        Some(reason) => (Vec::new(), Some((reason, bytes))),
        None => (bytes, None),
    };
    DecodedSample { device, channel, received, readings, payload, unreadable }
}

/// Why one value could not be read. It says neither the value nor a name that the device sent.
type Unread = (DeadLetterKind, &'static str);

const NO_OBJECT: Unread = (DeadLetterKind::Undecodable, "is no object, or holds a key twice; correct the device or its profile");
const NO_NAME: Unread = (DeadLetterKind::Undecodable, "names no metric; correct the device or its profile");
const NAME_UNKNOWN: Unread = (DeadLetterKind::UnknownMetric, "names a metric that the profile does not know; add it to the profile");
const NO_NUMBER: Unread = (DeadLetterKind::Undecodable, "is no exact decimal number; correct the device or add its code to the profile");
const NO_VALUE: Unread = (DeadLetterKind::Undecodable, "has a unit and no value; the device must send null where it has none");
const STATUS_UNKNOWN: Unread = (DeadLetterKind::Undecodable, "has a status that the profile does not know; add it to the profile");
const NO_UNIT: Unread = (DeadLetterKind::WrongUnit, "has no unit; the device must send it, or the profile must fix it");
const UNIT_UNKNOWN: Unread = (DeadLetterKind::WrongUnit, "has a unit that is not known; let the device send the UCUM code");
const UNIT_WRONG: Unread = (DeadLetterKind::WrongUnit, "has a unit that cannot become the metric's own; correct the device or its profile");

/// What all readings of a message share.
struct Common {
    device_time: Option<DeviceTime>,
    identity: SourceIdentity,
    flags: Flags,
}

/// The readings as they come out, and the first part that could not be read.
struct Outcome {
    common: Common,
    readings: Vec<DecodedReading>,
    failed: Option<(String, Unread)>,
    failures: usize,
}

/// The raw JSON texts of one value.
#[derive(Clone, Copy)]
struct Sent<'a> {
    value: Option<&'a str>,
    unit: Option<&'a str>,
    status: Option<&'a str>,
}

fn decode(profile: &PublishProfile, sample: &RawSample) -> Result<(Vec<DecodedReading>, Option<DeadLetterReason>), DeadLetterReason> {
    if profile.is_silent(&sample.channel) {
        return Ok((Vec::new(), None));
    }
    let undecodable = |detail: &str| DeadLetterReason::new(DeadLetterKind::Undecodable, detail);
    if sample.bytes.len() > PAYLOAD_BYTES_MAX {
        return Err(undecodable("the payload is larger than 64 KiB; let the device send smaller messages"));
    }
    let message = json::read(&profile.root, profile.slots, &sample.bytes).map_err(|error| undecodable(&error.to_string()))?;
    let elements = message.elements.as_deref();
    if elements.map_or(0, <[_]>::len) + profile.fields.len() > READINGS_PER_SAMPLE_MAX {
        return Err(undecodable("the message holds too many values; let the device send at most 256 less the fixed fields"));
    }
    let fields_found = profile.fields.iter().any(|field| slot(&message, Some(field.value)).is_some());
    if elements.is_none() && !fields_found {
        return Err(undecodable("the message has nothing of what the profile reads; give the device its own profile"));
    }
    let common = common(profile, &message, sample)?;
    let mut outcome = Outcome { common, readings: Vec::new(), failed: None, failures: 0 };
    for field in &profile.fields {
        let (value, status) = (slot(&message, Some(field.value)), slot(&message, field.status));
        // A unit may be that of several fields: without a value it says nothing.
        let sent = Sent { value, unit: value.and(slot(&message, field.unit)), status };
        if sent.value.is_some() || sent.status.is_some() {
            let read = observe(profile, &field.rule, sent);
            outcome.take(field.rule.metric, field.slot, read, || field.pointer.to_string());
        }
    }
    if let (Some(array), Some(elements)) = (&profile.array, elements) {
        decode_list(profile, array, elements, &mut outcome);
    }
    let reason = outcome.failed.map(|(place, (kind, what))| {
        let others = match outcome.failures {
            1 => String::new(),
            failures => format!(" ({} more parts of the message could not be read)", failures - 1),
        };
        DeadLetterReason::new(kind, &format!("{place} {what}{others}"))
    });
    Ok((outcome.readings, reason))
}

fn slot<'a>(message: &Message<'a>, slot: Option<usize>) -> Option<&'a str> {
    message.slots.get(slot?).copied().flatten()
}

fn decode_list(profile: &PublishProfile, array: &ArrayRule, elements: &[Element<'_>], outcome: &mut Outcome) {
    outcome.readings.reserve(elements.len());
    let before = outcome.readings.len();
    let fixed = |metric| u16::try_from(profile.fields.iter().filter(|field| field.rule.metric == metric).count()).unwrap_or(u16::MAX);
    // A value that cannot be read keeps its slot: the others have the same identity when it is replayed.
    let mut slots: Vec<(Metric, u16)> = Vec::new();
    let mut nameless = 0_usize;
    for (index, element) in elements.iter().enumerate() {
        let place = || format!("{}/{index}", array.pointer);
        let rule = match rule_of(array, element) {
            Ok(rule) => rule,
            Err(unread) => {
                nameless += usize::from(unread != NAME_UNKNOWN);
                outcome.fail(place, unread);
                continue;
            }
        };
        let metric = rule.metric;
        let next = match slots.iter_mut().find(|(known, _)| *known == metric) {
            Some((_, next)) => next,
            None => {
                let place = slots.len();
                slots.push((metric, fixed(metric)));
                &mut slots[place].1
            }
        };
        let slot = *next;
        *next = next.saturating_add(1);
        let sent = Sent { value: element.slots[VALUE], unit: element.slots[UNIT], status: element.slots[STATUS] };
        outcome.take(metric, slot, observe(profile, rule, sent), place);
    }
    let sent = |metric| slots.iter().find(|(known, _)| *known == metric).map_or_else(|| fixed(metric), |(_, next)| *next);
    let hides_a_pair = nameless >= NAMELESS_OF_A_PAIR;
    for reading in outcome.readings.iter_mut().skip(before) {
        if is_apart(reading.metric, sent) || hides_a_pair && reading.metric.definition().panel.is_some() {
            reading.flags = reading.flags.with(Flags::APART);
        }
    }
}

/// Whether nobody knows which of the panel's other parts belong to this one: there are several, and not equally many.
fn is_apart(part: Metric, sent: impl Fn(Metric) -> u16) -> bool {
    let Some(panel) = part.definition().panel else { return false };
    let required = panel.required_parts().iter().map(|&part| sent(part));
    let (fewest, most) = required.fold((u16::MAX, 0), |(fewest, most), sent| (fewest.min(sent), most.max(sent)));
    let differ = |one: u16, other: u16| one != other && one.max(other) > 1;
    differ(fewest, most) || differ(sent(part), most)
}

fn rule_of<'p>(array: &'p ArrayRule, element: &Element<'_>) -> Result<&'p MetricRule, Unread> {
    if element.malformed {
        return Err(NO_OBJECT);
    }
    match element.slots[METRIC].map(Scalar::of) {
        Some(Scalar::Text(name)) => array.find(&name).ok_or(NAME_UNKNOWN),
        Some(Scalar::Number(name)) => array.find(name).ok_or(NAME_UNKNOWN),
        _ => Err(NO_NAME),
    }
}

impl Outcome {
    fn take(&mut self, metric: Metric, slot: u16, read: Result<(Value, Option<Reported>, Flags), Unread>, place: impl FnOnce() -> String) {
        match read {
            Ok((value, reported, flags)) => self.readings.push(DecodedReading {
                metric,
                slot,
                value,
                reported,
                device_time: self.common.device_time,
                identity: self.common.identity.clone(),
                flags: self.common.flags.with(flags),
            }),
            Err(unread) => self.fail(place, unread),
        }
    }

    fn fail(&mut self, place: impl FnOnce() -> String, unread: Unread) {
        self.failures += 1;
        if self.failed.is_none() {
            self.failed = Some((place(), unread));
        }
    }
}

/// Time, identity and marks of the whole message.
fn common(profile: &PublishProfile, message: &Message<'_>, sample: &RawSample) -> Result<Common, DeadLetterReason> {
    let time = time_of(profile, message, &sample.received)?;
    let counter = if time.is_none() || profile.counter_is_identity { counter_of(profile, message)? } else { None };
    let (device_time, text, flags) = match time {
        Some((time, text, doubts)) => (Some(time), Some(text), doubts),
        None if profile.arrival_is_moment => (None, None, Flags::default()),
        None => (None, None, Flags::DATED_BY_ARRIVAL),
    };
    let (identity, flags) = match (counter, text) {
        // Of both: a counter that begins anew, or wraps, comes with another time.
        (Some(SourceIdentity::Counter { epoch, sequence }), Some(text)) => {
            (SourceIdentity::Counter { epoch: format!("{epoch}\u{1f}{text}").into(), sequence }, flags)
        }
        (Some(counter), _) => (counter, flags),
        (None, Some(text)) => (SourceIdentity::Time(text), flags),
        (None, None) if profile.resend_indistinct => (SourceIdentity::None, flags.with(Flags::RESEND_INDISTINCT)),
        (None, None) => {
            return Err(DeadLetterReason::new(
                DeadLetterKind::Undecodable,
                "the message has neither the time nor the counter of the profile; set the device's clock, or write resend_indistinct = true \
                 in the profile if such a message may be taken with the time of its arrival",
            ));
        }
    };
    Ok(Common { device_time, identity, flags })
}

/// The message's time with its text and its doubts; `None` where it has none.
fn time_of(
    profile: &PublishProfile,
    message: &Message<'_>,
    received: &Received,
) -> Result<Option<(DeviceTime, Arc<str>, Flags)>, DeadLetterReason> {
    let Some((slot_of_time, rule)) = &profile.time else { return Ok(None) };
    let Some(sent) = slot(message, Some(*slot_of_time)).map(Scalar::of).filter(|sent| *sent != Scalar::Null) else { return Ok(None) };
    let (time, text) = rule.read(&sent).ok_or_else(|| {
        DeadLetterReason::new(
            DeadLetterKind::ImpossibleTime,
            "the message's time is not in the profile's formats, or before February 2000, or not before 2100; \
             set the device's clock or correct the profile",
        )
    })?;
    Ok(Some((time, Arc::from(text), rule.doubts(time, received))))
}

/// The message's counter; `None` where it has none.
fn counter_of(profile: &PublishProfile, message: &Message<'_>) -> Result<Option<SourceIdentity>, DeadLetterReason> {
    let Some(rule) = &profile.counter else { return Ok(None) };
    let Some(sent) = slot(message, Some(rule.counter)).map(Scalar::of).filter(|sent| *sent != Scalar::Null) else { return Ok(None) };
    let run = slot(message, rule.run).map_or(Scalar::Null, Scalar::of);
    let identity = counter_identity(&sent, &run);
    identity.map(Some).ok_or_else(|| {
        DeadLetterReason::new(DeadLetterKind::Undecodable, "the message's counter or run is not one; correct the device or its profile")
    })
}

fn counter_identity(counter: &Scalar<'_>, run: &Scalar<'_>) -> Option<SourceIdentity> {
    let digits = match counter {
        Scalar::Number(text) => text,
        Scalar::Text(text) => text.as_ref(),
        _ => return None,
    };
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let epoch = match run {
        Scalar::Null => "",
        Scalar::Number(text) => text,
        Scalar::Text(text) => text.as_ref(),
        Scalar::Truth(_) | Scalar::Composite => return None,
    };
    if epoch.len() > RUN_BYTES_MAX {
        return None;
    }
    Some(SourceIdentity::Counter { epoch: Arc::from(epoch), sequence: digits.parse().ok()? })
}

/// Reads one value with its unit and status.
fn observe(profile: &PublishProfile, rule: &MetricRule, sent: Sent<'_>) -> Result<(Value, Option<Reported>, Flags), Unread> {
    let (status, flags) = match sent.status {
        Some(raw) => status_of(profile, raw)?,
        None => (None, Flags::default()),
    };
    let absent = |reason| Ok((Value::Absent(reason), None, flags));
    if let Some(reason) = status {
        return absent(reason);
    }
    let scalar = sent.value.map_or(Scalar::Null, Scalar::of);
    let text = match &scalar {
        // A value under another key than the profile's is no absence.
        Scalar::Null if sent.value.is_none() && sent.unit.is_some_and(|unit| Scalar::of(unit) != Scalar::Null) => return Err(NO_VALUE),
        Scalar::Null => return absent(NoReading::NotAvailable),
        Scalar::Number(text) => text,
        Scalar::Text(text) => text.trim(),
        Scalar::Truth(_) | Scalar::Composite => return Err(NO_NUMBER),
    };
    if let Some(code) = rule.absent.iter().find(|code| code.is_text(text)) {
        return absent(code.reason);
    }
    if text.eq_ignore_ascii_case("nan") {
        return absent(NoReading::NotANumber);
    }
    let number = number::decimal(text).ok_or(NO_NUMBER)?;
    if let Some(code) = rule.absent.iter().find(|code| code.is_number(number)) {
        return absent(code.reason);
    }
    if number.is_zero() && rule.metric.definition().zero_is_absence {
        return Ok((Value::Absent(NoReading::SensorDisconnected), Some(as_sent(rule, text, sent.unit)), flags));
    }
    let (value, reported) = in_own_unit(rule, number, text, sent.unit)?;
    Ok((value, reported, flags))
}

/// Most bytes that are kept of the number, and of the unit, of a zero that is taken for an absence: a note shows no more.
const AS_SENT_BYTES_MAX: usize = 64;

/// What was sent, kept beside what it was taken for; without a unit where neither the message nor the profile has one.
fn as_sent(rule: &MetricRule, text: &str, unit: Option<&str>) -> Reported {
    let unit = match unit.map(Scalar::of) {
        Some(Scalar::Text(unit)) => Arc::from(shortened(&unit)),
        _ => Arc::from(rule.unit.map_or("", Unit::ucum)),
    };
    Reported { value: Arc::from(shortened(text)), unit }
}

fn shortened(text: &str) -> &str {
    text.get(..text.floor_char_boundary(AS_SENT_BYTES_MAX)).unwrap_or_default()
}

/// The absence and the marks that the status says; one code or a list of codes.
fn status_of(profile: &PublishProfile, raw: &str) -> Result<(Option<NoReading>, Flags), Unread> {
    let members = if raw.starts_with('[') { json::members(raw).ok_or(STATUS_UNKNOWN)? } else { vec![raw] };
    if members.len() > STATUSES_MAX {
        return Err(STATUS_UNKNOWN);
    }
    let (mut absence, mut flags) = (None, Flags::default());
    for member in members {
        let meaning = match Scalar::of(member) {
            Scalar::Null => Some(Meaning::Fine),
            Scalar::Text(code) => profile.status(&code),
            Scalar::Number(code) => profile.status(code),
            Scalar::Truth(truth) => profile.status(if truth { "true" } else { "false" }),
            Scalar::Composite => None,
        };
        match meaning.ok_or(STATUS_UNKNOWN)? {
            Meaning::Fine => {}
            Meaning::Absent(reason) => absence = absence.or(Some(reason)),
            Meaning::Marked(mark) => flags = flags.with(mark),
        }
    }
    Ok((absence, flags))
}

fn in_own_unit(rule: &MetricRule, number: Decimal, text: &str, unit: Option<&str>) -> Result<(Value, Option<Reported>), Unread> {
    let sent = unit.map_or(Scalar::Null, Scalar::of);
    let (unit, unit_text) = match &sent {
        Scalar::Null => {
            let unit = rule.unit.ok_or(NO_UNIT)?;
            (unit, unit.ucum())
        }
        Scalar::Text(text) => (Unit::parse(text).ok_or(UNIT_UNKNOWN)?, text.as_ref()),
        _ => return Err(UNIT_UNKNOWN),
    };
    let own = rule.metric.definition().unit.ok_or(UNIT_WRONG)?;
    let quantity = Quantity { value: number, unit };
    if unit == own {
        return Ok((Value::Quantity(quantity), None));
    }
    let converted = quantity.convert(own).map_err(|_incompatible| UNIT_WRONG)?;
    Ok((Value::Quantity(converted), Some(Reported { value: Arc::from(text), unit: Arc::from(unit_text) })))
}
