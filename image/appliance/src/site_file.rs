//! The site file that was accepted.

use std::fs;

use anyhow::{Context as _, bail};
use vitalgate_layout::path;
use vitalgate_site::{Day, Serial, SignedBy, Site, open_for_any_serial};

use crate::machine;
use crate::places::Places;

/// Characters of a moment that are its day.
const DAY_CHARS: usize = 10;

/// The board was replaced, or the disk is another appliance's.
#[derive(Debug, thiserror::Error)]
#[error("the accepted site file is for {wanted}, this is {serial}: bring a site file for this serial number on a stick labelled PROVISION")]
pub(crate) struct OtherSerial {
    wanted: Serial,
    serial: String,
}

/// The accepted site file. Its signature and serial number are looked at again at each start, since
/// whoever had the disk in hand could have put another one there; only its dates are those of the day
/// on which it was accepted: it does not expire in service.
///
/// # Errors
/// When there is none, or this version does not take it.
pub(crate) fn kept(places: &Places) -> anyhow::Result<Site> {
    kept_and_signer(places).map(|(site, _)| site)
}

/// The same, and who signed it.
///
/// # Errors
/// Those of [`kept`].
pub(crate) fn kept_and_signer(places: &Places) -> anyhow::Result<(Site, SignedBy)> {
    let (site, signed_by) = kept_for_any_serial(places)?;
    let serial = machine::serial(places);
    if !site.serial.matches(&serial) {
        return Err(OtherSerial { wanted: site.serial, serial }.into());
    }
    Ok((site, signed_by))
}

/// The accepted site file even where the board was replaced since, and with it the serial number: only to compare a
/// successor with it.
///
/// # Errors
/// When there is none, or this version does not take it.
pub(crate) fn kept_for_any_serial(places: &Places) -> anyhow::Result<(Site, SignedBy)> {
    let file = places.at(path::SITE_FILE);
    let bytes = fs::read(&file).with_context(|| format!("no site file at {}; plug in a PROVISION stick", file.display()))?;
    let accepted = fs::read_to_string(places.at(path::SITE_FILE_ACCEPTED)).unwrap_or_default();
    let day = accepted.get(..DAY_CHARS).and_then(Day::parse).unwrap_or_else(|| machine::today(places));
    match open_for_any_serial(&bytes, &machine::site_roots(places)?, day) {
        Ok(opened) => Ok(opened),
        Err(refusal) => bail!("this version does not take the accepted site file: {refusal}"),
    }
}

/// Whether a site file was accepted.
pub(crate) fn is_kept(places: &Places) -> bool {
    places.at(path::SITE_FILE).exists()
}
