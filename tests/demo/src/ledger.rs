//! What was acknowledged, what arrived, and what the page and the terminal show of it.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;
use vitalgate_domain::DeviceId;
use vitalgate_simulator::Acknowledged;
use vitalgate_test_support::Oracle;
use vitalgate_test_support::ehr::sightings_in;

use crate::chart::{Charted, charted};
use crate::ehr::Arrived;

/// Points of the queue's curve.
const HISTORY_MAX: usize = 480;
/// Newest arrivals that are shown.
const FEED_MAX: usize = 7;

/// Where the demonstration stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Phase {
    Starting,
    Flowing,
    Outage,
    Draining,
    Proving,
    Proven,
    Failed,
}

/// A bed of the ward.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Bed {
    pub(crate) name: String,
    pub(crate) patient: String,
    pub(crate) device: String,
    /// `MQTT 3.1.1`, `MQTT 5` or `Modbus TCP`.
    pub(crate) via: &'static str,
    /// The newest value of each column.
    pub(crate) values: BTreeMap<&'static str, Shown>,
    /// Observations that arrived at this patient.
    pub(crate) arrived: u64,
}

/// A value with its arrival.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Shown {
    #[serde(flatten)]
    pub(crate) charted: Charted,
    /// Seconds since the start at which it was seen in the EHR.
    pub(crate) arrived_at_s: f64,
}

/// One line of the newest arrivals.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Line {
    pub(crate) bed: String,
    pub(crate) device: String,
    #[serde(flatten)]
    pub(crate) charted: Charted,
}

/// The totals.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Totals {
    pub(crate) acknowledged: u64,
    pub(crate) in_the_ehr: u64,
    pub(crate) lost: Option<u64>,
    pub(crate) duplicated: u64,
}

/// The gateway as its status says.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct GatewayView {
    pub(crate) state: String,
    pub(crate) queued: u64,
    pub(crate) oldest_age_s: Option<u64>,
    pub(crate) committed: u64,
    pub(crate) alarm: Option<String>,
}

/// Everything that is shown.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct View {
    pub(crate) phase: Phase,
    pub(crate) message: String,
    pub(crate) elapsed_s: f64,
    pub(crate) ehr_name: &'static str,
    pub(crate) ehr_url: String,
    pub(crate) ehr_up: bool,
    pub(crate) gateway: GatewayView,
    pub(crate) totals: Totals,
    pub(crate) beds: Vec<Bed>,
    pub(crate) feed: VecDeque<Line>,
    /// Seconds since the start, queued entries, EHR there.
    pub(crate) history: VecDeque<(f64, u64, bool)>,
    pub(crate) proof: Option<String>,
    /// When both sets were compared, in seconds since the start.
    pub(crate) proven_at_s: Option<f64>,
    /// What was compared then.
    pub(crate) proven: Option<Totals>,
}

/// Shared by every task of the demonstration.
pub(crate) struct Ledger {
    start: Instant,
    inner: Mutex<Inner>,
}

struct Inner {
    oracle: Oracle,
    /// Readings of the polled monitor that the gateway stored.
    polled: u64,
    /// Acknowledged messages of each monitor.
    messages: BTreeMap<DeviceId, u64>,
    seen: HashMap<Uuid, Arc<str>>,
    doubled: HashSet<Uuid>,
    bed_of_patient: HashMap<String, usize>,
    view: View,
}

impl Ledger {
    pub(crate) fn new(oracle: Oracle, beds: Vec<Bed>, ehr_name: &'static str, ehr_url: String) -> Self {
        let bed_of_patient = beds.iter().enumerate().map(|(index, bed)| (format!("Patient/{}", bed.patient), index)).collect();
        let view = View {
            phase: Phase::Starting,
            message: "Starting".to_owned(),
            elapsed_s: 0.0,
            ehr_name,
            ehr_url,
            ehr_up: true,
            gateway: GatewayView::default(),
            totals: Totals::default(),
            beds,
            feed: VecDeque::new(),
            history: VecDeque::new(),
            proof: None,
            proven_at_s: None,
            proven: None,
        };
        let (messages, seen, doubled) = Default::default();
        let inner = Inner { oracle, polled: 0, messages, seen, doubled, bed_of_patient, view };
        Self { start: Instant::now(), inner: Mutex::new(inner) }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn elapsed_s(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    pub(crate) fn acknowledged(&self, acknowledged: &Acknowledged) {
        let mut inner = self.inner();
        *inner.messages.entry(acknowledged.device.clone()).or_default() += 1;
        inner.oracle.acknowledged(acknowledged);
    }

    /// Takes note of how many readings of the polled monitor the gateway stored.
    pub(crate) fn polled(&self, stored: u64) {
        self.inner().polled = stored;
    }

    /// Acknowledged messages, to be compared with what was handed to the monitors.
    pub(crate) fn messages(&self) -> u64 {
        self.inner().messages.values().sum()
    }

    /// Those of these devices that had no acknowledgement.
    pub(crate) fn silent<'a>(&self, devices: impl IntoIterator<Item = &'a DeviceId>) -> Vec<String> {
        let inner = self.inner();
        devices.into_iter().filter(|device| !inner.messages.contains_key(*device)).map(ToString::to_string).collect()
    }

    /// Runs with the oracle.
    pub(crate) fn with_oracle<T>(&self, work: impl FnOnce(&mut Oracle) -> T) -> T {
        work(&mut self.inner().oracle)
    }

    pub(crate) fn phase(&self, phase: Phase, message: &str) {
        let mut inner = self.inner();
        inner.view.phase = phase;
        message.clone_into(&mut inner.view.message);
    }

    pub(crate) fn proof(&self, phase: Phase, totals: Totals, text: String) {
        let elapsed_s = self.elapsed_s();
        let mut inner = self.inner();
        inner.view.proven_at_s = Some(elapsed_s);
        inner.view.phase = phase;
        inner.view.proven = Some(totals);
        inner.view.message.clone_from(&text);
        inner.view.proof = Some(text);
    }

    pub(crate) fn ehr_is(&self, up: bool) {
        self.inner().view.ehr_up = up;
    }

    pub(crate) fn gateway(&self, status: &Value) {
        let elapsed_s = self.elapsed_s();
        let mut inner = self.inner();
        let destination = &status["destinations"][0];
        inner.view.gateway = GatewayView {
            state: status["health"]["state"].as_str().unwrap_or("").to_owned(),
            queued: destination["queued"].as_u64().unwrap_or(0),
            oldest_age_s: destination["oldest_age_s"].as_u64(),
            committed: status["store"]["committed"].as_u64().unwrap_or(0),
            alarm: destination["alarm"].as_str().map(str::to_owned),
        };
        let point = (elapsed_s, inner.view.gateway.queued, inner.view.ehr_up);
        inner.view.history.push_back(point);
        while inner.view.history.len() > HISTORY_MAX {
            inner.view.history.pop_front();
        }
    }

    pub(crate) fn arrived(&self, arrived: &[Arrived]) {
        let elapsed_s = self.elapsed_s();
        let mut inner = self.inner();
        for one in arrived {
            inner.count(one);
            inner.show(&one.observation, elapsed_s);
        }
    }

    pub(crate) fn view(&self) -> View {
        let elapsed_s = self.elapsed_s();
        let mut inner = self.inner();
        inner.view.elapsed_s = elapsed_s;
        let (acknowledged, in_the_ehr, duplicated) =
            (inner.oracle.count() + inner.polled, inner.seen.len() as u64, inner.doubled.len() as u64);
        let totals = &mut inner.view.totals;
        totals.acknowledged = acknowledged;
        totals.in_the_ehr = in_the_ehr;
        totals.duplicated = duplicated;
        inner.view.clone()
    }
}

impl Inner {
    fn count(&mut self, one: &Arrived) {
        for sighting in sightings_in(&one.observation, &one.id) {
            let before = self.seen.insert(sighting.reading, one.id.clone());
            if before.is_some_and(|before| before != one.id) {
                self.doubled.insert(sighting.reading);
            }
        }
    }

    fn show(&mut self, observation: &Value, elapsed_s: f64) {
        let patient = observation["subject"]["reference"].as_str().unwrap_or("");
        let Some(&index) = self.bed_of_patient.get(patient) else { return };
        let Some(charted) = charted(observation) else { return };
        let Some(bed) = self.view.beds.get_mut(index) else { return };
        bed.arrived += 1;
        let device = observation["device"]["display"].as_str().unwrap_or("").to_owned();
        self.view.feed.push_front(Line { bed: bed.name.clone(), device, charted: charted.clone() });
        self.view.feed.truncate(FEED_MAX);
        // A backlog may arrive after newer readings: the chart shows the newest by its own time.
        let newer = bed.values.get(charted.key).is_none_or(|shown| shown.charted.time <= charted.time);
        if newer {
            bed.values.insert(charted.key, Shown { charted, arrived_at_s: elapsed_s });
        }
    }
}
