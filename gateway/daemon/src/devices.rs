//! The devices of the configuration: what decodes them, and who is let in.

use std::collections::BTreeMap;
use std::sync::Arc;

use vitalgate_domain::{DeadLetter, DecodedSample, DeviceId, DeviceTime, Flags, RawSample, Received};
use vitalgate_mqtt::{Credentials, Shown};
use vitalgate_profile::{Kind, Profile, decode_block_again, decode_publish};
use vitalgate_trust::DeviceRegistry;

use crate::shared::Shared;

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
    pub(crate) fn reload(&self, shared: &Shared) {
        let fault = self.registry.reload_if_changed().err().map(|error| format!("{:#}", anyhow::Error::from(error)));
        shared.set_device_list_fault(fault);
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
    use std::sync::atomic::Ordering;

    use vitalgate_domain::DestinationId;
    use vitalgate_profile::Profiles;
    use vitalgate_store::keyed::KeyedStatus;
    use vitalgate_trust::generate_password;

    use super::*;
    use crate::logging::tests::Lines;
    use crate::read_model::health;

    /// Promise 5: a list that cannot be read is told once, not again with every look, and in the status until it can be read.
    #[test]
    fn an_unreadable_list_is_told_once() {
        let folder = tempfile::tempdir().unwrap();
        let [list, copy] = ["devices.json", "devices.json.copy"].map(|name| folder.path().join(name));
        let registry = DeviceRegistry::open(&list).unwrap();
        registry.add(&DeviceId::new("m1").unwrap(), Some([1; 32]), None).unwrap();
        let sound = std::fs::read(&list).unwrap();
        let (admitted, shared) =
            (Admitted::new(registry, Arc::new(Devices::new([]))), Shared::new([], [DestinationId::new("ehr").unwrap()]));
        shared.ready.store(true, Ordering::Relaxed);
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        let write = |text: &[u8]| [&list, &copy].iter().for_each(|file| std::fs::write(file, text).unwrap());
        let looks = || {
            (0..3).for_each(|_| admitted.reload(&shared));
            health(&shared, &KeyedStatus::Running)
        };
        tracing::subscriber::with_default(subscriber, || {
            assert_eq!(looks().state, "READY");
            write(b"garbage");
            let unreadable = looks();
            assert_eq!((unreadable.ready, unreadable.state.as_str()), (true, "DEGRADED"));
            let [problem] = unreadable.problems.as_slice() else { panic!("{unreadable:?}") };
            assert!(problem.contains("list of devices") && problem.contains("devices.json is damaged"), "{problem}");
            write(&sound);
            assert_eq!((looks().state.as_str(), looks().problems), ("READY", vec![]));
        });
        assert_eq!(lines.text().matches("ERROR").count(), 1, "{}", lines.text());
    }

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
