//! Files that only support can open: the age format, version 1, with X25519 recipients
//! (age-encryption.org/v1). The appliance seals, `imagectl support decrypt` opens.

use std::fmt;

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::agreement::{PrivateKey, UnparsedPublicKey, X25519, agree};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use aws_lc_rs::hmac;
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

mod bech32;
mod text;

/// First line of a file.
const VERSION: &str = "age-encryption.org/v1";
/// Context of the key that wraps the file's key.
const WRAP_INFO: &[u8] = b"age-encryption.org/v1/X25519";
/// Length of keys and shares in bytes.
const KEY_BYTES: usize = 32;
/// Length of a file's own key in bytes.
const FILE_KEY_BYTES: usize = 16;
/// Length of the payload's nonce in bytes.
const NONCE_BYTES: usize = 16;
/// Length of a tag in bytes.
const TAG_BYTES: usize = 16;
/// Length of a piece of the payload in bytes.
const CHUNK_BYTES: usize = 64 * 1024;
/// Longest header in bytes.
const HEADER_BYTES_MAX: usize = 16 * 1024;

/// Why a file cannot be sealed or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AgeError {
    /// No recipient, `age1...`.
    #[error("this is no age recipient; it begins with age1")]
    NotARecipient,
    /// No identity, `AGE-SECRET-KEY-1...`.
    #[error("this is no age identity; it begins with AGE-SECRET-KEY-1")]
    NotAnIdentity,
    /// No age file.
    #[error("this is no age file of version 1")]
    NotAnAgeFile,
    /// For somebody else.
    #[error("the file is not for this key")]
    NotForThisKey,
    /// Changed, or cut off.
    #[error("the file was changed or is incomplete")]
    Damaged,
    /// The library refused.
    #[error("the system gives no random numbers or refuses the key")]
    Unusable,
}

/// Whom a file is sealed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recipient([u8; KEY_BYTES]);

impl Recipient {
    /// Reads `age1...`; lines that begin with `#` are left out.
    ///
    /// # Errors
    /// [`AgeError::NotARecipient`]
    pub fn parse(text: &str) -> Result<Self, AgeError> {
        bech32::decode("age", only_line(text)).map(Self).ok_or(AgeError::NotARecipient)
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&bech32::encode("age", &self.0))
    }
}

/// Who can open what was sealed. Never printed.
pub struct Identity(Zeroizing<[u8; KEY_BYTES]>);

impl Identity {
    /// A new one.
    ///
    /// # Errors
    /// [`AgeError::Unusable`]
    pub fn generate() -> Result<Self, AgeError> {
        let mut seed = Zeroizing::new([0; KEY_BYTES]);
        SystemRandom::new().fill(seed.as_mut_slice()).map_err(|_| AgeError::Unusable)?;
        Ok(Self(seed))
    }

    /// Reads `AGE-SECRET-KEY-1...`; lines that begin with `#` are left out.
    ///
    /// # Errors
    /// [`AgeError::NotAnIdentity`]
    pub fn parse(text: &str) -> Result<Self, AgeError> {
        let line = only_line(text);
        if line.chars().any(|one| one.is_ascii_lowercase()) {
            return Err(AgeError::NotAnIdentity);
        }
        let lower = Zeroizing::new(line.to_ascii_lowercase());
        bech32::decode("age-secret-key-", &lower).map(|seed| Self(Zeroizing::new(seed))).ok_or(AgeError::NotAnIdentity)
    }

    /// The text for a file with mode 0600.
    pub fn to_text(&self) -> Zeroizing<String> {
        let lower = Zeroizing::new(bech32::encode("age-secret-key-", &self.0));
        Zeroizing::new(lower.to_ascii_uppercase())
    }

    /// Its public half.
    ///
    /// # Errors
    /// [`AgeError::Unusable`]
    pub fn recipient(&self) -> Result<Recipient, AgeError> {
        public(&self.key()?).map(Recipient)
    }

    fn key(&self) -> Result<PrivateKey, AgeError> {
        PrivateKey::from_private_key(&X25519, self.0.as_slice()).map_err(|_| AgeError::Unusable)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Identity")
    }
}

/// Seals bytes for one recipient.
///
/// # Errors
/// [`AgeError::Unusable`]
pub fn seal(plain: &[u8], recipient: &Recipient) -> Result<Vec<u8>, AgeError> {
    let random = SystemRandom::new();
    let mut file_key = Zeroizing::new([0; FILE_KEY_BYTES]);
    let mut nonce = [0; NONCE_BYTES];
    random.fill(file_key.as_mut_slice()).and_then(|()| random.fill(&mut nonce)).map_err(|_| AgeError::Unusable)?;
    let ephemeral = PrivateKey::generate(&X25519).map_err(|_| AgeError::Unusable)?;
    let share = public(&ephemeral)?;
    let wrap = wrap_key(&ephemeral, &recipient.0, &share, &recipient.0)?;
    let mut body = file_key.to_vec();
    encrypt(&wrap, [0; NONCE_LEN], &mut body)?;
    let mut header = format!("{VERSION}\n-> X25519 {}\n{}\n---", text::encode(&share), text::encode(&body));
    let mac = hmac::sign(&header_key(&file_key)?, header.as_bytes());
    header.push_str(&format!(" {}\n", text::encode(mac.as_ref())));
    let mut sealed = header.into_bytes();
    sealed.extend_from_slice(&nonce);
    let key = derived(&nonce, file_key.as_slice(), b"payload")?;
    let key = aead(&key)?;
    let last = plain.len().div_ceil(CHUNK_BYTES).max(1) - 1;
    for number in 0..=last {
        let start = number * CHUNK_BYTES;
        let mut chunk = plain.get(start..(start + CHUNK_BYTES).min(plain.len())).unwrap_or_default().to_vec();
        encrypt_with(&key, chunk_nonce(number as u64, number == last), &mut chunk)?;
        sealed.extend_from_slice(&chunk);
    }
    Ok(sealed)
}

/// Opens what was sealed for this identity; recipients of other kinds are passed over.
///
/// # Errors
/// [`AgeError`]
pub fn open(sealed: &[u8], identity: &Identity) -> Result<Vec<u8>, AgeError> {
    let header = text::Header::parse(sealed, HEADER_BYTES_MAX).ok_or(AgeError::NotAnAgeFile)?;
    let private = identity.key()?;
    let own = public(&private)?;
    let file_key = header.shares.iter().find_map(|(share, body)| {
        let wrap = wrap_key(&private, share, share, &own).ok()?;
        let mut body = body.to_vec();
        decrypt(&aead(&wrap).ok()?, [0; NONCE_LEN], &mut body).ok()?;
        <[u8; FILE_KEY_BYTES]>::try_from(body).ok().map(Zeroizing::new)
    });
    let file_key = file_key.ok_or(AgeError::NotForThisKey)?;
    hmac::verify(&header_key(&file_key)?, header.signed, &header.mac).map_err(|_| AgeError::Damaged)?;
    let (nonce, payload) = header.payload.split_at_checked(NONCE_BYTES).ok_or(AgeError::Damaged)?;
    let key = derived(nonce, file_key.as_slice(), b"payload")?;
    let key = aead(&key)?;
    let chunks: Vec<&[u8]> = payload.chunks(CHUNK_BYTES + TAG_BYTES).collect();
    let mut plain = Vec::with_capacity(payload.len());
    for (number, chunk) in chunks.iter().enumerate() {
        let last = number + 1 == chunks.len();
        let mut chunk = chunk.to_vec();
        decrypt(&key, chunk_nonce(number as u64, last), &mut chunk).map_err(|_| AgeError::Damaged)?;
        if chunk.is_empty() && number > 0 {
            return Err(AgeError::Damaged);
        }
        plain.extend_from_slice(&chunk);
    }
    if chunks.is_empty() { Err(AgeError::Damaged) } else { Ok(plain) }
}

fn only_line(text: &str) -> &str {
    text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#')).unwrap_or_default()
}

fn public(key: &PrivateKey) -> Result<[u8; KEY_BYTES], AgeError> {
    let public = key.compute_public_key().map_err(|_| AgeError::Unusable)?;
    public.as_ref().try_into().map_err(|_| AgeError::Unusable)
}

fn wrap_key(private: &PrivateKey, peer: &[u8; KEY_BYTES], share: &[u8], recipient: &[u8]) -> Result<Zeroizing<[u8; KEY_BYTES]>, AgeError> {
    agree(private, UnparsedPublicKey::new(&X25519, peer), AgeError::Unusable, |secret| {
        derived(&[share, recipient].concat(), secret, WRAP_INFO)
    })
}

struct Length;

impl KeyType for Length {
    fn len(&self) -> usize {
        KEY_BYTES
    }
}

fn derived(salt: &[u8], secret: &[u8], info: &[u8]) -> Result<Zeroizing<[u8; KEY_BYTES]>, AgeError> {
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    let extracted = Salt::new(HKDF_SHA256, salt).extract(secret);
    let filled = extracted.expand(&[info], Length).and_then(|made| made.fill(key.as_mut_slice()));
    filled.map_err(|_| AgeError::Unusable)?;
    Ok(key)
}

fn header_key(file_key: &[u8; FILE_KEY_BYTES]) -> Result<hmac::Key, AgeError> {
    derived(&[], file_key, b"header").map(|key| hmac::Key::new(hmac::HMAC_SHA256, key.as_slice()))
}

fn aead(key: &[u8; KEY_BYTES]) -> Result<LessSafeKey, AgeError> {
    UnboundKey::new(&CHACHA20_POLY1305, key).map(LessSafeKey::new).map_err(|_| AgeError::Unusable)
}

fn encrypt(key: &[u8; KEY_BYTES], nonce: [u8; NONCE_LEN], bytes: &mut Vec<u8>) -> Result<(), AgeError> {
    encrypt_with(&aead(key)?, nonce, bytes)
}

fn encrypt_with(key: &LessSafeKey, nonce: [u8; NONCE_LEN], bytes: &mut Vec<u8>) -> Result<(), AgeError> {
    key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), bytes).map_err(|_| AgeError::Unusable)
}

fn decrypt(key: &LessSafeKey, nonce: [u8; NONCE_LEN], bytes: &mut Vec<u8>) -> Result<(), AgeError> {
    let plain = key.open_in_place(Nonce::assume_unique_for_key(nonce), Aad::empty(), bytes).map(|plain| plain.len());
    let length = plain.map_err(|_| AgeError::Damaged)?;
    bytes.truncate(length);
    Ok(())
}

/// Eleven bytes of the piece's number, highest first, and whether it is the last.
fn chunk_nonce(number: u64, last: bool) -> [u8; NONCE_LEN] {
    let [a, b, c, d, e, f, g, h] = number.to_be_bytes();
    [0, 0, 0, a, b, c, d, e, f, g, h, u8::from(last)]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_sealed_opens_for_its_recipient_alone() {
        let identity = Identity::generate().unwrap();
        let recipient = Recipient::parse(&identity.recipient().unwrap().to_string()).unwrap();
        let again = Identity::parse(&format!("# support\n{}\n", *identity.to_text())).unwrap();
        for length in [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES] {
            let plain: Vec<u8> = (0..length).map(|at| at as u8).collect();
            let sealed = seal(&plain, &recipient).unwrap();
            assert_eq!(open(&sealed, &again).unwrap(), plain, "{length} bytes");
            assert_eq!(open(&sealed, &Identity::generate().unwrap()), Err(AgeError::NotForThisKey));
            assert_eq!(open(&sealed[..sealed.len() - 1], &again), Err(AgeError::Damaged), "cut off at {length}");
        }
    }

    /// Pieces cannot be left out, exchanged or changed.
    #[test]
    fn a_changed_file_does_not_open() {
        let identity = Identity::generate().unwrap();
        let sealed = seal(&vec![7; 2 * CHUNK_BYTES + 5], &identity.recipient().unwrap()).unwrap();
        let end = sealed.len() - 5 - TAG_BYTES;
        assert_eq!(open(&sealed[..end], &identity), Err(AgeError::Damaged), "without the last piece");
        let mut changed = sealed.clone();
        *changed.last_mut().unwrap() ^= 1;
        assert_eq!(open(&changed, &identity), Err(AgeError::Damaged));
        let text = String::from_utf8_lossy(&sealed[..40]).into_owned();
        assert!(text.starts_with("age-encryption.org/v1\n-> X25519 "));
    }

    /// Keys of the format's own documentation are read and written the same.
    #[test]
    fn keys_are_written_as_age_writes_them() {
        let recipient = "age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa";
        assert_eq!(Recipient::parse(recipient).unwrap().to_string(), recipient);
        for bad in ["", "age1", "age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pb", "AGE-SECRET-KEY-1"] {
            assert!(Recipient::parse(bad).is_err(), "{bad}");
            assert!(Identity::parse(bad).is_err(), "{bad}");
        }
        let identity = Identity::generate().unwrap();
        assert!(identity.to_text().starts_with("AGE-SECRET-KEY-1"));
        assert_eq!(format!("{identity:?}"), "Identity");
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let identity = Identity::parse("AGE-SECRET-KEY-1QQQSYQCYQ5RQWZQFPG9SCRGWPUGPZYSNZS23V9CCRYDPK8QARC0S8W6FRT").or_else(|_| Identity::generate()).unwrap();
            prop_assert!(open(&bytes, &identity).is_err());
            let mut file = b"age-encryption.org/v1\n-> X25519 ".to_vec();
            file.extend(bytes);
            prop_assert!(open(&file, &identity).is_err());
        }
    }
}
