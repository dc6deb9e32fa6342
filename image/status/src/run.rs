//! The process: looks every few seconds, renders, says the word, serves.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;
use nix::time::{ClockId, clock_gettime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use vitalgate_layout::state::{Part, PartState};
use vitalgate_layout::{StateWord, fact};

use crate::arguments::Arguments;
use crate::certificate::Keeper;
use crate::console::{Console, Said};
use crate::daemon::{self, Daemon, DaemonStatus};
use crate::led::Leds;
use crate::machine::Machine;
use crate::notify;
use crate::page::Rendered;
use crate::parts::Parts;
use crate::serve;
use crate::snapshot::{Found, Snapshot};

/// Mode of our state file.
const STATE_FILE_MODE: u32 = 0o644;
/// How often everything is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// An answer of the daemon stands for this long; a restart that is shorter does not show.
const ANSWER_STANDS: Duration = Duration::from_secs(10);

/// Runs until the process is asked to end.
///
/// # Errors
/// When the port is taken or the system gives no thread.
pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
    runtime.block_on(serve_and_look(arguments))
}

async fn serve_and_look(arguments: Arguments) -> anyhow::Result<()> {
    let listener = serve::bind(arguments.listen).await.with_context(|| format!("{} cannot be served", arguments.listen))?;
    let port = listener.local_addr().context("the listener has no address")?.port();
    let console = Console::start(arguments.screens.clone()).context("no thread for the console")?;
    let log = console.clone();
    let leds = Leds::start(arguments.leds.clone(), move |complaint| log.log(complaint)).context("no thread for the lights")?;
    let mut terminate = signal(SignalKind::terminate()).context("no signal handler")?;
    let (tls_sender, tls) = watch::channel(None);
    let (page_sender, pages) = watch::channel(Arc::new(Rendered::default()));
    let server = tokio::spawn(serve::serve(listener, tls, pages));
    let mut looker = Looker::new(arguments, port, console.clone());
    let mut said = Said::default();
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut first = true;
    while !server.is_finished() {
        tokio::select! {
            _ = ticks.tick() => {}
            // The lights become what they were.
            _ = terminate.recv() => return Ok(()),
        }
        let snapshot = looker.look().await;
        page_sender.send_replace(Arc::new(Rendered::of(&snapshot)));
        tls_sender.send_replace(looker.keeper.config());
        console.tell(&mut said, &snapshot, Instant::now());
        leds.tell(snapshot.overall.word);
        looker.write_own_state(&snapshot);
        notify::tell(if std::mem::take(&mut first) { "READY=1\nWATCHDOG=1" } else { "WATCHDOG=1" });
    }
    anyhow::bail!("the listener stopped")
}

/// What looks, and remembers what it saw of the daemon.
struct Looker {
    arguments: Arguments,
    port: u16,
    console: Console,
    started: Instant,
    keeper: Keeper,
    answered: Option<(Instant, DaemonStatus)>,
    /// When the parts first said that the daemon may run.
    may_run: Option<Instant>,
    own_state: Option<PartState>,
    complained: bool,
}

impl Looker {
    fn new(arguments: Arguments, port: u16, console: Console) -> Self {
        let started = Instant::now();
        let keeper = Keeper::new(arguments.certificate_folder.clone(), started);
        Self { arguments, port, console, started, keeper, answered: None, may_run: None, own_state: None, complained: false }
    }

    async fn look(&mut self) -> Snapshot {
        if let Some(message) = self.keeper.tend(Instant::now()) {
            self.console.log(&message);
        }
        let parts = Parts::read(&self.arguments.state_folder);
        let daemon = self.ask(&parts).await;
        let found = Found {
            parts,
            daemon,
            machine: Machine::look(&self.arguments),
            certificate: self.keeper.shown(),
            now_unix_ms: now_unix_ms(),
            up_s: self.started.elapsed().as_secs(),
            powered_s: powered_s(),
        };
        Snapshot::of(&found, self.port)
    }

    async fn ask(&mut self, parts: &Parts) -> Daemon {
        let answer = daemon::ask(self.arguments.daemon).await;
        let now = Instant::now();
        if parts.state(Part::Provision).is_some_and(|state| state.word == StateWord::Ready) {
            self.may_run.get_or_insert(now);
        }
        match answer {
            Ok(status) => {
                self.answered = Some((now, status.clone()));
                Daemon::Answers(Box::new(status))
            }
            Err(error) => match &self.answered {
                Some((at, status)) if now.duration_since(*at) < ANSWER_STANDS => Daemon::Answers(Box::new(status.clone())),
                answered => {
                    let since = answered.as_ref().map(|(at, _)| *at).or(self.may_run).unwrap_or(now);
                    Daemon::Silent { reason: format!("{error}"), for_s: now.duration_since(since).as_secs(), ever: answered.is_some() }
                }
            },
        }
    }

    /// Tells the other parts (the commissioning report) where the page is; written when it changes.
    fn write_own_state(&mut self, snapshot: &Snapshot) {
        let network = &snapshot.network;
        let Some(certificate) = &network.certificate else { return };
        let facts = [
            (fact::URL, network.urls.first().cloned().unwrap_or_default()),
            (fact::PORT, self.port.to_string()),
            (fact::FINGERPRINT, certificate.fingerprint.clone()),
            (fact::CERTIFICATE_ENDS, certificate.ends.clone()),
            (fact::CERTIFICATE, if certificate.kept { "kept" } else { "temporary" }.to_owned()),
        ];
        let state = PartState {
            word: StateWord::Ready,
            code: None,
            detail: String::new(),
            since_unix_ms: snapshot.as_of_unix_ms,
            facts: facts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        };
        if self.own_state.as_ref().is_some_and(|own| own.facts == state.facts) {
            return;
        }
        match replace(&self.arguments.state_file, &state) {
            Ok(()) => self.own_state = Some(state),
            // Tried again at the next look; the log gets it once.
            Err(error) if !std::mem::replace(&mut self.complained, true) => self.console.log(&format!("{error:#}")),
            Err(_) => {}
        }
    }
}

/// Replaces our state file: a reader finds the old one or the new one.
fn replace(path: &Path, state: &PartState) -> anyhow::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let write = || -> std::io::Result<()> {
        std::fs::write(&temporary, serde_json::to_vec(state)?)?;
        // Others read it, whatever mask the process was started with.
        std::fs::set_permissions(&temporary, Permissions::from_mode(STATE_FILE_MODE))?;
        std::fs::rename(&temporary, path)
    };
    write().with_context(|| format!("{} cannot be written", path.display()))
}

/// Seconds since power-on, sleep included; 0 where the kernel does not say.
fn powered_s() -> u64 {
    clock_gettime(ClockId::CLOCK_BOOTTIME).ok().and_then(|since| u64::try_from(since.tv_sec()).ok()).unwrap_or(0)
}

fn now_unix_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
