//! What is polled, where and how often.

use std::sync::Arc;
use std::time::Duration;

use vitalgate_domain::DeviceId;
use vitalgate_domain::limits::RESPONSE_TIMEOUT_MS_MAX;
use vitalgate_profile::{Kind, PolledProfile, Profile};

/// Shortest time a device is given to answer, in milliseconds.
pub const RESPONSE_TIMEOUT_MS_MIN: u64 = 10;
/// Shortest interval between two polls of a device, in milliseconds.
pub const POLL_INTERVAL_MS_MIN: u64 = 10;
/// What a device is given to answer where the configuration says nothing, in milliseconds.
const RESPONSE_TIMEOUT_MS: u64 = 1_000;
/// Time to open a connection where the configuration says nothing, in milliseconds.
const CONNECT_TIMEOUT_MS: u64 = 3_000;
/// How long a connection may lie idle where nothing else is said, in milliseconds: less than a firewall remembers one.
const IDLE_MS: u64 = 30_000;
/// How long the proof of a device's kind counts where nothing else is said, in milliseconds: nobody exchanges a device faster, so
/// that of one polled more often an exchange shows as a fault, and of any other each poll has a proof of its own.
const PROOF_MS: u64 = 10_000;

/// One bus: one TCP address with the devices behind it.
#[derive(Debug, Clone)]
pub struct BusConfig {
    /// `host:port` or `address:port`; a name is looked up at every connection.
    pub address: String,
    /// The devices that are polled there.
    pub devices: Vec<BusDevice>,
    /// How long one answer may take, in milliseconds; held within [`RESPONSE_TIMEOUT_MS_MIN`] and [`RESPONSE_TIMEOUT_MS_MAX`].
    pub response_timeout_ms: u64,
    /// How long opening the connection may take, in milliseconds; held within the same bounds.
    pub connect_timeout_ms: u64,
    /// How long the connection may lie idle until it is closed and opened anew for the next poll, in milliseconds.
    pub idle_ms: u64,
    /// How long the proof that a device is of its profile's kind counts, in milliseconds.
    pub proof_ms: u64,
}

impl BusConfig {
    /// A bus with the usual timeouts (1 s to answer, 3 s to connect, 30 s idle, 10 s for a proof).
    #[must_use]
    pub fn new(address: impl Into<String>, devices: Vec<BusDevice>) -> Self {
        let (response_timeout_ms, connect_timeout_ms) = (RESPONSE_TIMEOUT_MS, CONNECT_TIMEOUT_MS);
        Self { address: address.into(), devices, response_timeout_ms, connect_timeout_ms, idle_ms: IDLE_MS, proof_ms: PROOF_MS }
    }

    pub(crate) fn response_timeout(&self) -> Duration {
        Duration::from_millis(self.response_timeout_ms.clamp(RESPONSE_TIMEOUT_MS_MIN, RESPONSE_TIMEOUT_MS_MAX))
    }

    pub(crate) fn connect_timeout(&self) -> Duration {
        Duration::from_millis(self.connect_timeout_ms.clamp(RESPONSE_TIMEOUT_MS_MIN, RESPONSE_TIMEOUT_MS_MAX))
    }
}

/// One device on a bus.
#[derive(Debug, Clone)]
pub struct BusDevice {
    /// Its name here.
    pub device: DeviceId,
    /// Its unit identifier on the bus (Modbus Messaging on TCP/IP, 3.1.3).
    pub unit_id: u8,
    /// What it is; a profile that is not for polling leaves the device down.
    pub profile: Arc<Profile>,
    /// How often it is polled, in milliseconds; never more often than its profile allows.
    pub poll_interval_ms: u64,
}

impl BusDevice {
    pub(crate) fn polled(&self) -> Option<&PolledProfile> {
        match self.profile.kind() {
            Kind::Polled(polled) => Some(polled),
            Kind::Publish(_) => None,
        }
    }

    pub(crate) fn interval(&self) -> Duration {
        let least = self.polled().map_or(POLL_INTERVAL_MS_MIN, PolledProfile::min_poll_interval_ms);
        Duration::from_millis(self.poll_interval_ms.max(least).max(POLL_INTERVAL_MS_MIN))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Promise: the configuration's numbers are kept as they were written; a shorter patience in secret would call a slow device silent.
    #[test]
    fn what_the_configuration_may_say_is_not_changed() {
        for response_timeout_ms in [20, 10_001, RESPONSE_TIMEOUT_MS_MAX] {
            let config = BusConfig { response_timeout_ms, ..BusConfig::new("192.0.2.9:502", Vec::new()) };
            assert_eq!(config.response_timeout(), Duration::from_millis(response_timeout_ms));
        }
    }
}
