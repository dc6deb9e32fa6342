//! The appliance as it was before an update: what a new version must reach as well.

use std::fs;
use std::io;

use serde::{Deserialize, Serialize};
use vitalgate_layout::path;

use super::daemon::Status;
use crate::places::Places;
use crate::state_file::{now_unix_ms, replace};

/// A device that sent something in this time counts as there, in seconds. One that reports less often
/// is not waited for.
const SEEN_WITHIN_S: u64 = 120;
/// A destination that accepted something in this time counts as reachable, in seconds.
const REACHED_WITHIN_S: u64 = 600;
/// How long after its start a gateway may still get to know what is there, in seconds: what was there a moment before has sent by then.
const SETTLED_S: u64 = SEEN_WITHIN_S + 60;
/// Largest record that is read, in bytes.
const RECORD_BYTES_MAX: u64 = 256 * 1024;

/// What was there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Before {
    /// When it was looked at, in Unix milliseconds.
    pub(crate) at_unix_ms: i64,
    /// Devices that were sending.
    pub(crate) devices: Vec<String>,
    /// Destinations that were accepting.
    pub(crate) destinations: Vec<String>,
    /// The gateway had only just started: more may have been there.
    #[serde(default)]
    pub(crate) settling: bool,
}

impl Before {
    /// What is there now.
    pub(crate) fn of(status: &Status) -> Self {
        let seen = |age: Option<u64>| age.is_some_and(|age| age <= SEEN_WITHIN_S);
        let reached = |age: Option<u64>| age.is_some_and(|age| age <= REACHED_WITHIN_S);
        let devices = status.devices.iter().filter(|device| seen(device.last_reading_age_s));
        let destinations =
            status.destinations.iter().filter(|destination| destination.alarm.is_none() && reached(destination.last_acknowledgement_age_s));
        let devices: Vec<_> = devices.map(|device| device.id.clone()).collect();
        let destinations: Vec<_> = destinations.map(|destination| destination.id.clone()).collect();
        let are_all = devices.len() == status.devices.len() && destinations.len() == status.destinations.len();
        let settling = status.health.ready && status.uptime_s < SETTLED_S && !are_all;
        Self { at_unix_ms: now_unix_ms(), devices, destinations, settling }
    }

    /// The record.
    pub(crate) fn read(places: &Places) -> Option<Self> {
        let file = places.at(path::BEFORE_UPDATE);
        let small = fs::metadata(&file).ok()?.len() <= RECORD_BYTES_MAX;
        small.then(|| serde_json::from_slice(&fs::read(file).ok()?).ok())?
    }

    /// Keeps the record.
    ///
    /// # Errors
    /// When sealed storage does not take it.
    pub(crate) fn keep(&self, places: &Places) -> io::Result<()> {
        replace(&places.at(path::BEFORE_UPDATE), &serde_json::to_vec(self)?, 0o600)
    }
}
