//! Signed requests on sticks: each is done once.

use std::fs;
use std::path::PathBuf;

use vitalgate_layout::{Rejection, path, stick};
use vitalgate_site::{Action, Request, SignedBy, SiteRefusal, open_request};

use super::port::{Mounted, StickError, read_file};
use crate::machine;
use crate::places::Places;
use crate::state_file::{now_unix_ms, replace};

/// Ids of requests that were done: beside the boot loader, since a reset erases everything else.
const USED: &str = "vitalgate/used-requests";
/// Most ids that are remembered; older requests have expired long since.
const USED_MAX: usize = 256;

/// A request that may be carried out.
pub(crate) struct Taken {
    /// What is asked for.
    pub(crate) request: Request,
    /// By whom.
    pub(crate) signed_by: SignedBy,
    used: PathBuf,
}

impl Taken {
    /// Remembers that it is carried out; it is refused from now on.
    ///
    /// # Errors
    /// When that cannot be kept.
    pub(crate) fn remember(&self) -> std::io::Result<()> {
        let before = used(&self.used);
        let lines = before.iter().map(String::as_str).chain([self.request.id.as_str()]);
        let skip = (before.len() + 1).saturating_sub(USED_MAX);
        let text: String = lines.skip(skip).map(|id| format!("{id}\n")).collect();
        if let Some(folder) = self.used.parent() {
            fs::create_dir_all(folder)?;
        }
        replace(&self.used, text.as_bytes(), 0o600)
    }
}

fn used(file: &std::path::Path) -> Vec<String> {
    fs::read_to_string(file).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// Opens the request on a mounted stick.
///
/// # Errors
/// A refusal with its number.
pub(crate) fn take(places: &Places, mounted: &dyn Mounted, name: &str, actions: &[Action]) -> Result<Taken, SiteRefusal> {
    let bytes = match read_file(mounted.folder(), name, stick::SITE_FILE_BYTES_MAX) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return Err(SiteRefusal::new(Rejection::NotReadable, format!("there is no {name} on the stick"))),
        Err(StickError::TooLarge { .. }) => return Err(SiteRefusal::new(Rejection::TooLarge, "")),
        Err(error) => return Err(SiteRefusal::new(Rejection::NotReadable, error.to_string())),
    };
    let roots = machine::site_roots(places).map_err(|error| SiteRefusal::new(Rejection::NotApplied, error.to_string()))?;
    let (request, signed_by) = open_request(&bytes, &roots, &machine::serial(places), machine::today(places))?;
    if !actions.contains(&request.action) {
        return Err(SiteRefusal::new(Rejection::OtherPurpose, format!("it asks for {}", request.action)));
    }
    let file = places.at(path::ESP).join(USED);
    if used(&file).contains(&request.id) {
        return Err(SiteRefusal::new(Rejection::CarriedOut, ""));
    }
    Ok(Taken { request, signed_by, used: file })
}

/// Who reports, and when.
pub(crate) fn heading(places: &Places) -> String {
    format!("Vitalgate {} {}\n{}\n\n", machine::serial(places), machine::version(places), machine::moment(now_unix_ms()))
}

/// Why not, for a person.
pub(crate) fn refused_text(refusal: &SiteRefusal, places: &Places) -> String {
    let rejection = refusal.rejection();
    let mut text = format!("{}REFUSED ({}): {}\n", heading(places), rejection.code(), rejection.meaning());
    if !refusal.detail().is_empty() {
        text.push_str(&format!("{}\n", refusal.detail()));
    }
    text.push_str(&format!("What to do: {}\n", rejection.remedy()));
    for error in refusal.errors() {
        text.push_str(&format!("\n{error}\n"));
    }
    text
}
