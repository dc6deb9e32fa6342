//! The TPM, asked by raw commands (Trusted Platform Module Library 2.0, parts 2 and 3): what no program of the image asks it for.
//!
//! The kernel's resource manager stands in between: it takes a command in one write and gives its answer in one read, keeps
//! what one step has loaded apart from what another has, and ends a command that takes too long (two minutes, for the making of
//! a key five), so that no deadline of ours is needed.

pub(crate) mod key;
#[cfg(test)]
pub(crate) mod software;

use std::io::{self, Read, Write};
use std::path::Path;

use crate::places::Places;

/// The TPM behind the kernel's resource manager.
pub(crate) const DEVICE: &str = "/dev/tpmrm0";
/// `TPM_ST_NO_SESSIONS` (part 2, section 6.9).
const PLAIN: u16 = 0x8001;
/// `TPM_ST_SESSIONS`.
const WITH_SESSION: u16 = 0x8002;
/// One session of nine bytes: `TPM_RS_PW` with an empty password.
const EMPTY_PASSWORD: [u8; 13] = [0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0];
/// Tag, size and code, of a command and of an answer, in bytes.
const HEADER_BYTES: usize = 10;
/// Largest answer, in bytes; no TPM gives a larger one.
const ANSWER_BYTES_MAX: usize = 4096;

/// Why the TPM did not do it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TpmError {
    /// The device does not answer.
    #[error("the TPM does not answer ({0}); switch the appliance off and on again")]
    Device(#[from] io::Error),
    /// It answered something else.
    #[error("the TPM's answer cannot be understood; switch the appliance off and on again")]
    Answer,
    /// It refused.
    #[error("the TPM refuses (it answers {0:#x}); switch the appliance off and on again")]
    Refused(u32),
}

/// What commands are written to and answers are read from.
pub(crate) trait Device: Read + Write {}
impl<D: Read + Write> Device for D {}

/// The machine's TPM; `None`: it has none.
///
/// # Errors
/// When it cannot be opened.
pub(crate) fn open(places: &Places) -> Result<Option<Box<dyn Device>>, TpmError> {
    match open_device(&places.at(DEVICE)) {
        Ok(device) => Ok(Some(device)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(not(test))]
fn open_device(path: &Path) -> io::Result<Box<dyn Device>> {
    Ok(Box::new(std::fs::File::options().read(true).write(true).open(path)?))
}

/// The TPM in software listens on a socket.
#[cfg(test)]
fn open_device(path: &Path) -> io::Result<Box<dyn Device>> {
    Ok(Box::new(std::os::unix::net::UnixStream::connect(path)?))
}

/// Asks for something that an empty password allows, and gives the answer without its header.
///
/// # Errors
/// When the TPM does not answer, or refuses.
pub(crate) fn ask_as(device: &mut dyn Device, handle: u32, code: u32, parameters: &[u8]) -> Result<Vec<u8>, TpmError> {
    ask(device, WITH_SESSION, code, &[handle.to_be_bytes().as_slice(), &EMPTY_PASSWORD, parameters].concat())
}

fn ask(device: &mut dyn Device, tag: u16, code: u32, rest: &[u8]) -> Result<Vec<u8>, TpmError> {
    device.write_all(&command(tag, code, rest)?)?;
    let mut answer = [0; ANSWER_BYTES_MAX];
    let length = device.read(&mut answer)?;
    understood(answer.get(..length).unwrap_or_default(), tag)
}

fn command(tag: u16, code: u32, rest: &[u8]) -> Result<Vec<u8>, TpmError> {
    let bytes = u32::try_from(HEADER_BYTES + rest.len()).map_err(|_| TpmError::Answer)?;
    Ok([&tag.to_be_bytes(), bytes.to_be_bytes().as_slice(), &code.to_be_bytes(), rest].concat())
}

/// What an answer says after its header, if it is whole and no refusal.
fn understood(answer: &[u8], tag: u16) -> Result<Vec<u8>, TpmError> {
    let mut parts = Parts(answer);
    let header = |parts: &mut Parts<'_>| Some((parts.array().map(u16::from_be_bytes)?, parts.number()?, parts.number()?));
    let (answer_tag, bytes, code) = header(&mut parts).ok_or(TpmError::Answer)?;
    if usize::try_from(bytes) != Ok(answer.len()) {
        return Err(TpmError::Answer);
    }
    match code {
        0 if answer_tag == tag => Ok(parts.0.to_vec()),
        0 => Err(TpmError::Answer),
        refusal => Err(TpmError::Refused(refusal)),
    }
}

/// The rest of an answer, taken apart from its beginning.
struct Parts<'a>(&'a [u8]);

impl<'a> Parts<'a> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*first)
    }

    fn number(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    /// Bytes that their length stands before (`TPM2B`).
    fn sized(&mut self) -> Option<&'a [u8]> {
        let length = self.array().map(u16::from_be_bytes)?;
        let (bytes, rest) = self.0.split_at_checked(usize::from(length))?;
        self.0 = rest;
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    /// What a TPM with this answer is taken to say.
    pub(super) fn told(answer: &[u8]) -> Result<Vec<u8>, TpmError> {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(answer).unwrap();
        theirs.shutdown(std::net::Shutdown::Write).unwrap();
        ask(&mut ours, WITH_SESSION, 0x139, &[])
    }

    /// Cut short, too long, of another kind or not there at all: never taken for a success. A refusal is told with its number.
    #[test]
    fn only_a_whole_answer_is_one() {
        assert_eq!(told(&[0x80, 2, 0, 0, 0, 12, 0, 0, 0, 0, 7, 8]).unwrap(), [7, 8]);
        let broken: [&[u8]; 6] = [
            &[],
            &[0x80, 2, 0, 0, 0, 19, 0, 0, 0],
            &[0x80, 2, 0, 0, 0, 19, 0, 0, 0, 0],
            &[0x80, 2, 0, 0, 0, 10, 0, 0, 0, 0, 1],
            &[0x80, 1, 0, 0, 0, 10, 0, 0, 0, 0],
            &[0xff; ANSWER_BYTES_MAX + 1],
        ];
        for answer in broken {
            assert!(matches!(told(answer), Err(TpmError::Answer)), "{answer:?}");
        }
        let refusal = told(&[0x80, 1, 0, 0, 0, 10, 0, 0, 0x09, 0xa2]).unwrap_err();
        assert!(refusal.to_string().contains("0x9a2") && refusal.to_string().contains("off and on"), "{refusal}");
    }
}
