//! The table of partitions of an image: where zeros mean something to whoever starts from the disk.

/// Bytes of a sector.
const SECTOR_BYTES: u64 = 512;
/// How the table's header begins (UEFI specification, 5.3.2).
const SIGNATURE: &[u8] = b"EFI PART";
/// The type of an EFI system partition, as it stands on the disk (UEFI specification, 5.3.3).
const EFI_SYSTEM: [u8; 16] = [0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b];
/// Most entries that are looked at.
const ENTRIES_MAX: u64 = 128;

/// The table, its copy at the end and the EFI system partition, whose list of free clusters is zeros: first byte, and
/// first byte after it. Nothing where the head of the image holds no table.
pub(crate) fn meaningful(head: &[u8]) -> Vec<(u64, u64)> {
    read(head).unwrap_or_default()
}

fn read(head: &[u8]) -> Option<Vec<(u64, u64)>> {
    let header = head.get(SECTOR_BYTES as usize..)?;
    let number = |bytes: &[u8], at: usize| Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
    let small = |at: usize| Some(u64::from(u32::from_le_bytes(*header.get(at..)?.first_chunk()?)));
    if !header.starts_with(SIGNATURE) {
        return None;
    }
    let span = |first: u64, last: u64| (first.saturating_mul(SECTOR_BYTES), last.saturating_add(1).saturating_mul(SECTOR_BYTES));
    let (copy, first_usable, last_usable) = (number(header, 32)?, number(header, 40)?, number(header, 48)?);
    let mut found = vec![span(0, first_usable.saturating_sub(1)), span(last_usable.saturating_add(1), copy)];
    let (entries, count, bytes) = (number(header, 72)?.checked_mul(SECTOR_BYTES)?, small(80)?, small(84)?);
    for at in (0..count.min(ENTRIES_MAX)).map(|entry| entries.saturating_add(entry * bytes)) {
        let entry = head.get(usize::try_from(at).ok()?..)?;
        if entry.starts_with(&EFI_SYSTEM) {
            found.push(span(number(entry, 32)?, number(entry, 40)?));
        }
    }
    Some(found)
}
