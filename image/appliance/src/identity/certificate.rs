//! A stick `CERTIFICATE`: brings the certificate that an authority issued for the appliance's key, and takes
//! the appliance's request along, for who has lost it or needs the next one.

use std::path::Path;

use anyhow::Context as _;
use vitalgate_layout::{Rejection, path, stick};
use vitalgate_site::{Action, Request, SiteRefusal, seal_report_text};
use vitalgate_trust::{ClientChain, ClientChainError};

use super::{ISSUED, OWN, Shown, chain, facts, in_service, say, shown};
use crate::command::{Call, Programs};
use crate::places::Places;
use crate::report;
use crate::state_file::{StateFiles, now_unix_ms, replace};
use crate::stick::{Mounted, heading, read_report, refused_below, take, write_file};
use crate::text::for_windows;

/// Takes the certificate of a mounted stick, if the request that it came in is signed and it is for this appliance.
///
/// # Errors
/// When it is refused, the stick is not writable, or the gateway cannot be restarted.
pub(crate) fn take_certificate(places: &Places, programs: &dyn Programs, mounted: Box<dyn Mounted>) -> anyhow::Result<()> {
    mounted.check_writable()?;
    let taken = take(places, &*mounted, stick::CERTIFICATE_REQUEST, &[Action::Certificate]);
    let kept = taken.and_then(|taken| keep(places, &taken.request).map(|()| taken));
    let text = match &kept {
        Ok(taken) => format!("{}ACCEPTED: signed by {}\n", heading(places), taken.signed_by),
        Err(refusal) => refused_below(refusal, places, || told_before(places, &*mounted)),
    };
    let told = tell(places, mounted.folder(), text).and_then(|()| Ok(mounted.finish()?));
    let states = StateFiles::of(places);
    let taken = match kept {
        Ok(taken) => taken,
        Err(refusal) => {
            // A stick that stays in through a restart is no news.
            if refusal.rejection() != Rejection::CarriedOut {
                let why = format!("CERTIFICATE refused ({}): {}", refusal.rejection().code(), refusal.exactly());
                say(&states, None, &why, facts(places))?;
            }
            told?;
            anyhow::bail!("CERTIFICATE: {refusal}");
        }
    };
    taken.remember().context("the request cannot be remembered as done")?;
    put_in_use(places, programs)?;
    say(&states, None, "the certificate on the stick CERTIFICATE is in use", facts(places))?;
    told
}

/// Keeps the certificate of a request, if the appliance can identify itself with it.
fn keep(places: &Places, request: &Request) -> Result<(), SiteRefusal> {
    let refused = |error: ClientChainError| SiteRefusal::new(Rejection::CertificateRefused, error.to_string());
    let not_applied = |why: String| SiteRefusal::new(Rejection::NotApplied, why);
    let folder = places.at(path::IDENTITY);
    let own = chain(&folder, OWN).filter(|_| shown(places).is_some());
    let Some(own) = own else {
        let why = "this appliance has no key for it: its site file has no destination with client_certificate = \"own\"";
        return Err(SiteRefusal::new(Rejection::CertificateRefused, why));
    };
    if !in_service(places) {
        return Err(not_applied("the appliance is not commissioned yet".to_owned()));
    }
    let issued = ClientChain::read(request.certificate_pem.as_deref().unwrap_or_default()).map_err(refused)?;
    issued.for_key_of(&own).map_err(refused)?;
    // A clock that was lost begins where the image was made, as for all that is signed.
    let now_ms = now_unix_ms().max(crate::machine::image_unix_ms(places));
    issued.valid_at(u64::try_from(now_ms / 1000).unwrap_or(0)).map_err(refused)?;
    let kept = replace(&folder.join(ISSUED), issued.pem.as_bytes(), 0o600);
    kept.map_err(|error| not_applied(format!("sealed storage does not take it ({error})")))
}

/// The report, signed, with what an authority or a server needs.
fn tell(places: &Places, folder: &Path, mut text: String) -> anyhow::Result<()> {
    if let Some(shown) = shown(places) {
        text.push_str(&described(&shown));
    }
    let signed = seal_report_text(&text, &report::key(places)?)?;
    Ok(write_file(&folder.join(stick::CERTIFICATE_REPORT), for_windows(&signed).as_bytes())?)
}

/// What the stick was told before, if it was by this appliance: it is signed once more.
fn told_before(places: &Places, mounted: &dyn Mounted) -> Option<String> {
    report::text_of_own(places, &read_report(mounted, stick::CERTIFICATE_REPORT)?)
}

fn described(shown: &Shown) -> String {
    format!(
        "\nThe appliance shows: {}\nissued by {}, until {}\nSHA-256 {}\n\n{}\nRequest for an authority:\n\n{}",
        shown.chain.subject,
        shown.issuer(),
        shown.until(),
        shown.fingerprint(),
        shown.chain.pem,
        shown.request
    )
}

/// Lets the daemon show it. What it is about to send waits in its store until it is back.
fn put_in_use(places: &Places, programs: &dyn Programs) -> anyhow::Result<()> {
    let shown = shown(places).context(super::MISSING)?;
    replace(&places.at(path::CLIENT_CERTIFICATE), shown.chain.pem.as_bytes(), 0o644)
        .context("the certificate cannot be handed to the gateway; restart the appliance")?;
    programs.run(Call::new("systemctl", "restart the appliance").arguments(["--no-block", "try-restart", "vitalgate.service"]))?;
    Ok(())
}
