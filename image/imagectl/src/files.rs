//! Files of bounded size, keys, and today.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use vitalgate_site::{Day, KeyError, PublicKey, SigningKey};
use zeroize::Zeroizing;

use crate::failure::{Failure, Outcome};

/// Largest text, key or signature in bytes (16 MiB).
pub(crate) const TEXT_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// A whole file.
pub(crate) fn read(path: &Path, bytes_max: u64) -> Outcome<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(bytes_max + 1).read_to_end(&mut bytes))
        .map_err(|error| Failure::unreadable(path, &error))?;
    if bytes.len() as u64 > bytes_max {
        return Err(Failure::refused(format!("{} has more than {bytes_max} bytes", path.display()), "name the right file"));
    }
    Ok(bytes)
}

/// A whole file of text.
pub(crate) fn read_text(path: &Path) -> Outcome<String> {
    text(path, read(path, TEXT_BYTES_MAX)?)
}

/// What was read, as text.
pub(crate) fn text(path: &Path, bytes: Vec<u8>) -> Outcome<String> {
    String::from_utf8(bytes).map_err(|error| {
        let before = error.as_bytes().iter().take(error.utf8_error().valid_up_to());
        let line = before.filter(|byte| **byte == b'\n').count() + 1;
        Failure::refused(format!("{}:{line}: is not UTF-8 text", path.display()), "save it as UTF-8, or name the right file")
    })
}

/// Writes a file; one that is there is replaced.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Outcome {
    std::fs::write(path, bytes).map_err(|error| Failure::unwritable(path, &error))
}

/// What somebody wrote by hand is not replaced.
pub(crate) fn must_be_new(path: &Path) -> Outcome {
    if path.exists() {
        return Err(Failure::machine(format!("{} is there already", path.display()), "take another name with --output, or remove it"));
    }
    Ok(())
}

/// Writes a file; one that is there stays.
pub(crate) fn write_new(path: &Path, bytes: &[u8]) -> Outcome {
    must_be_new(path)?;
    let opened = OpenOptions::new().write(true).create_new(true).open(path);
    opened.and_then(|mut file| file.write_all(bytes)).map_err(|error| Failure::unwritable(path, &error))
}

/// Writes behind what a file holds; one that is not there is made.
pub(crate) fn append(path: &Path, bytes: &[u8]) -> Outcome {
    let opened = OpenOptions::new().append(true).create(true).open(path);
    opened.and_then(|mut file| file.write_all(bytes)).map_err(|error| Failure::unwritable(path, &error))
}

/// Writes a file that only its owner may read; one that is there stays.
pub(crate) fn write_secret(path: &Path, bytes: &[u8]) -> Outcome {
    let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    opened.and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all())).map_err(|error| Failure::unwritable(path, &error))
}

/// A public key: the name of a file, or 64 hex digits.
pub(crate) fn public_key(text: &str) -> Outcome<PublicKey> {
    key(text, &PublicKey::parse)
}

/// The same of an appliance that signs a report: its TPM may have made it.
pub(crate) fn report_key(text: &str) -> Outcome<PublicKey> {
    key(text, &PublicKey::parse_of_report)
}

fn key(text: &str, parse: &dyn Fn(&str) -> Result<PublicKey, KeyError>) -> Outcome<PublicKey> {
    let refused = |error| Failure::refused(format!("{text} {error}"), "give the file of the public key, or its 64 hex digits");
    match parse(text) {
        Err(KeyError::ReportsOnly) => Err(refused(KeyError::ReportsOnly)),
        Err(_) => parse(&read_text(Path::new(text))?).map_err(refused),
        Ok(key) => Ok(key),
    }
}

/// A private key's file.
pub(crate) fn signing_key(path: &Path) -> Outcome<SigningKey> {
    let text = Zeroizing::new(read_text(path)?);
    SigningKey::parse(&text).map_err(|error| Failure::refused(format!("{} {error}", path.display()), "name the file of the private key"))
}

/// Now by this machine's clock, in seconds since 1970.
pub(crate) fn now_unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Today by this machine's clock.
pub(crate) fn today() -> Day {
    Day::from_unix_ms(i64::try_from(now_unix_s()).unwrap_or(i64::MAX).saturating_mul(1000))
}

/// A day from the command line.
pub(crate) fn day(text: &str) -> Outcome<Day> {
    Day::parse(text).ok_or_else(|| Failure::refused(format!("\"{text}\" is no day"), "write it as 2026-12-31"))
}
