//! A disk that is really full, on a small loop-mounted file system.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "helpers of tests; the counts are part of the proof")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vitalgate_faults::{PlainWrap, destinations, read_all, readings, settled};
use vitalgate_store::keyed::KeyedStatus;
use vitalgate_store::{CommitError, KeyedCopy, Opened, RealFiles, StoreOptions};
use vitalgate_test_support::SmallDisk;

const DISK_MIB: u64 = 48;
const FLOOR_BYTES: u64 = 12 * 1024 * 1024;
const SEGMENT_BYTES: u64 = 1024 * 1024;
const PATIENCE: Duration = Duration::from_secs(60);
/// Starts within which it must go on.
const STARTS_MAX: u32 = 5;

fn open(dir: &Path) -> Opened {
    let options =
        StoreOptions { segment_bytes: SEGMENT_BYTES, free_space_floor_bytes: FLOOR_BYTES, retention_ms: 0, ..StoreOptions::new(dir) };
    vitalgate_store::open(options, Arc::new(PlainWrap), Arc::new(RealFiles)).unwrap()
}

/// The EHR is away: everything stays, until the floor is reached. Gives how many were acknowledged.
fn fill(dir: &Path) -> u64 {
    let mut opened = open(dir);
    opened.journal.append(&[], &[destinations(&["ehr"]).unwrap()]).unwrap();
    let mut acknowledged = 0;
    loop {
        match opened.journal.append(&readings(acknowledged, 250).unwrap(), &[]) {
            Ok(_) => acknowledged += 250,
            Err(error) => {
                assert_eq!(error, CommitError::BelowFloor);
                return acknowledged;
            }
        }
        assert!(acknowledged < 2_000_000, "the disk never fills");
    }
}

/// Nothing is taken, settling goes on, everything acknowledged is read.
fn stand(dir: &Path, acknowledged: u64) {
    let mut opened = open(dir);
    assert_eq!(opened.journal.append(&readings(0, 1).unwrap(), &[]), Err(CommitError::BelowFloor));
    for last in 1..200 {
        opened.journal.append(&[], &[settled("ehr", 1, last).unwrap()]).unwrap();
    }
    let records = read_all(&opened.reader).unwrap();
    assert_eq!(records.len() as u64, acknowledged);
    let entries = readings(0, acknowledged).unwrap();
    assert!(records.iter().zip(&entries).all(|(record, entry)| record.entry == *entry));
}

/// Everything is settled, reclaimed, and new readings are taken. `false`: the keyed side has
/// failed, and the process must start again.
fn go_on(dir: &Path, acknowledged: u64) -> bool {
    let mut opened = open(dir);
    opened.journal.append(&[], &[settled("ehr", 1, acknowledged).unwrap()]).unwrap();
    let end = Instant::now() + PATIENCE;
    let more = readings(acknowledged, 250).unwrap();
    let mut reclaimed = 0;
    while reclaimed == 0 || opened.journal.append(&more, &[]) == Err(CommitError::BelowFloor) {
        reclaimed += opened.journal.maintain().unwrap().segments_reclaimed;
        let next = opened.keyed.applied().ordinal.next();
        let _progress = opened.keyed.wait_reached(next, true, Duration::from_millis(100));
        if matches!(opened.keyed.status(), KeyedStatus::Failed(_)) {
            return false;
        }
        assert!(Instant::now() < end, "it does not go on: {:?} {:?}", opened.keyed.status(), opened.keyed.events());
    }
    assert_eq!(opened.reader.committed().0, acknowledged + 250);
    opened.keyed.shutdown(PATIENCE);
    true
}

/// The test binary once more, as a process that ends: what sled leaves open is gone with it.
fn in_a_process(phase: &str, dir: &Path, acknowledged: u64) -> Option<u64> {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "phase_child", "--nocapture"])
        .env("STORE_PHASE", phase)
        .env("STORE_DIR", dir)
        .env("STORE_ACKNOWLEDGED", acknowledged.to_string())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{phase}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text.lines().find_map(|line| line.strip_prefix("phase ended with ")?.parse().ok())
}

/// Nothing in a normal run; one phase in a child.
#[test]
fn phase_child() {
    let (Ok(phase), Some(dir)) = (std::env::var("STORE_PHASE"), std::env::var_os("STORE_DIR").map(PathBuf::from)) else { return };
    let acknowledged = std::env::var("STORE_ACKNOWLEDGED").unwrap().parse().unwrap();
    let result = match phase.as_str() {
        "fill" => fill(&dir),
        "stand" => {
            stand(&dir, acknowledged);
            acknowledged
        }
        _ => u64::from(go_on(&dir, acknowledged)),
    };
    println!("\nphase ended with {result}");
}

#[test]
fn on_a_full_disk_nothing_acknowledged_is_lost_and_it_goes_on_when_space_returns() {
    let Some(disk) = SmallDisk::mounted(DISK_MIB * 1024 * 1024).unwrap() else { return };
    let dir = disk.path().join("store");
    let acknowledged = in_a_process("fill", &dir, 0).unwrap();
    // Somebody else takes the rest of the disk, to the last byte.
    let filler = disk.path().join("filler");
    let _full = std::io::copy(&mut std::io::repeat(7), &mut std::fs::File::create(&filler).unwrap());
    for _restart in 0..2 {
        assert_eq!(in_a_process("stand", &dir, acknowledged), Some(acknowledged));
    }
    // Space returns: it goes on by itself, with the restarts that its supervisor does.
    std::fs::remove_file(&filler).unwrap();
    let starts = (1..=STARTS_MAX).find(|_| in_a_process("go on", &dir, acknowledged) == Some(1));
    let starts = starts.expect("it goes on within a few restarts");
    println!("full disk: {acknowledged} readings acknowledged, 0 missing, went on after space returned at start {starts}");
}
