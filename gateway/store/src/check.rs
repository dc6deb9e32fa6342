//! What a person asks of a store: is it whole, what is in it, give me all of it.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;
use vitalgate_domain::{Entry, KeyWrap, Sequence};

use crate::copy::BlockKind;
use crate::files::FileSystem;
use crate::opening::OpenError;
use crate::options::StoreOptions;
use crate::outbox::Copies;
use crate::reader::{ReadError, Reader};
use crate::report::Finding;
use crate::store::open;
use crate::walker::{Step, Walker};

/// What looking through the whole store came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Segments of the journal.
    pub segments: usize,
    /// Records in them, of every kind.
    pub records: u64,
    /// Entries in them.
    pub entries: u64,
    /// Records whose seal or content does not open, by their first sequence.
    pub unreadable: Vec<Sequence>,
    /// Everything found damaged since the store was opened, mended or not.
    pub findings: Vec<Finding>,
}

impl CheckReport {
    /// Whether everything that was ever committed and not reclaimed is here.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.unreadable.is_empty()
            && !self.findings.iter().any(|finding| matches!(finding, Finding::Lost { .. } | Finding::Unanswered { .. }))
    }
}

impl std::fmt::Display for CheckReport {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let complete = if self.is_complete() { "complete" } else { "NOT complete" };
        write!(formatter, "{complete}: {} entries in {} records and {} segments", self.entries, self.records, self.segments)?;
        for sequence in &self.unreadable {
            write!(formatter, "\nthe record from entry {sequence} on does not open")?;
        }
        self.findings.iter().try_for_each(|finding| write!(formatter, "\n{finding}"))
    }
}

/// Counts of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct StoreStats {
    /// Segments of the journal.
    pub segments: u64,
    /// Their length together, in bytes, spare ones not counted.
    pub journal_bytes: u64,
    /// The first sequence that is still here.
    pub oldest: u64,
    /// The last committed sequence.
    pub committed: u64,
    /// Bytes that may still be written to the disk.
    pub free_bytes: u64,
}

impl Reader {
    /// Reads, unseals and decodes every record, mending what can be mended.
    ///
    /// # Errors
    /// When the disk fails, or a copy that may mend a record does not answer.
    pub fn check(&self) -> Result<CheckReport, ReadError> {
        let outbox = self.outbox();
        let mut report = CheckReport { segments: outbox.segments().len(), ..CheckReport::default() };
        let mut walker = Walker::from_ordinal(outbox, outbox.oldest().1, outbox.committed(), Copies::All);
        let mut buffer = Vec::new();
        loop {
            let header = match walker.next()? {
                Step::Record(header) => header,
                Step::Lost { .. } => continue,
                Step::End => break,
            };
            report.records += 1;
            report.entries += u64::from(header.count);
            let opens = match header.kind {
                BlockKind::Entries => outbox.open_entries(&header, walker.record(), &mut buffer).map(drop),
                BlockKind::Changes => outbox.open_changes(&header, walker.record()).map(drop),
                BlockKind::State => outbox.open_state(&header, walker.record()).map(drop),
            };
            if opens.is_err() {
                report.unreadable.push(header.first);
            }
        }
        report.findings = self.findings();
        Ok(report)
    }

    /// Counts.
    ///
    /// # Errors
    /// When the disk does not say how much is free.
    pub fn stats(&self) -> io::Result<StoreStats> {
        let outbox = self.outbox();
        let segments = outbox.segments().len() as u64;
        Ok(StoreStats {
            segments,
            journal_bytes: segments * outbox.options.segment_bytes,
            oldest: self.oldest().0,
            committed: self.committed().0,
            free_bytes: outbox.files.free_space(&outbox.journal_dir)?,
        })
    }
}

/// Why a check could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The store cannot be opened.
    #[error("the store cannot be opened")]
    Open(#[from] OpenError),
    /// The store cannot be read to its end.
    #[error("the store cannot be read")]
    Read(#[from] ReadError),
}

/// Opens a store that no process uses, reads all of it, mends what can be mended.
///
/// # Errors
/// When it is in use, cannot be opened or read.
pub fn check(options: StoreOptions, keys: Arc<dyn KeyWrap>, files: Arc<dyn FileSystem>) -> Result<CheckReport, CheckError> {
    let opened = open(StoreOptions { background: false, ..options }, keys, files)?;
    Ok(opened.reader.check()?)
}

#[derive(Serialize)]
struct Line<'a> {
    sequence: Sequence,
    entry: &'a Entry,
}

/// Why an export ended early.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The store could not be read.
    #[error("the store cannot be read")]
    Read(#[from] ReadError),
    /// The target could not be written, or is there already.
    #[error("the export cannot be written: {0}; name a new file on a disk with room")]
    Write(#[from] io::Error),
}

/// What an export wrote.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exported {
    /// Entries written.
    pub entries: u64,
    /// Ranges that no copy has, inclusive.
    pub damaged: Vec<(Sequence, Sequence)>,
}

/// Entries read at once for an export.
const EXPORT_ENTRIES: usize = 1_000;
/// Stored bytes read at once for an export.
const EXPORT_BYTES: usize = 1024 * 1024;

/// Writes every entry as one line of JSON (`{"sequence":1,"entry":{...}}`) to `target`. This is
/// patient data in the clear: see [`export_to_file`].
///
/// # Errors
/// When reading or writing fails.
pub fn export(reader: &Reader, target: &mut dyn Write) -> Result<Exported, ExportError> {
    let (mut exported, mut from) = (Exported::default(), reader.oldest());
    while from <= reader.committed() {
        let outcome = reader.read(from, Sequence(u64::MAX), EXPORT_ENTRIES, EXPORT_BYTES)?;
        for record in &outcome.records {
            let line = Line { sequence: record.sequence, entry: &record.entry };
            serde_json::to_writer(&mut *target, &line).map_err(io::Error::from)?;
            target.write_all(b"\n")?;
        }
        exported.entries += outcome.records.len() as u64;
        exported.damaged.extend(outcome.damaged);
        from = outcome.reached.max(from).next();
    }
    target.flush()?;
    Ok(exported)
}

/// Exports into a new file that only its owner can read; an existing file is not touched.
///
/// # Errors
/// As [`export`], and when the file is there already.
pub fn export_to_file(reader: &Reader, path: &Path) -> Result<Exported, ExportError> {
    use std::os::unix::fs::OpenOptionsExt;
    let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let mut target = io::BufWriter::new(file);
    let exported = export(reader, &mut target)?;
    target.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    Ok(exported)
}
