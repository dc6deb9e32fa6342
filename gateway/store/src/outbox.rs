//! What writer, readers and feeder share: the list of segments, how far is committed, the keys,
//! and the mending of records that turn out damaged.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, TryLockError};

use vitalgate_domain::{Change, Record, Sequence};

use crate::copy::{BlockKind, KeyedCopy, KeyedError, Ordinal, SealedBlock, SourceError, Watermark};
use crate::files::{FileSystem, StoredFile, read_full};
use crate::keyring::{KeyError, Keyring};
use crate::options::StoreOptions;
use crate::record::{HEADER_BYTES, RecordHeader, whole_record};
use crate::report::{Finding, Findings, Healer};
use crate::segment::{Mark, Segment};
use crate::wire;

/// Most damaged files that are kept aside. The oldest copies give way.
pub(crate) const QUARANTINE_FILES_MAX: usize = 16;

/// The folder of what may be the only copy: unlike the quarantine it never gives way to readings.
pub(crate) const KEPT: &str = "kept";
/// Most ends of the journal that are kept there. The oldest give way.
const KEPT_ENDS_MAX: usize = 16;

pub(crate) type Listener = Box<dyn Fn(Watermark) + Send + Sync>;

/// What writer, readers and feeder share.
pub(crate) struct Outbox {
    pub files: Arc<dyn FileSystem>,
    pub options: StoreOptions,
    pub journal_dir: PathBuf,
    pub shadow_dir: PathBuf,
    pub quarantine_dir: PathBuf,
    pub keyring: Keyring,
    pub findings: Findings,
    pub segments: RwLock<Vec<Arc<Segment>>>,
    pub feed_place: Mutex<Option<Mark>>,
    committed: RwLock<Watermark>,
    committed_sequence: AtomicU64,
    listeners: RwLock<Vec<Listener>>,
    keyed: OnceLock<Arc<dyn KeyedCopy>>,
    quarantined: AtomicU64,
    /// Held while a missing segment is made again.
    pub restoring: Mutex<()>,
    /// The keyed store may have what is missing here, and could not be asked: it lets go of nothing, and no key is destroyed.
    pub keeps_copies: AtomicBool,
}

/// Why a sealed body could not be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OpenBlockError {
    /// The key cannot be had just now.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// It does not open with its key.
    #[error("the seal of the record is broken")]
    Seal,
    /// It opens, and holds what this version does not know.
    #[error(transparent)]
    Wire(#[from] wire::WireError),
    /// It is of another kind.
    #[error("the record is of another kind")]
    Kind,
}

impl OpenBlockError {
    /// Whether trying again may help.
    pub(crate) fn is_transient(&self) -> bool {
        matches!(self, Self::Key(KeyError::Unavailable { .. }))
    }
}

/// Which copies may be asked to mend a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Copies {
    /// The shadow only: the keyed store itself is asking.
    Shadow,
    /// Shadow and keyed store.
    All,
}

impl Outbox {
    pub(crate) fn new(options: StoreOptions, files: Arc<dyn FileSystem>, keyring: Keyring) -> Self {
        Self {
            journal_dir: options.dir.join("journal"),
            shadow_dir: options.dir.join("shadow"),
            quarantine_dir: options.dir.join("quarantine"),
            files,
            options,
            keyring,
            findings: Findings::default(),
            segments: RwLock::default(),
            feed_place: Mutex::default(),
            committed: RwLock::default(),
            committed_sequence: AtomicU64::new(0),
            listeners: RwLock::default(),
            keyed: OnceLock::new(),
            quarantined: AtomicU64::new(0),
            restoring: Mutex::default(),
            keeps_copies: AtomicBool::new(false),
        }
    }

    /// Lets damaged records be mended from the keyed store too. Only the first call counts.
    pub(crate) fn connect(&self, keyed: Arc<dyn KeyedCopy>) {
        let _already = self.keyed.set(keyed);
    }

    pub(crate) fn keyed(&self) -> Option<&Arc<dyn KeyedCopy>> {
        self.keyed.get()
    }

    pub(crate) fn committed(&self) -> Watermark {
        *self.committed.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn committed_sequence(&self) -> Sequence {
        Sequence(self.committed_sequence.load(Ordering::Acquire))
    }

    pub(crate) fn publish(&self, watermark: Watermark) {
        *self.committed.write().unwrap_or_else(PoisonError::into_inner) = watermark;
        self.committed_sequence.store(watermark.sequence.0, Ordering::Release);
        for listener in self.listeners.read().unwrap_or_else(PoisonError::into_inner).iter() {
            listener(watermark);
        }
    }

    pub(crate) fn listen(&self, listener: Listener) {
        self.listeners.write().unwrap_or_else(PoisonError::into_inner).push(listener);
    }

    /// Whether the keyed store may have what is missing here, and did not answer yet.
    pub(crate) fn keeps_copies(&self) -> bool {
        self.keeps_copies.load(Ordering::Relaxed)
    }

    /// Held while a missing segment is made again; `None` while somebody else makes one.
    pub(crate) fn try_restoring(&self) -> Option<MutexGuard<'_, ()>> {
        match self.restoring.try_lock() {
            Ok(held) => Some(held),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// All segments, oldest first.
    pub(crate) fn segments(&self) -> Vec<Arc<Segment>> {
        self.segments.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The segment that holds the record, or the oldest for one that is gone, and what comes after
    /// the segment.
    pub(crate) fn holding(&self, ordinal: Ordinal) -> Option<(Arc<Segment>, Option<Arc<Segment>>)> {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        let place = segments.partition_point(|segment| segment.ordinal <= ordinal).saturating_sub(1);
        Some((Arc::clone(segments.get(place)?), segments.get(place + 1).cloned()))
    }

    /// A place at or before the first record with entries from this sequence on.
    pub(crate) fn place_of(&self, sequence: Sequence) -> Option<(Arc<Segment>, Mark)> {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        let place = segments.partition_point(|segment| segment.first <= sequence).saturating_sub(1);
        let segment = segments.get(place)?;
        Some((Arc::clone(segment), segment.nearest(|mark| mark.sequence <= sequence)))
    }

    /// The first sequence that is still here.
    pub(crate) fn oldest(&self) -> (Sequence, Ordinal) {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        segments.first().map_or((Sequence::FIRST, Ordinal(1)), |segment| (segment.first, segment.ordinal))
    }

    /// Opens a sealed body; `buffer` is room that is used again.
    fn open_body<'b>(&self, header: &RecordHeader, record: &[u8], buffer: &'b mut Vec<u8>) -> Result<&'b [u8], OpenBlockError> {
        let key = self.keyring.key(header.key_id)?;
        buffer.clear();
        buffer.extend_from_slice(record.get(HEADER_BYTES..header.record_bytes()).ok_or(OpenBlockError::Seal)?);
        key.open(header.nonce(), &header.to_bytes(0), buffer).ok_or(OpenBlockError::Seal)
    }

    pub(crate) fn open_entries(&self, header: &RecordHeader, record: &[u8], buffer: &mut Vec<u8>) -> Result<Vec<Record>, OpenBlockError> {
        if header.kind != BlockKind::Entries {
            return Err(OpenBlockError::Kind);
        }
        Ok(wire::entries(self.open_body(header, record, buffer)?, header.first, header.count)?)
    }

    /// Opens a record of entries without taking it apart.
    pub(crate) fn open_plain<'b>(&self, header: &RecordHeader, record: &[u8], buffer: &'b mut Vec<u8>) -> Result<&'b [u8], OpenBlockError> {
        self.open_body(header, record, buffer)
    }

    pub(crate) fn open_changes(&self, header: &RecordHeader, record: &[u8]) -> Result<Vec<Change>, OpenBlockError> {
        if header.kind != BlockKind::Changes {
            return Err(OpenBlockError::Kind);
        }
        let (changes, unknown) = wire::changes(self.open_body(header, record, &mut Vec::new())?)?;
        if unknown > 0 {
            self.findings.add(Finding::UnknownChanges { ordinal: header.ordinal, changes: unknown });
        }
        Ok(changes)
    }

    pub(crate) fn open_state(&self, header: &RecordHeader, record: &[u8]) -> Result<crate::state::State, OpenBlockError> {
        if header.kind != BlockKind::State {
            return Err(OpenBlockError::Kind);
        }
        Ok(wire::state(self.open_body(header, record, &mut Vec::new())?)?)
    }

    /// Restores a damaged record from another copy, in place. `None` when no copy has it.
    ///
    /// # Errors
    /// When a copy that may have it cannot answer now.
    pub(crate) fn mend(&self, segment: &Segment, offset: u64, ordinal: Ordinal, copies: Copies) -> Result<Option<Vec<u8>>, KeyedError> {
        let mut quarantined = segment.mending.lock().unwrap_or_else(PoisonError::into_inner);
        let found = match self.shadow_record(segment, offset, ordinal) {
            Some(record) => Some((record, Healer::Shadow)),
            None if copies == Copies::All => self.keyed_record(segment, ordinal)?.map(|record| (record, Healer::Keyed)),
            None => None,
        };
        let Some((record, from)) = found else { return Ok(None) };
        if !std::mem::replace(&mut *quarantined, true) {
            self.quarantine(&self.journal_dir.join(&segment.name), &format!("journal/{}", segment.name));
        }
        let written = segment.open(self.files.as_ref(), &self.journal_dir).and_then(|file| {
            file.write_all_at(&record, offset)?;
            file.sync_data()
        });
        // The record is served all the same; the next reader tries again to write it.
        if let Err(error) = written {
            tracing::error!(%error, segment = segment.name, "a mended record could not be written back");
        }
        self.findings.add(Finding::RecordHealed { file: format!("journal/{}", segment.name), ordinal, from });
        Ok(Some(record))
    }

    pub(crate) fn shadow_record(&self, segment: &Segment, offset: u64, ordinal: Ordinal) -> Option<Vec<u8>> {
        let file = self.files.open(&self.shadow_dir.join(&segment.name)).ok()?;
        let mut record = vec![0; HEADER_BYTES];
        (read_full(file.as_ref(), &mut record, offset).ok()? == HEADER_BYTES).then_some(())?;
        let header = RecordHeader::parse(&record).filter(|header| header.segment == segment.id && header.ordinal == ordinal)?;
        record.resize(header.record_bytes(), 0);
        read_full(file.as_ref(), &mut record, offset).ok()?;
        whole_record(&record)?;
        Some(record)
    }

    pub(crate) fn keyed_record(&self, segment: &Segment, ordinal: Ordinal) -> Result<Option<Vec<u8>>, KeyedError> {
        let Some(keyed) = self.keyed.get() else { return Ok(None) };
        let block = keyed.block_at(ordinal)?;
        Ok(block.map(|block| block.bytes).filter(|bytes| {
            whole_record(bytes)
                .is_some_and(|(header, record)| header.ordinal == ordinal && header.segment == segment.id && record.len() == bytes.len())
        }))
    }

    /// Copies a damaged file aside. Best effort: mending goes on without.
    pub(crate) fn quarantine(&self, path: &Path, shown: &str) {
        match self.copy_aside(path) {
            Ok(copy) => self.findings.add(Finding::Quarantined { file: shown.to_owned(), copy }),
            Err(error) => tracing::error!(%error, file = shown, "a damaged file could not be copied to quarantine"),
        }
    }

    fn copy_aside(&self, path: &Path) -> io::Result<String> {
        const CHUNK_BYTES: usize = 1024 * 1024;
        self.files.create_dir_all(&self.quarantine_dir)?;
        let kept = self.files.list(&self.quarantine_dir)?;
        let ours: Vec<_> = kept.iter().filter(|name| name.ends_with(".damaged")).collect();
        for name in ours.iter().take((ours.len() + 1).saturating_sub(QUARANTINE_FILES_MAX)) {
            self.files.remove(&self.quarantine_dir.join(name))?;
        }
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("file");
        let copy = loop {
            let number = self.quarantined.fetch_add(1, Ordering::Relaxed);
            let copy = format!("{name}.{number:04}.damaged");
            if !kept.contains(&copy) {
                break copy;
            }
        };
        let (source, target) = (self.files.open(path)?, self.files.create(&self.quarantine_dir.join(&copy))?);
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut offset = 0;
        loop {
            let read = read_full(source.as_ref(), &mut chunk, offset)?;
            target.write_all_at(chunk.get(..read).unwrap_or_default(), offset)?;
            offset += read as u64;
            if read < CHUNK_BYTES {
                break;
            }
        }
        target.sync_all()?;
        self.files.sync_dir(&self.quarantine_dir)?;
        Ok(copy)
    }

    /// Keeps bytes that are cut off the journal and of which there may be no other copy; gives the file's name. What was kept of the same
    /// place stays as it is: where the power went while the journal's end was zeroed, there is less now.
    ///
    /// # Errors
    /// When the disk fails or is full.
    pub(crate) fn keep(&self, place: &str, bytes: &[u8]) -> io::Result<String> {
        let dir = self.options.dir.join(KEPT);
        let ends = self.files.list(&dir)?;
        let mut name = format!("{place}.cut");
        let mut number = 0;
        while ends.contains(&name) {
            let file = self.files.open(&dir.join(&name))?;
            if holds(file.as_ref(), bytes)? {
                file.sync_all()?;
                self.files.sync_dir(&dir)?;
                return Ok(name);
            }
            number += 1;
            name = format!("{place}.{number}.cut");
        }
        for oldest in ends.iter().take((ends.len() + 1).saturating_sub(KEPT_ENDS_MAX)) {
            self.files.remove(&dir.join(oldest))?;
        }
        let path = dir.join(&name);
        let written = self.files.create(&path).and_then(|file| {
            file.write_all_at(bytes, 0)?;
            file.sync_all()
        });
        if let Err(error) = written {
            let _gone = self.files.remove(&path);
            return Err(error);
        }
        self.files.sync_dir(&dir)?;
        Ok(name)
    }

    /// Opens a block that a copy held.
    pub(crate) fn parsed<'b>(&self, block: &'b SealedBlock) -> Result<(RecordHeader, &'b [u8]), SourceError> {
        whole_record(&block.bytes)
            .filter(|(header, record)| header.ordinal == block.ordinal && record.len() == block.bytes.len())
            .ok_or_else(|| SourceError::Undecodable { ordinal: block.ordinal, reason: "the record is not whole".into() })
    }
}

/// Whether the file has all of these bytes but zeros.
fn holds(file: &dyn StoredFile, bytes: &[u8]) -> io::Result<bool> {
    let mut kept = vec![0; bytes.len()];
    read_full(file, &mut kept, 0)?;
    Ok(kept.iter().zip(bytes).all(|(kept, byte)| *byte == 0 || kept == byte))
}
