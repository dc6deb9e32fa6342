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
            println!(
                "{}: good ({} devices, {} destinations, {} warnings)",
                path.display(),
                config.devices.len(),
                config.destinations.len(),
                config.plain_warnings().len()
            );
            for warning in config.plain_warnings() {
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
