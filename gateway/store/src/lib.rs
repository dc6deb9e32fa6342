//! The outbox: every entry is on disk before it is acknowledged, in two copies that heal each other.
//!
//! - The *journal* ([`Journal`], [`Reader`]) is the copy that an acknowledgement stands on: segment
//!   files that are only ever appended to, one write and one `fdatasync` per commit.
//! - The *keyed store* ([`keyed`]) follows it and answers by sequence, id and device.
//!
//! What lies where on the disk is described in [`format`].

#![forbid(unsafe_code)]

pub mod copy;
pub mod files;
pub mod format;
pub mod keyed;

mod check;
mod group;
mod journal;
mod keyring;
mod nearest;
mod opening;
mod options;
mod outbox;
mod reader;
mod record;
mod report;
mod restore;
mod segment;
mod source;
mod space;
mod state;
mod store;
mod tail;
mod upkeep;
mod walker;
mod wire;

pub use check::{CheckError, CheckReport, ExportError, Exported, StoreStats, check, export, export_to_file};
pub use copy::{BlockKind, BlockSource, KeyedCopy, KeyedError, Ordinal, SealedBlock, SharedSource, SourceError, Watermark};
pub use files::{FileSystem, RealFiles, StoredFile};
pub use journal::{CommitError, GROUP_BYTES_MAX, Journal};
pub use keyed::Keyed;
pub use keyring::KeyError;
pub use nearest::{Around, Nearest, Search, latest};
pub use opening::OpenError;
pub use options::{FREE_SPACE_FLOOR_BYTES, RETENTION_MS, SEGMENT_BYTES, SEGMENT_BYTES_MIN, StoreOptions};
pub use reader::{ReadError, ReadOutcome, Reader};
pub use report::{Finding, Healer, OpenReport};
pub use state::State;
pub use store::{Opened, open, open_patience, open_with};
pub use upkeep::Maintained;

#[cfg(test)]
mod journal_tests;
#[cfg(test)]
mod tests_support;
