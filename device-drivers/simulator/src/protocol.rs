//! MQTT 3.1.1 and 5 as a publishing client speaks them, over the public codec of rumqttc.

use bytes::{Bytes, BytesMut};
use rumqttc::mqttbytes::v4;
use rumqttc::v5::mqttbytes::v5;
use vitalgate_domain::DeviceId;

/// Largest packet that a server may send us, in bytes; it only sends acknowledgements.
const INCOMING_BYTES_MAX: u32 = 64 * 1024;

/// The version of MQTT that a device speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ProtocolVersion {
    /// MQTT 3.1.1 (OASIS Standard 2014).
    #[default]
    V311,
    /// MQTT 5.0 (OASIS Standard 2019).
    V5,
}

/// What a server answers to a publishing client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Incoming {
    Welcome,
    Refused(u8),
    Acknowledged(u16),
    /// MQTT 5 only: the publish was refused with a reason code of 0x80 or more.
    PublishRefused(u16),
    Alive,
    Goodbye,
    Other,
}

#[derive(Debug, thiserror::Error)]
#[error("the server's bytes are not MQTT: {0}")]
pub(crate) struct ProtocolError(String);

impl ProtocolVersion {
    pub(crate) fn connect(
        self,
        device: &DeviceId,
        password: Option<&str>,
        keep_alive_s: u16,
        out: &mut BytesMut,
    ) -> Result<(), ProtocolError> {
        match self {
            Self::V311 => {
                let mut connect = v4::Connect::new(device.as_str());
                connect.clean_session = false;
                connect.keep_alive = keep_alive_s;
                if let Some(password) = password {
                    connect.set_login(device.as_str(), password);
                }
                connect.write(out).map_err(|error| ProtocolError(error.to_string()))?;
            }
            Self::V5 => {
                let connect =
                    v5::Connect { keep_alive: keep_alive_s, client_id: device.as_str().to_owned(), clean_start: false, properties: None };
                let login = password.map(|password| v5::Login { username: device.as_str().to_owned(), password: password.to_owned() });
                connect.write(&None, &login, out).map_err(|error| ProtocolError(error.to_string()))?;
            }
        }
        Ok(())
    }

    pub(crate) fn publish(self, topic: &str, payload: Bytes, packet: u16, again: bool, out: &mut BytesMut) -> Result<(), ProtocolError> {
        match self {
            Self::V311 => {
                let mut publish = v4::Publish::from_bytes(topic, rumqttc::mqttbytes::QoS::AtLeastOnce, payload);
                publish.pkid = packet;
                publish.dup = again;
                publish.write(out).map_err(|error| ProtocolError(error.to_string()))?;
            }
            Self::V5 => {
                let mut publish = v5::Publish::new(topic, rumqttc::v5::mqttbytes::QoS::AtLeastOnce, payload, None);
                publish.pkid = packet;
                publish.dup = again;
                publish.write(out).map_err(|error| ProtocolError(error.to_string()))?;
            }
        }
        Ok(())
    }

    /// The next whole packet in `bytes`, `None` when more must be read first.
    pub(crate) fn read(self, bytes: &mut BytesMut) -> Result<Option<Incoming>, ProtocolError> {
        match self {
            Self::V311 => match v4::Packet::read(bytes, INCOMING_BYTES_MAX as usize) {
                Ok(packet) => Ok(Some(of_v4(&packet))),
                Err(rumqttc::mqttbytes::Error::InsufficientBytes(_)) => Ok(None),
                Err(error) => Err(ProtocolError(error.to_string())),
            },
            Self::V5 => match v5::Packet::read(bytes, Some(INCOMING_BYTES_MAX)) {
                Ok(packet) => Ok(Some(of_v5(&packet))),
                Err(rumqttc::v5::mqttbytes::Error::InsufficientBytes(_)) => Ok(None),
                Err(error) => Err(ProtocolError(error.to_string())),
            },
        }
    }
}

fn of_v4(packet: &v4::Packet) -> Incoming {
    match packet {
        v4::Packet::ConnAck(answer) if answer.code == v4::ConnectReturnCode::Success => Incoming::Welcome,
        v4::Packet::ConnAck(answer) => Incoming::Refused(answer.code as u8),
        v4::Packet::PubAck(answer) => Incoming::Acknowledged(answer.pkid),
        v4::Packet::PingResp => Incoming::Alive,
        v4::Packet::Disconnect => Incoming::Goodbye,
        _ => Incoming::Other,
    }
}

fn of_v5(packet: &v5::Packet) -> Incoming {
    match packet {
        v5::Packet::ConnAck(answer) if answer.code == v5::ConnectReturnCode::Success => Incoming::Welcome,
        v5::Packet::ConnAck(answer) => Incoming::Refused(answer.code as u8),
        v5::Packet::PubAck(answer) => match answer.reason {
            v5::PubAckReason::Success | v5::PubAckReason::NoMatchingSubscribers => Incoming::Acknowledged(answer.pkid),
            _ => Incoming::PublishRefused(answer.pkid),
        },
        v5::Packet::PingResp(_) => Incoming::Alive,
        v5::Packet::Disconnect(_) => Incoming::Goodbye,
        _ => Incoming::Other,
    }
}
