//! The recovery key: opens the data partition when the TPM no longer does.
//!
//! 256 random bits as 13 groups of five letters and digits (Crockford's base 32: no I, L, O, U). The
//! last one of a group checks the other four and the group's place, so that a slip of the pen is
//! named by its group. The whole text, dashes and all, is the passphrase of the partition: with it any
//! Linux opens the disk (`cryptsetup open`).

use std::fmt;

use aws_lc_rs::rand;
use zeroize::Zeroizing;

const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// Bytes of the key.
pub(super) const KEY_BYTES: usize = 32;
/// Digits of a group that carry the key; one more checks them.
const GROUP_DIGITS: usize = 4;
/// Groups of a key: 52 digits of five bits hold 256 bits and four zeros.
const GROUPS: usize = 13;
/// CRC-5 with the polynomial x^5 + x^2 + 1: finds every wrong digit.
const CHECK_POLYNOMIAL: u32 = 0b10_0101;

/// The key; wiped when dropped and never shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct RecoveryKey(Zeroizing<[u8; KEY_BYTES]>);

/// Why a text holds no recovery key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RecoveryKeyError {
    /// Nothing in it looks like one.
    #[error("no line holds a recovery key: {GROUPS} groups of {} letters and digits with dashes between; copy the whole line", GROUP_DIGITS + 1)]
    None,
    /// A group is mistyped.
    #[error("group {0} of the recovery key is mistyped; compare it with the paper")]
    Group(usize),
    /// No randomness.
    #[error("the system gives no random numbers; restart the appliance")]
    Random,
}

impl RecoveryKey {
    /// A new key.
    pub(crate) fn generate() -> Result<Self, RecoveryKeyError> {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        rand::fill(bytes.as_mut_slice()).map_err(|_| RecoveryKeyError::Random)?;
        Ok(Self(bytes))
    }

    /// The bytes that other keys are derived from.
    pub(super) fn bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }

    /// The text: what is printed, and the passphrase.
    pub(crate) fn text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(GROUPS * (GROUP_DIGITS + 2)));
        for group in 0..GROUPS {
            if group > 0 {
                text.push('-');
            }
            let digits: [u32; GROUP_DIGITS] = std::array::from_fn(|place| self.digit(group * GROUP_DIGITS + place));
            for digit in digits.into_iter().chain([check(group, &digits)]) {
                text.push(letter(digit));
            }
        }
        text
    }

    /// The five bits at a place.
    fn digit(&self, place: usize) -> u32 {
        (0..5).fold(0, |digit, bit| {
            let index = place * 5 + bit;
            let byte = self.0.get(index / 8).copied().unwrap_or(0);
            digit << 1 | u32::from(byte >> (7 - index % 8) & 1)
        })
    }

    /// Reads the first line that holds a key; lines around it are for people.
    ///
    /// # Errors
    /// When there is none, or a group is mistyped.
    pub(crate) fn parse(text: &str) -> Result<Self, RecoveryKeyError> {
        text.lines().find_map(digits_of_line).ok_or(RecoveryKeyError::None).and_then(|digits| Self::from_digits(&digits))
    }

    fn from_digits(digits: &[u32]) -> Result<Self, RecoveryKeyError> {
        let mut bytes = Zeroizing::new([0_u8; KEY_BYTES]);
        for (group, digits) in digits.chunks(GROUP_DIGITS + 1).enumerate() {
            let (content, last) = digits.split_at(GROUP_DIGITS);
            if last != [check(group, content)] {
                return Err(RecoveryKeyError::Group(group + 1));
            }
            for (place, digit) in content.iter().enumerate() {
                for bit in (0..5).filter(|bit| digit >> (4 - bit) & 1 == 1) {
                    let index = (group * GROUP_DIGITS + place) * 5 + bit;
                    // The four bits past the end are zeros in every key that was ever printed.
                    *bytes.get_mut(index / 8).ok_or(RecoveryKeyError::Group(GROUPS))? |= 1 << (7 - index % 8);
                }
            }
        }
        Ok(Self(bytes))
    }
}

impl fmt::Debug for RecoveryKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("RecoveryKey(..)")
    }
}

fn letter(digit: u32) -> char {
    ALPHABET.get(digit as usize).map_or('?', |letter| char::from(*letter))
}

/// The digits of a line that looks like a key; letters that are easily taken for digits count as those.
fn digits_of_line(line: &str) -> Option<Zeroizing<Vec<u32>>> {
    let mut digits = Zeroizing::new(Vec::with_capacity(GROUPS * (GROUP_DIGITS + 1)));
    for character in line.trim().chars().filter(|character| !matches!(character, '-' | ' ')) {
        let plain = match character.to_ascii_uppercase() {
            'O' => '0',
            'I' | 'L' => '1',
            other => other,
        };
        let digit = ALPHABET.iter().position(|letter| char::from(*letter) == plain)?;
        digits.push(u32::try_from(digit).ok()?);
    }
    (digits.len() == GROUPS * (GROUP_DIGITS + 1)).then_some(digits)
}

/// The digit that checks a group at its place.
fn check(group: usize, digits: &[u32]) -> u32 {
    let place = u32::try_from(group).unwrap_or(u32::MAX);
    let message = digits.iter().fold(place, |message, digit| message << 5 | digit);
    let mut remainder = u64::from(message) << 5;
    for bit in (5..34).rev() {
        if remainder >> bit & 1 == 1 {
            remainder ^= u64::from(CHECK_POLYNOMIAL) << (bit - 5);
        }
    }
    u32::try_from(remainder & 31).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is printed opens; what a person makes of it on paper does too.
    #[test]
    fn a_key_is_read_as_it_was_printed() {
        let key = RecoveryKey::generate().unwrap();
        let text = key.text();
        assert_eq!(text.len(), 77, "13 groups of 5 and 12 dashes");
        let sloppy = text.to_lowercase().replace('0', "o").replace('1', "l").replace('-', " ");
        for form in [text.to_string(), sloppy, format!("Vitalgate VG-0001\r\n\r\n  {}\r\nkeep it safe\r\n", text.as_str())] {
            assert_eq!(RecoveryKey::parse(&form), Ok(key.clone()));
        }
    }

    /// Every single wrong letter and every pair of swapped groups is found, by its group.
    #[test]
    fn a_slip_is_named_by_its_group() {
        let key = RecoveryKey::generate().unwrap();
        let text = key.text().to_string();
        for at in (0..text.len()).filter(|at| at % 6 != 5) {
            for other in ALPHABET.iter().map(|letter| char::from(*letter)).filter(|other| !text[at..].starts_with(*other)) {
                let mut wrong = text.clone();
                wrong.replace_range(at..=at, &other.to_string());
                assert_eq!(RecoveryKey::parse(&wrong), Err(RecoveryKeyError::Group(at / 6 + 1)), "{wrong}");
            }
        }
        let mut groups: Vec<&str> = text.split('-').collect();
        groups.swap(3, 4);
        assert!(matches!(RecoveryKey::parse(&groups.join("-")), Err(RecoveryKeyError::Group(_))));
    }

    /// A stick full of anything is no key and no panic.
    #[test]
    fn garbage_is_no_key() {
        for text in ["", "\n\n", "PROVISION", &"A".repeat(1000), "ÄÖÜ", &"0".repeat(64)] {
            assert_eq!(RecoveryKey::parse(text), Err(RecoveryKeyError::None), "{text}");
        }
    }

    /// The key does not reach a log by accident.
    #[test]
    fn the_key_is_not_shown_by_debug() {
        assert_eq!(format!("{:?}", RecoveryKey::generate().unwrap()), "RecoveryKey(..)");
    }
}
