//! Device passwords: always generated, 160 bits, so that a salted hash is enough to keep them.

use aws_lc_rs::{constant_time, digest, rand};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::secret::Secret;
use crate::{hex, unhex};

/// Bytes of randomness in a password (160 bits).
const PASSWORD_BYTES: usize = 20;
/// Bytes of salt.
const SALT_BYTES: usize = 16;
/// Longest password that is hashed at all, in bytes. MQTT would allow 65,535.
const PASSWORD_TEXT_BYTES_MAX: usize = 256;
/// RFC 4648 section 6, in lower case.
const BASE32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// The system gave no randomness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system's random source does not answer; restart the gateway, and if that does not help, the machine")]
pub struct RandomError;

/// A salted SHA-256 of a generated password.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PasswordHash {
    salt: [u8; SALT_BYTES],
    sum: [u8; 32],
}

/// A new password of 32 characters (a-z, 2-7; 160 bits), and its hash for the registry.
///
/// # Errors
/// When the system gives no randomness.
pub fn generate_password() -> Result<(Secret, PasswordHash), RandomError> {
    let mut random = Zeroizing::new([0; PASSWORD_BYTES]);
    fill(&mut *random)?;
    let password = base32(random.as_slice());
    let mut salt = [0; SALT_BYTES];
    fill(&mut salt)?;
    let hash = PasswordHash { salt, sum: salted(&salt, password.as_bytes()) };
    Ok((Secret::new(password), hash))
}

pub(crate) fn fill(bytes: &mut [u8]) -> Result<(), RandomError> {
    rand::fill(bytes).map_err(|_| RandomError)
}

impl PasswordHash {
    /// Whether the password is the one that was hashed, in time independent of where they differ.
    #[must_use]
    pub fn verify(&self, password: &[u8]) -> bool {
        password.len() <= PASSWORD_TEXT_BYTES_MAX
            && constant_time::verify_slices_are_equal(&salted(&self.salt, password), &self.sum).is_ok()
    }

    /// Tells this password from every other, and gives nothing of it away.
    pub(crate) fn stamp(&self) -> [u8; 32] {
        salted(&self.salt, &self.sum)
    }

    /// A hash that no password has, to take the same time for an unknown device.
    pub(crate) const fn of_nothing() -> Self {
        Self { salt: [0; SALT_BYTES], sum: [0; 32] }
    }
}

impl From<PasswordHash> for String {
    fn from(hash: PasswordHash) -> Self {
        format!("sha256:{}:{}", hex(&hash.salt), hex(&hash.sum))
    }
}

impl TryFrom<String> for PasswordHash {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let read = || {
            let (salt, sum) = text.strip_prefix("sha256:")?.split_once(':')?;
            Some(Self { salt: unhex(salt.as_bytes())?, sum: unhex(sum.as_bytes())? })
        };
        read().ok_or("a password hash reads sha256:<salt>:<sum>")
    }
}

fn salted(salt: &[u8], password: &[u8]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(salt);
    context.update(password);
    let mut sum = [0; 32];
    sum.copy_from_slice(context.finish().as_ref());
    sum
}

fn base32(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 8 / 5 + 1);
    let (mut bits, mut held) = (0_u32, 0_u32);
    for &byte in bytes {
        bits = (bits << 8) | u32::from(byte);
        held += 8;
        while held >= 5 {
            held -= 5;
            text.push(char::from(BASE32[(bits >> held) as usize & 31]));
        }
        bits &= (1 << held) - 1;
    }
    if held > 0 {
        text.push(char::from(BASE32[(bits << (5 - held)) as usize & 31]));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4648 section 10.
    #[test]
    fn base32_follows_the_standards_own_examples() {
        for (plain, encoded) in [("", ""), ("f", "my"), ("fo", "mzxq"), ("foobar", "mzxw6ytboi")] {
            assert_eq!(base32(plain.as_bytes()), encoded);
        }
    }

    #[test]
    fn only_the_password_itself_verifies_and_it_is_shown_nowhere() {
        let (password, hash) = generate_password().unwrap();
        let text = password.expose();
        assert_eq!(text.len(), 32, "160 bits");
        assert!(hash.verify(text.as_bytes()));
        for wrong in ["", &text[1..], &format!("{text}a"), &text.to_uppercase(), &"a".repeat(100_000)] {
            assert!(!hash.verify(wrong.as_bytes()), "{wrong} was taken");
        }
        assert!(!format!("{password:?}{hash:?}").contains(text));
        let stored = String::from(hash.clone());
        assert!(!stored.contains(text));
        assert_eq!(PasswordHash::try_from(stored), Ok(hash));
        assert_ne!(generate_password().unwrap().0.expose(), text, "every password is new");
    }

    #[test]
    fn the_hash_of_nothing_takes_no_password() {
        for guess in [&b""[..], b"\0", b"password"] {
            assert!(!PasswordHash::of_nothing().verify(guess));
        }
    }
}
