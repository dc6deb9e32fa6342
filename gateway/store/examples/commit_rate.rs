//! Prints how many readings per second the journal commits, beside a log that appends raw records
//! and syncs. Argument: the folder to work in.

use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use vitalgate_domain::{
    BootId, ClockTrust, DeviceId, DeviceTime, Entry, Flags, KeyWrap, KeyWrapError, Metric, PatientReference, Quantity, Reading, ReadingId,
    ReadingTime, Received, Sequence, Subject, Unit, UnixMs, Value,
};
use vitalgate_store::{Journal, RealFiles, StoreOptions};

type Failure = Box<dyn std::error::Error>;

/// Length of a raw record, in bytes: what a reading is on the wire.
const RAW_BYTES: usize = 200;
/// Shortest time that one figure is taken over, in milliseconds.
const SPAN_MS: u128 = 1_000;
/// Rounds per figure; the middle one counts.
const ROUNDS: usize = 3;
/// Devices that the readings come from.
const DEVICES: u64 = 50;

/// A key-encryption key for a store that holds nothing of worth.
struct FixedWrap;

fn kek() -> Result<LessSafeKey, KeyWrapError> {
    UnboundKey::new(&AES_256_GCM, &[5; 32]).map(LessSafeKey::new).map_err(|_| KeyWrapError::DoesNotOpen)
}

impl KeyWrap for FixedWrap {
    fn wrap(&self, data_key: &[u8; 32]) -> Result<Vec<u8>, KeyWrapError> {
        let mut sealed = data_key.to_vec();
        let nonce = Nonce::assume_unique_for_key([1; 12]);
        kek()?.seal_in_place_append_tag(nonce, Aad::empty(), &mut sealed).map_err(|_| KeyWrapError::DoesNotOpen)?;
        Ok(sealed)
    }

    fn unwrap(&self, wrapped: &[u8]) -> Result<[u8; 32], KeyWrapError> {
        let mut bytes = wrapped.to_vec();
        let nonce = Nonce::assume_unique_for_key([1; 12]);
        let plain = kek()?.open_in_place(nonce, Aad::empty(), &mut bytes).map_err(|_| KeyWrapError::DoesNotOpen)?;
        (&*plain).try_into().map_err(|_| KeyWrapError::DoesNotOpen)
    }
}

fn reading(number: u64) -> Result<Entry, Failure> {
    let wall = UnixMs(1_795_341_600_000 + number.cast_signed() / 10);
    let received = Received { wall, monotonic_ms: number / 10, boot: BootId::from_bytes([3; 16]), trust: ClockTrust::Synchronised };
    let id = (u128::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)).to_be_bytes();
    Ok(Entry::Reading(Reading {
        id: ReadingId::from_bytes(id),
        device: DeviceId::new(&format!("monitor-{:02}", number % DEVICES))?,
        metric: Metric::HeartRate,
        slot: 0,
        value: Value::Quantity(Quantity {
            value: rust_decimal::Decimal::new(600 + (number % 300).cast_signed(), 1),
            unit: Unit::PerMinute,
        }),
        reported: None,
        time: ReadingTime { device: Some(DeviceTime { unix_ms: wall, offset_minutes: Some(60) }), received, correction_ms: 0 },
        device_sequence: None,
        flags: Flags::default(),
        subject: Subject::Patient(PatientReference::Literal("Patient/4711".into())),
    }))
}

fn middle(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates.get(rates.len() / 2).copied().unwrap_or(1.0)
}

fn raw_rate(dir: &Path, group: u32) -> Result<f64, Failure> {
    let path = dir.join("raw.log");
    let file = std::fs::OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path)?;
    let bytes = vec![0x5a; RAW_BYTES * group as usize];
    let (start, mut commits, mut offset) = (Instant::now(), 0u32, 0);
    while start.elapsed().as_millis() < SPAN_MS {
        file.write_all_at(&bytes, offset)?;
        file.sync_data()?;
        offset += bytes.len() as u64;
        commits += 1;
    }
    let rate = f64::from(commits) * f64::from(group) / start.elapsed().as_secs_f64();
    std::fs::remove_file(path)?;
    Ok(rate)
}

fn journal_rate(journal: &mut Journal, group: u32, number: &mut u64) -> Result<f64, Failure> {
    let entries = (*number..*number + u64::from(group)).map(reading).collect::<Result<Vec<_>, _>>()?;
    *number += u64::from(group);
    let (start, mut commits) = (Instant::now(), 0u32);
    while start.elapsed().as_millis() < SPAN_MS {
        journal.append(&entries, &[])?;
        commits += 1;
    }
    Ok(f64::from(commits) * f64::from(group) / start.elapsed().as_secs_f64())
}

fn main() -> Result<(), Failure> {
    let dir = PathBuf::from(std::env::args().nth(1).unwrap_or_else(|| "target/commit-rate".into()));
    let store = dir.join("store");
    if store.exists() {
        std::fs::remove_dir_all(&store)?;
    }
    std::fs::create_dir_all(&dir)?;
    let mut out = std::io::stdout();
    let options = || StoreOptions { free_space_floor_bytes: 1 << 20, ..StoreOptions::new(&store) };
    let mut opened = vitalgate_store::open(options(), Arc::new(FixedWrap), Arc::new(RealFiles))?;
    let mut number = 0;
    for group in [1, 10, 100, 250, 1_000, 4_000] {
        let (mut journal_rates, mut raw_rates) = (Vec::new(), Vec::new());
        for _round in 0..ROUNDS {
            raw_rates.push(raw_rate(&dir, group)?);
            journal_rates.push(journal_rate(&mut opened.journal, group, &mut number)?);
        }
        let (journal, raw) = (middle(journal_rates), middle(raw_rates));
        let ratio = journal / raw;
        writeln!(
            out,
            "group {group:5}: journal {journal:9.0}/s, raw append and fdatasync of {RAW_BYTES} B each {raw:9.0}/s, ratio {ratio:.2}"
        )?;
    }
    let committed = opened.reader.committed();
    let (start, mut from, mut read) = (Instant::now(), opened.reader.oldest(), 0u32);
    while from <= committed {
        let outcome = opened.reader.read(from, Sequence(u64::MAX), 1_000, 1 << 20)?;
        read += u32::try_from(outcome.records.len())?;
        from = outcome.reached.next();
    }
    writeln!(out, "read {read} entries at {:.0}/s", f64::from(read) / start.elapsed().as_secs_f64())?;
    drop(opened);
    let start = Instant::now();
    let mut opened = vitalgate_store::open(options(), Arc::new(FixedWrap), Arc::new(RealFiles))?;
    let ready = start.elapsed().as_secs_f64();
    opened.journal.append(&[reading(number)?], &[])?;
    let first = start.elapsed().as_secs_f64();
    writeln!(out, "open with {committed} entries in {ready:.3} s, first commit at {first:.3} s; {}", opened.report)?;
    Ok(())
}
