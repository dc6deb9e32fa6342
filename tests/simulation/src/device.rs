//! Devices that send, keep what is not acknowledged, and send it again.

use std::collections::VecDeque;
use std::sync::Arc;

use fastrand::Rng;
use rust_decimal::Decimal;
use vitalgate_domain::{
    DecodedReading, DecodedSample, DeviceId, DeviceTime, Flags, Metric, Quantity, Received, SourceIdentity, UnixMs, Value,
};

/// How a device tells its readings apart, and how it sends a blood pressure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Device time; all values of a moment in one message.
    Timed,
    /// Device time; systolic and diastolic in two messages of the same moment.
    Split,
    /// A message counter and no clock.
    Counting,
    /// Says nothing of its own; is asked, never resends.
    Polled,
}

/// A message that may have to be sent again.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) number: u64,
    /// One per reading: no two readings of a run have the same.
    pub(crate) serials: Vec<u64>,
    pub(crate) readings: Vec<DecodedReading>,
}

impl Message {
    /// The serials of the systolic and the diastolic part, where it has both.
    pub(crate) fn pair(&self) -> Option<(u64, u64)> {
        let serial = |wanted: [Metric; 2]| {
            let place = self.readings.iter().position(|reading| wanted.contains(&reading.metric))?;
            self.serials.get(place).copied()
        };
        let systolic = serial([Metric::SystolicCuff, Metric::SystolicArterial])?;
        Some((systolic, serial([Metric::DiastolicCuff, Metric::DiastolicArterial])?))
    }
}

/// One device.
#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) id: DeviceId,
    pub(crate) kind: Kind,
    pub(crate) interval_ms: u64,
    /// Not acknowledged, oldest first.
    pub(crate) outbox: VecDeque<Message>,
    /// A part of a split blood pressure that is still to come.
    second_half: Option<(DeviceTime, Arc<str>)>,
    counter: u64,
    messages: u64,
    clock_offset_ms: i64,
}

impl Device {
    pub(crate) fn new(number: usize, kind: Kind, interval_ms: u64) -> Self {
        let id = DeviceId::new(&format!("monitor-{number:02}")).expect("a valid name");
        Self { id, kind, interval_ms, outbox: VecDeque::new(), second_half: None, counter: 0, messages: 0, clock_offset_ms: 0 }
    }

    /// The device observes something and keeps it until it is acknowledged; a polled one does not keep it.
    pub(crate) fn observe(&mut self, wall: UnixMs, serial: &mut u64, rng: &mut Rng) -> Message {
        if rng.u32(..200) == 0 {
            // A clock that jumps back is no reason to lose a reading.
            self.clock_offset_ms -= rng.i64(1..3_600_000);
        }
        if rng.u32(..400) == 0 {
            self.counter = rng.u64(1_000_000..);
        }
        self.counter = self.counter.wrapping_add(1);
        self.messages += 1;
        let time = DeviceTime { unix_ms: wall.plus_ms(self.clock_offset_ms), offset_minutes: Some(60) };
        let text: Arc<str> = time.unix_ms.0.to_string().into();
        let (metrics, time, text) = self.content(time, text, rng);
        let (identity, device_time) = match self.kind {
            Kind::Timed | Kind::Split => (SourceIdentity::Time(text), Some(time)),
            Kind::Counting => (SourceIdentity::Counter { epoch: "".into(), sequence: self.counter }, None),
            Kind::Polled => (SourceIdentity::None, None),
        };
        let mut message = Message { number: self.messages, serials: Vec::new(), readings: Vec::new() };
        for metric in metrics {
            *serial += 1;
            message.serials.push(*serial);
            let unit = metric.definition().unit.expect("a metric with a value");
            let value = Value::Quantity(Quantity { value: Decimal::from(*serial), unit });
            let identity = identity.clone();
            message.readings.push(DecodedReading {
                metric,
                slot: 0,
                value,
                reported: None,
                device_time,
                identity,
                flags: Flags::default(),
            });
        }
        if self.kind != Kind::Polled {
            self.outbox.push_back(message.clone());
        }
        message
    }

    fn content(&mut self, time: DeviceTime, text: Arc<str>, rng: &mut Rng) -> (Vec<Metric>, DeviceTime, Arc<str>) {
        if self.kind == Kind::Split {
            if let Some((time, text)) = self.second_half.take() {
                return (vec![Metric::DiastolicCuff], time, text);
            }
            if rng.u32(..3) > 0 {
                self.second_half = Some((time, Arc::clone(&text)));
                return (vec![Metric::SystolicCuff], time, text);
            }
            return (vec![Metric::HeartRate], time, text);
        }
        let mut metrics = vec![Metric::HeartRate];
        if rng.bool() {
            metrics.push(Metric::OxygenSaturation);
        }
        match rng.u32(..6) {
            0 | 1 => metrics.extend([Metric::DiastolicCuff, Metric::BodyTemperature, Metric::SystolicCuff, Metric::MeanCuff]),
            2 => metrics.extend([Metric::SystolicArterial, Metric::DiastolicArterial]),
            3 => metrics.push(Metric::MeanArterial),
            _ => {}
        }
        (metrics, time, text)
    }

    pub(crate) fn acknowledge(&mut self, number: u64) {
        self.outbox.retain(|message| message.number != number);
    }
}

impl Message {
    pub(crate) fn sample(&self, device: &DeviceId, received: Received) -> DecodedSample {
        DecodedSample {
            device: device.clone(),
            channel: "vitals".into(),
            received,
            readings: self.readings.clone(),
            payload: Vec::new(),
            unreadable: None,
        }
    }
}
