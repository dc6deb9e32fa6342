//! The site file that was accepted.

use std::fs;

use anyhow::{Context as _, bail};
use vitalgate_layout::path;
use vitalgate_site::{Day, Site, open_signed};

use crate::machine;
use crate::places::Places;

/// Characters of a moment that are its day.
const DAY_CHARS: usize = 10;

/// The accepted site file. Its signature and serial number are looked at again at each start, since
/// whoever had the disk in hand could have put another one there; only its dates are those of the day
/// on which it was accepted: it does not expire in service.
///
/// # Errors
/// When there is none, or this version does not take it.
pub(crate) fn kept(places: &Places) -> anyhow::Result<Site> {
    let file = places.at(path::SITE_FILE);
    let bytes = fs::read(&file).with_context(|| format!("no site file at {}; plug in a PROVISION stick", file.display()))?;
    let accepted = fs::read_to_string(places.at(path::SITE_FILE_ACCEPTED)).unwrap_or_default();
    let day = accepted.get(..DAY_CHARS).and_then(Day::parse).unwrap_or_else(|| machine::today(places));
    match open_signed(&bytes, &machine::site_roots(places)?, &machine::serial(places), day) {
        Ok((site, _)) => Ok(site),
        Err(refusal) => bail!("this version does not take the accepted site file: {refusal}"),
    }
}

/// Whether a site file was accepted.
pub(crate) fn is_kept(places: &Places) -> bool {
    places.at(path::SITE_FILE).exists()
}
