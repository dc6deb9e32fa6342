//! The writer: one owner, one write and one `fdatasync` per commit.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use vitalgate_domain::{Change, ClockTrust, Entry, Received, Sequence, UnixMs};

use crate::copy::{Ordinal, Watermark};
use crate::files::{FolderClaim, StoredFile};
use crate::group::{Group, GroupError, SealingPlace};
use crate::keyring::KeyError;
use crate::outbox::Outbox;
use crate::record::aligned;
use crate::segment::{RECORDS_START, Segment, SegmentHeader, segment_name};
use crate::space::{Room, Space};
use crate::state::{State, StateKeeper};

/// Most bytes that go out with one write; a larger commit takes several, one after the other.
pub const GROUP_BYTES_MAX: usize = 2 * 1024 * 1024;
/// A segment's last part that only settling may use where no further segment can be had: one in so many.
const SETTLING_PART: u64 = 4;
/// A segment's last part that, where no further segment can be had, only changes may use that give room back: one in so many.
const LAST_PART: u64 = 16;

/// Why a commit failed. What it was to hold must not be acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// Free space is below the floor: nothing was written. It goes on by itself when space returns.
    #[error("free space is below the floor: nothing was stored; free space on the store's disk")]
    BelowFloor,
    /// A single entry or change is larger than a record may be: nothing was written.
    #[error("a single entry or change is too large to be stored: {0}")]
    TooLarge(String),
    /// The disk failed. What is on it is no longer certain: the process must end and start again.
    #[error("the journal cannot be written: {0}; the process must be restarted")]
    Io(String),
    /// A data key cannot be had: nothing was written.
    #[error("no data key to seal with: {0}")]
    Key(#[from] KeyError),
}

impl CommitError {
    /// Whether the process must end.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        matches!(self, Self::Io(_))
    }
}

impl From<GroupError> for CommitError {
    fn from(error: GroupError) -> Self {
        match error {
            GroupError::TooLarge(_) => Self::TooLarge(error.to_string()),
            GroupError::Wire(_) | GroupError::Seal => Self::Io(error.to_string()),
        }
    }
}

fn io_error(error: &io::Error) -> CommitError {
    CommitError::Io(error.to_string())
}

/// The segment that is being written.
pub(crate) struct Active {
    pub segment: Arc<Segment>,
    pub file: Arc<dyn StoredFile>,
    pub shadow: Option<Arc<dyn StoredFile>>,
    /// Where the next record starts.
    pub offset: u64,
    /// The link that the next record carries.
    pub previous: u64,
}

/// The writer. It has one owner.
pub struct Journal {
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) space: Arc<Space>,
    pub(crate) active: Active,
    pub(crate) next: Watermark,
    pub(crate) run: u64,
    pub(crate) keeper: StateKeeper,
    pub(crate) poisoned: Option<String>,
    pub(crate) buffer: Vec<u8>,
    /// Whether a clock that was set told the time since the opening: the latest known time may be that of days ago until then.
    pub(crate) clock_is_set: bool,
    /// When the keyed store was last asked again for what it could not be asked for at the start.
    pub(crate) asked_again: Option<Instant>,
    pub(crate) _claim: Box<dyn FolderClaim>,
}

/// How many of the entries that fit are whole samples. All of them, where one sample is more than fits.
fn whole_samples(entries: &[Entry], fitting: usize) -> usize {
    let goes_on = |place: &usize| entries.get(place - 1).map(Entry::origin) == entries.get(*place).map(Entry::origin);
    (1..=fitting).rev().find(|place| !goes_on(place)).unwrap_or(fitting)
}

/// A number for a run or a segment that no other has.
pub(crate) fn random_number() -> Result<u64, KeyError> {
    let mut bytes = [0; 8];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| KeyError::NoRandom)?;
    Ok(u64::from_le_bytes(bytes))
}

impl Journal {
    /// The sequence that the next entry takes.
    #[must_use]
    pub fn next_sequence(&self) -> Sequence {
        self.next.sequence
    }

    /// What is known about the entries up to the last commit.
    #[must_use]
    pub fn state(&self) -> &State {
        self.keeper.state()
    }

    /// Tells the time, for retention, as far as it is trusted; entries that are committed tell it too.
    pub fn note_time(&mut self, now: &Received) {
        self.clock_is_set |= now.trust != ClockTrust::Unset;
        self.keeper.note_time(now);
    }

    /// Reckons with a change that cannot be written yet. It is gone with the process, unless it is written later.
    pub fn assume(&mut self, change: &Change) {
        self.keeper.apply_change(change);
    }

    /// Commits entries and changes; when it returns `Ok`, they are on disk. Gives the sequences
    /// that the entries took, or `None` when there were none. Changes alone may also be written
    /// below the free-space floor, as far as the reserve goes; the last of it is for those that give
    /// room back.
    ///
    /// # Errors
    /// [`CommitError`] says whether anything else can go on.
    pub fn append(&mut self, entries: &[Entry], changes: &[Change]) -> Result<Option<(Sequence, Sequence)>, CommitError> {
        if let Some(reason) = &self.poisoned {
            return Err(CommitError::Io(reason.clone()));
        }
        if !entries.is_empty() && self.space.room().map_err(|error| io_error(&error))? == Room::BelowFloor {
            return Err(CommitError::BelowFloor);
        }
        let first = self.next.sequence;
        let mut left = entries;
        loop {
            let mut group = Group::default();
            let mut taken = group.take_entries(left, self.group_bytes_max())?;
            // A segment begins with a whole sample: what came together is told by what stands together.
            let whole = whole_samples(left, taken);
            if whole < taken {
                group = Group::default();
                taken = group.take_entries(left.split_at(whole).0, self.group_bytes_max())?;
            }
            let (now, later) = left.split_at_checked(taken).unwrap_or((left, &[]));
            if left.len() == entries.len() && !later.is_empty() && self.space.is_short() {
                // The rest might find no room, and what is on disk cannot be refused any more.
                return Err(CommitError::BelowFloor);
            }
            // Changes speak of entries before them: they come with the last part.
            let changes_now = if later.is_empty() { changes } else { &[] };
            group.take_changes(changes_now)?;
            if !group.is_empty() {
                self.commit(&group, now, changes_now)?;
            }
            left = later;
            if left.is_empty() {
                break;
            }
        }
        Ok((!entries.is_empty()).then(|| (first, Sequence(self.next.sequence.0 - 1))))
    }

    /// Whether free space is below the floor: no entry is taken.
    ///
    /// # Errors
    /// When the disk does not say how much is free.
    pub fn is_below_floor(&self) -> Result<bool, CommitError> {
        Ok(self.space.room().map_err(|error| io_error(&error))? == Room::BelowFloor)
    }

    /// Whether entries would be taken now: above the free-space floor, and with a segment to go on in.
    ///
    /// # Errors
    /// When the disk does not say how much is free.
    pub fn has_room(&self) -> Result<bool, CommitError> {
        Ok(self.space.room().map_err(|error| io_error(&error))? == Room::Enough && !self.space.is_short())
    }

    fn group_bytes_max(&self) -> usize {
        let half = (self.outbox.options.segment_bytes - RECORDS_START) / 2;
        usize::try_from(half).unwrap_or(usize::MAX).min(GROUP_BYTES_MAX)
    }

    fn commit(&mut self, group: &Group, entries: &[Entry], changes: &[Change]) -> Result<(), CommitError> {
        if group.bytes() as u64 > self.outbox.options.segment_bytes - RECORDS_START {
            return Err(CommitError::TooLarge(format!("{} bytes do not fit into a segment", group.bytes())));
        }
        if self.active.offset + group.bytes() as u64 > self.outbox.options.segment_bytes {
            self.roll(entries.is_empty() || self.is_all_settled())?;
            // The snapshot of the new segment took some of its room.
            if self.active.offset + group.bytes() as u64 > self.outbox.options.segment_bytes {
                return Err(CommitError::TooLarge(format!("{} bytes do not fit into a segment", group.bytes())));
            }
        }
        let is_locked_out = match entries {
            [] => self.would_reach_into(group, LAST_PART) && !self.gives_room_back(changes),
            _ => self.would_reach_into(group, SETTLING_PART),
        };
        if is_locked_out {
            return Err(CommitError::BelowFloor);
        }
        let result = self.write(group);
        let link = self.poison_on_error(result)?;
        self.advance(group, link);
        for (index, entry) in entries.iter().enumerate() {
            let sequence = Sequence(self.next.sequence.0 - group.entries() + index as u64);
            self.keeper.apply_entry(sequence, entry);
        }
        changes.iter().for_each(|change| self.keeper.apply_change(change));
        self.publish();
        Ok(())
    }

    /// Whether every destination has what the segment in use holds. Then the reserve may follow it: it becomes the reserve itself.
    fn is_all_settled(&self) -> bool {
        let (first, state) = (self.active.segment.first, self.keeper.state());
        let last = Sequence(self.next.sequence.0.saturating_sub(1));
        last < first || (state.settled_everywhere(first, last) && !state.unresolved_in(first, last))
    }

    /// Where no segment can follow, the end of the one in use is for settling: what cannot be settled is never given back.
    /// And the last of it is for what lets the oldest segment go.
    fn would_reach_into(&self, group: &Group, part: u64) -> bool {
        let kept = self.outbox.options.segment_bytes / part;
        let is_near_the_end = self.active.offset + group.bytes() as u64 + kept > self.outbox.options.segment_bytes;
        is_near_the_end && !self.space.has_reserve() && self.space.is_short()
    }

    /// Whether a segment can be given back once these are written, or they are what nothing could be given back without.
    fn gives_room_back(&self, changes: &[Change]) -> bool {
        let is_asked_for = |change: &Change| matches!(change, Change::DeadLettersResolved { .. } | Change::WrittenConditionally { .. });
        if changes.iter().any(is_asked_for) {
            return true;
        }
        let segments = self.outbox.segments();
        let [oldest, after, ..] = segments.as_slice() else { return true };
        let (first, last) = (oldest.first, Sequence(after.first.0.saturating_sub(1)));
        let may_go = |state: &State| last < first || (state.settled_everywhere(first, last) && !state.unresolved_in(first, last));
        let state = self.keeper.state();
        if may_go(state) {
            return false;
        }
        let mut then = StateKeeper::new(State { settled: state.settled.clone(), unresolved: state.unresolved.clone(), ..State::default() });
        changes.iter().for_each(|change| then.apply_change(change));
        may_go(then.state())
    }

    /// After a failed write or sync nothing that follows could be certain ("fsyncgate"): the kernel
    /// may have marked pages clean that never reached the disk.
    fn poison_on_error<T>(&mut self, result: Result<T, CommitError>) -> Result<T, CommitError> {
        if let Err(error) = &result {
            self.poisoned = Some(error.to_string());
        }
        result
    }

    /// One write, one sync, then the shadow. Gives the link for the record after.
    fn write(&mut self, group: &Group) -> Result<u64, CommitError> {
        let key_id = self.active.segment.key_id;
        let key = self.outbox.keyring.key(key_id)?;
        let place = SealingPlace {
            segment: self.active.segment.id,
            run: self.run,
            key_id,
            key: &key,
            ordinal: self.next.ordinal,
            first: self.next.sequence,
            previous: self.active.previous,
        };
        self.buffer.clear();
        let link = group.seal_into(&place, &mut self.buffer)?;
        self.active.file.write_all_at(&self.buffer, self.active.offset).map_err(|error| io_error(&error))?;
        self.active.file.sync_data().map_err(|error| io_error(&error))?;
        self.write_shadow();
        Ok(link)
    }

    /// The same bytes once more, without a sync: they survive a killed process, and so heal any one
    /// damaged file while the keyed store still lags behind.
    fn write_shadow(&mut self) {
        let Some(shadow) = &self.active.shadow else { return };
        if let Err(error) = shadow.write_all_at(&self.buffer, self.active.offset) {
            tracing::warn!(%error, "the journal's shadow cannot be written; it is left out until the next segment");
            self.active.shadow = None;
        }
    }

    fn advance(&mut self, group: &Group, link: u64) {
        self.active.offset += aligned(group.bytes()) as u64;
        self.active.previous = link;
        self.next.ordinal = Ordinal(self.next.ordinal.0 + group.records());
        self.next.sequence = self.next.sequence.plus(group.entries());
    }

    pub(crate) fn publish(&self) {
        let (ordinal, sequence) = (Ordinal(self.next.ordinal.0 - 1), Sequence(self.next.sequence.0 - 1));
        self.active.segment.written_to(crate::segment::Mark {
            offset: self.active.offset,
            ordinal: self.next.ordinal,
            sequence: self.next.sequence,
        });
        self.outbox.publish(Watermark { ordinal, sequence });
    }

    /// Goes on in a new segment, which begins with a snapshot of the state.
    fn roll(&mut self, with_reserve: bool) -> Result<(), CommitError> {
        let taken = self.space.take(with_reserve).map_err(|error| match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => CommitError::BelowFloor,
            _ => io_error(&error),
        })?;
        let Some((name, file)) = taken else { return Err(CommitError::BelowFloor) };
        let snapshot = self.snapshot();
        let begun = snapshot.map_err(CommitError::from).and_then(|group| Ok((self.begin(name, file, &group)?, group)));
        let ((active, link, run), group) = self.poison_on_error(begun)?;
        self.active = active;
        self.run = run;
        self.active.offset = RECORDS_START;
        self.advance(&group, link);
        self.outbox.segments.write().unwrap_or_else(std::sync::PoisonError::into_inner).push(Arc::clone(&self.active.segment));
        self.publish();
        self.space.prepare();
        Ok(())
    }

    /// The state, with fewer recent ids where they would fill too much of a (short) segment.
    fn snapshot(&mut self) -> Result<Group, GroupError> {
        loop {
            let mut group = Group::default();
            let taken = group.take_state(self.keeper.state());
            let fits = match &taken {
                Ok(()) => group.bytes() as u64 <= (self.outbox.options.segment_bytes - RECORDS_START) / 2,
                Err(error) => !matches!(error, GroupError::TooLarge(_)),
            };
            if fits || !self.keeper.halve_seen() {
                return taken.map(|()| group);
            }
        }
    }

    fn begin(&mut self, spare: &str, file: Arc<dyn StoredFile>, group: &Group) -> Result<(Active, u64, u64), CommitError> {
        let key_id = self.outbox.keyring.newest().ok_or(KeyError::Missing(0))?;
        let wall = self.keeper.state().latest_wall.filter(|_| self.clock_is_set);
        let (header, run, link) = begin_segment(&self.outbox, self.next, wall, key_id, group, &mut self.buffer)?;
        let write = || -> io::Result<()> {
            file.write_all_at(&self.buffer, 0)?;
            file.sync_all()?;
            let name = segment_name(header.first, header.ordinal);
            self.outbox.files.rename(&self.outbox.journal_dir.join(spare), &self.outbox.journal_dir.join(name))?;
            self.outbox.files.sync_dir(&self.outbox.journal_dir)
        };
        write().map_err(|error| io_error(&error))?;
        let segment = Arc::new(Segment::new(&header));
        let shadow = begin_shadow(&self.outbox, &segment, &self.buffer);
        Ok((Active { segment, file, shadow, offset: RECORDS_START, previous: link }, link, run))
    }

    /// When the newest data key was made; `None` when that is not known.
    #[must_use]
    pub fn data_key_made_at(&self) -> Option<UnixMs> {
        let keyring = &self.outbox.keyring;
        keyring.newest().and_then(|newest| keyring.made_at(newest))
    }

    /// Writes down when the newest data key was made, where no key file says so.
    ///
    /// # Errors
    /// When its files cannot be written; they are as before then.
    pub fn note_data_key_made(&mut self, made_at: UnixMs) -> Result<(), KeyError> {
        let newest = self.outbox.keyring.newest().ok_or(KeyError::Missing(0))?;
        self.outbox.keyring.note_made(self.outbox.files.as_ref(), newest, made_at)
    }

    /// Seals what is committed from now on with a new data key; what is there stays as it is. `now`
    /// is written down with the key, if it is known.
    ///
    /// # Errors
    /// When the key cannot be made or stored, or the new segment cannot be begun.
    pub fn rotate_data_key(&mut self, now: Option<UnixMs>) -> Result<u32, CommitError> {
        if let Some(reason) = &self.poisoned {
            return Err(CommitError::Io(reason.clone()));
        }
        let key_id = self.outbox.keyring.create(self.outbox.files.as_ref(), now)?;
        self.roll(false)?;
        Ok(key_id)
    }
}

/// Header page and sealed snapshot of a new segment into `buffer`; gives header, run and link.
pub(crate) fn begin_segment(
    outbox: &Outbox,
    next: Watermark,
    wall: Option<UnixMs>,
    key_id: u32,
    group: &Group,
    buffer: &mut Vec<u8>,
) -> Result<(SegmentHeader, u64, u64), CommitError> {
    let key = outbox.keyring.key(key_id)?;
    let wrapped = outbox.keyring.wrapped(key_id).ok_or(KeyError::Missing(key_id))?;
    let header = SegmentHeader { id: random_number()?, first: next.sequence, ordinal: next.ordinal, wall, key_id, wrapped };
    let run = random_number()?;
    buffer.clear();
    buffer.extend_from_slice(&header.to_bytes());
    let place = SealingPlace { segment: header.id, run, key_id, key: &key, ordinal: next.ordinal, first: next.sequence, previous: 0 };
    let link = group.seal_into(&place, buffer)?;
    Ok((header, run, link))
}

/// The shadow of a new segment. Without one the journal goes on.
pub(crate) fn begin_shadow(outbox: &Outbox, segment: &Segment, bytes: &[u8]) -> Option<Arc<dyn StoredFile>> {
    let made = outbox.files.create(&outbox.shadow_dir.join(&segment.name)).and_then(|shadow| {
        shadow.write_all_at(bytes, 0)?;
        Ok(shadow)
    });
    made.inspect_err(|error| tracing::warn!(%error, "the shadow of a segment cannot be written")).ok()
}
