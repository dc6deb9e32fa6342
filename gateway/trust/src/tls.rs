//! The TLS profiles of both directions: TLS 1.3 only (RFC 8446), X25519MLKEM768 first, no early data.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ClientHello, ResolvesServerCert, ServerSessionMemoryCache, VerifierBuilderError, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};

use crate::clock::{ClockAt, FLOOR_UNIX_S, FlooredClock};
use crate::file::{self, FileError};

/// Largest certificate, key or CA file, in bytes.
const PEM_BYTES_MAX: u64 = 1024 * 1024;
/// Sessions that a listener remembers for resumption: two per device of a full gateway.
const SESSIONS_MAX: usize = 2 * vitalgate_domain::limits::DEVICES_MAX;
/// Tickets sent after a full handshake; a device has one connection.
const TICKETS: usize = 1;
/// How errors call what a listener shows.
const SERVER_CERTIFICATE: &str = "the server certificate";

/// Whether a client must show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientCertificate {
    /// Without one there is no connection.
    Required,
    /// One is verified when shown; without one the device has to give its password.
    Optional,
}

/// What this gateway shows and trusts when it connects to a destination.
#[derive(Debug, Clone, Default)]
pub struct ClientProfile {
    /// PEM file of the only authorities trusted; without it the system's own list is.
    pub ca_file: Option<PathBuf>,
    /// PEM file of our certificate, followed by its intermediates.
    pub certificate_file: Option<PathBuf>,
    /// PEM file of the certificate's private key.
    pub key_file: Option<PathBuf>,
}

/// Why a TLS configuration could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file could not be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file is not there.
    #[error("{0} does not exist; put the PEM file there or correct the path in the configuration")]
    Missing(PathBuf),
    /// The file holds no usable PEM of the wanted kind.
    #[error("{place} holds no {wanted} in PEM; export it again as PEM (text that begins with -----BEGIN)")]
    Pem {
        /// A file, or what was handed over.
        place: String,
        /// What was looked for.
        wanted: &'static str,
    },
    /// A certificate without its key, or the other way round.
    #[error("a client certificate needs both its certificate file and its key file; set both or neither")]
    HalfIdentity,
    /// The system trusts nobody.
    #[error("the system's list of certificate authorities is empty; install ca-certificates or name a ca_file")]
    NoSystemRoots,
    /// rustls refused a certificate, a key, or that they belong together.
    #[error("{place} cannot be used for TLS: certificate and key must belong together and be of a kind that TLS 1.3 allows")]
    Refused {
        /// A file, or what was handed over.
        place: String,
        /// What rustls said.
        #[source]
        source: rustls::Error,
    },
    /// The authority that clients are verified against was refused.
    #[error("the authority for client certificates cannot be used")]
    ClientRoots(#[source] VerifierBuilderError),
    /// A name that no certificate can be checked against.
    #[error("{0:?} is neither a DNS name nor an IP address")]
    Name(String),
    /// systemd handed nothing over.
    #[error(
        "CREDENTIALS_DIRECTORY is not set; start the gateway by systemd with LoadCredentialEncrypted={0}:... or name a client_key_file"
    )]
    NoCredentials(String),
    /// The trial handshake did not come to an end.
    #[error("a trial handshake with the new certificate did not finish")]
    TrialUnfinished,
}

/// The certificate that a listener shows. Clones share it, and it can be changed while the listener
/// runs: connections that come after that meet the new one, those that are there go on.
#[derive(Clone)]
pub struct ServedCertificate(Arc<Served>);

struct Served(RwLock<Arc<CertifiedKey>>);

impl std::fmt::Debug for Served {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Served")
    }
}

impl std::fmt::Debug for ServedCertificate {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("ServedCertificate")
    }
}

impl ResolvesServerCert for Served {
    fn resolve(&self, _client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl ServedCertificate {
    /// Shows this certificate first.
    ///
    /// # Errors
    /// When certificate and key do not belong together.
    pub fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<Self, TlsError> {
        Ok(Self(Arc::new(Served(RwLock::new(certified(chain, key)?)))))
    }

    /// Shows this certificate from now on. Whether it is another one than before.
    ///
    /// # Errors
    /// When certificate and key do not belong together; the earlier one stays.
    pub fn replace(&self, chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<bool, TlsError> {
        let certified = certified(chain, key)?;
        let mut shown = self.0.0.write().unwrap_or_else(PoisonError::into_inner);
        let is_another = shown.cert != certified.cert;
        *shown = certified;
        Ok(is_another)
    }
}

fn certified(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<Arc<CertifiedKey>, TlsError> {
    CertifiedKey::from_der(chain, key, &provider()).map(Arc::new).map_err(refused(SERVER_CERTIFICATE))
}

/// A listener's configuration. `device_roots_pem` is the authority that device certificates must come
/// from; without it no client certificate is asked for, whatever `client_certificate` says.
///
/// # Errors
/// When certificate and key do not belong together, or the authority is not usable PEM.
pub fn server_config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    device_roots_pem: Option<&str>,
    client_certificate: ClientCertificate,
) -> Result<Arc<ServerConfig>, TlsError> {
    serving_config(&ServedCertificate::new(chain, key)?, device_roots_pem, client_certificate)
}

/// Like [`server_config`], for a listener whose certificate may change while it runs.
///
/// # Errors
/// When the authority is not usable PEM.
pub fn serving_config(
    served: &ServedCertificate,
    device_roots_pem: Option<&str>,
    client_certificate: ClientCertificate,
) -> Result<Arc<ServerConfig>, TlsError> {
    server_config_at(served, device_roots_pem, client_certificate, Arc::new(FlooredClock))
}

pub(crate) fn server_config_at(
    served: &ServedCertificate,
    device_roots_pem: Option<&str>,
    client_certificate: ClientCertificate,
    clock: Arc<dyn TimeProvider>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let verifier = match device_roots_pem {
        None => WebPkiClientVerifier::no_client_auth(),
        Some(pem) => {
            let roots = roots_from_pem(pem.as_bytes(), "the local authority")?;
            let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
            match client_certificate {
                ClientCertificate::Required => builder,
                ClientCertificate::Optional => builder.allow_unauthenticated(),
            }
            .build()
            .map_err(TlsError::ClientRoots)?
        }
    };
    let mut config = ServerConfig::builder_with_details(provider(), clock)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(refused(SERVER_CERTIFICATE))?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::<Served>::clone(&served.0));
    config.session_storage = ServerSessionMemoryCache::new(SESSIONS_MAX);
    config.send_tls13_tickets = TICKETS;
    // Early data can be replayed by whoever recorded it (RFC 8446 section 8).
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}

/// The configuration for a connection to a destination. ALPN is left to the transport.
///
/// # Errors
/// When a named file is missing or unusable, or the system trusts nobody.
pub fn client_config(profile: &ClientProfile) -> Result<ClientConfig, TlsError> {
    let roots = match &profile.ca_file {
        Some(path) => roots_from_pem(&read(path)?, &path.display().to_string())?,
        None => system_roots(rustls_native_certs::load_native_certs().certs)?,
    };
    let builder = client_builder(roots)?;
    match (&profile.certificate_file, &profile.key_file) {
        (None, None) => Ok(builder.with_no_client_auth()),
        (Some(certificate_file), Some(key_file)) => {
            let chain = certificates(&read(certificate_file)?, &certificate_file.display().to_string())?;
            let key = private_key(&read(key_file)?, &key_file.display().to_string())?;
            let place = format!("{} with {}", certificate_file.display(), key_file.display());
            builder.with_client_auth_cert(chain, key).map_err(refused(place))
        }
        _ => Err(TlsError::HalfIdentity),
    }
}

/// The configuration for a connection to a destination without TLS: it trusts nobody, and needs no list of whom to trust.
///
/// # Errors
/// When TLS 1.3 is not there.
pub fn plain_client_config() -> Result<ClientConfig, TlsError> {
    Ok(client_builder(RootCertStore::empty())?.with_no_client_auth())
}

/// Shakes hands in memory, once per name, as a client that trusts only `roots_pem` would. At a time at which every certificate of ours
/// is valid: how long one still is, is for the caller to judge, and a wrong clock makes none of them bad.
pub(crate) fn prove(
    chain: &[CertificateDer<'static>],
    key: &PrivateKeyDer<'static>,
    roots_pem: &str,
    names: &[String],
) -> Result<(), TlsError> {
    let server = server_config(chain.to_vec(), key.clone_key(), None, ClientCertificate::Optional)?;
    let roots = roots_from_pem(roots_pem.as_bytes(), "the local authority")?;
    let client = Arc::new(client_builder_at(roots, Arc::new(ClockAt(FLOOR_UNIX_S)))?.with_no_client_auth());
    for name in names {
        let server_name = ServerName::try_from(name.clone()).map_err(|_| TlsError::Name(name.clone()))?;
        let place = || format!("the new server certificate for {name}");
        let client = ClientConnection::new(Arc::clone(&client), server_name).map_err(refused(place()))?;
        let server = ServerConnection::new(Arc::clone(&server)).map_err(refused(place()))?;
        shake_hands(client, server, place)?;
    }
    Ok(())
}

fn shake_hands(mut client: ClientConnection, mut server: ServerConnection, place: impl Fn() -> String) -> Result<(), TlsError> {
    /// Flights in each direction; TLS 1.3 with a retry request takes three.
    const FLIGHTS_MAX: usize = 8;
    for _ in 0..FLIGHTS_MAX {
        let mut flight = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut flight).map_err(|_| TlsError::TrialUnfinished)?;
        }
        let mut rest = flight.as_slice();
        while !rest.is_empty() {
            server.read_tls(&mut rest).map_err(|_| TlsError::TrialUnfinished)?;
            server.process_new_packets().map_err(refused(place()))?;
        }
        let mut flight = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut flight).map_err(|_| TlsError::TrialUnfinished)?;
        }
        let mut rest = flight.as_slice();
        while !rest.is_empty() {
            client.read_tls(&mut rest).map_err(|_| TlsError::TrialUnfinished)?;
            client.process_new_packets().map_err(refused(place()))?;
        }
        if !client.is_handshaking() && !server.is_handshaking() {
            return Ok(());
        }
    }
    Err(TlsError::TrialUnfinished)
}

/// aws-lc-rs with the key exchange groups in our order, whatever order the build's features prefer.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    let kx_groups = vec![
        aws_lc_rs::kx_group::X25519MLKEM768,
        aws_lc_rs::kx_group::X25519,
        aws_lc_rs::kx_group::SECP256R1,
        aws_lc_rs::kx_group::SECP384R1,
    ];
    let mut provider = CryptoProvider { kx_groups, ..aws_lc_rs::default_provider() };
    // Another crate of the build may switch the older suites on; none of ours may ever offer them.
    provider.cipher_suites.retain(|suite| suite.version().version == rustls::ProtocolVersion::TLSv1_3);
    Arc::new(provider)
}

pub(crate) fn certificates(pem: &[u8], place: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let wrong = || TlsError::Pem { place: place.to_owned(), wanted: "certificate" };
    let chain = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>().map_err(|_| wrong())?;
    if chain.is_empty() { Err(wrong()) } else { Ok(chain) }
}

pub(crate) fn private_key(pem: &[u8], place: &str) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|_| TlsError::Pem { place: place.to_owned(), wanted: "unencrypted private key" })
}

fn client_builder(roots: RootCertStore) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>, TlsError> {
    client_builder_at(roots, Arc::new(FlooredClock))
}

fn client_builder_at(
    roots: RootCertStore,
    clock: Arc<dyn TimeProvider>,
) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>, TlsError> {
    Ok(ClientConfig::builder_with_details(provider(), clock)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(refused("TLS 1.3"))?
        .with_root_certificates(roots))
}

fn roots_from_pem(pem: &[u8], place: &str) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem, place)? {
        roots.add(certificate).map_err(refused(place))?;
    }
    Ok(roots)
}

fn system_roots(listed: Vec<CertificateDer<'static>>) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    // The list of a system may hold certificates that are not usable; the others still are.
    let _ = roots.add_parsable_certificates(listed);
    if roots.is_empty() { Err(TlsError::NoSystemRoots) } else { Ok(roots) }
}

fn read(path: &Path) -> Result<zeroize::Zeroizing<Vec<u8>>, TlsError> {
    file::read(path, PEM_BYTES_MAX)?.ok_or_else(|| TlsError::Missing(path.to_owned()))
}

fn refused(place: impl Into<String>) -> impl FnOnce(rustls::Error) -> TlsError {
    let place = place.into();
    move |source| TlsError::Refused { place, source }
}

#[cfg(test)]
mod tests {
    use rustls::CertificateError;
    use vitalgate_domain::{DeviceId, GatewayId};

    use super::*;
    use crate::authority::LocalAuthority;

    fn trial(listener_clock_unix_s: u64) -> Result<(), TlsError> {
        let folder = tempfile::tempdir().unwrap();
        let authority = LocalAuthority::open_or_create(folder.path(), &GatewayId::new("g1").unwrap()).unwrap();
        let served = authority.issue_server(&["localhost".to_owned()]).unwrap();
        let device = authority.issue_device(&DeviceId::new("m1").unwrap()).unwrap();
        let clock = Arc::new(ClockAt(listener_clock_unix_s));
        let roots = Some(authority.ca_certificate_pem());
        let served = ServedCertificate::new(served.chain, served.key).unwrap();
        let server = server_config_at(&served, roots, ClientCertificate::Required, clock).unwrap();
        let chain = certificates(device.certificate_pem.as_bytes(), "test").unwrap();
        let key = private_key(device.key_pem.expose().as_bytes(), "test").unwrap();
        let roots = roots_from_pem(authority.ca_certificate_pem().as_bytes(), "test").unwrap();
        let client = client_builder(roots).unwrap().with_client_auth_cert(chain, key).unwrap();
        let client = ClientConnection::new(Arc::new(client), "localhost".try_into().unwrap()).unwrap();
        shake_hands(client, ServerConnection::new(server).unwrap(), || "trial".to_owned())
    }

    #[test]
    fn a_device_certificate_is_good_for_nine_years_and_refused_after_eleven() {
        const YEAR_S: u64 = 31_557_600;
        let now = crate::clock::now_unix_s();
        trial(now).unwrap();
        trial(now + 9 * YEAR_S).unwrap();
        let refused = trial(now + 11 * YEAR_S).unwrap_err();
        let TlsError::Refused { source: rustls::Error::InvalidCertificate(reason), .. } = refused else { panic!("{refused:?}") };
        assert!(matches!(reason, CertificateError::Expired | CertificateError::ExpiredContext { .. }), "{reason:?}");
    }

    #[test]
    fn a_system_that_trusts_nobody_is_an_error_and_one_bad_certificate_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let authority = LocalAuthority::open_or_create(folder.path(), &GatewayId::new("g1").unwrap()).unwrap();
        let good = certificates(authority.ca_certificate_pem().as_bytes(), "test").unwrap().remove(0);
        let bad = CertificateDer::from(vec![1, 2, 3]);
        assert!(matches!(system_roots(Vec::new()), Err(TlsError::NoSystemRoots)));
        assert!(matches!(system_roots(vec![bad.clone()]), Err(TlsError::NoSystemRoots)));
        assert_eq!(system_roots(vec![bad, good]).unwrap().len(), 1);
    }

    #[test]
    fn only_tls_1_3_is_offered_and_the_hybrid_key_exchange_first() {
        let groups: Vec<_> = provider().kx_groups.iter().map(|group| group.name()).collect();
        assert_eq!(groups.first(), Some(&rustls::NamedGroup::X25519MLKEM768));
        for suite in &provider().cipher_suites {
            assert_eq!(suite.version().version, rustls::ProtocolVersion::TLSv1_3, "{suite:?}");
        }
    }
}
