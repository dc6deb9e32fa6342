//! The first step: a site file is read, checked and kept, or refused with its number.

use anyhow::Context as _;
use vitalgate_layout::state::StateWord;
use vitalgate_layout::{Rejection, fact, path, stick};
use vitalgate_site::{PublicKey, SignedBy, Site, SiteRefusal, open_signed};

use super::successor::InService;
use super::{Provisioning, is_commissioned};
use crate::clock;
use crate::places::Places;
use crate::site_file::{NotTaken, OtherSerial};
use crate::state_file::{now_unix_ms, replace};
use crate::stick::{Mounted, Plugged, StickError, heading, read_file, refused_text, write_file};
use crate::{machine, site_file};

/// Told where the restart comes before the clock is set; it may be the time source that the file mends.
const CLOCK_UNSET: &str = "Note: the clock is not set; readings that wait for it have no moment any more after this restart\n";
const NOT_TAKEN: &str = "sealed storage does not take the site file";

/// A site file that was opened, and its bytes.
pub(super) struct Offered {
    pub(super) site: Site,
    pub(super) signed_by: SignedBy,
    pub(super) bytes: Vec<u8>,
}

/// Opens the site file of a mounted stick.
pub(crate) fn read_site(places: &Places, folder: &std::path::Path, roots: &[PublicKey]) -> Result<(Site, SignedBy), SiteRefusal> {
    offered(places, folder, roots).map(|offered| (offered.site, offered.signed_by))
}

fn offered(places: &Places, folder: &std::path::Path, roots: &[PublicKey]) -> Result<Offered, SiteRefusal> {
    let bytes = match read_file(folder, stick::SITE_FILE, stick::SITE_FILE_BYTES_MAX) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return Err(SiteRefusal::new(Rejection::NotReadable, format!("there is no {} on the stick", stick::SITE_FILE))),
        Err(StickError::TooLarge { .. }) => return Err(SiteRefusal::new(Rejection::TooLarge, "")),
        Err(error) => return Err(SiteRefusal::new(Rejection::NotReadable, error.to_string())),
    };
    let (site, signed_by) = open_signed(&bytes, roots, &machine::serial(places), site_file::day_for(places, &bytes))?;
    Ok(Offered { site, signed_by, bytes })
}

impl Provisioning<'_> {
    /// Waits until a site file is kept.
    pub(super) fn accept(&self) -> anyhow::Result<()> {
        site_file::mend(self.places);
        if !site_file::is_kept(self.places) {
            let roots = machine::site_roots(self.places)?;
            self.say(StateWord::AwaitProvision, None, "plug in a stick labelled PROVISION", self.bare_facts())?;
            let mut tried = None;
            loop {
                let stick = self.next_stick(stick::PROVISION, &mut tried);
                match self.take(&stick, &roots) {
                    Ok(()) => break,
                    Err(refusal) => self.refuse(&refusal)?,
                }
            }
        }
        self.say_step().inspect_err(|error| {
            let (rejection, detail) = if error.is::<OtherSerial>() {
                (Rejection::OtherSerial, error.to_string())
            } else if error.is::<NotTaken>() {
                (Rejection::ErrorsInText, error.to_string())
            } else {
                (Rejection::NotApplied, format!("{error:#}; {}", Rejection::NotApplied.remedy()))
            };
            // The step fails with the error itself, which the journal shows.
            let _ = self.say(StateWord::ProvisionRejected, Some(rejection.code()), &detail, self.bare_facts());
        })
    }

    fn bare_facts(&self) -> std::collections::BTreeMap<String, String> {
        std::collections::BTreeMap::from([(fact::SERIAL.to_owned(), machine::serial(self.places))])
    }

    pub(super) fn refuse(&self, refusal: &SiteRefusal) -> anyhow::Result<()> {
        crate::cli::say(&refusal.to_string());
        let rejection = refusal.rejection();
        self.say(
            StateWord::ProvisionRejected,
            Some(rejection.code()),
            &format!("{}; {}", refusal.exactly(), rejection.remedy()),
            self.bare_facts(),
        )
    }

    /// Takes the site file of a stick, or says on the stick why not.
    pub(super) fn take(&self, stick: &Plugged, roots: &[PublicKey]) -> Result<(), SiteRefusal> {
        let mounted = self.sticks.mount(stick).map_err(|error| SiteRefusal::new(Rejection::NotReadable, error.to_string()))?;
        self.take_from(mounted, roots)
    }

    /// The same from a mounted stick.
    pub(super) fn take_from(&self, mounted: Box<dyn Mounted>, roots: &[PublicKey]) -> Result<(), SiteRefusal> {
        let taken = self.take_mounted(&*mounted, roots);
        self.answer(mounted, taken)
    }

    /// Says on the stick why it was refused, and lets go of it.
    pub(super) fn answer(&self, mounted: Box<dyn Mounted>, taken: Result<(), SiteRefusal>) -> Result<(), SiteRefusal> {
        if let Err(refusal) = &taken {
            let told = mounted.check_writable().and_then(|()| self.tell(&*mounted, &refused_text(refusal, self.places)));
            if let Err(error) = told {
                crate::cli::say(&format!("the report is not on the stick: {error}"));
            }
        }
        let finished = mounted.finish();
        taken.and_then(|()| finished.map_err(not_writable))
    }

    pub(super) fn take_mounted(&self, mounted: &dyn Mounted, roots: &[PublicKey]) -> Result<(), SiteRefusal> {
        let offered = offered(self.places, mounted.folder(), roots)?;
        if !self.storage_suits(&offered.site) {
            return Err(SiteRefusal::new(Rejection::NoSealedStorage, ""));
        }
        let before = match InService::read(self.places) {
            // Damaged on the disk, and here it is again.
            Err(_) if site_file::is_in_service(self.places, &offered.bytes) => None,
            read => Some(read?),
        };
        before.iter().flatten().try_for_each(|before| before.may_be_followed_by(&offered, self.places))?;
        mounted.check_writable().and_then(|()| self.tell(mounted, &accepted_text(&offered, self.places))).map_err(not_writable)?;
        let kept = match before {
            Some(before) => self.keep(&offered, before.as_ref()),
            None => site_file::keep(self.places, &offered.bytes, site_file::accepted_or_now(self.places)).context(NOT_TAKEN),
        };
        kept.map_err(|error| SiteRefusal::new(Rejection::NotApplied, format!("{error:#}")))
    }

    fn keep(&self, offered: &Offered, before: Option<&InService>) -> anyhow::Result<()> {
        let put = |file: &str, bytes: &[u8]| replace(&self.places.at(file), bytes, 0o600).context(NOT_TAKEN);
        if let Some(before) = before {
            put(path::OWED_TO_STICK, before.owed(offered, self.places).as_bytes())?;
            before.expect_what_stays(offered, self.places).context(NOT_TAKEN)?;
            put(path::SITE_FILES_BEFORE, before.and_those_before(self.places).as_bytes())?;
        }
        site_file::keep(self.places, &offered.bytes, now_unix_ms()).context(NOT_TAKEN)
    }

    fn tell(&self, mounted: &dyn Mounted, text: &str) -> Result<(), StickError> {
        write_file(&mounted.folder().join(stick::PROVISION_REPORT), crate::text::for_windows(text).as_bytes())
    }
}

fn not_writable(error: StickError) -> SiteRefusal {
    SiteRefusal::new(Rejection::StickNotWritable, error.to_string())
}

fn accepted_text(offered: &Offered, places: &Places) -> String {
    let mut text = format!("{}ACCEPTED: {}, signed by {}\n", heading(places), offered.site.name, offered.signed_by);
    for warning in offered.site.warnings() {
        text.push_str(&format!("Note: {warning}\n"));
    }
    if is_commissioned(places) && clock::is_unset(places) {
        text.push_str(CLOCK_UNSET);
    }
    text.push_str("Leave the stick in: the commissioning report and the devices' credentials follow.\n");
    text
}
