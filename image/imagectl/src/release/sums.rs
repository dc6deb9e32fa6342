//! `SHA256SUMS`, with lines `# key: value` at its start, and its signature.
//!
//! The signature is Ed25519 over the file's bytes, 64 bytes or 128 hex digits in `SHA256SUMS.sig`, so
//! that `openssl pkeyutl -verify -rawin` checks it as well.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use vitalgate_layout::Version;
use vitalgate_site::{Day, PublicKey};

use super::FILE_BYTES_MAX;
use crate::digest::{Digest, Running, bytes_or_hex};
use crate::failure::{Failure, Outcome};
use crate::files::{self, TEXT_BYTES_MAX};

/// Name of the list.
pub(crate) const LIST: &str = "SHA256SUMS";
/// Name of its signature.
pub(crate) const SIGNATURE: &str = "SHA256SUMS.sig";

/// What a release's list says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    /// By file name.
    pub(crate) files: BTreeMap<String, Digest>,
    /// What it is for.
    pub(crate) machine: Option<String>,
    /// Its version.
    pub(crate) version: Option<String>,
    /// The last day of support.
    pub(crate) support_end: Option<Day>,
}

impl Sums {
    /// Reads a list; says which line is none.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut sums = Self::default();
        for (number, line) in text.lines().enumerate() {
            let wrong = |what: &str| format!("line {} of {LIST} {what}", number + 1);
            if let Some(said) = line.strip_prefix('#') {
                if let Some((key, value)) = said.split_once(':') {
                    sums.note(key.trim(), value.trim()).map_err(wrong)?;
                }
                continue;
            }
            if line.trim().is_empty() {
                continue;
            }
            let (digest, name) = line.split_once(' ').ok_or_else(|| wrong("is no hash and name"))?;
            let digest = Digest::parse(digest).ok_or_else(|| wrong("has no SHA-256"))?;
            let name = name.strip_prefix([' ', '*']).unwrap_or(name);
            let plain = !name.is_empty() && name != "." && name != ".." && !name.contains('/') && !name.chars().any(char::is_control);
            if !plain {
                return Err(wrong("names no plain file"));
            }
            if sums.files.insert(name.to_owned(), digest).is_some() {
                return Err(wrong("names a file for the second time"));
            }
        }
        if sums.files.is_empty() { Err(format!("{LIST} names no file")) } else { Ok(sums) }
    }

    fn note(&mut self, key: &str, value: &str) -> Result<(), &'static str> {
        match key {
            "machine" => self.machine = Some(value.to_owned()),
            "version" => self.version = Some(value.to_owned()),
            "support-end" => self.support_end = Some(Day::parse(value).ok_or("has no day")?),
            _ => {}
        }
        Ok(())
    }

    /// Reads the list in a folder. With a key its signature must hold.
    pub(crate) fn read(folder: &Path, key: Option<&PublicKey>) -> Outcome<Self> {
        let bytes = files::read(&folder.join(LIST), TEXT_BYTES_MAX)?;
        if let Some(key) = key {
            let path = folder.join(SIGNATURE);
            let signature = files::read(&path, TEXT_BYTES_MAX)?;
            if !key.verifies(&bytes, &bytes_or_hex(&signature)) {
                let what = format!("the signature {} does not match", path.display());
                return Err(Failure::refused(
                    what,
                    "download the release again; if it stays so, do not use it and tell support. Check that --key is the release's",
                ));
            }
        }
        let text =
            String::from_utf8(bytes).map_err(|_| Failure::refused(format!("{LIST} is not UTF-8 text"), "download the release again"))?;
        Self::parse(&text).map_err(|what| Failure::refused(what, "download the release again"))
    }
}

/// The hash of a file.
pub(crate) fn hash_file(path: &Path) -> Outcome<Digest> {
    let unreadable = |error| Failure::unreadable(path, &error);
    let mut file = File::open(path).map_err(unreadable)?.take(FILE_BYTES_MAX);
    let mut running = Running::new();
    let mut buffer = vec![0; 1024 * 1024];
    loop {
        match file.read(&mut buffer).map_err(unreadable)? {
            0 => return Ok(running.finish()),
            read => running.update(buffer.get(..read).unwrap_or_default()),
        }
    }
}

/// Machine and version in a name like `vitalgate-amd64-0.1.0.img.zst`.
pub(crate) fn machine_and_version(name: &str) -> Option<(&str, Version)> {
    let (machine, rest) = name.strip_prefix("vitalgate-")?.split_once('-')?;
    let end = rest.char_indices().filter(|(_, one)| *one == '.').nth(2).map_or(rest.len(), |(at, _)| at);
    Some((machine, Version::parse(rest.get(..end)?)?))
}

/// The version in a file's name.
pub(crate) fn version_of(path: &Path) -> Option<Version> {
    machine_and_version(path.file_name()?.to_str()?).map(|(_, version)| version)
}

/// The folder that a file lies in.
pub(crate) fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_with_what_it_says_of_the_release() {
        let hash = "ab".repeat(32);
        let sums =
            Sums::parse(&format!("# machine: amd64\n# version: 0.1.0\n# support-end: 2031-12-31\n{hash}  a\r\n{hash} *b\n")).unwrap();
        assert_eq!(sums.files.keys().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(sums.support_end.unwrap().to_string(), "2031-12-31");
        for bad in [
            "",
            "x",
            "ab  a\n",
            &format!("{hash}  ../a\n"),
            &format!("{hash}  a\n{hash}  a\n"),
            &format!("# support-end: soon\n{hash}  a\n"),
        ] {
            assert!(Sums::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_say_machine_and_version() {
        for name in ["vitalgate-amd64-0.1.0.img.zst", "vitalgate-amd64-0.1.0.raucb", "vitalgate-amd64-0.1.0"] {
            let (machine, version) = machine_and_version(name).unwrap();
            assert_eq!((machine, version.to_string().as_str()), ("amd64", "0.1.0"), "{name}");
        }
        assert_eq!(machine_and_version("vitalgate-amd64-x.img"), None);
        assert_eq!(machine_and_version("other.img"), None);
    }
}
