//! dm-verity: the superblock of a hash partition, and opening the root.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
    process::Command,
};

use sha2::{Digest, Sha256};
use vitalgate_layout::partition::ROOT_MAPPING;

use crate::{BootError, slots::FoundSlot};

/// Size of a data and of a hash block, in bytes.
const BLOCK: usize = 4096;
/// Longest salt that the format has room for, in bytes.
const SALT_MAX: usize = 256;

/// Reads 64 hex digits.
pub(crate) fn parse_hash(text: &str) -> Option<[u8; 32]> {
    let mut hash = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (index, byte) in hash.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(index * 2..index * 2 + 2)?, 16).ok()?;
    }
    Some(hash)
}

/// Writes bytes as hex digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The root hash that a hash partition belongs to: SHA-256 of the salt and the top block of its tree.
///
/// `None`: not a superblock as the build writes it (dm-verity on-disk format version 1, hash type 1,
/// SHA-256, blocks of 4096 bytes).
///
/// # Errors
/// The partition can not be read.
pub(crate) fn root_hash_of(partition: &Path) -> io::Result<Option<[u8; 32]>> {
    let mut start = vec![0; BLOCK * 2];
    File::open(partition)?.read_exact(&mut start)?;
    Ok(root_hash_of_start(&start))
}

fn root_hash_of_start(start: &[u8]) -> Option<[u8; 32]> {
    let number = |at: usize| Some(u32::from_le_bytes(start.get(at..at + 4)?.try_into().ok()?));
    let salt_length = usize::from(u16::from_le_bytes(start.get(80..82)?.try_into().ok()?));
    let as_built = start.get(..8)? == b"verity\0\0"
        && number(8)? == 1
        && number(12)? == 1
        && start.get(32..64)?.strip_prefix(b"sha256")?.iter().all(|byte| *byte == 0)
        && number(64)? as usize == BLOCK
        && number(68)? as usize == BLOCK
        && salt_length <= SALT_MAX;
    if !as_built {
        return None;
    }
    let mut hash = Sha256::new();
    hash.update(start.get(88..88 + salt_length)?);
    hash.update(start.get(BLOCK..BLOCK * 2)?);
    Some(hash.finalize().into())
}

/// Opens the root of a slot as `/dev/mapper/root`; a block that does not fit panics the kernel.
///
/// # Errors
/// `veritysetup` is missing or refuses.
pub(crate) fn open(slot: &FoundSlot, root_hash: &[u8; 32]) -> Result<(), BootError> {
    let outcome = Command::new("/usr/sbin/veritysetup")
        .args(["open", "--panic-on-corruption"])
        .args([&slot.data, Path::new(ROOT_MAPPING), &slot.hashes])
        .arg(hex(root_hash))
        // Nobody answers udev's cookies yet.
        .env("DM_DISABLE_UDEV", "1")
        .status()
        .map_err(BootError::system("starting veritysetup"))?;
    if outcome.success() {
        return Ok(());
    }
    Err(BootError::Verity { data: slot.data.display().to_string(), outcome: outcome.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start() -> Vec<u8> {
        let mut start = vec![0; BLOCK * 2];
        start[..8].copy_from_slice(b"verity\0\0");
        start[8] = 1;
        start[12] = 1;
        start[32..38].copy_from_slice(b"sha256");
        start[64..68].copy_from_slice(&4096_u32.to_le_bytes());
        start[68..72].copy_from_slice(&4096_u32.to_le_bytes());
        start[80] = 2;
        start[88..90].copy_from_slice(&[0xab, 0xcd]);
        start[BLOCK] = 7;
        start
    }

    /// The hash is that of the salt before the top block, and of nothing else.
    #[test]
    fn a_root_hash_is_that_of_salt_and_top_block() {
        let mut expected = vec![0xab, 0xcd, 7];
        expected.resize(2 + BLOCK, 0);
        let expected: [u8; 32] = Sha256::digest(&expected).into();
        assert_eq!(root_hash_of_start(&start()), Some(expected));
        assert_eq!(parse_hash(&hex(&expected)), Some(expected));
    }

    /// Whatever stands on a disk of somebody else is passed over, not misread.
    #[test]
    fn what_the_build_does_not_write_is_no_superblock() {
        for (at, value) in [(0, b'V'), (8, 2), (12, 0), (37, b'1'), (38, b'x'), (65, 1), (69, 1), (81, 2)] {
            let mut start = start();
            start[at] = value;
            assert_eq!(root_hash_of_start(&start), None, "byte {at}");
        }
        assert_eq!(root_hash_of_start(&[]), None);
        assert_eq!(parse_hash("12"), None);
        assert_eq!(parse_hash(&"zz".repeat(32)), None);
    }
}
