//! The MQTT endpoint that devices publish to: not a broker. It takes messages of MQTT 3.1.1 and 5,
//! acknowledges each when it is on disk and not before, and never hands anything from one device to another.
//!
//! - PUBACK and PUBREC leave in the order of the messages, each after [`vitalgate_intake::Receipt::Committed`].
//!   A message that could not be stored is never answered: in 3.1.1 there is no way to say no, and in v5 a
//!   PUBACK with a failure code forbids the device to send it again (MQTT 5, MQTT-4.4.0-2). The connection is closed
//!   after a while instead, so that the device keeps the message and sends it again when it comes back.
//! - One task for each connection. It reads what there is, submits every whole message in it, and writes all
//!   acknowledgements that are due at once. While receipts are outstanding it goes on reading, up to
//!   the in-flight limit; beyond a limit it stops reading its own socket and nothing else.
//! - A device is who its certificate or password proves; that must be its client id (or the client id is empty)
//!   and the second level of its topics `vitals/<device-id>/<channel...>`. Only without TLS on loopback, and without a login, it is
//!   who it says.
//! - It may subscribe to `devices/<device-id>/time` (the gateway's time, at once and each minute) and to
//!   `devices/<device-id>/acknowledgements` (how many messages of the connection are on disk), and to nothing else.
//! - A connection that vanishes, or is ended for a fault, gives a `DeviceEvent` of kind `Lost`, with or without a will; the
//!   will's payload is not kept. The will delay of v5 is honoured up to [`limits::WILL_DELAY_MAX_S`].

#![forbid(unsafe_code)]

mod bucket;
mod channel;
mod connection;
#[cfg(test)]
mod connection_tests;
mod ending;
mod endpoint;
mod exchange;
#[cfg(test)]
mod exchange_tests;
mod gate;
mod greeting;
mod identity;
pub mod limits;
mod probe;
mod refusal;
mod roster;
mod session;
mod stats;
mod wire;

use std::sync::Arc;

use vitalgate_domain::{DecodedSample, DeviceId, RawSample, Received};

pub use endpoint::{Endpoint, Presence};
pub use identity::{Credentials, Shown};
pub use limits::EndpointConfig;
pub use stats::MqttStats;

/// Reads a payload by the device's profile; `None` where the device has none. Must not block.
pub type Decode = Arc<dyn Fn(&DeviceId, RawSample) -> Option<DecodedSample> + Send + Sync>;
/// Tells the time of receipt.
pub type Clock = Arc<dyn Fn() -> Received + Send + Sync>;
/// Finds the device and the SHA-256 of its certificate in a client certificate (DER) that TLS has verified.
pub type PeerIdentity = Arc<dyn Fn(&[u8]) -> Option<(DeviceId, [u8; 32])> + Send + Sync>;
