//! The files of a release: what belongs together, and that it is genuine.

mod sign;
mod sums;
mod verify;

pub(crate) use sums::{Sums, version_of};
pub(crate) use verify::verify;

use crate::cli;
use crate::failure::Outcome;

/// Largest file of a release in bytes (16 GiB).
pub(crate) const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024 * 1024;

/// `imagectl release ...`
pub(crate) fn run(command: &cli::Release) -> Outcome {
    match command {
        cli::Release::Map { image, output } => crate::flash::write_block_map(image, output),
        cli::Release::Sign { folder, key, support_end } => sign::sign(folder, key, support_end),
    }
}
