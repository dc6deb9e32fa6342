//! A disk that is really full, on a small loop-mounted file system.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "helpers of tests; the counts are part of the proof")]

use std::path::{Path, PathBuf};
use std::process::Command;

use vitalgate_faults::{PlainWrap, destinations, read_all, readings, settled};
use vitalgate_store::{CommitError, Opened, RealFiles, StoreOptions};

use std::sync::Arc;

const DISK_MIB: u64 = 48;
const FLOOR_BYTES: u64 = 12 * 1024 * 1024;
const SEGMENT_BYTES: u64 = 1024 * 1024;

/// A file system of its own, unmounted at the end.
struct SmallDisk {
    folder: tempfile::TempDir,
}

impl SmallDisk {
    /// `None` where this machine lets nobody mount: said aloud.
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let (image, point) = (folder.path().join("disk.img"), folder.path().join("disk"));
        std::fs::File::create(&image).unwrap().set_len(DISK_MIB * 1024 * 1024).unwrap();
        std::fs::create_dir(&point).unwrap();
        let ran =
            |program: &str, arguments: &[&Path]| Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success());
        assert!(
            ran("mkfs.ext4", &[Path::new("-q"), Path::new("-F"), &image])
                || ran("/sbin/mkfs.ext4", &[Path::new("-q"), Path::new("-F"), &image])
        );
        if ran("mount", &[Path::new("-o"), Path::new("loop"), &image, &point]) {
            return Some(Self { folder });
        }
        println!("NOT RUN: this user may not mount a loop device; run as root to test a full disk");
        None
    }

    fn point(&self) -> PathBuf {
        self.folder.path().join("disk")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(self.point()).status();
        assert!(unmounted.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

fn open(dir: &Path) -> Opened {
    let options =
        StoreOptions { segment_bytes: SEGMENT_BYTES, free_space_floor_bytes: FLOOR_BYTES, retention_ms: 0, ..StoreOptions::new(dir) };
    vitalgate_store::open(options, Arc::new(PlainWrap), Arc::new(RealFiles)).unwrap()
}

#[test]
fn on_a_full_disk_nothing_acknowledged_is_lost_and_it_goes_on_when_space_returns() {
    let Some(disk) = SmallDisk::mount() else { return };
    let dir = disk.point().join("store");
    let mut opened = open(&dir);
    opened.journal.append(&[], &[destinations(&["ehr"]).unwrap()]).unwrap();
    let mut acknowledged = Vec::new();
    // The EHR is away: everything stays, until the floor is reached.
    let refused = loop {
        let entries = readings(acknowledged.len() as u64, 250).unwrap();
        match opened.journal.append(&entries, &[]) {
            Ok(_) => acknowledged.extend(entries),
            Err(error) => break error,
        }
        assert!(acknowledged.len() < 2_000_000, "the disk never fills");
    };
    assert_eq!(refused, CommitError::BelowFloor);
    // Somebody else takes the rest of the disk, to the last byte.
    let filler = disk.point().join("filler");
    let _full = std::io::copy(&mut std::io::repeat(7), &mut std::fs::File::create(&filler).unwrap());
    assert_eq!(opened.journal.append(&readings(0, 1).unwrap(), &[]), Err(CommitError::BelowFloor));
    // Settling goes on, and what was acknowledged is read, also after a restart on the full disk.
    for last in 1..200 {
        opened.journal.append(&[], &[settled("ehr", 1, last).unwrap()]).unwrap();
    }
    drop(opened);
    let mut opened = open(&dir);
    assert_eq!(opened.journal.append(&readings(0, 1).unwrap(), &[]), Err(CommitError::BelowFloor));
    let records = read_all(&opened.reader).unwrap();
    assert_eq!(records.len(), acknowledged.len());
    assert!(records.iter().zip(&acknowledged).all(|(record, entry)| record.entry == *entry));
    // Space returns: it goes on by itself.
    std::fs::remove_file(&filler).unwrap();
    opened.journal.append(&[], &[settled("ehr", 1, acknowledged.len() as u64).unwrap()]).unwrap();
    let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while opened.journal.maintain().unwrap().segments_reclaimed == 0 {
        let committed = vitalgate_store::KeyedCopy::applied(opened.keyed.as_ref()).ordinal.next();
        let _progress = opened.keyed.wait_reached(committed, true, std::time::Duration::from_millis(200));
        assert!(std::time::Instant::now() < end, "nothing is reclaimed: {:?}", opened.keyed.status());
    }
    let more = readings(acknowledged.len() as u64, 250).unwrap();
    while opened.journal.append(&more, &[]) == Err(CommitError::BelowFloor) {
        opened.journal.maintain().unwrap();
        assert!(std::time::Instant::now() < end, "it does not go on");
        std::thread::yield_now();
    }
    println!("full disk: {} readings acknowledged, 0 missing, went on after space returned", acknowledged.len());
    opened.keyed.shutdown(std::time::Duration::from_secs(20));
}
