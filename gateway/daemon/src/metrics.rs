//! The daemon's own metrics. The drivers and the transport register theirs beside them.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;
use vitalgate_domain::Sequence;
use vitalgate_store::Reader;

use crate::replay::count;
use crate::shared::Shared;

/// Reads the shared facts at each scrape.
pub(crate) struct Facts {
    /// The facts.
    pub(crate) shared: Arc<Shared>,
    /// How far the journal reaches.
    pub(crate) reader: Reader,
}

impl std::fmt::Debug for Facts {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Facts").finish_non_exhaustive()
    }
}

impl Collector for Facts {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let load = |number: &std::sync::atomic::AtomicU64| number.load(Ordering::Relaxed);
        let counters = [
            ("committed_entries", "Entries on disk since the start", load(&self.shared.committed_entries)),
            ("commits", "Group commits since the start", load(&self.shared.commits)),
            ("duplicates", "Resends recognised since the start", load(&self.shared.duplicates)),
            ("unreadable_samples", "Samples that became dead letters since the start", load(&self.shared.unreadable)),
        ];
        for (name, help, value) in counters {
            counter(&mut encoder, name, help, value)?;
        }
        let settlement = self.shared.settlement();
        gauge(&mut encoder, "dead_letters", "Unresolved dead letters", count(&settlement.dead_letters))?;
        gauge(
            &mut encoder,
            "below_floor",
            "1 while nothing is acknowledged for want of space",
            u64::from(self.shared.below_floor.load(Ordering::Relaxed)),
        )?;
        gauge(&mut encoder, "store_damage_lines", "Lines of damage found since the start", self.shared.damage().len() as u64)?;
        self.encode_destinations(&mut encoder, self.reader.committed())
    }
}

impl Facts {
    fn encode_destinations(&self, encoder: &mut DescriptorEncoder<'_>, committed: Sequence) -> Result<(), std::fmt::Error> {
        let settlement = self.shared.settlement();
        let mut family = encoder.encode_descriptor(
            "queued_entries",
            "Entries that a destination has not settled",
            None,
            prometheus_client::metrics::MetricType::Gauge,
        )?;
        for destination in self.shared.destinations.keys() {
            let queued = settlement.settled.get(destination).map_or(committed.0, |settled| settled.missing_up_to(committed));
            let labels = [("destination", destination.as_str())];
            ConstGauge::new(queued as f64).encode(family.encode_family(&labels)?)?;
        }
        let mut family = encoder.encode_descriptor(
            "accepted_items",
            "Items that a destination accepted since the start",
            None,
            prometheus_client::metrics::MetricType::Counter,
        )?;
        for (destination, facts) in &self.shared.destinations {
            let labels = [("destination", destination.as_str())];
            ConstCounter::new(facts.accepted_items.load(Ordering::Relaxed)).encode(family.encode_family(&labels)?)?;
        }
        let mut family = encoder.encode_descriptor(
            "last_acknowledgement_age",
            "Time since a destination last accepted something",
            Some(&Unit::Seconds),
            prometheus_client::metrics::MetricType::Gauge,
        )?;
        for (destination, facts) in &self.shared.destinations {
            if let Some(age_s) = facts.accepted.age_s() {
                ConstGauge::new(age_s as f64).encode(family.encode_family(&[("destination", destination.as_str())])?)?;
            }
        }
        Ok(())
    }
}

fn counter(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> Result<(), std::fmt::Error> {
    let metric = ConstCounter::new(value);
    metric.encode(encoder.encode_descriptor(name, help, None, prometheus_client::metrics::MetricType::Counter)?)
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> Result<(), std::fmt::Error> {
    let metric = ConstGauge::new(value as f64);
    metric.encode(encoder.encode_descriptor(name, help, None, prometheus_client::metrics::MetricType::Gauge)?)
}
