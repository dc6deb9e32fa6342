//! A device is who its certificate or its password proves, and nobody else.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use vitalgate_domain::{DeviceId, GatewayId};
use vitalgate_mqtt::EndpointConfig;
use vitalgate_trust::{ClientCertificate, ClientProfile, LocalAuthority, client_config, device_identity, server_config};

use crate::clients::mosquitto_pub;
use crate::raw::{Raw, ack, connect5, publish5, text};
use crate::rig::{Rig, Seen, commit_all, texts};

struct Shop {
    folder: TempDir,
    authority: LocalAuthority,
}

impl Shop {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = LocalAuthority::open_or_create(&folder.path().join("authority"), &GatewayId::new("practice-01").unwrap()).unwrap();
        std::fs::write(folder.path().join("ca.pem"), authority.ca_certificate_pem()).unwrap();
        Self { folder, authority }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Issues a certificate; gives the files of certificate and key.
    fn issue(&self, device: &str) -> (PathBuf, PathBuf) {
        let issued = self.authority.issue_device(&DeviceId::new(device).unwrap()).unwrap();
        let (certificate, key) = (self.file(&format!("{device}.crt")), self.file(&format!("{device}.key")));
        std::fs::write(&certificate, &issued.certificate_pem).unwrap();
        std::fs::write(&key, issued.key_pem.expose()).unwrap();
        (certificate, key)
    }

    async fn rig(&self, client_certificate: ClientCertificate) -> (Rig, vitalgate_intake::IntakeQueue) {
        let server = self.authority.issue_server(&["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
        let tls = server_config(server.chain, server.key, Some(self.authority.ca_certificate_pem()), client_certificate).unwrap();
        let config = EndpointConfig { admission_check_ms: 50, ..EndpointConfig::default() };
        Rig::tls(config, tls, Arc::new(device_identity)).await
    }

    /// Opens TLS without a certificate and sends CONNECT with a password.
    async fn log_in(&self, rig: &Rig, device: &str, password: &str) -> Raw<TlsStream<TcpStream>> {
        let client = client_config(&ClientProfile { ca_file: Some(self.file("ca.pem")), certificate_file: None, key_file: None }).unwrap();
        let socket = TcpStream::connect(rig.address).await.unwrap();
        let mut raw = Raw(TlsConnector::from(Arc::new(client)).connect("localhost".try_into().unwrap(), socket).await.unwrap());
        raw.send(&connect5(device, 0b1100_0010, &[], &[text(device), text(password)].concat())).await;
        raw
    }
}

fn file_name(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Publishes one message over TLS with mosquitto_pub; whether it was acknowledged.
async fn published(rig: &Rig, shop: &Shop, credentials: &[&str], client_id: &str, topic: &str) -> bool {
    let authority = shop.file("ca.pem");
    let common = ["--cafile", file_name(&authority), "-V", "mqttv5", "-q", "1", "-i", client_id, "-t", topic, "-m", "over TLS"];
    mosquitto_pub(rig, &[&common, credentials].concat(), "").await.status.success()
}

#[tokio::test]
async fn a_certificate_speaks_for_its_own_device_only() {
    let shop = Shop::new();
    let (rig, queue) = shop.rig(ClientCertificate::Required).await;
    let log = commit_all(queue);
    let (certificate, key) = shop.issue("monitor-1");
    let own = ["--cert", file_name(&certificate), "--key", file_name(&key)];
    assert!(published(&rig, &shop, &own, "monitor-1", "vitals/monitor-1/a").await);
    assert_eq!(texts(&log, "monitor-1"), ["over TLS"]);
    assert!(!published(&rig, &shop, &own, "monitor-2", "vitals/monitor-2/a").await);
    rig.refused("foreign_client_id", 1).await;
    assert!(!published(&rig, &shop, &own, "monitor-1", "vitals/monitor-2/a").await);
    rig.refused("foreign_topic", 1).await;
    // A certificate of this authority for a device that is not configured here.
    let (certificate, key) = shop.issue("stranger");
    let strange = ["--cert", file_name(&certificate), "--key", file_name(&key)];
    assert!(!published(&rig, &shop, &strange, "stranger", "vitals/stranger/a").await);
    rig.refused("not_admitted", 1).await;
    // No certificate, a certificate of another authority, no TLS at all.
    assert!(!published(&rig, &shop, &[], "monitor-1", "vitals/monitor-1/a").await);
    let (certificate, key) = Shop::new().issue_into(&shop, "monitor-1");
    let forged = ["--cert", file_name(&certificate), "--key", file_name(&key)];
    assert!(!published(&rig, &shop, &forged, "monitor-1", "vitals/monitor-1/a").await);
    let mut plain = Raw::open(rig.address).await;
    plain.send_anyhow(&crate::raw::connect("monitor-1", 60, true)).await;
    plain.until_closed().await;
    rig.refused("tls_handshake", 3).await;
    let readings = log.lock().unwrap().iter().filter(|seen| matches!(seen, Seen::Reading { .. })).count();
    assert_eq!(readings, 1);
}

impl Shop {
    /// Issues by this authority into another's folder.
    fn issue_into(&self, other: &Self, device: &str) -> (PathBuf, PathBuf) {
        let (certificate, key) = self.issue(device);
        let (to_certificate, to_key) = (other.file("forged.crt"), other.file("forged.key"));
        std::fs::copy(certificate, &to_certificate).unwrap();
        std::fs::copy(key, &to_key).unwrap();
        (to_certificate, to_key)
    }
}

#[tokio::test]
async fn a_password_over_tls_speaks_for_its_own_device_only() {
    let shop = Shop::new();
    let (rig, queue) = shop.rig(ClientCertificate::Optional).await;
    let log = commit_all(queue);
    rig.book.passwords.lock().unwrap().insert("monitor-1".to_owned(), b"right".to_vec());
    let topic = "vitals/monitor-1/a";
    assert!(published(&rig, &shop, &["-u", "monitor-1", "-P", "right"], "monitor-1", topic).await);
    assert_eq!(texts(&log, "monitor-1"), ["over TLS"]);
    assert!(!published(&rig, &shop, &["-u", "monitor-1", "-P", "wrong"], "monitor-1", topic).await);
    assert!(!published(&rig, &shop, &["-u", "monitor-2", "-P", "right"], "monitor-2", "vitals/monitor-2/a").await);
    assert!(!published(&rig, &shop, &[], "monitor-1", topic).await);
    rig.refused("credentials", 3).await;
    assert!(!published(&rig, &shop, &["-u", "monitor-1", "-P", "right"], "monitor-2", "vitals/monitor-2/a").await);
    rig.refused("foreign_client_id", 1).await;
    rig.book.revoked.lock().unwrap().insert("monitor-1".to_owned());
    assert!(!published(&rig, &shop, &["-u", "monitor-1", "-P", "right"], "monitor-1", topic).await);
    rig.refused("not_admitted", 1).await;
    assert_eq!(texts(&log, "monitor-1").len(), 1);
}

/// Promise: no reading reaches another device's patient, also where TLS was switched off. What other machines can reach asks for
/// the device's own password; on loopback one that is given must be right.
#[tokio::test]
async fn without_tls_a_password_speaks_for_its_own_device_only() {
    for loopback in [false, true] {
        let config = EndpointConfig::default();
        let (rig, queue) = if loopback { Rig::plain(config).await } else { Rig::plain_beyond_loopback(config).await };
        let log = commit_all(queue);
        for (device, password) in [("monitor-1", "right"), ("monitor-2", "other")] {
            rig.book.passwords.lock().unwrap().insert(device.to_owned(), password.as_bytes().to_vec());
        }
        let published = async |login: &[&str]| {
            let message = ["-V", "mqttv5", "-q", "1", "-i", "monitor-1", "-t", "vitals/monitor-1/a", "-m", "in the clear"];
            mosquitto_pub(&rig, &[&message, login].concat(), "").await.status.success()
        };
        assert!(published(&["-u", "monitor-1", "-P", "right"]).await);
        assert!(!published(&["-u", "monitor-1", "-P", "wrong"]).await);
        assert!(!published(&["-u", "monitor-1"]).await);
        rig.refused("credentials", 2).await;
        assert!(!published(&["-u", "monitor-2", "-P", "other"]).await);
        rig.refused("foreign_client_id", 1).await;
        assert_eq!(published(&[]).await, loopback, "without a login");
        rig.refused("credentials", if loopback { 2 } else { 3 }).await;
        assert_eq!(texts(&log, "monitor-1").len(), if loopback { 2 } else { 1 });
    }
}

/// A stranger with the old password and the device with the new one: the first is ended, the second gets its place.
#[tokio::test]
async fn a_connection_by_password_ends_when_the_password_is_changed() {
    let shop = Shop::new();
    let (rig, queue) = shop.rig(ClientCertificate::Optional).await;
    let log = commit_all(queue);
    for device in ["monitor-1", "monitor-2"] {
        rig.book.passwords.lock().unwrap().insert(device.to_owned(), b"leaked".to_vec());
    }
    let mut stranger = shop.log_in(&rig, "monitor-1", "leaked").await;
    let mut other = shop.log_in(&rig, "monitor-2", "leaked").await;
    assert_eq!([stranger.read().await[3], other.read().await[3]], [0, 0]);
    rig.book.passwords.lock().unwrap().insert("monitor-1".to_owned(), b"new".to_vec());
    let rest = stranger.until_closed().await;
    assert_eq!((rest[0], rest[2]), (0xE0, 0x87), "DISCONNECT, not authorised: {rest:02x?}");
    rig.refused("not_admitted", 1).await;
    let mut device = shop.log_in(&rig, "monitor-1", "new").await;
    assert_eq!(device.read().await[3], 0);
    device.send(&publish5("vitals/monitor-1/a", 1, 1, &[], b"its own")).await;
    assert_eq!(device.read().await, ack(0x40, 1));
    assert_eq!(texts(&log, "monitor-1"), ["its own"]);
    assert!(other.is_silent().await, "whose password stays is left alone");
}
