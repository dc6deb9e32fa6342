//! JSON straight into a byte buffer. The hot path knows its own shape: no tree, no reflection, no binary float.

use std::io::Write as _;

use rust_decimal::Decimal;
use uuid::Uuid;

/// Appends JSON text that is already complete.
pub(crate) fn raw(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
}

/// Appends a JSON string with its quotes. Control characters that FHIR's `string` forbids become spaces.
pub(crate) fn string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut plain_from = 0;
    for (index, &byte) in bytes.iter().enumerate() {
        let escaped: &[u8] = match byte {
            b'"' => b"\\\"",
            b'\\' => b"\\\\",
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            b'\t' => b"\\t",
            0..=0x1f | 0x7f => b" ",
            _ => continue,
        };
        out.extend_from_slice(bytes.get(plain_from..index).unwrap_or_default());
        out.extend_from_slice(escaped);
        plain_from = index + 1;
    }
    out.extend_from_slice(bytes.get(plain_from..).unwrap_or_default());
    out.push(b'"');
}

/// Appends a UUID without quotes.
pub(crate) fn uuid(out: &mut Vec<u8>, id: &[u8; 16]) {
    let mut buffer = [0_u8; uuid::fmt::Hyphenated::LENGTH];
    out.extend_from_slice(Uuid::from_bytes(*id).hyphenated().encode_lower(&mut buffer).as_bytes());
}

/// Appends the number with the digits it has: `37.0` stays `37.0` (FHIR R4 datatypes, decimal).
pub(crate) fn decimal(out: &mut Vec<u8>, value: Decimal) {
    // Writing to a Vec cannot fail.
    let _ = write!(out, "{value}");
}

/// A comma from the second element on.
pub(crate) struct Commas(bool);

impl Commas {
    /// Before the first element.
    pub(crate) fn new() -> Self {
        Self(false)
    }

    /// Whether there was an element.
    pub(crate) fn begun(&self) -> bool {
        self.0
    }

    /// Before every element.
    pub(crate) fn next(&mut self, out: &mut Vec<u8>) {
        if self.0 {
            out.push(b',');
        }
        self.0 = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Any text becomes a JSON string that reads back as itself, but for control characters.
        #[test]
        fn a_text_survives_its_json(text in any::<String>()) {
            let mut out = Vec::new();
            string(&mut out, &text);
            let expected: String = text.chars().map(|c| if c.is_ascii_control() && !matches!(c, '\n' | '\r' | '\t') { ' ' } else { c }).collect();
            prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), expected);
        }
    }
}
