//! The profile of a publishing device: where its JSON message holds what.

use vitalgate_domain::{Metric, Unit};

use crate::document::{At, Report, Section};
use crate::json::ELEMENT_SLOTS;
use crate::meaning::{self, AbsenceCode, Meaning};
use crate::pointer::Node;
use crate::time::TimeRule;

/// Most single fields of a message that one profile reads.
const FIELDS_MAX: usize = 128;

/// Slots of an element of the array of values.
pub(crate) const METRIC: usize = 0;
pub(crate) const VALUE: usize = 1;
pub(crate) const UNIT: usize = 2;
pub(crate) const STATUS: usize = 3;
const _: () = assert!(STATUS < ELEMENT_SLOTS);

/// A profile of a publishing device, compiled.
#[derive(Debug)]
pub struct PublishProfile {
    pub(crate) root: Node,
    pub(crate) slots: usize,
    pub(crate) time: Option<(usize, TimeRule)>,
    pub(crate) counter: Option<CounterRule>,
    /// Whether a message may have neither.
    pub(crate) resend_indistinct: bool,
    /// Whether the counter, not the time, tells a message that has both from others.
    pub(crate) counter_is_identity: bool,
    /// Whether the device keeps nothing: what it sends without a time is of the moment of its arrival.
    pub(crate) arrival_is_moment: bool,
    pub(crate) array: Option<ArrayRule>,
    pub(crate) fields: Vec<FieldRule>,
    pub(crate) statuses: Vec<(Box<str>, Meaning)>,
    silent_channels: Vec<Box<str>>,
}

/// Where the device's message counter is.
#[derive(Debug)]
pub(crate) struct CounterRule {
    pub(crate) counter: usize,
    pub(crate) run: Option<usize>,
}

/// How one metric is given.
#[derive(Debug)]
pub(crate) struct MetricRule {
    pub(crate) metric: Metric,
    /// The unit where the message does not name one.
    pub(crate) unit: Option<Unit>,
    pub(crate) absent: Box<[AbsenceCode]>,
}

/// A list with one value in each element.
#[derive(Debug)]
pub(crate) struct ArrayRule {
    pub(crate) pointer: Box<str>,
    /// By the device's name of the metric, sorted.
    names: Vec<(Box<str>, MetricRule)>,
}

/// A value at a fixed place.
#[derive(Debug)]
pub(crate) struct FieldRule {
    pub(crate) pointer: Box<str>,
    pub(crate) value: usize,
    pub(crate) unit: Option<usize>,
    pub(crate) status: Option<usize>,
    pub(crate) rule: MetricRule,
    /// Fixed by the profile, so that a field that is left out does not move the others.
    pub(crate) slot: u16,
}

impl ArrayRule {
    pub(crate) fn find(&self, name: &str) -> Option<&MetricRule> {
        let place = self.names.binary_search_by(|(known, _)| (**known).cmp(name)).ok()?;
        self.names.get(place).map(|(_, rule)| rule)
    }
}

impl PublishProfile {
    /// Whether messages of this channel hold no readings by the profile (a greeting, a status).
    pub(crate) fn is_silent(&self, channel: &str) -> bool {
        self.silent_channels.iter().any(|silent| **silent == *channel)
    }

    /// What a status code means; `None` where the profile does not know it.
    pub(crate) fn status(&self, code: &str) -> Option<Meaning> {
        self.statuses.iter().find(|(known, _)| **known == *code).map(|(_, meaning)| *meaning)
    }

    /// Reads `[publish]`.
    pub(crate) fn load(section: &mut Section<'_>, report: &mut Report) -> Self {
        let mut tree = Tree::default();
        let time = section.section(report, "time").map(|time| load_time(time, &mut tree, report));
        let counter = section.section(report, "counter").map(|counter| load_counter(counter, &mut tree, report));
        let resend_indistinct = section.flag(report, "resend_indistinct");
        if time.is_none() && counter.is_none() && !resend_indistinct {
            let remedy = "add [publish.time] or [publish.counter], or say resend_indistinct = true";
            section.fault(report, "without time and counter a reading cannot be told from its own resend", remedy);
        }
        let counter_is_identity = load_identity(section, counter.is_some(), report);
        let arrival_is_moment = section.flag(report, "arrival_is_moment");
        if arrival_is_moment && time.is_some() && counter.is_none() && !resend_indistinct {
            section.fault(report, "arrival_is_moment has no effect: a message without time is a dead letter", "take it out");
        }
        let statuses = section.section(report, "status").map_or_else(Vec::new, |status| load_statuses(status, report));
        let fields = load_fields(section, &mut tree, report);
        let array = section.section(report, "array").and_then(|array| load_array(array, &mut tree, report));
        if fields.is_empty() && array.is_none() {
            section.fault(report, "the profile reads no value", "add [publish.array] or [[publish.field]]");
        }
        let silent_channels = section.texts(report, "silent_channels").iter().map(|at| at.value.into()).collect();
        Self {
            root: tree.root,
            slots: tree.slots,
            time,
            counter: counter.flatten(),
            resend_indistinct,
            counter_is_identity,
            arrival_is_moment,
            array,
            fields,
            statuses,
            silent_channels,
        }
    }
}

/// The tree of pointers while it grows.
#[derive(Default)]
struct Tree {
    root: Node,
    slots: usize,
}

impl Tree {
    fn keep(&mut self, pointer: &At<&str>, report: &mut Report) -> usize {
        let slot = self.slots;
        self.slots += 1;
        if let Err(error) = self.root.keep(pointer.value, slot) {
            report.at(pointer, error.to_string(), "correct the pointer");
        }
        slot
    }
}

fn load_time(mut section: Section<'_>, tree: &mut Tree, report: &mut Report) -> (usize, TimeRule) {
    let slot = section.required_pointer(report, "field").map(|field| tree.keep(&field, report));
    let rule = TimeRule::load(&mut section, report);
    section.source(report);
    section.close(report);
    (slot.unwrap_or_default(), rule)
}

/// Whether the counter is the identity of a message that has time and counter.
fn load_identity(section: &mut Section<'_>, has_counter: bool, report: &mut Report) -> bool {
    let Some(identity) = section.text(report, "identity") else { return false };
    match identity.value {
        "counter" if !has_counter => report.at(&identity, "the profile has no counter", "add [publish.counter]"),
        "time" | "counter" => {}
        other => report.at(&identity, format!("{other:?} is not an identity"), "use time or counter"),
    }
    identity.value == "counter"
}

fn load_counter(mut section: Section<'_>, tree: &mut Tree, report: &mut Report) -> Option<CounterRule> {
    let counter = section.required_pointer(report, "field").map(|field| tree.keep(&field, report));
    let run = section.pointer(report, "run_field").map(|field| tree.keep(&field, report));
    section.source(report);
    section.close(report);
    counter.map(|counter| CounterRule { counter, run })
}

fn load_statuses(mut section: Section<'_>, report: &mut Report) -> Vec<(Box<str>, Meaning)> {
    section.source(report);
    let mut statuses: Vec<(Box<str>, Meaning)> = Vec::new();
    for mut entry in meaning::bounded(section.sections(report, "codes"), report) {
        let code = entry.required_text(report, "code");
        if let (Some(code), Some(meaning)) = (code, meaning::meaning(&mut entry, report)) {
            if statuses.iter().any(|(known, _)| **known == *code.value) {
                report.at(&code, "is given twice", "keep one");
            }
            statuses.push((code.value.into(), meaning));
        }
        entry.close(report);
    }
    section.close(report);
    statuses
}

fn load_fields(section: &mut Section<'_>, tree: &mut Tree, report: &mut Report) -> Vec<FieldRule> {
    let mut fields: Vec<FieldRule> = Vec::new();
    for mut entry in section.sections(report, "field") {
        if fields.len() >= FIELDS_MAX {
            entry.fault(report, format!("the profile has more than {FIELDS_MAX} fields"), "split the profile");
            break;
        }
        let value = entry.required_pointer(report, "value_field");
        let slot = value.as_ref().map(|value| tree.keep(value, report));
        let unit = entry.pointer(report, "unit_field").map(|field| tree.keep(&field, report));
        let status = entry.pointer(report, "status_field").map(|field| tree.keep(&field, report));
        let rule = load_rule(&mut entry, unit.is_some(), report);
        if let (Some(at), Some(slot_of_value), Some(rule)) = (value, slot, rule) {
            let earlier = fields.iter().filter(|field| field.rule.metric == rule.metric).count();
            let slot = u16::try_from(earlier).unwrap_or(u16::MAX);
            fields.push(FieldRule { pointer: at.value.into(), value: slot_of_value, unit, status, rule, slot });
        }
        entry.close(report);
    }
    fields
}

/// Reads `metric`, `unit`, `absent` and `source` of a field or of a name.
fn load_rule(entry: &mut Section<'_>, unit_is_sent: bool, report: &mut Report) -> Option<MetricRule> {
    let metric = meaning::metric(entry, report);
    let text = entry.text(report, "unit");
    if text.is_none() && !unit_is_sent && !entry.has("unit") {
        entry.fault(report, "has no unit", "add unit, or say where the message names it");
    }
    let unit = match (metric, text) {
        (Some(metric), Some(text)) => meaning::unit_of(metric, &text, report),
        _ => None,
    };
    let absent = meaning::absence_codes(entry, report);
    entry.source(report);
    Some(MetricRule { metric: metric?, unit, absent })
}

fn load_array(mut section: Section<'_>, tree: &mut Tree, report: &mut Report) -> Option<ArrayRule> {
    let pointer = section.required_pointer(report, "list");
    let mut element = Node::default();
    let mut unit_is_sent = false;
    for (key, slot, required) in
        [("metric_field", METRIC, true), ("value_field", VALUE, true), ("unit_field", UNIT, false), ("status_field", STATUS, false)]
    {
        let at = if required { section.required_pointer(report, key) } else { section.pointer(report, key) };
        unit_is_sent |= slot == UNIT && at.is_some();
        if let Some(at) = at
            && let Err(error) = element.keep(at.value, slot)
        {
            report.at(&at, error.to_string(), "correct the pointer");
        }
    }
    section.source(report);
    let mut names: Vec<(Box<str>, MetricRule)> = Vec::new();
    for mut entry in meaning::bounded(section.sections(report, "name"), report) {
        let name = entry.required_text(report, "name");
        let rule = load_rule(&mut entry, unit_is_sent, report);
        if let (Some(name), Some(rule)) = (name, rule) {
            if names.iter().any(|(known, _)| **known == *name.value) {
                report.at(&name, "is given twice", "keep one");
            }
            names.push((name.value.into(), rule));
        }
        entry.close(report);
    }
    if section.flag(report, "catalogue_names") {
        add_catalogue(&mut names, &section, unit_is_sent, report);
    }
    if names.is_empty() {
        section.fault(report, "no name of a metric is given", "add [[publish.array.name]], or catalogue_names = true");
    }
    names.sort_by(|(one, _), (other, _)| one.cmp(other));
    section.close(report);
    let pointer = pointer?;
    if let Err(error) = tree.root.walk_each(pointer.value, element) {
        report.at(&pointer, error.to_string(), "correct the pointer");
    }
    Some(ArrayRule { pointer: pointer.value.into(), names })
}

/// The device uses the catalogue's own keys, so it has to name its units too.
fn add_catalogue(names: &mut Vec<(Box<str>, MetricRule)>, section: &Section<'_>, unit_is_sent: bool, report: &mut Report) {
    if !unit_is_sent {
        section.fault(report, "catalogue_names needs units in the message", "add unit_field");
    }
    for metric in meaning::with_values() {
        if !names.iter().any(|(known, _)| **known == *metric.key()) {
            names.push((metric.key().into(), MetricRule { metric, unit: None, absent: Box::default() }));
        }
    }
}
