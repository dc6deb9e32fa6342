//! An EHR that lets in only clients of the hospital's authority: nothing arrives until the appliance's request was signed
//! there and came back on a stick, then everything does, once.

use std::ffi::OsString;
use std::path::Path;

use vitalgate_layout::{StateWord, stick as labels};

use super::{Asked, READINGS_WITHIN, SERIAL, SOME, answered, exactly_once, folder, request_with};
use crate::appliance::{Appliance, Order, practice_for};
use crate::evidence::Evidence;
use crate::hospital_authority::HospitalAuthority;
use crate::image::{self, DISK_BYTES, Image};
use crate::machine::{Running, Surroundings};
use crate::practice::SiteOptions;
use crate::stick::Stick;

const CERTIFICATE: Asked = Asked { action: "certificate", label: labels::CERTIFICATE, file: labels::CERTIFICATE_REQUEST };

pub(super) async fn run(first: &Image, evidence: &mut Evidence) -> anyhow::Result<()> {
    let authority = HospitalAuthority::new(&folder(evidence, "hospital")?).await?;
    let practice = practice_for(Some(authority.pem()?)).await?;
    let site = practice.site_text_with(&SiteOptions { client_certificate: true, ..SiteOptions::default() })?;
    let order = Order { machine: "certificate-machine", disk_bytes: DISK_BYTES, site, surroundings: Surroundings::default() };
    let mut appliance = Appliance::commission_as(first, &order, practice, evidence).await?;

    let report = appliance.handed_over.join(labels::COMMISSIONING_REPORT);
    let (signing, shown) = (evidence.folder().join("appliance.csr"), evidence.folder().join("appliance.pem"));
    let out = image::imagectl(export(&report, &signing, &shown)).await;
    evidence.outcome("the commissioning report holds certificate and request of the appliance", out);

    let mut devices = appliance.devices()?;
    let mut running = appliance.boot(evidence).await?;
    devices.more(SOME, READINGS_WITHIN).await?;
    let wanted = |status: &serde_json::Value| status.to_string().contains("client certificate");
    let refused = appliance.status(&running, "that the EHR demands a client certificate", wanted).await;
    evidence.outcome("the page says that the EHR demands a client certificate", refused);
    evidence.check("readings are acknowledged and kept, none is in the EHR", appliance.practice.ehr.sightings().is_empty());

    let stranger = authority.issue_to_a_stranger().await?;
    let said = brought(&mut running, "stranger", &stranger, evidence).await?;
    evidence.check("a certificate for another key is refused (33)", said.contains("REFUSED (33)"));
    evidence.check("and still nothing is in the EHR", appliance.practice.ehr.sightings().is_empty());

    let issued = authority.issue(&signing, "issued.pem").await?;
    let said = brought(&mut running, "issued", &issued, evidence).await?;
    evidence.check("the authority's certificate is accepted", said.contains("ACCEPTED"));
    evidence.check("the report says who issued it", said.contains("Hospital of the boot tests"));
    devices.more(SOME, READINGS_WITHIN).await?;
    let ready = appliance.status(&running, "READY", |status| status["word"] == StateWord::Ready.word()).await;
    evidence.outcome("the EHR lets it in: READY", ready);
    running.cut().await?;

    let running = appliance.boot(evidence).await?;
    devices.more(SOME, READINGS_WITHIN).await?;
    // After a power cut it is still let in.
    exactly_once(&appliance, &mut devices, evidence).await?;
    running.cut().await
}

/// The line of the technician's tool that writes both to files.
fn export(report: &Path, signing: &Path, shown: &Path) -> [OsString; 7] {
    let file = |path: &Path| path.as_os_str().to_owned();
    ["report".into(), "verify".into(), file(report), "--csr".into(), file(signing), "--certificate".into(), file(shown)]
}

/// Brings a certificate on a stick; what the appliance says to it.
async fn brought(running: &mut Running, name: &str, certificate: &Path, evidence: &Evidence) -> anyhow::Result<String> {
    let file = evidence.folder().join(format!("{name}.request"));
    request_with(CERTIFICATE, SERIAL, &file, &["--certificate".into(), certificate.as_os_str().to_owned()]).await?;
    let stick = Stick::new(&evidence.folder().join(format!("{name}.img")), CERTIFICATE.label, &[(CERTIFICATE.file, &file)]).await?;
    let said = answered(running, &stick, labels::CERTIFICATE_REPORT).await?;
    evidence.say(&format!("to {name}: {}", said.lines().take(8).collect::<Vec<_>>().join(" | ")));
    Ok(said)
}
