//! A gateway and an EHR that lets in only whom it knows by a client certificate, as an appliance makes one.

// Helpers of tests are not test functions for clippy.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, IsCa, Issuer, KeyPair};
use vitalgate_domain::{DeviceId, GatewayId};
use vitalgate_e2e::{Publishers, Site};
use vitalgate_test_support::{ConfigText, DeviceLine, Ehr, EhrOptions, Oracle, wait_until};
use vitalgate_trust::ClientIdentity;

const DEADLINE: Duration = Duration::from_secs(60);
const GAP: Duration = Duration::from_millis(5);
/// Messages that are acknowledged in each part of a test.
const MESSAGES: usize = 10;
/// As the appliance calls it.
const CREDENTIAL: &str = "vitalgate-client-key";

fn identity() -> ClientIdentity {
    ClientIdentity::generate(&GatewayId::new("gateway-01").unwrap(), "VG-0001").unwrap()
}

/// An EHR that demands a certificate of this authority, or this very certificate.
async fn demanding(trusted_pem: &str) -> Ehr {
    Ehr::start(EhrOptions { client_ca_pem: Some(trusted_pem.to_owned()), ..EhrOptions::default() }).await.unwrap()
}

/// A gateway with one device that delivers to this EHR.
async fn gateway(ehr: &Ehr, configure: impl FnOnce(&mut ConfigText)) -> Site {
    let monitor = DeviceLine::mqtt(DeviceId::new("monitor-01").unwrap(), "Patient/p1");
    let destination = Some((ehr.base_url().to_owned(), Some(ehr.ca_file().to_owned())));
    let start = Site::start(vec![monitor], |config| {
        config.destination = destination;
        configure(config);
    });
    start.await.unwrap()
}

/// As the appliance configures it: the certificate in a file, the key in a credential of systemd's.
fn identified(config: &mut ConfigText, folder: &Path, certificate_pem: &str, identity: &ClientIdentity) {
    let file = folder.join("client-certificate.pem");
    std::fs::write(&file, certificate_pem).unwrap();
    std::fs::write(folder.join(CREDENTIAL), identity.key_pem.expose()).unwrap();
    config.more.retain(|(section, _)| section != "destination");
    config.more.push(("destination".to_owned(), format!("client_certificate_file = {file:?}\nclient_key_credential = {CREDENTIAL:?}")));
    config.credentials_dir = Some(folder.to_owned());
}

async fn acknowledged(site: &Site, oracle: &mut Oracle) {
    let mut publishers = Publishers::start(vec![site.monitor("monitor-01").unwrap()], GAP).unwrap();
    publishers.more(MESSAGES, DEADLINE).await.unwrap().iter().for_each(|message| oracle.acknowledged(message));
    publishers.finish(DEADLINE).await.unwrap().iter().for_each(|message| oracle.acknowledged(message));
}

/// What stands in the way stands in the status, in words that help: those for the server's alert, or, where the reset of the
/// connection overtook it, those that point to the certificate.
async fn stands_in_the_way(site: &Site, ehr: &Ehr) {
    let words = "client certificate";
    let what = format!("the status to say {words:?}");
    let told = wait_until(&what, DEADLINE, async || {
        let status = site.gateway.status().await.ok()?;
        status["destinations"][0]["alarm"].as_str().filter(|alarm| alarm.contains(words)).map(str::to_owned)
    });
    told.await.unwrap_or_else(|error| panic!("{error}\n{}", site.gateway.log_end()));
    assert!(ehr.observations().is_empty(), "something was delivered to an EHR that does not know the gateway");
}

/// An EHR that has the certificate by heart: nothing without it, and what is wanted is said; with it everything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ehr_that_knows_the_certificate_lets_the_gateway_in_and_nobody_else() {
    let identity = identity();
    let ehr = demanding(&identity.certificate_pem).await;
    let mut site = gateway(&ehr, |_| {}).await;
    let mut oracle = site.oracle().unwrap();
    acknowledged(&site, &mut oracle).await;
    stands_in_the_way(&site, &ehr).await;

    let folder = tempfile::tempdir().unwrap();
    site.gateway.terminate().await.unwrap();
    site.gateway.configure(|config| identified(config, folder.path(), &identity.certificate_pem, &identity)).unwrap();
    site.gateway.restart().await.unwrap();
    site.arrived_once("ehr", &ehr, &oracle).await.unwrap();
    acknowledged(&site, &mut oracle).await;
    site.arrived_once("ehr", &ehr, &oracle).await.unwrap();
}

/// An EHR that knows an authority: the certificate that stands for itself is not enough, the one that the authority made
/// of the request is; the key stays the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ehr_that_knows_an_authority_lets_in_what_it_made_of_the_request() {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "Hospital authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let authority_pem = params.self_signed(&key).unwrap().pem();
    let identity = identity();
    let request = CertificateSigningRequestParams::from_pem(&identity.request_pem).unwrap();
    let issued = request.signed_by(&Issuer::new(params, key)).unwrap().pem();

    let ehr = demanding(&authority_pem).await;
    let folder = tempfile::tempdir().unwrap();
    let mut site = gateway(&ehr, |config| identified(config, folder.path(), &identity.certificate_pem, &identity)).await;
    let mut oracle = site.oracle().unwrap();
    acknowledged(&site, &mut oracle).await;
    stands_in_the_way(&site, &ehr).await;

    site.gateway.terminate().await.unwrap();
    let chain = format!("{issued}{authority_pem}");
    site.gateway.configure(|config| identified(config, folder.path(), &chain, &identity)).unwrap();
    site.gateway.restart().await.unwrap();
    site.arrived_once("ehr", &ehr, &oracle).await.unwrap();
}

/// Promises 1 and 2: a destination that cannot be set up is named, and costs no reading. The devices are served meanwhile, and the first
/// start that can set it up delivers everything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_was_not_handed_over_is_named_and_costs_no_reading() {
    let identity = identity();
    let ehr = demanding(&identity.certificate_pem).await;
    let folder = tempfile::tempdir().unwrap();
    let mut site = gateway(&ehr, |config| identified(config, folder.path(), &identity.certificate_pem, &identity)).await;
    let mut oracle = site.oracle().unwrap();
    site.gateway.terminate().await.unwrap();
    // What the unit hands over where the site file asks for no certificate.
    std::fs::write(folder.path().join(CREDENTIAL), "none").unwrap();
    site.gateway.restart().await.unwrap();
    let alarm = alarm(&site).await;
    assert!(alarm.contains(CREDENTIAL) && alarm.contains("unencrypted private key"), "{alarm}");
    acknowledged(&site, &mut oracle).await;

    site.gateway.terminate().await.unwrap();
    site.gateway.configure(|config| config.credentials_dir = None).unwrap();
    site.gateway.restart().await.unwrap();
    let alarm = self::alarm(&site).await;
    assert!(alarm.contains("LoadCredentialEncrypted=vitalgate-client-key"), "{alarm}");
    acknowledged(&site, &mut oracle).await;

    site.gateway.terminate().await.unwrap();
    site.gateway.configure(|config| identified(config, folder.path(), &identity.certificate_pem, &identity)).unwrap();
    site.gateway.restart().await.unwrap();
    site.arrived_once("ehr", &ehr, &oracle).await.unwrap();
}

/// What stands in the way of the destination since the start.
async fn alarm(site: &Site) -> String {
    let status = site.gateway.status().await.unwrap();
    status["destinations"][0]["alarm"].as_str().unwrap_or_default().to_owned()
}
