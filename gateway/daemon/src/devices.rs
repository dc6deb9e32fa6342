//! The devices of the configuration: what decodes them, and who is let in.

use std::collections::BTreeMap;
use std::sync::Arc;

use vitalgate_domain::{DeadLetter, DecodedSample, DeviceId, RawSample};
use vitalgate_mqtt::Credentials;
use vitalgate_profile::{Kind, Profile, decode_block_again, decode_publish};
use vitalgate_trust::DeviceRegistry;

/// The configured devices with their profiles.
#[derive(Debug)]
pub(crate) struct Devices(BTreeMap<DeviceId, Arc<Profile>>);

impl Devices {
    /// From the configuration.
    pub(crate) fn new(devices: impl IntoIterator<Item = (DeviceId, Arc<Profile>)>) -> Self {
        Self(devices.into_iter().collect())
    }

    /// Decodes a publish of a configured device; `None` for a device that is not configured.
    pub(crate) fn decode(&self, device: &DeviceId, sample: RawSample) -> Option<DecodedSample> {
        self.0.get(device).map(|profile| decode_publish(profile, sample))
    }

    /// Decodes what a dead letter kept, as today's profile has it; `None` where that profile does
    /// not say how.
    pub(crate) fn decode_again(&self, letter: DeadLetter) -> Option<DecodedSample> {
        let profile = self.0.get(&letter.device)?;
        let DeadLetter { device, channel, received, reason, bytes } = letter;
        let sample = RawSample { device, channel, bytes, received };
        match profile.kind() {
            Kind::Publish(_) => Some(decode_publish(profile, sample)),
            Kind::Polled(_) => decode_block_again(profile, &reason, &sample),
        }
    }

    /// The device's profile.
    pub(crate) fn profile(&self, device: &DeviceId) -> Option<&Arc<Profile>> {
        self.0.get(device)
    }
}

/// Who may connect: configured, admitted, not revoked.
#[derive(Debug)]
pub(crate) struct Admitted {
    registry: DeviceRegistry,
    devices: Arc<Devices>,
}

impl Admitted {
    /// Over the registry on disk.
    pub(crate) fn new(registry: DeviceRegistry, devices: Arc<Devices>) -> Self {
        Self { registry, devices }
    }

    /// Looks whether the registry was changed by the command line; called once a second.
    pub(crate) fn reload(&self) {
        if let Err(error) = self.registry.reload_if_changed() {
            tracing::error!(%error, "the list of devices cannot be read; the earlier one stays in force");
        }
    }
}

impl Credentials for Admitted {
    fn verify_password(&self, device: &DeviceId, password: &[u8]) -> bool {
        self.registry.verify_password(device, password)
    }

    fn is_admitted(&self, device: &DeviceId, certificate_fingerprint: Option<&[u8; 32]>) -> bool {
        self.devices.profile(device).is_some() && self.registry.is_admitted(device, certificate_fingerprint)
    }
}
