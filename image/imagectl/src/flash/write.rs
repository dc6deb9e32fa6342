//! Writing by block map, and reading back.

use std::os::unix::fs::FileExt;

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use super::block_map::BlockMap;
use super::image::{Image, PIECE, Part, is_zero};
use super::target::Target;
use crate::digest::Running;
use crate::failure::{Failure, Outcome};
use crate::progress::Progress;

/// What is erased behind the image and at the end of a larger target, in bytes (1 MiB): an old table of
/// partitions, an old encrypted volume.
const ERASED_BYTES: u64 = 1024 * 1024;

/// Writes what the map says, then waits until the target has it.
pub(crate) fn write(image: &Image, map: &BlockMap, target: &Target) -> Outcome {
    let failed = |error| {
        let what = format!("{} cannot be written ({error})", target.path().display());
        Failure::target(what, "the target is incomplete: flash it again, or take another disk")
    };
    let mut progress = Progress::new("writing", map.mapped_bytes());
    let mut silent = Progress::silent();
    let written = image.parts(map, &mut silent, &mut |part| {
        if let Part::Mapped { at, bytes } = part {
            target.file().write_all_at(bytes, *at).map_err(failed)?;
            progress.add(bytes.len() as u64);
        }
        Ok(())
    });
    written?;
    for (start, end) in erased(map, target) {
        let zeros = vec![0; usize::try_from(end - start).unwrap_or_default()];
        target.file().write_all_at(&zeros, start).map_err(failed)?;
    }
    target.file().sync_all().map_err(failed)
}

/// Reads everything back from the target itself and compares.
pub(crate) fn read_back(map: &BlockMap, target: &Target) -> Outcome {
    let differs = |start: u64| {
        let what = format!("{} gives back something else than was written (at byte {start})", target.path().display());
        Failure::target(what, "do not use this disk; take another one")
    };
    let failed = |error: std::io::Error| {
        let what = format!("{} cannot be read back ({error})", target.path().display());
        Failure::target(what, "do not use this disk; take another one")
    };
    // What the kernel still holds in memory would prove nothing.
    posix_fadvise(target.file(), 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).map_err(|error| failed(error.into()))?;
    let mut progress = Progress::new("reading back", map.mapped_bytes());
    let mut buffer = vec![0; PIECE];
    for range in &map.ranges {
        let mut running = Running::new();
        let mut at = range.start;
        while at < range.end {
            let length = usize::try_from(range.end - at).unwrap_or(PIECE).min(PIECE);
            let piece = buffer.get_mut(..length).unwrap_or_default();
            target.file().read_exact_at(piece, at).map_err(failed)?;
            running.update(piece);
            progress.add(length as u64);
            at += length as u64;
        }
        if running.finish() != range.digest {
            return Err(differs(range.start));
        }
    }
    for (start, end) in erased(map, target) {
        let piece = buffer.get_mut(..usize::try_from(end - start).unwrap_or_default()).unwrap_or_default();
        target.file().read_exact_at(piece, start).map_err(failed)?;
        if !is_zero(piece) {
            return Err(differs(start));
        }
    }
    Ok(())
}

/// What is erased: a piece behind the image, and the last piece of the target.
fn erased(map: &BlockMap, target: &Target) -> [(u64, u64); 2] {
    let (image, all) = (map.image_bytes, target.bytes());
    let behind = (image, image.saturating_add(ERASED_BYTES).min(all));
    let last = (all.saturating_sub(ERASED_BYTES).max(behind.1), all);
    [behind, last]
}
