//! Device resources: the sensor's and the gateway's own.

use uuid::Uuid;
use vitalgate_domain::{DeviceId, DeviceNamespace, GatewayId};

use crate::context::{EncodeContext, WriteMode, urn};
use crate::json::{raw, string, uuid};

/// Namespace of the ids of the gateways' own resources (RFC 9562 section 5.5). It never changes: the same
/// gateway must be the same resource whichever version names it.
const GATEWAY_NAMESPACE: Uuid = Uuid::from_u128(0x2c5d_8e10_77ab_5f4e_b1c6_90d4_3e2f_a871);

/// A Device resource, ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedDevice {
    /// Its id where we choose it (`PUT Device/{id}`).
    pub id: Uuid,
    /// The value of its identifier.
    pub identifier: String,
    /// The search that finds it, for `If-None-Exist` and `GET`.
    pub query: String,
    /// The JSON text.
    pub body: Vec<u8>,
}

/// The id of a device's resource, the same on every gateway and in every version, for as long as the device's id
/// and its namespace stay.
#[must_use]
pub fn device_resource_id(namespace: &DeviceNamespace, device: &DeviceId) -> Uuid {
    Uuid::new_v5(namespace.uuid(), format!("device {device}").as_bytes())
}

/// The id of a gateway's resource.
#[must_use]
pub fn gateway_resource_id(gateway: &GatewayId) -> Uuid {
    Uuid::new_v5(&GATEWAY_NAMESPACE, format!("gateway {gateway}").as_bytes())
}

/// The Device resource of a device: its name and our identifier. No EUI-64 is invented.
#[must_use]
pub fn encode_device(device: &DeviceId, context: &EncodeContext) -> EncodedDevice {
    encode_named(device_resource_id(&context.namespace, device), device.as_str(), "", context)
}

/// The Device resource of the gateway itself (HL7 PHD: PhgDevice, type MDC 531981).
#[must_use]
pub fn encode_gateway(context: &EncodeContext) -> EncodedDevice {
    let kind = r#","type":{"coding":[{"system":"urn:iso:std:iso:11073:10101","code":"531981","display":"MDC_MOC_VMS_MDS_AHD"}]}"#;
    encode_named(gateway_resource_id(&context.gateway), context.gateway.as_str(), kind, context)
}

fn encode_named(id: Uuid, name: &str, kind: &str, context: &EncodeContext) -> EncodedDevice {
    let identifier = urn(id);
    let mut body = Vec::with_capacity(512);
    raw(&mut body, r#"{"resourceType":"Device","#);
    if context.write == WriteMode::PutById {
        raw(&mut body, r#""id":""#);
        uuid(&mut body, id.as_bytes());
        raw(&mut body, r#"","#);
    }
    raw(&mut body, r#""identifier":[{"system":"#);
    string(&mut body, &context.identifier_system);
    raw(&mut body, r#","value":"#);
    string(&mut body, &identifier);
    raw(&mut body, r#"}],"status":"active","deviceName":[{"name":"#);
    string(&mut body, name);
    raw(&mut body, r#","type":"user-friendly-name"}]"#);
    raw(&mut body, kind);
    body.push(b'}');
    EncodedDevice { id, query: context.identifier_query(&identifier), identifier, body }
}
