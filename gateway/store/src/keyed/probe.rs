//! Runs what may bring a process down where it cannot: in a child process that the embedding
//! program lends, else on a thread that can be given up.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use vitalgate_domain::Sequence;

use super::layout::Trees;
use super::look;
use crate::copy::{Ordinal, Watermark};

/// Program and first arguments of a child process that ends up in [`serve_probe`] with what
/// follows them; `None` makes do with a thread, which cannot contain an abort.
pub type ProbeCommand = Option<Vec<OsString>>;

/// Threads with this beginning of their name may unwind without ending the process.
const THREAD: &str = "sled-look";
/// Begin of the child's answer.
const ANSWER: &str = "keyed-probe";
/// Longest answer of the child, in bytes.
const ANSWER_BYTES_MAX: u64 = 4 * 1024;
/// How long a child that was killed may take to be gone.
const REAP_PATIENCE: Duration = Duration::from_secs(2);
/// Between two looks whether it is gone.
const REAP_AGAIN: Duration = Duration::from_millis(5);

/// The child's side of [`ProbeCommand`]: does what the arguments say and writes one line to `out`.
/// `false` means that the store did not pass, or the arguments are not ours.
///
/// # Errors
/// When `out` cannot be written.
pub fn serve_probe(arguments: &[OsString], out: &mut dyn Write) -> io::Result<bool> {
    let outcome = match arguments {
        [what, dir] if what == "look" => {
            let dir = PathBuf::from(dir);
            on_thread(move || look::open_patiently(&dir).and_then(|trees| look::check(&ManuallyDrop::new(trees))), None)
                .map(|applied| format!("sound {} {}", applied.ordinal.0, applied.sequence.0))
        }
        [what, dir, below, file] if what == "salvage" => {
            let (dir, file) = (PathBuf::from(dir), PathBuf::from(file));
            let below = below.to_str().and_then(|below| below.parse().ok()).map(Ordinal);
            match below {
                Some(below) => on_thread(move || look::salvage_to(&dir, below, &file), None).map(|records| format!("salvaged {records}")),
                None => Err("the place is not a number".into()),
            }
        }
        _ => Err("use: look DIR, or salvage DIR BELOW FILE".into()),
    };
    let passed = outcome.is_ok();
    // A line of its own, whatever else the program has printed.
    writeln!(out, "\n{ANSWER} {}", outcome.unwrap_or_else(|reason| format!("damaged {reason}")))?;
    out.flush()?;
    Ok(passed)
}

/// Looks at the store from a child process. `None` when no child could be started, which says
/// nothing about the store.
pub(super) fn look_in_child(command: &[OsString], dir: &Path, deadline: Duration) -> Option<Result<Watermark, String>> {
    match ask_child(command, &["look".into(), dir.into()], deadline) {
        Ok(answer) => Some(understand(&answer)),
        Err(Unanswered::NotStarted(reason)) => {
            tracing::warn!(reason, "the keyed store's probe does not start; looking without it");
            None
        }
        Err(Unanswered::TooLong) => Some(Err("looking at it took too long".into())),
    }
}

fn understand(answer: &str) -> Result<Watermark, String> {
    let answer = answer.lines().find_map(|line| line.strip_prefix(ANSWER)).unwrap_or_default();
    let mut words = answer.split_whitespace();
    match (words.next(), words.next().map(str::parse), words.next().map(str::parse)) {
        (Some("sound"), Some(Ok(ordinal)), Some(Ok(sequence))) => Ok(Watermark { ordinal: Ordinal(ordinal), sequence: Sequence(sequence) }),
        (Some("damaged"), ..) => Err(answer.trim_start().trim_start_matches("damaged").trim().to_owned()),
        _ => Err("looking at it brought the process down".into()),
    }
}

/// Salvages from a damaged store into `file`; what was written before an accident counts.
pub(super) fn salvage(command: &ProbeCommand, dir: &Path, below: Ordinal, file: &Path, deadline: Duration) -> Result<(), String> {
    match command {
        Some(command) => {
            let asked = ask_child(command, &["salvage".into(), dir.into(), below.0.to_string().into(), file.into()], deadline);
            asked.map(drop).map_err(|unanswered| format!("{unanswered:?}"))
        }
        None => {
            let (dir, file) = (dir.to_path_buf(), file.to_path_buf());
            on_thread(move || look::salvage_to(&dir, below, &file), Some(deadline)).map(drop)
        }
    }
}

/// Opens the store on a thread of its own, and looks at it there if nobody did before.
pub(super) fn open(dir: &Path, check: bool, deadline: Duration) -> Result<(Trees, Watermark), String> {
    let dir = dir.to_path_buf();
    let opened = on_thread(
        move || {
            // Not dropped on the way out of a panic: a second panic in a destructor would abort.
            let trees = ManuallyDrop::new(look::open_patiently(&dir)?);
            let applied =
                if check { look::check(&trees)? } else { trees.applied().map_err(|error| super::watch::reason("opening", &error))? };
            Ok((trees, applied))
        },
        Some(deadline),
    );
    opened.map(|(trees, applied)| (ManuallyDrop::into_inner(trees), applied))
}

/// Runs it on a named thread; a panic, or nothing within the deadline, is an error.
fn on_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
    deadline: Option<Duration>,
) -> Result<T, String> {
    let (tell, hear) = mpsc::channel();
    let contained = move || {
        let done = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err("sled panicked".into()));
        // Nobody listens any more after the deadline.
        let _ = tell.send(done);
    };
    std::thread::Builder::new().name(THREAD.into()).spawn(contained).map_err(|error| format!("no thread: {}", error.kind()))?;
    match deadline {
        Some(deadline) => hear.recv_timeout(deadline).map_err(|_| "sled did not answer in time".to_owned())?,
        None => hear.recv().map_err(|_| "sled panicked".to_owned())?,
    }
}

/// Why a child gave no answer.
#[derive(Debug)]
enum Unanswered {
    NotStarted(String),
    TooLong,
}

fn ask_child(command: &[OsString], arguments: &[OsString], deadline: Duration) -> Result<String, Unanswered> {
    let Some((program, first)) = command.split_first() else { return Err(Unanswered::NotStarted("its command is empty".into())) };
    let until = Instant::now() + deadline;
    let mut child = Command::new(program)
        .args(first)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| Unanswered::NotStarted(error.kind().to_string()))?;
    let (tell, hear) = mpsc::channel();
    let stdout = child.stdout.take();
    let reader = std::thread::Builder::new().name("sled-probe".into()).spawn(move || {
        let mut answer = String::new();
        let _ = stdout.map(|stdout| stdout.take(ANSWER_BYTES_MAX).read_to_string(&mut answer));
        let _ = tell.send(answer);
    });
    let answer = match reader {
        Ok(_) => hear.recv_timeout(until.saturating_duration_since(Instant::now())).map_err(|_| Unanswered::TooLong),
        Err(error) => Err(Unanswered::NotStarted(error.kind().to_string())),
    };
    if answer.is_err() {
        // It may be gone already; then there is nothing to end.
        let _ = child.kill();
    }
    reap(&mut child);
    answer
}

fn reap(child: &mut Child) {
    let until = Instant::now() + REAP_PATIENCE;
    while matches!(child.try_wait(), Ok(None)) {
        if Instant::now() >= until {
            let _ = child.kill();
            tracing::warn!("a probe of the keyed store does not end");
            return;
        }
        std::thread::park_timeout(REAP_AGAIN);
    }
}
