//! The devices of the configuration: what decodes them, and who is let in.

use std::collections::BTreeMap;
use std::sync::Arc;

use vitalgate_domain::{DeadLetter, DecodedSample, DeviceId, DeviceTime, Flags, RawSample, Received};
use vitalgate_mqtt::{Credentials, Shown};
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

    /// The marks of a device's time beside its arrival. One that no profile speaks of is doubted.
    pub(crate) fn doubts(&self, device: &DeviceId, time: DeviceTime, received: &Received) -> Flags {
        self.0.get(device).map_or(Flags::CLOCK_DOUBTFUL, |profile| profile.doubts(time, received))
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
    fn verify_password(&self, device: &DeviceId, password: &[u8]) -> Option<[u8; 32]> {
        self.registry.verify_password(device, password)
    }

    fn is_admitted(&self, device: &DeviceId, shown: &Shown) -> bool {
        self.devices.profile(device).is_some()
            && match shown {
                Shown::Nothing => self.registry.is_admitted(device, None),
                Shown::Certificate(fingerprint) => self.registry.is_admitted(device, Some(fingerprint)),
                Shown::Password(stamp) => self.registry.has_password(device, stamp),
            }
    }
}

#[cfg(test)]
mod tests {
    use vitalgate_profile::Profiles;
    use vitalgate_trust::generate_password;

    use super::*;

    /// A connection stands only while what it was let in by is the device's own, whatever came in its place.
    #[test]
    fn new_credentials_end_what_was_let_in_by_the_old_ones() {
        let folder = tempfile::tempdir().unwrap();
        let device = DeviceId::new("m1").unwrap();
        let profile = Profiles::builtin().unwrap().get("vitals-json").unwrap();
        let devices = Arc::new(Devices::new([(device.clone(), profile)]));
        let admitted = Admitted::new(DeviceRegistry::open(&folder.path().join("devices.json")).unwrap(), devices);
        let mut old: Option<[Shown; 2]> = None;
        for number in 1..=2 {
            let (password, hash) = generate_password().unwrap();
            admitted.registry.replace(&device, Some([number; 32]), Some(hash)).unwrap();
            let stamp = admitted.verify_password(&device, password.expose().as_bytes()).unwrap();
            let new = [Shown::Password(stamp), Shown::Certificate([number; 32])];
            assert!(new.iter().all(|shown| admitted.is_admitted(&device, shown)));
            assert!(old.iter().flatten().all(|shown| !admitted.is_admitted(&device, shown)));
            old = Some(new);
        }
        assert!(!admitted.is_admitted(&DeviceId::new("m2").unwrap(), &Shown::Nothing), "not configured");
    }
}
