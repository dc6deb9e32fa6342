//! An appliance in service goes on with another site file: a `PROVISION` stick brings its successor.
//!
//! The stick is attended to twice. First the file is checked and kept, and the appliance restarts, so that a change
//! goes the way of every start. Once the gateway runs again, the same stick gets the signed report, and credentials
//! for the devices that are new; those of the others stay as they are. What is owed to the stick is kept on disk: a
//! power cut repeats the step that it met, and a stick that was pulled too early is plugged in once more.
//!
//! A successor takes nothing back that readings depend on: the gateway's name is part of their identity, a destination
//! that is gone would leave what waits for it without a way, and of a device at another patient it has to be said since
//! when. No site file comes back that was in service before: it may name patients of then.

use std::fs;
use std::io;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use vitalgate_layout::state::{Part, StateWord};
use vitalgate_layout::{Rejection, path, stick};
use vitalgate_site::{Site, SiteRefusal};

use super::accept::Offered;
use super::{Provisioning, is_commissioned};
use crate::boot::{Running, may_be_left, stay_with_this_version};
use crate::command::Programs;
use crate::gate::{Before, restart_in_order};
use crate::lock;
use crate::pause::pause;
use crate::places::Places;
use crate::site_file::{before, sha256};
use crate::state_file::{StateFiles, remove, replace};
use crate::stick::{ManagedSticks, Mounted, read_file};
use crate::{machine, report, self_test, site_file};

/// Said in service while report and credentials wait for their stick.
pub(super) const OWED: &str =
    "plug in the PROVISION stick with the site file in service: the report and new devices' credentials are waiting";
/// Said before the restart.
const ACCEPTED: &str = "the new site file is accepted; restarting with it, leave the PROVISION stick in";
/// Said where the stick has waited as long as it may.
const INSTALLING: &str = "an update is being installed; wait until the appliance has restarted, and plug the stick in again";
/// How long a stick waits for a trial, or an installation: where storage is open, the gate has decided long before.
pub(crate) const TRIAL_WAIT: Duration = Duration::from_secs(25 * 60);
/// How often it looks.
const TRIAL_LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// Most earlier site files that are remembered; older ones have expired long since.
const BEFORE_MAX: usize = 1_024;

/// Attends to a `PROVISION` stick on an appliance in service.
///
/// # Errors
/// When the file is refused, or the stick cannot be read or written.
pub(crate) fn in_service(places: &Places, programs: &dyn Programs, mounted: Box<dyn Mounted>) -> anyhow::Result<()> {
    if !is_commissioned(places) {
        // The steps that wait for it attend to it.
        return Ok(mounted.finish()?);
    }
    let step = Provisioning { programs, places, states: StateFiles::of(places), sticks: &ManagedSticks::of(places) };
    let offered = read_file(mounted.folder(), stick::SITE_FILE, stick::SITE_FILE_BYTES_MAX);
    match offered {
        Ok(Some(bytes)) if site_file::bytes(places).is_ok_and(|kept| kept == bytes) => step.pay(mounted),
        _ => step.change(mounted),
    }
}

/// Waits while the running version may be left for another, which would have to do with the site file that this one took, and while one
/// is installed.
pub(crate) fn wait_for_trial(places: &Places) {
    wait_while_judged(places, TRIAL_WAIT, || pause(TRIAL_LOOK_INTERVAL));
}

pub(super) fn wait_while_judged(places: &Places, wait: Duration, pause: impl Fn()) {
    let begun = Instant::now();
    while is_judged(places) && begun.elapsed() < wait {
        pause();
    }
}

/// Whether the running version may not be the one that goes on. Where there is none to go back to, it may be the stick that helps.
fn is_judged(places: &Places) -> bool {
    // From the copying to the restart; while it waits for clock or window the page says that it is ready.
    let updating = StateFiles::of(places).read(Part::Update).is_some_and(|state| state.word == StateWord::Updating);
    updating || lock::is_taken(places, path::CHANGE_LOCK) || Running::read(places).is_ok_and(|running| may_be_left(places, running))
}

/// The site file in service.
pub(super) struct InService {
    site: Site,
    sha256: String,
}

impl InService {
    /// `None` until the window is closed.
    pub(super) fn read(places: &Places) -> Result<Option<Self>, SiteRefusal> {
        if !is_commissioned(places) {
            return Ok(None);
        }
        let not_applied = |why: String| SiteRefusal::new(Rejection::NotApplied, why);
        // Its serial number is not looked at: a successor for a board that was replaced is the way back into service.
        let (site, _) = site_file::kept_for_any_serial(places).map_err(|error| not_applied(format!("{error:#}")))?;
        let bytes = site_file::bytes(places).map_err(|error| not_applied(format!("{error:#}")))?;
        Ok(Some(Self { site, sha256: sha256(&bytes) }))
    }

    /// Whether it may.
    pub(super) fn may_be_followed_by(&self, offered: &Offered, places: &Places) -> Result<(), SiteRefusal> {
        let mut obstacles = offered.site.obstacles_after(&self.site);
        if before(places).contains(&sha256(&offered.bytes)) {
            obstacles.push("it was in service before: if it is to come back, change expires and sign it again".to_owned());
        }
        if obstacles.is_empty() { Ok(()) } else { Err(SiteRefusal::new(Rejection::NoSuccessor, obstacles.join("; "))) }
    }

    /// The devices that need credentials once `offered` is in service, one a line: those that are new, and those that
    /// did not get theirs yet.
    pub(super) fn owed(&self, offered: &Offered, places: &Places) -> String {
        let owed = owed(places).unwrap_or_default();
        let needs =
            |device: &str| owed.lines().any(|line| line == device) || !self.site.publishing_devices().any(|known| known.as_str() == device);
        offered.site.publishing_devices().filter(|device| needs(device.as_str())).map(|device| format!("{device}\n")).collect()
    }

    /// An update that waits for its restart is not to be undone for what the new file changes: a device or destination that is gone, or
    /// is reached in another way.
    pub(super) fn expect_what_stays(&self, offered: &Offered, places: &Places) -> io::Result<()> {
        let Some(mut expected) = Before::read(places) else { return Ok(()) };
        let (now, then) = (&offered.site, &self.site);
        expected.devices.retain(|id| way_from(now, id).is_some_and(|way| Some(way) == way_from(then, id)));
        expected.destinations.retain(|id| way_to(now, id).is_some_and(|way| Some(way) == way_to(then, id)));
        expected.keep(places)
    }

    /// Itself and those before it, one a line.
    pub(super) fn and_those_before(&self, places: &Places) -> String {
        let before = before(places);
        let skip = (before.len() + 1).saturating_sub(BEFORE_MAX);
        before.iter().chain([&self.sha256]).skip(skip).map(|line| format!("{line}\n")).collect()
    }
}

/// How a device is reached; the patient has no part in that.
fn way_from<'a>(site: &'a Site, device: &str) -> Option<impl PartialEq + 'a> {
    let device = site.devices.iter().find(|known| known.id.as_str() == device)?;
    let endpoint = site.publishing_devices().any(|id| *id == device.id).then_some(&site.mqtt);
    Some((&site.networks, endpoint, &device.profile, &device.source))
}

/// How a destination is reached.
fn way_to<'a>(site: &'a Site, destination: &str) -> Option<impl PartialEq + 'a> {
    let known = site.destinations.iter().find(|known| known.id.as_str() == destination)?;
    let authorities = site.authorities.iter().find(|authority| authority.name == destination);
    let shows_itself = site.client_certificate_for.iter().any(|id| id == destination);
    Some((&site.networks, &known.kind, authorities, shows_itself))
}

/// The devices whose credentials are owed to a stick; `None` where nothing is, no report either.
fn owed(places: &Places) -> Option<String> {
    fs::read_to_string(places.at(path::OWED_TO_STICK)).ok()
}

impl Provisioning<'_> {
    /// Takes the successor and restarts with it, or says on stick and page why not.
    fn change(&self, mounted: Box<dyn Mounted>) -> anyhow::Result<()> {
        let roots = machine::site_roots(self.places)?;
        let kept = || fs::read(self.places.at(path::SITE_FILE)).ok();
        let before = kept();
        // Held until the restart is asked for, which would cut off an installation.
        let alone = lock::take(self.places, path::CHANGE_LOCK, Duration::ZERO)?;
        let taken = match &alone {
            Some(_alone) => self.take_mounted(&*mounted, &roots),
            None => Err(SiteRefusal::new(Rejection::NotApplied, INSTALLING)),
        };
        let taken = self.answer(mounted, taken);
        // A stick that was pulled too early has no report; what is kept is in service with the next start all the same.
        if let (Err(refusal), true) = (taken, kept() == before) {
            self.note(&format!("PROVISION refused ({}): {}", refusal.rejection().code(), refusal.exactly()))?;
            bail!("PROVISION: {refusal}");
        }
        crate::cli::say(ACCEPTED);
        self.note(ACCEPTED)?;
        // After the last try another version would have to do with the site file that this one took.
        stay_with_this_version(self.places);
        restart_in_order(self.programs);
        Ok(())
    }

    /// Gives the stick with the site file in service what is owed to it.
    fn pay(&self, mounted: Box<dyn Mounted>) -> anyhow::Result<()> {
        let Some(owed) = owed(self.places) else {
            crate::cli::say("the site file on the PROVISION stick is in service");
            return Ok(mounted.finish()?);
        };
        let site = site_file::kept(self.places)?;
        let key = report::key(self.places)?;
        let test = self_test::run(&site, self.places, self.programs);
        self_test::say(&test, &self.states)?;
        let devices = site.publishing_devices().filter(|device| owed.lines().any(|line| line == device.as_str()));
        let written = self.report_to(&*mounted, &site, &key, &test, devices).and_then(|json| Ok(mounted.finish().map(|()| json)?));
        let json = written.context("the report is not on the stick; plug it in once more").or_else(|error| {
            self.note(&format!("{error:#}"))?;
            Err(error)
        })?;
        replace(&self.places.at(path::COMMISSIONING_REPORT), json.as_bytes(), 0o600)?;
        // Certain before anybody is told: were the note to come back with a power cut, a device that works would get other credentials.
        remove(&self.places.at(path::OWED_TO_STICK))
            .context("what the stick has now stays noted as owed to it; restart the appliance and plug it in once more")?;
        self.say_step()
    }

    /// Says something beside the state, which stays.
    fn note(&self, detail: &str) -> anyhow::Result<()> {
        let Some(mut state) = self.states.read(Part::Provision) else { return Ok(()) };
        detail.clone_into(&mut state.detail);
        self.states.write(Part::Provision, &state).context("the state file cannot be written; restart the appliance")
    }
}
