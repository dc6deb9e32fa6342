//! What a unified kernel image says of itself: the sections of a PE file.
//!
//! Source: Microsoft, "PE Format", sections "MS-DOS Stub", "COFF File Header", "Section Table";
//! UAPI group, "Unified Kernel Image", for `.osrel` and `.cmdline`.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use vitalgate_layout::Version;

/// Where the DOS header says where the PE header begins.
const PE_OFFSET_AT: u64 = 0x3c;
/// Bytes from `PE\0\0` to the optional header.
const COFF_HEADER_BYTES: u64 = 24;
/// Bytes of one row of the section table.
const SECTION_ROW_BYTES: u64 = 40;
/// Most sections that are looked at.
const SECTIONS_MAX: u16 = 64;
/// Largest section of text that is read, in bytes.
const TEXT_BYTES_MAX: u32 = 16 * 1024;
/// `ID=` of our images.
pub(crate) const OS_ID: &str = "vitalgate";
/// The kernel's argument that holds the root hash.
const ROOT_HASH_ARGUMENT: &str = "vitalgate.roothash=";

/// Why a file is no kernel image of ours.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImageError {
    /// It could not be read.
    #[error("the kernel image cannot be read ({0})")]
    Read(#[from] io::Error),
    /// Not a PE file.
    #[error("the kernel image is no EFI program")]
    NotPe,
    /// A section is missing.
    #[error("the kernel image has no section {0}")]
    NoSection(&'static str),
    /// A section is not text of a sensible length.
    #[error("section {0} of the kernel image is no text of at most {TEXT_BYTES_MAX} bytes")]
    NoText(&'static str),
    /// Another operating system's.
    #[error("the kernel image says ID={0:?}, not {OS_ID:?}")]
    OtherSystem(String),
    /// No version in it.
    #[error("the kernel image names no version major.minor.patch")]
    NoVersion,
    /// No root in it.
    #[error("the kernel image names no root hash")]
    NoRootHash,
}

/// What a kernel image says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KernelImage {
    /// Version of the appliance's image.
    pub(crate) version: Version,
    /// Root hash (dm-verity), in hex.
    pub(crate) root_hash: String,
}

impl KernelImage {
    /// Reads a kernel image.
    ///
    /// # Errors
    /// When it is none of ours.
    pub(crate) fn read(file: &File) -> Result<Self, ImageError> {
        let release = section_text(file, ".osrel")?;
        let id = field(&release, "ID").unwrap_or_default();
        if id != OS_ID {
            return Err(ImageError::OtherSystem(id));
        }
        let command_line = section_text(file, ".cmdline")?;
        let hash = command_line.split_ascii_whitespace().find_map(|word| word.strip_prefix(ROOT_HASH_ARGUMENT));
        let hash = hash.filter(|hash| hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()));
        Ok(Self {
            version: version_of(&release).ok_or(ImageError::NoVersion)?,
            root_hash: hash.ok_or(ImageError::NoRootHash)?.to_ascii_lowercase(),
        })
    }
}

/// The version in the text of an os-release file (os-release(5): `IMAGE_VERSION`, else `VERSION_ID`).
pub(crate) fn version_of(release: &str) -> Option<Version> {
    let text = field(release, "IMAGE_VERSION").or_else(|| field(release, "VERSION_ID"))?;
    Version::parse(&text)
}

/// One field of an os-release file.
pub(crate) fn field(release: &str, name: &str) -> Option<String> {
    let value = release.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix('='))?;
    Some(value.trim().trim_matches(['"', '\'']).to_owned())
}

fn section_text(file: &File, name: &'static str) -> Result<String, ImageError> {
    let (offset, bytes) = section(file, name)?;
    if bytes > TEXT_BYTES_MAX {
        return Err(ImageError::NoText(name));
    }
    let mut text = vec![0; usize::try_from(bytes).unwrap_or(0)];
    file.read_exact_at(&mut text, u64::from(offset))?;
    let text = String::from_utf8(text).map_err(|_error| ImageError::NoText(name))?;
    Ok(text.trim_end_matches('\0').to_owned())
}

/// Offset in the file and length of a section.
fn section(file: &File, name: &'static str) -> Result<(u32, u32), ImageError> {
    let mut dos = [0; 2];
    file.read_exact_at(&mut dos, 0)?;
    let pe = u64::from(u32_at(file, PE_OFFSET_AT)?);
    if &dos != b"MZ" || u32_at(file, pe)?.to_le_bytes() != *b"PE\0\0" {
        return Err(ImageError::NotPe);
    }
    let sections = u16_at(file, pe + 6)?;
    let optional = u64::from(u16_at(file, pe + 20)?);
    if sections > SECTIONS_MAX {
        return Err(ImageError::NotPe);
    }
    let table = pe + COFF_HEADER_BYTES + optional;
    for row in (0..u64::from(sections)).map(|index| table + index * SECTION_ROW_BYTES) {
        let mut label = [0; 8];
        file.read_exact_at(&mut label, row)?;
        let label = String::from_utf8_lossy(&label);
        if label.trim_end_matches('\0') == name {
            // What lies behind the virtual size is only there to fill the page.
            let (size, raw, offset) = (u32_at(file, row + 8)?, u32_at(file, row + 16)?, u32_at(file, row + 20)?);
            return Ok((offset, size.min(raw)));
        }
    }
    Err(ImageError::NoSection(name))
}

fn u32_at(file: &File, at: u64) -> io::Result<u32> {
    let mut bytes = [0; 4];
    file.read_exact_at(&mut bytes, at)?;
    Ok(u32::from_le_bytes(bytes))
}

fn u16_at(file: &File, at: u64) -> io::Result<u16> {
    let mut bytes = [0; 2];
    file.read_exact_at(&mut bytes, at)?;
    Ok(u16::from_le_bytes(bytes))
}

/// The bytes of the smallest PE file with these sections; stands for a kernel image in tests.
#[cfg(test)]
pub(crate) fn pe_with(sections: &[(&str, &[u8])]) -> Vec<u8> {
    let (pe, optional) = (0x80_usize, 16_usize);
    let table = pe + 24 + optional;
    let mut bytes = vec![0; table + 40 * sections.len()];
    bytes[..2].copy_from_slice(b"MZ");
    bytes[0x3c..0x40].copy_from_slice(&u32::try_from(pe).unwrap().to_le_bytes());
    bytes[pe..pe + 4].copy_from_slice(b"PE\0\0");
    bytes[pe + 6..pe + 8].copy_from_slice(&u16::try_from(sections.len()).unwrap().to_le_bytes());
    bytes[pe + 20..pe + 22].copy_from_slice(&u16::try_from(optional).unwrap().to_le_bytes());
    for (index, (name, content)) in sections.iter().enumerate() {
        let (row, offset) = (table + 40 * index, bytes.len());
        let size = u32::try_from(content.len()).unwrap().to_le_bytes();
        bytes[row..row + name.len()].copy_from_slice(name.as_bytes());
        bytes[row + 8..row + 12].copy_from_slice(&size);
        bytes[row + 16..row + 20].copy_from_slice(&size);
        bytes[row + 20..row + 24].copy_from_slice(&u32::try_from(offset).unwrap().to_le_bytes());
        bytes.extend_from_slice(content);
    }
    bytes
}

/// A kernel image of ours in a few hundred bytes, for tests.
#[cfg(test)]
pub(crate) fn kernel_image(version: &str, root_hash: &str) -> Vec<u8> {
    let release = format!("ID=vitalgate\nVERSION_ID=\"{version}\"\nIMAGE_VERSION={version}\n");
    let command_line = format!("vitalgate.roothash={root_hash} quiet\0\0");
    pe_with(&[(".text", b"code"), (".osrel", release.as_bytes()), (".cmdline", command_line.as_bytes())])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<KernelImage, ImageError> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("image"), bytes).unwrap();
        KernelImage::read(&File::open(folder.path().join("image")).unwrap())
    }

    /// An installation takes the version from the image itself, not from a name beside it.
    #[test]
    fn an_image_says_its_version_and_root() {
        let image = read(&kernel_image("1.2.3", &"Ab".repeat(32))).unwrap();
        assert_eq!((image.version.to_string().as_str(), image.root_hash.as_str()), ("1.2.3", "ab".repeat(32).as_str()));
    }

    /// Whatever the file holds, the answer is an error and not a panic.
    #[test]
    fn every_cut_and_every_changed_byte_is_an_error_or_an_image() {
        let whole = kernel_image("1.2.3", &"0".repeat(64));
        for length in 0..whole.len() - 2 {
            assert!(read(&whole[..length]).is_err(), "cut at {length}");
        }
        for at in 0..whole.len() {
            for value in [0, 0xff] {
                let mut changed = whole.clone();
                changed[at] = value;
                let _outcome = read(&changed);
            }
        }
        assert!(matches!(read(&pe_with(&[(".osrel", b"ID=other\n")])), Err(ImageError::OtherSystem(_))));
        assert!(matches!(read(&pe_with(&[(".text", b"")])), Err(ImageError::NoSection(".osrel"))));
    }
}
