//! The console: the state word, and where the page is. Often the technician's only view: lines on a
//! serial port, a drawn screen on a monitor.
//!
//! Each terminal is written by a thread of its own, so that one that stopped (flow control, a cable pulled)
//! holds up neither the other nor the page, the lights or the watchdog.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use vitalgate_layout::state::CONSOLE_PREFIX;

use crate::screen;
use crate::snapshot::Snapshot;
use crate::text::ascii;

/// Everything is said again after this time, for whoever just plugged in a cable.
pub(crate) const REPEAT: Duration = Duration::from_secs(60);
/// Longest line in characters.
const LINE_CHARS_MAX: usize = 240;
/// Prefix of the line with the page's address.
pub(crate) const PAGE_PREFIX: &str = "VITALGATE PAGE";
/// Prefix of the line with the key that signs reports.
pub(crate) const KEY_PREFIX: &str = "VITALGATE KEY";
/// Texts that wait for a slow terminal; more are dropped, the repetition brings them again.
const WAITING_MAX: usize = 16;

/// The line with the state word.
pub(crate) fn state_line(snapshot: &Snapshot) -> String {
    let overall = &snapshot.overall;
    let mut inside = overall.detail.clone();
    if let Some(code) = overall.code {
        inside = if inside.is_empty() { code.to_string() } else { format!("{code}: {inside}") };
    }
    if !overall.also.is_empty() {
        let words: Vec<_> = overall.also.iter().map(|word| word.word()).collect();
        let separator = if inside.is_empty() { "" } else { "; " };
        inside = format!("{inside}{separator}also {}", words.join(", "));
    }
    let head = format!("{CONSOLE_PREFIX} {}", overall.word);
    if inside.is_empty() { head } else { format!("{head} ({})", ascii(&inside, LINE_CHARS_MAX - head.len() - 3)) }
}

/// The line with the page's address and fingerprint; `None` while there is no page.
pub(crate) fn page_line(snapshot: &Snapshot) -> Option<String> {
    let certificate = snapshot.network.certificate.as_ref()?;
    let url = snapshot.network.urls.first()?;
    let kept = if certificate.kept { "" } else { " (temporary)" };
    Some(ascii(&format!("{PAGE_PREFIX} {url} SHA-256 {}{kept}", certificate.fingerprint), LINE_CHARS_MAX))
}

/// The line with the key that signs the appliance's reports; `None` while there is none.
pub(crate) fn key_line(snapshot: &Snapshot) -> Option<String> {
    let key = snapshot.identity.report_key.as_deref()?;
    Some(ascii(&format!("{KEY_PREFIX} {key}"), LINE_CHARS_MAX))
}

/// What was said last, and when.
#[derive(Debug, Default)]
pub(crate) struct Said {
    lines: Vec<String>,
    at: Option<Instant>,
}

impl Said {
    /// The lines to say now: those that changed, or all of them after [`REPEAT`].
    pub(crate) fn next(&mut self, snapshot: &Snapshot, now: Instant) -> Vec<String> {
        let lines: Vec<String> = std::iter::once(state_line(snapshot)).chain(page_line(snapshot)).chain(key_line(snapshot)).collect();
        let due = self.at.is_none_or(|at| now.duration_since(at) >= REPEAT);
        let said: Vec<String> = lines.iter().filter(|line| due || !self.lines.contains(line)).cloned().collect();
        if due {
            self.at = Some(now);
        }
        self.lines = lines;
        said
    }
}

/// A terminal, written by a thread of its own.
#[derive(Debug, Clone)]
struct Terminal(SyncSender<String>);

impl Terminal {
    fn start(write: impl Fn(&str) -> io::Result<()> + Send + 'static) -> io::Result<Self> {
        let (sender, texts) = sync_channel::<String>(WAITING_MAX);
        std::thread::Builder::new().name("terminal".into()).spawn(move || {
            for text in texts {
                // One that is not there now may be there later.
                let _ = write(&text);
            }
        })?;
        Ok(Self(sender))
    }

    /// Leaves it a text; drops that when the terminal has stopped.
    fn write(&self, text: String) {
        let _dropped = self.0.try_send(text);
    }
}

/// The terminals.
#[derive(Debug, Clone)]
pub(crate) struct Console {
    /// Standard output.
    lines: Terminal,
    /// Standard error, which is a screen as well where `-` is one.
    log: Terminal,
    screens: Vec<Terminal>,
}

impl Console {
    /// Starts their threads; `screens` are drawn besides the lines on standard output.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(crate) fn start(screens: Vec<PathBuf>) -> io::Result<Self> {
        let lines = Terminal::start(|text| write_to(&mut io::stdout().lock(), text))?;
        let log = Terminal::start(|text| write_to(&mut io::stderr().lock(), text))?;
        let screen = |screen: PathBuf| {
            if screen == Path::new("-") { Ok(log.clone()) } else { Terminal::start(move |text| draw(&screen, text)) }
        };
        let screens = screens.into_iter().map(screen).collect::<io::Result<_>>()?;
        Ok(Self { lines, log, screens })
    }

    /// Says what changed, or everything again; drops it when the terminal has stopped.
    pub(crate) fn tell(&self, said: &mut Said, snapshot: &Snapshot, now: Instant) {
        let lines = said.next(snapshot, now);
        if !lines.is_empty() {
            let drawn = screen::drawn(snapshot);
            self.screens.iter().for_each(|screen| screen.write(drawn.clone()));
        }
        for line in lines {
            self.lines.write(format!("{line}\n"));
        }
    }

    /// Says something for the log.
    pub(crate) fn log(&self, message: &str) {
        self.log.write(format!("{message}\n"));
    }
}

fn write_to(terminal: &mut impl Write, text: &str) -> io::Result<()> {
    terminal.write_all(text.as_bytes())?;
    terminal.flush()
}

fn draw(screen: &Path, text: &str) -> io::Result<()> {
    let flags = OFlag::O_NOCTTY | OFlag::O_NONBLOCK;
    OpenOptions::new().write(true).custom_flags(flags.bits()).open(screen)?.write_all(text.as_bytes())
}
