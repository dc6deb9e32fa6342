//! Real handshakes over loopback: who gets in, who does not, and how the keys are agreed.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a helper of tests fails loudly")]

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::{HandshakeKind, NamedGroup, ProtocolVersion};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use vitalgate_domain::{DeviceId, GatewayId};
use vitalgate_trust::{
    ClientCertificate, ClientProfile, DeviceRegistry, LocalAuthority, ServedCertificate, client_config, device_identity, fingerprint,
    generate_password, server_config, serving_config,
};

const DEADLINE: Duration = Duration::from_secs(20);

struct Practice {
    folder: TempDir,
    authority: LocalAuthority,
}

/// What the listener saw of a connection.
#[derive(Debug)]
struct Seen {
    device: Option<(DeviceId, [u8; 32])>,
    group: Option<NamedGroup>,
    version: Option<ProtocolVersion>,
    kind: Option<HandshakeKind>,
}

impl Practice {
    fn new(gateway: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = LocalAuthority::open_or_create(&folder.path().join("authority"), &GatewayId::new(gateway).unwrap()).unwrap();
        Self { folder, authority }
    }

    fn listener(&self, client_certificate: ClientCertificate) -> Arc<rustls::ServerConfig> {
        let served = self.authority.issue_server(&["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        server_config(served.chain, served.key, Some(self.authority.ca_certificate_pem()), client_certificate).unwrap()
    }

    /// A client that trusts this practice and shows the certificate and key of these two texts.
    fn client(&self, identity: Option<(&str, &str)>) -> rustls::ClientConfig {
        let write = |name: &str, text: &str| {
            let path = self.folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        client_config(&ClientProfile {
            ca_file: Some(write("ca.pem", self.authority.ca_certificate_pem())),
            certificate_file: identity.map(|(certificate, _)| write("client.crt", certificate)),
            key_file: identity.map(|(_, key)| write("client.key", key)),
        })
        .unwrap()
    }

    fn device_client(&self, issuer: &LocalAuthority, id: &str) -> rustls::ClientConfig {
        let device = issuer.issue_device(&DeviceId::new(id).unwrap()).unwrap();
        self.client(Some((&device.certificate_pem, device.key_pem.expose())))
    }
}

/// One connection that says one byte each way; what each side got.
async fn connect(
    server: &Arc<rustls::ServerConfig>,
    client: &Arc<rustls::ClientConfig>,
    name: &'static str,
) -> (io::Result<Seen>, io::Result<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = TlsAcceptor::from(Arc::clone(server));
    let served = async move {
        let (socket, _) = listener.accept().await?;
        let mut stream = acceptor.accept(socket).await?;
        let said = stream.read_u8().await?;
        stream.write_u8(said).await?;
        stream.flush().await?;
        let connection = stream.get_ref().1;
        let certificate = connection.peer_certificates().and_then(|chain| chain.first());
        let seen = Seen {
            device: certificate.and_then(|certificate| device_identity(certificate)),
            group: connection.negotiated_key_exchange_group().map(|group| group.name()),
            version: connection.protocol_version(),
            kind: connection.handshake_kind(),
        };
        stream.shutdown().await?;
        Ok(seen)
    };
    let asked = ask(address, Arc::clone(client), name);
    timeout(DEADLINE, async { tokio::join!(served, asked) }).await.expect("both sides came to an end")
}

async fn ask(address: SocketAddr, client: Arc<rustls::ClientConfig>, name: &'static str) -> io::Result<()> {
    let socket = TcpStream::connect(address).await?;
    let mut stream = TlsConnector::from(client).connect(name.try_into().unwrap(), socket).await?;
    stream.write_u8(7).await?;
    stream.flush().await?;
    assert_eq!(stream.read_u8().await?, 7);
    // Session tickets come before the end of the stream.
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await?;
    Ok(())
}

#[tokio::test]
async fn a_device_is_known_by_its_certificate_over_tls_1_3_with_the_hybrid_key_exchange() {
    let practice = Practice::new("practice-01");
    let device = practice.authority.issue_device(&DeviceId::new("monitor-01").unwrap()).unwrap();
    let client = Arc::new(practice.client(Some((&device.certificate_pem, device.key_pem.expose()))));
    let server = practice.listener(ClientCertificate::Required);
    for name in ["localhost", "127.0.0.1"] {
        let (seen, asked) = connect(&server, &client, name).await;
        asked.unwrap();
        let seen = seen.unwrap();
        assert_eq!(seen.device, Some((DeviceId::new("monitor-01").unwrap(), device.fingerprint)));
        assert_eq!(seen.group, Some(NamedGroup::X25519MLKEM768));
        assert_eq!(seen.version, Some(ProtocolVersion::TLSv1_3));
    }
}

#[tokio::test]
async fn a_resumed_session_still_says_which_device_it_is() {
    let practice = Practice::new("practice-01");
    let client = Arc::new(practice.device_client(&practice.authority, "monitor-01"));
    let server = practice.listener(ClientCertificate::Required);
    let first = connect(&server, &client, "localhost").await.0.unwrap();
    let second = connect(&server, &client, "localhost").await.0.unwrap();
    assert_eq!(first.kind, Some(HandshakeKind::Full));
    assert_eq!(second.kind, Some(HandshakeKind::Resumed));
    assert_eq!(second.device, first.device);
    assert!(second.device.is_some());
}

#[tokio::test]
async fn without_a_certificate_there_is_no_connection_where_one_is_required() {
    let practice = Practice::new("practice-01");
    let client = Arc::new(practice.client(None));
    let (seen, asked) = connect(&practice.listener(ClientCertificate::Required), &client, "localhost").await;
    assert!(seen.is_err() && asked.is_err(), "{seen:?} {asked:?}");
    let (seen, asked) = connect(&practice.listener(ClientCertificate::Optional), &client, "localhost").await;
    asked.unwrap();
    assert_eq!(seen.unwrap().device, None);
}

#[tokio::test]
async fn a_certificate_of_another_authority_opens_nothing_even_where_none_is_required() {
    let practice = Practice::new("practice-01");
    let stranger = Practice::new("practice-01");
    let client = Arc::new(practice.device_client(&stranger.authority, "monitor-01"));
    for client_certificate in [ClientCertificate::Required, ClientCertificate::Optional] {
        let (seen, asked) = connect(&practice.listener(client_certificate), &client, "localhost").await;
        assert!(seen.is_err() && asked.is_err(), "{seen:?} {asked:?}");
    }
}

#[tokio::test]
async fn a_client_refuses_a_gateway_of_another_authority_and_a_wrong_name() {
    let practice = Practice::new("practice-01");
    let stranger = Practice::new("practice-01");
    let client = Arc::new(practice.device_client(&practice.authority, "monitor-01"));
    let (_, asked) = connect(&stranger.listener(ClientCertificate::Required), &client, "localhost").await;
    assert!(asked.is_err());
    let (_, asked) = connect(&practice.listener(ClientCertificate::Required), &client, "gateway.local").await;
    assert!(asked.is_err());
}

#[tokio::test]
async fn a_servers_certificate_does_not_speak_for_a_device_nor_a_devices_for_a_server() {
    let practice = Practice::new("practice-01");
    let folder = practice.folder.path().join("authority");
    practice.listener(ClientCertificate::Required);
    let bundle = std::fs::read_to_string(folder.join("server.pem")).unwrap();
    let posing = Arc::new(practice.client(Some((&bundle, &bundle))));
    let (seen, _) = connect(&practice.listener(ClientCertificate::Required), &posing, "localhost").await;
    assert!(seen.is_err(), "{seen:?}");

    let device = practice.authority.issue_device(&DeviceId::new("localhost").unwrap()).unwrap();
    let served = pem(&device.certificate_pem, device.key_pem.expose());
    let client = Arc::new(practice.device_client(&practice.authority, "monitor-01"));
    let server = server_config(served.0, served.1, None, ClientCertificate::Optional).unwrap();
    let (_, asked) = connect(&server, &client, "localhost").await;
    assert!(asked.is_err());
}

fn pem(certificate: &str, key: &str) -> (Vec<rustls::pki_types::CertificateDer<'static>>, rustls::pki_types::PrivateKeyDer<'static>) {
    use rustls::pki_types::pem::PemObject;
    let chain = rustls::pki_types::CertificateDer::pem_slice_iter(certificate.as_bytes()).collect::<Result<_, _>>().unwrap();
    (chain, rustls::pki_types::PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap())
}

#[tokio::test]
async fn a_revoked_device_is_refused_while_its_certificate_is_still_good_for_tls() {
    let practice = Practice::new("practice-01");
    let id = DeviceId::new("monitor-01").unwrap();
    let device = practice.authority.issue_device(&id).unwrap();
    let client = Arc::new(practice.client(Some((&device.certificate_pem, device.key_pem.expose()))));
    let registry = DeviceRegistry::open(&practice.folder.path().join("devices.json")).unwrap();
    let (password, hash) = generate_password().unwrap();
    registry.add(&id, Some(device.fingerprint), Some(hash)).unwrap();

    let (seen, _) = connect(&practice.listener(ClientCertificate::Required), &client, "localhost").await;
    let (shown, fingerprint) = seen.unwrap().device.unwrap();
    assert!(registry.is_admitted(&shown, Some(&fingerprint)));
    assert!(registry.verify_password(&shown, password.expose().as_bytes()).is_some());
    registry.revoke(&id).unwrap();
    assert!(!registry.is_admitted(&shown, Some(&fingerprint)));
    assert!(!registry.is_admitted(&shown, None));
    assert!(registry.verify_password(&shown, password.expose().as_bytes()).is_none());
}

/// A TLS 1.2 ClientHello (RFC 5246 section 7.4.1.2), with the given extensions.
fn client_hello_1_2(extensions: &[u8]) -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend([0x5a; 32]);
    body.push(0); // no session id
    body.extend([0, 4, 0xc0, 0x2b, 0xc0, 0x2f]); // ECDHE with AES-128-GCM
    body.extend([1, 0]); // no compression
    body.extend(u16::try_from(extensions.len()).unwrap().to_be_bytes());
    body.extend(extensions);
    framed(1, &body)
}

/// A handshake message in one record.
fn framed(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap();
    let mut record = vec![22, 3, 3];
    record.extend((length + 4).to_be_bytes());
    record.extend([kind, 0]);
    record.extend(length.to_be_bytes());
    record.extend(body);
    record
}

const SIGNATURES_AND_GROUPS: &[u8] = &[0, 13, 0, 4, 0, 2, 4, 3, 0, 10, 0, 4, 0, 2, 0, 29];
const VERSIONS_1_2_ONLY: &[u8] = &[0, 43, 0, 3, 2, 3, 3];

#[tokio::test]
async fn a_client_that_speaks_only_tls_1_2_gets_the_alert_protocol_version() {
    let practice = Practice::new("practice-01");
    for extensions in [SIGNATURES_AND_GROUPS.to_vec(), [SIGNATURES_AND_GROUPS, VERSIONS_1_2_ONLY].concat()] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = TlsAcceptor::from(practice.listener(ClientCertificate::Optional));
        let served = async move { acceptor.accept(listener.accept().await.unwrap().0).await.map(|_| ()) };
        let asked = async {
            let mut socket = TcpStream::connect(address).await.unwrap();
            socket.write_all(&client_hello_1_2(&extensions)).await.unwrap();
            let mut answer = [0; 7];
            socket.read_exact(&mut answer).await.unwrap();
            answer
        };
        let (served, answer) = timeout(DEADLINE, async { tokio::join!(served, asked) }).await.unwrap();
        assert!(served.is_err());
        assert_eq!((answer[0], &answer[5..]), (21, &[2, 70][..]), "fatal, protocol_version (RFC 8446 section 6)");
    }
}

#[tokio::test]
async fn a_server_that_answers_in_tls_1_2_is_left() {
    let practice = Practice::new("practice-01");
    let client = Arc::new(practice.client(None));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let served = async move {
        let mut socket = listener.accept().await.unwrap().0;
        let mut hello = [0; 1024];
        let _ = socket.read(&mut hello).await.unwrap();
        let mut body = vec![3, 3];
        body.extend([0x5a; 32]);
        body.extend([0, 0xc0, 0x2b, 0, 0, 0]);
        socket.write_all(&framed(2, &body)).await.unwrap();
        let mut rest = Vec::new();
        let _ = socket.read_to_end(&mut rest).await;
    };
    let ((), asked) = timeout(DEADLINE, async { tokio::join!(served, ask(address, client, "localhost")) }).await.unwrap();
    let refused = asked.unwrap_err().to_string();
    assert!(refused.to_lowercase().contains("incompatible"), "{refused}");
}

#[test]
fn a_destinations_files_that_cannot_be_used_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| Some(folder.path().join(name));
    std::fs::write(folder.path().join("empty.pem"), "nothing here").unwrap();
    let practice = Practice::new("g");
    let ca_file = Some(practice.folder.path().join("authority/ca.crt"));
    let profile = |ca_file, certificate_file, key_file| ClientProfile { ca_file, certificate_file, key_file };
    for (profile, named) in [
        (profile(path("absent.pem"), None, None), "absent.pem does not exist"),
        (profile(path("empty.pem"), None, None), "empty.pem holds no certificate in PEM"),
        (profile(ca_file.clone(), path("empty.pem"), None), "both its certificate file and its key file"),
        (profile(ca_file.clone(), ca_file.clone(), path("empty.pem")), "empty.pem holds no unencrypted private key"),
    ] {
        let error = client_config(&profile).unwrap_err().to_string();
        assert!(error.contains(named), "{error}");
    }
}

#[test]
fn a_certificate_with_another_ones_key_is_refused_before_anything_listens() {
    let practice = Practice::new("g");
    let issue = |name: &str| practice.authority.issue_device(&DeviceId::new(name).unwrap()).unwrap();
    let (one, two) = (issue("one"), issue("two"));
    let (chain, key) = pem(&one.certificate_pem, two.key_pem.expose());
    assert!(server_config(chain, key, None, ClientCertificate::Optional).is_err());
}

/// The certificate that a listener shows to a client that never was here.
async fn shown(practice: &Practice, server: &Arc<rustls::ServerConfig>) -> [u8; 32] {
    let client = Arc::new(practice.device_client(&practice.authority, "monitor-01"));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = TlsAcceptor::from(Arc::clone(server));
    let served = async { acceptor.accept(listener.accept().await.unwrap().0).await.unwrap() };
    let asked = async {
        let socket = TcpStream::connect(address).await.unwrap();
        TlsConnector::from(client).connect("localhost".try_into().unwrap(), socket).await.unwrap()
    };
    let (_served, asked) = timeout(DEADLINE, async { tokio::join!(served, asked) }).await.unwrap();
    fingerprint(&asked.get_ref().1.peer_certificates().unwrap()[0])
}

/// A listener runs for years: its certificate follows before it ends, without a restart and without a broken connection.
#[tokio::test]
async fn a_renewed_certificate_is_shown_to_the_next_connection_and_disturbs_none() {
    const YEAR_S: u64 = 31_557_600;
    let practice = Practice::new("practice-01");
    let names = ["localhost".to_owned()];
    let now_s = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let first = practice.authority.issue_server_at(&names, now_s).unwrap();
    let first_shown = fingerprint(&first.chain[0]);
    let served = ServedCertificate::new(first.chain, first.key).unwrap();
    let server = serving_config(&served, Some(practice.authority.ca_certificate_pem()), ClientCertificate::Required).unwrap();
    assert_eq!(shown(&practice, &server).await, first_shown);

    // One connection stays open over the change.
    let client = Arc::new(practice.device_client(&practice.authority, "monitor-02"));
    let (near, far) = tokio::io::duplex(64 * 1024);
    let (open_server, open_client) = tokio::join!(
        TlsAcceptor::from(Arc::clone(&server)).accept(near),
        TlsConnector::from(client).connect("localhost".try_into().unwrap(), far)
    );
    let (mut open_server, mut open_client) = (open_server.unwrap(), open_client.unwrap());

    assert!(!practice.authority.issue_server_at(&names, now_s + 8 * YEAR_S).unwrap().reissued, "with two years left it stays");
    let second = practice.authority.issue_server_at(&names, now_s + 9 * YEAR_S + 86_400).unwrap();
    assert!(second.reissued && second.ends_unix_s > now_s + 18 * YEAR_S);
    let second_shown = fingerprint(&second.chain[0]);
    let stranger = Practice::new("practice-01").authority.issue_server(&names).unwrap();
    assert!(served.replace(second.chain.clone(), stranger.key).is_err(), "a key of another certificate");
    assert_eq!(shown(&practice, &server).await, first_shown, "what cannot be used changes nothing");
    served.replace(second.chain, second.key).unwrap();

    open_client.write_u8(7).await.unwrap();
    open_client.flush().await.unwrap();
    assert_eq!(timeout(DEADLINE, open_server.read_u8()).await.unwrap().unwrap(), 7);
    assert_eq!(shown(&practice, &server).await, second_shown);
}
