//! A batch as a transaction or batch Bundle.

use vitalgate_domain::{Batch, DeviceId, Item, Reading};

use crate::check::{EncodeError, faults};
use crate::context::{EncodeContext, WriteMode, urn};
use crate::device::{device_resource_id, gateway_resource_id};
use crate::json::{Commas, raw, string, uuid};
use crate::observation::{DeviceMember, Shared, push_observation};

/// What one entry takes at most as a rule, in bytes: the buffer grows only for panels.
const ENTRY_BYTES_USUAL: usize = 1_800;

/// Source: HL7 FHIR extension registry, used as the PHD implementation guide does.
const GATEWAY_EXTENSION: &str = "http://hl7.org/fhir/StructureDefinition/observation-gatewayDevice";

/// A bundle, ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedBatch {
    /// The JSON text.
    pub body: Vec<u8>,
    /// How many entries it has, one for each item in the order of the batch.
    pub entries: usize,
}

/// Encodes a batch: `transaction` for [`Together`](vitalgate_domain::BatchMode), `batch` for [`Separately`](vitalgate_domain::BatchMode) where the server takes that.
///
/// `device_reference` gives the reference to the Device resource of a device (`Device/{id}`), or an empty
/// text where the server does not take Device resources: then it is named by identifier only.
/// `patient_reference` is the reference that the subject gets.
///
/// # Errors
/// When the batch is empty or [`faults`] finds something; the first of it is named. Nothing is sent halfway.
pub fn encode(
    batch: &Batch,
    context: &EncodeContext,
    device_reference: &dyn Fn(&DeviceId) -> String,
    patient_reference: &str,
) -> Result<EncodedBatch, EncodeError> {
    if batch.items.is_empty() {
        return Err(EncodeError::Empty);
    }
    if let Some(&(item, fault)) = faults(batch).first() {
        return Err(EncodeError::Item { item, fault });
    }
    let shared = shared(context, patient_reference);
    let request = RequestParts::new(context);
    let mut device = DeviceMember::default();
    let mut out = Vec::with_capacity(256 + batch.items.len() * ENTRY_BYTES_USUAL);
    raw(&mut out, r#"{"resourceType":"Bundle","type":""#);
    raw(&mut out, context.bundle_type(batch.mode));
    raw(&mut out, r#"","entry":["#);
    let mut commas = Commas::new();
    for item in &batch.items {
        // An item without a reading was refused above.
        let Some((_, anchor)) = item.readings.first() else { continue };
        device.take(anchor, context, device_reference);
        commas.next(&mut out);
        // No fullUrl: no entry refers to another, and a server that puts its own reference for that text (Medplum) would do so in
        // the identifier and in the condition too.
        raw(&mut out, r#"{"resource":"#);
        push_observation(&mut out, item, anchor, &shared, &device.member);
        request.push(&mut out, item);
        out.push(b'}');
    }
    raw(&mut out, "]}");
    Ok(EncodedBatch { body: out, entries: batch.items.len() })
}

impl<'a> DeviceMember<'a> {
    fn take(&mut self, anchor: &'a Reading, context: &EncodeContext, reference: &dyn Fn(&DeviceId) -> String) {
        if self.device == Some(&anchor.device) {
            return;
        }
        self.device = Some(&anchor.device);
        self.member.clear();
        raw(&mut self.member, r#""device":"#);
        let reference = reference(&anchor.device);
        let identifier = urn(device_resource_id(&context.namespace, &anchor.device));
        push_reference(&mut self.member, &reference, &identifier, anchor.device.as_str(), context);
    }
}

fn push_reference(out: &mut Vec<u8>, reference: &str, identifier: &str, display: &str, context: &EncodeContext) {
    if reference.is_empty() {
        raw(out, r#"{"identifier":{"system":"#);
        string(out, &context.identifier_system);
        raw(out, r#","value":"#);
        string(out, identifier);
        raw(out, "}");
    } else {
        raw(out, r#"{"reference":"#);
        string(out, reference);
    }
    raw(out, r#","display":"#);
    string(out, display);
    out.push(b'}');
}

fn shared(context: &EncodeContext, patient_reference: &str) -> Shared {
    let mut gateway_extension = Vec::new();
    raw(&mut gateway_extension, r#""extension":[{"url":""#);
    raw(&mut gateway_extension, GATEWAY_EXTENSION);
    raw(&mut gateway_extension, r#"","valueReference":"#);
    let gateway = urn(gateway_resource_id(&context.gateway));
    push_reference(&mut gateway_extension, &context.gateway_reference, &gateway, context.gateway.as_str(), context);
    raw(&mut gateway_extension, "}]");
    let mut identifier_head = Vec::new();
    raw(&mut identifier_head, r#""identifier":[{"system":"#);
    string(&mut identifier_head, &context.identifier_system);
    raw(&mut identifier_head, r#","value":"urn:uuid:"#);
    let mut subject = Vec::new();
    raw(&mut subject, r#""subject":{"reference":"#);
    string(&mut subject, patient_reference);
    subject.push(b'}');
    Shared { with_id: context.write == WriteMode::PutById, gateway_extension, identifier_head, subject }
}

/// The member `request` of an entry around the item's id.
struct RequestParts {
    head: Vec<u8>,
    tail: &'static str,
}

impl RequestParts {
    fn new(context: &EncodeContext) -> Self {
        let mut head = Vec::new();
        match context.write {
            WriteMode::PutById => raw(&mut head, r#","request":{"method":"PUT","url":"Observation/"#),
            WriteMode::ConditionalCreate => {
                raw(&mut head, r#","request":{"method":"POST","url":"Observation","ifNoneExist":"#);
                string(&mut head, &context.identifier_query("urn:uuid:"));
                // The closing quote comes after the id.
                head.pop();
            }
        }
        Self { head, tail: r#""}"# }
    }

    fn push(&self, out: &mut Vec<u8>, item: &Item) {
        out.extend_from_slice(&self.head);
        uuid(out, item.id.as_bytes());
        raw(out, self.tail);
    }
}
