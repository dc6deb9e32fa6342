//! The site file that was accepted. It lies in sealed storage twice: what the disk damages in one copy is mended from the other.

use std::fs;
use std::io;

use anyhow::{Context as _, bail};
use aws_lc_rs::digest::{SHA256, digest};
use jiff::Timestamp;
use vitalgate_layout::{Rejection, path};
use vitalgate_site::{Day, PublicKey, Serial, SignedBy, Site, open_for_any_serial};

use crate::machine;
use crate::places::Places;
use crate::state_file::{now_unix_ms, replace};
use crate::text::hex;

/// The board was replaced, or the disk is another appliance's.
#[derive(Debug, thiserror::Error)]
#[error("the accepted site file is for {wanted}, this is {serial}: bring a site file for this serial number on a stick labelled PROVISION")]
pub(crate) struct OtherSerial {
    wanted: Serial,
    serial: String,
}

/// This version is stricter than the one that accepted it.
#[derive(Debug, thiserror::Error)]
#[error(
    "this version does not take the accepted site file: {0}; correct every line, sign it again, and bring it on a stick labelled PROVISION"
)]
pub(crate) struct NotTaken(String);

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
    opened(places).map(|opened| (opened.site, opened.signed_by))
}

/// The accepted site file as it was brought.
///
/// # Errors
/// Those of [`kept_for_any_serial`].
pub(crate) fn bytes(places: &Places) -> anyhow::Result<Vec<u8>> {
    opened(places).map(|opened| opened.bytes)
}

/// One copy of it that is right.
struct Opened {
    bytes: Vec<u8>,
    site: Site,
    signed_by: SignedBy,
}

/// The copy counts only where the file itself does not open.
fn opened(places: &Places) -> anyhow::Result<Opened> {
    let roots = machine::site_roots(places)?;
    open(places, path::SITE_FILE, &roots).or_else(|error| match open(places, path::SITE_FILE_COPY, &roots) {
        // One that an earlier version left beside another file may name patients of then.
        Ok(copy) if !before(places).contains(&sha256(&copy.bytes)) => Ok(copy),
        _ => Err(error),
    })
}

fn open(places: &Places, file: &str, roots: &[PublicKey]) -> anyhow::Result<Opened> {
    let file = places.at(file);
    let bytes = fs::read(&file).with_context(|| format!("no site file at {}; plug in a PROVISION stick", file.display()))?;
    match open_for_any_serial(&bytes, roots, accepted_day(places)) {
        Ok((site, signed_by)) => Ok(Opened { bytes, site, signed_by }),
        Err(refusal) if refusal.rejection() == Rejection::ErrorsInText => {
            let lines: Vec<_> = refusal.errors().iter().map(ToString::to_string).collect();
            Err(NotTaken(lines.join("; ")).into())
        }
        Err(refusal) => bail!("this version does not take the accepted site file: {refusal}"),
    }
}

/// When it was accepted, in Unix milliseconds. That is kept twice as well; where the two differ, the earlier one holds: by it no file
/// has expired that had not by the other.
pub(crate) fn accepted_unix_ms(places: &Places) -> Option<i64> {
    let moment = |file: &str, line: usize| {
        let text = fs::read_to_string(places.at(file)).ok()?;
        text.lines().nth(line)?.parse().ok().map(Timestamp::as_millisecond)
    };
    [moment(path::SITE_FILE_ACCEPTED, 0), moment(path::SITE_FILE_SHA256, 1)].into_iter().flatten().min()
}

/// The same, or now where a power cut took the moment: a file that is taken without one would expire in service.
pub(crate) fn accepted_or_now(places: &Places) -> i64 {
    accepted_unix_ms(places).unwrap_or_else(now_unix_ms)
}

fn accepted_day(places: &Places) -> Day {
    accepted_unix_ms(places).map_or_else(|| machine::today(places), Day::from_unix_ms)
}

/// Keeps a site file that was accepted then. The file itself is the mark that the step is done, and never newer than its copy. After it
/// comes the moment: on the day on which a new one is accepted, the one before it may have expired.
///
/// # Errors
/// When sealed storage does not take it.
pub(crate) fn keep(places: &Places, bytes: &[u8], accepted_unix_ms: i64) -> io::Result<()> {
    let accepted = format!("{}\n", machine::moment(accepted_unix_ms));
    let known = format!("{}\n{accepted}", sha256(bytes));
    let files = [
        (path::SITE_FILE_COPY, bytes),
        (path::SITE_FILE_SHA256, known.as_bytes()),
        (path::SITE_FILE, bytes),
        (path::SITE_FILE_ACCEPTED, accepted.as_bytes()),
    ];
    files.into_iter().try_for_each(|(file, bytes)| {
        let file = places.at(file);
        if fs::read(&file).is_ok_and(|there| there == bytes) { Ok(()) } else { replace(&file, bytes, 0o600) }
    })
}

/// Puts what is right in the place of what is damaged, missing or of an earlier version.
pub(crate) fn mend(places: &Places) {
    let mended = opened(places)
        .map(|opened| take_from_before(places, &opened.bytes).and_then(|()| keep(places, &opened.bytes, accepted_or_now(places))));
    if let Ok(Err(error)) = mended {
        crate::cli::say(&format!("a copy of the site file cannot be kept ({error}); restart the appliance"));
    }
}

/// A power cut before its successor was kept leaves the file in service listed among those before.
fn take_from_before(places: &Places, bytes: &[u8]) -> io::Result<()> {
    let (before, in_service) = (before(places), sha256(bytes));
    if !before.contains(&in_service) {
        return Ok(());
    }
    let others: String = before.iter().filter(|file| **file != in_service).map(|file| format!("{file}\n")).collect();
    replace(&places.at(path::SITE_FILES_BEFORE), others.as_bytes(), 0o600)
}

/// Whether this is the accepted site file, brought once more.
pub(crate) fn is_in_service(places: &Places, bytes: &[u8]) -> bool {
    let brought = sha256(bytes);
    let known = fs::read_to_string(places.at(path::SITE_FILE_SHA256)).unwrap_or_default();
    known.lines().next() == Some(brought.as_str()) && !before(places).contains(&brought)
}

/// The day for which the dates of a site file on a stick count: the accepted one does not expire in service.
pub(crate) fn day_for(places: &Places, bytes: &[u8]) -> Day {
    if is_in_service(places, bytes) { accepted_day(places) } else { machine::today(places) }
}

/// The site files that were in service before, by their SHA-256.
pub(crate) fn before(places: &Places) -> Vec<String> {
    fs::read_to_string(places.at(path::SITE_FILES_BEFORE)).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// By this a site file is remembered.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(digest(&SHA256, bytes).as_ref())
}

/// Whether a site file was accepted.
pub(crate) fn is_kept(places: &Places) -> bool {
    places.at(path::SITE_FILE).exists()
}
