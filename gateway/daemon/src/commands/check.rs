//! `vitalgate check`: every error of the configuration at once.

use std::path::Path;
use std::process::ExitCode;

use vitalgate_config::{Config, ConfigError, ProfileKind};
use vitalgate_profile::{Kind, Profile};

use crate::run::profiles;

/// Says every error, or that there is none.
pub(super) fn check(path: &Path) -> ExitCode {
    match checked(path) {
        Ok(config) => {
            let warnings = warnings(&config);
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

/// What is allowed and may still not be meant.
fn warnings(config: &Config) -> Vec<String> {
    let mut warnings = config.plain_warnings();
    if config.devices.is_empty() {
        warnings.push("no device is configured: nothing will be collected".to_owned());
    }
    if config.destinations.is_empty() {
        warnings.push("no destination is configured: nothing will be delivered".to_owned());
    }
    warnings
}

/// Reads the configuration and checks it against the profiles that are there.
pub(super) fn checked(path: &Path) -> Result<Config, Vec<ConfigError>> {
    Config::load_with_profiles(path, &|folder| {
        let profiles = profiles(folder).map_err(|error| vec![format!("{error:#}")])?;
        let kinds = profiles.ids().filter_map(|id| Some((id.to_owned(), kind(&*profiles.get(id)?))));
        Ok(kinds.collect())
    })
}

fn kind(profile: &Profile) -> ProfileKind {
    match profile.kind() {
        Kind::Publish(_) => ProfileKind::Publish,
        Kind::Polled(_) => ProfileKind::Polled,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file that is good and with which the gateway would do nothing is said to be so.
    #[test]
    fn a_gateway_that_would_do_nothing_is_warned_of() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vitalgate.toml");
        let destination = "[[destination]]\nid = \"ehr\"\nkind = \"fhir\"\nurl = \"https://ehr.example/fhir\"\n";
        let said = |more: &str| {
            std::fs::write(&path, format!("[gateway]\nname = \"gateway-01\"\nstate_dir = \"/var/lib/vitalgate\"\n{more}")).unwrap();
            warnings(&checked(&path).unwrap()).join("\n")
        };
        let nothing = said("");
        assert!(nothing.contains("nothing will be collected") && nothing.contains("nothing will be delivered"), "{nothing}");
        let idle = said(destination);
        assert!(idle.contains("nothing will be collected") && !idle.contains("delivered"), "{idle}");
    }
}
