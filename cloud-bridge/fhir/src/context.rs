//! What the encoding depends on besides the batch.

use uuid::Uuid;
use vitalgate_domain::{BatchMode, DeviceNamespace, GatewayId, ReadingId};

use crate::device::gateway_resource_id;

/// System of the identifier on every Observation and Device: the one that FHIR names for values
/// that are URIs themselves, so that no namespace of an operator is needed and the same reading has
/// the same identifier whichever gateway of its namespace sends it. Source: FHIR R4 datatypes, Identifier, "urn:ietf:rfc:3986".
pub const IDENTIFIER_SYSTEM: &str = "urn:ietf:rfc:3986";

/// How a resend is kept from making a second Observation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WriteMode {
    /// `PUT Observation/{uuid}`: the server's primary key does it, without any race. Needs `updateCreate`.
    PutById,
    /// `POST Observation` with `ifNoneExist`: the server looks the identifier up first. Some servers
    /// race with themselves here, so one request per patient must be under way at a time.
    ConditionalCreate,
}

/// What the encoding depends on besides the batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodeContext {
    /// System of the identifiers, [`IDENTIFIER_SYSTEM`] unless an operator needs another.
    pub identifier_system: String,
    /// This gateway.
    pub gateway: GatewayId,
    /// What the ids of its devices are unique within.
    pub namespace: DeviceNamespace,
    /// How a resend is kept from making a second Observation.
    pub write: WriteMode,
    /// Whether the server takes batches. Where it does not, [`BatchMode::Separately`] goes as a transaction, which only one item
    /// may be in.
    pub batches: bool,
    /// Reference to the gateway's own Device resource, `Device/{id}`; empty where the server does not
    /// take Device resources, then it is named by identifier only.
    pub gateway_reference: String,
    /// Whether any item refers to a Device resource. Where all are named by identifier only, no entry can miss one.
    pub refers_to_devices: bool,
}

impl EncodeContext {
    /// The usual context: [`IDENTIFIER_SYSTEM`], the gateway's Device under our own id, and a server that takes batches.
    #[must_use]
    pub fn new(gateway: GatewayId, namespace: DeviceNamespace, write: WriteMode) -> Self {
        let gateway_reference = format!("Device/{}", gateway_resource_id(&gateway));
        let identifier_system = IDENTIFIER_SYSTEM.to_owned();
        Self { identifier_system, gateway, namespace, write, batches: true, gateway_reference, refers_to_devices: true }
    }

    /// The type of the Bundle that a batch goes in.
    pub(crate) fn bundle_type(&self, mode: BatchMode) -> &'static str {
        match mode {
            BatchMode::Separately if self.batches => "batch",
            BatchMode::Together | BatchMode::Separately => "transaction",
        }
    }

    /// The search that finds the resource with this identifier value, as the query part of a URL:
    /// `identifier=system|value`, each percent-encoded where a URL needs it.
    #[must_use]
    pub fn identifier_query(&self, value: &str) -> String {
        identifier_query(&self.identifier_system, value)
    }
}

/// The search for an identifier as the query part of a URL, `identifier=system|value`. The bar stays as it is, as in
/// FHIR's own examples of `ifNoneExist`; in a URL it must become `%7C`.
#[must_use]
pub fn identifier_query(system: &str, value: &str) -> String {
    let mut query = String::with_capacity(64 + system.len());
    query.push_str("identifier=");
    push_query(&mut query, system);
    query.push('|');
    push_query(&mut query, value);
    query
}

/// The identifier's value of an Observation: `urn:uuid:{id}`.
#[must_use]
pub fn identifier_value(id: &ReadingId) -> String {
    urn(Uuid::from_bytes(*id.as_bytes()))
}

pub(crate) fn urn(id: Uuid) -> String {
    let mut buffer = [0_u8; uuid::fmt::Urn::LENGTH];
    id.urn().encode_lower(&mut buffer).to_owned()
}

/// Percent-encodes what could end or split a query value (RFC 3986 section 3.4, FHIR search `|` `,` `$` `\`).
fn push_query(out: &mut String, text: &str) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b':' | b'/') {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
}

const HEX: [u8; 16] = *b"0123456789ABCDEF";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identifier_cannot_break_out_of_its_query() {
        let gateway = GatewayId::new("g1").unwrap();
        let namespace = DeviceNamespace::of_gateway(&gateway);
        let mut context = EncodeContext::new(gateway, namespace, WriteMode::ConditionalCreate);
        assert_eq!(context.identifier_query("urn:uuid:1"), "identifier=urn:ietf:rfc:3986|urn:uuid:1");
        context.identifier_system = "http://a?b&c|d".into();
        assert_eq!(context.identifier_query("x,y z"), "identifier=http://a%3Fb%26c%7Cd|x%2Cy%20z");
    }
}
