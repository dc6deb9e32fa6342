//! Faults against the whole store, journal and keyed side together, on real files.
//!
//! What the journal alone survives (power cuts at every step, a model) is tested in its own crate.

#![forbid(unsafe_code)]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rust_decimal::Decimal;
use vitalgate_domain::{
    BootId, Change, ClockTrust, DestinationId, DeviceId, DeviceTime, Entry, Flags, KeyWrap, KeyWrapError, Metric, PatientReference,
    Quantity, Reading, ReadingId, ReadingTime, Received, Record, Sequence, Subject, Unit, UnixMs, Value,
};
use vitalgate_store::keyed::{KeyedOptions, KeyedTimes};
use vitalgate_store::{Opened, Reader, StoreOptions};

/// Length of a segment in these tests, in bytes: several segments from few readings.
pub const SEGMENT_BYTES: u64 = 64 * 1024;

/// A stand-in for a key-encryption key: no secret, but it notices an altered byte.
pub struct PlainWrap;

fn digest(bytes: &[u8]) -> [u8; 8] {
    // FNV-1a, 64 bits.
    bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)).to_le_bytes()
}

impl KeyWrap for PlainWrap {
    fn wrap(&self, data_key: &[u8; 32]) -> Result<Vec<u8>, KeyWrapError> {
        let mut wrapped: Vec<u8> = data_key.iter().map(|byte| byte ^ 0x5a).collect();
        wrapped.extend_from_slice(&digest(data_key));
        Ok(wrapped)
    }

    fn unwrap(&self, wrapped: &[u8]) -> Result<[u8; 32], KeyWrapError> {
        let (masked, stored) = wrapped.split_last_chunk::<8>().ok_or(KeyWrapError::DoesNotOpen)?;
        let plain: Vec<u8> = masked.iter().map(|byte| byte ^ 0x5a).collect();
        let key: [u8; 32] = plain.try_into().map_err(|_| KeyWrapError::DoesNotOpen)?;
        if digest(&key) == *stored { Ok(key) } else { Err(KeyWrapError::DoesNotOpen) }
    }
}

/// The reading number `number`.
///
/// # Errors
/// Never; the name of its device is valid.
pub fn reading(number: u64) -> Result<Entry> {
    let wall = UnixMs(1_795_341_600_000 + number.cast_signed());
    let received = Received { wall, monotonic_ms: number, boot: BootId::from_bytes([3; 16]), trust: ClockTrust::Synchronised };
    Ok(Entry::Reading(Reading {
        id: ReadingId::from_bytes(u128::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835).to_be_bytes()),
        device: DeviceId::new(&format!("monitor-{:02}", number % 20))?,
        metric: Metric::OxygenSaturation,
        slot: 0,
        value: Value::Quantity(Quantity { value: Decimal::new(900 + (number % 100).cast_signed(), 1), unit: Unit::Percent }),
        reported: None,
        time: ReadingTime { device: Some(DeviceTime { unix_ms: wall, offset_minutes: Some(0) }), received, correction_ms: 0 },
        device_sequence: Some(number),
        flags: Flags::default(),
        subject: Subject::Patient(PatientReference::Literal("Patient/4711".into())),
    }))
}

/// The readings with these numbers.
///
/// # Errors
/// As [`reading`].
pub fn readings(first: u64, count: u64) -> Result<Vec<Entry>> {
    (first..first + count).map(reading).collect()
}

/// A change that says what one destination has.
///
/// # Errors
/// When the name is not valid.
pub fn settled(destination: &str, first: u64, last: u64) -> Result<Change> {
    Ok(Change::Settled {
        destination: DestinationId::new(destination)?,
        ranges: vec![(Sequence(first), Sequence(last))],
        rejected: vec![],
        remote_ids: vec![],
    })
}

/// The configured destinations.
///
/// # Errors
/// When a name is not valid.
pub fn destinations(names: &[&str]) -> Result<Change> {
    let present = names.iter().map(|name| Ok(DestinationId::new(name)?)).collect::<Result<Vec<_>>>()?;
    Ok(Change::Destinations { present, from: Sequence::FIRST })
}

/// Opens a store with small segments; `probe` is the program that looks at sled first.
///
/// # Errors
/// When it does not open.
pub fn open(dir: &Path, probe: Option<&str>) -> Result<Opened> {
    opened(dir, probe, true)
}

/// The same without the journal's own threads: whoever copies the folder between two calls, and after the keyed
/// side was shut down, copies what lies there at one moment.
///
/// # Errors
/// When it does not open.
pub fn open_still(dir: &Path, probe: Option<&str>) -> Result<Opened> {
    opened(dir, probe, false)
}

fn opened(dir: &Path, probe: Option<&str>, background: bool) -> Result<Opened> {
    let options = StoreOptions {
        segment_bytes: SEGMENT_BYTES,
        free_space_floor_bytes: 1024 * 1024,
        retention_ms: 0,
        background,
        ..StoreOptions::new(dir)
    };
    let times = KeyedTimes {
        gather: Duration::from_millis(1),
        checkpoint_idle: Duration::from_millis(5),
        checkpoint_age: Duration::from_millis(50),
        ..KeyedTimes::default()
    };
    let keyed = KeyedOptions { times, probe: probe.map(|program| vec![program.into()]), ..KeyedOptions::new(dir) };
    let files = Arc::new(vitalgate_store::RealFiles);
    vitalgate_store::open_with(options, keyed, Arc::new(PlainWrap), files).with_context(|| format!("opening {}", dir.display()))
}

/// Everything from the oldest entry on; what is lost is an error.
///
/// # Errors
/// When reading fails, stands still, or anything is reported as lost.
pub fn read_all(reader: &Reader) -> Result<Vec<Record>> {
    let (mut records, mut from) = (Vec::new(), reader.oldest());
    while from <= reader.committed() {
        let outcome = reader.read(from, Sequence(u64::MAX), 500, 1 << 20)?;
        if !outcome.damaged.is_empty() {
            bail!("lost in every copy: {:?}", outcome.damaged);
        }
        ensure!(outcome.reached >= from, "no progress at {from}");
        records.extend(outcome.records);
        from = outcome.reached.next();
    }
    Ok(records)
}

/// Copies a folder with everything in it, as a process killed at this moment leaves it. Nobody may write to it meanwhile.
///
/// # Errors
/// When a file cannot be copied.
pub fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// All files below a folder, sorted.
///
/// # Errors
/// When a folder cannot be listed.
pub fn files_below(dir: &Path) -> Result<Vec<std::path::PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            files.extend(files_below(&entry.path())?);
        } else {
            files.push(entry.path());
        }
    }
    files.sort_unstable();
    Ok(files)
}
