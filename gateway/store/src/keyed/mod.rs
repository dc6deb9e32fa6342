//! The keyed side of the outbox: the journal's records by place and by identity, in sled.
//!
//! It is fed from the journal in order, may lag behind it, and answers what would be slow to find
//! there: the record that covers a sequence, a reading by its id, a device's readings around a
//! moment, what a destination refused, the id that it gave. It holds the very same sealed bytes, so
//! that each copy can heal the other; an acknowledgement never waits for it.
//!
//! # What can go wrong, and what happens then
//! - Damaged files make sled 0.34 return errors, panic, hang, abort, or silently hold less. So the
//!   first look happens in a child process ([`ProbeCommand`]) or on a thread that can be given up,
//!   reads what the store says it has, and a store that does not pass is moved to `quarantine/` and
//!   filled again from the journal. What only it held (history that the journal let go of) is
//!   salvaged as far as it is whole. The mark `sled.rebuilding` stands until the first checkpoint of the new store: a rebuild
//!   that was cut is begun anew from the same damaged store, and what cannot be salvaged is told
//!   ([`KeyedEvent::HistoryLost`]).
//! - An error, panic or hang later on makes it [`KeyedStatus::Failed`] and leaves the note
//!   `sled.damaged`; the process exits for a supervised restart, which sets the store aside.
//! - A full disk is not damage. sled is left alone while there is little free space: the status is
//!   [`KeyedStatus::Waiting`], lookups are unavailable, and it goes on by itself. Where sled met it all the same, only what was
//!   checkpointed counts as applied until the store is open again.
//! - sled never gives back what it grew by. Where that keeps the gateway from taking readings though all is delivered, it
//!   begins anew with what the journal still holds ([`KeyedCopy::shrink`]).
//! - sled's flush does not make anything certain on Linux: each flush is followed by a sync of its own.
//! - Records lost in every copy are passed over and told ([`KeyedEvent::Lost`]).
//!
//! # Threads
//! `sled-feeder` opens, follows, checkpoints, closes; `sled-reader` answers; `sled-look` and
//! `sled-probe` come and go. sled adds its own `sled-io-*`. A panic on a thread named `sled-*` is
//! contained here and must not end the process.

mod apply;
mod checkpoint;
mod compare;
mod event;
mod feeder;
mod layout;
mod look;
mod lookup;
mod mark;
mod opening;
mod probe;
mod quarantine;
mod rebuild;
mod room;
mod scrub;
mod shared;
mod summary;
mod watch;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant};

use vitalgate_domain::{DestinationId, ReadingId, Record, RejectedReading, Sequence, SequenceRanges};

use crate::copy::{KeyedCopy, KeyedError, Ordinal, SealedBlock, SharedSource, Watermark};
use crate::nearest::{Around, Nearest, Search};

pub use checkpoint::{DiskSync, RealSync};
pub use event::KeyedEvent;
pub use probe::{ProbeCommand, serve_probe};
pub use shared::KeyedTimes;
pub use watch::KeyedStatus;

pub(crate) use shared::OPEN_BYTES_PER_SECOND;

use checkpoint::DB;
use lookup::{Lookups, QUEUE_MAX, Question};
use quarantine::Places;
use shared::{Shared, SourceCell, Stop};

/// What the keyed store needs to know.
#[derive(Clone)]
pub struct KeyedOptions {
    /// The state folder; the store lies in `sled/` below it, what was set aside in `quarantine/`.
    pub dir: PathBuf,
    /// The child process for the first look.
    pub probe: ProbeCommand,
    /// How files are synced.
    pub sync: Arc<dyn DiskSync>,
    /// Time limits.
    pub times: KeyedTimes,
}

impl KeyedOptions {
    /// With the usual times, real syncs and no child process.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), probe: None, sync: Arc::new(RealSync), times: KeyedTimes::default() }
    }

    /// Longest that waiting for it to be open makes sense, reckoned before it is opened: the more it has stored, the longer sled reads.
    #[must_use]
    pub fn open_patience(&self) -> Duration {
        let stored = std::fs::symlink_metadata(Places::new(&self.dir).store().join(DB)).map_or(0, |metadata| metadata.len());
        self.times.open_patience(stored)
    }
}

impl std::fmt::Debug for KeyedOptions {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("KeyedOptions").field("dir", &self.dir).field("probe", &self.probe).finish_non_exhaustive()
    }
}

/// The handle to the keyed store. Dropping it stops the store without catching up.
pub struct Keyed {
    shared: Arc<Shared>,
    questions: SyncSender<Question>,
}

impl Keyed {
    /// Opens the store in the background; [`Keyed::wait_open`] waits for it. Never fails by itself:
    /// a store that cannot be opened has the status [`KeyedStatus::Failed`].
    #[must_use]
    pub fn open(options: KeyedOptions) -> Self {
        let KeyedOptions { dir, probe, sync, times } = options;
        let shared = Arc::new(Shared::new(Places::new(&dir), probe, sync, times));
        let (questions, asked) = sync_channel(QUEUE_MAX);
        let (feeding, reading) = (Arc::clone(&shared), Arc::clone(&shared));
        let feeder = std::thread::Builder::new().name("sled-feeder".into()).spawn(move || feeder::run(&feeding));
        let reader = std::thread::Builder::new().name("sled-reader".into()).spawn(move || lookup::run(&reading, &asked));
        if let Err(error) = feeder.and(reader) {
            shared.watch.fail(KeyedError::Unavailable(format!("no thread could be started: {}", error.kind())));
        }
        Self { shared, questions }
    }

    /// Lets it follow this journal, once. It first holds what it has against it.
    pub fn attach(&self, source: SharedSource) {
        self.shared.wish(|wishes| wishes.source = Some(SourceCell(source)));
    }

    /// How it is. The daemon asks this regularly, and exits when it has failed.
    #[must_use]
    pub fn status(&self) -> KeyedStatus {
        self.shared.watch.status()
    }

    /// Waits until it is open or has failed, but no longer than this.
    #[must_use]
    pub fn wait_open(&self, within: Duration) -> KeyedStatus {
        self.shared.watch.wait_open(within)
    }

    /// Waits until it has applied, or with `synced` also checkpointed, the record; `false` when the
    /// time is over or it has failed or stopped before.
    #[must_use]
    pub fn wait_reached(&self, ordinal: Ordinal, synced: bool, within: Duration) -> bool {
        let until = Instant::now() + within;
        let mut reached = watch::lock(&self.shared.reached);
        loop {
            let at = if synced { reached.checkpointed } else { reached.applied };
            let left = until.saturating_duration_since(Instant::now());
            if at.ordinal >= ordinal || left.is_zero() {
                return at.ordinal >= ordinal;
            }
            if matches!(self.shared.watch.status(), KeyedStatus::Failed(_) | KeyedStatus::Stopped) {
                return false;
            }
            let waited = self.shared.progress.wait_timeout(reached, left.min(Duration::from_millis(100)));
            reached = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// What happened so far, oldest first.
    #[must_use]
    pub fn events(&self) -> Vec<KeyedEvent> {
        self.shared.events()
    }

    /// Catches up with the journal as far as the time allows, checkpoints and closes. What it did
    /// not reach it takes from the journal at the next start.
    pub fn shutdown(&self, within: Duration) -> KeyedStatus {
        let until = Instant::now() + within;
        self.shared.wish(|wishes| wishes.stop = Some(Stop { until }));
        // The last checkpoint and the closing come on top of the catching up.
        let end = until + self.shared.times.call;
        let mut reached = watch::lock(&self.shared.reached);
        loop {
            let status = self.shared.watch.status();
            let left = end.saturating_duration_since(Instant::now());
            if matches!(status, KeyedStatus::Stopped | KeyedStatus::Failed(_)) || left.is_zero() {
                return status;
            }
            let waited = self.shared.progress.wait_timeout(reached, left.min(Duration::from_millis(20)));
            reached = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn ask<T: Send + 'static>(&self, work: impl FnOnce(&Lookups) -> Result<T, KeyedError> + Send + 'static) -> Result<T, KeyedError> {
        self.ask_within(Duration::MAX, work)
    }

    fn ask_within<T: Send + 'static>(
        &self,
        within: Duration,
        work: impl FnOnce(&Lookups) -> Result<T, KeyedError> + Send + 'static,
    ) -> Result<T, KeyedError> {
        lookup::ask(&self.shared, &self.questions, within, work)
    }

    /// The newest reading with that id; with `below`, only before that sequence.
    ///
    /// # Errors
    /// When the store cannot answer.
    pub fn find_id(&self, id: ReadingId, below: Option<Sequence>) -> Result<Search<Option<Record>>, KeyedError> {
        self.ask(move |lookups| lookups.find_id(id, below.unwrap_or(Sequence(u64::MAX))))
    }

    /// The readings and dead letters of a device nearest to a moment, at most `max`; with `below`, only before that sequence.
    ///
    /// # Errors
    /// When the store cannot answer.
    pub fn find_device(&self, around: &Around, max: usize, below: Option<Sequence>) -> Result<Search<Nearest>, KeyedError> {
        let around = around.clone();
        self.ask(move |lookups| lookups.find_device(around, max, below.unwrap_or(Sequence(u64::MAX))))
    }

    /// What destinations refused for good between two sequences, inclusive, ascending, at most `max`.
    ///
    /// # Errors
    /// When the store cannot answer.
    pub fn rejected(&self, from: Sequence, until: Sequence, max: usize) -> Result<Vec<(DestinationId, RejectedReading)>, KeyedError> {
        let mut of = SequenceRanges::new();
        of.insert(from, until);
        self.rejected_among(of, max, Duration::MAX)
    }

    /// What destinations refused for good of these, ascending, the newest of one place last, at most `max`.
    ///
    /// # Errors
    /// When the store cannot answer within this time.
    pub fn rejected_among(
        &self,
        of: SequenceRanges,
        max: usize,
        within: Duration,
    ) -> Result<Vec<(DestinationId, RejectedReading)>, KeyedError> {
        self.ask_within(within, move |lookups| lookups.rejected(&of, max))
    }

    /// The id that a destination gave to the entry, where it is not ours.
    ///
    /// # Errors
    /// When the store cannot answer.
    pub fn remote_id(&self, sequence: Sequence, destination: &DestinationId) -> Result<Option<Arc<str>>, KeyedError> {
        let mut of = SequenceRanges::new();
        of.insert(sequence, sequence);
        Ok(self.remote_ids(of, destination, Duration::MAX)?.into_values().next())
    }

    /// The ids that a destination gave to these entries, where they are not ours.
    ///
    /// # Errors
    /// When the store cannot answer within this time.
    pub fn remote_ids(
        &self,
        of: SequenceRanges,
        destination: &DestinationId,
        within: Duration,
    ) -> Result<BTreeMap<Sequence, Arc<str>>, KeyedError> {
        let destination = destination.clone();
        self.ask_within(within, move |lookups| lookups.remote_ids(&of, &destination))
    }
}

impl KeyedCopy for Keyed {
    fn block_covering(&self, sequence: Sequence) -> Result<Option<SealedBlock>, KeyedError> {
        self.ask(move |lookups| lookups.block_covering(sequence))
    }

    fn block_at(&self, ordinal: Ordinal) -> Result<Option<SealedBlock>, KeyedError> {
        self.ask(move |lookups| lookups.block_at(ordinal))
    }

    fn applied(&self) -> Watermark {
        self.shared.reached().applied
    }

    fn waits_for_room(&self) -> bool {
        matches!(self.status(), KeyedStatus::Waiting(_)) || !self.shared.has_room()
    }

    fn is_rebuilding(&self) -> bool {
        self.shared.places.is_rebuild_marked()
    }

    fn checkpointed(&self) -> Watermark {
        self.shared.reached().checkpointed
    }

    fn latest_state(&self) -> Result<Option<SealedBlock>, KeyedError> {
        self.ask(Lookups::latest_state)
    }

    fn wrapped_keys(&self) -> Result<Vec<(u32, Vec<u8>)>, KeyedError> {
        self.ask(Lookups::wrapped_keys)
    }

    fn forget_up_to(&self, watermark: Watermark) {
        self.shared.wish(|wishes| wishes.forget = wishes.forget.max(watermark));
    }

    fn shrink(&self, bytes_max: u64) {
        self.shared.wish(|wishes| wishes.shrink = Some(bytes_max));
    }
}

impl Drop for Keyed {
    fn drop(&mut self) {
        self.shared.wish(|wishes| {
            wishes.stop.get_or_insert(Stop { until: Instant::now() });
        });
    }
}
