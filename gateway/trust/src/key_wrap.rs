//! Key-encryption keys: the one key on a gateway that opens the store's data keys.
//!
//! A wrapped data key is `version (1 byte) | nonce (12) | ciphertext (32) | tag (16)`, AES-256-GCM
//! (NIST SP 800-38D) with a random nonce.

use std::fmt;
use std::path::{Path, PathBuf};

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use vitalgate_domain::{KeyWrap, KeyWrapError};
use zeroize::{Zeroize as _, Zeroizing};

use crate::file::{self, FileError};
use crate::password::{RandomError, fill};
use crate::sealed::{Seal, Sealed, SealedError, WhenDifferent};
use crate::{hex, unhex};

const HEADER: &str = "vitalgate key-encryption key 1\n";
const WRAPPED_VERSION: u8 = 1;
const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;
const WRAPPED_BYTES: usize = 1 + NONCE_BYTES + 32 + TAG_BYTES;
const CONTEXT: &[u8] = b"vitalgate wrapped data key 1";
/// Largest key file or credential, in bytes.
const KEY_FILE_BYTES_MAX: u64 = 4 * 1024;
/// Where systemd puts the credentials of a unit (systemd.exec(5), `LoadCredential=`).
pub(crate) const CREDENTIALS_DIRECTORY: &str = "CREDENTIALS_DIRECTORY";

/// Why a key-encryption key could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// Reading or writing failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// The two copies cannot be used.
    #[error(transparent)]
    Sealed(#[from] SealedError),
    /// No randomness for a new key.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// The key is gone, but what it opens is not.
    #[error("{0} and its .copy are gone, and without them nothing that is stored can be read; restore one of the two from a backup")]
    Missing(PathBuf),
    /// The file is whole, but holds something else.
    #[error("{0} holds no key-encryption key; restore the right file from a backup")]
    NotAKey(PathBuf),
    /// The process has no credentials.
    #[error("CREDENTIALS_DIRECTORY is not set; start the gateway by systemd with LoadCredentialEncrypted={0}:... or use a key file")]
    NoCredentials(String),
    /// The credential is not there.
    #[error("the credential {0} does not exist; add LoadCredentialEncrypted= for it to the gateway's unit")]
    CredentialMissing(PathBuf),
}

/// The key itself, wiped when dropped.
struct KeyEncryptionKey(Zeroizing<[u8; 32]>);

impl KeyEncryptionKey {
    fn key(&self) -> Result<RandomizedNonceKey, KeyWrapError> {
        RandomizedNonceKey::new(&AES_256_GCM, self.0.as_slice()).map_err(|_| unavailable())
    }

    fn wrap(&self, data_key: &[u8; 32]) -> Result<Vec<u8>, KeyWrapError> {
        let mut sealed = Zeroizing::new(Vec::with_capacity(WRAPPED_BYTES));
        sealed.extend_from_slice(data_key);
        let nonce = self.key()?.seal_in_place_append_tag(Aad::from(CONTEXT), &mut *sealed).map_err(|_| unavailable())?;
        let mut wrapped = Vec::with_capacity(WRAPPED_BYTES);
        wrapped.push(WRAPPED_VERSION);
        wrapped.extend_from_slice(nonce.as_ref());
        wrapped.extend_from_slice(&sealed);
        Ok(wrapped)
    }

    fn unwrap(&self, wrapped: &[u8]) -> Result<[u8; 32], KeyWrapError> {
        let (Some((&WRAPPED_VERSION, rest)), WRAPPED_BYTES) = (wrapped.split_first(), wrapped.len()) else {
            return Err(KeyWrapError::DoesNotOpen);
        };
        let (nonce, sealed) = rest.split_at(NONCE_BYTES);
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| KeyWrapError::DoesNotOpen)?;
        let mut sealed = Zeroizing::new(sealed.to_vec());
        let opened = self.key()?.open_in_place(nonce, Aad::from(CONTEXT), &mut sealed).map_err(|_| KeyWrapError::DoesNotOpen)?;
        <[u8; 32]>::try_from(&*opened).map_err(|_| KeyWrapError::DoesNotOpen)
    }
}

fn unavailable() -> KeyWrapError {
    KeyWrapError::Unavailable("the crypto library refused it; restart the gateway".to_owned())
}

/// A key-encryption key in a file of mode 0600, kept in two sealed copies (`path`, `path.copy`).
pub struct FileKeyWrap {
    key: KeyEncryptionKey,
    path: PathBuf,
    healed: Option<PathBuf>,
}

impl FileKeyWrap {
    /// Opens the key, or makes one where there is none. A damaged copy is written anew from the other.
    /// Where data already waits for its key, use [`FileKeyWrap::open`].
    ///
    /// # Errors
    /// When both copies are damaged or the files cannot be used; no new key is made then, since it would
    /// not open what is stored.
    pub fn open_or_create(path: &Path) -> Result<Self, KeyFileError> {
        file::create_directory(file::parent(path))?;
        Self::open_with(path, |sealed| {
            let body = new_body()?;
            sealed.write(&body)?;
            Ok(body)
        })
    }

    /// Opens the key that must be there, because something is stored under it.
    ///
    /// # Errors
    /// Like [`FileKeyWrap::open_or_create`], and when both copies are missing.
    pub fn open(path: &Path) -> Result<Self, KeyFileError> {
        if !file::parent(path).is_dir() {
            return Err(KeyFileError::Missing(path.to_owned()));
        }
        Self::open_with(path, |_| Err(KeyFileError::Missing(path.to_owned())))
    }

    fn open_with(path: &Path, absent: impl FnOnce(Sealed<'_>) -> Result<Zeroizing<Vec<u8>>, KeyFileError>) -> Result<Self, KeyFileError> {
        let _lock = file::lock(&file::with_suffix(path, ".lock"))?;
        let sealed = Sealed { path, seal: Seal::Line, when_different: WhenDifferent::Refuse, bytes_max: KEY_FILE_BYTES_MAX };
        let (body, healed) = match sealed.read()? {
            Some(found) => (found.body, found.healed),
            None => (absent(sealed)?, None),
        };
        let key = read_body(&body).ok_or_else(|| KeyFileError::NotAKey(path.to_owned()))?;
        Ok(Self { key, path: path.to_owned(), healed })
    }

    /// The copy that was damaged or missing when the key was opened, and is written anew.
    #[must_use]
    pub fn healed(&self) -> Option<&Path> {
        self.healed.as_deref()
    }
}

impl KeyWrap for FileKeyWrap {
    fn wrap(&self, data_key: &[u8; 32]) -> Result<Vec<u8>, KeyWrapError> {
        self.key.wrap(data_key)
    }

    fn unwrap(&self, wrapped: &[u8]) -> Result<[u8; 32], KeyWrapError> {
        self.key.unwrap(wrapped)
    }
}

impl fmt::Debug for FileKeyWrap {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("FileKeyWrap").field("path", &self.path).finish_non_exhaustive()
    }
}

/// A key-encryption key that systemd hands over as a credential, on the appliance sealed by its TPM.
/// The credential holds 32 bytes, or their 64 hexadecimal digits, or a copy of a key file.
pub struct CredentialKeyWrap {
    key: KeyEncryptionKey,
    name: String,
}

impl CredentialKeyWrap {
    /// Opens the unit's credential of that name.
    ///
    /// # Errors
    /// When there is no such credential or it holds no key.
    pub fn open(name: &str) -> Result<Self, KeyFileError> {
        let folder = std::env::var_os(CREDENTIALS_DIRECTORY).ok_or_else(|| KeyFileError::NoCredentials(name.to_owned()))?;
        Self::open_in(Path::new(&folder), name)
    }

    /// Opens a credential of that name in a given folder.
    ///
    /// # Errors
    /// When there is no such credential or it holds no key.
    pub fn open_in(folder: &Path, name: &str) -> Result<Self, KeyFileError> {
        let path = folder.join(name);
        let bytes = file::read(&path, KEY_FILE_BYTES_MAX)?.ok_or_else(|| KeyFileError::CredentialMissing(path.clone()))?;
        let key = credential(&bytes).ok_or(KeyFileError::NotAKey(path))?;
        Ok(Self { key, name: name.to_owned() })
    }
}

impl KeyWrap for CredentialKeyWrap {
    fn wrap(&self, data_key: &[u8; 32]) -> Result<Vec<u8>, KeyWrapError> {
        self.key.wrap(data_key)
    }

    fn unwrap(&self, wrapped: &[u8]) -> Result<[u8; 32], KeyWrapError> {
        self.key.unwrap(wrapped)
    }
}

impl fmt::Debug for CredentialKeyWrap {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("CredentialKeyWrap").field("name", &self.name).finish_non_exhaustive()
    }
}

fn new_body() -> Result<Zeroizing<Vec<u8>>, RandomError> {
    let mut key = Zeroizing::new([0; 32]);
    fill(&mut *key)?;
    let digits = Zeroizing::new(hex(&*key));
    Ok(Zeroizing::new([HEADER.as_bytes(), digits.as_bytes(), b"\n"].concat()))
}

fn read_body(body: &[u8]) -> Option<KeyEncryptionKey> {
    let digits = body.strip_prefix(HEADER.as_bytes())?.strip_suffix(b"\n")?;
    unhex(digits).map(kept)
}

fn credential(bytes: &[u8]) -> Option<KeyEncryptionKey> {
    if let Ok(raw) = <[u8; 32]>::try_from(bytes) {
        return Some(kept(raw));
    }
    if let Some(body) = Seal::Line.open(bytes) {
        return read_body(body);
    }
    unhex(bytes.trim_ascii_end()).map(kept)
}

fn kept(mut raw: [u8; 32]) -> KeyEncryptionKey {
    let key = KeyEncryptionKey(Zeroizing::new(raw));
    raw.zeroize();
    key
}
