//! One publish of a monitor, and what it states.

use std::fmt::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use vitalgate_domain::{DeviceId, Metric, UnixMs};

use crate::recording::ChartedSet;

/// One reading that a message states, as an oracle must find it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatedReading {
    /// What was observed.
    pub metric: Metric,
    /// Which of several equal metrics of one message, from 0.
    pub slot: u16,
    /// The number as sent; `None` where the device says that there is none.
    pub value: Option<Arc<str>>,
}

/// One publish: its payload and what it states.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Topic below the device's own.
    pub channel: Arc<str>,
    /// The payload.
    pub payload: Bytes,
    /// The device's time, as the text that is sent.
    pub time: Arc<str>,
    /// The same moment as a number.
    pub time_unix_ms: UnixMs,
    /// The readings in it.
    pub readings: Vec<StatedReading>,
}

impl Message {
    /// A charted set in the `vitals-json` form, said at `time`.
    #[must_use]
    pub fn of_set(set: &ChartedSet, time_unix_ms: UnixMs, counter: u64) -> Self {
        let time: Arc<str> = Arc::from(time_unix_ms.rfc3339(0));
        let mut text = format!("{{\"time\":\"{time}\",\"seq\":{counter},\"values\":[");
        for (index, value) in set.values.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            // Writing to a String cannot fail; unit texts of recordings need no escape but keep one.
            let unit = serde_json::Value::from(&*value.unit);
            let _ = write!(text, "{comma}{{\"metric\":\"{}\",\"value\":{},\"unit\":{unit}}}", value.metric.key(), value.value);
        }
        text.push_str("]}");
        let readings =
            set.values.iter().map(|value| StatedReading { metric: value.metric, slot: 0, value: Some(value.value.clone()) }).collect();
        Self { channel: Arc::from("vitals"), payload: Bytes::from(text), time, time_unix_ms, readings }
    }

    /// The topic of this message for a device.
    #[must_use]
    pub fn topic(&self, device: &DeviceId) -> String {
        format!("vitals/{device}/{}", self.channel)
    }
}

/// Moments of one device: never the same twice, in milliseconds.
#[derive(Debug, Clone)]
pub struct TimeSeries {
    last: UnixMs,
}

impl TimeSeries {
    /// No moment before `from` will be given.
    #[must_use]
    pub fn from(from: UnixMs) -> Self {
        Self { last: from.plus_ms(-1) }
    }

    /// `wanted`, or the first millisecond after the last one given.
    pub fn at(&mut self, wanted: UnixMs) -> UnixMs {
        self.last = wanted.max(self.last.plus_ms(1));
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::Recording;

    #[test]
    fn a_payload_is_json_that_keeps_the_charted_digits() {
        let text = "patient,offset_s,vital,value,unit\np,0,body_temp,37.0,Cel\np,0,heart_rate,72,/min\n";
        let recording = Recording::parse(text).unwrap();
        let message = Message::of_set(&recording.sets("p")[0], UnixMs(1_795_341_600_120), 17);
        let expected = r#"{"time":"2026-11-22T10:00:00.120+00:00","seq":17,"values":[{"metric":"body_temp","value":37.0,"unit":"Cel"},{"metric":"heart_rate","value":72,"unit":"/min"}]}"#;
        assert_eq!(message.payload, expected);
        assert!(serde_json::from_slice::<serde_json::Value>(&message.payload).is_ok());
        assert_eq!(message.readings.len(), 2);
    }

    #[test]
    fn two_sets_of_one_device_never_carry_the_same_moment() {
        let mut series = TimeSeries::from(UnixMs(100));
        assert_eq!([series.at(UnixMs(100)), series.at(UnixMs(100)), series.at(UnixMs(50))], [UnixMs(100), UnixMs(101), UnixMs(102)]);
    }
}
