//! Reads the registers of a block: numbers in decimal, codes as absence, status bits as marks.

use std::sync::Arc;

use rust_decimal::Decimal;
use vitalgate_domain::{
    DeadLetterKind, DeadLetterReason, DecodedReading, DecodedSample, DeviceId, Flags, NoReading, Quantity, RawSample, Received, Reported,
    SourceIdentity, Value,
};

use crate::meaning::Meaning;
use crate::number;
use crate::profiles::{Kind, Profile};
use crate::registers_profile::{Block, Encoding, Layout, Order, ReadFunction, Register, Scaling};

/// Most decimal places of a value whose divisor is no power of ten.
const DIVIDED_PLACES_MAX: u32 = 6;

/// Reads one block by its profile. It never panics; what cannot be read is in `unreadable`, with all
/// registers of the block as bytes, most significant byte of each register first.
///
/// A polled source says nothing of its own: identity is [`SourceIdentity::None`], there is no device time.
#[must_use]
pub fn decode_block(profile: &Profile, block: &Block, device: &DeviceId, words: &[u16], received: Received) -> DecodedSample {
    let mut sample = DecodedSample {
        device: device.clone(),
        channel: block.name.clone(),
        received,
        readings: Vec::new(),
        payload: Vec::new(),
        unreadable: None,
    };
    let layout = match profile.kind() {
        Kind::Polled(polled) => polled.layout(block),
        Kind::Publish(_) => None,
    };
    let Some(layout) = layout else {
        let detail = "the block is not one of the device's profile; give the device the profile it was polled by";
        sample.unreadable = Some((DeadLetterReason::new(DeadLetterKind::Undecodable, detail), bytes_of(words)));
        return sample;
    };
    if words.len() != usize::from(block.count) {
        let detail = format!("{} has {} registers, the answer holds {}; correct the profile", place_of(block), block.count, words.len());
        sample.unreadable = Some((DeadLetterReason::new(DeadLetterKind::Undecodable, &detail), bytes_of(words)));
        return sample;
    }
    sample.readings.reserve(layout.registers.len());
    for register in &layout.registers {
        match observe(register, layout, words) {
            Some(reading) => sample.readings.push(reading),
            None if sample.unreadable.is_none() => {
                let address = usize::from(block.address) + register.index;
                let detail = format!(
                    "register {address} of {} holds no number that can be kept exactly; check type, order and scaling in the profile",
                    place_of(block)
                );
                sample.unreadable = Some((DeadLetterReason::new(DeadLetterKind::Undecodable, &detail), bytes_of(words)));
            }
            None => {}
        }
    }
    sample
}

/// Reads a block again from the bytes that [`decode_block`] gave with this reason. `None` where the
/// profile has no block of that name at that place any more: from elsewhere the registers would be
/// taken for something that they are not.
#[must_use]
pub fn decode_block_again(profile: &Profile, reason: &DeadLetterReason, sample: &RawSample) -> Option<DecodedSample> {
    let Kind::Polled(polled) = profile.kind() else { return None };
    let block = polled.blocks().iter().find(|block| block.name == sample.channel)?;
    if !reason.detail.contains(&place_of(block)) {
        return None;
    }
    let (pairs, []) = sample.bytes.as_chunks::<2>() else { return None };
    let words: Vec<u16> = pairs.iter().map(|pair| u16::from_be_bytes(*pair)).collect();
    Some(decode_block(profile, block, &sample.device, &words, sample.received))
}

/// The block with where it lies in the device. A dead letter says it, so that its bytes are only read as what they were.
fn place_of(block: &Block) -> String {
    let function = match block.function {
        ReadFunction::Coils => "coils",
        ReadFunction::DiscreteInputs => "discrete inputs",
        ReadFunction::HoldingRegisters => "holding registers",
        ReadFunction::InputRegisters => "input registers",
    };
    format!("block {} ({} {function} from address {})", block.name, block.count, block.address)
}

fn bytes_of(words: &[u16]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

fn observe(register: &Register, layout: &Layout, words: &[u16]) -> Option<DecodedReading> {
    let (absence, flags) = status_of(register, layout, words);
    let reading = |value, reported| DecodedReading {
        metric: register.metric,
        slot: register.slot,
        value,
        reported,
        device_time: None,
        identity: SourceIdentity::None,
        flags,
    };
    if let Some(reason) = absence {
        return Some(reading(Value::Absent(reason), None));
    }
    let pattern = pattern_of(register, words)?;
    let number = match number_of(register, pattern) {
        Ok(number) => number?,
        Err(reason) => return Some(reading(Value::Absent(reason), None)),
    };
    let quantity = Quantity { value: scaled(number, register.scaling)?, unit: register.unit };
    let shown = || Reported { value: Arc::from(quantity.value.to_string()), unit: Arc::from(register.unit.ucum()) };
    if quantity.value.is_zero() && register.metric.definition().zero_is_absence {
        return Some(reading(Value::Absent(NoReading::SensorDisconnected), Some(shown())));
    }
    let own = register.metric.definition().unit?;
    let converted = quantity.convert(own).ok()?;
    Some(reading(Value::Quantity(converted), (own != register.unit).then(shown)))
}

/// What the block's status bits say of this register.
fn status_of(register: &Register, layout: &Layout, words: &[u16]) -> (Option<NoReading>, Flags) {
    let (mut absence, mut flags) = (None, Flags::default());
    for status in &layout.statuses {
        let speaks_of_it = status.metrics.is_empty() || status.metrics.contains(&register.metric);
        let word = words.get(status.index).copied().unwrap_or_default();
        if !speaks_of_it || (word >> status.bit & 1 == 1) != status.set {
            continue;
        }
        match status.meaning {
            Meaning::Fine => {}
            Meaning::Absent(reason) => absence = absence.or(Some(reason)),
            Meaning::Marked(mark) => flags = flags.with(mark),
        }
    }
    (absence, flags)
}

/// The bits of the number, most significant first, whatever order the device has.
fn pattern_of(register: &Register, words: &[u16]) -> Option<u64> {
    let Order { words_reversed, bytes_swapped } = register.order;
    let count = usize::from(register.encoding.words());
    let own = words.get(register.index..register.index + count)?;
    let mut pattern = 0_u64;
    for place in 0..count {
        let word = *own.get(if words_reversed { count - 1 - place } else { place })?;
        pattern = pattern << 16 | u64::from(if bytes_swapped { word.swap_bytes() } else { word });
    }
    Some(pattern)
}

/// The number of a bit pattern; `Err` where the pattern stands for an absence, `Ok(None)` where it
/// is a number that no decimal holds.
fn number_of(register: &Register, pattern: u64) -> Result<Option<Decimal>, NoReading> {
    if let Some((_, reason)) = register.absent.iter().find(|(code, _)| *code == pattern) {
        return Err(*reason);
    }
    let low = pattern.to_be_bytes();
    let [.., a, b, c, d] = low;
    Ok(match register.encoding {
        Encoding::U16 | Encoding::U32 | Encoding::U64 => Some(Decimal::from(pattern)),
        Encoding::I16 => Some(Decimal::from(i16::from_be_bytes([c, d]))),
        Encoding::I32 => Some(Decimal::from(i32::from_be_bytes([a, b, c, d]))),
        Encoding::F32 => {
            let float = f32::from_be_bytes([a, b, c, d]);
            if float.is_nan() {
                return Err(NoReading::NotANumber);
            }
            if float.is_infinite() {
                return Err(if float > 0.0 { NoReading::AboveRange } else { NoReading::BelowRange });
            }
            // The shortest text that is this f32 and no other: 36.6, not the 36.599998474121094 of an f64.
            number::decimal(&float.to_string())
        }
    })
}

/// Applies the scaling. A power of ten only moves the point, so that 370 / 10 stays 37.0.
fn scaled(number: Decimal, scaling: Scaling) -> Option<Decimal> {
    let mut value = number;
    if scaling.multiplier != Decimal::ONE {
        value = value.checked_mul(scaling.multiplier)?;
    }
    let places = scaling.divisor.ilog10();
    if 10_u32.pow(places) == scaling.divisor {
        value.set_scale(value.scale() + places).ok()?;
    } else {
        value = value.checked_div(Decimal::from(scaling.divisor))?.round_dp(DIVIDED_PLACES_MAX);
    }
    if scaling.offset.is_zero() { Some(value) } else { value.checked_add(scaling.offset) }
}
