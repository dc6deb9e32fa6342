//! A load generator that costs less than what it loads: packets are encoded once and only their
//! numbers are patched, acknowledgements are read by hand, one task serves one connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use vitalgate_domain::DeviceId;

use crate::connection::{ConnectError, Stream, Transport};
use crate::protocol::{Incoming, ProtocolVersion};

/// First counter of a run: ten digits from here on, so that a counter can be patched in place.
const COUNTER_FIRST: u64 = 1_000_000_000;
/// Digits of a counter.
const COUNTER_DIGITS: usize = 10;
/// Keep-alive of a load connection in seconds; 0 is none.
const KEEP_ALIVE_S: u16 = 0;
/// Longest wait for the last acknowledgements after the end of a run.
const LAST_ANSWERS: Duration = Duration::from_secs(10);
/// Room for acknowledgements of one read, in bytes.
const READ_BYTES: usize = 4 * 1024;
/// Length of a PUBACK in MQTT 3.1.1 (section 3.4).
const PUBACK_BYTES: usize = 4;

/// Why a load run failed.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A connection did not come about.
    #[error("device {device} could not connect")]
    Connect {
        /// The device.
        device: DeviceId,
        /// Why.
        #[source]
        source: ConnectError,
    },
    /// The server refused a device or sent something that was not asked for.
    #[error("device {device}: {what}")]
    Refused {
        /// The device.
        device: DeviceId,
        /// What happened.
        what: String,
    },
    /// The connection broke during the run.
    #[error("device {device}: the connection broke")]
    Broken {
        /// The device.
        device: DeviceId,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
}

/// What each message carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoadPayload {
    /// This many bytes that mean nothing, for a broker.
    Opaque(usize),
    /// One heart rate in the `vitals-json` form with a new counter each time, padded with spaces
    /// to this many bytes.
    OneReading(usize),
    /// Several readings in the `vitals-json` form with a new counter each time, unpadded.
    Readings(usize),
}

/// A load run.
#[derive(Clone)]
pub struct Load {
    /// The server.
    pub address: SocketAddr,
    /// One connection per device, each with its own way to connect.
    pub devices: Vec<(DeviceId, Transport)>,
    /// Password of every device, where they have one.
    pub password: Option<String>,
    /// Messages in flight per connection, at least 1.
    pub in_flight: u16,
    /// What is sent.
    pub payload: LoadPayload,
    /// Name of the run; a gateway tells runs apart by it.
    pub run: String,
    /// Messages per second of all connections together; as fast as acknowledged when `None`.
    pub rate_per_s: Option<f64>,
    /// Acknowledgements before this moment of the run are not counted.
    pub warm_up: Duration,
    /// Length of the run after the warm-up.
    pub duration: Duration,
}

/// What a load run showed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LoadReport {
    /// Messages acknowledged after the warm-up, within the duration.
    pub acknowledged: u64,
    /// Messages acknowledged at all, the warm-up and the last answers included.
    pub acknowledged_in_all: u64,
    /// Acknowledged messages per second.
    pub per_s: f64,
    /// Median time from sending to acknowledgement in microseconds.
    pub p50_us: u64,
    /// 99th percentile of the same.
    pub p99_us: u64,
    /// Longest of the same.
    pub longest_us: u64,
    /// Messages that a fixed rate asked for and that found no place in flight in time.
    pub late: u64,
}

/// The fixed parts of a PUBLISH and where its numbers stand.
#[derive(Clone)]
struct Template {
    bytes: Vec<u8>,
    packet_at: usize,
    counter_at: Option<usize>,
}

struct Connection {
    device: DeviceId,
    stream: Stream,
    template: Template,
    in_flight: u16,
    interval: Option<Duration>,
}

#[derive(Default)]
struct Counted {
    report: LoadReport,
    waited_us: Vec<u32>,
}

impl LoadPayload {
    fn bytes(&self, run: &str) -> Vec<u8> {
        let counter = COUNTER_FIRST;
        let reading = |metric: &str, value: u32, unit: &str| format!("{{\"metric\":\"{metric}\",\"value\":{value},\"unit\":\"{unit}\"}}");
        let kinds =
            [("heart_rate", 72, "/min"), ("resp_rate", 14, "/min"), ("spo2", 97, "%"), ("body_temp", 37, "Cel"), ("body_weight", 80, "kg")];
        let text = |count: usize| {
            let values: Vec<String> = kinds.iter().cycle().take(count).map(|(metric, value, unit)| reading(metric, *value, unit)).collect();
            format!("{{\"run\":\"{run}\",\"seq\":{counter},\"values\":[{}]}}", values.join(","))
        };
        match self {
            Self::Opaque(length) => vec![b'x'; *length],
            Self::OneReading(length) => format!("{:<length$}", text(1)).into_bytes(),
            Self::Readings(count) => text(*count).into_bytes(),
        }
    }
}

impl Template {
    fn new(device: &DeviceId, payload: &LoadPayload, run: &str) -> Self {
        let payload = payload.bytes(run);
        let topic = format!("vitals/{device}/vitals");
        let mut bytes = BytesMut::new();
        // A topic and payload of this length always encode.
        let _ = ProtocolVersion::V311.publish(&topic, bytes::Bytes::from(payload.clone()), 1, false, &mut bytes);
        let packet_at = bytes.len().saturating_sub(payload.len() + 2);
        let marker = COUNTER_FIRST.to_string();
        let counter_at = bytes.windows(COUNTER_DIGITS).position(|window| window == marker.as_bytes());
        Self { bytes: bytes.to_vec(), packet_at, counter_at }
    }

    fn write(&self, packet: u16, counter: u64, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.bytes);
        let written = &mut out[start..];
        written[self.packet_at..self.packet_at + 2].copy_from_slice(&packet.to_be_bytes());
        if let Some(at) = self.counter_at {
            let mut rest = counter;
            for digit in written[at..at + COUNTER_DIGITS].iter_mut().rev() {
                *digit = b'0' + (rest % 10) as u8;
                rest /= 10;
            }
        }
    }
}

impl Load {
    /// Connects every device, then sends for the time of the run. All connections are up before
    /// the first message is sent.
    ///
    /// # Errors
    /// When a device cannot connect, is refused or loses its connection.
    pub async fn run(&self) -> Result<LoadReport, LoadError> {
        let count = self.devices.len().max(1);
        let interval = self.rate_per_s.map(|rate| Duration::from_secs_f64(count as f64 / rate.max(f64::MIN_POSITIVE)));
        let mut connections = Vec::with_capacity(count);
        for (device, transport) in &self.devices {
            let stream = self.open(device, transport).await?;
            let template = Template::new(device, &self.payload, &self.run);
            connections.push(Connection { device: device.clone(), stream, template, in_flight: self.in_flight.max(1), interval });
        }
        let start = Instant::now();
        let (warm, end) = (start + self.warm_up, start + self.warm_up + self.duration);
        let tasks: Vec<_> = connections
            .into_iter()
            .enumerate()
            .map(|(index, connection)| {
                // Spread over the interval, so that a fixed rate does not come in bursts.
                let first = start + interval.unwrap_or_default().mul_f64(index as f64 / count as f64);
                tokio::spawn(connection.load(first, warm, end))
            })
            .collect();
        let mut all = Counted::default();
        for task in tasks {
            let counted = task.await.map_err(|error| self.refused(&self.devices[0].0, &error.to_string()))??;
            all.report.acknowledged_in_all += counted.report.acknowledged_in_all;
            all.report.late += counted.report.late;
            all.waited_us.extend(counted.waited_us);
        }
        Ok(all.summed_up(self.duration))
    }

    fn refused(&self, device: &DeviceId, what: &str) -> LoadError {
        LoadError::Refused { device: device.clone(), what: what.to_owned() }
    }

    async fn open(&self, device: &DeviceId, transport: &Transport) -> Result<Stream, LoadError> {
        let broken = |source| LoadError::Broken { device: device.clone(), source };
        let mut stream = transport.connect(self.address).await.map_err(|source| LoadError::Connect { device: device.clone(), source })?;
        let mut bytes = BytesMut::new();
        let version = ProtocolVersion::V311;
        version
            .connect(device, self.password.as_deref(), KEEP_ALIVE_S, &mut bytes)
            .map_err(|error| self.refused(device, &error.to_string()))?;
        stream.write_all(&bytes).await.map_err(broken)?;
        stream.flush().await.map_err(broken)?;
        bytes.clear();
        loop {
            match version.read(&mut bytes).map_err(|error| self.refused(device, &error.to_string()))? {
                Some(Incoming::Welcome) => return Ok(stream),
                Some(other) => return Err(self.refused(device, &format!("answered CONNECT with {other:?}"))),
                None => {
                    if stream.read_buf(&mut bytes).await.map_err(broken)? == 0 {
                        return Err(self.refused(device, "the server closed the connection"));
                    }
                }
            }
        }
    }
}

impl Counted {
    fn summed_up(mut self, duration: Duration) -> LoadReport {
        self.waited_us.sort_unstable();
        let at = |fraction: f64| {
            let index = ((self.waited_us.len() as f64 * fraction) as usize).min(self.waited_us.len().saturating_sub(1));
            self.waited_us.get(index).copied().map_or(0, u64::from)
        };
        let acknowledged = self.waited_us.len() as u64;
        LoadReport {
            acknowledged,
            per_s: acknowledged as f64 / duration.as_secs_f64().max(f64::MIN_POSITIVE),
            p50_us: at(0.5),
            p99_us: at(0.99),
            longest_us: at(1.0),
            ..self.report
        }
    }
}

/// What one connection keeps while it sends.
struct Flow {
    counter: u64,
    next_packet: u16,
    sent: Vec<Option<Instant>>,
    free: u16,
    due: Instant,
    out: Vec<u8>,
    counted: Counted,
}

impl Connection {
    async fn load(mut self, first: Instant, warm: Instant, end: Instant) -> Result<Counted, LoadError> {
        let device = self.device.clone();
        self.send_and_count(first, warm, end).await.map_err(|source| LoadError::Broken { device, source })
    }

    async fn send_and_count(&mut self, first: Instant, warm: Instant, end: Instant) -> std::io::Result<Counted> {
        // Packet numbers run through a ring that is larger than what can be in flight.
        let ring = usize::from(self.in_flight) * 2 + 2;
        let mut flow = Flow {
            counter: COUNTER_FIRST,
            next_packet: 0,
            sent: vec![None; ring],
            free: self.in_flight,
            due: first,
            out: Vec::with_capacity(self.template.bytes.len() * usize::from(self.in_flight)),
            counted: Counted::default(),
        };
        let mut input = BytesMut::with_capacity(READ_BYTES);
        let last = tokio::time::Instant::from_std(end + LAST_ANSWERS);
        loop {
            let now = Instant::now();
            if now < end {
                self.fill(&mut flow, now);
                if !flow.out.is_empty() {
                    self.stream.write_all(&flow.out).await?;
                    self.stream.flush().await?;
                    flow.out.clear();
                }
            } else if flow.free == self.in_flight {
                break;
            }
            let wake = if now >= end { last } else { tokio::time::Instant::from_std(flow.wake(self.interval, end)) };
            tokio::select! {
                read = self.stream.read_buf(&mut input) => {
                    if read? == 0 {
                        return Err(std::io::ErrorKind::UnexpectedEof.into());
                    }
                    flow.take(&mut input, warm, end)?;
                }
                () = tokio::time::sleep_until(wake) => if Instant::now() >= end + LAST_ANSWERS { break },
            }
        }
        // DISCONNECT (MQTT 3.1.1 section 3.14); a server that is gone already needs none.
        let _ = self.stream.write_all(&[0xE0, 0x00]).await;
        let _ = self.stream.shutdown().await;
        Ok(flow.counted)
    }

    /// Encodes what may be sent now.
    fn fill(&self, flow: &mut Flow, now: Instant) {
        while flow.free > 0 && flow.is_due(self.interval, now) {
            let slot = usize::from(flow.next_packet);
            self.template.write(flow.next_packet + 1, flow.counter, &mut flow.out);
            // At a fixed rate the clock starts when the message was due, so that a stall counts
            // against every message that it held up.
            flow.sent[slot] = Some(if self.interval.is_some() { flow.due } else { now });
            flow.next_packet = ((slot + 1) % flow.sent.len()) as u16;
            flow.counter += 1;
            flow.free -= 1;
            if let Some(interval) = self.interval {
                flow.counted.report.late += u64::from(now > flow.due + interval);
                flow.due += interval;
            }
        }
    }
}

impl Flow {
    fn is_due(&self, interval: Option<Duration>, now: Instant) -> bool {
        interval.is_none() || self.due <= now
    }

    fn wake(&self, interval: Option<Duration>, end: Instant) -> Instant {
        if interval.is_some() && self.free > 0 { self.due.min(end) } else { end }
    }

    fn take(&mut self, input: &mut BytesMut, warm: Instant, end: Instant) -> std::io::Result<()> {
        let now = Instant::now();
        while input.len() >= PUBACK_BYTES {
            let packet = input.split_to(PUBACK_BYTES);
            if packet[..2] != [0x40, 2] {
                return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, "the server sent something other than PUBACK"));
            }
            let slot = usize::from(u16::from_be_bytes([packet[2], packet[3]])).wrapping_sub(1);
            let Some(sent) = self.sent.get_mut(slot).and_then(Option::take) else {
                return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, "a PUBACK for nothing that was sent"));
            };
            self.free += 1;
            self.counted.report.acknowledged_in_all += 1;
            if now >= warm && now < end {
                let waited = now.saturating_duration_since(sent).as_micros();
                self.counted.waited_us.push(u32::try_from(waited).unwrap_or(u32::MAX));
            }
        }
        Ok(())
    }
}

/// The devices `load-0000`, `load-0001` and so on, over one transport each.
///
/// # Errors
/// Never for counts below ten thousand.
pub fn load_devices(
    count: usize,
    transport: impl Fn(usize) -> Transport,
) -> Result<Vec<(DeviceId, Transport)>, vitalgate_domain::NameError> {
    (0..count).map(|index| Ok((DeviceId::new(&format!("load-{index:04}"))?, transport(index)))).collect()
}

/// A run's name that no earlier run of this machine had.
#[must_use]
pub fn run_name() -> Arc<str> {
    Arc::from(format!("r{}", crate::replay::wall_now().0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_message_is_a_new_reading_of_the_asked_length() {
        let device = DeviceId::new("load-0000").unwrap();
        let template = Template::new(&device, &LoadPayload::OneReading(200), "r1");
        let mut out = Vec::new();
        template.write(0x0102, 1_000_000_017, &mut out);
        let mut bytes = BytesMut::from(&out[..]);
        let packet = rumqttc::mqttbytes::v4::Packet::read(&mut bytes, 1_000).unwrap();
        let rumqttc::mqttbytes::v4::Packet::Publish(publish) = packet else { panic!("no publish") };
        assert_eq!((publish.pkid, publish.payload.len(), publish.topic.as_str()), (0x0102, 200, "vitals/load-0000/vitals"));
        let json: serde_json::Value = serde_json::from_slice(&publish.payload).unwrap();
        assert_eq!(json["seq"], 1_000_000_017);
    }
}
