//! How a store is opened.

use std::path::PathBuf;

use crate::copy::RECORD_BYTES_MAX;

/// Length of a segment unless said otherwise, in bytes.
pub const SEGMENT_BYTES: u64 = 16 * 1024 * 1024;
/// Shortest segment that is taken, in bytes: tests use it to see many segments.
pub const SEGMENT_BYTES_MIN: u64 = 16 * 1024;
/// Free space that is left to others unless said otherwise, in bytes.
pub const FREE_SPACE_FLOOR_BYTES: u64 = 256 * 1024 * 1024;
/// How long settled entries stay readable unless said otherwise, in milliseconds (7 days).
pub const RETENTION_MS: u64 = 7 * 86_400_000;

const _: () = assert!(RECORD_BYTES_MAX as u64 <= SEGMENT_BYTES / 2);

/// How a store is opened.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// The store's own folder.
    pub dir: PathBuf,
    /// Length of a segment in bytes; the same at every opening.
    pub segment_bytes: u64,
    /// Below this many free bytes no entry is taken.
    pub free_space_floor_bytes: u64,
    /// How long settled entries stay readable, in milliseconds of the newest known wall clock.
    pub retention_ms: u64,
    /// Whether segments are prepared and old ones checked on threads of their own. Off, they are
    /// prepared when they are needed and nothing is checked unasked: for tests that count steps.
    pub background: bool,
}

impl StoreOptions {
    /// The usual options for a store in this folder.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            segment_bytes: SEGMENT_BYTES,
            free_space_floor_bytes: FREE_SPACE_FLOOR_BYTES,
            retention_ms: RETENTION_MS,
            background: true,
        }
    }
}
