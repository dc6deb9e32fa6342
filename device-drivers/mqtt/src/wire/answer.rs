//! Everything the gateway says to a device, gathered in one buffer that is written at once.

use bytes::{BufMut, BytesMut};
use rumqttc::mqttbytes::{QoS, v4};
use rumqttc::v5::mqttbytes::{QoS as QoSV5, v5};

use super::Level;
use crate::refusal::Refusal;

/// What became of one topic filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Grant {
    /// Granted, at QoS 0.
    Granted,
    /// It is not one of the device's own topics.
    NotOwn,
    /// It holds a wildcard.
    Wildcard,
    /// It is a shared subscription.
    Shared,
}

/// What the gateway tells a v5 client when it is taken.
#[derive(Debug, Clone, Default)]
pub(crate) struct Welcome {
    /// Whether state was kept from an earlier connection.
    pub(crate) session_present: bool,
    /// Most unacknowledged QoS 1 and 2 messages.
    pub(crate) receive_max: u16,
    /// Largest packet in bytes.
    pub(crate) packet_bytes_max: u32,
    /// The client id, where the client left it to us.
    pub(crate) assigned_client_id: Option<String>,
    /// The session expiry in seconds, where it is less than asked for.
    pub(crate) session_expiry_s: Option<u32>,
    /// The keep-alive in seconds, where it is another than asked for.
    pub(crate) keep_alive_s: Option<u16>,
}

/// Answers that wait to be written.
#[derive(Debug)]
pub(crate) struct Answers {
    level: Level,
    packet_bytes_max: usize,
    /// What is to be written.
    pub(crate) bytes: BytesMut,
}

impl Answers {
    /// For a client that takes packets of at most `packet_bytes_max` bytes.
    pub(crate) fn new(level: Level, packet_bytes_max: usize) -> Self {
        Self { level, packet_bytes_max, bytes: BytesMut::new() }
    }

    fn short(&mut self, first: u8, id: u16) {
        self.bytes.put_u32(u32::from_be_bytes([first, 2, 0, 0]) | u32::from(id));
    }

    /// PUBACK, success.
    pub(crate) fn puback(&mut self, id: u16) {
        self.short(0x40, id);
    }

    /// PUBREC, success.
    pub(crate) fn pubrec(&mut self, id: u16) {
        self.short(0x50, id);
    }

    /// PUBCOMP; a v5 client is told where the identifier was not known (0x92).
    pub(crate) fn pubcomp(&mut self, id: u16, known: bool) {
        if known || self.level == Level::V311 {
            return self.short(0x70, id);
        }
        self.bytes.put_u16(0x7003);
        self.bytes.put_u16(id);
        self.bytes.put_u8(0x92);
    }

    /// PINGRESP.
    pub(crate) fn pong(&mut self) {
        self.bytes.put_u16(0xD000);
    }

    /// SUBACK.
    pub(crate) fn suback(&mut self, id: u16, grants: &[Grant]) {
        let written = match self.level {
            Level::V311 => {
                let code = |grant: &Grant| match grant {
                    Grant::Granted => v4::SubscribeReasonCode::Success(QoS::AtMostOnce),
                    _ => v4::SubscribeReasonCode::Failure,
                };
                v4::SubAck::new(id, grants.iter().map(code).collect()).write(&mut self.bytes).is_ok()
            }
            Level::V5 => {
                let code = |grant: &Grant| match grant {
                    Grant::Granted => v5::SubscribeReasonCode::Success(QoSV5::AtMostOnce),
                    Grant::NotOwn => v5::SubscribeReasonCode::NotAuthorized,
                    Grant::Wildcard => v5::SubscribeReasonCode::WildcardSubscriptionsNotSupported,
                    Grant::Shared => v5::SubscribeReasonCode::SharedSubscriptionsNotSupported,
                };
                let packet = v5::SubAck { pkid: id, return_codes: grants.iter().map(code).collect(), properties: None };
                packet.write(&mut self.bytes).is_ok()
            }
        };
        debug_assert!(written, "SUBACK is far below the largest packet");
    }

    /// UNSUBACK; each filter existed or not.
    pub(crate) fn unsuback(&mut self, id: u16, existed: &[bool]) {
        if self.level == Level::V311 {
            return self.short(0xB0, id);
        }
        let reason = |existed: &bool| if *existed { v5::UnsubAckReason::Success } else { v5::UnsubAckReason::NoSubscriptionExisted };
        let packet = v5::UnsubAck { pkid: id, reasons: existed.iter().map(reason).collect(), properties: None };
        let written = packet.write(&mut self.bytes).is_ok();
        debug_assert!(written, "UNSUBACK is far below the largest packet");
    }

    /// CONNACK, taken.
    pub(crate) fn welcome(&mut self, welcome: Welcome) {
        if self.level == Level::V311 {
            return self.bytes.put_slice(&[0x20, 2, u8::from(welcome.session_present), 0]);
        }
        let mut properties = no_connack_properties();
        properties.session_expiry_interval = welcome.session_expiry_s;
        properties.receive_max = Some(welcome.receive_max);
        properties.max_packet_size = Some(welcome.packet_bytes_max);
        properties.assigned_client_identifier = welcome.assigned_client_id;
        properties.wildcard_subscription_available = Some(0);
        properties.subscription_identifiers_available = Some(0);
        properties.shared_subscription_available = Some(0);
        properties.server_keep_alive = welcome.keep_alive_s;
        let code = v5::ConnectReturnCode::Success;
        let packet = v5::ConnAck { session_present: welcome.session_present, code, properties: Some(properties) };
        let written = packet.write(&mut self.bytes).is_ok();
        debug_assert!(written, "CONNACK is far below the largest packet");
    }

    /// CONNACK, refused. Nothing is said where the version has no word for it.
    pub(crate) fn refuse(&mut self, refusal: Refusal) {
        match self.level {
            Level::V311 => {
                if let Some(code) = refusal.connack_v311() {
                    self.bytes.put_slice(&[0x20, 2, 0, code]);
                }
            }
            Level::V5 => {
                let mut properties = no_connack_properties();
                properties.reason_string = Some(refusal.text().to_owned());
                let packet = v5::ConnAck { session_present: false, code: refusal.connack_v5(), properties: Some(properties) };
                self.fitting(|bytes| packet.write(bytes).is_ok());
            }
        }
    }

    /// DISCONNECT with reason and words; 3.1.1 has none from a server.
    pub(crate) fn dismiss(&mut self, refusal: Refusal) {
        if self.level == Level::V311 {
            return;
        }
        let properties = v5::DisconnectProperties {
            session_expiry_interval: None,
            reason_string: Some(refusal.text().to_owned()),
            user_properties: Vec::new(),
            server_reference: None,
        };
        let packet = v5::Disconnect { reason_code: refusal.disconnect_v5(), properties: Some(properties) };
        self.fitting(|bytes| packet.write(bytes).is_ok());
    }

    /// A message to the device on one of its own topics, at QoS 0.
    pub(crate) fn publish(&mut self, topic: &str, payload: String) {
        match self.level {
            Level::V311 => {
                let packet = v4::Publish::new(topic, QoS::AtMostOnce, payload);
                self.fitting(|bytes| packet.write(bytes).is_ok());
            }
            Level::V5 => {
                let packet = v5::Publish::new(topic, QoSV5::AtMostOnce, payload, None);
                self.fitting(|bytes| packet.write(bytes).is_ok());
            }
        }
    }

    /// Writes a packet unless it is larger than the client takes (section 3.1.2.11.4 of v5).
    fn fitting(&mut self, write: impl FnOnce(&mut BytesMut) -> bool) {
        let before = self.bytes.len();
        if !write(&mut self.bytes) || self.bytes.len() - before > self.packet_bytes_max {
            self.bytes.truncate(before);
        }
    }
}

fn no_connack_properties() -> v5::ConnAckProperties {
    v5::ConnAckProperties {
        session_expiry_interval: None,
        receive_max: None,
        max_qos: None,
        retain_available: None,
        max_packet_size: None,
        assigned_client_identifier: None,
        topic_alias_max: None,
        reason_string: None,
        user_properties: Vec::new(),
        wildcard_subscription_available: None,
        subscription_identifiers_available: None,
        shared_subscription_available: None,
        server_keep_alive: None,
        response_information: None,
        server_reference: None,
        authentication_method: None,
        authentication_data: None,
    }
}
