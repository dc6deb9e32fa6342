//! How a gateway identifies itself to a server that demands a client certificate: a key of its own, a
//! certificate that stands for itself, a request for one of an authority, and what such an authority gives back.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{CertificateError, RootCertStore};
use vitalgate_domain::GatewayId;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::identity::fingerprint;
use crate::issue::{self, IssueError};
use crate::key_wrap::CREDENTIALS_DIRECTORY;
use crate::secret::Secret;
use crate::tls::{self, TlsError};

/// Most certificates of a chain: the gateway's, and those of its authorities.
pub const CLIENT_CHAIN_MAX: usize = 8;
/// Largest certificate of a chain, in bytes.
const CERTIFICATE_BYTES_MAX: usize = 16 * 1024;
/// What errors call a chain.
const PLACE: &str = "the certificate";

/// A new key with what servers and authorities need of it.
#[derive(Debug, Clone)]
pub struct ClientIdentity {
    /// The private key (PKCS #8, PEM); ECDSA P-256.
    pub key_pem: Secret,
    /// A certificate that stands for itself, for servers that know each client by its certificate.
    pub certificate_pem: String,
    /// A request (PKCS #10, PEM) for a certificate of an authority.
    pub request_pem: String,
}

impl ClientIdentity {
    /// Makes a key. Certificate and request name the gateway and the serial number of its hardware.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn generate(gateway: &GatewayId, serial: &str) -> Result<Self, IssueError> {
        let (issued, request_pem) = issue::client(gateway.as_str(), serial)?;
        Ok(Self { key_pem: issued.key_pem, certificate_pem: issued.certificate_pem, request_pem })
    }
}

/// A unit's credential of this name, which systemd has put into a file of its own.
///
/// # Errors
/// When the program was not started by systemd with credentials.
pub fn credential_file(name: &str) -> Result<PathBuf, TlsError> {
    let folder = std::env::var_os(CREDENTIALS_DIRECTORY).ok_or_else(|| TlsError::NoCredentials(name.to_owned()))?;
    Ok(Path::new(&folder).join(name))
}

/// Why a certificate is not one that a gateway can identify itself with.
#[derive(Debug, thiserror::Error)]
pub enum ClientChainError {
    /// No certificate, or a damaged one.
    #[error(
        "the text holds no certificate, or one that cannot be read; copy it whole, from -----BEGIN CERTIFICATE----- to -----END CERTIFICATE-----"
    )]
    Unreadable,
    /// More than a chain has.
    #[error("there are more than {CLIENT_CHAIN_MAX} certificates; keep the gateway's own and those of its authorities")]
    TooMany,
    /// The first one is an authority's.
    #[error("the first certificate is that of an authority; put the gateway's own certificate first, then the one that issued it")]
    AuthorityFirst,
    /// Not for clients.
    #[error(
        "the certificate is not for clients; let the authority issue it with the extended key usage clientAuth and the key usage digitalSignature"
    )]
    NotForClients,
    /// Something else stands between.
    #[error("certificate {0} was not issued by the one after it; put each certificate before the one that issued it, and nothing else")]
    Order(usize),
    /// A signature does not hold, or is of a kind that is not taken.
    #[error("the certificates do not prove each other ({0}); export them again from the authority")]
    Unproven(rustls::Error),
    /// Its time is over.
    #[error("certificate {number} was valid until {until}; let the authority issue a new one, and check the appliance's clock")]
    Expired {
        /// Its place in the chain, from 1.
        number: usize,
        /// The end of its validity.
        until: String,
    },
    /// Its time has not come.
    #[error("certificate {number} is valid from {from} on; check the appliance's clock, then plug the stick in again")]
    NotYet {
        /// Its place in the chain, from 1.
        number: usize,
        /// The beginning of its validity.
        from: String,
    },
    /// The key is another one.
    #[error("the certificate is for another key; let the authority sign the request of this appliance")]
    OtherKey,
}

/// A certificate of the gateway, then those that issued it, each before its issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientChain {
    /// The certificates in PEM and nothing else.
    pub pem: String,
    /// SHA-256 over the gateway's own.
    pub fingerprint: [u8; 32],
    /// Whom it names (RFC 4514).
    pub subject: String,
    /// Who issued it (RFC 4514).
    pub issuer: String,
    /// Whether it stands for itself.
    pub self_signed: bool,
    /// When it ends, in seconds since 1970.
    pub ends_unix_s: u64,
    /// Its public key (`SubjectPublicKeyInfo`, DER).
    public_key: Vec<u8>,
    certificates: Vec<CertificateDer<'static>>,
}

impl ClientChain {
    /// Reads a chain in PEM; text around the certificates is dropped. What does not depend on time or key is checked.
    ///
    /// # Errors
    /// Why no gateway can identify itself with it.
    pub fn read(pem: &str) -> Result<Self, ClientChainError> {
        let (certificates, pem) = blocks(pem)?;
        let parsed = certificates.iter().map(parsed).collect::<Option<Vec<_>>>().ok_or(ClientChainError::Unreadable)?;
        let own = parsed.first().ok_or(ClientChainError::Unreadable)?;
        for_clients(own)?;
        for (place, pair) in parsed.windows(2).enumerate() {
            if let [issued, issuer] = pair
                && issued.issuer().as_raw() != issuer.subject().as_raw()
            {
                return Err(ClientChainError::Order(place + 1));
            }
        }
        let chain = Self {
            pem,
            fingerprint: certificates.first().map(|own| fingerprint(own)).unwrap_or_default(),
            subject: own.subject().to_string(),
            issuer: own.issuer().to_string(),
            self_signed: own.subject().as_raw() == own.issuer().as_raw(),
            ends_unix_s: u64::try_from(own.validity().not_after.timestamp()).unwrap_or(0),
            public_key: own.public_key().raw.to_vec(),
            certificates: certificates.clone(),
        };
        chain.prove(u64::try_from(own.validity().not_before.timestamp()).unwrap_or(0))?;
        Ok(chain)
    }

    /// Whether every certificate is valid at a moment.
    ///
    /// # Errors
    /// Which one is not.
    pub fn valid_at(&self, now_unix_s: u64) -> Result<(), ClientChainError> {
        for (place, certificate) in self.certificates.iter().filter_map(parsed).enumerate() {
            let validity = certificate.validity();
            let now = i64::try_from(now_unix_s).unwrap_or(i64::MAX);
            if now > validity.not_after.timestamp() {
                return Err(ClientChainError::Expired { number: place + 1, until: validity.not_after.to_string() });
            }
            if now < validity.not_before.timestamp() {
                return Err(ClientChainError::NotYet { number: place + 1, from: validity.not_before.to_string() });
            }
        }
        Ok(())
    }

    /// Whether it is for the same key as another one.
    ///
    /// # Errors
    /// [`ClientChainError::OtherKey`]
    pub fn for_key_of(&self, other: &Self) -> Result<(), ClientChainError> {
        if self.public_key == other.public_key { Ok(()) } else { Err(ClientChainError::OtherKey) }
    }

    /// Whether each certificate was signed by the next. Those that stand alone are a server's to judge.
    fn prove(&self, at_unix_s: u64) -> Result<(), ClientChainError> {
        let [own, between @ .., last] = self.certificates.as_slice() else { return Ok(()) };
        let mut roots = RootCertStore::empty();
        roots.add(last.clone()).map_err(ClientChainError::Unproven)?;
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), tls::provider()).build();
        let verifier = verifier.map_err(|_| ClientChainError::Unreadable)?;
        let at = UnixTime::since_unix_epoch(Duration::from_secs(at_unix_s));
        match verifier.verify_client_cert(own, between, at) {
            // Time is judged by whoever has a clock.
            Ok(_) | Err(rustls::Error::InvalidCertificate(CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. })) => {
                Ok(())
            }
            Err(error) => Err(ClientChainError::Unproven(error)),
        }
    }
}

fn parsed<'a>(certificate: &'a CertificateDer<'_>) -> Option<X509Certificate<'a>> {
    if certificate.len() > CERTIFICATE_BYTES_MAX {
        return None;
    }
    let (rest, parsed) = X509Certificate::from_der(certificate).ok()?;
    rest.is_empty().then_some(parsed)
}

fn for_clients(own: &X509Certificate<'_>) -> Result<(), ClientChainError> {
    let unreadable = |_| ClientChainError::Unreadable;
    if own.basic_constraints().map_err(unreadable)?.is_some_and(|constraints| constraints.value.ca) {
        return Err(ClientChainError::AuthorityFirst);
    }
    let extended = own.extended_key_usage().map_err(unreadable)?;
    let usage = own.key_usage().map_err(unreadable)?;
    // RFC 5280, 4.2.1.3 and 4.2.1.12: without the extension there is no restriction.
    if extended.is_some_and(|extended| !extended.value.client_auth) || usage.is_some_and(|usage| !usage.value.digital_signature()) {
        return Err(ClientChainError::NotForClients);
    }
    Ok(())
}

/// The certificates of a text, and the blocks that they stand in.
fn blocks(text: &str) -> Result<(Vec<CertificateDer<'static>>, String), ClientChainError> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    let (mut certificates, mut pem, mut rest) = (Vec::new(), String::new(), text);
    while let Some((_, begun)) = rest.split_once(BEGIN) {
        let (inner, after) = begun.split_once(END).ok_or(ClientChainError::Unreadable)?;
        let block = format!("{BEGIN}\n{}\n{END}\n", inner.replace('\r', "").trim());
        certificates.extend(tls::certificates(block.as_bytes(), PLACE).map_err(|_| ClientChainError::Unreadable)?);
        if certificates.len() > CLIENT_CHAIN_MAX {
            return Err(ClientChainError::TooMany);
        }
        pem.push_str(&block);
        rest = after;
    }
    if certificates.is_empty() { Err(ClientChainError::Unreadable) } else { Ok((certificates, pem)) }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, CertificateSigningRequestParams, IsCa, Issuer, KeyPair, date_time_ymd};
    use x509_parser::prelude::{ParsedExtension, X509CertificationRequest};

    use super::*;
    use crate::clock::{FLOOR_UNIX_S, now_unix_s};

    fn identity() -> ClientIdentity {
        ClientIdentity::generate(&GatewayId::new("practice-01").unwrap(), "VG-0001").unwrap()
    }

    /// An authority of the hospital; its certificate in PEM.
    fn authority(name: &str, above: Option<&Issuer<'static, KeyPair>>) -> (Issuer<'static, KeyPair>, String) {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let made = match above {
            Some(above) => params.signed_by(&key, above),
            None => params.self_signed(&key),
        };
        (Issuer::new(params, key), made.unwrap().pem())
    }

    /// What an authority makes of a request.
    fn issued(request: &str, authority: &Issuer<'static, KeyPair>, change: impl FnOnce(&mut CertificateParams)) -> String {
        let mut request = CertificateSigningRequestParams::from_pem(request).unwrap();
        request.params.not_before = date_time_ymd(2020, 1, 1);
        request.params.not_after = date_time_ymd(2090, 1, 1);
        change(&mut request.params);
        request.signed_by(authority).unwrap().pem()
    }

    /// Certificate and request are of the same key, name gateway and hardware, and are for clients.
    #[test]
    fn certificate_and_request_name_the_gateway_and_its_hardware() {
        let begun = now_unix_s();
        let identity = identity();
        let made = begun..=now_unix_s();
        let own = ClientChain::read(&identity.certificate_pem).unwrap();
        assert!(own.self_signed);
        for name in ["CN=practice-01", "VG-0001", "O=Vitalgate"] {
            assert!(own.subject.contains(name), "{}", own.subject);
        }
        own.valid_at(FLOOR_UNIX_S).unwrap();
        own.valid_at(now_unix_s() + 19 * 31_557_600).unwrap();
        assert!(made.contains(&(own.ends_unix_s - 20 * 31_557_600)), "{} {made:?}", own.ends_unix_s);

        let (_, pem) = x509_parser::pem::parse_x509_pem(identity.request_pem.as_bytes()).unwrap();
        let (_, request) = X509CertificationRequest::from_der(&pem.contents).unwrap();
        assert_eq!(request.certification_request_info.subject_pki.raw, own.public_key);
        assert_eq!(request.certification_request_info.subject.to_string(), own.subject);
        let usages: Vec<_> = request.requested_extensions().unwrap().collect();
        let for_clients = usages.iter().any(|one| match one {
            ParsedExtension::ExtendedKeyUsage(usage) => usage.client_auth && !usage.server_auth,
            _ => false,
        });
        assert!(for_clients, "{usages:?}");
        assert!(!format!("{identity:?}").contains("PRIVATE"), "a key is shown");
    }

    /// Whatever serial number the hardware's maker wrote.
    #[test]
    fn every_serial_number_goes_into_a_subject() {
        for serial in ["", "S/N 12_34*", "\u{fc}", &"x".repeat(300)] {
            let identity = ClientIdentity::generate(&GatewayId::new("g").unwrap(), serial).unwrap();
            ClientChain::read(&identity.certificate_pem).unwrap();
        }
    }

    /// What a hospital's authority gives back is taken, with text around it and any depth of authorities.
    #[test]
    fn a_chain_of_an_authority_is_taken() {
        let identity = identity();
        let own = ClientChain::read(&identity.certificate_pem).unwrap();
        let (root, root_pem) = authority("Root", None);
        let (middle, middle_pem) = authority("Middle", Some(&root));
        let leaf = issued(&identity.request_pem, &middle, |_| {});
        for text in [
            leaf.clone(),
            format!("{leaf}{middle_pem}"),
            format!("Bag Attributes\r\n{}\r\nissuer\r\n{middle_pem}{root_pem}", leaf.replace('\n', "\r\n")),
        ] {
            let chain = ClientChain::read(&text).unwrap();
            assert!(!chain.self_signed && chain.issuer.contains("Middle") && chain.subject.contains("practice-01"));
            assert!(chain.pem.starts_with("-----BEGIN") && !chain.pem.contains('\r') && !chain.pem.contains("Bag"));
            chain.for_key_of(&own).unwrap();
            chain.valid_at(now_unix_s()).unwrap();
            assert_eq!(ClientChain::read(&chain.pem).unwrap(), chain);
        }
    }

    /// Each thing that an authority, or whoever copies its files, can get wrong has its own words.
    #[test]
    fn a_chain_that_no_gateway_can_use_is_refused() {
        let identity = identity();
        let own = ClientChain::read(&identity.certificate_pem).unwrap();
        let (root, root_pem) = authority("Root", None);
        let (middle, middle_pem) = authority("Middle", Some(&root));
        let (_, stranger_pem) = authority("Middle", None);
        let leaf = issued(&identity.request_pem, &middle, |_| {});
        let server = issued(&identity.request_pem, &middle, |params| {
            params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
        });
        let refused = |text: &str| ClientChain::read(text).unwrap_err().to_string();
        for (text, why) in [
            (String::new(), "holds no certificate"),
            (leaf.replace("-----END", "-----"), "holds no certificate"),
            (leaf.replacen('M', "N", 1), "holds no certificate"),
            (identity.request_pem.clone(), "holds no certificate"),
            (root_pem.clone(), "that of an authority"),
            (format!("{middle_pem}{leaf}"), "that of an authority"),
            (server, "not for clients"),
            (format!("{leaf}{root_pem}{middle_pem}"), "certificate 1 was not issued"),
            (format!("{leaf}{stranger_pem}"), "do not prove each other"),
            (leaf.repeat(CLIENT_CHAIN_MAX + 1), "more than 8"),
        ] {
            let said = refused(&text);
            assert!(said.contains(why), "{why}: {said}");
            assert!(said.contains("; "), "no remedy: {said}");
        }
        let other = ClientIdentity::generate(&GatewayId::new("practice-01").unwrap(), "VG-0001").unwrap();
        let other = ClientChain::read(&issued(&other.request_pem, &middle, |_| {})).unwrap();
        assert!(other.for_key_of(&own).unwrap_err().to_string().contains("another key"));
    }

    /// A chain is read whenever, and judged by the clock that there is.
    #[test]
    fn a_chain_is_judged_by_the_clock_it_is_given() {
        let identity = identity();
        let (root, root_pem) = authority("Root", None);
        let leaf = issued(&identity.request_pem, &root, |params| {
            params.not_before = date_time_ymd(2040, 1, 1);
            params.not_after = date_time_ymd(2041, 1, 1);
        });
        let chain = ClientChain::read(&format!("{leaf}{root_pem}")).unwrap();
        let in_2040 = 2_208_988_800 + 86_400;
        assert!(chain.valid_at(now_unix_s()).unwrap_err().to_string().contains("is valid from"));
        chain.valid_at(in_2040).unwrap();
        assert!(chain.valid_at(in_2040 + 31_622_400).unwrap_err().to_string().contains("was valid until"));
    }
}
