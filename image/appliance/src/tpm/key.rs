//! A key that the TPM makes and that cannot leave it: ECDSA on P-256.
//!
//! The TPM keeps nothing of it. Each time it is needed, it is made anew out of the seed that the TPM keeps for its owner and all
//! bytes of a template (`TPM2_CreatePrimary`, part 3, section 24.1; "All of the bits of the template are used in the creation of
//! the Primary Key"). The same bytes make the same key, on this TPM until it is cleared, and on no other one. 32 of them are
//! random and known to the appliance alone: once they are forgotten, nobody gets that key again.

use aws_lc_rs::digest::{SHA256, digest};
use vitalgate_site::PublicKey;

use super::{Device, PLAIN, Parts, TpmError, ask, ask_as, open};
use crate::places::Places;

/// Random bytes that single a key out.
pub(crate) const UNIQUE_BYTES: usize = 32;
/// Bytes of a coordinate, and of half a signature.
const HALF_BYTES: usize = 32;
/// `TPM_CC_CreatePrimary` (part 2, section 6.5.2).
const CREATE_PRIMARY: u32 = 0x0000_0131;
/// `TPM_CC_Sign`.
const SIGN: u32 = 0x0000_015D;
/// `TPM_CC_FlushContext`.
const FLUSH: u32 = 0x0000_0165;
/// `TPM_RH_OWNER`: whose seed the key comes from.
const OWNER: u32 = 0x4000_0001;
/// `TPM_ALG_ECDSA` and `TPM_ALG_SHA256`.
const ECDSA_SHA256: [u8; 4] = [0, 0x18, 0, 0x0B];
/// The template up to its random bytes (`TPMT_PUBLIC`): ECC, named by SHA-256; `fixedTPM`, `fixedParent`, `sensitiveDataOrigin`,
/// `userWithAuth`, `noDA` and `sign`; no policy; no symmetric cipher, ECDSA with SHA-256, NIST P-256, no key derivation.
const TEMPLATE: [u8; 22] =
    [0, 0x23, 0, 0x0B, 0, 0x04, 0x04, 0x72, 0, 0, 0, 0x10, 0, 0x18, 0, 0x0B, 0, 0x03, 0, 0x10, 0, UNIQUE_BYTES as u8];
/// What `TPM2_Sign` is told besides the digest: the key's own scheme (`TPM_ALG_NULL`), and that the TPM did not make the digest
/// itself (`TPM_ST_HASHCHECK`, `TPM_RH_NULL`, no ticket).
const OWN_SCHEME_NO_TICKET: [u8; 10] = [0, 0x10, 0x80, 0x24, 0x40, 0, 0, 0x07, 0, 0];

/// Who the key of these random bytes is; `None`: the machine has no TPM.
///
/// # Errors
/// When the TPM does not answer, or refuses.
pub(crate) fn public(places: &Places, unique: &[u8; UNIQUE_BYTES]) -> Result<Option<PublicKey>, TpmError> {
    open(places)?.map(|mut device| with_key(&mut *device, unique, |_, _, key| Ok(key))).transpose()
}

/// The signature of the key of these random bytes over a message.
///
/// # Errors
/// When the TPM does not answer, or refuses.
pub(crate) fn sign(places: &Places, unique: &[u8; UNIQUE_BYTES], message: &[u8]) -> Result<Vec<u8>, TpmError> {
    let mut device = open(places)?.ok_or_else(|| std::io::Error::from(std::io::ErrorKind::NotFound))?;
    with_key(&mut *device, unique, |device, handle, _| {
        signature(&ask_as(device, handle, SIGN, &signing(digest(&SHA256, message).as_ref()))?).ok_or(TpmError::Answer)
    })
}

/// Makes the key for as long as it is used.
fn with_key<T>(
    device: &mut dyn Device,
    unique: &[u8; UNIQUE_BYTES],
    used: impl FnOnce(&mut dyn Device, u32, PublicKey) -> Result<T, TpmError>,
) -> Result<T, TpmError> {
    let answer = ask_as(device, OWNER, CREATE_PRIMARY, &making(unique))?;
    let mut parts = Parts(&answer);
    let handle = parts.number().ok_or(TpmError::Answer)?;
    let result = made(parts).ok_or(TpmError::Answer).and_then(|key| used(device, handle, key));
    // However it ended: a TPM has room for three.
    let flushed = ask(device, PLAIN, FLUSH, &handle.to_be_bytes());
    result.and_then(|result| flushed.map(|_| result))
}

/// What `TPM2_CreatePrimary` is told: no password and no data of ours, the template, nothing to be certified, no registers.
fn making(unique: &[u8; UNIQUE_BYTES]) -> Vec<u8> {
    // The other coordinate has its length too: some TPMs take no other.
    const OTHER: [u8; 2 + HALF_BYTES] = {
        let mut other = [0; 2 + HALF_BYTES];
        other[1] = HALF_BYTES as u8;
        other
    };
    const TEMPLATE_BYTES: u16 = (TEMPLATE.len() + UNIQUE_BYTES + OTHER.len()) as u16;
    [&[0, 4, 0, 0, 0, 0], TEMPLATE_BYTES.to_be_bytes().as_slice(), &TEMPLATE, unique, &OTHER, &[0; 6]].concat()
}

fn signing(digest: &[u8]) -> Vec<u8> {
    [&[0, HALF_BYTES as u8], digest, &OWN_SCHEME_NO_TICKET].concat()
}

/// The key that an answer to [`CREATE_PRIMARY`] describes, if it is as the template wants it.
fn made(mut parts: Parts<'_>) -> Option<PublicKey> {
    let _parameter_bytes = parts.number()?;
    let public = parts.sized()?;
    let (kind, _length) = TEMPLATE.split_at_checked(TEMPLATE.len() - 2)?;
    let mut point = Parts(public.strip_prefix(kind)?);
    let (x, y): ([u8; HALF_BYTES], [u8; HALF_BYTES]) = (half(point.sized()?)?, half(point.sized()?)?);
    let [.., last] = y;
    let mut short = [2 + (last & 1); 1 + HALF_BYTES];
    short.last_chunk_mut().map(|place| *place = x)?;
    PublicKey::on_p256(short).ok()
}

/// `r` and `s` of an answer to [`SIGN`].
fn signature(answer: &[u8]) -> Option<Vec<u8>> {
    let mut parts = Parts(answer);
    let _parameter_bytes = parts.number()?;
    (parts.array()? == ECDSA_SHA256).then_some(())?;
    Some([half(parts.sized()?)?, half(parts.sized()?)?].concat())
}

/// A number with its leading zeros, which a TPM may leave out.
fn half(number: &[u8]) -> Option<[u8; HALF_BYTES]> {
    let mut whole = [0; HALF_BYTES];
    let skip = HALF_BYTES.checked_sub(number.len())?;
    whole.get_mut(skip..)?.copy_from_slice(number);
    Some(whole)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::text::hex;
    use crate::tpm::software::SoftwareTpm;
    use crate::tpm::{DEVICE, EMPTY_PASSWORD, WITH_SESSION, command};

    const ONE: [u8; UNIQUE_BYTES] = [0x11; UNIQUE_BYTES];

    /// One wrong bit of a template would be another key for every appliance in service: what is sent stays as it is.
    #[test]
    fn the_commands_are_always_the_same() {
        let with = |handle: u32, rest: &[u8]| [&handle.to_be_bytes(), EMPTY_PASSWORD.as_slice(), rest].concat();
        let making = command(WITH_SESSION, CREATE_PRIMARY, &with(OWNER, &making(&ONE))).unwrap();
        let wanted = format!(
            "800200000081000001314000000100000009400000090000000000{}{}{}{}{}",
            "000400000000",
            "00580023000b00040472000000100018000b00030010",
            format_args!("0020{}", "11".repeat(32)),
            format_args!("0020{}", "00".repeat(32)),
            "000000000000"
        );
        assert_eq!(hex(&making), wanted);
        let signing = command(WITH_SESSION, SIGN, &with(0x8000_0000, &signing(&[0x22; 32]))).unwrap();
        let wanted = format!(
            "8002000000470000015d8000000000000009400000090000000000{}{}",
            "0020".to_owned() + &"22".repeat(32),
            "00108024400000070000"
        );
        assert_eq!(hex(&signing), wanted);
        assert_eq!(hex(&command(PLAIN, FLUSH, &0x8000_0001_u32.to_be_bytes()).unwrap()), "80010000000e0000016580000001");
    }

    /// The key comes back with the next start, other random bytes make another one, and nothing of it stays in the TPM.
    #[test]
    fn a_key_comes_back_with_its_bytes_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (tpm, places) = SoftwareTpm::in_place(folder.path());
        let key = public(&places, &ONE).unwrap().unwrap();
        let mut other = ONE;
        other[31] ^= 1;
        assert_ne!(public(&places, &other).unwrap().unwrap(), key);
        // More often than a TPM has room for.
        for message in ["one", "two", "three", "four", "five"] {
            assert!(key.verifies(message.as_bytes(), &sign(&places, &ONE, message.as_bytes()).unwrap()), "{message}");
        }
        assert!(!key.verifies(b"six", &sign(&places, &ONE, b"seven").unwrap()));
        assert_eq!(tpm.loaded(), "", "handles are left in the TPM");
        drop(tpm);

        let (tpm, places) = SoftwareTpm::in_place(folder.path());
        assert_eq!(public(&places, &ONE).unwrap().unwrap(), key);
        tpm.run("tpm2_clear", &["-c", "p"]);
        assert_ne!(public(&places, &ONE).unwrap().unwrap(), key, "a cleared TPM has another seed");
        let late = sign(&places, &ONE, b"message").unwrap();
        assert!(!key.verifies(b"message", &late));
    }

    /// A TPM that somebody else owns refuses, and keeps nothing of what was asked.
    #[test]
    fn a_tpm_with_another_owner_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let (tpm, places) = SoftwareTpm::in_place(folder.path());
        tpm.run("tpm2_changeauth", &["-c", "owner", "another"]);
        assert!(matches!(public(&places, &ONE), Err(TpmError::Refused(_))));
        assert!(matches!(sign(&places, &ONE, b"message"), Err(TpmError::Refused(_))));
        fs::remove_file(places.at(DEVICE)).unwrap();
        assert!(public(&places, &ONE).unwrap().is_none(), "a machine without a TPM has no such key");
        assert!(sign(&places, &ONE, b"message").unwrap_err().to_string().contains("does not answer"));
    }

    /// An answer of another kind, cut anywhere, or with numbers that are too long: no key, no signature, no panic.
    #[test]
    fn garbled_answers_are_no_keys_and_no_signatures() {
        let (x, y) = ([vec![0, 31], vec![5; 31]].concat(), [vec![0, 32], vec![7; 32]].concat());
        let area = [&TEMPLATE[..20], &x, &y].concat();
        let key = [&[0; 4], (area.len() as u16).to_be_bytes().as_slice(), &area].concat();
        let short = made(Parts(&key)).unwrap().to_hex();
        assert_eq!(short, format!("0300{}", "05".repeat(31)), "a zero in front that the TPM left out");
        let signed = [[0; 4], ECDSA_SHA256].concat().into_iter().chain(x.clone()).chain(y.clone()).collect::<Vec<u8>>();
        assert_eq!(signature(&signed).unwrap().len(), 64);
        for cut in 0..key.len() {
            assert!(made(Parts(&key[..cut])).is_none());
        }
        for cut in 0..signed.len() {
            assert!(signature(&signed[..cut]).is_none());
        }
        for at in 6..26 {
            let mut other = key.clone();
            other[at] ^= 1;
            assert!(made(Parts(&other)).is_none(), "a key of another kind: byte {at}");
        }
        let long = [[0; 4].as_slice(), &ECDSA_SHA256, &[0, 33], &[1; 33], &y].concat();
        assert!(signature(&long).is_none());
    }
}
