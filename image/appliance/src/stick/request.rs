//! Signed requests on sticks: each is done once.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use vitalgate_layout::{Rejection, path, stick};
use vitalgate_site::{Action, Request, SignedBy, SiteRefusal, open_request};

use super::port::{Mounted, StickError, read_file, write_file};
use crate::machine;
use crate::places::Places;
use crate::state_file::{now_unix_ms, replace};
use crate::text::for_windows;

/// Ids of requests that were done: beside the boot loader, since a reset erases everything else.
const USED: &str = "vitalgate/used-requests";
/// Most ids that are remembered; older requests have expired long since.
const USED_MAX: usize = 256;
/// Largest report that is kept above a refusal, in bytes.
const REPORT_BYTES_MAX: u64 = 256 * 1024;
/// Stands between what became of a request and the refusal of the same one.
const ONCE_MORE: &str = "\n\n--- The same request once more: ---\n\n";
const NOT_READ: &str = "which requests were carried out already cannot be read on the boot partition";
const NOT_READ_REMEDY: &str = "power off and on; where that stays so, let it deliver what waits and flash the appliance anew";

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
    pub(crate) fn remember(&self) -> io::Result<()> {
        let before = used(&self.used)?;
        let lines = before.iter().map(String::as_str).chain([self.request.id.as_str()]);
        let skip = (before.len() + 1).saturating_sub(USED_MAX);
        let text: String = lines.skip(skip).map(|id| format!("{id}\n")).collect();
        if let Some(folder) = self.used.parent() {
            fs::create_dir_all(folder)?;
        }
        replace(&self.used, text.as_bytes(), 0o600)
    }
}

/// Ids of requests that were done. A list that is there and cannot be read is not an empty one: a `RESET` stick that was
/// left lying about would erase once more.
fn used(file: &Path) -> io::Result<Vec<String>> {
    match fs::read_to_string(file) {
        Ok(text) => Ok(text.lines().map(str::to_owned).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
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
    let unknown = |error| SiteRefusal::new(Rejection::NotApplied, format!("{NOT_READ} ({error}); {NOT_READ_REMEDY}"));
    if used(&file).map_err(unknown)?.contains(&request.id) {
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

/// Says on the stick why not, in the report of this name.
///
/// # Errors
/// When the stick does not take it.
pub(crate) fn tell_refused(refusal: &SiteRefusal, places: &Places, mounted: &dyn Mounted, report: &str) -> Result<(), StickError> {
    mounted.check_writable()?;
    let before = || read_report(mounted, report).map(|bytes| String::from_utf8_lossy(&bytes).replace("\r\n", "\n"));
    write_file(&mounted.folder().join(report), for_windows(&refused_below(refusal, places, before)).as_bytes())
}

/// Why not, below what stands in the report of before where the request was carried out: a stick that stays in through a restart asks
/// once more, and that must not wipe out how it ended.
pub(crate) fn refused_below(refusal: &SiteRefusal, places: &Places, before: impl FnOnce() -> Option<String>) -> String {
    let text = refused_text(refusal, places);
    match before().filter(|_| refusal.rejection() == Rejection::CarriedOut) {
        Some(before) => format!("{}{ONCE_MORE}{text}", before.split(ONCE_MORE).next().unwrap_or_default().trim_end()),
        None => text,
    }
}

/// A report that is on the stick.
pub(crate) fn read_report(mounted: &dyn Mounted, report: &str) -> Option<Vec<u8>> {
    read_file(mounted.folder(), report, REPORT_BYTES_MAX).ok().flatten()
}

#[cfg(test)]
mod tests {
    use vitalgate_layout::stick::SUPPORT_REQUEST;

    use super::*;
    use crate::stick::rig::Rig;

    /// Only a list that was never begun says that nothing was carried out.
    #[test]
    fn a_list_that_cannot_be_read_is_no_empty_one() {
        let rig = Rig::new();
        let list = rig.places.at(path::ESP).join(USED);
        let (_, mounted) = rig.stick("support", SUPPORT_REQUEST, &Rig::request(Action::Support, 7, 1));
        let taken = || take(&rig.places, &*mounted, SUPPORT_REQUEST, &[Action::Support]);
        let first = taken().ok().unwrap();
        fs::create_dir_all(list.parent().unwrap()).unwrap();
        fs::write(&list, [0xff; 33]).unwrap();
        let refusal = taken().err().unwrap();
        assert_eq!(refusal.rejection(), Rejection::NotApplied);
        assert!(refusal.detail().contains("flash the appliance anew"), "{refusal}");
        assert!(first.remember().is_err());
        assert_eq!(fs::read(&list).unwrap(), [0xff; 33], "what was there is not written over");

        fs::remove_file(&list).unwrap();
        first.remember().unwrap();
        assert_eq!(taken().err().unwrap().rejection(), Rejection::CarriedOut);
    }
}
