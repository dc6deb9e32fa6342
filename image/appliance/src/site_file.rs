//! The site file that was accepted.

use std::fs;

use anyhow::{Context as _, bail};
use vitalgate_layout::path;
use vitalgate_site::{Site, SiteFile};

use crate::places::Places;

/// The accepted site file, checked again. Its signature, date and serial number were looked at when it
/// was accepted; it is in sealed storage since then and does not expire there.
///
/// # Errors
/// When there is none, or this version does not understand it.
pub(crate) fn kept(places: &Places) -> anyhow::Result<Site> {
    let file = places.at(path::SITE_FILE);
    let text = fs::read_to_string(&file).with_context(|| format!("no site file at {}; plug in a PROVISION stick", file.display()))?;
    match SiteFile::check(&text, vitalgate_layout::stick::SITE_FILE) {
        Ok(site) => Ok(site),
        Err(errors) => {
            for error in &errors {
                crate::cli::say(&error.to_string());
            }
            bail!(
                "this version does not understand the accepted site file: {} errors; go back to the version before, or sign a new file",
                errors.len()
            )
        }
    }
}

/// Whether a site file was accepted.
pub(crate) fn is_kept(places: &Places) -> bool {
    places.at(path::SITE_FILE).exists()
}
