//! The profile of a polled device: which registers hold what.

use std::sync::Arc;

use rust_decimal::Decimal;
use vitalgate_domain::limits::READINGS_PER_SAMPLE_MAX;
use vitalgate_domain::{Metric, NoReading, Unit};

use crate::document::{At, Report, Section};
use crate::meaning::{self, Meaning};
use crate::number;

/// Most registers of one read (Modbus Application Protocol V1.1b3, 6.3 and 6.4).
pub const BLOCK_REGISTERS_MAX: u16 = 125;
/// Most blocks of one profile.
const BLOCKS_MAX: usize = 64;
/// Shortest and longest interval that a profile may demand between polls, in milliseconds.
const POLL_INTERVAL_MS_MIN: i64 = 10;
const POLL_INTERVAL_MS_MAX: i64 = 86_400_000;

/// What is read of a device. There is nothing that writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReadFunction {
    /// 01 Read Coils.
    Coils,
    /// 02 Read Discrete Inputs.
    DiscreteInputs,
    /// 03 Read Holding Registers.
    HoldingRegisters,
    /// 04 Read Input Registers.
    InputRegisters,
}

impl ReadFunction {
    /// Whether it reads single bits: they can prove a kind of device, and hold no value.
    fn reads_bits(self) -> bool {
        matches!(self, Self::Coils | Self::DiscreteInputs)
    }
}

/// Registers that are read together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Its name in the profile; the channel of its readings.
    pub name: Arc<str>,
    /// How it is read.
    pub function: ReadFunction,
    /// The first address as it stands on the wire, from 0.
    pub address: u16,
    /// How many registers or coils, 1 to [`BLOCK_REGISTERS_MAX`].
    pub count: u16,
}

/// Registers whose content proves that this is the device of the profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityCheck {
    block: Block,
    expected: Box<[u16]>,
}

impl IdentityCheck {
    /// What to read.
    #[must_use]
    pub fn block(&self) -> &Block {
        &self.block
    }

    /// Whether the registers hold what this kind of device holds.
    #[must_use]
    pub fn matches(&self, words: &[u16]) -> bool {
        *self.expected == *words
    }
}

/// A profile of a polled device, compiled.
#[derive(Debug)]
pub struct PolledProfile {
    blocks: Vec<Block>,
    layouts: Vec<Layout>,
    min_poll_interval_ms: u64,
    identity: Option<IdentityCheck>,
}

/// What the registers of one block hold.
#[derive(Debug, Default)]
pub(crate) struct Layout {
    pub(crate) registers: Vec<Register>,
    pub(crate) statuses: Vec<StatusBit>,
}

/// How a number is laid into registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    U16,
    I16,
    U32,
    I32,
    U64,
    F32,
}

impl Encoding {
    pub(crate) fn words(self) -> u16 {
        match self {
            Self::U16 | Self::I16 => 1,
            Self::U32 | Self::I32 | Self::F32 => 2,
            Self::U64 => 4,
        }
    }

    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "u16" => Self::U16,
            "i16" => Self::I16,
            "u32" => Self::U32,
            "i32" => Self::I32,
            "u64" => Self::U64,
            "f32" => Self::F32,
            _ => return None,
        })
    }
}

/// The order of bytes, named after where the bytes A (most significant) to D of a 32-bit number stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Order {
    /// The least significant word stands first.
    pub(crate) words_reversed: bool,
    /// The two bytes of each word are exchanged.
    pub(crate) bytes_swapped: bool,
}

impl Order {
    fn parse(text: &str) -> Option<Self> {
        let (words_reversed, bytes_swapped) = match text {
            "ABCD" => (false, false),
            "CDAB" => (true, false),
            "BADC" => (false, true),
            "DCBA" => (true, true),
            _ => return None,
        };
        Some(Self { words_reversed, bytes_swapped })
    }
}

/// `number * multiplier / divisor + offset`, in decimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Scaling {
    pub(crate) multiplier: Decimal,
    pub(crate) divisor: u32,
    pub(crate) offset: Decimal,
}

/// One value in the registers of a block.
#[derive(Debug)]
pub(crate) struct Register {
    /// Place in the block, in registers.
    pub(crate) index: usize,
    pub(crate) encoding: Encoding,
    pub(crate) order: Order,
    pub(crate) scaling: Scaling,
    pub(crate) metric: Metric,
    pub(crate) unit: Unit,
    pub(crate) slot: u16,
    /// Bit patterns that stand for an absence.
    pub(crate) absent: Vec<(u64, NoReading)>,
}

/// A bit that says something about values of its block.
#[derive(Debug)]
pub(crate) struct StatusBit {
    /// Place in the block, in registers.
    pub(crate) index: usize,
    pub(crate) bit: u8,
    /// The state of the bit that means it.
    pub(crate) set: bool,
    pub(crate) meaning: Meaning,
    /// The metrics it speaks of; empty for all of the block.
    pub(crate) metrics: Vec<Metric>,
}

impl PolledProfile {
    /// What is read of the device, in this order.
    #[must_use]
    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// The shortest interval between polls that the device bears, in milliseconds.
    #[must_use]
    pub fn min_poll_interval_ms(&self) -> u64 {
        self.min_poll_interval_ms
    }

    /// How to prove that the device is of this kind, where it has something to prove it with.
    #[must_use]
    pub fn identity_check(&self) -> Option<&IdentityCheck> {
        self.identity.as_ref()
    }

    /// What the registers of the block hold; `None` when it is not a block of this profile.
    pub(crate) fn layout(&self, block: &Block) -> Option<&Layout> {
        let place = self.blocks.iter().position(|own| own == block)?;
        self.layouts.get(place)
    }

    /// Reads `[polled]`.
    pub(crate) fn load(section: &mut Section<'_>, report: &mut Report) -> Self {
        let interval = section.required_integer(report, "min_poll_interval_ms", POLL_INTERVAL_MS_MIN..=POLL_INTERVAL_MS_MAX);
        // Said by earlier profiles, and without effect: there is never more than one connection to an address.
        section.flag(report, "single_connection");
        let identity = section.section(report, "identity").and_then(|identity| load_identity(identity, report));
        let blocks = load_blocks(section, report);
        let mut layouts: Vec<Layout> = blocks.iter().map(|_| Layout::default()).collect();
        load_registers(section, &blocks, &mut layouts, report);
        load_statuses(section, &blocks, &mut layouts, report);
        check_use(section, &blocks, &layouts, report);
        let readings: usize = layouts.iter().map(|layout| layout.registers.len()).sum();
        if readings == 0 {
            section.fault(report, "the profile reads no value", "add [[polled.register]]");
        }
        if readings > READINGS_PER_SAMPLE_MAX {
            section.fault(report, format!("the profile reads more than {READINGS_PER_SAMPLE_MAX} values"), "split the profile");
        }
        let min_poll_interval_ms = interval.and_then(|at| u64::try_from(at.value).ok()).unwrap_or_default();
        Self { blocks, layouts, min_poll_interval_ms, identity }
    }
}

fn load_function(section: &mut Section<'_>, report: &mut Report) -> Option<At<ReadFunction>> {
    let text = section.required_text(report, "function")?;
    let function = match text.value {
        "coils" => Some(ReadFunction::Coils),
        "discrete_inputs" => Some(ReadFunction::DiscreteInputs),
        "holding_registers" => Some(ReadFunction::HoldingRegisters),
        "input_registers" => Some(ReadFunction::InputRegisters),
        _ => None,
    };
    if function.is_none() {
        let remedy = "use holding_registers or input_registers, or to prove the device's kind also coils or discrete_inputs";
        report.at(&text, format!("{:?} is not a read function", text.value), remedy);
    }
    Some(At { value: function?, line: text.line, place: text.place })
}

fn load_address(section: &mut Section<'_>, report: &mut Report) -> Option<At<u16>> {
    let at = section.required_integer(report, "address", 0..=i64::from(u16::MAX))?;
    let value = u16::try_from(at.value).ok()?;
    Some(At { value, line: at.line, place: at.place })
}

fn load_identity(mut section: Section<'_>, report: &mut Report) -> Option<IdentityCheck> {
    let function = load_function(&mut section, report);
    let address = load_address(&mut section, report);
    let expected: Vec<u16> =
        section.integers(report, "expect", &(0..=i64::from(u16::MAX))).into_iter().filter_map(|word| u16::try_from(word).ok()).collect();
    if expected.is_empty() {
        section.fault(report, "expects nothing", "add expect = [0x1234]");
    }
    section.source(report);
    let address = address?.value;
    let count = u16::try_from(expected.len()).ok().filter(|count| *count <= BLOCK_REGISTERS_MAX && ends_in_range(address, *count));
    if count.is_none() {
        section.fault(report, "reaches past what one read can hold", format!("expect at most {BLOCK_REGISTERS_MAX} registers"));
    }
    section.close(report);
    let block = Block { name: Arc::from("identity"), function: function?.value, address, count: count? };
    Some(IdentityCheck { block, expected: expected.into() })
}

fn ends_in_range(address: u16, count: u16) -> bool {
    u32::from(address) + u32::from(count) <= 0x1_0000
}

fn load_blocks(section: &mut Section<'_>, report: &mut Report) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    for mut entry in section.sections(report, "block") {
        if blocks.len() >= BLOCKS_MAX {
            entry.fault(report, format!("the profile has more than {BLOCKS_MAX} blocks"), "split the profile");
            break;
        }
        let name = entry.required_text(report, "name");
        let function = load_function(&mut entry, report);
        let address = load_address(&mut entry, report);
        let count = entry.required_integer(report, "count", 1..=i64::from(BLOCK_REGISTERS_MAX));
        entry.source(report);
        if let (Some(name), Some(function), Some(address), Some(count)) = (name, function, address, count) {
            let count = u16::try_from(count.value).unwrap_or(1);
            if function.value.reads_bits() {
                let problem = "coils and discrete inputs hold no value, and cannot speak of the values of another block";
                report.at(&function, problem, "read holding_registers or input_registers that hold the values and their status");
            }
            if !ends_in_range(address.value, count) {
                report.at(&address, "the block ends beyond address 65535", "correct address or count");
            }
            if blocks.iter().any(|known| *known.name == *name.value) {
                report.at(&name, "is given twice", "keep one, or rename it");
            }
            blocks.push(Block { name: Arc::from(name.value), function: function.value, address: address.value, count });
        }
        entry.close(report);
    }
    blocks
}

/// Reads `block` and `address`: which block, and the place in it in registers.
fn load_place(entry: &mut Section<'_>, blocks: &[Block], words: u16, report: &mut Report) -> Option<(usize, usize)> {
    let name = entry.required_text(report, "block");
    let address = load_address(entry, report);
    let name = name?;
    let Some(place) = blocks.iter().position(|block| *block.name == *name.value) else {
        report.at(&name, format!("{:?} is not a block of the profile", name.value), "name one of [[polled.block]]");
        return None;
    };
    let (block, address) = (blocks.get(place)?, address?);
    let first = address.value.checked_sub(block.address);
    let inside = first.filter(|first| u32::from(*first) + u32::from(words) <= u32::from(block.count));
    if inside.is_none() {
        let last = u32::from(block.address) + u32::from(block.count) - 1;
        report.at(&address, "lies outside its block", format!("{} holds the addresses {} to {last}", block.name, block.address));
    }
    inside.map(|first| (place, usize::from(first)))
}

fn load_registers(section: &mut Section<'_>, blocks: &[Block], layouts: &mut [Layout], report: &mut Report) {
    for mut entry in section.sections(report, "register") {
        let encoding = entry.required_text(report, "type").and_then(|text| {
            let encoding = Encoding::parse(text.value);
            if encoding.is_none() {
                report.at(&text, format!("{:?} is not a type", text.value), "use u16, i16, u32, i32, u64 or f32");
            }
            encoding
        });
        let place = load_place(&mut entry, blocks, encoding.map_or(1, Encoding::words), report);
        let order = load_order(&mut entry, report);
        let scaling = load_scaling(&mut entry, report);
        let metric = meaning::metric(&mut entry, report);
        let unit = entry.required_text(report, "unit").and_then(|text| meaning::unit_of(metric?, &text, report));
        let absent = encoding.map_or_else(Vec::new, |encoding| load_codes(&mut entry, encoding, report));
        entry.source(report);
        if let (Some(encoding), Some((block, index)), Some(metric), Some(unit)) = (encoding, place, metric, unit) {
            let earlier = layouts.iter().flat_map(|layout| &layout.registers).filter(|other| other.metric == metric).count();
            let slot = u16::try_from(earlier).unwrap_or(u16::MAX);
            let register = Register { index, encoding, order, scaling, metric, unit, slot, absent };
            if let Some(layout) = layouts.get_mut(block) {
                if layout.registers.iter().any(|other| overlap(other, &register)) {
                    entry.fault(report, "reads registers that another value of the profile reads", "correct address or type");
                }
                layout.registers.push(register);
            }
        }
        entry.close(report);
    }
}

fn overlap(one: &Register, other: &Register) -> bool {
    let end = |register: &Register| register.index + usize::from(register.encoding.words());
    one.index < end(other) && other.index < end(one)
}

fn load_order(entry: &mut Section<'_>, report: &mut Report) -> Order {
    let plain = Order { words_reversed: false, bytes_swapped: false };
    let Some(text) = entry.text(report, "order") else { return plain };
    Order::parse(text.value).unwrap_or_else(|| {
        report.at(&text, format!("{:?} is not an order", text.value), "use ABCD, CDAB, BADC or DCBA");
        plain
    })
}

fn load_scaling(entry: &mut Section<'_>, report: &mut Report) -> Scaling {
    let mut decimal = |key, neutral: Decimal| {
        let Some(text) = entry.text(report, key) else { return neutral };
        match number::decimal(text.value) {
            Some(number) if neutral.is_zero() || !number.is_zero() => return number,
            Some(_zero) => report.at(&text, "is 0: every value would be the same", "write what the manual says, or leave it out"),
            None => report.at(&text, format!("{:?} is not a decimal number", text.value), "write it like \"0.01\""),
        }
        neutral
    };
    let (multiplier, offset) = (decimal("multiplier", Decimal::ONE), decimal("offset", Decimal::ZERO));
    let divisor = entry.integer(report, "divisor", 1..=1_000_000_000).and_then(|at| u32::try_from(at.value).ok()).unwrap_or(1);
    Scaling { multiplier, divisor, offset }
}

/// Reads `absent = [{ code = 0xFFFF, means = "..." }]`; a code is the bit pattern of the register's own width.
fn load_codes(entry: &mut Section<'_>, encoding: Encoding, report: &mut Report) -> Vec<(u64, NoReading)> {
    let (lowest, highest) = match encoding.words() {
        1 => (i64::from(i16::MIN), i64::from(u16::MAX)),
        2 => (i64::from(i32::MIN), i64::from(u32::MAX)),
        _ => (i64::MIN, i64::MAX),
    };
    let mask = u64::MAX >> (64 - 16 * u32::from(encoding.words()));
    let mut codes = Vec::new();
    for mut code in meaning::bounded(entry.sections(report, "absent"), report) {
        let number = code.required_integer(report, "code", lowest..=highest);
        if let Some(negative) = number.as_ref().filter(|number| encoding == Encoding::F32 && number.value < 0) {
            let pattern = (negative.value as f32).to_bits();
            let remedy = format!("write {pattern:#010X} if it is the number {}", negative.value);
            report.at(negative, "is negative, and the code of an f32 is its bit pattern", remedy);
        }
        if let (Some(number), Some(reason)) = (number, meaning::absence(&mut code, report)) {
            codes.push((number.value.cast_unsigned() & mask, reason));
        }
        code.close(report);
    }
    codes
}

fn load_statuses(section: &mut Section<'_>, blocks: &[Block], layouts: &mut [Layout], report: &mut Report) {
    for mut entry in section.sections(report, "status") {
        let place = load_place(&mut entry, blocks, 1, report);
        let bit = entry.required_integer(report, "bit", 0..=15);
        let clear = entry.flag(report, "when_clear");
        let meaning = meaning::meaning(&mut entry, report);
        let mut metrics = Vec::new();
        for text in entry.texts(report, "metrics") {
            match Metric::parse(text.value) {
                Some(metric) => metrics.push(metric),
                None => report.at(&text, format!("{:?} is not a metric", text.value), "name a metric of the profile's registers"),
            }
        }
        entry.source(report);
        if let (Some((block, index)), Some(bit), Some(meaning)) = (place, bit, meaning)
            && let (Some(layout), Ok(bit)) = (layouts.get_mut(block), u8::try_from(bit.value))
        {
            layout.statuses.push(StatusBit { index, bit, set: !clear, meaning, metrics });
        }
        entry.close(report);
    }
}

/// A block is decoded by itself: one without values, or a bit that speaks of none of its block's values, would do nothing in silence.
fn check_use(section: &Section<'_>, blocks: &[Block], layouts: &[Layout], report: &mut Report) {
    for (block, layout) in blocks.iter().zip(layouts).filter(|(block, _)| !block.function.reads_bits()) {
        if layout.registers.is_empty() {
            let problem = format!("no value is read from block {}", block.name);
            section.fault(report, problem, "take the block out, or put its status bits and values into one block");
        }
        let unknown = |status: &StatusBit| status.metrics.iter().any(|metric| !layout.registers.iter().any(|own| own.metric == *metric));
        if layout.statuses.iter().any(unknown) {
            let problem = format!("a status of block {} names a metric that the block has not", block.name);
            section.fault(report, problem, "name metrics of the same block");
        }
    }
}
