//! Opening the store: keys, segments, the true end, the state.

use std::io;
use std::path::Path;
use std::sync::{Arc, PoisonError};

use vitalgate_domain::{KeyWrap, Sequence};

use crate::copy::{BlockKind, KeyedError, Ordinal, Watermark, whole};
use crate::files::{FileSystem, FolderClaim, fill_with_zeros, read_salvaging, read_up_to};
use crate::group::Group;
use crate::journal::{Active, CommitError, Journal, begin_segment, begin_shadow, random_number};
use crate::keyring::{KeyError, Keyring};
use crate::options::{SEGMENT_BYTES_MIN, StoreOptions};
use crate::outbox::{Copies, KEPT, Outbox};
use crate::reader::Reader;
use crate::record::{search, whole_record};
use crate::report::{Finding, Healer, OpenReport};
use crate::segment::{RECORDS_START, Segment, SegmentHeader, parse_name, segment_name};
use crate::space::{Space, UNREADY};
use crate::state::{State, StateKeeper};
use crate::tail::{SecondCopy, Tail, find_end};
use crate::walker::{Step, WalkError, Walker};

/// Why the store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("the store in {0} is in use by another process; stop that one first")]
    InUse(String),
    /// The disk fails or is full, or the folder cannot be written.
    #[error("the store in {dir} cannot be opened; check the folder's owner, the disk and its free space")]
    Io {
        /// The store's folder.
        dir: String,
        /// What the operating system said.
        #[source]
        error: io::Error,
    },
    /// No data key can be had.
    #[error("the store's data keys cannot be used")]
    Key(#[from] KeyError),
    /// Something is missing that the keyed store may have.
    #[error("the keyed store does not answer yet, and may have what is missing in the journal; nothing is given up before it answers")]
    Keyed(#[source] KeyedError),
    /// The first segment cannot be begun.
    #[error("the store's first segment cannot be begun")]
    Begin(#[from] CommitError),
    /// The options cannot be used.
    #[error("segments of {0} bytes are too short; at least {SEGMENT_BYTES_MIN}")]
    SegmentTooShort(u64),
}

/// The journal side, opened.
pub(crate) struct OpenedJournal {
    pub journal: Journal,
    pub reader: Reader,
    pub state: State,
    pub report: OpenReport,
}

/// Opens the journal side; `second` is asked only when something is wrong.
///
/// # Errors
/// When the store is in use, the disk fails, no key opens, or `second` may have what is missing and does not answer. Damage is
/// mended and reported instead.
pub(crate) fn open_journal(
    options: StoreOptions,
    keys: Arc<dyn KeyWrap>,
    files: Arc<dyn FileSystem>,
    second: Option<SecondCopy>,
) -> Result<OpenedJournal, OpenError> {
    if options.segment_bytes < SEGMENT_BYTES_MIN {
        return Err(OpenError::SegmentTooShort(options.segment_bytes));
    }
    let dir = options.dir.display().to_string();
    let failed = |error: io::Error| OpenError::Io { dir: dir.clone(), error };
    let claim = make_folders(files.as_ref(), &options.dir).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => OpenError::InUse(dir.clone()),
        _ => failed(error),
    })?;
    let keyring = Keyring::load(files.as_ref(), &options.dir.join("keys"), keys).map_err(failed)?;
    let outbox = Arc::new(Outbox::new(options, files, keyring));
    if let Some(second) = &second {
        outbox.connect(Arc::clone(&second.copy));
    }
    let opening = Opening { outbox, second };
    opening.run(claim, &failed)
}

fn make_folders(files: &dyn FileSystem, dir: &Path) -> io::Result<Box<dyn FolderClaim>> {
    files.create_dir_all(dir)?;
    let claim = files.claim(dir)?;
    for name in ["journal", "shadow", "keys", "quarantine", KEPT] {
        files.create_dir_all(&dir.join(name))?;
    }
    files.sync_dir(dir)?;
    if let Some(above) = dir.parent().filter(|above| !above.as_os_str().is_empty()) {
        files.sync_dir(above)?;
    }
    Ok(claim)
}

struct Opening {
    outbox: Arc<Outbox>,
    second: Option<SecondCopy>,
}

impl Opening {
    fn run(self, claim: Box<dyn FolderClaim>, failed: &dyn Fn(io::Error) -> OpenError) -> Result<OpenedJournal, OpenError> {
        let outbox = &self.outbox;
        let mut doubtful = self.load_segments().map_err(failed)?;
        let unready = outbox.journal_dir.join(UNREADY);
        if outbox.files.open(&unready).is_ok() {
            outbox.files.remove(&unready).map_err(failed)?;
        }
        let space = Space::new(Arc::clone(&outbox.files), &outbox.journal_dir, &outbox.options).map_err(failed)?;
        let walk_failed = |error: WalkError| match error {
            WalkError::Io(error) => failed(error),
            WalkError::Copy(error) => OpenError::Keyed(error),
        };
        if outbox.segments().is_empty() {
            self.restore_newest().map_err(walk_failed)?;
        }
        let Some(last) = outbox.segments().last().cloned() else { return self.begin_first(claim, space, failed) };
        self.ready_keys()?;
        let last_doubtful = doubtful.iter().any(|segment| Arc::ptr_eq(segment, &last));
        let tail = find_end(outbox, &last, self.second.as_ref(), last_doubtful).map_err(walk_failed)?;
        let next = self.beyond_keyed(&tail);
        let committed = Watermark { ordinal: Ordinal(next.ordinal.0 - 1), sequence: Sequence(next.sequence.0 - 1) };
        if !doubtful.is_empty() {
            self.wait_second();
            doubtful.retain(|segment| !Arc::ptr_eq(segment, &last));
            self.look_through(&doubtful, committed);
        }
        let keeper = self.rebuild_state(committed).map_err(walk_failed)?;
        self.restore_front(keeper.state(), &space).map_err(walk_failed)?;
        outbox.keyring.heal(outbox.files.as_ref(), &outbox.findings)?;
        let file = last.open(outbox.files.as_ref(), &outbox.journal_dir).map_err(failed)?;
        let shadow = outbox.files.open(&outbox.shadow_dir.join(&last.name)).ok();
        let active = Active { segment: last, file, shadow, offset: tail.end.offset, previous: tail.previous };
        self.finish(claim, space, active, next, keeper)
    }

    fn finish(
        self,
        claim: Box<dyn FolderClaim>,
        space: Arc<Space>,
        active: Active,
        next: Watermark,
        keeper: StateKeeper,
    ) -> Result<OpenedJournal, OpenError> {
        let outbox = self.outbox;
        space.prepare();
        let state = keeper.state().clone();
        let run = random_number()?;
        let journal = Journal {
            outbox: Arc::clone(&outbox),
            space,
            active,
            next,
            run,
            keeper,
            poisoned: None,
            buffer: Vec::new(),
            clock_is_set: false,
            asked_again: None,
            _claim: claim,
        };
        journal.publish();
        let report = OpenReport { findings: outbox.findings.all() };
        Ok(OpenedJournal { journal, reader: Reader::new(outbox), state, report })
    }

    fn wait_second(&self) {
        if let Some(second) = &self.second {
            (second.wait_open)();
        }
    }

    /// Lists the segments, mends their headers and lengths; gives those that were not whole.
    fn load_segments(&self) -> io::Result<Vec<Arc<Segment>>> {
        let outbox = &self.outbox;
        let restored = outbox.restore_from_shadows()?;
        let mut begins: Vec<_> = outbox.files.list(&outbox.journal_dir)?.iter().filter_map(|name| parse_name(name)).collect();
        begins.sort_unstable_by_key(|(_, ordinal)| *ordinal);
        let (mut segments, mut doubtful) = (Vec::new(), Vec::new());
        for (first, ordinal) in begins {
            let name = segment_name(first, ordinal);
            let path = outbox.journal_dir.join(&name);
            let file = outbox.files.open(&path)?;
            let length = file.len()?;
            let found = SegmentHeader::read(file.as_ref())?.filter(|header| header.first == first && header.ordinal == ordinal);
            let whole = found.is_some() && length >= outbox.options.segment_bytes;
            if !whole {
                outbox.quarantine(&path, &format!("journal/{name}"));
            }
            if length < outbox.options.segment_bytes {
                outbox.findings.add(Finding::Shortened { file: format!("journal/{name}"), bytes: length });
                fill_with_zeros(file.as_ref(), length, outbox.options.segment_bytes)?;
            }
            let header = match found {
                Some(header) => header,
                None => {
                    let header = self.mend_header(first, ordinal)?;
                    file.write_all_at(&header.to_bytes(), 0)?;
                    header
                }
            };
            if !whole {
                file.sync_all()?;
            }
            outbox.keyring.learn(header.key_id, &header.wrapped);
            let segment = Arc::new(Segment::new(&header));
            if !whole || restored.contains(&segment.name) {
                *segment.mending.lock().unwrap_or_else(PoisonError::into_inner) = true;
                doubtful.push(Arc::clone(&segment));
            }
            segments.push(segment);
        }
        *outbox.segments.write().unwrap_or_else(PoisonError::into_inner) = segments;
        Ok(doubtful)
    }

    /// Finds out what a damaged header said.
    fn mend_header(&self, first: Sequence, ordinal: Ordinal) -> io::Result<SegmentHeader> {
        let outbox = &self.outbox;
        let name = segment_name(first, ordinal);
        let limit = usize::try_from(outbox.options.segment_bytes).unwrap_or(usize::MAX);
        let told = |from| outbox.findings.add(Finding::HeaderHealed { file: format!("journal/{name}"), from });
        let shadow = read_up_to(outbox.files.as_ref(), &outbox.shadow_dir.join(&name), limit).unwrap_or_default();
        if let Some(header) = SegmentHeader::parse(&shadow).filter(|header| header.first == first && header.ordinal == ordinal) {
            told(Healer::Shadow);
            return Ok(header);
        }
        let derived = |id, key_id| {
            let wrapped = outbox.keyring.wrapped(key_id).unwrap_or_default();
            SegmentHeader { id, first, ordinal, wall: None, key_id, wrapped }
        };
        let (bytes, _) = read_salvaging(outbox.files.as_ref(), &outbox.journal_dir.join(&name), limit)?;
        if let Some(record) = first_record(&bytes, ordinal).or_else(|| first_record(&shadow, ordinal)) {
            told(Healer::Derived);
            return Ok(derived(record.0, record.1));
        }
        self.wait_second();
        let block = self.second.as_ref().and_then(|second| second.copy.block_at(ordinal).ok().flatten());
        if let Some((header, _)) = block.as_ref().and_then(|block| whole_record(&block.bytes)) {
            told(Healer::Keyed);
            return Ok(derived(header.segment, header.key_id));
        }
        told(Healer::Derived);
        let id = random_number().map_err(io::Error::other)?;
        Ok(derived(id, outbox.keyring.newest().unwrap_or(1)))
    }

    /// The newest key must open: otherwise the key-encryption key is another one.
    fn ready_keys(&self) -> Result<(), OpenError> {
        let keyring = &self.outbox.keyring;
        let newest = self.outbox.segments().iter().map(|segment| segment.key_id).max().max(keyring.newest()).unwrap_or(1);
        match keyring.key(newest) {
            Ok(_) => return Ok(()),
            Err(error @ KeyError::Unavailable { .. }) => return Err(error.into()),
            Err(_) => {}
        }
        self.wait_second();
        let kept = self.second.as_ref().and_then(|second| second.copy.wrapped_keys().ok()).unwrap_or_default();
        kept.iter().for_each(|(key_id, wrapped)| keyring.learn(*key_id, wrapped));
        keyring.key(newest)?;
        Ok(())
    }

    /// Where to go on: behind the journal's end, or behind what the keyed store knows of it.
    fn beyond_keyed(&self, tail: &Tail) -> Watermark {
        let next = Watermark { ordinal: tail.end.ordinal, sequence: tail.end.sequence };
        let applied = match &self.second {
            Some(second) if tail.suspicious => second.copy.applied(),
            _ => return next,
        };
        if applied.ordinal < next.ordinal {
            return next;
        }
        // These were committed, and no copy gives them back.
        self.outbox.findings.add(Finding::Lost { first: next.sequence, last: applied.sequence });
        Watermark { ordinal: applied.ordinal.next(), sequence: applied.sequence.next().max(next.sequence) }
    }

    /// Only what every destination has settled, and no dead letter, is ever reclaimed: where the state knows of more, the oldest
    /// segments are missing. They are made again, or told as lost.
    fn restore_front(&self, state: &State, space: &Space) -> Result<(), WalkError> {
        let outbox = &self.outbox;
        let is_missing = |first: &Sequence| *first < outbox.oldest().0;
        let owed = || state.settled.values().map(|settled| settled.first_missing(Sequence::FIRST)).min().filter(is_missing);
        let missing = || owed().into_iter().chain(outbox.missing_letter(state)).min();
        if missing().is_none() {
            return Ok(());
        }
        self.wait_second();
        while let Some(second) = self.second.as_ref().filter(|_| owed().is_some()) {
            if !outbox.restore_before_oldest(second.copy.as_ref())? {
                break;
            }
        }
        let Some(first) = missing() else { return Ok(()) };
        match &self.second {
            Some(second) if owed().is_none() => outbox.restore_letters(second.copy.as_ref(), space, first),
            _ => outbox.findings.add(Finding::Lost { first, last: Sequence(outbox.oldest().0.0.saturating_sub(1)) }),
        }
        Ok(())
    }

    /// The journal is gone altogether, or is new: the segment that was in use is made again from the keyed store. Its snapshot tells
    /// which of those before it are missing.
    fn restore_newest(&self) -> Result<(), WalkError> {
        let Some(second) = &self.second else { return Ok(()) };
        self.wait_second();
        // How far it has followed is known once it answers.
        for (key_id, wrapped) in second.copy.wrapped_keys()? {
            self.outbox.keyring.learn(key_id, &wrapped);
        }
        self.outbox.restore_before(second.copy.as_ref(), second.copy.applied().ordinal.next(), None).map(drop)
    }

    /// Reads whole segments that were not whole, which mends what can be mended.
    fn look_through(&self, doubtful: &[Arc<Segment>], committed: Watermark) {
        for segment in doubtful {
            let after = self.outbox.holding(segment.ordinal).and_then(|(_, after)| after);
            let limit =
                after.map_or(committed, |after| Watermark { ordinal: Ordinal(after.ordinal.0 - 1), sequence: Sequence(after.first.0 - 1) });
            let mut walker = Walker::from_ordinal(&self.outbox, segment.ordinal, limit, Copies::All);
            while let Ok(Step::Record(_) | Step::Lost { .. }) = walker.next() {}
        }
    }

    /// The state from the newest snapshot that can be used and everything after it.
    fn rebuild_state(&self, committed: Watermark) -> Result<StateKeeper, WalkError> {
        let segments = self.outbox.segments();
        for (age, segment) in segments.iter().rev().enumerate() {
            let mut walker = Walker::from_ordinal(&self.outbox, segment.ordinal, committed, Copies::All);
            let Step::Record(header) = walker.next()? else { continue };
            if header.kind != BlockKind::State {
                continue;
            }
            match self.outbox.open_state(&header, walker.record()) {
                Ok(state) => {
                    if age > 0 {
                        self.outbox.findings.add(Finding::OlderSnapshot { ordinal: header.ordinal });
                    }
                    return self.replay(walker, StateKeeper::new(state));
                }
                Err(error) => tracing::error!(%error, ordinal = header.ordinal.0, "a snapshot of the journal cannot be used"),
            }
        }
        self.outbox.findings.add(Finding::OlderSnapshot { ordinal: Ordinal(0) });
        self.wait_second();
        let block = match &self.second {
            Some(second) => whole(second.copy.latest_state())?,
            None => None,
        };
        let state = block.as_ref().and_then(|block| {
            let (header, record) = whole_record(&block.bytes)?;
            Some((header.ordinal, self.outbox.open_state(&header, record).ok()?))
        });
        let is_known = state.is_some();
        let (from, state) = state.map_or((Ordinal(1), State::default()), |(ordinal, state)| (ordinal.next(), state));
        let mut keeper = self.replay(Walker::from_ordinal(&self.outbox, from, committed, Copies::All), StateKeeper::new(state))?;
        if !is_known {
            self.begin_at_oldest(&mut keeper)?;
        }
        Ok(keeper)
    }

    /// Without any snapshot nothing says that what was reclaimed was settled. It was, unless the keyed store, which lets go of
    /// what the journal reclaims, has it still: then a segment is missing.
    fn begin_at_oldest(&self, keeper: &mut StateKeeper) -> Result<(), KeyedError> {
        let (oldest, _) = self.outbox.oldest();
        let before = Sequence(oldest.0.saturating_sub(1));
        let kept = match &self.second {
            Some(second) => whole(second.copy.block_covering(before))?,
            None => None,
        };
        if kept.is_none() {
            keeper.begin_at(oldest);
        }
        Ok(())
    }

    fn replay(&self, mut walker: Walker, mut keeper: StateKeeper) -> Result<StateKeeper, WalkError> {
        let mut buffer = Vec::new();
        loop {
            let header = match walker.next()? {
                Step::Record(header) => header,
                Step::Lost { .. } => continue,
                Step::End => return Ok(keeper),
            };
            let opened = match header.kind {
                BlockKind::Entries => self.outbox.open_entries(&header, walker.record(), &mut buffer).map(|records| {
                    records.iter().for_each(|record| keeper.apply_entry(record.sequence, &record.entry));
                }),
                BlockKind::Changes => self.outbox.open_changes(&header, walker.record()).map(|changes| {
                    changes.iter().for_each(|change| keeper.apply_change(change));
                }),
                BlockKind::State => Ok(()),
            };
            if let Err(error) = opened {
                tracing::error!(%error, ordinal = header.ordinal.0, "a record of the journal does not open");
            }
        }
    }

    /// A store without a journal: new, or one whose journal is gone altogether and in no copy.
    fn begin_first(
        self,
        claim: Box<dyn FolderClaim>,
        space: Arc<Space>,
        failed: &dyn Fn(io::Error) -> OpenError,
    ) -> Result<OpenedJournal, OpenError> {
        let outbox = &self.outbox;
        let applied = self.second.as_ref().map_or_else(Watermark::default, |second| second.copy.applied());
        if applied.sequence >= Sequence::FIRST {
            outbox.findings.add(Finding::Lost { first: Sequence::FIRST, last: applied.sequence });
        }
        let next = Watermark { ordinal: applied.ordinal.next(), sequence: applied.sequence.next() };
        let usable = outbox.keyring.newest().filter(|newest| outbox.keyring.key(*newest).is_ok());
        let key_id = match usable {
            Some(key_id) => key_id,
            None => outbox.keyring.create(outbox.files.as_ref(), None)?,
        };
        outbox.keyring.heal(outbox.files.as_ref(), &outbox.findings)?;
        let keeper = StateKeeper::default();
        let mut group = Group::default();
        group.take_state(keeper.state()).map_err(CommitError::from)?;
        let mut buffer = Vec::new();
        let (header, _, previous) = begin_segment(outbox, next, None, key_id, &group, &mut buffer)?;
        let Some((spare, file)) = space.take(true).map_err(failed)? else {
            return Err(failed(io::Error::from(io::ErrorKind::StorageFull)));
        };
        let write = || -> io::Result<()> {
            file.write_all_at(&buffer, 0)?;
            file.sync_all()?;
            let path = outbox.journal_dir.join(segment_name(header.first, header.ordinal));
            outbox.files.rename(&outbox.journal_dir.join(spare), &path)?;
            outbox.files.sync_dir(&outbox.journal_dir)
        };
        write().map_err(failed)?;
        let segment = Arc::new(Segment::new(&header));
        let shadow = begin_shadow(outbox, &segment, &buffer);
        outbox.segments.write().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&segment));
        let active = Active { segment, file, shadow, offset: RECORDS_START + group.bytes() as u64, previous };
        let next = Watermark { ordinal: next.ordinal.next(), sequence: next.sequence };
        self.finish(claim, space, active, next, keeper)
    }
}

/// Segment id and key id of the first whole record, if it can belong to the segment.
fn first_record(bytes: &[u8], ordinal: Ordinal) -> Option<(u64, u32)> {
    let start = usize::try_from(RECORDS_START).ok()?;
    let mut at = start;
    while at < bytes.len() {
        if let Some((header, _)) = bytes.get(at..).and_then(whole_record) {
            // A recycled file still holds older records: those of this segment are the ones that
            // can stand here, and they point to each other.
            if header.ordinal == ordinal || (header.ordinal > ordinal && search(bytes, at, header.segment).is_some()) {
                return Some((header.segment, header.key_id));
            }
        }
        at += crate::record::ALIGNMENT_BYTES;
    }
    None
}
