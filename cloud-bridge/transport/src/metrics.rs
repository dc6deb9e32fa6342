//! What the delivery counts. Labels are a destination's id, or come from fixed lists: no URL, name or text of a server.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use vitalgate_domain::{Answer, ItemAnswer};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DestinationLabels {
    destination: Arc<str>,
}

/// What a request was for and how it ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    destination: Arc<str>,
    purpose: &'static str,
    class: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    destination: Arc<str>,
    outcome: &'static str,
}

/// Counters of one destination, among those of the others. Cheap to clone; all clones count together.
#[derive(Debug, Clone)]
pub struct TransportMetrics {
    destination: Arc<str>,
    requests: Family<RequestLabels, Counter>,
    items: Family<OutcomeLabels, Counter>,
    duration: Family<DestinationLabels, Histogram>,
    sent: Family<DestinationLabels, Counter<u64, AtomicU64>>,
    received: Family<DestinationLabels, Counter<u64, AtomicU64>>,
}

impl Default for TransportMetrics {
    fn default() -> Self {
        Self {
            destination: Arc::from(""),
            requests: Family::default(),
            items: Family::default(),
            duration: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.001, 2.0, 16))),
            sent: Family::default(),
            received: Family::default(),
        }
    }
}

impl TransportMetrics {
    /// Those of this destination, registered with these.
    #[must_use]
    pub fn of(&self, destination: &str) -> Self {
        Self { destination: Arc::from(destination), ..self.clone() }
    }

    /// Registers the counters of all destinations, once: a name may be described only once.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("delivery_requests", "Requests by purpose and class of answer", self.requests.clone());
        registry.register("delivery_items", "Items by outcome", self.items.clone());
        registry.register_with_unit("delivery_request_duration", "Time of a bundle request", Unit::Seconds, self.duration.clone());
        registry.register_with_unit("delivery_sent", "Request bodies", Unit::Bytes, self.sent.clone());
        registry.register_with_unit("delivery_received", "Answer bodies", Unit::Bytes, self.received.clone());
    }

    pub(crate) fn request(&self, purpose: &'static str, class: &'static str, seconds: f64, sent: usize, received: usize) {
        let destination = Arc::clone(&self.destination);
        let of_destination = DestinationLabels { destination: Arc::clone(&destination) };
        self.requests.get_or_create(&RequestLabels { destination, purpose, class }).inc();
        if purpose == "bundle" {
            self.duration.get_or_create(&of_destination).observe(seconds);
        }
        self.sent.get_or_create(&of_destination).inc_by(sent as u64);
        self.received.get_or_create(&of_destination).inc_by(received as u64);
    }

    pub(crate) fn answered(&self, answer: &Answer) {
        let Answer::Items(items) = answer else { return };
        for item in items {
            let outcome = match item {
                ItemAnswer::Accepted { .. } => "accepted",
                ItemAnswer::AcceptedWithWarning { .. } => "warning",
                ItemAnswer::Rejected { .. } => "rejected",
                ItemAnswer::Transient { .. } => "transient",
            };
            let destination = Arc::clone(&self.destination);
            self.items.get_or_create(&OutcomeLabels { destination, outcome }).inc();
        }
    }
}

/// The metric label of an HTTP status.
pub(crate) fn status_class(status: u16) -> &'static str {
    match status {
        200..=299 => "2xx",
        300..=399 => "3xx",
        401 => "401",
        403 => "403",
        408 => "408",
        409 => "409",
        412 => "412",
        413 => "413",
        422 => "422",
        429 => "429",
        400..=499 => "4xx",
        500..=599 => "5xx",
        _ => "other",
    }
}
