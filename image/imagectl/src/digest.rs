//! SHA-256.

use aws_lc_rs::digest::{Context, SHA256};

/// Length in bytes.
pub(crate) const BYTES: usize = 32;

/// A hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Digest(pub(crate) [u8; BYTES]);

impl Digest {
    /// Reads 64 hex digits.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; BYTES];
        if text.len() != 2 * BYTES || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Self(bytes))
    }

    /// 64 hex digits.
    pub(crate) fn hex(&self) -> String {
        hex(&self.0)
    }

    /// What stands in the line of proof.
    pub(crate) fn short(&self) -> String {
        self.hex().chars().take(8).collect()
    }

    pub(crate) fn of(bytes: &[u8]) -> Self {
        let mut running = Running::new();
        running.update(bytes);
        running.finish()
    }
}

/// A hash that is being made.
pub(crate) struct Running(Context);

impl Running {
    pub(crate) fn new() -> Self {
        Self(Context::new(&SHA256))
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(crate) fn finish(self) -> Digest {
        let mut bytes = [0; BYTES];
        // SHA-256 has this length, always.
        for (to, from) in bytes.iter_mut().zip(self.0.finish().as_ref()) {
            *to = *from;
        }
        Digest(bytes)
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A signature's 64 bytes as they are, or their hex digits.
pub(crate) fn bytes_or_hex(file: &[u8]) -> Vec<u8> {
    let is_hex = |text: &&str| text.len() == 128 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    match std::str::from_utf8(file).ok().map(str::trim).filter(is_hex) {
        Some(text) => text.as_bytes().chunks(2).filter_map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect(),
        None => file.to_vec(),
    }
}
