//! Making certificates: ECDSA P-256, X.509 v3 (RFC 5280).
//!
//! A clinic's box runs offline for months and with wrong clocks. Certificates are therefore valid from
//! long before any gateway ran, live long, and are withdrawn through the device registry.

use std::net::IpAddr;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, DnValue, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};

use crate::clock::now_unix_s;
use crate::password::{RandomError, fill};
use crate::secret::Secret;

/// Seconds in a year of 365.25 days.
const YEAR_S: u64 = 31_557_600;
/// How long the authority is valid, in years.
const AUTHORITY_YEARS: u64 = 20;
/// How long a server or device certificate is valid, in years.
const LEAF_YEARS: u64 = 10;
/// How long a client certificate that stands for itself is valid, in years: longer than a gateway is in
/// service, since servers that have it by heart cannot be told of a new one.
const CLIENT_YEARS: u64 = 20;
/// `serialNumber` of a subject (X.520, 6.2.9), and its longest value in characters (`ub-serial-number`).
const SERIAL_NUMBER: [u64; 4] = [2, 5, 4, 5];
const SERIAL_CHARS_MAX: usize = 64;
/// A server certificate is made anew when less than this is left of it, in seconds (one year).
pub(crate) const RENEW_BEFORE_S: u64 = YEAR_S;
/// The year from which on every certificate is valid.
const NOT_BEFORE_YEAR: i32 = 2020;
/// Most names in a server certificate.
const NAMES_MAX: usize = 64;

/// Why a certificate could not be made.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// A name that no certificate can carry.
    #[error("{0:?} is neither a DNS name nor an IP address; correct server_names")]
    Name(String),
    /// None or too many names.
    #[error("a server certificate takes 1 to {NAMES_MAX} names, not {0}; correct server_names")]
    NameCount(usize),
    /// No randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// The certificate library refused.
    #[error("the certificate could not be made; restart the gateway, and if that does not help, restore its authority from a backup")]
    Made(#[from] rcgen::Error),
}

/// A certificate with its key.
pub(crate) struct Issued {
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) certificate_pem: String,
    pub(crate) key: PrivateKeyDer<'static>,
    pub(crate) key_pem: Secret,
}

/// A new authority for this gateway. Its subject holds a random part, so that a device that trusts an
/// earlier authority of a gateway with the same name says "unknown issuer" and not "bad signature".
pub(crate) fn authority(gateway: &str) -> Result<Issued, IssueError> {
    authority_until(gateway, now_unix_s() + AUTHORITY_YEARS * YEAR_S)
}

/// The same with a given end of validity, in seconds since 1970.
pub(crate) fn authority_until(gateway: &str, ends_unix_s: u64) -> Result<Issued, IssueError> {
    let mut mark = [0; 4];
    fill(&mut mark)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = subject(gateway);
    params.distinguished_name.push(DnType::OrganizationalUnitName, format!("Authority {}", crate::hex(&mark)));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = date_time_ymd(NOT_BEFORE_YEAR, 1, 1);
    params.not_after = date_time_ymd(1970, 1, 1) + Duration::from_secs(ends_unix_s);
    let key = new_key()?;
    let certificate = params.self_signed(&key)?;
    Ok(issued(certificate, key))
}

/// A server certificate for DNS names and IP addresses.
pub(crate) fn server(names: &[String], ends_unix_s: u64, issuer: &Issuer<'_, KeyPair>) -> Result<Issued, IssueError> {
    if names.is_empty() || names.len() > NAMES_MAX {
        return Err(IssueError::NameCount(names.len()));
    }
    let alternatives = names.iter().map(|name| alternative(name)).collect::<Result<Vec<_>, _>>()?;
    let mut params = leaf("server", ExtendedKeyUsagePurpose::ServerAuth, ends_unix_s);
    params.subject_alt_names = alternatives;
    let key = new_key()?;
    Ok(issued(params.signed_by(&key, issuer)?, key))
}

/// A client certificate whose only common name is the device's id.
pub(crate) fn device(device: &str, ends_unix_s: u64, issuer: &Issuer<'_, KeyPair>) -> Result<Issued, IssueError> {
    let params = leaf(device, ExtendedKeyUsagePurpose::ClientAuth, ends_unix_s);
    let key = new_key()?;
    Ok(issued(params.signed_by(&key, issuer)?, key))
}

/// A server certificate that stands for itself: whoever connects compares its fingerprint.
pub(crate) fn self_signed(common_name: &str, names: &[String], ends_unix_s: u64) -> Result<Issued, IssueError> {
    if names.is_empty() || names.len() > NAMES_MAX {
        return Err(IssueError::NameCount(names.len()));
    }
    let alternatives = names.iter().map(|name| alternative(name)).collect::<Result<Vec<_>, _>>()?;
    let mut params = leaf(common_name, ExtendedKeyUsagePurpose::ServerAuth, ends_unix_s);
    params.subject_alt_names = alternatives;
    let key = new_key()?;
    Ok(issued(params.self_signed(&key)?, key))
}

/// A client certificate that stands for itself, and a request (PKCS #10, RFC 2986) for one of an authority
/// with the same key and subject.
pub(crate) fn client(gateway: &str, serial: &str) -> Result<(Issued, String), IssueError> {
    let mut params = leaf(gateway, ExtendedKeyUsagePurpose::ClientAuth, now_unix_s() + CLIENT_YEARS * YEAR_S);
    params.use_authority_key_identifier_extension = false;
    let serial: String = serial.chars().take(SERIAL_CHARS_MAX).collect();
    let serial = serial.as_str().try_into().map_or_else(|_| DnValue::Utf8String(serial.clone()), DnValue::PrintableString);
    params.distinguished_name.push(DnType::CustomDnType(SERIAL_NUMBER.to_vec()), serial);
    let key = new_key()?;
    let request = params.serialize_request(&key)?.pem()?;
    // Older servers take no certificate as its own issuer whose key usage does not let it sign certificates.
    params.key_usages.clear();
    Ok((issued(params.self_signed(&key)?, key), request))
}

/// The issuer that signs with a stored authority.
pub(crate) fn issuer(certificate: &CertificateDer<'_>, key: &PrivateKeyDer<'_>) -> Result<Issuer<'static, KeyPair>, IssueError> {
    let PrivateKeyDer::Pkcs8(pkcs8) = key else { return Err(IssueError::Made(rcgen::Error::CouldNotParseKeyPair)) };
    let key = KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(pkcs8.secret_pkcs8_der()), &PKCS_ECDSA_P256_SHA256)?;
    Ok(Issuer::from_ca_cert_der(certificate, key)?)
}

/// The end of validity of a certificate made now, in seconds since 1970; never after its authority's.
pub(crate) fn leaf_ends_unix_s(now_unix_s: u64, authority_ends_unix_s: u64) -> u64 {
    (now_unix_s + LEAF_YEARS * YEAR_S).min(authority_ends_unix_s)
}

/// The end of validity of a certificate made now that stands for itself, in seconds since 1970.
pub(crate) fn self_signed_ends_unix_s() -> u64 {
    now_unix_s() + LEAF_YEARS * YEAR_S
}

fn leaf(common_name: &str, usage: ExtendedKeyUsagePurpose, ends_unix_s: u64) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = subject(common_name);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    params.use_authority_key_identifier_extension = true;
    params.not_before = date_time_ymd(NOT_BEFORE_YEAR, 1, 1);
    params.not_after = date_time_ymd(1970, 1, 1) + Duration::from_secs(ends_unix_s);
    params
}

fn subject(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, "Vitalgate");
    name.push(DnType::CommonName, common_name);
    name
}

fn alternative(name: &str) -> Result<SanType, IssueError> {
    let wrong = || IssueError::Name(name.to_owned());
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    ServerName::try_from(name).map_err(|_| wrong())?;
    Ok(SanType::DnsName(name.try_into().map_err(|_| wrong())?))
}

fn new_key() -> Result<KeyPair, IssueError> {
    Ok(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?)
}

fn issued(certificate: rcgen::Certificate, key: KeyPair) -> Issued {
    Issued {
        certificate_pem: certificate.pem(),
        certificate: certificate.into(),
        key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        key_pem: Secret::new(key.serialize_pem()),
    }
}
