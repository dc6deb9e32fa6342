//! The header of an age file, and base64 without padding (RFC 4648, section 4).

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Without padding.
pub(super) fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().enumerate().fold(0_u32, |group, (place, byte)| group | u32::from(*byte) << (16 - 8 * place));
        for place in 0..=chunk.len() {
            text.push(ALPHABET.get((group >> (18 - 6 * place) & 63) as usize).copied().map_or('A', char::from));
        }
    }
    text
}

/// Exactly one spelling is taken, as the format demands.
pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    for chunk in text.as_bytes().chunks(4) {
        let mut group = 0;
        for (place, letter) in chunk.iter().enumerate() {
            group |= u32::try_from(ALPHABET.iter().position(|one| one == letter)?).ok()? << (18 - 6 * place);
        }
        let [_, high, middle, low] = group.to_be_bytes();
        bytes.extend([high, middle, low].into_iter().take(chunk.len().checked_sub(1)?));
    }
    (encode(&bytes) == text).then_some(bytes)
}

/// What stands before the payload.
pub(super) struct Header<'a> {
    /// X25519 recipients: share and wrapped key.
    pub(super) shares: Vec<([u8; 32], [u8; 32])>,
    /// What the code at its end is over.
    pub(super) signed: &'a [u8],
    pub(super) mac: Vec<u8>,
    pub(super) payload: &'a [u8],
}

impl<'a> Header<'a> {
    pub(super) fn parse(file: &'a [u8], bytes_max: usize) -> Option<Self> {
        let head = file.get(..file.len().min(bytes_max))?;
        let mut at = 0;
        let mut next = || {
            let rest = head.get(at..)?;
            let length = rest.iter().position(|byte| *byte == b'\n')?;
            at += length + 1;
            Some((std::str::from_utf8(rest.get(..length)?).ok()?, at))
        };
        if next()?.0 != super::VERSION {
            return None;
        }
        let mut shares = Vec::new();
        let (mut line, mut end) = next()?;
        while let Some(stanza) = line.strip_prefix("-> ") {
            let mut body = String::new();
            loop {
                (line, _) = next()?;
                body.push_str(line);
                // A line shorter than 64 ends the body.
                if line.len() < 64 {
                    break;
                }
            }
            if let Some(share) = stanza.strip_prefix("X25519 ") {
                shares.push((decode(share)?.try_into().ok()?, decode(&body)?.try_into().ok()?));
            }
            (line, end) = next()?;
        }
        let mac = decode(line.strip_prefix("--- ")?)?;
        let signed = file.get(..end.checked_sub(line.len() + 1)? + "---".len())?;
        Some(Self { shares, signed, mac, payload: file.get(end..)? })
    }
}
