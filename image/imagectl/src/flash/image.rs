//! An image, packed or raw: a stream of bytes that is looked through once before anything is written.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use ruzstd::decoding::StreamingDecoder;

use super::block_map::{BLOCK, BlockMap, Range};
use super::table;
use crate::digest::{Digest, Running};
use crate::failure::{Failure, Outcome};
use crate::progress::Progress;

/// Bytes that are looked at in one piece (1 MiB, a multiple of every block).
pub(crate) const PIECE: usize = 1024 * 1024;
/// Largest image in bytes (64 GiB): what a packed file may unpack to.
const IMAGE_BYTES_MAX: u64 = 64 << 30;
/// Largest window that a packed file may ask memory for, in bytes (128 MiB).
const WINDOW_BYTES_MAX: u64 = 128 << 20;
/// How a packed file begins (RFC 8878, 3.1.1).
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// An image's file.
pub(crate) struct Image {
    path: PathBuf,
    file: File,
    bytes: u64,
    packed: bool,
}

/// What the first look found.
pub(crate) struct Survey {
    /// What holds something, every hash checked.
    pub(crate) map: BlockMap,
    /// Hash of the file as it was downloaded.
    pub(crate) file: Digest,
}

/// A part of a piece.
pub(crate) enum Part<'a> {
    /// Nothing is said about it.
    Gap(&'a [u8]),
    /// It belongs to a range.
    Mapped { at: u64, bytes: &'a [u8] },
}

impl Image {
    pub(crate) fn open(path: &Path) -> Outcome<Self> {
        let unreadable = |error| Failure::unreadable(path, &error);
        let mut file = File::open(path).map_err(unreadable)?;
        let bytes = file.metadata().map_err(unreadable)?.len();
        let mut magic = Vec::new();
        Read::by_ref(&mut file).take(4).read_to_end(&mut magic).map_err(unreadable)?;
        Ok(Self { path: path.to_owned(), file, bytes, packed: magic == ZSTD_MAGIC })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Looks through the whole image. A block map that is given must fit it; without one it is made.
    pub(crate) fn survey(&self, stated: Option<BlockMap>) -> Outcome<Survey> {
        let mut progress = Progress::new("checking", self.bytes);
        match stated {
            Some(map) => {
                let file = self.check(&map, &mut progress)?;
                Ok(Survey { map, file })
            }
            None => {
                let mut maker = Maker::default();
                let (total, file) = self.pieces(u64::MAX, &mut progress, &mut |at, piece| {
                    maker.piece(at, piece);
                    Ok(())
                })?;
                Ok(Survey { map: maker.finish(total), file })
            }
        }
    }

    fn check(&self, map: &BlockMap, progress: &mut Progress) -> Outcome<Digest> {
        let (total, file) = self.parts(map, progress, &mut |part| match part {
            Part::Gap(bytes) if !is_zero(bytes) => Err(self.damaged("its block map leaves out parts that hold something")),
            _ => Ok(()),
        })?;
        if total != map.image_bytes {
            return Err(self.damaged(&format!("it has {total} bytes, its block map says {}", map.image_bytes)));
        }
        Ok(file)
    }

    /// Hands on every part in order; a range whose hash does not match ends it.
    pub(crate) fn parts(
        &self,
        map: &BlockMap,
        progress: &mut Progress,
        each: &mut dyn FnMut(&Part<'_>) -> Outcome,
    ) -> Outcome<(u64, Digest)> {
        let mut ranges = map.ranges.iter().peekable();
        let mut running = Running::new();
        self.pieces(map.image_bytes, progress, &mut |mut at, mut piece| {
            while !piece.is_empty() {
                let left = piece.len() as u64;
                let next = ranges.peek().copied();
                let gap = next.map_or(left, |range| range.start.saturating_sub(at).min(left));
                let Some(range) = next.filter(|_| gap == 0) else {
                    let (bytes, rest) = split(piece, gap);
                    each(&Part::Gap(bytes))?;
                    (at, piece) = (at + gap, rest);
                    continue;
                };
                let take = (range.end - at).min(left);
                let (bytes, rest) = split(piece, take);
                running.update(bytes);
                if at + take == range.end {
                    ranges.next();
                    if std::mem::replace(&mut running, Running::new()).finish() != range.digest {
                        return Err(self.damaged(&format!("the hash of bytes {} to {} does not match", range.start, range.end)));
                    }
                }
                each(&Part::Mapped { at, bytes })?;
                (at, piece) = (at + take, rest);
            }
            Ok(())
        })
    }

    /// Hands on the image piece by piece; more than `bytes_max` bytes end it. Returns size and the file's hash.
    fn pieces(&self, bytes_max: u64, progress: &mut Progress, each: &mut dyn FnMut(u64, &[u8]) -> Outcome) -> Outcome<(u64, Digest)> {
        let mut file = self.file.try_clone().map_err(|error| Failure::unreadable(&self.path, &error))?;
        file.seek(SeekFrom::Start(0)).map_err(|error| Failure::unreadable(&self.path, &error))?;
        let mut source = Hashing { inner: BufReader::with_capacity(PIECE, file), running: Running::new(), progress, failed: None };
        let mut sink = Sink { at: 0, piece: Vec::with_capacity(PIECE), bytes_max: bytes_max.min(IMAGE_BYTES_MAX), each };
        let drained = self.drain_all(&mut source, &mut sink);
        // What cannot be read is not damaged for that.
        if let Some(error) = &source.failed {
            return Err(Failure::unreadable(&self.path, error));
        }
        drained?;
        sink.flush()?;
        let total = sink.at;
        Ok((total, source.running.finish()))
    }

    fn drain_all(&self, source: &mut Hashing<'_>, sink: &mut Sink<'_>) -> Outcome {
        if !self.packed {
            return self.drain(source, sink);
        }
        while let Some(frame) = self.next_frame(source)? {
            self.drain(frame, sink)?;
        }
        Ok(())
    }

    /// The next frame of a packed file; `None` at its end.
    fn next_frame<'a, 'b>(&self, source: &'a mut Hashing<'b>) -> Outcome<Option<impl Read + use<'a, 'b>>> {
        let at_end = source.at_end().map_err(|error| Failure::unreadable(&self.path, &error))?;
        if at_end {
            return Ok(None);
        }
        let frame = StreamingDecoder::new_with_max_window_size(source, WINDOW_BYTES_MAX);
        frame.map(Some).map_err(|error| self.damaged(&format!("it cannot be unpacked ({error})")))
    }

    fn drain(&self, mut from: impl Read, sink: &mut Sink<'_>) -> Outcome {
        let mut buffer = vec![0; PIECE];
        loop {
            let read = from.read(&mut buffer).map_err(|error| self.damaged(&format!("it cannot be unpacked ({error})")))?;
            if read == 0 {
                return Ok(());
            }
            if !sink.take(buffer.get(..read).unwrap_or_default())? {
                return Err(self.damaged("it is larger than its block map says"));
            }
        }
    }

    fn damaged(&self, what: &str) -> Failure {
        Failure::refused(format!("{} is damaged: {what}", self.path.display()), "download it again; nothing was written")
    }
}

/// Whether nothing is in it; compared in blocks, which is many times faster than byte by byte.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    const ZEROS: [u8; BLOCK as usize] = [0; BLOCK as usize];
    bytes.chunks(ZEROS.len()).all(|chunk| ZEROS.get(..chunk.len()) == Some(chunk))
}

fn split(piece: &[u8], at: u64) -> (&[u8], &[u8]) {
    piece.split_at_checked(usize::try_from(at).unwrap_or(usize::MAX)).unwrap_or((piece, &[]))
}

/// Collects what is read into pieces that begin at multiples of [`PIECE`].
struct Sink<'a> {
    at: u64,
    piece: Vec<u8>,
    bytes_max: u64,
    each: &'a mut dyn FnMut(u64, &[u8]) -> Outcome,
}

impl Sink<'_> {
    /// `false`: more than there may be.
    fn take(&mut self, mut bytes: &[u8]) -> Outcome<bool> {
        if self.at + (self.piece.len() + bytes.len()) as u64 > self.bytes_max {
            return Ok(false);
        }
        while !bytes.is_empty() {
            let (head, rest) = split(bytes, (PIECE - self.piece.len()) as u64);
            self.piece.extend_from_slice(head);
            bytes = rest;
            if self.piece.len() == PIECE {
                self.flush()?;
            }
        }
        Ok(true)
    }

    fn flush(&mut self) -> Outcome {
        (self.each)(self.at, &self.piece)?;
        self.at += self.piece.len() as u64;
        self.piece.clear();
        Ok(())
    }
}

/// Hashes what is read from the file.
struct Hashing<'a> {
    inner: BufReader<File>,
    running: Running,
    progress: &'a mut Progress,
    /// Why the file cannot be read; whoever unpacks it reports it as one of its own.
    failed: Option<std::io::Error>,
}

impl Hashing<'_> {
    fn at_end(&mut self) -> std::io::Result<bool> {
        std::io::BufRead::fill_buf(&mut self.inner).map(<[u8]>::is_empty)
    }
}

impl Read for Hashing<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.inner.read(buffer).map_err(|error| {
            let kind = error.kind();
            if kind != std::io::ErrorKind::Interrupted {
                self.failed = Some(error);
            }
            std::io::Error::from(kind)
        })?;
        self.running.update(buffer.get(..read).unwrap_or_default());
        self.progress.add(read as u64);
        Ok(read)
    }
}

/// Makes a block map: every run of blocks that are not all zero, or whose zeros mean something.
#[derive(Default)]
struct Maker {
    ranges: Vec<Range>,
    meaningful: Vec<(u64, u64)>,
    open: Option<(u64, u64, Running)>,
}

impl Maker {
    fn piece(&mut self, at: u64, piece: &[u8]) {
        if at == 0 {
            self.meaningful = table::meaningful(piece);
        }
        for (number, block) in piece.chunks(BLOCK as usize).enumerate() {
            let start = at + number as u64 * BLOCK;
            let end = start + block.len() as u64;
            if is_zero(block) && !self.meaningful.iter().any(|(first, after)| *first < end && start < *after) {
                self.close();
                continue;
            }
            let (first, _, mut running) = self.open.take().unwrap_or_else(|| (start, start, Running::new()));
            running.update(block);
            self.open = Some((first, end, running));
        }
    }

    fn close(&mut self) {
        if let Some((start, end, running)) = self.open.take() {
            self.ranges.push(Range { start, end, digest: running.finish() });
        }
    }

    fn finish(mut self, total: u64) -> BlockMap {
        self.close();
        BlockMap::new(total, self.ranges)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::process::ExitCode;

    use super::*;

    /// A disk with the image that went away is no damaged download: it says why it cannot be read.
    #[test]
    fn an_image_that_cannot_be_read_is_not_called_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.img");
        // Opened for writing only, every read of it fails.
        let file = OpenOptions::new().write(true).create_new(true).open(&path).unwrap();
        let failure = Image { path, file, bytes: 1, packed: false }.survey(None).err().unwrap();
        assert!(failure.exit_code() == ExitCode::from(4) && failure.what().contains("x.img cannot be read ("), "{failure}");
    }
}
