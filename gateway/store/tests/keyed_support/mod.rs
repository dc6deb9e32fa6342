//! A journal in memory, and stores made from it.
#![allow(dead_code)] // Each test file uses its part of it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use vitalgate_domain::{
    BootId, Change, ClockTrust, DeadLetterKind, DeadLetterReason, DestinationId, DeviceId, DeviceNamespace, Entry, Flags, Metric, Quantity,
    Reading, ReadingId, ReadingTime, Received, Record, RejectedReading, Sequence, Subject, Unit, UnixMs, Value,
};
use vitalgate_store::keyed::{Keyed, KeyedOptions, KeyedStatus, KeyedTimes};
use vitalgate_store::{BlockKind, BlockSource, KeyedCopy, Ordinal, SealedBlock, SourceError, Watermark};

/// Long enough for any machine; reached only when something is broken.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Readings per record of entries.
pub(crate) const PER_BLOCK: u64 = 24;

pub(crate) type Listener = Box<dyn Fn(Watermark) + Send + Sync>;

/// The journal: records with a checksum, opened without a seal.
#[derive(Default)]
pub(crate) struct MemoryJournal {
    records: Mutex<BTreeMap<u64, SealedBlock>>,
    listeners: Mutex<Vec<Listener>>,
    lost: Mutex<Option<(Ordinal, Watermark)>>,
    oldest: AtomicU64,
    /// While set, nothing can be read.
    pub(crate) broken: AtomicBool,
    /// While set, no record of changes opens.
    pub(crate) closed: AtomicBool,
    /// While set, each record takes a while to open, in milliseconds.
    pub(crate) slow_ms: AtomicU64,
    pub(crate) keys: Mutex<Vec<(u32, Vec<u8>)>>,
}

impl MemoryJournal {
    fn take_time(&self) {
        let ready = Instant::now() + Duration::from_millis(self.slow_ms.load(Ordering::SeqCst));
        while let Some(left) = ready.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            std::thread::park_timeout(left);
        }
    }

    pub(crate) fn new() -> Arc<Self> {
        let journal = Self::default();
        journal.keys.lock().unwrap().push((1, b"wrapped".to_vec()));
        Arc::new(journal)
    }

    fn end(&self) -> Watermark {
        let records = self.records.lock().unwrap();
        let ordinal = records.keys().next_back().copied().unwrap_or(0);
        let sequence =
            records.values().rev().find(|block| block.kind == BlockKind::Entries).map_or(Sequence(0), |block| block.watermark().sequence);
        Watermark { ordinal: Ordinal(ordinal), sequence }
    }

    fn commit(&self, kind: BlockKind, count: u32, body: &[u8]) -> SealedBlock {
        let end = self.end();
        let (ordinal, first) = (end.ordinal.next(), end.sequence.next());
        let mut bytes = Vec::new();
        bytes.push(match kind {
            BlockKind::Entries => 1,
            BlockKind::Changes => 2,
            BlockKind::State => 3,
        });
        bytes.extend_from_slice(&ordinal.0.to_be_bytes());
        bytes.extend_from_slice(&first.0.to_be_bytes());
        bytes.extend_from_slice(&count.to_be_bytes());
        bytes.extend_from_slice(&crc32c::crc32c(body).to_be_bytes());
        bytes.extend_from_slice(body);
        let block = SealedBlock { kind, ordinal, first, count, key_id: 1, bytes };
        self.records.lock().unwrap().insert(ordinal.0, block.clone());
        let end = self.end();
        for listener in self.listeners.lock().unwrap().iter() {
            listener(end);
        }
        block
    }

    pub(crate) fn commit_entries(&self, entries: &[Entry]) -> SealedBlock {
        self.commit(BlockKind::Entries, u32::try_from(entries.len()).unwrap(), &serde_cbor::to_vec(&entries).unwrap())
    }

    pub(crate) fn commit_changes(&self, changes: &[Change]) -> SealedBlock {
        self.commit(BlockKind::Changes, 0, &serde_cbor::to_vec(&changes).unwrap())
    }

    pub(crate) fn commit_state(&self, state: &[u8]) -> SealedBlock {
        self.commit(BlockKind::State, 0, state)
    }

    /// The next record of readings of a few devices.
    pub(crate) fn commit_readings(&self, count: u64) -> SealedBlock {
        let first = self.end().sequence.next().0;
        let entries: Vec<Entry> = (first..first + count).map(|number| Entry::Reading(reading(number))).collect();
        self.commit_entries(&entries)
    }

    pub(crate) fn block(&self, ordinal: u64) -> SealedBlock {
        self.records.lock().unwrap()[&ordinal].clone()
    }

    pub(crate) fn blocks(&self) -> Vec<SealedBlock> {
        self.records.lock().unwrap().values().cloned().collect()
    }

    /// The journal lets go of everything before this record.
    pub(crate) fn reclaim_before(&self, oldest: Ordinal) {
        self.oldest.store(oldest.0, Ordering::SeqCst);
        self.records.lock().unwrap().retain(|ordinal, _| *ordinal >= oldest.0);
    }

    /// The journal loses its end: everything after this record.
    pub(crate) fn cut_after(&self, last: Ordinal) {
        self.records.lock().unwrap().retain(|ordinal, _| *ordinal <= last.0);
    }

    /// Both copies lost this.
    pub(crate) fn lose(&self, from: Ordinal, until: Watermark) {
        self.records.lock().unwrap().retain(|ordinal, _| *ordinal < from.0 || *ordinal > until.ordinal.0);
        *self.lost.lock().unwrap() = Some((from, until));
    }
}

impl BlockSource for MemoryJournal {
    fn committed(&self) -> Watermark {
        self.end()
    }

    fn oldest(&self) -> Ordinal {
        Ordinal(self.oldest.load(Ordering::SeqCst).max(1))
    }

    fn blocks_after(&self, after: Ordinal, bytes_max: usize) -> Result<Vec<SealedBlock>, SourceError> {
        if self.broken.load(Ordering::SeqCst) {
            return Err(SourceError::Io("a test took the disk away".into()));
        }
        let lost = *self.lost.lock().unwrap();
        let mut taken = Vec::new();
        let mut bytes = 0;
        for block in self.records.lock().unwrap().range(after.0 + 1..).map(|(_, block)| block) {
            if let Some((from, until)) = lost
                && after < until.ordinal
                && block.ordinal > until.ordinal
            {
                if taken.is_empty() {
                    return Err(SourceError::Lost { from: from.max(after.next()), until });
                }
                break;
            }
            bytes += block.bytes.len();
            taken.push(block.clone());
            if bytes >= bytes_max {
                break;
            }
        }
        Ok(taken)
    }

    fn open_entries(&self, block: &SealedBlock) -> Result<Vec<Record>, SourceError> {
        self.take_time();
        let entries: Vec<Entry> = open(block, BlockKind::Entries)?;
        Ok(entries.into_iter().zip(block.first.0..).map(|(entry, place)| Record { sequence: Sequence(place), entry }).collect())
    }

    fn open_changes(&self, block: &SealedBlock) -> Result<Vec<Change>, SourceError> {
        if self.closed.load(Ordering::SeqCst) {
            return Err(SourceError::Undecodable { ordinal: block.ordinal, reason: "a test took the key away".into() });
        }
        self.take_time();
        open(block, BlockKind::Changes)
    }

    fn parse(&self, bytes: &[u8]) -> Result<SealedBlock, SourceError> {
        parse(bytes).ok_or(SourceError::Undecodable { ordinal: Ordinal(0), reason: "altered".into() })
    }

    fn wrapped_keys(&self) -> Vec<(u32, Vec<u8>)> {
        self.keys.lock().unwrap().clone()
    }

    fn subscribe(&self, listener: Listener) {
        self.listeners.lock().unwrap().push(listener);
    }
}

fn open<T: serde::de::DeserializeOwned>(block: &SealedBlock, kind: BlockKind) -> Result<T, SourceError> {
    let damaged = |reason: &str| SourceError::Undecodable { ordinal: block.ordinal, reason: reason.into() };
    let parsed = parse(&block.bytes).filter(|parsed| parsed == block && parsed.kind == kind).ok_or_else(|| damaged("altered"))?;
    serde_cbor::from_slice(&parsed.bytes[HEADER..]).map_err(|error| damaged(&error.to_string()))
}

const HEADER: usize = 1 + 8 + 8 + 4 + 4;

fn parse(bytes: &[u8]) -> Option<SealedBlock> {
    let u64_at = |at: usize| bytes.get(at..at + 8).map(|bytes| u64::from_be_bytes(bytes.try_into().unwrap()));
    let u32_at = |at: usize| bytes.get(at..at + 4).map(|bytes| u32::from_be_bytes(bytes.try_into().unwrap()));
    let kind = match bytes.first()? {
        1 => BlockKind::Entries,
        2 => BlockKind::Changes,
        3 => BlockKind::State,
        _ => return None,
    };
    let body = bytes.get(HEADER..)?;
    (u32_at(21)? == crc32c::crc32c(body)).then_some(())?;
    Some(SealedBlock {
        kind,
        ordinal: Ordinal(u64_at(1)?),
        first: Sequence(u64_at(9)?),
        count: u32_at(17)?,
        key_id: 1,
        bytes: bytes.to_vec(),
    })
}

pub(crate) fn device(number: u64) -> DeviceId {
    DeviceId::new(&format!("monitor-{}", number % 5)).unwrap()
}

pub(crate) fn id(number: u64) -> ReadingId {
    ReadingId::from_device_sequence(&DeviceNamespace::new("g").unwrap(), &device(number), Metric::HeartRate, "run", number, 0)
}

/// The moment of the reading with that number: one a second.
pub(crate) fn moment(number: u64) -> UnixMs {
    UnixMs(1_795_000_000_000 + i64::try_from(number).unwrap() * 1_000)
}

pub(crate) fn reading(number: u64) -> Reading {
    let received =
        Received { wall: moment(number), monotonic_ms: number, boot: BootId::from_bytes([7; 16]), trust: ClockTrust::Synchronised };
    Reading {
        id: id(number),
        device: device(number),
        metric: Metric::HeartRate,
        slot: 0,
        value: Value::Quantity(Quantity { value: (60 + number % 60).into(), unit: Unit::PerMinute }),
        reported: None,
        time: ReadingTime { device: None, received, correction_ms: 0 },
        device_sequence: Some(number),
        flags: Flags::default(),
        subject: Subject::Unassigned,
    }
}

pub(crate) fn ehr() -> DestinationId {
    DestinationId::new("ehr").unwrap()
}

/// A settled range with one refused reading and remote ids for the others.
pub(crate) fn settled(first: u64, last: u64) -> Change {
    let reason = DeadLetterReason::new(DeadLetterKind::Rejected, "the code is not known there");
    Change::Settled {
        destination: ehr(),
        ranges: vec![(Sequence(first), Sequence(last))],
        rejected: vec![RejectedReading { sequence: Sequence(first), id: id(first), reason }],
        remote_ids: (first + 1..=last).map(|number| (Sequence(number), Arc::from(format!("obs-{number}")))).collect(),
    }
}

/// A journal with everything in it: readings, settled ranges, snapshots (one of several parts).
pub(crate) fn full_journal(blocks: u64) -> Arc<MemoryJournal> {
    let journal = MemoryJournal::new();
    for round in 0..blocks {
        let block = journal.commit_readings(PER_BLOCK);
        if round % 4 == 3 {
            let last = block.watermark().sequence.0;
            journal.commit_changes(&[settled(last - PER_BLOCK + 1, last)]);
        }
        if round % 10 == 9 {
            let length = if round % 20 == 19 { 20_000 } else { 300 };
            journal.commit_state(&(0..length).map(|at| (at % 251) as u8).collect::<Vec<u8>>());
        }
    }
    journal
}

/// Short pauses, generous limits.
pub(crate) fn quick_times() -> KeyedTimes {
    KeyedTimes {
        gather: Duration::from_millis(1),
        checkpoint_idle: Duration::from_millis(5),
        checkpoint_age: Duration::from_millis(50),
        ..KeyedTimes::default()
    }
}

pub(crate) fn options(dir: &Path) -> KeyedOptions {
    KeyedOptions { times: quick_times(), ..KeyedOptions::new(dir) }
}

/// This test binary itself as the child that looks first; see [`probe_child_main`].
pub(crate) fn probe_by_this_binary() -> Option<Vec<OsString>> {
    let this = std::env::current_exe().unwrap().into_os_string();
    Some(vec![this, "--exact".into(), "probe_child".into(), "--nocapture".into()])
}

/// The body of the test `probe_child`: nothing in a normal run, the probe in a child.
pub(crate) fn probe_child_main() {
    let arguments: Vec<OsString> = std::env::args_os().skip_while(|argument| argument != "--nocapture").skip(1).collect();
    if arguments.len() >= 2 {
        vitalgate_store::keyed::serve_probe(&arguments, &mut std::io::stdout()).unwrap();
    }
}

/// Makes a store of the whole journal and closes it.
pub(crate) fn filled_store(dir: &Path, journal: &Arc<MemoryJournal>) {
    let keyed = Keyed::open(options(dir));
    keyed.attach(Arc::clone(journal) as Arc<dyn BlockSource>);
    assert!(keyed.wait_reached(journal.committed().ordinal, true, PATIENCE), "{:?} {:?}", keyed.status(), keyed.events());
    assert_eq!(keyed.shutdown(PATIENCE), KeyedStatus::Stopped);
    assert_eq!(keyed.events(), []);
}

/// Everything that the journal holds must be found in the store, by every way of asking.
pub(crate) fn assert_complete(keyed: &Keyed, journal: &MemoryJournal) {
    let blocks = journal.blocks();
    let latest = blocks.iter().rev().find(|block| block.kind == BlockKind::State);
    for block in &blocks {
        if block.kind == BlockKind::State && Some(block) != latest {
            continue;
        }
        assert_eq!(keyed.block_at(block.ordinal).unwrap().as_ref(), Some(block));
        if block.kind == BlockKind::Entries {
            let last = block.watermark().sequence;
            assert_eq!(keyed.block_covering(block.first).unwrap().as_ref(), Some(block));
            assert_eq!(keyed.block_covering(last).unwrap().as_ref(), Some(block));
            let found = keyed.find_id(id(last.0), None).unwrap();
            assert_eq!(found.found.map(|record| record.sequence), Some(last));
        }
    }
    assert_eq!(keyed.latest_state().unwrap().as_ref(), latest);
    assert_eq!(keyed.wrapped_keys().unwrap(), journal.wrapped_keys());
    for block in blocks.iter().filter(|block| block.kind == BlockKind::Changes) {
        for change in journal.open_changes(block).unwrap() {
            let Change::Settled { destination, rejected, remote_ids, .. } = change else { continue };
            let first = rejected[0].sequence;
            assert_eq!(keyed.rejected(first, Sequence(first.0 + PER_BLOCK - 1), 10).unwrap(), [(destination.clone(), rejected[0].clone())]);
            let (sequence, remote) = &remote_ids[remote_ids.len() / 2];
            assert_eq!(keyed.remote_id(*sequence, &destination).unwrap().as_ref(), Some(remote));
        }
    }
}

/// A copy of a folder.
pub(crate) fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
