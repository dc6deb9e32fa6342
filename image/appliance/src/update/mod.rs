//! Updates by stick and from the configured server.
//!
//! The updater (RAUC) checks the signature, writes the other slot and calls this program back by the
//! names `bootchooser` and `pre-install`. Here is what comes before and after: whether a bundle is
//! wanted, when, what the gate will expect of it, and what a person reads of it. A bundle is copied to
//! sealed storage first, so that a stick may be pulled and a connection may break.

mod bundle;
mod by_hand;
mod fetch;
mod install;
mod refused;
mod report;
mod server;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use vitalgate_layout::state::{Part, StateWord};
use vitalgate_layout::{Version, fact, path};
use vitalgate_site::{Site, Update, Window};

use crate::boot::{COMPATIBLE, Esp, Mounted, Running, data_is_open, may_be_left, show_anew, stay_with_this_version, undone, version_floor};
use crate::cli::{say, say_error};
use crate::clock;
use crate::command::{Programs, System};
use crate::gate::{Before, keep_before, renew_before, restart_in_order, wait_until_settled};
use crate::lock;
use crate::pause::pause;
use crate::places::Places;
use crate::room;
use crate::site_file;
use crate::state_file::{Said, StateFiles, now_unix_ms};
use crate::storage::CHECKS_DEADLINE_S;

pub(crate) use fetch::{Wanted, fetch};

use bundle::{Offer, Refused};
use install::{InstallError, Installer, Rauc};
use report::{begin_report, is_anew, write_report};

/// Most bundles on a stick that are looked at.
const STICK_BUNDLES_MAX: usize = 16;
/// How long an update waits: for sealed storage, for the running version to show that it is healthy, and for a new site file to be taken.
const START_WAIT: Duration = Duration::from_secs(25 * 60);
/// How much longer while the file system of sealed storage is being mended.
const CHECKS_DEADLINE: Duration = Duration::from_secs(CHECKS_DEADLINE_S);
/// What a restart waits for that would take their moment from readings.
const CLOCK: &str = "the clock to be set";
/// How often it looks.
const START_LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// How to look for an update.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Where to look.
    #[command(subcommand)]
    source: Source,
}

/// Where to look for an update; a stick is looked at when it is plugged in.
#[derive(Debug, Clone, Copy, clap::Subcommand)]
enum Source {
    /// On the server that the site file names.
    Server,
}

/// Looks for an update.
pub(crate) fn update(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    match arguments.source {
        Source::Server => Updater::system()?.install_from_server()?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Installs from a mounted stick, and leaves a report on it where it can be written.
pub(crate) fn from_stick(stick: &Path) -> anyhow::Result<()> {
    Updater::system()?.install_from_stick(stick)
}

/// An update that is wanted, with the programs that it takes.
struct Updater<P, I> {
    places: Places,
    programs: P,
    installer: I,
    restart: fn(),
    start_wait: Duration,
    pause: fn(Duration),
    now_unix_ms: fn() -> i64,
    free_mib: fn(&Path) -> io::Result<u64>,
}

impl Updater<System, Rauc> {
    fn system() -> anyhow::Result<Self> {
        Ok(Self {
            places: Places::system(),
            programs: System,
            installer: Rauc,
            restart: || restart_in_order(&System),
            start_wait: START_WAIT,
            pause,
            now_unix_ms,
            free_mib: room::free_mib,
        })
    }
}

impl<P: Programs, I: Installer> Updater<P, I> {
    /// A technician stands before the appliance: installed and restarted at once.
    fn install_from_stick(&self, stick: &Path) -> anyhow::Result<()> {
        let running = Running::read(&self.places)?;
        let lock = self.lock().inspect_err(|error| self.turn_away(stick, running, error))?;
        self.wait_for_start(running);
        let anew = is_anew(stick);
        let outcome = if self.may_be_left(running) {
            Err(anyhow::anyhow!("version {} has not shown yet that it is healthy; plug the stick in again when it has", running.version))
        } else {
            self.try_stick(stick, running)
        };
        let restarts = matches!(&outcome, Ok(Outcome::Installed(offer, _)) if self.wait_for_clock(offer.version));
        let result = match &outcome {
            Ok(Outcome::Installed(offer, before)) if restarts => format!(
                "version {} is installed; the appliance restarts now. It keeps the new version if that is healthy and {} devices and {} destinations are there again, and returns to {} by itself if not. Leave the stick in to read the outcome here.",
                offer.version,
                before.devices.len(),
                before.destinations.len(),
                running.version
            ),
            Ok(Outcome::Installed(offer, _)) => format!(
                "version {} is installed and waits for {CLOCK}: a restart now would take their moment from readings that wait for it. Plug the stick in again when it is set; if it cannot be, power off and on",
                offer.version
            ),
            Ok(Outcome::Nothing(said)) => said.clone(),
            Err(error) => format!("not installed: {error:#}"),
        };
        // Whatever else came of it is to be tried again.
        let is_done = restarts || matches!(outcome, Ok(Outcome::Nothing(_)));
        self.report(stick, running, &result, anew && !is_done);
        drop(lock);
        if restarts {
            (self.restart)();
        } else {
            self.say_state(StateWord::Ready, &result, BTreeMap::new());
        }
        outcome.map(|_outcome| ())
    }

    /// Tells a stick that came while another update is under way, such as the server's download.
    fn turn_away(&self, stick: &Path, running: Running, error: &anyhow::Error) {
        let result = format!("not installed: {error:#}, and plug the stick in again");
        self.report(stick, running, &result, is_anew(stick));
        // How far an installation is stays on the page.
        if StateFiles::of(&self.places).read(Part::Update).is_none_or(|state| state.word != StateWord::Updating) {
            self.say_state(StateWord::Ready, &result, BTreeMap::new());
        }
    }

    /// Says on stick and console what became of a stick.
    fn report(&self, stick: &Path, running: Running, result: &str, put_off: bool) {
        say(result);
        let gateway = site_file::kept(&self.places).map_or_else(|_none| "not commissioned".to_owned(), |site| site.gateway.to_string());
        if let Err(error) = write_report(stick, running, &gateway, result, put_off) {
            say_error(&error.into());
        }
    }

    fn try_stick(&self, stick: &Path, running: Running) -> anyhow::Result<Outcome> {
        let mut refusals = Vec::new();
        let mut newest: Option<(Offer, PathBuf)> = None;
        for bundle in bundles(stick)? {
            match Offer::read(&self.programs, &bundle).and_then(Offer::for_this_machine) {
                Ok(offer) if newest.as_ref().is_none_or(|(best, _)| best.version < offer.version) => newest = Some((offer, bundle)),
                Ok(_older) => {}
                Err(refusal) => refusals.push(format!("{}: {refusal}", name_of(&bundle))),
            }
        }
        // Never the next older one instead: the stick stays in, and each would replace the other at every start.
        let wanted = newest.filter(|(offer, bundle)| {
            let checked = self.check(offer, running, begin_report(stick));
            match &checked {
                Ok(()) => {}
                Err(Refused::Running(version)) => refusals.push(format!("version {version} is running and is kept")),
                Err(refusal) => refusals.push(format!("{}: {refusal}", name_of(bundle))),
            }
            checked.is_ok()
        });
        let Some((offer, bundle)) = wanted else {
            let none = format!("no update on the stick: put the bundle ({COMPATIBLE}-VERSION.raucb) into its top folder");
            return Ok(Outcome::Nothing(if refusals.is_empty() { none } else { refusals.join("; ") }));
        };
        self.say_state(StateWord::Updating, &format!("copying {}", offer.version), BTreeMap::new());
        self.storage_is_open()?;
        self.forget_bundle();
        server::forget(&self.programs, &self.places);
        let unreadable = || format!("{} cannot be copied", name_of(&bundle));
        let free_mib = self.free_mib()?;
        let kept_free_mib = room::kept_free_mib_by_hand(site_file::kept(&self.places).ok().as_ref(), free_mib);
        room::check(free_mib, kept_free_mib, fs::metadata(&bundle).with_context(unreadable)?.len())?;
        server::take_over(&bundle, &self.places.at(path::UPDATE_BUNDLE)).with_context(unreadable)?;
        if offer.version < running.version {
            by_hand::leave(&self.places, running.version).context("sealed storage does not take which version is left")?;
        }
        let before = self.install(&offer)?;
        Ok(Outcome::Installed(offer, before))
    }

    /// Nobody waits: installed within the maintenance window only.
    fn install_from_server(&self) -> anyhow::Result<()> {
        if !site_file::is_kept(&self.places) {
            say("no site file: no server to ask");
            return Ok(());
        }
        let site = site_file::kept(&self.places)?;
        // Before the lock: a stick waits by itself.
        self.wait_for_start(Running::read(&self.places)?);
        let _under_way = self.lock()?;
        // What a power cut left takes room from readings.
        server::forget(&self.programs, &self.places);
        let Some(update) = &site.update else {
            self.forget_bundle();
            say("the site file names no update server");
            return Ok(());
        };
        let installed = self.try_server(&site, update);
        match &installed {
            Ok(true) => (self.restart)(),
            Ok(false) => {}
            // Nobody stands before it: the page says why nothing comes.
            Err(error) => self.say_state(StateWord::Ready, &format!("no update from the server: {error:#}"), BTreeMap::new()),
        }
        installed.map(|_restarts| ())
    }

    /// Whether something was installed that starts now.
    fn try_server(&self, site: &Site, update: &Update) -> anyhow::Result<bool> {
        if self.places.at(path::UPDATE_BUNDLE).exists() {
            // It may wait for days, the server out of reach like the destinations; readings go first.
            room::check(self.free_mib()?, room::kept_free_mib(Some(site)), 0).inspect_err(|_none| self.forget_bundle())?;
        }
        let running = Running::read(&self.places)?;
        if self.may_be_left(running) {
            say("the running version has not shown yet that it is healthy: no update before that");
            return Ok(false);
        }
        if let Some(version) = self.installed(running) {
            let starts = self.starts_now(site, version);
            // What was there at the installation is days old by now; it does where nothing newer can be kept.
            let kept = if starts { renew_before(&self.places, &self.programs) } else { Ok(()) };
            let _ = kept.map_err(|error| say_error(&error.into()));
            return Ok(starts);
        }
        let list = server::list(&self.programs, &self.places, update)?;
        let Some(listed) = server::newest(&list).filter(|listed| listed.version > running.version) else {
            self.forget_bundle();
            self.say_state(StateWord::Ready, "", BTreeMap::new());
            say("nothing newer on the server");
            return Ok(false);
        };
        // What would be refused anyway is not fetched again every hour.
        let listed_offer = Offer { compatible: COMPATIBLE.to_owned(), version: listed.version };
        self.check(&listed_offer, running, false).inspect_err(|_refusal| self.forget_bundle())?;
        self.storage_is_open()?;
        if let Some(reason) = refused::why(&self.places, &listed, running.version, (self.now_unix_ms)()) {
            self.forget_bundle();
            bail!("{reason}. It is fetched again when the server lists another, or after a day");
        }
        let offer = match self.fetched(site, update, &listed).inspect_err(|_error| self.forget_bundle())? {
            Ok(offer) => offer,
            Err(refusal) => return Err(self.refuse(&listed, running, refusal)),
        };
        self.check(&offer, running, false).map_err(|refusal| self.refuse(&listed, running, refusal.into()))?;
        if let Err(wait) = self.may_restart(site.maintenance.as_ref(), (self.now_unix_ms)()) {
            self.say_waiting(&format!("version {} is ready and waits for {wait}", offer.version));
            return Ok(false);
        }
        self.install(&offer).map_err(|error| {
            let error = error.context(format!("version {} was not installed", offer.version));
            // Refused like one that does not fit. Where the updater never came to that, the next look tries again.
            let is_refused = matches!(error.downcast_ref(), Some(InstallError::Failed(_)));
            if is_refused { self.refuse(&listed, running, error) } else { error }
        })?;
        Ok(self.starts_now(site, offer.version))
    }

    /// The version that starts next and has not run yet, where there is one.
    fn installed(&self, running: Running) -> Option<Version> {
        let disk = Mounted::at(&self.places.at(path::ESP));
        let esp = Esp::on(&disk);
        let next = esp.entries().ok()?.into_iter().next().filter(|entry| entry.slot != running.slot && entry.is_good())?;
        esp.trial()?.is_of(next.slot, next.version).then_some(next.version)
    }

    /// Whether what is installed starts now; installing may have taken until after the window.
    fn starts_now(&self, site: &Site, version: Version) -> bool {
        let may = self.may_restart(site.maintenance.as_ref(), (self.now_unix_ms)());
        match &may {
            Ok(()) => self.say_restarting(version),
            Err(wait) => self.say_waiting(&format!("version {version} is installed and waits for {wait}")),
        }
        may.is_ok()
    }

    /// The listed bundle, from where it was put earlier or from the server; or why it is refused now that it is here.
    fn fetched(&self, site: &Site, update: &Update, listed: &server::Listed) -> anyhow::Result<anyhow::Result<Offer>> {
        let bundle = self.places.at(path::UPDATE_BUNDLE);
        if let Some(offer) = Offer::read(&self.programs, &bundle).ok().filter(|offer| offer.version == listed.version) {
            return Ok(Ok(offer));
        }
        self.forget_bundle();
        let is_listed = server::get(&self.programs, &self.places, update, listed, room::kept_free_mib(Some(site)))?;
        Ok(if is_listed { self.is_what_its_name_says(&bundle, listed) } else { Err(listed.is_another()) })
    }

    /// The list is only a hint: an older version under a newer one's name is no update.
    fn is_what_its_name_says(&self, bundle: &Path, listed: &server::Listed) -> anyhow::Result<Offer> {
        let offer = Offer::read(&self.programs, bundle)?;
        if offer.version != listed.version {
            bail!("the server's file for version {} holds version {}; put the release there anew", listed.version, offer.version);
        }
        Ok(offer)
    }

    /// What was fetched in vain takes no room, and is not fetched again every hour.
    fn refuse(&self, listed: &server::Listed, running: Running, refusal: anyhow::Error) -> anyhow::Error {
        self.forget_bundle();
        if let Err(error) = refused::note(&self.places, listed, running.version, &format!("{refusal:#}"), (self.now_unix_ms)()) {
            say(&format!("what was refused cannot be noted, and is fetched again ({error})"));
        }
        refusal
    }

    fn check(&self, offer: &Offer, running: Running, asked: bool) -> Result<(), Refused> {
        let disk = Mounted::at(&self.places.at(path::ESP));
        let undone = undone(&self.places, &Esp::on(&disk), running).map_err(|error| Refused::NotForThis(error.to_string()))?;
        offer.check(running, version_floor(&self.places), undone.as_ref(), by_hand::left(&self.places), asked)
    }

    /// Whether an update that nobody waits for may restart the appliance now; else, for what it waits.
    fn may_restart(&self, window: Option<&Window>, now_unix_ms: i64) -> Result<(), String> {
        if clock::is_unset(&self.places) {
            // A restart before that takes their moment from readings that wait for the clock, and there is no knowing when a window is.
            return Err(CLOCK.to_owned());
        }
        let Some(window) = window else { return Ok(()) };
        if window.is_open(now_unix_ms) { Ok(()) } else { Err(window.to_string()) }
    }

    /// Waits until a restart takes their moment from no readings; whether it takes none now. Without a site file none wait.
    fn wait_for_clock(&self, version: Version) -> bool {
        let begun = Instant::now();
        let waits = || clock::is_unset(&self.places) && site_file::is_kept(&self.places);
        if waits() {
            self.say_waiting(&format!("version {version} is installed and waits for {CLOCK}"));
        }
        while waits() {
            if begun.elapsed() >= self.start_wait {
                return false;
            }
            (self.pause)(START_LOOK_INTERVAL);
        }
        self.say_restarting(version);
        true
    }

    fn storage_is_open(&self) -> anyhow::Result<()> {
        if !data_is_open(&self.places) {
            bail!("sealed storage is closed; open it first (stick RECOVERY)");
        }
        Ok(())
    }

    fn free_mib(&self) -> anyhow::Result<u64> {
        (self.free_mib)(&self.places.at(path::DATA)).context("the free space is not known")
    }

    fn forget_bundle(&self) {
        // What stays is copied over, or forgotten at the next look.
        let _ = fs::remove_file(self.places.at(path::UPDATE_BUNDLE));
    }

    /// Installs what was copied, and takes the copy away, whatever became of it.
    fn install(&self, offer: &Offer) -> anyhow::Result<Before> {
        let installed = self.install_copy(offer);
        self.forget_bundle();
        // What was in the other slot is gone, also where the installation failed.
        if let Err(error) = show_anew(&self.places) {
            say_error(&error);
        }
        installed
    }

    fn install_copy(&self, offer: &Offer) -> anyhow::Result<Before> {
        wait_until_settled(&self.places, &self.programs, |pause| {
            self.say_state(StateWord::Updating, &format!("{} waits until the gateway knows what is there", offer.version), BTreeMap::new());
            (self.pause)(pause);
        });
        let alone = lock::take(&self.places, path::CHANGE_LOCK, self.start_wait)?;
        let _alone = alone.context("a new site file is being taken; try again once it is in service")?;
        // It is left on purpose, and is what the new one goes back to.
        stay_with_this_version(&self.places);
        let before = keep_before(&self.places, &self.programs).context("what the new version must reach cannot be kept")?;
        say(&format!(
            "installing {}; {} devices and {} destinations are there",
            offer.version,
            before.devices.len(),
            before.destinations.len()
        ));
        let bundle = self.places.at(path::UPDATE_BUNDLE);
        self.installer.install(&bundle, &mut |percent, what| {
            let facts =
                BTreeMap::from([(fact::VERSION.to_owned(), offer.version.to_string()), (fact::PERCENT.to_owned(), percent.to_string())]);
            self.say_state(StateWord::Updating, &format!("installing {}: {percent} %, {what}", offer.version), facts);
        })?;
        Ok(before)
    }

    /// An update may be there before the start is over. Installing on trial would overwrite the only way back.
    fn wait_for_start(&self, running: Running) {
        let begun = Instant::now();
        let mut mended = begun;
        loop {
            let closed = !data_is_open(&self.places);
            let said = StateFiles::of(&self.places).read(Part::Data).map(|state| state.word);
            let mending = closed && said == Some(StateWord::Selftest) && begun.elapsed() < CHECKS_DEADLINE;
            let waits = (closed && said != Some(StateWord::Tamper)) || self.may_be_left(running);
            if mending {
                // All else has its time after that.
                mended = Instant::now();
            } else if !waits || mended.elapsed() >= self.start_wait {
                return;
            }
            (self.pause)(START_LOOK_INTERVAL);
        }
    }

    fn may_be_left(&self, running: Running) -> bool {
        may_be_left(&self.places, running)
    }

    fn lock(&self) -> anyhow::Result<File> {
        let lock = lock::take(&self.places, path::UPDATE_LOCK, Duration::ZERO)?;
        lock.context("another update is under way; wait until it has ended")
    }

    fn say_restarting(&self, version: Version) {
        self.say_state(StateWord::Updating, &format!("{version} is installed, restarting"), BTreeMap::new());
    }

    fn say_waiting(&self, detail: &str) {
        say(detail);
        self.say_state(StateWord::Ready, detail, BTreeMap::new());
    }

    fn say_state(&self, word: StateWord, detail: &str, facts: BTreeMap<String, String>) {
        let said = Said { facts, ..Said::new(word, detail) };
        if let Err(error) = StateFiles::of(&self.places).say(Part::Update, said) {
            say(&format!("the state of the update cannot be written ({error})"));
        }
    }
}

/// What became of a stick.
enum Outcome {
    /// It starts next.
    Installed(Offer, Before),
    /// Nothing to do, and why.
    Nothing(String),
}

fn bundles(stick: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let listed = fs::read_dir(stick).context("the stick cannot be read; format it as FAT and copy the bundle again")?;
    let mut found: Vec<PathBuf> = listed
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("raucb")))
        // What other systems leave beside a copied file.
        .filter(|path| !name_of(path).starts_with('.'))
        .collect();
    if found.len() > STICK_BUNDLES_MAX {
        bail!(
            "the stick holds {} bundles, and at most {STICK_BUNDLES_MAX} are looked at; leave on it what you want to install",
            found.len()
        );
    }
    found.sort();
    Ok(found)
}

fn name_of(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
