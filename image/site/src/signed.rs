//! Signed site files: the way in and the way out.

use vitalgate_layout::Rejection;
use vitalgate_layout::stick::SITE_FILE_BYTES_MAX;

use crate::check;
use crate::day::Day;
use crate::error::SiteError;
use crate::key::PublicKey;
use crate::refusal::SiteRefusal;
use crate::signature::{Purpose, SignedBy, Signer, open_text, sign_text};
use crate::site::{Serial, Site, SiteFile};

/// How errors name a file whose name is not known here.
const FILE_NAME: &str = vitalgate_layout::stick::SITE_FILE;

/// Why a text is not signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// It would be refused.
    #[error("the text has {} errors; correct them first", .0.len())]
    Errors(Vec<SiteError>),
    /// It would be refused for its size.
    #[error("with its signature the file would have more than {SITE_FILE_BYTES_MAX} bytes")]
    TooLarge,
    /// With another signature no appliance could tell it from its text.
    #[error("text stands after the old signature, or the old signature is damaged")]
    Unopened(SiteRefusal),
    /// The key is kept elsewhere and did not sign.
    #[error("the key did not sign: {0}")]
    NoSignature(String),
}

/// Signs a text that passes the check; a signature that it carries is replaced.
///
/// # Errors
/// [`SignError`]
pub fn sign(text: &str, signer: &Signer) -> Result<String, SignError> {
    SiteFile::check(text, FILE_NAME).map_err(SignError::Errors)?;
    sign_text(signer, Purpose::Site, text)
}

/// Opens a site file on an appliance. `today` is the later of the clock's day and the image's own day,
/// so that a clock at 1970 does not bring an expired file back.
///
/// # Errors
/// A refusal with its number.
pub fn open_signed(bytes: &[u8], roots: &[PublicKey], serial: &str, today: Day) -> Result<(Site, SignedBy), SiteRefusal> {
    let (site, signed_by) = open_for_any_serial(bytes, roots, today)?;
    meant_for(&site.serial, serial)?;
    Ok((site, signed_by))
}

/// The same whatever serial number it names, to read one that an appliance took before its board was replaced. Nothing is
/// configured from what this gives.
///
/// # Errors
/// A refusal with its number.
pub fn open_for_any_serial(bytes: &[u8], roots: &[PublicKey], today: Day) -> Result<(Site, SignedBy), SiteRefusal> {
    let text = readable(bytes)?;
    let (body, signed_by) = open_text(text, Purpose::Site, roots, today)?;
    let (secrets, checked) = check::secrets_and_site(&body, FILE_NAME);
    if !secrets.is_empty() {
        return Err(SiteRefusal::with_errors(Rejection::SecretInText, secrets));
    }
    let site = checked.map_err(|errors| SiteRefusal::with_errors(Rejection::ErrorsInText, errors))?;
    still_valid(site.expires, today)?;
    Ok((site, signed_by))
}

/// UTF-8 of a bearable size.
pub(crate) fn readable(bytes: &[u8]) -> Result<&str, SiteRefusal> {
    if bytes.len() as u64 > SITE_FILE_BYTES_MAX {
        return Err(SiteRefusal::new(Rejection::TooLarge, ""));
    }
    std::str::from_utf8(bytes).map_err(|_| SiteRefusal::new(Rejection::NotReadable, "it is not UTF-8 text"))
}

pub(crate) fn still_valid(expires: Day, today: Day) -> Result<(), SiteRefusal> {
    if today <= expires {
        return Ok(());
    }
    Err(SiteRefusal::new(Rejection::Expired, format!("it was valid until {expires}; by this clock today is {today}")))
}

pub(crate) fn meant_for(wanted: &Serial, serial: &str) -> Result<(), SiteRefusal> {
    if wanted.matches(serial) {
        return Ok(());
    }
    Err(SiteRefusal::new(Rejection::OtherSerial, format!("it is for {wanted}; this is {serial}")))
}
