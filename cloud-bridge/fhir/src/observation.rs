//! One Observation, straight into the buffer.
//!
//! The quantity as the device gave it, where it was converted, goes into `note`: R4 has no element for
//! it, and a second value beside `valueQuantity` (a component, an extension with a Quantity) is one that a
//! reader could take for another result. Each component carries the id of the reading it was made of as
//! its element id, so that every single reading can be found again.

use vitalgate_domain::{DeviceId, Flags, Item, Metric, NoReading, Reading, Value};

use crate::absence::{NOT_COMPARED, Reliance, TEST_SECURITY, data_absent_reason, interpretations, is_not_compared, remarks};
use crate::coding;
use crate::instant::push_instant;
use crate::json::{Commas, decimal, raw, string, uuid};

/// Longest value or unit text of a device that is repeated in a note, in characters.
const REPORTED_CHARS_MAX: usize = 48;

/// What is the same for all Observations of a bundle, already rendered.
pub(crate) struct Shared {
    /// Whether the resource carries our id.
    pub(crate) with_id: bool,
    /// `"extension":[..]`
    pub(crate) gateway_extension: Vec<u8>,
    /// `"identifier":[{"system":"..","value":"urn:uuid:`
    pub(crate) identifier_head: Vec<u8>,
    /// `"subject":{..}`
    pub(crate) subject: Vec<u8>,
}

/// The rendered member `"device":{..}` of the device seen last.
#[derive(Default)]
pub(crate) struct DeviceMember<'a> {
    pub(crate) device: Option<&'a DeviceId>,
    pub(crate) member: Vec<u8>,
}

/// Writes the resource of an item that [`crate::faults`] found nothing wrong with.
pub(crate) fn push_observation(out: &mut Vec<u8>, item: &Item, anchor: &Reading, shared: &Shared, device: &[u8]) {
    raw(out, r#"{"resourceType":"Observation","#);
    if shared.with_id {
        raw(out, r#""id":""#);
        uuid(out, item.id.as_bytes());
        raw(out, r#"","#);
    }
    let code_of = item.panel.unwrap_or(anchor.metric);
    push_meta(out, item, code_of);
    out.extend_from_slice(&shared.gateway_extension);
    out.push(b',');
    out.extend_from_slice(&shared.identifier_head);
    uuid(out, item.id.as_bytes());
    raw(out, r#""}],"status":"final","#);
    out.extend_from_slice(&coding::fixed(code_of).category_and_code);
    out.push(b',');
    out.extend_from_slice(&shared.subject);
    push_times(out, anchor);
    out.push(b',');
    out.extend_from_slice(device);
    out.push(b',');
    match item.panel {
        None => push_value_and_interpretation(out, anchor),
        Some(panel) => push_components(out, item, panel),
    }
    push_notes(out, item);
    out.push(b'}');
}

fn push_times(out: &mut Vec<u8>, anchor: &Reading) {
    // Checked before: an item without a moment is never written.
    let Some(moment) = anchor.time.effective() else { return };
    raw(out, r#","effectiveDateTime":""#);
    push_instant(out, moment, anchor.time.offset_minutes());
    out.push(b'"');
    if anchor.time.received.trust != vitalgate_domain::ClockTrust::Unset {
        raw(out, r#","issued":""#);
        push_instant(out, anchor.time.received.wall, 0);
        out.push(b'"');
    }
}

fn push_meta(out: &mut Vec<u8>, item: &Item, code_of: Metric) {
    let mut reliance = Reliance::Unstated;
    let mut test = false;
    let mut conforms = true;
    for (_, reading) in &item.readings {
        reliance = reliance.max(Reliance::of(reading));
        test |= reading.flags.contains(Flags::TEST);
        conforms &= match reading.value {
            Value::Quantity(quantity) => coding::conforms(reading.metric, quantity.unit),
            Value::Absent(_) => true,
        };
    }
    let profile = code_of.definition().profile.filter(|_| conforms);
    let security = reliance.security();
    if profile.is_none() && security.is_none() && !test {
        return;
    }
    raw(out, r#""meta":{"#);
    let mut members = Commas::new();
    if let Some(profile) = profile {
        members.next(out);
        raw(out, r#""profile":[""#);
        raw(out, profile);
        raw(out, r#""]"#);
    }
    if security.is_some() || test {
        members.next(out);
        raw(out, r#""security":["#);
        let mut codings = Commas::new();
        for coding in security.into_iter().chain(test.then_some(TEST_SECURITY)) {
            codings.next(out);
            raw(out, coding);
        }
        out.push(b']');
    }
    raw(out, "},");
}

/// `valueQuantity` or `dataAbsentReason`, and `interpretation` where there is one.
fn push_value_and_interpretation(out: &mut Vec<u8>, reading: &Reading) {
    match reading.value {
        Value::Quantity(quantity) => {
            raw(out, r#""valueQuantity":{"value":"#);
            decimal(out, quantity.value);
            out.push(b',');
            out.extend_from_slice(coding::unit(quantity.unit));
            out.push(b'}');
        }
        Value::Absent(reason) => raw(out, data_absent_reason(reason)),
    }
    let mut commas = Commas::new();
    for interpretation in interpretations(reading) {
        if !commas.begun() {
            raw(out, r#","interpretation":["#);
        }
        commas.next(out);
        raw(out, interpretation);
    }
    if commas.begun() {
        out.push(b']');
    }
}

fn push_components(out: &mut Vec<u8>, item: &Item, panel: Metric) {
    raw(out, r#""component":["#);
    let mut commas = Commas::new();
    for &part in panel.parts() {
        let reading = item.readings.iter().map(|(_, reading)| reading).find(|reading| reading.metric == part);
        if reading.is_none() && !panel.required_parts().contains(&part) {
            continue;
        }
        commas.next(out);
        out.push(b'{');
        if let Some(reading) = reading {
            raw(out, r#""id":""#);
            uuid(out, reading.id.as_bytes());
            raw(out, r#"","#);
        }
        out.extend_from_slice(&coding::fixed(part).code);
        out.push(b',');
        match reading {
            Some(reading) => push_value_and_interpretation(out, reading),
            None => raw(out, data_absent_reason(NoReading::PartMissing)),
        }
        out.push(b'}');
    }
    out.push(b']');
}

fn push_notes(out: &mut Vec<u8>, item: &Item) {
    let mut commas = Commas::new();
    let mut flags = Flags::default();
    for (_, reading) in &item.readings {
        flags = flags.with(reading.flags);
        let Some(reported) = &reading.reported else { continue };
        let short = |text: &str| text.chars().take(REPORTED_CHARS_MAX).collect::<String>();
        let subject = match item.panel {
            Some(_) => reading.metric.definition().loinc.first().map_or("", |(_, display)| *display),
            None => "Value",
        };
        let done = if matches!(reading.value, Value::Absent(_)) { "taken for an absence" } else { "converted" };
        let text = format!("{subject} {done} by the gateway; the device reported {} {}", short(&reported.value), short(&reported.unit));
        push_note(out, &mut commas, text.trim_end());
    }
    let not_compared = item.readings.iter().any(|(_, reading)| is_not_compared(reading)).then_some(NOT_COMPARED);
    for remark in not_compared.into_iter().chain(remarks(flags)) {
        push_note(out, &mut commas, remark);
    }
    if commas.begun() {
        out.push(b']');
    }
}

fn push_note(out: &mut Vec<u8>, commas: &mut Commas, text: &str) {
    if !commas.begun() {
        raw(out, r#","note":["#);
    }
    commas.next(out);
    raw(out, r#"{"text":"#);
    string(out, text);
    out.push(b'}');
}
