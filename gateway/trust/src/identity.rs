//! Who a client certificate speaks for.

use aws_lc_rs::digest;
use vitalgate_domain::DeviceId;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Largest certificate that is looked at, in bytes.
const CERTIFICATE_BYTES_MAX: usize = 16 * 1024;

/// The device that a certificate names, and the certificate's SHA-256. The subject must hold exactly
/// one common name, and that must be a valid device id. The chain has been verified before, by TLS.
#[must_use]
pub fn device_identity(certificate_der: &[u8]) -> Option<(DeviceId, [u8; 32])> {
    if certificate_der.len() > CERTIFICATE_BYTES_MAX {
        return None;
    }
    let (rest, certificate) = X509Certificate::from_der(certificate_der).ok()?;
    if !rest.is_empty() {
        return None;
    }
    let mut names = certificate.subject().iter_common_name();
    let (name, None) = (names.next()?, names.next()) else { return None };
    let device = DeviceId::new(name.as_str().ok()?).ok()?;
    Some((device, fingerprint(certificate_der)))
}

/// SHA-256 over a certificate in DER.
#[must_use]
pub fn fingerprint(certificate_der: &[u8]) -> [u8; 32] {
    let mut sum = [0; 32];
    sum.copy_from_slice(digest::digest(&digest::SHA256, certificate_der).as_ref());
    sum
}
