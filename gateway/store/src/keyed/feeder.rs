//! The thread that opens the store, lets it follow the journal, checkpoints it and closes it.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::apply;
use super::checkpoint::{DB, has_blobs, write_note};
use super::compare::{self, Comparison};
use super::event::KeyedEvent;
use super::opening::{self, Opened};
use super::rebuild;
use super::room::too_little;
use super::scrub::Scrub;
use super::shared::{Open, Reached, Shared, SourceCell, Stop};
use super::watch::{KeyedStatus, Worker};
use crate::copy::{BlockSource, KeyedError, SharedSource, SourceError, Watermark};

/// Most bytes of records fed in one piece of work.
pub(super) const FEED_BYTES_MAX: usize = 256 * 1024;
/// Records after which a checkpoint is due under load; at 6 KiB each, 24 MiB.
const CHECKPOINT_RECORDS: u64 = 4_096;
/// Records dropped in one piece of work.
const FORGET_STEPS: u64 = 64;
/// Wait after the journal could not be read.
const SOURCE_PAUSE: Duration = Duration::from_millis(500);
/// Longest sleep with nothing to do; a wish wakes it at once.
const IDLE: Duration = Duration::from_secs(3_600);

/// How following the journal came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// It was asked to stop.
    Stopped,
    /// The store takes too much room: a new one begins where the journal does.
    TooLarge,
}

/// What stands before a store that is empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    /// Nothing is known, or a damaged store: history is salvaged or told as lost.
    Unknown,
    /// A sound store that was let go of; the journal holds all that is still needed.
    LetGo,
}

/// The feeder's own state.
struct Feeder {
    shared: Arc<Shared>,
    trees: Open,
    source: SharedSource,
    /// How far it has come, and how far that is synced.
    applied: Watermark,
    checkpointed: Watermark,
    last_applied_at: Instant,
    oldest_unsynced_at: Instant,
    scrub: Scrub,
    /// Since when it follows; a store that is too large soon after its beginning is not begun anew at once.
    begun_at: Instant,
    before: Before,
}

/// The body of the feeder's thread.
pub(super) fn run(shared: &Arc<Shared>) {
    let mut source = None;
    let mut before = Before::Unknown;
    loop {
        let ended = if shared.await_room() { live(shared, &mut source, before) } else { Ok(Ended::Stopped) };
        match ended {
            Ok(Ended::Stopped) => break shared.watch.enter(KeyedStatus::Stopped),
            Ok(Ended::TooLarge) => {
                before = Before::LetGo;
                shared.watch.reopen();
            }
            Err(failure) if !shared.watch.met_full() => break shared.watch.fail(failure),
            Err(failure) => {
                tracing::warn!(%failure, "the keyed store met a full disk");
                // The rest may be gone when it is opened anew. What is certain still lets the journal make room.
                shared.reach(|reached| reached.applied = reached.checkpointed);
                if !shared.await_room_to_reopen() {
                    break shared.watch.enter(KeyedStatus::Stopped);
                }
                // What sled still holds of its failed write must go before its files are read anew.
                if shared.trees().is_some_and(|trees| !opening::close(shared, trees)) {
                    break shared.watch.fail(failure);
                }
                shared.watch.reopen();
            }
        }
    }
    shared.progress.notify_all();
}

/// From the opening to the closing. `known` is the journal once it was attached.
fn live(shared: &Arc<Shared>, known: &mut Option<SharedSource>, before: Before) -> Result<Ended, KeyedError> {
    let opened = opening::open_store(shared)?;
    shared.reach(|reached| *reached = Reached { applied: opened.applied, checkpointed: Watermark::default() });
    shared.publish(Some(Arc::clone(&opened.trees)));
    shared.watch.enter(KeyedStatus::Running);
    let first_time = known.is_none();
    let Some(source) = known.clone().or_else(|| attached(shared)) else {
        if shared.has_room() {
            opening::close(shared, opened.trees);
        }
        return Ok(Ended::Stopped);
    };
    *known = Some(Arc::clone(&source));
    let opened = compared(shared, source.as_ref(), opened)?;
    let now = Instant::now();
    let mut feeder = Feeder {
        shared: Arc::clone(shared),
        trees: opened.trees,
        source,
        applied: opened.applied,
        checkpointed: Watermark::default(),
        last_applied_at: now,
        oldest_unsynced_at: now,
        scrub: Scrub::default(),
        begun_at: now,
        before: if opened.after_let_go { Before::LetGo } else { before },
    };
    if feeder.applied == Watermark::default() && !feeder.begin_anew(opened.quarantined.as_deref(), first_time)? {
        return Ok(Ended::Stopped);
    }
    *super::watch::lock(&shared.source) = Some(Arc::clone(&feeder.source));
    feeder.checkpoint()?;
    shared.places.forget_rebuild(shared.sync.as_ref()).map_err(|error| shared.io_error("removing the mark", &error))?;
    shared.places.forget_removed(shared.sync.as_ref()).map_err(|error| shared.io_error("removing an old store", &error))?;
    match feeder.follow()? {
        Ended::TooLarge => begin_smaller(shared, feeder.trees),
        // Closing writes; without room it is left to the end of the process.
        Ended::Stopped => {
            if shared.has_room() {
                opening::close(shared, feeder.trees);
            }
            Ok(Ended::Stopped)
        }
    }
}

/// Removes a store that holds nothing which the journal does not hold as well.
fn begin_smaller(shared: &Arc<Shared>, trees: Open) -> Result<Ended, KeyedError> {
    shared.reach(|reached| *reached = Reached::default());
    if !opening::close(shared, trees) {
        let failure = KeyedError::Unavailable("the keyed store is too large and cannot be closed".into());
        shared.watch.fail(failure.clone());
        return Err(failure);
    }
    shared.places.remove_store(shared.sync.as_ref()).map_err(|error| shared.io_error("removing the store", &error))?;
    tracing::warn!("the keyed store had grown too large for this disk; it begins anew with what the journal holds");
    Ok(Ended::TooLarge)
}

/// Waits for the journal; `None` when it is asked to stop instead.
fn attached(shared: &Arc<Shared>) -> Option<SharedSource> {
    let source = shared.await_wish(
        Duration::MAX,
        |wishes| wishes.source.is_some() || wishes.stop.is_some(),
        |wishes| wishes.source.take().map(|SourceCell(source)| source),
    )?;
    let listening = Arc::clone(shared);
    source.subscribe(Box::new(move |_| listening.wish(|wishes| wishes.committed = true)));
    Some(source)
}

/// Holds what is here against the journal before anything is built on it.
fn compared(shared: &Shared, source: &dyn BlockSource, opened: Opened) -> Result<Opened, KeyedError> {
    let (reason, is_ahead) = match compare::compare(shared, &opened.trees, source, opened.applied)? {
        Comparison::Same => return Ok(opened),
        Comparison::Ahead(reason) => (reason, true),
        Comparison::Different(reason) => (reason, false),
    };
    shared.reach(|reached| reached.applied = Watermark::default());
    opening::close(shared, opened.trees);
    let moved = opening::set_aside(shared, reason, is_ahead)?;
    let mut anew = opening::open_store(shared)?;
    anew.quarantined = anew.quarantined.or(moved).or(opened.quarantined);
    shared.publish(Some(Arc::clone(&anew.trees)));
    shared.reach(|reached| reached.applied = anew.applied);
    Ok(anew)
}

impl Feeder {
    fn call<T>(&self, what: &'static str, work: impl FnOnce() -> Result<T, sled::Error>) -> Result<T, KeyedError> {
        self.shared.watch.call(Worker::Feeder, what, self.shared.times.call, work)
    }

    /// An empty store begins where the journal begins; what was only in the old one is salvaged. `false` when it is asked
    /// to stop before that is done. Only the first time in a run counts: a disk that is full again and again ends no run.
    fn begin_anew(&mut self, old: Option<&Path>, first_time: bool) -> Result<bool, KeyedError> {
        let nothing_lost = self.source.oldest().0 <= 1 || self.before == Before::LetGo && old.is_none();
        if !nothing_lost {
            self.mark_rebuild(old, first_time).map_err(|error| self.shared.io_error("marking the rebuild", &error))?;
        }
        let begin = rebuild::begin(&self.shared, &self.trees, self.source.as_ref())?;
        self.applied = begin;
        self.shared.reach(|reached| reached.applied = begin);
        if nothing_lost {
            return Ok(true);
        }
        rebuild::salvage(&self.shared, &self.trees, self.source.as_ref(), old, begin)
    }

    /// Also where the old store vanished: a cut must not keep from anybody that history is lost.
    fn mark_rebuild(&self, old: Option<&Path>, first_time: bool) -> io::Result<()> {
        let (places, sync) = (&self.shared.places, self.shared.sync.as_ref());
        places.mark_rebuild(sync, old)?;
        if first_time { places.count_rebuild(sync) } else { Ok(()) }
    }

    fn follow(&mut self) -> Result<Ended, KeyedError> {
        let mut pause = Duration::ZERO;
        let mut shrink = None;
        loop {
            let Rested { stop, forget, shrink: asked } = self.rest(pause);
            shrink = asked.or(shrink);
            if self.shared.watch.met_full() {
                return Err(too_little());
            }
            if !self.shared.await_room() {
                return Ok(Ended::Stopped);
            }
            let fed = self.feed()?;
            pause = match fed {
                Fed::All => self.shared.times.checkpoint_idle,
                Fed::Some => Duration::ZERO,
                Fed::NotNow => SOURCE_PAUSE,
            };
            if let Some(stop) = stop {
                return self.finish(stop).map(|()| Ended::Stopped);
            }
            if fed == Fed::All && shrink.take().is_some_and(|bytes_max| self.is_too_large(bytes_max)) {
                return Ok(Ended::TooLarge);
            }
            if forget.ordinal > self.scrub.forgotten().ordinal && self.forget(forget)? {
                pause = Duration::ZERO;
            }
            if self.shared.has_room() {
                self.checkpoint_if_due()?;
            }
            let idle = pause >= self.shared.times.checkpoint_idle;
            if idle && self.scrub.step(&self.shared, &self.trees, self.source.as_ref(), self.applied)? {
                pause = Scrub::PAUSE;
            } else if idle && self.checkpointed == self.applied {
                pause = IDLE;
            }
        }
    }

    /// Waits for the next commit or another wish, then a moment more so that commits gather.
    fn rest(&self, pause: Duration) -> Rested {
        let applied = self.applied;
        let forgotten = self.scrub.forgotten();
        if !pause.is_zero() {
            let woken = self.shared.await_wish(
                pause,
                |wishes| {
                    let forget = wishes.forget.ordinal.min(applied.ordinal) > forgotten.ordinal;
                    wishes.committed || wishes.stop.is_some() || wishes.shrink.is_some() || forget
                },
                |wishes| wishes.committed,
            );
            if woken && self.source.committed().ordinal.0 < applied.ordinal.0.saturating_add(CHECKPOINT_RECORDS) {
                self.shared.await_wish(self.shared.times.gather, |wishes| wishes.stop.is_some(), |_| ());
            }
        }
        self.shared.await_wish(
            Duration::ZERO,
            |_| true,
            |wishes| {
                wishes.committed = false;
                Rested { stop: wishes.stop, forget: wishes.forget, shrink: wishes.shrink.take() }
            },
        )
    }

    /// Whether it takes more than so many bytes, and has not begun anew just now.
    fn is_too_large(&self, bytes_max: u64) -> bool {
        let lately = self.before == Before::LetGo && self.begun_at.elapsed() < self.shared.times.shrink_pause;
        !lately && self.shared.places.store_bytes().is_ok_and(|bytes| bytes > bytes_max)
    }

    /// Takes the next records from the journal.
    fn feed(&mut self) -> Result<Fed, KeyedError> {
        let blocks = match self.source.blocks_after(self.applied.ordinal, FEED_BYTES_MAX) {
            Ok(blocks) => blocks,
            Err(SourceError::Lost { until, .. }) => {
                self.pass_over(until)?;
                return Ok(Fed::Some);
            }
            Err(error) => {
                tracing::warn!(%error, "the keyed store cannot follow the journal just now");
                return Ok(Fed::NotNow);
            }
        };
        let (Some(first), Some(last)) = (blocks.first(), blocks.last()) else { return Ok(Fed::All) };
        if first.ordinal > self.applied.ordinal.next() {
            // The journal has let go of records that were settled before they came here.
            let before = Watermark {
                ordinal: crate::copy::Ordinal(first.ordinal.0 - 1),
                sequence: vitalgate_domain::Sequence(first.first.0.saturating_sub(1)),
            };
            self.shared.tell(KeyedEvent::HistoryLost { from: self.applied.ordinal.next(), until: before.ordinal });
            self.note_lost(before)?;
        }
        let reached = last.watermark();
        let mut prepared = Vec::with_capacity(blocks.len());
        for block in blocks {
            let ordinal = block.ordinal;
            let (ready, problem) = apply::prepare(self.source.as_ref(), block);
            if problem.is_some() {
                self.shared.tell(KeyedEvent::Unreadable { ordinal });
            }
            prepared.push(ready);
        }
        self.call("following the journal", || apply::apply(&self.trees, &prepared))?;
        self.move_to(reached);
        Ok(Fed::Some)
    }

    fn move_to(&mut self, applied: Watermark) {
        let now = Instant::now();
        if self.checkpointed == self.applied {
            self.oldest_unsynced_at = now;
        }
        self.last_applied_at = now;
        self.applied = applied;
        self.shared.reach(|reached| reached.applied = applied);
    }

    fn pass_over(&mut self, until: Watermark) -> Result<(), KeyedError> {
        if until.ordinal <= self.applied.ordinal {
            return Err(KeyedError::Unavailable("the journal names a lost range that lies behind".into()));
        }
        if until.sequence > self.applied.sequence {
            self.shared.tell(KeyedEvent::Lost { from: self.applied.sequence.next(), until: until.sequence });
        }
        self.note_lost(until)
    }

    fn note_lost(&mut self, until: Watermark) -> Result<(), KeyedError> {
        self.call("noting what is lost", || apply::apply_lost(&self.trees, self.applied, until))?;
        self.move_to(until);
        Ok(())
    }

    /// Drops a bounded number of records; `true` while more are left.
    fn forget(&mut self, wished: Watermark) -> Result<bool, KeyedError> {
        let upto = if wished.ordinal > self.applied.ordinal { self.applied } else { wished };
        let reached = self.call("forgetting", || apply::forget(&self.trees, self.source.as_ref(), upto, FORGET_STEPS))?;
        self.scrub.set_forgotten(reached);
        Ok(reached.ordinal < upto.ordinal)
    }

    fn checkpoint_if_due(&mut self) -> Result<(), KeyedError> {
        let times = self.shared.times;
        let waiting = self.applied.ordinal.0 - self.checkpointed.ordinal.0;
        let due = waiting >= CHECKPOINT_RECORDS
            || (waiting > 0 && self.last_applied_at.elapsed() >= times.checkpoint_idle)
            || (waiting > 0 && self.oldest_unsynced_at.elapsed() >= times.checkpoint_age);
        if due { self.checkpoint() } else { Ok(()) }
    }

    /// Makes everything so far certain; only then the journal may let go of it.
    fn checkpoint(&mut self) -> Result<(), KeyedError> {
        let (keys, oldest_key) = (self.source.wrapped_keys(), self.source.oldest_key());
        let dir = self.shared.places.store();
        self.call("a checkpoint", || {
            apply::put_wrapped_keys(&self.trees, &keys, oldest_key)?;
            self.trees.db.flush().map(drop)
        })?;
        // Under the watch too: a disk that hangs in a sync is a hang like any other.
        let synced = self.call("a sync", || Ok(self.shared.sync.sync_data(&dir.join(DB))))?;
        synced.map_err(|error| self.shared.io_error("syncing db", &error))?;
        if has_blobs(&dir).map_err(|error| self.shared.io_error("reading blobs", &error))? {
            return Err(KeyedError::Damaged("a value left the segments for blobs/".into()));
        }
        let applied = self.applied;
        let noted = self.call("a note", || Ok(write_note(self.shared.sync.as_ref(), &dir, applied)))?;
        noted.map_err(|error| self.shared.io_error("noting the checkpoint", &error))?;
        self.checkpointed = applied;
        self.shared.reach(|reached| reached.checkpointed = applied);
        Ok(())
    }

    /// Catches up as far as the time allows, then checkpoints.
    fn finish(&mut self, stop: Stop) -> Result<(), KeyedError> {
        while Instant::now() < stop.until && self.shared.has_room() && matches!(self.feed()?, Fed::Some) {}
        if self.checkpointed == self.applied || !self.shared.has_room() { Ok(()) } else { self.checkpoint() }
    }
}

/// What it was asked meanwhile.
#[derive(Debug, Clone, Copy)]
struct Rested {
    stop: Option<Stop>,
    forget: Watermark,
    shrink: Option<u64>,
}

/// How much one feeding took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fed {
    /// Nothing was left.
    All,
    /// Something; there may be more.
    Some,
    /// The journal could not be read; later perhaps.
    NotNow,
}
