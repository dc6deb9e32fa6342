//! What the devices said: the truth that the oracle judges by, taken before the gateway touches it.

use std::collections::BTreeMap;

use vitalgate_domain::{DecodedReading, DeviceId, PatientReference, Reading, SourceIdentity};

/// A reading as its device sent it.
#[derive(Debug)]
pub(crate) struct SentReading {
    device: DeviceId,
    /// Whom the device belongs to.
    pub(crate) patient: Option<PatientReference>,
    decoded: DecodedReading,
    /// It says no time of its own and came to admission while the gateway's clock was not set.
    pub(crate) timeless: bool,
}

impl SentReading {
    pub(crate) fn new(device: DeviceId, patient: Option<PatientReference>, decoded: DecodedReading) -> Self {
        Self { device, patient, decoded, timeless: false }
    }

    /// Whether the gateway still says of it what the device said.
    pub(crate) fn is_told_by(&self, reading: &Reading) -> bool {
        let told = (&reading.device, reading.metric, reading.slot, &reading.value, reading.time.device);
        told == (&self.device, self.decoded.metric, self.decoded.slot, &self.decoded.value, self.decoded.device_time)
    }

    /// What makes another value a contradiction; nothing where the device says nothing of the kind.
    fn statement(&self) -> Option<String> {
        let DecodedReading { metric, slot, identity, .. } = &self.decoded;
        (*identity != SourceIdentity::None).then(|| format!("{} {metric:?} {slot} {identity:?}", self.device))
    }
}

/// Everything that was ever sent, by serial.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    readings: BTreeMap<u64, SentReading>,
    statements: BTreeMap<String, Vec<u64>>,
}

impl Sent {
    pub(crate) fn add(&mut self, serial: u64, reading: SentReading) {
        if let Some(statement) = reading.statement() {
            self.statements.entry(statement).or_default().push(serial);
        }
        self.readings.insert(serial, reading);
    }

    pub(crate) fn get(&self, serial: u64) -> Result<&SentReading, String> {
        self.readings.get(&serial).ok_or_else(|| format!("no device ever sent reading {serial}"))
    }

    /// The gateway decides about these while its clock is not set.
    pub(crate) fn without_clock(&mut self, serials: &[u64]) {
        for serial in serials {
            if let Some(reading) = self.readings.get_mut(serial) {
                reading.timeless |= reading.decoded.device_time.is_none();
            }
        }
    }

    /// The other readings under the same time or counter of the same device.
    pub(crate) fn rivals(&self, serial: u64) -> impl Iterator<Item = u64> {
        let statement = self.readings.get(&serial).and_then(SentReading::statement);
        let all = statement.and_then(|statement| self.statements.get(&statement)).into_iter().flatten();
        all.copied().filter(move |&rival| rival != serial)
    }
}
