//! The outbox: journal and keyed store.

#![forbid(unsafe_code)]

pub mod copy;
pub mod keyed;

pub use copy::{BlockKind, BlockSource, KeyedCopy, KeyedError, Ordinal, SealedBlock, SourceError, Watermark};
