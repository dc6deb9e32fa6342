//! Why a connection is refused or ended by the gateway: what the log, the metric and the device are told.

use rumqttc::v5::mqttbytes::v5::{ConnectReturnCode, DisconnectReasonCode};

use crate::wire::WireFault;

/// A reason to refuse or end a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Refusal {
    /// Not MQTT.
    Malformed,
    /// MQTT, but not allowed here.
    Protocol,
    /// Neither 3.1.1 nor 5.
    Version,
    /// A packet above the limit.
    Oversize,
    /// A topic alias.
    TopicAlias,
    /// Enhanced authentication.
    Authentication,
    /// More QoS 2 messages that the device has not let go of than are kept for it.
    ReceiveMaximum,
    /// No client id where one is needed.
    NoClientId,
    /// The proven identity is not the client id.
    ForeignClientId,
    /// A wrong password, or none.
    Credentials,
    /// A device that is not configured here, was not given credentials yet, or from which what it showed was taken back.
    NotAdmitted,
    /// The topic is not the device's own.
    ForeignTopic,
    /// Another connection of the same device is alive.
    SecondClient,
    /// The device connects too often.
    ConnectRate,
    /// The gateway serves as many connections as it may.
    Full,
    /// As many connections as may wait to greet do so, from this address or in all.
    GreetingsFull,
    /// TLS could not be agreed.
    Handshake,
    /// TLS or CONNECT took too long.
    Greeting,
    /// A packet was begun and not finished in time.
    PartialPacket,
    /// Nothing came for one and a half keep-alives.
    KeepAlive,
    /// Nothing came for long, and a second connection of the same device waits.
    GaveWay,
    /// The device does not read its acknowledgements.
    SlowReader,
    /// The reading could not be stored: the device keeps it and sends it again.
    StorageFull,
    /// The gateway stops.
    Stopping,
}

impl Refusal {
    /// The `reason` label of the metric and of the log line.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Protocol => "protocol_error",
            Self::Version => "protocol_version",
            Self::Oversize => "oversize",
            Self::TopicAlias => "topic_alias",
            Self::Authentication => "authentication_method",
            Self::ReceiveMaximum => "receive_maximum",
            Self::NoClientId => "no_client_id",
            Self::ForeignClientId => "foreign_client_id",
            Self::Credentials => "credentials",
            Self::NotAdmitted => "not_admitted",
            Self::ForeignTopic => "foreign_topic",
            Self::SecondClient => "second_client",
            Self::ConnectRate => "connect_rate",
            Self::Full => "connections_full",
            Self::GreetingsFull => "greetings_full",
            Self::Handshake => "tls_handshake",
            Self::Greeting => "greeting_timeout",
            Self::PartialPacket => "partial_packet",
            Self::KeepAlive => "keep_alive",
            Self::GaveWay => "gave_way",
            Self::SlowReader => "slow_reader",
            Self::StorageFull => "storage_full",
            Self::Stopping => "stopping",
        }
    }

    /// What is wrong and what helps, for the log and for v5 clients. Names nothing secret.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Malformed => "malformed packet; check the device's MQTT library",
            Self::Protocol => "packet not allowed here; check the device's MQTT library",
            Self::Version => "only MQTT 3.1.1 and 5 are spoken; set the device to one of them",
            Self::Oversize => "packet too large; send less in one message, or raise packet_bytes_max where it is below 65536",
            Self::TopicAlias => "topic aliases are not offered; send the full topic",
            Self::Authentication => "enhanced authentication is not offered; use a certificate or user name and password",
            Self::ReceiveMaximum => "too many QoS 2 messages without PUBREL; let go of them or use QoS 1",
            Self::NoClientId => "client id missing; set it to the device's id",
            Self::ForeignClientId => "client id or user name is not the device that proved itself; set them to the device's id",
            Self::Credentials => "no valid certificate or password; issue new credentials for this device",
            Self::NotAdmitted => {
                "device not configured here, or without valid credentials; add it to the configuration, then use `vitalgate device add`"
            }
            Self::ForeignTopic => "topic is not this device's own; publish to vitals/<device-id>/<channel>",
            Self::SecondClient => "another connection with this client id is alive; give each device its own id",
            Self::ConnectRate => "the device connects too often; keep one connection open",
            Self::Full => "too many connections; raise connections_max",
            Self::GreetingsFull => {
                "too many connections wait for TLS or CONNECT, from this address or in all; find what opens them and let devices connect less often"
            }
            Self::Handshake => "TLS handshake failed; TLS 1.3 and a certificate of this gateway's authority are needed",
            Self::Greeting => "TLS handshake or CONNECT took too long",
            Self::PartialPacket => "a packet was begun and not finished in time",
            Self::KeepAlive => "nothing came for one and a half times the keep-alive",
            Self::GaveWay => {
                "silent for 5 minutes while another connection with this client id waited; give each device its own id, or close the first"
            }
            Self::SlowReader => "the device does not read its acknowledgements",
            Self::StorageFull => "the gateway cannot store now and acknowledged nothing; send again later",
            Self::Stopping => "the gateway stops; connect again later",
        }
    }

    /// The return code of CONNACK in 3.1.1 (table 3.1), where there is one.
    pub(crate) fn connack_v311(self) -> Option<u8> {
        match self {
            Self::Version => Some(1),
            Self::NoClientId | Self::SecondClient => Some(2),
            Self::Full | Self::ConnectRate | Self::StorageFull | Self::Stopping => Some(3),
            Self::Credentials => Some(4),
            Self::NotAdmitted | Self::ForeignClientId => Some(5),
            _ => None,
        }
    }

    /// The reason code of CONNACK in v5 (section 3.2.2.2).
    pub(crate) fn connack_v5(self) -> ConnectReturnCode {
        match self {
            Self::Malformed => ConnectReturnCode::MalformedPacket,
            Self::Protocol => ConnectReturnCode::ProtocolError,
            Self::Version => ConnectReturnCode::UnsupportedProtocolVersion,
            Self::Oversize => ConnectReturnCode::PacketTooLarge,
            Self::Authentication => ConnectReturnCode::BadAuthenticationMethod,
            Self::NoClientId | Self::SecondClient => ConnectReturnCode::ClientIdentifierNotValid,
            Self::Credentials => ConnectReturnCode::BadUserNamePassword,
            Self::NotAdmitted | Self::ForeignClientId | Self::ForeignTopic => ConnectReturnCode::NotAuthorized,
            Self::ConnectRate => ConnectReturnCode::ConnectionRateExceeded,
            Self::Full => ConnectReturnCode::ServerBusy,
            Self::StorageFull => ConnectReturnCode::QuotaExceeded,
            Self::Stopping => ConnectReturnCode::ServerUnavailable,
            _ => ConnectReturnCode::UnspecifiedError,
        }
    }

    /// The reason code of DISCONNECT in v5 (section 3.14.2.1).
    pub(crate) fn disconnect_v5(self) -> DisconnectReasonCode {
        match self {
            Self::Malformed => DisconnectReasonCode::MalformedPacket,
            Self::Protocol => DisconnectReasonCode::ProtocolError,
            Self::Oversize => DisconnectReasonCode::PacketTooLarge,
            Self::TopicAlias => DisconnectReasonCode::TopicAliasInvalid,
            Self::ReceiveMaximum => DisconnectReasonCode::ReceiveMaximumExceeded,
            Self::ForeignTopic | Self::NotAdmitted | Self::ForeignClientId | Self::Credentials => DisconnectReasonCode::NotAuthorized,
            Self::KeepAlive | Self::GaveWay => DisconnectReasonCode::KeepAliveTimeout,
            Self::StorageFull => DisconnectReasonCode::QuotaExceeded,
            Self::Stopping => DisconnectReasonCode::ServerShuttingDown,
            _ => DisconnectReasonCode::UnspecifiedError,
        }
    }
}

impl From<WireFault> for Refusal {
    fn from(fault: WireFault) -> Self {
        match fault {
            WireFault::Malformed(_) => Self::Malformed,
            WireFault::Protocol(_) => Self::Protocol,
            WireFault::Oversize { .. } => Self::Oversize,
            WireFault::Version(_) => Self::Version,
            WireFault::TopicAlias => Self::TopicAlias,
            WireFault::Authentication => Self::Authentication,
        }
    }
}
