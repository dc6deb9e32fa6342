//! Who watches sled: every call into it is marked while it runs, so that a hang is seen by whoever
//! asks, and a panic ends in a failure instead of a ghost.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::room::{is_full, tells_full};
use crate::copy::KeyedError;

/// How the keyed store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyedStatus {
    /// Being looked at; answers wait.
    Opening,
    /// Open, and following the journal where one is attached.
    Running,
    /// Waiting for free space: nothing is fed and lookups are unavailable. What is committed is in
    /// the journal. It goes on by itself.
    Waiting(String),
    /// Shut down in order.
    Stopped,
    /// It cannot go on in this process: exit for a supervised restart. What is committed is in the
    /// journal.
    Failed(KeyedError),
}

/// The threads that call sled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Worker {
    /// Opens, feeds, checkpoints.
    Feeder,
    /// Answers lookups.
    Reader,
}

#[derive(Debug, Clone, Copy)]
struct Call {
    what: &'static str,
    since: Instant,
    deadline: Duration,
}

#[derive(Debug)]
struct State {
    phase: KeyedStatus,
    calls: [Option<Call>; 2],
    /// sled, or a sync, found no space since it was opened.
    met_full: bool,
}

/// Shared by the workers and by those who ask how they are.
#[derive(Debug)]
pub(super) struct Watch {
    state: Mutex<State>,
    changed: Condvar,
    /// Told once, when it fails: leaves the note for the next start.
    on_failure: Mutex<Option<OnFailure>>,
}

/// Takes the failure, and whether there was no space before it.
type Told = dyn FnOnce(&KeyedError, bool) + Send;

struct OnFailure(Box<Told>);

impl std::fmt::Debug for OnFailure {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("OnFailure")
    }
}

/// A lock whose holder panicked still guards whole values here: each is written in one step.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Watch {
    pub(super) fn new(on_failure: impl FnOnce(&KeyedError, bool) + Send + 'static) -> Self {
        Self {
            state: Mutex::new(State { phase: KeyedStatus::Opening, calls: [None, None], met_full: false }),
            changed: Condvar::new(),
            on_failure: Mutex::new(Some(OnFailure(Box::new(on_failure)))),
        }
    }

    /// Runs one bounded piece of work with sled. A panic in it becomes an error and a failure; no
    /// space is an error and noted, but no failure.
    pub(super) fn call<T>(
        &self,
        worker: Worker,
        what: &'static str,
        deadline: Duration,
        work: impl FnOnce() -> Result<T, sled::Error>,
    ) -> Result<T, KeyedError> {
        lock(&self.state).calls[worker as usize] = Some(Call { what, since: Instant::now(), deadline });
        let done = catch_unwind(AssertUnwindSafe(work));
        lock(&self.state).calls[worker as usize] = None;
        let failure = match done {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(sled::Error::Io(error))) if is_full(error.kind()) => {
                self.meet_full();
                return Err(KeyedError::Unavailable(format!("{what}: {}", error.kind())));
            }
            Ok(Err(error)) => keyed_error(what, &error),
            Err(panic) => {
                let message = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
                if message.is_some_and(tells_full) {
                    self.meet_full();
                }
                // The message may hold stored bytes; the place is enough.
                KeyedError::Damaged(format!("sled panicked during {what}"))
            }
        };
        self.fail(failure.clone());
        Err(failure)
    }

    /// There was no space. sled must be opened anew before it is called again.
    pub(super) fn meet_full(&self) {
        lock(&self.state).met_full = true;
    }

    /// Whether there was no space since it was opened.
    pub(super) fn met_full(&self) -> bool {
        lock(&self.state).met_full
    }

    /// Begins anew, closed. What was noted is forgotten.
    pub(super) fn reopen(&self) {
        lock(&self.state).met_full = false;
        self.enter(KeyedStatus::Opening);
    }

    /// Marks it as failed for good; the first failure is the one that is told.
    pub(super) fn fail(&self, failure: KeyedError) {
        let met_full = {
            let mut state = lock(&self.state);
            if matches!(state.phase, KeyedStatus::Failed(_)) {
                return;
            }
            state.phase = KeyedStatus::Failed(failure.clone());
            state.met_full
        };
        self.changed.notify_all();
        if let Some(OnFailure(tell)) = lock(&self.on_failure).take() {
            tell(&failure, met_full);
        }
    }

    /// Moves on, unless it has failed.
    pub(super) fn enter(&self, phase: KeyedStatus) {
        let mut state = lock(&self.state);
        if !matches!(state.phase, KeyedStatus::Failed(_)) {
            state.phase = phase;
        }
        drop(state);
        self.changed.notify_all();
    }

    /// How it is now; a call beyond its deadline is a failure.
    pub(super) fn status(&self) -> KeyedStatus {
        let (phase, late) = {
            let state = lock(&self.state);
            let late = state.calls.iter().flatten().find(|call| call.since.elapsed() > call.deadline).copied();
            (state.phase.clone(), late)
        };
        match late {
            Some(call) if !matches!(phase, KeyedStatus::Failed(_)) => {
                tracing::error!(call = call.what, "the keyed store does not answer");
                let failure = KeyedError::Deadline(u64::try_from(call.deadline.as_millis()).unwrap_or(u64::MAX));
                self.fail(failure.clone());
                KeyedStatus::Failed(failure)
            }
            _ => phase,
        }
    }

    /// Waits until it is something else than opening.
    pub(super) fn wait_open(&self, within: Duration) -> KeyedStatus {
        let until = Instant::now() + within;
        loop {
            let status = self.status();
            let left = until.saturating_duration_since(Instant::now());
            if status != KeyedStatus::Opening || left.is_zero() {
                return status;
            }
            let state = lock(&self.state);
            if state.phase != KeyedStatus::Opening {
                continue;
            }
            // Woken at least this often to notice a call that hangs.
            let _ = self.changed.wait_timeout(state, left.min(LOOK_AGAIN)).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// How often a waiting caller looks for a hanging call.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// The bare reason of an error of sled.
pub(super) fn reason(what: &str, error: &sled::Error) -> String {
    match keyed_error(what, error) {
        KeyedError::Damaged(reason) | KeyedError::Io(reason) | KeyedError::Unavailable(reason) => reason,
        late @ KeyedError::Deadline(_) => late.to_string(),
    }
}

/// sled's error as ours: no bytes of keys or values.
pub(super) fn keyed_error(what: &str, error: &sled::Error) -> KeyedError {
    match error {
        sled::Error::Io(io) => KeyedError::Io(format!("{what}: {}", io.kind())),
        sled::Error::Unsupported(reason) => KeyedError::Damaged(format!("{what}: {reason}")),
        sled::Error::CollectionNotFound(_) => KeyedError::Damaged(format!("{what}: a tree vanished")),
        sled::Error::ReportableBug(_) => KeyedError::Damaged(format!("{what}: sled met an impossible state")),
        sled::Error::Corruption { .. } => KeyedError::Damaged(format!("{what}: sled found a damaged page")),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc;

    use super::*;

    /// A panic inside sled must end in a failure that is told once, never in a dead thread.
    #[test]
    fn a_panic_is_contained_and_told_once() {
        let (told, heard) = mpsc::channel();
        let watch = Watch::new(move |failure, _| told.send(failure.clone()).unwrap());
        let outcome: Result<(), _> = watch.call(Worker::Feeder, "a test", Duration::from_secs(1), || panic!("secret bytes"));
        let expected = KeyedError::Damaged("sled panicked during a test".into());
        assert_eq!(outcome, Err(expected.clone()));
        watch.fail(KeyedError::Deadline(1));
        watch.enter(KeyedStatus::Running);
        assert_eq!(watch.status(), KeyedStatus::Failed(expected.clone()));
        assert_eq!(heard.try_iter().collect::<Vec<_>>(), [expected]);
    }

    /// A call that hangs must be seen by whoever asks, without the help of the thread that hangs.
    #[test]
    fn a_hanging_call_is_a_failure_after_its_deadline() {
        let watch = Arc::new(Watch::new(|_, _| ()));
        let (release, held) = mpsc::channel::<()>();
        let hanging = Arc::clone(&watch);
        let thread = std::thread::spawn(move || {
            hanging.call(Worker::Reader, "a hang", Duration::from_millis(20), || {
                let _ = held.recv();
                Ok(())
            })
        });
        let status = watch.wait_open(Duration::from_secs(30));
        assert_eq!(status, KeyedStatus::Failed(KeyedError::Deadline(20)));
        drop(release);
        thread.join().unwrap().unwrap();
        assert_eq!(watch.status(), KeyedStatus::Failed(KeyedError::Deadline(20)), "a late answer must not bring it back");
    }

    /// No space is no failure, in an error; in a panic it is one, but not one of damage.
    #[test]
    fn a_full_disk_is_an_error_and_no_damage() {
        let (told, heard) = mpsc::channel();
        let watch = Watch::new(move |_, met_full| told.send(met_full).unwrap());
        watch.enter(KeyedStatus::Running);
        let full = || std::io::Error::from_raw_os_error(28);
        let outcome: Result<(), _> = watch.call(Worker::Feeder, "a test", Duration::from_secs(1), || Err(sled::Error::Io(full())));
        assert_eq!(outcome, Err(KeyedError::Unavailable("a test: no storage space".into())));
        assert!(watch.met_full());
        assert_eq!(watch.status(), KeyedStatus::Running);
        watch.reopen();
        assert!(!watch.met_full());
        let panicked: Result<(), _> = watch.call(Worker::Feeder, "a test", Duration::from_secs(1), || panic!("unwrap: {:?}", full()));
        assert!(panicked.is_err());
        assert!(matches!(watch.status(), KeyedStatus::Failed(_)));
        assert_eq!(heard.try_iter().collect::<Vec<_>>(), [true]);
    }
}
