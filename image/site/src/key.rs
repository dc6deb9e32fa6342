//! Keys: who may sign. All of them are Ed25519, but for one: an appliance whose TPM makes the key of its reports has one on
//! P-256, since hardly any TPM knows Ed25519. Such a key signs reports and nothing else.

use std::fmt;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer};
use zeroize::Zeroizing;

/// Length of a key and of a seed in bytes (RFC 8032, 5.1.5).
pub(crate) const KEY_BYTES: usize = 32;
/// Length of a key on P-256 in bytes: the point in its short form (SEC 1, 2.3.3).
const POINT_BYTES: usize = 33;
/// Length of a signature in bytes: of Ed25519 (RFC 8032, 5.1.6), and `r` and `s` of ECDSA on P-256 one after the other.
pub(crate) const SIGNATURE_BYTES: usize = 64;
/// Everything before the key in a DER `SubjectPublicKeyInfo` of Ed25519 (RFC 8410, section 4).
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// Hex digits of a fingerprint that a person compares.
const FINGERPRINT_DIGITS: usize = 16;

/// Why a key cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Neither hex nor PEM.
    #[error("is no Ed25519 key; give 64 hex digits, or PEM as openssl genpkey -algorithm ed25519 writes it")]
    NotAKey,
    /// A key that an appliance's TPM made.
    #[error("is a P-256 key, which signs an appliance's reports only; give an Ed25519 key")]
    ReportsOnly,
    /// A private key where a public one belongs.
    #[error("holds a private key where the public one belongs; keep it secret and name the public key")]
    PrivateKeyGiven,
    /// The system gave no randomness.
    #[error("could not be made; the system gives no random numbers")]
    NoRandomness,
}

/// Who signed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(Kind);

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Kind {
    Ed25519([u8; KEY_BYTES]),
    P256([u8; POINT_BYTES]),
}

impl PublicKey {
    /// Reads the key of a person or of a maker: 64 hex digits, or PEM (`PUBLIC KEY`).
    ///
    /// # Errors
    /// [`KeyError`]
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        if text.contains("PRIVATE KEY") {
            return Err(KeyError::PrivateKeyGiven);
        }
        if let Some(bytes) = from_hex(text.trim()) {
            return Ok(Self(Kind::Ed25519(bytes)));
        }
        if from_hex::<POINT_BYTES>(text.trim()).is_some() {
            return Err(KeyError::ReportsOnly);
        }
        let der = SubjectPublicKeyInfoDer::from_pem_slice(text.as_bytes()).map_err(|_| KeyError::NotAKey)?;
        let key = der.as_ref().strip_prefix(&SPKI_PREFIX).and_then(|key| key.try_into().ok());
        key.map(|key| Self(Kind::Ed25519(key))).ok_or(KeyError::NotAKey)
    }

    /// Reads the key of an appliance: as [`PublicKey::parse`], or 66 hex digits of a key on P-256.
    ///
    /// # Errors
    /// [`KeyError`]
    pub fn parse_of_report(text: &str) -> Result<Self, KeyError> {
        from_hex(text.trim()).map_or_else(|| Self::parse(text), Self::on_p256)
    }

    /// A key on P-256, by its point in the short form.
    ///
    /// # Errors
    /// [`KeyError::NotAKey`] in another form.
    pub fn on_p256(point: [u8; POINT_BYTES]) -> Result<Self, KeyError> {
        if matches!(point, [2 | 3, ..]) { Ok(Self(Kind::P256(point))) } else { Err(KeyError::NotAKey) }
    }

    /// Whether it signs an appliance's reports and nothing else.
    pub const fn signs_reports_only(&self) -> bool {
        matches!(self.0, Kind::P256(_))
    }

    fn bytes(&self) -> &[u8] {
        match &self.0 {
            Kind::Ed25519(key) => key,
            Kind::P256(point) => point,
        }
    }

    /// 64 hex digits, of a key on P-256 66.
    pub fn to_hex(&self) -> String {
        to_hex(self.bytes())
    }

    /// What a person compares: 16 hex digits of the SHA-256 of the key, in groups of four.
    pub fn fingerprint(&self) -> String {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, self.bytes());
        let hex = to_hex(digest.as_ref());
        let digits: Vec<char> = hex.chars().take(FINGERPRINT_DIGITS).collect();
        digits.chunks(4).map(|group| group.iter().collect::<String>()).collect::<Vec<_>>().join("-")
    }

    /// Whether `signature` is this key's over `message`.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.0 {
            Kind::Ed25519(key) => UnparsedPublicKey::new(&ED25519, key).verify(message, signature).is_ok(),
            Kind::P256(point) => UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature).is_ok(),
        }
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "PublicKey({})", self.fingerprint())
    }
}

/// Who may sign. Never printed.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    public: PublicKey,
}

impl SigningKey {
    /// A new key.
    ///
    /// # Errors
    /// [`KeyError::NoRandomness`]
    pub fn generate() -> Result<Self, KeyError> {
        Self::from_pair(Ed25519KeyPair::generate().map_err(|_| KeyError::NoRandomness)?)
    }

    /// Reads PEM (PKCS#8), or 64 hex digits of the seed.
    ///
    /// # Errors
    /// [`KeyError::NotAKey`]
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let pair = match from_hex::<KEY_BYTES>(text.trim()).map(Zeroizing::new) {
            Some(seed) => Ed25519KeyPair::from_seed_unchecked(seed.as_slice()),
            None => {
                let der = PrivatePkcs8KeyDer::from_pem_slice(text.as_bytes()).map_err(|_| KeyError::NotAKey)?;
                Ed25519KeyPair::from_pkcs8_maybe_unchecked(der.secret_pkcs8_der())
            }
        };
        Self::from_pair(pair.map_err(|_| KeyError::NotAKey)?)
    }

    fn from_pair(pair: Ed25519KeyPair) -> Result<Self, KeyError> {
        let public = pair.public_key().as_ref().try_into().map_err(|_| KeyError::NotAKey)?;
        Ok(Self { pair, public: PublicKey(Kind::Ed25519(public)) })
    }

    /// PEM (PKCS#8 version 1), for a file with mode 0600.
    ///
    /// # Errors
    /// [`KeyError::NotAKey`] when the library does not give the seed out.
    pub fn to_pem(&self) -> Result<Zeroizing<String>, KeyError> {
        let der = self.pair.to_pkcs8v1().map_err(|_| KeyError::NotAKey)?;
        let body = base64(der.as_ref());
        Ok(Zeroizing::new(format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", body.as_str())))
    }

    /// Its public half.
    pub fn public(&self) -> PublicKey {
        self.public
    }

    /// A plain signature over bytes, as over `SHA256SUMS`; texts are signed by [`crate::sign`] and its kin.
    pub fn sign_bytes(&self, message: &[u8]) -> [u8; SIGNATURE_BYTES] {
        let mut signature = [0; SIGNATURE_BYTES];
        let made = self.pair.sign(message);
        // Ed25519 signatures have this length, always.
        for (to, from) in signature.iter_mut().zip(made.as_ref()) {
            *to = *from;
        }
        signature
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SigningKey(of {:?})", self.public)
    }
}

pub(crate) fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

/// RFC 4648, section 4.
fn base64(bytes: &[u8]) -> Zeroizing<String> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = Zeroizing::new(String::with_capacity(bytes.len().div_ceil(3) * 4));
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().enumerate().fold(0_u32, |group, (place, byte)| group | u32::from(*byte) << (16 - 8 * place));
        for place in 0..4 {
            let letter = ALPHABET.get((group >> (18 - 6 * place) & 63) as usize).copied().unwrap_or(b'A');
            text.push(if place <= chunk.len() { char::from(letter) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8032, 7.1, test 1: our hex reading makes the standard's key and signature.
    #[test]
    fn the_standards_first_example_comes_out() {
        let key = SigningKey::parse("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60").unwrap();
        assert_eq!(key.public().to_hex(), "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
        assert!(to_hex(&key.sign_bytes(b"")).starts_with("e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"));
    }

    /// What `openssl genpkey -algorithm ed25519` and `openssl pkey -pubout` write is read.
    #[test]
    fn keys_of_openssl_are_read() {
        let key =
            "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n-----END PRIVATE KEY-----\n";
        let public = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n-----END PUBLIC KEY-----\n";
        let key = SigningKey::parse(key).unwrap();
        assert_eq!(PublicKey::parse(public), Ok(key.public()));
        assert_eq!(SigningKey::parse(&key.to_pem().unwrap()).unwrap().public(), key.public());
    }

    #[test]
    fn a_new_key_survives_its_file() {
        let key = SigningKey::generate().unwrap();
        assert_eq!(SigningKey::parse(&key.to_pem().unwrap()).unwrap().public(), key.public());
        assert_eq!(PublicKey::parse(&key.public().to_hex()), Ok(key.public()));
        assert_eq!(key.public().fingerprint().len(), 19);
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for bad in ["", "zz", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "d75a"] {
            assert_eq!(PublicKey::parse(bad), Err(KeyError::NotAKey), "{bad}");
            assert!(SigningKey::parse(bad).is_err(), "{bad}");
        }
        let private = SigningKey::generate().unwrap().to_pem().unwrap();
        assert_eq!(PublicKey::parse(&private), Err(KeyError::PrivateKeyGiven));
    }

    /// A key in a log would be a key lost.
    #[test]
    fn a_signing_key_is_never_printed() {
        let seed = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
        assert!(!format!("{:?}", SigningKey::parse(seed).unwrap()).contains("9d61"));
    }
}
