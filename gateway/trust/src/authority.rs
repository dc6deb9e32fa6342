//! The gateway's own certificate authority: made once, kept in two sealed copies, never replaced silently.
//!
//! Files in its folder: `authority.pem` and `authority.pem.copy` (certificate and key, sealed, mode
//! 0600), `ca.crt` (the certificate alone, for devices), `server.pem` (the listener's certificate and
//! key; made anew from the authority when damaged, so it needs no copy).

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use rcgen::{Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use vitalgate_domain::{DeviceId, GatewayId};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

use crate::clock::{bounded, now_unix_s};
use crate::file::{self, FileError, PUBLIC_MODE, SECRET_MODE};
use crate::identity::fingerprint;
use crate::issue::{self, IssueError, Issued, RENEW_BEFORE_S};
use crate::sealed::{Seal, Sealed, SealedError, WhenDifferent};
use crate::secret::Secret;
use crate::tls::{self, TlsError};

const AUTHORITY_FILE: &str = "authority.pem";
const CERTIFICATE_FILE: &str = "ca.crt";
const SERVER_FILE: &str = "server.pem";
const LOCK_FILE: &str = ".lock";
/// Largest of these files, in bytes.
const BYTES_MAX: u64 = 64 * 1024;

/// Why the authority could not be opened or used.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// Reading or writing a file failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// The authority's two copies cannot be used.
    #[error(transparent)]
    Sealed(#[from] SealedError),
    /// The file is whole, but not an authority of this gateway's make.
    #[error("{0} holds no usable authority (certificate and its P-256 key in PEM); restore it and its .copy from a backup")]
    NotAnAuthority(PathBuf),
    /// A certificate could not be made.
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// The new server certificate did not stand the trial; the one in use stays.
    #[error("the new server certificate failed its trial and was not taken into use; the old one stays")]
    NotProven(#[source] TlsError),
}

/// The local certificate authority.
pub struct LocalAuthority {
    folder: PathBuf,
    certificate: CertificateDer<'static>,
    certificate_pem: String,
    issuer: Issuer<'static, KeyPair>,
    ends_unix_s: u64,
    healed: Option<PathBuf>,
}

/// A device's certificate; shown once, the key is not kept.
#[derive(Debug, Clone)]
pub struct DeviceCertificate {
    /// The certificate in PEM.
    pub certificate_pem: String,
    /// Its private key (PKCS #8) in PEM.
    pub key_pem: Secret,
    /// SHA-256 over the certificate in DER, for the device registry.
    pub fingerprint: [u8; 32],
}

/// The listener's certificate.
#[derive(Debug)]
pub struct ServerCertificate {
    /// The certificate, without the authority that devices already have.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its private key.
    pub key: PrivateKeyDer<'static>,
    /// When it ends, in seconds since 1970.
    pub ends_unix_s: u64,
    /// Whether it was made just now.
    pub reissued: bool,
}

impl std::fmt::Debug for LocalAuthority {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("LocalAuthority")
            .field("folder", &self.folder)
            .field("ends_unix_s", &self.ends_unix_s)
            .finish_non_exhaustive()
    }
}

impl LocalAuthority {
    /// Opens the authority kept in a folder; makes one where there never was one. Safe to call from
    /// several processes at once.
    ///
    /// # Errors
    /// When the files cannot be used. A damaged authority is never replaced by a new one: every device
    /// would have to be visited.
    pub fn open_or_create(folder: &Path, gateway: &GatewayId) -> Result<Self, AuthorityError> {
        file::create_directory(folder)?;
        let path = folder.join(AUTHORITY_FILE);
        let _lock = file::lock(&folder.join(LOCK_FILE))?;
        let (body, healed) = match sealed(&path).read()? {
            Some(found) => (found.body, found.healed),
            None => (create(&path, gateway)?, None),
        };
        let unusable = || AuthorityError::NotAnAuthority(path.clone());
        let certificate = tls::certificates(&body, AUTHORITY_FILE).map_err(|_| unusable())?.into_iter().next().ok_or_else(unusable)?;
        let key = tls::private_key(&body, AUTHORITY_FILE).map_err(|_| unusable())?;
        let issuer = issue::issuer(&certificate, &key).map_err(|_| unusable())?;
        let ends_unix_s = ends_unix_s(&certificate).ok_or_else(unusable)?;
        let certificate_pem = certificate_text(&body).ok_or_else(unusable)?;
        let authority = Self { folder: folder.to_owned(), certificate, certificate_pem, issuer, ends_unix_s, healed };
        authority.publish()?;
        Ok(authority)
    }

    /// The authority's certificate in PEM: what devices are given to trust. Also in `ca.crt`.
    #[must_use]
    pub fn ca_certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// SHA-256 over the authority's certificate, to compare with what a device shows.
    #[must_use]
    pub fn ca_fingerprint(&self) -> [u8; 32] {
        fingerprint(&self.certificate)
    }

    /// When the authority ends, in seconds since 1970.
    #[must_use]
    pub fn ends_unix_s(&self) -> u64 {
        self.ends_unix_s
    }

    /// The copy that was damaged or missing when the authority was opened, and is written anew.
    #[must_use]
    pub fn healed(&self) -> Option<&Path> {
        self.healed.as_deref()
    }

    /// The listener's certificate for these DNS names and IP addresses. The stored one is used while it
    /// names the same and has a year left, or lives as long as the authority; otherwise a new one is made, proven by a trial handshake for
    /// every name, and only then takes its place. A clock beyond the authority's end is no error: it is most likely wrong. Call it at
    /// start and once a day.
    ///
    /// # Errors
    /// When a name is none, the trial fails, or the file cannot be written; the old file then stays.
    pub fn issue_server(&self, names: &[String]) -> Result<ServerCertificate, AuthorityError> {
        self.issue_server_at(names, now_unix_s())
    }

    /// The same by a given clock, in seconds since 1970; one that was never set counts as [`crate::FLOOR_UNIX_S`].
    ///
    /// # Errors
    /// Like [`LocalAuthority::issue_server`].
    pub fn issue_server_at(&self, names: &[String], now_unix_s: u64) -> Result<ServerCertificate, AuthorityError> {
        let now_unix_s = bounded(now_unix_s);
        let _lock = file::lock(&self.folder.join(LOCK_FILE))?;
        if let Some(stored) = self.stored_server(names, now_unix_s) {
            return Ok(stored);
        }
        let ends_unix_s = issue::leaf_ends_unix_s(now_unix_s, self.ends_unix_s);
        let issued = issue::server(names, ends_unix_s, &self.issuer)?;
        let chain = vec![issued.certificate.clone()];
        tls::prove(&chain, &issued.key, &self.certificate_pem, names).map_err(AuthorityError::NotProven)?;
        file::replace(&self.folder.join(SERVER_FILE), &bundle(&issued), SECRET_MODE)?;
        Ok(ServerCertificate { chain, key: issued.key, ends_unix_s, reissued: true })
    }

    /// A new certificate for a device. It opens nothing until its fingerprint is in the registry.
    ///
    /// # Errors
    /// When the certificate cannot be made.
    pub fn issue_device(&self, device: &DeviceId) -> Result<DeviceCertificate, AuthorityError> {
        let issued = issue::device(device.as_str(), issue::leaf_ends_unix_s(now_unix_s(), self.ends_unix_s), &self.issuer)?;
        let fingerprint = fingerprint(&issued.certificate);
        Ok(DeviceCertificate { certificate_pem: issued.certificate_pem, key_pem: issued.key_pem, fingerprint })
    }

    /// The stored server certificate, if it is whole, ours, for these names, and has time left.
    fn stored_server(&self, names: &[String], now_unix_s: u64) -> Option<ServerCertificate> {
        let bytes = file::read(&self.folder.join(SERVER_FILE), BYTES_MAX).ok()??;
        let chain = tls::certificates(&bytes, SERVER_FILE).ok()?;
        let key = tls::private_key(&bytes, SERVER_FILE).ok()?;
        let ends_unix_s = ends_unix_s(chain.first()?)?;
        let has_time = now_unix_s.saturating_add(RENEW_BEFORE_S) < ends_unix_s || ends_unix_s >= self.ends_unix_s;
        let same_names = names_of(chain.first()?)? == names.iter().map(|name| canonical(name)).collect();
        if !has_time || !same_names || tls::prove(&chain, &key, &self.certificate_pem, names).is_err() {
            return None;
        }
        Some(ServerCertificate { chain, key, ends_unix_s, reissued: false })
    }

    /// Keeps `ca.crt` beside the authority, for people to copy.
    fn publish(&self) -> Result<(), AuthorityError> {
        let path = self.folder.join(CERTIFICATE_FILE);
        let current = file::read(&path, BYTES_MAX).ok().flatten();
        if current.is_none_or(|current| current.as_slice() != self.certificate_pem.as_bytes()) {
            file::replace(&path, self.certificate_pem.as_bytes(), PUBLIC_MODE)?;
        }
        Ok(())
    }
}

fn sealed(path: &Path) -> Sealed<'_> {
    Sealed { path, seal: Seal::Line, when_different: WhenDifferent::Refuse, bytes_max: BYTES_MAX }
}

fn create(path: &Path, gateway: &GatewayId) -> Result<Zeroizing<Vec<u8>>, AuthorityError> {
    let body = bundle(&issue::authority(gateway.as_str())?);
    sealed(path).write(&body)?;
    Ok(body)
}

pub(crate) fn bundle(issued: &Issued) -> Zeroizing<Vec<u8>> {
    Zeroizing::new([issued.certificate_pem.as_bytes(), issued.key_pem.expose().as_bytes()].concat())
}

/// The first PEM section of a bundle that [`bundle`] wrote.
fn certificate_text(body: &[u8]) -> Option<String> {
    const END: &str = "-----END CERTIFICATE-----\n";
    let text = std::str::from_utf8(body).ok()?;
    Some(text.get(..text.find(END)? + END.len())?.to_owned())
}

pub(crate) fn ends_unix_s(certificate: &[u8]) -> Option<u64> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    u64::try_from(certificate.validity().not_after.timestamp()).ok()
}

fn names_of(certificate: &[u8]) -> Option<BTreeSet<String>> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let alternatives = certificate.subject_alternative_name().ok()??;
    alternatives.value.general_names.iter().map(name_of).collect()
}

fn name_of(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(canonical(name)),
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
            let address = v4.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from)).ok()?;
            Some(address.to_string())
        }
        _ => None,
    }
}

/// One spelling per name, so that a changed spelling is no changed name.
fn canonical(name: &str) -> String {
    name.parse::<IpAddr>().map_or_else(|_| name.to_ascii_lowercase(), |address| address.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::FLOOR_UNIX_S;

    /// Promise: a clock beyond the end of every certificate keeps nothing from starting. Here the authority ended long ago, which is
    /// the same to whoever compares the two.
    #[test]
    fn a_clock_beyond_the_end_of_the_authority_is_no_fault_of_the_certificate() {
        const DAY_S: u64 = 86_400;
        let folder = tempfile::tempdir().unwrap();
        let gateway = GatewayId::new("g1").unwrap();
        let ended = issue::authority_until(gateway.as_str(), FLOOR_UNIX_S + DAY_S).unwrap();
        sealed(&folder.path().join(AUTHORITY_FILE)).write(&bundle(&ended)).unwrap();
        let authority = LocalAuthority::open_or_create(folder.path(), &gateway).unwrap();
        assert!(now_unix_s() > authority.ends_unix_s());

        let names = ["gateway.local".to_owned()];
        let first = authority.issue_server(&names).unwrap();
        assert!(first.reissued);
        let again = authority.issue_server(&names).unwrap();
        assert_eq!((again.reissued, again.chain), (false, first.chain), "not a new one at each look");
        // Chain and key are judged as ever.
        let stranger = tempfile::tempdir().unwrap();
        let other = LocalAuthority::open_or_create(stranger.path(), &gateway).unwrap();
        other.issue_server(&names).unwrap();
        std::fs::copy(stranger.path().join(SERVER_FILE), folder.path().join(SERVER_FILE)).unwrap();
        assert!(authority.issue_server(&names).unwrap().reissued);
    }
}
