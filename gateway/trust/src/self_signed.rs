//! A server certificate that no authority signs: people compare its fingerprint with a printed one.
//!
//! For a page that has to answer before the gateway has a name, an address or an authority. The
//! certificate names neither, so that it stays the same when they change. One file, `page.pem`
//! (certificate and key, mode 0600); made anew when damaged or when less than a year is left.

use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::authority::{bundle, ends_unix_s};
use crate::clock::now_unix_s;
use crate::file::{self, FileError, SECRET_MODE};
use crate::identity::fingerprint;
use crate::issue::{self, IssueError, RENEW_BEFORE_S};
use crate::tls::{self, ClientCertificate, TlsError};

const FILE: &str = "page.pem";
const LOCK_FILE: &str = ".lock";
/// Largest such file, in bytes.
const BYTES_MAX: u64 = 64 * 1024;
/// The name that the certificate carries: clients that insist on one may use it.
const NAME: &str = "vitalgate.local";
/// The certificate's common name.
const COMMON_NAME: &str = "status page";

/// Why there is no self-signed certificate.
#[derive(Debug, thiserror::Error)]
pub enum SelfSignedError {
    /// Reading or writing a file failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// A certificate could not be made.
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// rustls refused what was just made.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// A certificate that stands for itself, with its listener's configuration.
#[derive(Debug, Clone)]
pub struct SelfSigned {
    /// TLS 1.3 only; no client certificate is asked for.
    pub config: Arc<ServerConfig>,
    /// SHA-256 over the certificate in DER.
    pub fingerprint: [u8; 32],
    /// When it ends, in seconds since 1970.
    pub ends_unix_s: u64,
    /// Whether it was made just now, so that an earlier fingerprint no longer holds.
    pub made: bool,
}

impl SelfSigned {
    /// The certificate kept in a folder that exists; a new one where there is none, where it is
    /// damaged, or where less than a year is left of it. Call it at start and once a day.
    ///
    /// # Errors
    /// When the folder cannot be used.
    pub fn open_or_create(folder: &Path) -> Result<Self, SelfSignedError> {
        let _lock = file::lock(&folder.join(LOCK_FILE))?;
        if let Some(stored) = stored(&folder.join(FILE)) {
            return Ok(stored);
        }
        let issued = issue::self_signed(COMMON_NAME, &[NAME.to_owned()], issue::self_signed_ends_unix_s())?;
        file::replace(&folder.join(FILE), &bundle(&issued), SECRET_MODE)?;
        Ok(Self::of(issued.certificate, issued.key, true)?)
    }

    /// A certificate that lives as long as the process: where nothing can be kept yet.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn temporary() -> Result<Self, SelfSignedError> {
        let issued = issue::self_signed(COMMON_NAME, &[NAME.to_owned()], issue::self_signed_ends_unix_s())?;
        Ok(Self::of(issued.certificate, issued.key, true)?)
    }

    fn of(certificate: CertificateDer<'static>, key: PrivateKeyDer<'static>, made: bool) -> Result<Self, TlsError> {
        let fingerprint = fingerprint(&certificate);
        let ends_unix_s = ends_unix_s(&certificate).unwrap_or(0);
        let config = tls::server_config(vec![certificate], key, None, ClientCertificate::Optional)?;
        Ok(Self { config, fingerprint, ends_unix_s, made })
    }
}

/// The stored certificate, if it is whole and has time left.
fn stored(path: &Path) -> Option<SelfSigned> {
    let bytes = file::read(path, BYTES_MAX).ok()??;
    let certificate = tls::certificates(&bytes, FILE).ok()?.into_iter().next()?;
    let key = tls::private_key(&bytes, FILE).ok()?;
    let stored = SelfSigned::of(certificate, key, false).ok()?;
    (now_unix_s().saturating_add(RENEW_BEFORE_S) < stored.ends_unix_s).then_some(stored)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// What stands on the commissioning report holds at every start.
    #[test]
    fn the_fingerprint_stays_from_start_to_start() {
        let folder = tempfile::tempdir().unwrap();
        let first = SelfSigned::open_or_create(folder.path()).unwrap();
        let second = SelfSigned::open_or_create(folder.path()).unwrap();
        assert!(first.made && !second.made);
        assert_eq!(first.fingerprint, second.fingerprint);
        let mode = std::fs::metadata(folder.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, SECRET_MODE);
    }

    /// A damaged file, or one whose key belongs to another certificate, costs the fingerprint and not the page.
    #[test]
    fn a_damaged_file_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        let first = SelfSigned::open_or_create(folder.path()).unwrap();
        let whole = std::fs::read_to_string(&path).unwrap();
        let other = tempfile::tempdir().unwrap();
        SelfSigned::open_or_create(other.path()).unwrap();
        let foreign = std::fs::read_to_string(other.path().join(FILE)).unwrap();
        let key_at = |text: &str| text.find("-----BEGIN PRIVATE KEY").unwrap();
        let mixed = format!("{}{}", &whole[..key_at(&whole)], &foreign[key_at(&foreign)..]);
        for damaged in ["", "x", &whole[..whole.len() / 2], &whole.replace("-----END", "-----END-"), &mixed] {
            std::fs::write(&path, damaged).unwrap();
            let next = SelfSigned::open_or_create(folder.path()).unwrap();
            assert!(next.made, "{damaged:?}");
            assert_ne!(next.fingerprint, first.fingerprint);
        }
    }

    /// A certificate is renewed while the old one still works, and is valid for most of its ten years.
    #[test]
    fn it_is_renewed_a_year_before_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        let soon = now_unix_s() + RENEW_BEFORE_S - 60;
        let old = issue::self_signed(COMMON_NAME, &[NAME.to_owned()], soon).unwrap();
        file::replace(&path, &bundle(&old), SECRET_MODE).unwrap();
        let renewed = SelfSigned::open_or_create(folder.path()).unwrap();
        assert!(renewed.made);
        assert!(renewed.ends_unix_s > now_unix_s() + 9 * RENEW_BEFORE_S);
        assert!(!SelfSigned::open_or_create(folder.path()).unwrap().made);
    }

    #[test]
    fn a_folder_that_is_not_there_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        assert!(SelfSigned::open_or_create(&folder.path().join("missing")).is_err());
        assert!(SelfSigned::temporary().unwrap().made);
    }
}
