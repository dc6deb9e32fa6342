//! The two identities of a reading, never mixed: what the source said, and our own order.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::catalogue::Metric;
use crate::name::{DeviceId, GatewayId, NameError, checked};
use crate::time::Received;

/// Root of every [`ReadingId`] and [`DeviceNamespace`] (RFC 9562 section 5.5). It never changes: the same
/// source statement must give the same id on every gateway of a namespace and in every version.
const READING_NAMESPACE: Uuid = Uuid::from_u128(0x6f0b_31c4_55d2_5a0e_9d3c_7a11_52e8_04b7);

/// What device ids are unique within: one gateway, or several that share roaming devices.
///
/// Devices with one id in two namespaces are two devices, and nothing that is derived from their
/// ids is ever the same.
#[derive(Clone, PartialEq, Eq)]
pub struct DeviceNamespace {
    name: Arc<str>,
    /// Computed once: an id is made for every reading.
    uuid: Uuid,
}

impl DeviceNamespace {
    /// Checks and takes a name, by the rules of [`GatewayId::new`].
    ///
    /// # Errors
    /// Says which rule the name breaks.
    pub fn new(name: &str) -> Result<Self, NameError> {
        checked(name).map(Self::named)
    }

    /// The namespace of a gateway that shares no devices: its own name.
    #[must_use]
    pub fn of_gateway(gateway: &GatewayId) -> Self {
        Self::named(Arc::from(gateway.as_str()))
    }

    fn named(name: Arc<str>) -> Self {
        let uuid = Uuid::new_v5(&READING_NAMESPACE, name.as_bytes());
        Self { name, uuid }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// The namespace of everything that is derived from the id of one of its devices (RFC 9562 section 5.5).
    #[must_use]
    pub fn uuid(&self) -> &Uuid {
        &self.uuid
    }
}

impl fmt::Display for DeviceNamespace {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.name)
    }
}

impl fmt::Debug for DeviceNamespace {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "DeviceNamespace({})", self.name)
    }
}

/// Identity of a reading or of an Observation made of several, fixed at ingest.
///
/// UUIDv5 over what the source said. It catches resends and is the FHIR identifier.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ReadingId(Uuid);

impl ReadingId {
    /// From a device that reports its own time: namespace, device, metric, device time as reported, value slot.
    #[must_use]
    pub fn from_device_time(namespace: &DeviceNamespace, device: &DeviceId, metric: Metric, time_as_reported: &str, slot: u16) -> Self {
        Self::over(&namespace.uuid, &["time", device.as_str(), metric.key(), time_as_reported, &slot.to_string()])
    }

    /// From a device that counts its messages: namespace, device, metric, counter, value slot.
    ///
    /// `epoch` tells counters of different runs apart where the device restarts its counter at
    /// zero; it is whatever the device itself says of its run, or empty.
    #[must_use]
    pub fn from_device_sequence(
        namespace: &DeviceNamespace,
        device: &DeviceId,
        metric: Metric,
        epoch: &str,
        sequence: u64,
        slot: u16,
    ) -> Self {
        Self::over(&namespace.uuid, &["count", device.as_str(), metric.key(), epoch, &sequence.to_string(), &slot.to_string()])
    }

    /// For a source that says nothing of its own (a polled register, a publisher without time or
    /// counter): our gateway and power-on, when it came, our own sequence, and what it is. Such a
    /// reading cannot be told from a resend. The sequence alone would not do: a store that begins
    /// again, or an older copy of it, counts again from there.
    #[must_use]
    pub fn from_commit(gateway: &GatewayId, received: &Received, sequence: Sequence, device: &DeviceId, metric: Metric, slot: u16) -> Self {
        let (boot, came, number) = (received.boot.to_string(), received.monotonic_ms.to_string(), sequence.0.to_string());
        Self::over(
            &READING_NAMESPACE,
            &["commit", gateway.as_str(), &boot, &came, &number, device.as_str(), metric.key(), &slot.to_string()],
        )
    }

    /// Of an Observation that joins several readings of one device and moment (a blood pressure
    /// panel), from the id of the reading that names the moment.
    #[must_use]
    pub fn of_panel(panel: Metric, anchor: ReadingId) -> Self {
        Self::over(&READING_NAMESPACE, &["panel", panel.key(), &anchor.to_string()])
    }

    /// Of an Observation that joins exactly these readings, in the panel's order. Another set of
    /// parts is another Observation, so that a late part can never overwrite or shadow the others.
    #[must_use]
    pub fn of_parts(panel: Metric, parts: &[ReadingId]) -> Self {
        let texts: Vec<String> = parts.iter().map(ToString::to_string).collect();
        let mut named = vec!["parts", panel.key()];
        named.extend(texts.iter().map(String::as_str));
        Self::over(&READING_NAMESPACE, &named)
    }

    fn over(namespace: &Uuid, parts: &[&str]) -> Self {
        // A length before each part keeps ("ab","c") and ("a","bc") apart.
        let mut name = Vec::with_capacity(parts.iter().map(|part| part.len() + 8).sum());
        for part in parts {
            name.extend_from_slice(&(part.len() as u64).to_be_bytes());
            name.extend_from_slice(part.as_bytes());
        }
        Self(Uuid::new_v5(namespace, &name))
    }

    /// The sixteen bytes of the id.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// From sixteen stored bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }
}

impl fmt::Display for ReadingId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, formatter)
    }
}

impl fmt::Debug for ReadingId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ReadingId({})", self.0)
    }
}

impl FromStr for ReadingId {
    type Err = uuid::Error;
    fn from_str(text: &str) -> Result<Self, uuid::Error> {
        Uuid::parse_str(text).map(Self)
    }
}

/// Our own order of entries, assigned at commit, from 1, without gaps.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
#[serde(transparent)]
pub struct Sequence(pub u64);

impl Sequence {
    /// The first sequence ever assigned.
    pub const FIRST: Self = Self(1);

    /// The sequence after this one.
    #[must_use]
    pub fn next(self) -> Self {
        self.plus(1)
    }

    /// The sequence `count` places after this one.
    #[must_use]
    pub fn plus(self, count: u64) -> Self {
        Self(self.0.saturating_add(count))
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, formatter)
    }
}

impl fmt::Debug for Sequence {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "#{}", self.0)
    }
}

/// One run of the machine between power-on and power-off; monotonic times compare only within it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BootId(Uuid);

impl BootId {
    /// From the sixteen bytes that the operating system gives (`/proc/sys/kernel/random/boot_id`).
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    /// The sixteen bytes of the id.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

impl FromStr for BootId {
    type Err = uuid::Error;
    fn from_str(text: &str) -> Result<Self, uuid::Error> {
        Uuid::parse_str(text.trim()).map(Self)
    }
}

impl fmt::Display for BootId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, formatter)
    }
}

impl fmt::Debug for BootId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "BootId({})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn namespace(name: &str) -> DeviceNamespace {
        DeviceNamespace::new(name).unwrap()
    }

    #[test]
    fn the_same_statement_of_a_source_always_gives_the_same_id() {
        let device = DeviceId::new("monitor-1").unwrap();
        let id = ReadingId::from_device_time(&namespace("practice-01"), &device, Metric::HeartRate, "2026-11-22T10:00:00+01:00", 0);
        // Fixed for ever: a new version that changed it would duplicate every resend in the EHR.
        assert_eq!(id.to_string(), "b6777549-e29d-5cd1-a969-7762ba9e2f53");
    }

    proptest::proptest! {
        /// Promise 3: what two devices of one id say, on gateways that share no devices, are two readings; on gateways
        /// that share them, it is one.
        #[test]
        fn another_namespace_is_another_reading(one in NAME, other in NAME, device in NAME, said in ".{0,40}", count: u64, slot: u16) {
            let (first, second) = (namespace(&one), namespace(&other));
            let device = DeviceId::new(&device).unwrap();
            let times = |space| ReadingId::from_device_time(space, &device, Metric::HeartRate, &said, slot);
            let counts = |space| ReadingId::from_device_sequence(space, &device, Metric::HeartRate, &said, count, slot);
            proptest::prop_assert_eq!(one == other, times(&first) == times(&second));
            proptest::prop_assert_eq!(one == other, counts(&first) == counts(&second));
            proptest::prop_assert_eq!(one == other, first.uuid() == second.uuid());
            let of_gateway = DeviceNamespace::of_gateway(&GatewayId::new(&one).unwrap());
            proptest::prop_assert_eq!(times(&of_gateway), times(&first), "its own name is a name like others");
        }
    }

    /// Short names, so that two are the same now and then, and long ones.
    const NAME: &str = "[ab]|[a-zA-Z0-9][a-zA-Z0-9._-]{0,63}";

    /// A store that begins again counts from 1 in the same run of the machine: the first reading after it
    /// must not take the place of the first one before it in the EHR.
    #[test]
    fn the_same_sequence_later_is_another_reading() {
        let (gateway, device) = (GatewayId::new("g").unwrap(), DeviceId::new("monitor-1").unwrap());
        let at = |monotonic_ms| Received {
            wall: crate::time::UnixMs(0),
            monotonic_ms,
            boot: BootId::from_bytes([1; 16]),
            trust: crate::time::ClockTrust::Free,
        };
        let id = |monotonic_ms, metric| ReadingId::from_commit(&gateway, &at(monotonic_ms), Sequence(1), &device, metric, 0);
        assert_ne!(id(5, Metric::HeartRate), id(6, Metric::HeartRate));
        assert_ne!(id(5, Metric::HeartRate), id(5, Metric::RespiratoryRate));
        assert_eq!(id(5, Metric::HeartRate), id(5, Metric::HeartRate));
    }

    #[test]
    fn parts_that_only_move_their_border_give_different_ids() {
        let over = |parts: &[&str]| ReadingId::over(&READING_NAMESPACE, parts);
        assert_ne!(over(&["ab", "c"]), over(&["a", "bc"]));
    }
}
