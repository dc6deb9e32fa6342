//! Stand-ins for the keyed side.

use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use vitalgate_domain::Sequence;

use crate::copy::{BlockKind, BlockSource, KeyedCopy, KeyedError, Ordinal, SealedBlock, Watermark};
use crate::opening::OpenedJournal;
use crate::source::Feed;

/// Holds nothing, and says that all of it is on disk. Counts how often it is asked to take less room.
#[derive(Default)]
pub(super) struct AllCheckpointed {
    pub(super) shrinks: AtomicU64,
    /// What happens when it is asked for a record the next time.
    pub(super) when_asked: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl KeyedCopy for AllCheckpointed {
    fn block_covering(&self, _sequence: Sequence) -> Result<Option<SealedBlock>, KeyedError> {
        Ok(None)
    }

    fn block_at(&self, _ordinal: Ordinal) -> Result<Option<SealedBlock>, KeyedError> {
        let happens = self.when_asked.lock().unwrap().take();
        if let Some(happens) = happens {
            happens();
        }
        Ok(None)
    }

    fn applied(&self) -> Watermark {
        self.checkpointed()
    }

    fn checkpointed(&self) -> Watermark {
        Watermark { ordinal: Ordinal(u64::MAX - 1), sequence: Sequence(u64::MAX - 1) }
    }

    fn latest_state(&self) -> Result<Option<SealedBlock>, KeyedError> {
        Ok(None)
    }

    fn wrapped_keys(&self) -> Result<Vec<(u32, Vec<u8>)>, KeyedError> {
        Ok(Vec::new())
    }

    fn forget_up_to(&self, _watermark: Watermark) {}

    fn shrink(&self, _bytes_max: u64) {
        self.shrinks.fetch_add(1, Ordering::Relaxed);
    }
}

/// Holds everything that a journal had at some moment.
#[derive(Clone)]
pub(super) struct Follower {
    blocks: Vec<SealedBlock>,
    reached: Watermark,
    keys: Vec<(u32, Vec<u8>)>,
}

impl Follower {
    pub(super) fn of(opened: &OpenedJournal) -> Self {
        let feed = Feed(Arc::clone(&opened.journal.outbox));
        let mut blocks: Vec<SealedBlock> = Vec::new();
        while let Ok(more) = feed.blocks_after(blocks.last().map_or(Ordinal(0), |block| block.ordinal), 10_000) {
            if more.is_empty() {
                break;
            }
            blocks.extend(more);
        }
        assert!(blocks.iter().enumerate().all(|(place, block)| block.ordinal == Ordinal(place as u64 + 1)));
        assert!(blocks.iter().all(|block| feed.parse(&block.bytes).as_ref() == Ok(block)));
        Self { blocks, reached: feed.committed(), keys: feed.wrapped_keys() }
    }

    /// As the keyed store keeps them: of the snapshots the latest.
    pub(super) fn with_latest_snapshot(&self) -> Self {
        let latest = self.blocks.iter().rposition(|block| block.kind == BlockKind::State);
        let kept = |(place, block): &(usize, &SealedBlock)| block.kind != BlockKind::State || Some(*place) == latest;
        let blocks = self.blocks.iter().enumerate().filter(kept).map(|(_, block)| block.clone()).collect();
        Self { blocks, ..self.clone() }
    }

    pub(super) fn without_snapshots(&self) -> Self {
        let blocks = self.blocks.iter().filter(|block| block.kind != BlockKind::State).cloned().collect();
        Self { blocks, ..self.clone() }
    }

    pub(super) fn without_records(&self) -> Self {
        Self { blocks: Vec::new(), ..self.clone() }
    }
}

impl KeyedCopy for Follower {
    fn block_covering(&self, sequence: Sequence) -> Result<Option<SealedBlock>, KeyedError> {
        Ok(self.blocks.iter().find(|block| block.covers(sequence)).cloned())
    }

    fn block_at(&self, ordinal: Ordinal) -> Result<Option<SealedBlock>, KeyedError> {
        Ok(self.blocks.iter().find(|block| block.ordinal == ordinal).cloned())
    }

    fn applied(&self) -> Watermark {
        self.reached
    }

    fn checkpointed(&self) -> Watermark {
        self.reached
    }

    fn latest_state(&self) -> Result<Option<SealedBlock>, KeyedError> {
        Ok(self.blocks.iter().rev().find(|block| block.kind == BlockKind::State).cloned())
    }

    fn wrapped_keys(&self) -> Result<Vec<(u32, Vec<u8>)>, KeyedError> {
        Ok(self.keys.clone())
    }

    fn forget_up_to(&self, _watermark: Watermark) {}
}

/// Another copy that leaves some questions open, by their number from 1 on.
pub(super) struct Interrupted {
    copy: Arc<dyn KeyedCopy>,
    asked: AtomicU64,
    silent: RangeInclusive<u64>,
    shrinks: AtomicU64,
    waits_for_room: bool,
    /// Set aside: it has nothing for now.
    pub(super) is_rebuilding: AtomicBool,
}

impl Interrupted {
    pub(super) fn at(copy: Arc<dyn KeyedCopy>, silent: RangeInclusive<u64>) -> Self {
        Self {
            copy,
            asked: AtomicU64::default(),
            silent,
            shrinks: AtomicU64::default(),
            waits_for_room: false,
            is_rebuilding: AtomicBool::default(),
        }
    }

    /// One that was set aside and has nothing yet.
    pub(super) fn rebuilding(copy: Arc<dyn KeyedCopy>) -> Self {
        Self { is_rebuilding: AtomicBool::new(true), ..Self::at(copy, 0..=0) }
    }

    /// One that does not answer for want of free space.
    pub(super) fn without_room(copy: Arc<dyn KeyedCopy>) -> Self {
        Self { waits_for_room: true, ..Self::at(copy, 1..=u64::MAX) }
    }

    pub(super) fn shrinks(&self) -> u64 {
        self.shrinks.load(Ordering::Relaxed)
    }

    pub(super) fn was_silent(&self) -> bool {
        self.asked.load(Ordering::Relaxed) >= *self.silent.start()
    }

    fn asked(&self) -> Result<&dyn KeyedCopy, KeyedError> {
        let number = self.asked.fetch_add(1, Ordering::Relaxed) + 1;
        if self.silent.contains(&number) {
            return Err(KeyedError::Unavailable("it is still being opened".into()));
        }
        Ok(self.copy.as_ref())
    }
}

impl KeyedCopy for Interrupted {
    fn block_covering(&self, sequence: Sequence) -> Result<Option<SealedBlock>, KeyedError> {
        if self.is_rebuilding() { Ok(None) } else { self.asked()?.block_covering(sequence) }
    }

    fn block_at(&self, ordinal: Ordinal) -> Result<Option<SealedBlock>, KeyedError> {
        if self.is_rebuilding() { Ok(None) } else { self.asked()?.block_at(ordinal) }
    }

    fn is_rebuilding(&self) -> bool {
        self.is_rebuilding.load(Ordering::Relaxed)
    }

    /// One that is never open does not know.
    fn applied(&self) -> Watermark {
        if self.silent.contains(&u64::MAX) { Watermark::default() } else { self.copy.applied() }
    }

    fn checkpointed(&self) -> Watermark {
        self.copy.checkpointed()
    }

    fn latest_state(&self) -> Result<Option<SealedBlock>, KeyedError> {
        self.asked()?.latest_state()
    }

    fn wrapped_keys(&self) -> Result<Vec<(u32, Vec<u8>)>, KeyedError> {
        self.asked()?.wrapped_keys()
    }

    fn waits_for_room(&self) -> bool {
        self.waits_for_room
    }

    fn forget_up_to(&self, watermark: Watermark) {
        self.copy.forget_up_to(watermark);
    }

    fn shrink(&self, _bytes_max: u64) {
        self.shrinks.fetch_add(1, Ordering::Relaxed);
    }
}
