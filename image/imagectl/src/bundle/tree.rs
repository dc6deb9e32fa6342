//! The root hash of a dm-verity tree (kernel, "dm-verity", format 1, SHA-256, blocks of 4096 bytes).

use std::io::{self, Read};

use crate::digest::{BYTES, Digest, Running};

/// Size of data and hash blocks in bytes.
pub(crate) const BLOCK: usize = 4096;
/// Hashes in a block.
const HASHES: usize = BLOCK / BYTES;

/// Hashes `data_bytes` bytes, then the hashes, until one is left.
pub(crate) fn root_hash(mut data: impl Read, data_bytes: u64, salt: &[u8]) -> io::Result<Digest> {
    let mut levels: Vec<Vec<u8>> = vec![Vec::with_capacity(BLOCK)];
    let mut block = vec![0; BLOCK];
    for _ in 0..data_bytes / BLOCK as u64 {
        data.read_exact(&mut block)?;
        let digest = salted(salt, &block);
        push(&mut levels, 0, &digest, salt);
    }
    // What is left at each level is filled up with zeros and handed up.
    let mut level = 0;
    loop {
        let top = level + 1 == levels.len();
        let Some(rest) = levels.get_mut(level).map(std::mem::take) else { break };
        if top && rest.len() == BYTES {
            return Ok(digest_of(&rest));
        }
        if !rest.is_empty() {
            let mut full = rest;
            full.resize(BLOCK, 0);
            let digest = salted(salt, &full);
            if top {
                return Ok(digest);
            }
            push(&mut levels, level + 1, &digest, salt);
        }
        level += 1;
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "no data"))
}

/// Adds a hash to a level; a level that is full becomes a hash of the next.
fn push(levels: &mut Vec<Vec<u8>>, level: usize, digest: &Digest, salt: &[u8]) {
    if levels.len() == level {
        levels.push(Vec::with_capacity(BLOCK));
    }
    let Some(hashes) = levels.get_mut(level) else { return };
    hashes.extend_from_slice(&digest.0);
    if hashes.len() == HASHES * BYTES {
        let full = std::mem::replace(hashes, Vec::with_capacity(BLOCK));
        push(levels, level + 1, &salted(salt, &full), salt);
    }
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
