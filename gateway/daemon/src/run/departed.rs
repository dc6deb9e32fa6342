//! Devices that are no longer in the configuration lose their credentials at the start, before anybody may connect: were they
//! only left out, what a thief has would be good again as soon as the device comes back.
//!
//! Nobody who was just added is met by this: `vitalgate device add` takes only devices that the configuration has.

use anyhow::Context as _;
use vitalgate_config::{Config, DeviceSource};
use vitalgate_domain::DeviceId;
use vitalgate_trust::DeviceRegistry;

use super::registry_file;

/// Revokes, durably, whoever has credentials and does not publish by this configuration.
pub(super) fn revoke(config: &Config) -> anyhow::Result<()> {
    let registry = match DeviceRegistry::open(&registry_file(&config.gateway)) {
        Ok(registry) => registry,
        Err(error) if config.mqtt.is_none() => {
            // A list that does not open lets nobody in later either; what is polled goes on without it.
            tracing::error!(%error, "the list of devices cannot be opened; nobody connects to this gateway");
            return Ok(());
        }
        Err(error) => return Err(error).context("the list of devices cannot be opened"),
    };
    // A polled device shows nothing: what it had as a publishing one is worth nothing either.
    let publishes = |id: &DeviceId| config.devices.iter().any(|device| device.id == *id && device.source == DeviceSource::Mqtt);
    let revoked = registry.revoke_others(publishes).context("devices that left the configuration cannot be shut out")?;
    for device in revoked {
        tracing::warn!(%device, "does not publish by this configuration: its credentials are revoked; if it comes back it needs new ones");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const PUBLISHING: &str = "[[device]]\nid = \"m1\"\nprofile = \"vitals-json\"\n";
    const POLLED: &str = "[[device]]\nid = \"m1\"\nprofile = \"vitals-modbus\"\nmodbus = { address = \"192.0.2.9:502\", unit = 1 }\n";
    const MQTT: &str = "[mqtt]\nserver_names = [\"gateway.local\"]\n";
    const OTHER: &str = "[[device]]\nid = \"m2\"\nprofile = \"vitals-json\"\n";

    fn config(folder: &Path, sections: &[&str]) -> Config {
        let file = folder.join("vitalgate.toml");
        let text = format!("[gateway]\nname = \"g1\"\nstate_dir = {:?}\n{}", folder.join("state"), sections.concat());
        std::fs::write(&file, text).unwrap();
        Config::load(&file).unwrap_or_else(|errors| panic!("{errors:?}"))
    }

    fn open(config: &Config) -> DeviceRegistry {
        DeviceRegistry::open(&registry_file(&config.gateway)).unwrap()
    }

    /// Left out, polled instead, or nothing listens any more: the certificate of before is worth nothing when the device is back.
    #[test]
    fn a_device_that_comes_back_is_not_let_in_by_what_it_had() {
        let folder = tempfile::tempdir().unwrap();
        let (device, certificate) = (DeviceId::new("m1").unwrap(), [1; 32]);
        for gone in [&[MQTT, OTHER][..], &[MQTT, POLLED, OTHER], &[POLLED]] {
            let before = config(folder.path(), &[MQTT, PUBLISHING]);
            open(&before).add(&device, Some(certificate), None).unwrap();
            revoke(&before).unwrap();
            assert!(open(&before).is_admitted(&device, Some(&certificate)), "a device that stays is left alone");

            revoke(&config(folder.path(), gone)).unwrap();
            revoke(&before).unwrap();
            assert!(!open(&before).is_admitted(&device, Some(&certificate)), "{gone:?}");
        }
    }

    #[test]
    fn a_list_that_does_not_open_stops_only_a_gateway_that_somebody_connects_to() {
        let folder = tempfile::tempdir().unwrap();
        let listening = config(folder.path(), &[MQTT, PUBLISHING]);
        open(&listening);
        for name in ["devices.json", "devices.json.copy"] {
            std::fs::write(registry_file(&listening.gateway).with_file_name(name), "garbage").unwrap();
        }
        assert!(revoke(&listening).is_err());
        revoke(&config(folder.path(), &[POLLED])).unwrap();
    }
}
