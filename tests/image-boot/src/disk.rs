//! The disk from outside, while the power is off: partitions, boot entries, single bytes.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use anyhow::Context as _;
use serde_json::Value;
use vitalgate_layout::{BootEntry, entry, partition};

use crate::command;

/// Bytes of a sector, as GPT counts.
const SECTOR: u64 = 512;

/// Where a partition begins and how long it is, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// First byte on the disk.
    pub(crate) start: u64,
    /// Length.
    pub(crate) length: u64,
}

/// Finds a partition by its label.
///
/// # Errors
/// When the disk has no such partition.
pub(crate) async fn find(disk: &Path, label: &str) -> anyhow::Result<Place> {
    let printed = command::run("sfdisk", ["--json".as_ref(), disk.as_os_str()]).await?;
    let table: Value = serde_json::from_str(&printed).context("sfdisk prints no JSON")?;
    let all = table["partitiontable"]["partitions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let found = all.iter().find(|one| one["name"] == label).with_context(|| format!("no partition {label}"))?;
    let sectors = |name: &str| found[name].as_u64().map(|count| count * SECTOR).with_context(|| format!("{label} without {name}"));
    Ok(Place { start: sectors("start")?, length: sectors("size")? })
}

async fn esp(disk: &Path) -> anyhow::Result<String> {
    let place = find(disk, partition::ESP).await?;
    Ok(format!("{}@@{}", disk.display(), place.start))
}

/// The boot entries on the disk.
///
/// # Errors
/// When the EFI system partition cannot be read.
pub(crate) async fn boot_entries(disk: &Path) -> anyhow::Result<Vec<BootEntry>> {
    let listing = command::run("mdir", ["-b", "-i", &esp(disk).await?, &format!("::{}", entry::FOLDER)]).await?;
    let names = listing.lines().filter_map(|line| line.trim().rsplit('/').next());
    Ok(names.filter_map(BootEntry::parse).collect())
}

/// Copies a boot entry's signed kernel image off the disk.
///
/// # Errors
/// When it is not there.
pub(crate) async fn take_entry(disk: &Path, which: &BootEntry, to: &Path) -> anyhow::Result<()> {
    let from = format!("::{}/{}", entry::FOLDER, which.file_name());
    command::run("mcopy", ["-o", "-n", "-i", &esp(disk).await?, &from, to.to_str().context("not UTF-8")?]).await.map(drop)
}

/// Puts another kernel image in the place of a boot entry.
///
/// # Errors
/// When it cannot be written.
pub(crate) async fn put_entry(disk: &Path, which: &BootEntry, from: &Path) -> anyhow::Result<()> {
    let to = format!("::{}/{}", entry::FOLDER, which.file_name());
    command::run("mcopy", ["-o", "-i", &esp(disk).await?, from.to_str().context("not UTF-8")?, &to]).await.map(drop)
}

/// Turns one bit over at `offset` of a partition.
///
/// # Errors
/// When the disk cannot be written.
pub(crate) async fn flip(disk: &Path, label: &str, offset: u64) -> anyhow::Result<()> {
    let place = find(disk, label).await?;
    anyhow::ensure!(offset < place.length, "{label} is shorter than {offset}");
    let file = File::options().read(true).write(true).open(disk).context("the disk cannot be opened")?;
    let mut byte = [0];
    file.read_exact_at(&mut byte, place.start + offset)?;
    file.write_all_at(&[byte[0] ^ 1], place.start + offset).context("the disk cannot be written")
}

/// Copies a partition into a file.
///
/// # Errors
/// When it cannot be read.
pub(crate) async fn extract(disk: &Path, label: &str, to: &Path) -> anyhow::Result<()> {
    let place = find(disk, label).await?;
    let mebi = 1024 * 1024;
    let arguments = [
        format!("if={}", disk.display()),
        format!("of={}", to.display()),
        format!("bs={mebi}"),
        format!("skip={}", place.start / mebi),
        format!("count={}", place.length / mebi),
        "status=none".to_owned(),
    ];
    command::run("dd", arguments).await.map(drop)
}

/// A file as long as a partition, that begins with the partition's first `bytes`; the rest is empty.
///
/// # Errors
/// When it cannot be read.
pub(crate) async fn head(disk: &Path, label: &str, bytes: u64, to: &Path) -> anyhow::Result<()> {
    let place = find(disk, label).await?;
    let mut begin = vec![0; usize::try_from(bytes.min(place.length))?];
    File::open(disk).and_then(|file| file.read_exact_at(&mut begin, place.start)).context("the disk cannot be read")?;
    std::fs::write(to, begin)?;
    File::options().write(true).open(to).and_then(|file| file.set_len(place.length)).context("no copy of a partition")
}
