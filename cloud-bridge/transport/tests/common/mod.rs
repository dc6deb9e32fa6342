//! A FHIR server of our own that can misbehave, certificates for it, and batches to send.
#![allow(dead_code, unreachable_pub, missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Test code, used in parts.

pub mod ehr;
pub mod serve;
pub mod venv;
pub mod warnings;

use std::sync::Arc;

use rustls::crypto::aws_lc_rs::default_provider;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use vitalgate_domain::{
    Answer, Batch, BatchMode, BootId, ClockTrust, DeviceId, DeviceNamespace, DeviceTime, Flags, GatewayId, Item, ItemAnswer, Metric,
    PatientReference, Quantity, Reading, ReadingId, ReadingTime, Received, Sequence, Subject, Unit, UnixMs, Value,
};
use vitalgate_transport::{FhirClient, FhirEndpoint, WritePolicy};

/// An authority and a server certificate for `localhost` and 127.0.0.1.
pub struct Certificates {
    pub roots: RootCertStore,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Certificates {
    pub fn new(names: &[&str], expired: bool) -> Self {
        let ca_key = rcgen::KeyPair::generate().unwrap();
        let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca_certificate = ca.self_signed(&ca_key).unwrap();
        let issuer = rcgen::Issuer::new(ca, ca_key);
        let key = rcgen::KeyPair::generate().unwrap();
        let mut leaf = rcgen::CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
        if expired {
            leaf.not_before = rcgen::date_time_ymd(2020, 1, 1);
            leaf.not_after = rcgen::date_time_ymd(2021, 1, 1);
        }
        let certificate = leaf.signed_by(&key, &issuer).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(ca_certificate.der().clone()).unwrap();
        Self { roots, chain: vec![certificate.der().clone()], key: PrivateKeyDer::try_from(key.serialize_der()).unwrap() }
    }

    pub fn server(&self, alpn: &[&[u8]]) -> Arc<ServerConfig> {
        let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(self.chain.clone(), self.key.clone_key())
            .unwrap();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        Arc::new(config)
    }

    /// A server that lets in only whom its own authority has certified.
    pub fn demanding_server(&self, alpn: &[&[u8]]) -> Arc<ServerConfig> {
        let verifier =
            rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(self.roots.clone()), Arc::new(default_provider()));
        let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(self.chain.clone(), self.key.clone_key())
            .unwrap();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        Arc::new(config)
    }

    /// A client that shows a certificate of its own authority.
    pub fn certified_client(&self) -> ClientConfig {
        self.client_of(self)
    }

    /// A client that shows a certificate of its own authority to a server of another.
    pub fn client_of(&self, server: &Self) -> ClientConfig {
        ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(server.roots.clone())
            .with_client_auth_cert(self.chain.clone(), self.key.clone_key())
            .unwrap()
    }

    pub fn client(&self) -> ClientConfig {
        ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(self.roots.clone())
            .with_no_client_auth()
    }
}

pub fn gateway() -> GatewayId {
    GatewayId::new("practice-01").unwrap()
}

pub fn namespace() -> DeviceNamespace {
    DeviceNamespace::of_gateway(&gateway())
}

pub fn endpoint(base_url: &str, write: WritePolicy) -> FhirEndpoint {
    let mut endpoint = FhirEndpoint::new(base_url, gateway(), namespace());
    endpoint.write = write;
    endpoint.request_timeout_ms = 20_000;
    endpoint
}

/// A client of a plain server on this machine.
pub fn plain_client(endpoint: FhirEndpoint) -> FhirClient {
    FhirClient::new(endpoint, Certificates::new(&["localhost"], false).client()).unwrap()
}

pub fn patient() -> PatientReference {
    PatientReference::Literal("Patient/4711".into())
}

pub fn reading(number: u64, patient: &PatientReference) -> Reading {
    let device = DeviceId::new("monitor-01").unwrap();
    let moment = UnixMs(1_795_341_600_120 + i64::try_from(number).unwrap() * 1_000);
    let received = Received { wall: moment, monotonic_ms: number, boot: BootId::from_bytes([7; 16]), trust: ClockTrust::Synchronised };
    Reading {
        id: ReadingId::from_device_sequence(&namespace(), &device, Metric::HeartRate, "", number, 0),
        device,
        metric: Metric::HeartRate,
        slot: 0,
        value: Value::Quantity(Quantity { value: 72.into(), unit: Unit::PerMinute }),
        reported: None,
        time: ReadingTime { device: Some(DeviceTime { unix_ms: moment, offset_minutes: Some(60) }), received, correction_ms: 0 },
        device_sequence: Some(number),
        flags: Flags::default(),
        subject: Subject::Patient(patient.clone()),
    }
}

pub fn batch_of(numbers: std::ops::RangeInclusive<u64>, mode: BatchMode, patient: &PatientReference) -> Batch {
    let item = |number| {
        let reading = reading(number, patient);
        Item { id: reading.id, panel: None, readings: vec![(Sequence(number), reading)] }
    };
    Batch { patient: patient.clone(), items: numbers.map(item).collect(), mode }
}

pub fn batch(mode: BatchMode) -> Batch {
    batch_of(1..=5, mode, &patient())
}

/// How many items the answer says are there.
pub fn accepted(answer: &Answer) -> usize {
    let Answer::Items(items) = answer else { return 0 };
    items.iter().filter(|item| matches!(item, ItemAnswer::Accepted { .. })).count()
}

pub fn is_transient(answer: &Answer) -> bool {
    matches!(answer, Answer::Transient { .. })
}
