//! A bedside monitor that is polled: a Modbus TCP server with the register map of the
//! `vitals-modbus` profile, and the faults that real ones show.
//!
//! The framing is written here from the Modbus Application Protocol 1.1b3 and the Modbus Messaging
//! on TCP/IP Guide 1.0b, not with the library that the gateway polls with: a mistake in a shared
//! codec would not be seen.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use vitalgate_domain::Metric;

use crate::recording::{ChartedSet, ChartedValue};

/// Input registers that are served, from address 0.
pub const REGISTERS: usize = 12;
/// "No value" in an unsigned register.
const ABSENT_UNSIGNED: u16 = 0xFFFF;
/// "No value" in a signed register.
const ABSENT_SIGNED: u16 = 0x8000;
/// Most registers of one request (Modbus Application Protocol 1.1b3, section 6.4).
const REGISTERS_PER_REQUEST_MAX: u16 = 125;
/// Length of the header before the unit id (Messaging on TCP/IP Guide 1.0b, section 3.1.3).
const HEADER_BYTES: usize = 6;
/// Longest request that is read: a unit id and a protocol data unit.
const REQUEST_BYTES_MAX: usize = 254;
/// Sets remembered as read.
const READ_SETS_MAX: usize = 1_000_000;

/// How the monitor misbehaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ModbusFault {
    /// It does not.
    #[default]
    None,
    /// It takes requests and never answers.
    Silent,
    /// It answers this late; the next request may then meet the answer to this one.
    Late(Duration),
    /// It answers with another transaction's number.
    WrongTransaction,
    /// It answers for another unit.
    WrongUnit,
    /// It answers every request with this exception code.
    Exception(u8),
    /// It closes every connection at the first request.
    Close,
    /// It answers with bytes that are no Modbus.
    Garbage,
}

/// What the register map has a place for.
pub const SERVED_METRICS: [Metric; 8] = [
    Metric::HeartRate,
    Metric::OxygenSaturation,
    Metric::RespiratoryRate,
    Metric::BodyTemperature,
    Metric::SystolicCuff,
    Metric::DiastolicCuff,
    Metric::MeanCuff,
    Metric::BodyWeight,
];

/// What the registers hold at one time.
#[derive(Debug, Clone, PartialEq)]
pub struct ServedSet {
    /// The value of the counter registers.
    pub counter: u32,
    /// The values that are there, as the registers hold them; of [`SERVED_METRICS`] those not named are served as absent.
    pub values: Vec<(Metric, f64)>,
    registers: [u16; REGISTERS],
}

impl ServedSet {
    /// Registers for a charted set. Values that the map has no register for are not served.
    #[must_use]
    pub fn of_set(set: &ChartedSet, counter: u32) -> Self {
        let mut registers = [ABSENT_UNSIGNED; REGISTERS];
        registers[3] = ABSENT_SIGNED;
        place_float(&mut registers, f32::NAN);
        registers[9] = 0;
        registers[10] = (counter >> 16) as u16;
        registers[11] = (counter & 0xFFFF) as u16;
        let mut values = Vec::new();
        for charted in &set.values {
            let Ok(number) = charted.value.parse::<f64>() else { continue };
            if let Some(held) = place(&mut registers, charted.metric, number) {
                values.push((charted.metric, held));
            }
        }
        Self { counter, values, registers }
    }

    /// The same with another weight, in sixty-fourths of a kilogram: it tells this set from every other one, which is how what was
    /// read is compared with what arrived.
    #[must_use]
    pub fn marked(set: &ChartedSet, counter: u32) -> Self {
        const LIGHTEST_KG: f64 = 40.0;
        let mut set = set.clone();
        set.values.retain(|value| value.metric != Metric::BodyWeight);
        let weight = LIGHTEST_KG + f64::from(counter) / 64.0;
        set.values.push(ChartedValue { metric: Metric::BodyWeight, value: weight.to_string().into(), unit: "kg".into() });
        Self::of_set(&set, counter)
    }
}

/// Puts a value into its register and gives what that holds; `None` when the map has none for the metric.
fn place(registers: &mut [u16; REGISTERS], metric: Metric, number: f64) -> Option<f64> {
    let whole = |factor: f64| (number * factor).round().clamp(0.0, f64::from(u16::MAX - 1)) as u16;
    let (index, word, factor) = match metric {
        Metric::HeartRate => (0, whole(1.0), 1.0),
        Metric::OxygenSaturation => (1, whole(10.0), 10.0),
        Metric::RespiratoryRate => (2, whole(1.0), 1.0),
        Metric::BodyTemperature => {
            let tenths = (number * 10.0).round() as i16;
            registers[3] = tenths as u16;
            return Some(f64::from(tenths) / 10.0);
        }
        Metric::SystolicCuff => (4, whole(1.0), 1.0),
        Metric::DiastolicCuff => (5, whole(1.0), 1.0),
        Metric::MeanCuff => (6, whole(1.0), 1.0),
        Metric::BodyWeight => {
            place_float(registers, number as f32);
            return Some(f64::from(number as f32));
        }
        _ => return None,
    };
    registers[index] = word;
    Some(f64::from(word) / factor)
}

fn place_float(registers: &mut [u16; REGISTERS], number: f32) {
    let bits = number.to_bits();
    registers[7] = (bits >> 16) as u16;
    registers[8] = (bits & 0xFFFF) as u16;
}

/// A set that was read, and over which connection.
#[derive(Debug, Clone, PartialEq)]
pub struct ReadSet {
    /// The set.
    pub set: ServedSet,
    /// Counted from 1 in the order of arrival.
    pub connection: u64,
}

struct Shared {
    unit: u8,
    now: Mutex<Now>,
}

struct Now {
    set: ServedSet,
    following: Option<Box<dyn Iterator<Item = ServedSet> + Send>>,
    fault: ModbusFault,
    read: Vec<ReadSet>,
    requests: u64,
}

impl Shared {
    fn now(&self) -> std::sync::MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A polled device; it stops when this is dropped.
pub struct ModbusMonitor {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: AbortHandle,
}

impl Drop for ModbusMonitor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl ModbusMonitor {
    /// Starts to serve `first` for `unit`; port 0 takes any free one.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub async fn start(address: SocketAddr, unit: u8, first: ServedSet) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let now = Now { set: first, following: None, fault: ModbusFault::None, read: Vec::new(), requests: 0 };
        let shared = Arc::new(Shared { unit, now: Mutex::new(now) });
        let task = tokio::spawn(accept(listener, shared.clone())).abort_handle();
        Ok(Self { address, shared, task })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves another set from the next request on.
    pub fn serve(&self, set: ServedSet) {
        self.shared.now().set = set;
    }

    /// Serves each of these sets to one read only, from the next on; the last one stays.
    pub fn serve_each(&self, sets: impl Iterator<Item = ServedSet> + Send + 'static) {
        let mut now = self.shared.now();
        now.following = Some(Box::new(sets));
        now.follow();
    }

    /// Misbehaves from the next request on.
    pub fn misbehave(&self, fault: ModbusFault) {
        self.shared.now().fault = fault;
    }

    /// The sets that were read at least once, in order.
    #[must_use]
    pub fn read_sets(&self) -> Vec<ReadSet> {
        self.shared.now().read.clone()
    }

    /// Requests received.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.shared.now().requests
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    // Dropped with this task, and its connections with it.
    let mut connections = JoinSet::new();
    let mut number = 0;
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    number += 1;
                    connections.spawn(connection(stream, number, shared.clone()));
                }
                Err(error) => tracing::debug!(%error, "a connection could not be accepted"),
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(mut stream: TcpStream, number: u64, shared: Arc<Shared>) {
    while let Some(request) = read_request(&mut stream).await {
        let (answer, delay) = shared.answer(&request, number);
        if let Some(delay) = delay {
            tokio::time::sleep(delay).await;
        }
        match answer {
            Answer::Bytes(bytes) => {
                if stream.write_all(&bytes).await.is_err() {
                    return;
                }
            }
            Answer::Nothing => {}
            Answer::Close => return,
        }
    }
}

struct Request {
    transaction: [u8; 2],
    unit: u8,
    data: Vec<u8>,
}

enum Answer {
    Bytes(Vec<u8>),
    Nothing,
    Close,
}

async fn read_request(stream: &mut TcpStream) -> Option<Request> {
    let mut header = [0_u8; HEADER_BYTES];
    stream.read_exact(&mut header).await.ok()?;
    let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
    if !(2..=REQUEST_BYTES_MAX).contains(&length) || header[2..4] != [0, 0] {
        return None;
    }
    let mut rest = vec![0_u8; length];
    stream.read_exact(&mut rest).await.ok()?;
    let unit = rest.first().copied()?;
    Some(Request { transaction: [header[0], header[1]], unit, data: rest.split_off(1) })
}

impl Shared {
    fn answer(&self, request: &Request, connection: u64) -> (Answer, Option<Duration>) {
        let mut now = self.now();
        now.requests += 1;
        let fault = now.fault;
        let data = match fault {
            ModbusFault::Silent => return (Answer::Nothing, None),
            ModbusFault::Close => return (Answer::Close, None),
            ModbusFault::Garbage => return (Answer::Bytes(vec![0xFF; 32]), None),
            ModbusFault::Exception(code) => exception(request, code),
            _ if request.unit != self.unit => return (Answer::Nothing, None),
            _ => now.registers_for(request, connection),
        };
        let mut transaction = request.transaction;
        let mut unit = request.unit;
        match fault {
            ModbusFault::WrongTransaction => transaction[1] = transaction[1].wrapping_add(1),
            ModbusFault::WrongUnit => unit = unit.wrapping_add(1),
            _ => {}
        }
        let delay = if let ModbusFault::Late(delay) = fault { Some(delay) } else { None };
        (Answer::Bytes(framed(transaction, unit, &data)), delay)
    }
}

impl Now {
    /// Lets the next of the sets that are each served once follow.
    fn follow(&mut self) {
        if let Some(next) = self.following.as_mut().and_then(Iterator::next) {
            self.set = next;
        }
    }

    fn registers_for(&mut self, request: &Request, connection: u64) -> Vec<u8> {
        let [function, address_high, address_low, count_high, count_low] = request.data[..] else { return exception(request, 3) };
        if function != 4 {
            return exception(request, 1);
        }
        let address = usize::from(u16::from_be_bytes([address_high, address_low]));
        let count = u16::from_be_bytes([count_high, count_low]);
        if count == 0 || count > REGISTERS_PER_REQUEST_MAX {
            return exception(request, 3);
        }
        let Some(words) = self.set.registers.get(address..address + usize::from(count)) else { return exception(request, 2) };
        let mut data = vec![function, (count * 2) as u8];
        data.extend(words.iter().flat_map(|word| word.to_be_bytes()));
        if self.read.last().is_none_or(|last| last.set.counter != self.set.counter) && self.read.len() < READ_SETS_MAX {
            self.read.push(ReadSet { set: self.set.clone(), connection });
        }
        self.follow();
        data
    }
}

fn exception(request: &Request, code: u8) -> Vec<u8> {
    vec![request.data.first().copied().unwrap_or(0) | 0x80, code]
}

fn framed(transaction: [u8; 2], unit: u8, data: &[u8]) -> Vec<u8> {
    let length = (data.len() + 1) as u16;
    let mut bytes = Vec::with_capacity(HEADER_BYTES + 1 + data.len());
    bytes.extend_from_slice(&transaction);
    bytes.extend_from_slice(&[0, 0]);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.push(unit);
    bytes.extend_from_slice(data);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::Recording;

    fn set() -> ChartedSet {
        let text =
            "patient,offset_s,vital,value,unit\np,0,heart_rate,72,/min\np,0,body_temp,36.6,Cel\np,0,sao2,97,%\np,0,body_weight,80.5,kg\n";
        Recording::parse(text).unwrap().sets("p")[0].clone()
    }

    async fn ask(stream: &mut TcpStream, request: &[u8]) -> Vec<u8> {
        stream.write_all(request).await.unwrap();
        let mut header = [0; HEADER_BYTES];
        stream.read_exact(&mut header).await.unwrap();
        let mut rest = vec![0; usize::from(u16::from_be_bytes([header[4], header[5]]))];
        stream.read_exact(&mut rest).await.unwrap();
        [header.to_vec(), rest].concat()
    }

    #[tokio::test]
    async fn the_registers_hold_the_charted_values_and_absence_is_not_zero() {
        let monitor = ModbusMonitor::start("127.0.0.1:0".parse().unwrap(), 7, ServedSet::of_set(&set(), 0x0001_0002)).await.unwrap();
        let mut stream = TcpStream::connect(monitor.address()).await.unwrap();
        let answer = ask(&mut stream, &[0, 9, 0, 0, 0, 6, 7, 4, 0, 0, 0, 12]).await;
        assert_eq!(answer[..9], [0, 9, 0, 0, 0, 27, 7, 4, 24]);
        let words: Vec<u16> = answer[9..].chunks(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
        assert_eq!(words[..7], [72, 970, 0xFFFF, 366, 0xFFFF, 0xFFFF, 0xFFFF]);
        assert_eq!(f32::from_bits(u32::from(words[7]) << 16 | u32::from(words[8])).to_string(), "80.5");
        assert_eq!(words[9..], [0, 1, 2]);
        assert_eq!(monitor.read_sets().len(), 1);
    }

    #[tokio::test]
    async fn sets_that_are_each_served_once_are_all_different_and_known_with_their_connection() {
        let of = |counter| ServedSet::of_set(&set(), counter);
        let monitor = ModbusMonitor::start("127.0.0.1:0".parse().unwrap(), 7, of(1)).await.unwrap();
        monitor.serve_each((2..4).map(of));
        for _connection in 0..2 {
            let mut stream = TcpStream::connect(monitor.address()).await.unwrap();
            ask(&mut stream, &[0, 9, 0, 0, 0, 6, 7, 4, 0, 0, 0, 12]).await;
        }
        let read = monitor.read_sets();
        assert_eq!(read.iter().map(|read| (read.set.counter, read.connection)).collect::<Vec<_>>(), [(2, 1), (3, 2)]);
        assert_eq!(read[0].set.values[1], (Metric::BodyTemperature, 36.6));
    }

    #[tokio::test]
    async fn a_request_outside_the_map_is_answered_with_an_exception() {
        let monitor = ModbusMonitor::start("127.0.0.1:0".parse().unwrap(), 1, ServedSet::of_set(&set(), 1)).await.unwrap();
        let mut stream = TcpStream::connect(monitor.address()).await.unwrap();
        assert_eq!(ask(&mut stream, &[0, 1, 0, 0, 0, 6, 1, 4, 0, 5, 0, 12]).await[7..], [0x84, 2]);
        assert_eq!(ask(&mut stream, &[0, 2, 0, 0, 0, 6, 1, 6, 0, 0, 0, 1]).await[7..], [0x86, 1], "writing is not there at all");
    }
}
