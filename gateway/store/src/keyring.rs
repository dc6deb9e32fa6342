//! The data keys: each in two key files, in the header of every segment that it seals, and in the
//! keyed store, always wrapped.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use vitalgate_domain::{KeyWrap, KeyWrapError, UnixMs};

use crate::files::{FileSystem, read_salvaging, read_up_to, replace};
use crate::record::TAG_BYTES;
use crate::report::{Finding, Findings, Healer};

/// Longest wrapped key in bytes (see [`KeyWrap::wrap`]).
pub(crate) const WRAPPED_BYTES_MAX: usize = 256;
/// Longest key file that is read, in bytes.
const KEY_FILE_BYTES_MAX: usize = 1024;
const KEY_MAGIC: [u8; 8] = *b"VGKEY\0\0\x02";
/// Key files of version 1 do not say when the key was made.
const KEY_MAGIC_UNDATED: [u8; 8] = *b"VGKEY\0\0\x01";
/// Stands in a key file for a moment that is not known.
const MADE_UNKNOWN: i64 = i64::MIN;
/// The two copies of each key file.
const COPIES: [&str; 2] = ["a", "b"];

/// Why a data key cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// No copy of the wrapped key is left.
    #[error("data key {0} is in none of its copies")]
    Missing(u32),
    /// No copy of the wrapped key opens.
    #[error(
        "data key {0} does not open with this gateway's key-encryption key; restore the key-encryption key that the store was made with"
    )]
    DoesNotOpen(u32),
    /// The key-encryption key cannot be used just now.
    #[error("data key {key_id} cannot be unwrapped: {reason}")]
    Unavailable {
        /// The key.
        key_id: u32,
        /// Why.
        reason: String,
    },
    /// A key file could not be written.
    #[error("a key file in keys/ cannot be written: {0}")]
    Io(String),
    /// The operating system gives no random numbers.
    #[error("no random numbers for a new data key")]
    NoRandom,
}

/// A data key ready for use.
pub(crate) struct DataKey(LessSafeKey);

impl DataKey {
    fn new(bytes: &[u8; 32]) -> Result<Self, KeyError> {
        UnboundKey::new(&AES_256_GCM, bytes).map(|key| Self(LessSafeKey::new(key))).map_err(|_| KeyError::NoRandom)
    }

    /// Seals in place and gives the tag.
    pub(crate) fn seal(&self, nonce: [u8; 12], header: &[u8], body: &mut [u8]) -> Option<[u8; TAG_BYTES]> {
        let tag = self.0.seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(header), body).ok()?;
        tag.as_ref().try_into().ok()
    }

    /// Opens in place; the rest without the tag is the plain body.
    pub(crate) fn open<'a>(&self, nonce: [u8; 12], header: &[u8], sealed: &'a mut [u8]) -> Option<&'a [u8]> {
        self.0.open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(header), sealed).ok().map(|plain| &*plain)
    }
}

#[derive(Default)]
struct Slot {
    wrapped: Vec<Vec<u8>>,
    key: Option<Arc<DataKey>>,
    made_at: Option<UnixMs>,
}

/// What a key file says.
struct KeyFile {
    wrapped: Vec<u8>,
    made_at: Option<UnixMs>,
}

/// All data keys that were met, unwrapped when first needed.
pub(crate) struct Keyring {
    wrap: Arc<dyn KeyWrap>,
    dir: PathBuf,
    slots: RwLock<BTreeMap<u32, Slot>>,
}

fn file_name(key_id: u32, copy: &str) -> String {
    format!("{key_id:08x}.{copy}.key")
}

fn key_file(key_id: u32, wrapped: &[u8], made_at: Option<UnixMs>) -> Vec<u8> {
    let mut bytes = KEY_MAGIC.to_vec();
    bytes.extend_from_slice(&key_id.to_le_bytes());
    bytes.extend_from_slice(&made_at.map_or(MADE_UNKNOWN, |made| made.0).to_le_bytes());
    bytes.extend_from_slice(&u32::try_from(wrapped.len()).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend_from_slice(wrapped);
    let checksum = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    bytes
}

fn parse_key_file(bytes: &[u8], key_id: u32) -> Option<KeyFile> {
    let (content, checksum) = bytes.split_last_chunk::<4>()?;
    if u32::from_le_bytes(*checksum) != crc32c::crc32c(content) {
        return None;
    }
    let (magic, rest) = content.split_first_chunk::<8>()?;
    let rest = rest.strip_prefix(&key_id.to_le_bytes())?;
    let (made, rest) = match *magic {
        KEY_MAGIC => rest.split_first_chunk::<8>().map(|(made, rest)| (i64::from_le_bytes(*made), rest))?,
        KEY_MAGIC_UNDATED => (MADE_UNKNOWN, rest),
        _ => return None,
    };
    let (length, wrapped) = rest.split_first_chunk::<4>()?;
    let made_at = (made != MADE_UNKNOWN).then_some(UnixMs(made));
    let fits = u32::from_le_bytes(*length) as usize == wrapped.len() && wrapped.len() <= WRAPPED_BYTES_MAX;
    fits.then(|| KeyFile { wrapped: wrapped.to_vec(), made_at })
}

/// The key id in a key file's name.
fn id_in(name: &str) -> Option<u32> {
    let (id, rest) = name.split_once('.')?;
    (rest.ends_with(".key") && id.len() == 8).then(|| u32::from_str_radix(id, 16).ok())?
}

impl Keyring {
    /// Reads the key files; nothing is unwrapped yet.
    pub(crate) fn load(files: &dyn FileSystem, dir: &Path, wrap: Arc<dyn KeyWrap>) -> std::io::Result<Self> {
        let keyring = Self { wrap, dir: dir.to_owned(), slots: RwLock::default() };
        for name in files.list(dir)? {
            let Some(key_id) = id_in(&name) else { continue };
            keyring.slots.write().unwrap_or_else(PoisonError::into_inner).entry(key_id).or_default();
            // One that the disk cannot read is as good as damaged.
            let (bytes, _) = read_salvaging(files, &dir.join(&name), KEY_FILE_BYTES_MAX)?;
            if let Some(file) = parse_key_file(&bytes, key_id) {
                keyring.learn(key_id, &file.wrapped);
                keyring.date(key_id, file.made_at);
            }
        }
        Ok(keyring)
    }

    /// Takes in a wrapped key that was met elsewhere.
    pub(crate) fn learn(&self, key_id: u32, wrapped: &[u8]) {
        let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        let slot = slots.entry(key_id).or_default();
        if !wrapped.is_empty() && wrapped.len() <= WRAPPED_BYTES_MAX && !slot.wrapped.iter().any(|known| known == wrapped) {
            slot.wrapped.push(wrapped.to_vec());
        }
    }

    fn date(&self, key_id: u32, made_at: Option<UnixMs>) {
        let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        let slot = slots.entry(key_id).or_default();
        slot.made_at = made_at.or(slot.made_at);
    }

    /// When the key was made; `None` when no key file says so.
    pub(crate) fn made_at(&self, key_id: u32) -> Option<UnixMs> {
        self.slots.read().unwrap_or_else(PoisonError::into_inner).get(&key_id).and_then(|slot| slot.made_at)
    }

    /// Says when the key was made, in both of its files.
    pub(crate) fn note_made(&self, files: &dyn FileSystem, key_id: u32, made_at: UnixMs) -> Result<(), KeyError> {
        let Some(wrapped) = self.wrapped(key_id) else { return Err(KeyError::Missing(key_id)) };
        self.write_files(files, key_id, &wrapped, Some(made_at))?;
        self.date(key_id, Some(made_at));
        Ok(())
    }

    fn write_files(&self, files: &dyn FileSystem, key_id: u32, wrapped: &[u8], made_at: Option<UnixMs>) -> Result<(), KeyError> {
        let bytes = key_file(key_id, wrapped, made_at);
        let mut paths = COPIES.iter().map(|copy| self.dir.join(file_name(key_id, copy)));
        paths.try_for_each(|path| replace(files, &path, &bytes)).map_err(|error| KeyError::Io(error.to_string()))
    }

    /// The oldest key's id, if there is one.
    pub(crate) fn oldest(&self) -> Option<u32> {
        self.slots.read().unwrap_or_else(PoisonError::into_inner).keys().next().copied()
    }

    /// The newest key's id, if there is one.
    pub(crate) fn newest(&self) -> Option<u32> {
        self.slots.read().unwrap_or_else(PoisonError::into_inner).keys().next_back().copied()
    }

    /// The key, unwrapped.
    pub(crate) fn key(&self, key_id: u32) -> Result<Arc<DataKey>, KeyError> {
        let candidates = {
            let slots = self.slots.read().unwrap_or_else(PoisonError::into_inner);
            let slot = slots.get(&key_id).ok_or(KeyError::Missing(key_id))?;
            if let Some(key) = &slot.key {
                return Ok(Arc::clone(key));
            }
            slot.wrapped.clone()
        };
        let mut failure = if candidates.is_empty() { KeyError::Missing(key_id) } else { KeyError::DoesNotOpen(key_id) };
        for wrapped in candidates {
            match self.wrap.unwrap(&wrapped) {
                Ok(bytes) => {
                    let key = Arc::new(DataKey::new(&bytes)?);
                    let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
                    let slot = slots.entry(key_id).or_default();
                    slot.key = Some(Arc::clone(&key));
                    // The one that opens is the one to keep.
                    slot.wrapped = vec![wrapped];
                    return Ok(key);
                }
                Err(KeyWrapError::DoesNotOpen) => {}
                Err(KeyWrapError::Unavailable(reason)) => failure = KeyError::Unavailable { key_id, reason },
            }
        }
        Err(failure)
    }

    /// The wrapped form that is kept of a key.
    pub(crate) fn wrapped(&self, key_id: u32) -> Option<Vec<u8>> {
        self.slots.read().unwrap_or_else(PoisonError::into_inner).get(&key_id).and_then(|slot| slot.wrapped.first().cloned())
    }

    /// Every wrapped key.
    pub(crate) fn all_wrapped(&self) -> Vec<(u32, Vec<u8>)> {
        let slots = self.slots.read().unwrap_or_else(PoisonError::into_inner);
        slots.iter().filter_map(|(key_id, slot)| Some((*key_id, slot.wrapped.first()?.clone()))).collect()
    }

    /// Makes a new data key; it is on disk in both copies afterwards. `now` is when, if that is known.
    pub(crate) fn create(&self, files: &dyn FileSystem, now: Option<UnixMs>) -> Result<u32, KeyError> {
        let mut bytes = [0; 32];
        aws_lc_rs::rand::fill(&mut bytes).map_err(|_| KeyError::NoRandom)?;
        let key_id = self.newest().map_or(1, |newest| newest.saturating_add(1));
        let wrapped = self.wrap.wrap(&bytes).map_err(|error| KeyError::Unavailable { key_id, reason: error.to_string() })?;
        self.write_files(files, key_id, &wrapped, now)?;
        let key = Arc::new(DataKey::new(&bytes)?);
        let slot = Slot { wrapped: vec![wrapped], key: Some(key), made_at: now };
        self.slots.write().unwrap_or_else(PoisonError::into_inner).insert(key_id, slot);
        Ok(key_id)
    }

    /// Writes key files anew that are missing or do not say what opens.
    pub(crate) fn heal(&self, files: &dyn FileSystem, findings: &Findings) -> Result<(), KeyError> {
        let ids: Vec<u32> = self.slots.read().unwrap_or_else(PoisonError::into_inner).keys().copied().collect();
        for key_id in ids {
            // One that no copy opens is met again, and reported, where a record needs it.
            let (Ok(_key), Some(wrapped)) = (self.key(key_id), self.wrapped(key_id)) else { continue };
            let stored = COPIES.map(|copy| {
                let bytes = read_up_to(files, &self.dir.join(file_name(key_id, copy)), KEY_FILE_BYTES_MAX).ok()?;
                Some(parse_key_file(&bytes, key_id)?.wrapped)
            });
            let whole = stored.iter().flatten().any(|stored| *stored == wrapped);
            for (copy, stored) in COPIES.iter().zip(&stored) {
                if stored.as_ref() != Some(&wrapped) {
                    let name = file_name(key_id, copy);
                    let bytes = key_file(key_id, &wrapped, self.made_at(key_id));
                    replace(files, &self.dir.join(&name), &bytes).map_err(|error| KeyError::Io(error.to_string()))?;
                    let from = if whole { Healer::OtherCopy } else { Healer::SegmentHeader };
                    findings.add(Finding::KeyHealed { file: format!("keys/{name}"), from });
                }
            }
        }
        Ok(())
    }

    /// Destroys every key older than `oldest`: what they sealed can never be read again.
    pub(crate) fn destroy_before(&self, files: &dyn FileSystem, oldest: u32) -> std::io::Result<usize> {
        let gone: Vec<u32> = self.slots.read().unwrap_or_else(PoisonError::into_inner).range(..oldest).map(|(key_id, _)| *key_id).collect();
        for key_id in &gone {
            for copy in COPIES {
                match files.remove(&self.dir.join(file_name(*key_id, copy))) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
            self.slots.write().unwrap_or_else(PoisonError::into_inner).remove(key_id);
        }
        if !gone.is_empty() {
            files.sync_dir(&self.dir)?;
        }
        Ok(gone.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A store of an earlier version keeps its keys.
    #[test]
    fn a_key_file_without_a_moment_is_read() {
        let mut bytes = KEY_MAGIC_UNDATED.to_vec();
        bytes.extend_from_slice(&7u32.to_le_bytes());
        bytes.extend_from_slice(&3u32.to_le_bytes());
        bytes.extend_from_slice(b"abc");
        let checksum = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        let file = parse_key_file(&bytes, 7).unwrap();
        assert_eq!((file.wrapped.as_slice(), file.made_at), (&b"abc"[..], None));
        let dated = parse_key_file(&key_file(7, b"abc", Some(UnixMs(5))), 7).unwrap();
        assert_eq!((dated.wrapped.as_slice(), dated.made_at), (&b"abc"[..], Some(UnixMs(5))));
        assert!(parse_key_file(&key_file(7, b"abc", None), 7).unwrap().made_at.is_none());
        assert!(parse_key_file(&bytes, 8).is_none(), "another key's file");
    }
}
