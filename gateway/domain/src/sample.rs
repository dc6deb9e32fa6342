//! What arrives from a device, before and after its profile has read it.

use std::sync::Arc;

use crate::catalogue::Metric;
use crate::dead_letter::DeadLetterReason;
use crate::name::DeviceId;
use crate::reading::{Flags, Reported, Value};
use crate::time::{DeviceTime, Received};

/// The bytes of one publish or one poll, with who sent them and when they came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawSample {
    /// The device whose identity was proven on the connection, or that was polled.
    pub device: DeviceId,
    /// Where in the device it comes from: the topic below the device's own, or the block's name.
    pub channel: Arc<str>,
    /// The payload, at most [`crate::limits::PAYLOAD_BYTES_MAX`].
    pub bytes: Vec<u8>,
    /// When it arrived.
    pub received: Received,
}

/// What the source itself says that makes a reading the same or another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceIdentity {
    /// The device's own time, as the text it sent.
    Time(Arc<str>),
    /// The device's own counter and, where it gives one, the name of its run.
    Counter {
        /// What the device says of its run, or empty.
        epoch: Arc<str>,
        /// The counter.
        sequence: u64,
    },
    /// Nothing: polled, or a publisher with neither. The id is fixed at commit.
    None,
}

/// One decoded value that was not admitted yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodedReading {
    /// What was observed.
    pub metric: Metric,
    /// Which of several equal metrics of one message, from 0.
    pub slot: u16,
    /// The value in the metric's own unit, or why there is none.
    pub value: Value,
    /// The quantity as the source gave it, where it was converted.
    pub reported: Option<Reported>,
    /// The device's statement of time.
    pub device_time: Option<DeviceTime>,
    /// What makes it the same reading when it is sent again.
    pub identity: SourceIdentity,
    /// Marks that the device or its profile set.
    pub flags: Flags,
}

/// A sample after its profile has read it: the readings in it, or the reason why it is a dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodedSample {
    /// The device.
    pub device: DeviceId,
    /// The channel it came on.
    pub channel: Arc<str>,
    /// When it arrived.
    pub received: Received,
    /// The readings; an empty list is a message that holds none (a greeting, a status).
    pub readings: Vec<DecodedReading>,
    /// The message as it came, for what admission refuses of it. Empty for a poll, and where `unreadable` holds it.
    pub payload: Vec<u8>,
    /// What of the sample could not be read, with the bytes; both may be present when only a part failed.
    pub unreadable: Option<(DeadLetterReason, Vec<u8>)>,
}
