//! Writing by block map, and reading back: what the map leaves out is zeros, and is made zeros.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use nix::fcntl::{FallocateFlags, PosixFadviseAdvice, fallocate, posix_fadvise};

use super::block_map::BlockMap;
use super::image::{Image, PIECE, Part, Survey, is_zero};
use super::target::Target;
use crate::digest::Running;
use crate::failure::{Failure, Outcome};
use crate::progress::Progress;

/// What is erased behind the image and at the end of a larger target, in bytes (1 MiB): an old table of
/// partitions, an old encrypted volume.
const ERASED_BYTES: u64 = 1024 * 1024;

/// Writes the whole image, then waits until the target has it.
pub(crate) fn write(image: &Image, survey: &Survey, target: &Target) -> Outcome {
    let map = &survey.map;
    let failed = |error| {
        let what = format!("{} cannot be written ({error})", target.path().display());
        Failure::target(what, "the target is incomplete: flash it again, or take another disk")
    };
    let mut progress = Progress::new("writing", bytes_in_all(map, target));
    let mut silent = Progress::silent();
    let mut target_failed = false;
    let read = image.parts(map, &mut silent, &mut |part| {
        if let Part::Mapped { at, bytes } = part {
            target.file().write_all_at(bytes, *at).inspect_err(|_| target_failed = true).map_err(failed)?;
            progress.add(bytes.len() as u64);
        }
        Ok(())
    });
    match read {
        Ok(again) if again == (map.image_bytes, survey.file) => {}
        Ok(_) => return Err(not_read_again(image, target, "it is no longer what was checked")),
        Err(failure) if target_failed => return Err(failure),
        Err(failure) => return Err(not_read_again(image, target, failure.what())),
    }
    for span in zeros(map, target) {
        write_zeros(target.file(), span, target.disk().is_none(), &mut progress).map_err(failed)?;
    }
    target.file().sync_all().map_err(failed)
}

/// The image was right when it was checked: what is wrong now comes when a part of it is written already.
fn not_read_again(image: &Image, target: &Target, why: &str) -> Failure {
    let what = format!("{} could not be read again while writing ({why})", image.path().display());
    Failure::target(what, format!("{} is incomplete: flash it again, and leave the image as it is meanwhile", target.path().display()))
}

/// Reads everything back from the target itself and compares.
pub(crate) fn read_back(map: &BlockMap, target: &Target) -> Outcome {
    let differs = |start: u64| {
        let what = format!("{} gives back something else than was written (at byte {start})", target.path().display());
        Failure::target(what, "do not use this disk; take another one")
    };
    let failed = |error: io::Error| {
        let what = format!("{} cannot be read back ({error})", target.path().display());
        Failure::target(what, "do not use this disk; take another one")
    };
    // What the kernel still holds in memory would prove nothing.
    posix_fadvise(target.file(), 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).map_err(|error| failed(error.into()))?;
    let mut progress = Progress::new("reading back", bytes_in_all(map, target));
    let mut buffer = vec![0; PIECE];
    let mut read = |start: u64, end: u64, each: &mut dyn FnMut(u64, &[u8]) -> Outcome| {
        in_pieces(start, end, |at, length| {
            let piece = buffer.get_mut(..length).unwrap_or_default();
            target.file().read_exact_at(piece, at).map_err(failed)?;
            progress.add(length as u64);
            each(at, piece)
        })
    };
    for range in &map.ranges {
        let mut running = Running::new();
        read(range.start, range.end, &mut |_, piece| {
            running.update(piece);
            Ok(())
        })?;
        if running.finish() != range.digest {
            return Err(differs(range.start));
        }
    }
    for (start, end) in zeros(map, target) {
        read(start, end, &mut |at, piece| if is_zero(piece) { Ok(()) } else { Err(differs(at)) })?;
    }
    Ok(())
}

/// What must be zeros: everything in the image that the map leaves out, a piece behind the image, and the last piece of
/// the target.
fn zeros(map: &BlockMap, target: &Target) -> Vec<(u64, u64)> {
    let mut zeros = Vec::new();
    let mut at = 0;
    for range in &map.ranges {
        zeros.push((at, range.start));
        at = range.end;
    }
    let behind = map.image_bytes.saturating_add(ERASED_BYTES).min(target.bytes());
    zeros.push((at, behind));
    zeros.push((target.bytes().saturating_sub(ERASED_BYTES).max(behind), target.bytes()));
    zeros.retain(|(start, end)| start < end);
    zeros
}

fn bytes_in_all(map: &BlockMap, target: &Target) -> u64 {
    map.mapped_bytes() + zeros(map, target).iter().map(|(start, end)| end - start).sum::<u64>()
}

/// Zeros are written, or become a hole of a file.
fn write_zeros(file: &File, (start, end): (u64, u64), may_be_a_hole: bool, progress: &mut Progress) -> io::Result<()> {
    if may_be_a_hole && becomes_a_hole(file, start, end) {
        progress.add(end - start);
        return Ok(());
    }
    let piece = vec![0; PIECE];
    in_pieces(start, end, |at, length| {
        file.write_all_at(piece.get(..length).unwrap_or_default(), at)?;
        progress.add(length as u64);
        Ok(())
    })
}

/// A virtual disk's file stays as small as it can be; not every file system has holes.
fn becomes_a_hole(file: &File, start: u64, end: u64) -> bool {
    let mode = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    let span = i64::try_from(start).ok().zip(i64::try_from(end - start).ok());
    span.is_some_and(|(start, length)| fallocate(file, mode, start, length).is_ok())
}

/// Goes through a span in pieces of at most [`PIECE`] bytes.
fn in_pieces<E>(start: u64, end: u64, mut each: impl FnMut(u64, usize) -> Result<(), E>) -> Result<(), E> {
    let mut at = start;
    while at < end {
        let length = usize::try_from(end - at).unwrap_or(PIECE).min(PIECE);
        each(at, length)?;
        at += length as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::ExitCode;

    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    use super::*;
    use crate::flash::disks::Machine;

    const IMAGE_BYTES: usize = 3 * PIECE;

    /// What is said when the image becomes this between the check and the write.
    fn written_as(checked: &[u8], written: &[u8]) -> Outcome {
        let folder = tempfile::tempdir().unwrap();
        let (path, disk) = (folder.path().join("x.img"), folder.path().join("disk"));
        std::fs::write(&path, checked).unwrap();
        let image = Image::open(&path).unwrap();
        let survey = image.survey(None).unwrap();
        let mut target = Target::open(&Machine::in_folder(Path::new("/nothing")), &disk, Some(1 << 23), survey.map.image_bytes).unwrap();
        target.begin().unwrap();
        // The same file, as it is open already.
        std::fs::write(&path, written).unwrap();
        write(&image, &survey, &target)?;
        read_back(&survey.map, &target)
    }

    /// The image is read twice; where the second time gives something else, a part of the target is written already, and that is
    /// said: not that nothing was written, not that the target is broken.
    #[test]
    fn an_image_that_changes_while_it_is_written_leaves_the_target_incomplete() {
        let mut whole = vec![7; IMAGE_BYTES];
        whole[2 * PIECE..].fill(0);
        let (mut changed, mut in_a_gap) = (whole.clone(), whole.clone());
        changed[PIECE] = 8;
        in_a_gap[IMAGE_BYTES - 1] = 1;
        let packed = |bytes: &[u8]| compress_to_vec(bytes, CompressionLevel::Fastest);
        let cut = |bytes: &[u8], by: usize| bytes[..bytes.len() - by].to_vec();
        for (case, checked, written) in [
            ("changed", whole.clone(), changed.clone()),
            ("changed where it was zeros", whole.clone(), in_a_gap),
            ("shorter", whole.clone(), cut(&whole, 3 * PIECE / 2)),
            ("shorter by zeros", whole.clone(), cut(&whole, 1)),
            ("longer", whole.clone(), [whole.clone(), vec![0; 1]].concat()),
            ("changed and packed", packed(&whole), packed(&changed)),
            ("truncated and packed", packed(&whole), cut(&packed(&whole), 20)),
        ] {
            let failure = written_as(&checked, &written).unwrap_err();
            assert_eq!(failure.exit_code(), ExitCode::from(3), "{case}: {failure}");
            let said = failure.to_string();
            assert!(
                said.contains("x.img could not be read again while writing (") && said.contains("disk is incomplete: "),
                "{case}: {said}"
            );
            assert!(!said.contains("nothing was written"), "{case}: {said}");
        }
        written_as(&whole, &whole).unwrap();
        written_as(&packed(&whole), &packed(&whole)).unwrap();
    }

    /// A disk is written to, a file may get a hole: either way exactly this span is zeros afterwards.
    #[test]
    fn a_span_becomes_zeros_and_nothing_else_does() {
        for may_be_a_hole in [true, false] {
            let file = tempfile::tempfile().unwrap();
            file.write_all_at(&vec![0xa5; 4 * PIECE], 0).unwrap();
            let (start, end) = (1000, 2 * PIECE + 5);
            write_zeros(&file, (start as u64, end as u64), may_be_a_hole, &mut Progress::silent()).unwrap();
            let mut found = vec![0; 4 * PIECE];
            file.read_exact_at(&mut found, 0).unwrap();
            assert!(is_zero(&found[start..end]), "may be a hole: {may_be_a_hole}");
            assert!(found[..start].iter().chain(&found[end..]).all(|byte| *byte == 0xa5), "may be a hole: {may_be_a_hole}");
        }
    }
}
