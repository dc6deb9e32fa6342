//! Every limit of the endpoint, with its unit.

use vitalgate_domain::limits::PAYLOAD_BYTES_MAX;

/// Most devices that are connected at one time, unless configured.
pub const CONNECTIONS_MAX: usize = 1_000;
/// Packets per second that one device may send for long, unless configured; it may send one second's worth at once.
pub const PACKETS_PER_SECOND_MAX: u32 = 2_000;
/// Bytes per second that one device may send for long, unless configured.
pub const BYTES_PER_SECOND_MAX: u32 = 4 * 1024 * 1024;
/// Largest PUBLISH in bytes, header included, unless configured.
pub const PACKET_BYTES_MAX: usize = 64 * 1024;
/// Messages of one connection that wait for their commit, unless configured; the receive maximum of v5.
pub const IN_FLIGHT_MAX: u16 = 64;
/// Largest CONNECT in bytes: client id, will, user name, password, properties.
pub const CONNECT_BYTES_MAX: usize = 8 * 1024;
/// Largest packet other than CONNECT and PUBLISH in bytes.
pub const CONTROL_BYTES_MAX: usize = 4 * 1024;
/// Bytes that one read of a socket asks for.
pub const READ_BYTES: usize = 4 * 1024;
/// Time in ms for the TLS handshake and CONNECT together.
pub const GREETING_MS: u64 = 10_000;
/// Time in ms to finish a packet that was begun.
pub const PARTIAL_PACKET_MS: u64 = 10_000;
/// Time in ms that a device may leave its answers unread.
pub const WRITE_MS: u64 = 10_000;
/// Most connections that greet (TLS, CONNECT) at one time; others wait.
pub const GREETING_MAX: usize = 128;
/// Most connections from one address (IPv6: one /64) that greet at one time; others wait.
pub const GREETING_PER_ADDRESS_MAX: usize = 16;
/// Most connections from one address that wait to greet; more are closed.
pub const WAITING_PER_ADDRESS_MAX: usize = 512;
/// Most connections that greet or wait to greet; more are closed.
pub const WAITING_MAX: usize = 2_048;
/// Longest keep-alive in seconds that a v5 client is left with.
pub const KEEP_ALIVE_MAX_S: u16 = 3_600;
/// Longest session expiry in seconds that a v5 client is granted.
pub const SESSION_EXPIRY_MAX_S: u32 = 7 * 86_400;
/// Longest will delay in seconds that is kept; a longer one counts as this.
pub const WILL_DELAY_MAX_S: u32 = 300;
/// Most QoS 2 messages of one device that it has not let go of yet.
pub const UNRELEASED_MAX: usize = 1_024;
/// Time in ms between looks whether a connected device is still admitted.
pub const ADMISSION_CHECK_MS: u64 = 2_000;
/// Time in ms that a refused reading keeps its connection open, so that the device does not come back at once.
pub const STORAGE_FULL_HOLD_MS: u64 = 3_000;
/// Time in ms that a stopping endpoint waits for receipts it may still acknowledge.
pub const DRAIN_MS: u64 = 2_000;
/// Time in ms in which what a refused device still sends is thrown away, so that it can read why.
pub const LINGER_MS: u64 = 500;
/// Most bytes thrown away in that time.
pub const LINGER_BYTES_MAX: usize = 256 * 1024;
/// Time in ms that a second client waits until the first is known to be alive or dead.
pub const CONTEST_MS: u64 = 4_000;
/// Time in ms for which the first of two clients may have been silent and still keeps the second out.
pub const SILENT_FIRST_MS: u64 = 300_000;
/// Connections per second that one device may open for long.
pub const CONNECTS_PER_SECOND_MAX: u32 = 5;
/// Connections that one device may open at once.
pub const CONNECTS_BURST: u32 = 50;
/// Log lines per second about refusals, over all devices.
pub const REFUSAL_LINES_PER_SECOND_MAX: u32 = 10;
/// Refusal log lines at once.
pub const REFUSAL_LINES_BURST: u32 = 50;
/// Time in ms between two messages on `devices/<id>/time`.
pub const TIME_INTERVAL_MS: u64 = 60_000;
/// Shortest time in ms between two messages on `devices/<id>/acknowledgements`.
pub const ACKNOWLEDGEMENTS_INTERVAL_MS: u64 = 1_000;
/// Longest topic in bytes.
pub const TOPIC_BYTES_MAX: usize = 256;
/// Channels of one device whose name is remembered.
pub const CHANNELS_MAX: usize = 16;

/// TCP keep-alive in seconds: idle time before the first probe.
pub(crate) const PROBE_IDLE_S: u32 = 20;
/// TCP keep-alive in seconds: time between probes.
pub(crate) const PROBE_INTERVAL_S: u32 = 5;
/// TCP keep-alive: probes without an answer until the connection is dead.
pub(crate) const PROBE_COUNT: u32 = 3;

const _: () = assert!(CONNECT_BYTES_MAX <= PACKET_BYTES_MAX && CONTROL_BYTES_MAX <= PACKET_BYTES_MAX);
const _: () = assert!(PACKET_BYTES_MAX <= PAYLOAD_BYTES_MAX);
const _: () = assert!((IN_FLIGHT_MAX as usize) < UNRELEASED_MAX);
const _: () = assert!(PACKET_BYTES_MAX <= BYTES_PER_SECOND_MAX as usize);

/// What the configuration may set. Values are clamped to what the endpoint can keep.
#[derive(Debug, Clone)]
pub struct EndpointConfig {
    /// Most devices that are connected at one time.
    pub connections_max: usize,
    /// Packets per second and device, at least 1.
    pub packets_per_second_max: u32,
    /// Bytes per second and device, at least one largest packet.
    pub bytes_per_second_max: u32,
    /// Largest PUBLISH in bytes, header included; at most [`PAYLOAD_BYTES_MAX`], at least [`CONNECT_BYTES_MAX`].
    pub packet_bytes_max: usize,
    /// Messages of one connection that wait for their commit, 1 or more.
    pub in_flight_max: u16,
    /// Time in ms for the TLS handshake and CONNECT together.
    pub greeting_ms: u64,
    /// Time in ms to finish a packet that was begun.
    pub partial_packet_ms: u64,
    /// Time in ms that a device may leave its answers unread.
    pub write_ms: u64,
    /// Time in ms between looks whether a connected device is still admitted.
    pub admission_check_ms: u64,
    /// Time in ms that a second client waits until the first is known to be alive or dead.
    pub contest_ms: u64,
    /// Time in ms that a refused reading keeps its connection open.
    pub storage_full_hold_ms: u64,
}

impl Default for EndpointConfig {
    fn default() -> Self {
        Self {
            connections_max: CONNECTIONS_MAX,
            packets_per_second_max: PACKETS_PER_SECOND_MAX,
            bytes_per_second_max: BYTES_PER_SECOND_MAX,
            packet_bytes_max: PACKET_BYTES_MAX,
            in_flight_max: IN_FLIGHT_MAX,
            greeting_ms: GREETING_MS,
            partial_packet_ms: PARTIAL_PACKET_MS,
            write_ms: WRITE_MS,
            admission_check_ms: ADMISSION_CHECK_MS,
            contest_ms: CONTEST_MS,
            storage_full_hold_ms: STORAGE_FULL_HOLD_MS,
        }
    }
}

impl EndpointConfig {
    /// The same with every value inside what the endpoint can keep.
    pub(crate) fn clamped(mut self) -> Self {
        self.packet_bytes_max = self.packet_bytes_max.clamp(CONNECT_BYTES_MAX, PAYLOAD_BYTES_MAX);
        self.packets_per_second_max = self.packets_per_second_max.max(1);
        self.bytes_per_second_max = self.bytes_per_second_max.max(u32::try_from(self.packet_bytes_max).unwrap_or(u32::MAX));
        self.in_flight_max = self.in_flight_max.clamp(1, u16::try_from(UNRELEASED_MAX / 2).unwrap_or(u16::MAX));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every size that the configuration lets pass is kept as it was written: a smaller or larger one in secret would be an untrue refusal.
    #[test]
    fn what_the_configuration_may_say_is_not_changed() {
        for packet_bytes_max in [8_192, 16_384, 65_536] {
            let config = EndpointConfig { packet_bytes_max, ..EndpointConfig::default() };
            assert_eq!(config.clamped().packet_bytes_max, packet_bytes_max);
        }
    }
}
