//! `vitalgate check`: every error of the configuration at once.

use std::path::Path;
use std::process::ExitCode;

use vitalgate_config::{Config, ConfigError, Destination, DestinationKind, KnownProfiles, ProfileKind};
use vitalgate_profile::{Kind, Profile};
use vitalgate_trust::{ClientProfile, client_config};

use crate::run::profiles;

/// Says every error, or that there is none.
pub(super) fn check(path: &Path) -> ExitCode {
    match checked(path).and_then(with_usable_tls) {
        Ok(config) => {
            let warnings = config.warnings();
            println!(
                "{}: good ({} devices, {} destinations, {} warnings)",
                path.display(),
                config.devices.len(),
                config.destinations.len(),
                warnings.len()
            );
            for warning in warnings {
                println!("warning: {warning}");
            }
            ExitCode::SUCCESS
        }
        Err(errors) => {
            for error in &errors {
                println!("{error}");
            }
            println!("{} errors", errors.len());
            ExitCode::FAILURE
        }
    }
}

/// Reads the configuration and checks it against the profiles that are there.
pub(super) fn checked(path: &Path) -> Result<Config, Vec<ConfigError>> {
    Config::load_with_profiles(path, &|folder| {
        let (profiles, faults) = profiles(folder);
        let kinds = profiles.ids().filter_map(|id| Some((id.to_owned(), kind(&*profiles.get(id)?))));
        KnownProfiles { kinds: kinds.collect(), faults }
    })
}

/// The same configuration, if every destination can speak TLS with the files that it names. The gateway runs without one that
/// cannot, so this is no part of [`checked`].
fn with_usable_tls(config: Config) -> Result<Config, Vec<ConfigError>> {
    let errors: Vec<_> = config.destinations.iter().filter_map(|destination| tls_error(&config.file, destination)).collect();
    if errors.is_empty() { Ok(config) } else { Err(errors) }
}

fn tls_error(file: &str, destination: &Destination) -> Option<ConfigError> {
    let DestinationKind::Fhir(fhir) = &destination.kind else { return None };
    if !fhir.url.starts_with("https://") {
        return None;
    }
    // A key that comes as a credential is handed to the running gateway only, and a certificate says nothing without its key.
    let certificate_file = fhir.client_certificate_file.clone().filter(|_| fhir.client_key_credential.is_none());
    let profile = ClientProfile { ca_file: fhir.ca_file.clone(), certificate_file, key_file: fhir.client_key_file.clone() };
    let error = client_config(&profile).err()?.to_string();
    let (what, remedy) = error.split_once("; ").unwrap_or((error.as_str(), "name the right files"));
    let message = format!("TLS of [[destination]] {}: {what}", destination.id);
    Some(ConfigError { file: file.to_owned(), line: destination.line, message, remedy: remedy.to_owned() })
}

fn kind(profile: &Profile) -> ProfileKind {
    match profile.kind() {
        Kind::Publish(_) => ProfileKind::Publish,
        Kind::Polled(_) => ProfileKind::Polled,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use vitalgate_domain::GatewayId;
    use vitalgate_trust::ClientIdentity;

    use super::*;

    const GATEWAY: &str = "[gateway]\nname = \"gateway-01\"\nstate_dir = \"/var/lib/vitalgate\"\n";

    /// What the gateway could not use is found before it is started, by destination and with what to do.
    #[test]
    fn a_destination_that_cannot_speak_tls_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let [own, other] = [1, 2].map(|_| ClientIdentity::generate(&GatewayId::new("gateway-01").unwrap(), "1").unwrap());
        let files = [
            ("good.pem", own.certificate_pem.as_str()),
            ("empty.pem", ""),
            ("text.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
            ("own.key", own.key_pem.expose()),
            ("other.key", other.key_pem.expose()),
        ];
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
            std::fs::set_permissions(folder.path().join(name), std::fs::Permissions::from_mode(0o600)).unwrap();
        }
        let path = folder.path().join("vitalgate.toml");
        let checked_with = |lines: &str| {
            let destination = |id: &str, lines: &str| {
                format!("[[destination]]\nid = {id:?}\nkind = \"fhir\"\nurl = \"https://{id}.example/fhir\"\n{lines}\n")
            };
            let good = destination("good", "ca_file = \"good.pem\"");
            std::fs::write(&path, format!("{GATEWAY}{good}{}", destination("ehr", lines))).unwrap();
            checked(&path).unwrap_or_else(|errors| panic!("{errors:?}"))
        };
        for fit in [
            "ca_file = \"good.pem\"",
            "ca_file = \"good.pem\"\nclient_certificate_file = \"good.pem\"\nclient_key_file = \"own.key\"",
            "ca_file = \"good.pem\"\nclient_certificate_file = \"good.pem\"\nclient_key_credential = \"client-key\"",
        ] {
            assert_eq!(with_usable_tls(checked_with(fit)).err(), None, "{fit}");
        }
        for (unfit, why) in [
            ("ca_file = \"empty.pem\"", "holds no certificate in PEM; export it again"),
            ("ca_file = \"text.pem\"", "text.pem cannot be used for TLS"),
            ("ca_file = \"own.key\"", "holds no certificate in PEM"),
            (
                "ca_file = \"good.pem\"\nclient_certificate_file = \"good.pem\"\nclient_key_file = \"good.pem\"",
                "no unencrypted private key",
            ),
            ("ca_file = \"good.pem\"\nclient_certificate_file = \"good.pem\"\nclient_key_file = \"other.key\"", "must belong together"),
        ] {
            let errors = with_usable_tls(checked_with(unfit)).unwrap_err();
            let said: Vec<_> = errors.iter().map(ToString::to_string).collect();
            assert!(said.len() == 1 && said[0].contains("vitalgate.toml:9: TLS of [[destination]] ehr: "), "{said:?}");
            assert!(said[0].contains(why), "{said:?}");
        }
    }

    /// A file that is good and with which the gateway would do nothing is said to be so.
    #[test]
    fn a_gateway_that_would_do_nothing_is_warned_of() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vitalgate.toml");
        let destination = "[[destination]]\nid = \"ehr\"\nkind = \"fhir\"\nurl = \"https://ehr.example/fhir\"\n";
        let said = |more: &str| {
            std::fs::write(&path, format!("{GATEWAY}{more}")).unwrap();
            checked(&path).unwrap().warnings().join("\n")
        };
        let nothing = said("");
        assert!(nothing.contains("nothing will be collected") && nothing.contains("nothing will be delivered"), "{nothing}");
        let idle = said(destination);
        assert!(idle.contains("nothing will be collected") && !idle.contains("delivered"), "{idle}");
    }
}
