//! The seam between the two copies on disk: the journal and the keyed store.
//!
//! The journal is written first and is what an acknowledgement stands on. The keyed store follows
//! it: it is fed from a [`BlockSource`] and offers its content back as a [`KeyedCopy`], so that
//! each copy can heal the other. Both hold the very same sealed bytes.
//!
//! # Order
//! Every record of the journal has an [`Ordinal`], from 1, without gaps, in the order of commit.
//! Entries have in addition a [`Sequence`] each. A record is of one [`BlockKind`]: entries (takes
//! sequences), changes (takes none) or a state snapshot (takes none, may be skipped or kept as the
//! latest). The keyed store applies records strictly by ordinal and remembers the [`Watermark`] of
//! the last one in the same write as the record itself.
//!
//! # Size
//! A record of entries is at most [`BLOCK_BYTES_MAX`] long unless a single entry is larger (a dead
//! letter with a payload of 64 KiB). Such a record, a large record of changes and a snapshot can
//! have up to [`RECORD_BYTES_MAX`]: the keyed store cuts them into several values.

use std::sync::Arc;

use vitalgate_domain::{Change, Record, Sequence};

/// Longest record, header included, that the journal writes while it has the choice, in bytes.
/// Longer values would leave sled's segments for its `blobs/` folder.
pub const BLOCK_BYTES_MAX: usize = 6 * 1024;
/// Longest record of any kind, header included, in bytes.
pub const RECORD_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Place of a record in the journal's order, from 1, without gaps; 0 is "before the first".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Ordinal(pub u64);

impl Ordinal {
    /// The place after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// How far something has followed the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Watermark {
    /// The last record taken; everything before it was taken too.
    pub ordinal: Ordinal,
    /// The last sequence taken (0 when none).
    pub sequence: Sequence,
}

/// What a record holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BlockKind {
    /// `count` entries with the sequences `first..first + count`.
    Entries,
    /// Changes; `first` is the sequence that the next entry takes, `count` is 0.
    Changes,
    /// A snapshot of the state; `first` and `count` as for changes.
    State,
}

/// A sealed record as both copies hold it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedBlock {
    /// What it holds.
    pub kind: BlockKind,
    /// Its place among all records.
    pub ordinal: Ordinal,
    /// The first sequence in it, see [`BlockKind`].
    pub first: Sequence,
    /// How many entries it holds.
    pub count: u32,
    /// The data key that seals it.
    pub key_id: u32,
    /// Header and sealed body, exactly as in the journal (without the padding behind it).
    pub bytes: Vec<u8>,
}

impl SealedBlock {
    /// The watermark of a copy that has taken this record.
    #[must_use]
    pub fn watermark(&self) -> Watermark {
        Watermark { ordinal: self.ordinal, sequence: Sequence(self.first.0.saturating_add(u64::from(self.count)).saturating_sub(1)) }
    }

    /// Whether the sequence lies in it.
    #[must_use]
    pub fn covers(&self, sequence: Sequence) -> bool {
        self.kind == BlockKind::Entries && self.first <= sequence && sequence.0 - self.first.0 < u64::from(self.count)
    }
}

/// Why the keyed store could not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyedError {
    /// It is not open (yet), or was set aside and is being rebuilt.
    #[error("the keyed store is not available: {0}")]
    Unavailable(String),
    /// It answered something that cannot be, or panicked inside.
    #[error("the keyed store is damaged: {0}; it is set aside and rebuilt from the journal at the next start")]
    Damaged(String),
    /// It did not answer in time.
    #[error("the keyed store did not answer within {0} ms; the process must restart")]
    Deadline(u64),
    /// The disk failed.
    #[error("the keyed store cannot be read or written: {0}")]
    Io(String),
}

/// What an answer says to be there: nothing, where it is damaged. That there is no answer now says nothing about it.
pub(crate) fn whole<T>(answer: Result<Option<T>, KeyedError>) -> Result<Option<T>, KeyedError> {
    match answer {
        Err(KeyedError::Damaged(_)) => Ok(None),
        answer => answer,
    }
}

/// What the keyed side offers to the journal: a second copy to heal from.
///
/// No method may hang or panic: answers come under a deadline, damage is an error.
pub trait KeyedCopy: Send + Sync {
    /// The record of entries that holds the sequence, if it is here.
    ///
    /// # Errors
    /// When the keyed store cannot answer.
    fn block_covering(&self, sequence: Sequence) -> Result<Option<SealedBlock>, KeyedError>;

    /// The record at this place, of whichever kind, if it is here. Entries and changes stay here as
    /// long as the journal may still need them (until [`KeyedCopy::forget_up_to`]); of the
    /// snapshots only the latest has to.
    ///
    /// # Errors
    /// When the keyed store cannot answer.
    fn block_at(&self, ordinal: Ordinal) -> Result<Option<SealedBlock>, KeyedError>;

    /// How far it has followed the journal. One that does not answer yet does not know.
    fn applied(&self) -> Watermark;

    /// Whether it does not answer for want of free space, which may last until the journal gives some back.
    fn waits_for_room(&self) -> bool {
        false
    }

    /// Whether it was set aside and is not whole again: that it does not have something now does not say that it never had it.
    fn is_rebuilding(&self) -> bool {
        false
    }

    /// How far what it followed is certainly on disk: the journal may drop segments and shadow up
    /// to here.
    fn checkpointed(&self) -> Watermark;

    /// The latest snapshot record, if one was applied.
    ///
    /// # Errors
    /// When the keyed store cannot answer.
    fn latest_state(&self) -> Result<Option<SealedBlock>, KeyedError>;

    /// Every wrapped data key, by key id; a third copy beside `keys/` and the segment headers.
    ///
    /// # Errors
    /// When the keyed store cannot answer.
    fn wrapped_keys(&self) -> Result<Vec<(u32, Vec<u8>)>, KeyedError>;

    /// The journal no longer holds records up to here (settled everywhere and past retention): the
    /// keyed side may drop them too, when it likes.
    fn forget_up_to(&self, watermark: Watermark);

    /// Every destination has all that the journal holds, and there is no room for readings: a keyed side that takes
    /// more than so many bytes may begin anew with what the journal holds.
    fn shrink(&self, _bytes_max: u64) {}
}

/// Why the journal could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// The disk failed.
    #[error("the journal cannot be read: {0}")]
    Io(String),
    /// No copy has these records: the follower notes it and goes on behind `until`.
    #[error("the journal lost the records {} to {}; go on after {}", from.0, until.ordinal.0, until.ordinal.0)]
    Lost {
        /// The first record that is missing.
        from: Ordinal,
        /// The last record that is missing, and the last sequence before the next record.
        until: Watermark,
    },
    /// A record does not open or decode.
    #[error("the journal's record {} does not open: {reason}", ordinal.0)]
    Undecodable {
        /// The record.
        ordinal: Ordinal,
        /// Why.
        reason: String,
    },
}

/// What the journal offers to the keyed side's feeder. Only committed records are ever seen here.
pub trait BlockSource: Send + Sync {
    /// How far the journal is committed (on disk).
    fn committed(&self) -> Watermark;

    /// The first record that the journal still holds; older ones were reclaimed.
    fn oldest(&self) -> Ordinal;

    /// The records after `after`, of every kind, in order, without gaps, until `bytes_max` is
    /// reached (at least one, if there is one). Empty when nothing follows. Asked for something
    /// older than [`BlockSource::oldest`], it starts there (those before are settled and gone).
    ///
    /// # Errors
    /// When the disk fails, or a range is lost in every copy.
    fn blocks_after(&self, after: Ordinal, bytes_max: usize) -> Result<Vec<SealedBlock>, SourceError>;

    /// Opens a record of entries.
    ///
    /// # Errors
    /// When it does not open or decode, or is of another kind.
    fn open_entries(&self, block: &SealedBlock) -> Result<Vec<Record>, SourceError>;

    /// Opens a record of changes; they are applied in their order.
    ///
    /// # Errors
    /// When it does not open or decode, or is of another kind.
    fn open_changes(&self, block: &SealedBlock) -> Result<Vec<Change>, SourceError>;

    /// Checks header, checksum and seal of bytes that a copy held, and takes them apart. For
    /// the keyed side to verify what it read back from sled.
    ///
    /// # Errors
    /// When the bytes are not a whole, unaltered record.
    fn parse(&self, bytes: &[u8]) -> Result<SealedBlock, SourceError>;

    /// The wrapped data keys in use, by key id, for the keyed side to hold a copy of.
    fn wrapped_keys(&self) -> Vec<(u32, Vec<u8>)>;

    /// Data keys below this one are destroyed: no copy of them is to be kept.
    fn oldest_key(&self) -> u32 {
        0
    }

    /// Calls `listener` after each commit with the new watermark. It must return at once.
    fn subscribe(&self, listener: Box<dyn Fn(Watermark) + Send + Sync>);
}

/// A shared journal as the feeder sees it.
pub type SharedSource = Arc<dyn BlockSource>;
