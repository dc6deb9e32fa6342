//! A dm-verity tree (kernel, "dm-verity", format 1, SHA-256, blocks of 4096 bytes).

use std::io::{self, Read};

use crate::digest::{BYTES, Digest, Running};

/// Size of data and hash blocks in bytes.
pub(crate) const BLOCK: usize = 4096;
/// Hashes in a block.
const HASHES: usize = BLOCK / BYTES;

/// The tree over some data.
pub(crate) struct Tree {
    pub(crate) root: Digest,
    /// Length in bytes and hash of every level as it is stored, the top one first.
    levels: Vec<(u64, Digest)>,
}

/// A level that is being made.
struct Level {
    /// The hashes of the block that is not full yet.
    open: Vec<u8>,
    bytes: u64,
    stored: Running,
}

impl Tree {
    /// Hashes `data_bytes` bytes, then the hashes, until one is left.
    pub(crate) fn over(mut data: impl Read, data_bytes: u64, salt: &[u8]) -> io::Result<Self> {
        let mut levels = Vec::new();
        let mut block = vec![0; BLOCK];
        for _ in 0..data_bytes / BLOCK as u64 {
            data.read_exact(&mut block)?;
            push(&mut levels, 0, &salted(salt, &block), salt);
        }
        // What is left at each level is filled up with zeros and handed up.
        let mut number = 0;
        while let Some(level) = levels.get(number) {
            if number + 1 == levels.len() && level.open.len() == BYTES {
                let root = digest_of(&level.open);
                let stored = levels.into_iter().rev().filter(|level| level.bytes > 0);
                return Ok(Self { root, levels: stored.map(|level| (level.bytes, level.stored.finish())).collect() });
            }
            if !level.open.is_empty() {
                close(&mut levels, number, salt);
            }
            number += 1;
        }
        Err(io::Error::new(io::ErrorKind::InvalidData, "no data"))
    }

    /// How many bytes it has where it is stored.
    pub(crate) fn stored_bytes(&self) -> u64 {
        self.levels.iter().map(|(bytes, _)| bytes).sum()
    }

    /// Whether it is what is stored here.
    pub(crate) fn is_stored_in(&self, mut stored: impl Read) -> io::Result<bool> {
        let mut block = vec![0; BLOCK];
        for (bytes, digest) in &self.levels {
            let mut running = Running::new();
            for _ in 0..bytes / BLOCK as u64 {
                stored.read_exact(&mut block)?;
                running.update(&block);
            }
            if running.finish() != *digest {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Adds a hash to a level; a level's block that is full becomes a hash of the next.
fn push(levels: &mut Vec<Level>, number: usize, digest: &Digest, salt: &[u8]) {
    if levels.len() == number {
        levels.push(Level { open: Vec::with_capacity(BLOCK), bytes: 0, stored: Running::new() });
    }
    let Some(level) = levels.get_mut(number) else { return };
    level.open.extend_from_slice(&digest.0);
    if level.open.len() == HASHES * BYTES {
        close(levels, number, salt);
    }
}

/// Ends a level's block, filled up with zeros, and hands its hash up.
fn close(levels: &mut Vec<Level>, number: usize, salt: &[u8]) {
    let Some(level) = levels.get_mut(number) else { return };
    level.open.resize(BLOCK, 0);
    level.stored.update(&level.open);
    level.bytes += BLOCK as u64;
    let digest = salted(salt, &level.open);
    level.open.clear();
    push(levels, number + 1, &digest, salt);
}

fn salted(salt: &[u8], block: &[u8]) -> Digest {
    let mut running = Running::new();
    running.update(salt);
    running.update(block);
    running.finish()
}

fn digest_of(bytes: &[u8]) -> Digest {
    let mut digest = [0; BYTES];
    for (to, from) in digest.iter_mut().zip(bytes) {
        *to = *from;
    }
    Digest(digest)
}
