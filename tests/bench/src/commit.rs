//! Durable commits against a raw log: the same readings as plain bytes, appended and flushed.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use vitalgate_domain::{
    BootId, ClockTrust, DeviceId, DeviceNamespace, DeviceTime, Entry, Flags, Metric, PatientReference, Quantity, Reading, ReadingId,
    ReadingTime, Received, Subject, Unit, UnixMs, Value,
};
use vitalgate_store::{RealFiles, StoreOptions};
use vitalgate_trust::FileKeyWrap;

use crate::table::Table;

/// Readings in one commit.
const SIZES: [usize; 4] = [1, 10, 100, 250];
/// Bytes that one reading has in the raw log.
const READING_BYTES: usize = 200;
/// Length of one run.
const RUN: Duration = Duration::from_secs(1);
/// Longest time the buffer may take to come to where the journal is.
const FOLLOW_DEADLINE: Duration = Duration::from_secs(120);
/// Pairs of runs; the median ratio counts.
const PAIRS: usize = 5;

/// All rows of this part.
pub(crate) fn rates(table: &mut Table, folder: &Path) -> anyhow::Result<()> {
    let folder = tempfile::tempdir_in(folder)?;
    let keys = FileKeyWrap::open_or_create(&folder.path().join("store.key")).context("no key")?;
    let opened = vitalgate_store::open(StoreOptions::new(folder.path().join("store")), Arc::new(keys), Arc::new(RealFiles))?;
    let mut journal = opened.journal;
    let mut counter = 0;
    for size in SIZES {
        let mut pairs = Vec::new();
        for _ in 0..PAIRS {
            let ours = rate(size, || {
                let entries: Vec<Entry> = (0..size).map(|_| reading(&mut counter)).collect::<anyhow::Result<_>>()?;
                let began = Instant::now();
                journal.append(&entries, &[])?;
                Ok(began.elapsed())
            })?;
            // The keyed copy has no work left when the other side is measured.
            ensure!(opened.keyed.wait_reached(opened.reader.committed_record(), false, FOLLOW_DEADLINE), "the buffer does not follow");
            pairs.push((ours, raw_rate(folder.path(), size)?));
            journal.maintain()?;
        }
        pairs.sort_by(|left, right| (left.0 / left.1).total_cmp(&(right.0 / right.1)));
        let (ours, raw) = *pairs.get(PAIRS / 2).context("no pair")?;
        table.figure(&format!("commit_{size}_readings_per_s"), "sealed, checksummed and flushed", ours, "readings/s", "");
        table.figure(&format!("raw_{size}_readings_per_s"), "raw append and fdatasync", raw, "readings/s", "");
        table.figure(&format!("commit_{size}_vs_raw"), "ratio", ours / raw, "", if size == 250 { "at least 0.8" } else { "" });
    }
    Ok(())
}

/// Readings a second of a commit that is repeated for [`RUN`]; only the time the commit itself took counts.
fn rate(size: usize, mut commit: impl FnMut() -> anyhow::Result<Duration>) -> anyhow::Result<f64> {
    let (mut spent, mut readings) = (Duration::ZERO, 0);
    while spent < RUN {
        spent += commit()?;
        readings += size;
    }
    Ok(readings as f64 / spent.as_secs_f64())
}

fn raw_rate(folder: &Path, size: usize) -> anyhow::Result<f64> {
    let path = folder.join("raw.log");
    let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
    let bytes = vec![b'x'; size * READING_BYTES];
    let rate = rate(size, || {
        let began = Instant::now();
        file.write_all(&bytes)?;
        file.sync_data()?;
        Ok(began.elapsed())
    });
    std::fs::remove_file(&path)?;
    rate
}

fn reading(counter: &mut i64) -> anyhow::Result<Entry> {
    *counter += 1;
    let device = DeviceId::new(&format!("monitor-{:02}", *counter % 20))?;
    let moment = UnixMs(1_795_341_600_000 + *counter);
    let received =
        Received { wall: moment, monotonic_ms: counter.unsigned_abs(), boot: BootId::from_bytes([7; 16]), trust: ClockTrust::Synchronised };
    Ok(Entry::Reading(Reading {
        id: ReadingId::from_device_time(&DeviceNamespace::new("bench")?, &device, Metric::HeartRate, &counter.to_string(), 0),
        subject: Subject::Patient(PatientReference::Literal(format!("Patient/{}", *counter % 20).into())),
        device,
        metric: Metric::HeartRate,
        slot: 0,
        value: Value::Quantity(Quantity { value: (60 + *counter % 80).into(), unit: Unit::PerMinute }),
        reported: None,
        time: ReadingTime { device: Some(DeviceTime { unix_ms: moment, offset_minutes: Some(60) }), received, correction_ms: 0 },
        device_sequence: Some(counter.unsigned_abs()),
        flags: Flags::default(),
    }))
}
