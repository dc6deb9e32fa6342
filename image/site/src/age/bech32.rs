//! Bech32 (BIP 173) of 32 bytes, as age writes its keys.

const ALPHABET: &[u8; 32] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";
/// Length of the checksum in characters.
const CHECKSUM_CHARS: usize = 6;

fn checksum(values: impl Iterator<Item = u8>) -> u32 {
    const GENERATOR: [u32; 5] = [0x3b6a_57b2, 0x2650_8e6d, 0x1ea1_19fa, 0x3d42_33dd, 0x2a14_62b3];
    values.fold(1, |sum: u32, value| {
        let top = sum >> 25;
        let next = (sum & 0x01ff_ffff) << 5 ^ u32::from(value);
        GENERATOR.iter().enumerate().filter(|(bit, _)| top >> bit & 1 == 1).fold(next, |sum, (_, one)| sum ^ one)
    })
}

fn prefix_values(prefix: &str) -> impl Iterator<Item = u8> {
    prefix.bytes().map(|byte| byte >> 5).chain(std::iter::once(0)).chain(prefix.bytes().map(|byte| byte & 31))
}

/// Lower case.
pub(super) fn encode(prefix: &str, bytes: &[u8; 32]) -> String {
    let values = regroup(bytes.iter().copied(), 8, 5);
    let sum = checksum(prefix_values(prefix).chain(values.iter().copied()).chain([0; CHECKSUM_CHARS])) ^ 1;
    let check = (0..CHECKSUM_CHARS).map(|place| (sum >> (5 * (5 - place)) & 31) as u8);
    let letters = values.iter().copied().chain(check).map(|value| ALPHABET.get(usize::from(value)).copied().map_or('q', char::from));
    format!("{prefix}1{}", letters.collect::<String>())
}

/// `None` for what is damaged, has another prefix or another length.
pub(super) fn decode(prefix: &str, text: &str) -> Option<[u8; 32]> {
    let letters = text.strip_prefix(prefix)?.strip_prefix('1')?;
    let values: Vec<u8> = letters
        .bytes()
        .map(|letter| ALPHABET.iter().position(|one| *one == letter))
        .map(|place| place.and_then(|place| u8::try_from(place).ok()))
        .collect::<Option<_>>()?;
    if checksum(prefix_values(prefix).chain(values.iter().copied())) != 1 {
        return None;
    }
    let data = values.get(..values.len().checked_sub(CHECKSUM_CHARS)?)?;
    // 52 letters are 260 bits: 32 bytes and four bits that must be zero.
    let bytes = regroup(data.iter().copied(), 5, 8);
    let (head, rest) = bytes.split_at_checked(32)?;
    if data.len() != 52 || rest.iter().any(|byte| *byte != 0) { None } else { head.try_into().ok() }
}

/// Bits in groups of one size to groups of another; the last is filled up with zeros.
fn regroup(values: impl Iterator<Item = u8>, from: u32, to: u32) -> Vec<u8> {
    let (mut held, mut bits, mut groups) = (0_u32, 0, Vec::new());
    for value in values {
        held = held << from | u32::from(value);
        bits += from;
        while bits >= to {
            bits -= to;
            groups.push((held >> bits & ((1 << to) - 1)) as u8);
            held &= (1 << bits) - 1;
        }
    }
    if bits > 0 {
        groups.push((held << (to - bits) & ((1 << to) - 1)) as u8);
    }
    groups
}
