//! What a code of a device means: nothing special, a mark on the value, or that there is no value.

use rust_decimal::Decimal;
use vitalgate_domain::{Flags, Metric, NoReading, Quantity, Unit};

use crate::document::{At, Report, Section};
use crate::number;

/// Most codes in one list of a profile.
const CODES_MAX: usize = 256;

/// What a status code means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// The value is as good as any.
    Fine,
    /// There is no value.
    Absent(NoReading),
    /// The value carries a mark.
    Marked(Flags),
}

const MEANINGS: &[(&str, Meaning)] = &[
    ("ok", Meaning::Fine),
    ("sensor_disconnected", Meaning::Absent(NoReading::SensorDisconnected)),
    ("not_available", Meaning::Absent(NoReading::NotAvailable)),
    ("device_error", Meaning::Absent(NoReading::DeviceError)),
    ("above_range", Meaning::Absent(NoReading::AboveRange)),
    ("below_range", Meaning::Absent(NoReading::BelowRange)),
    ("not_a_number", Meaning::Absent(NoReading::NotANumber)),
    ("not_performed", Meaning::Absent(NoReading::NotPerformed)),
    ("questionable", Meaning::Marked(Flags::QUESTIONABLE)),
    ("test", Meaning::Marked(Flags::TEST)),
    ("calibrating", Meaning::Marked(Flags::CALIBRATING)),
];

/// Reads a required `means`.
pub(crate) fn meaning(section: &mut Section<'_>, report: &mut Report) -> Option<Meaning> {
    let means = section.required_text(report, "means")?;
    let found = MEANINGS.iter().find(|(name, _)| *name == means.value);
    if found.is_none() {
        let names: Vec<_> = MEANINGS.iter().map(|(name, _)| *name).collect();
        report.at(&means, format!("{:?} is not a meaning", means.value), format!("use one of: {}", names.join(", ")));
    }
    found.map(|(_, meaning)| *meaning)
}

/// Reads a required `means` that must be an absence.
pub(crate) fn absence(section: &mut Section<'_>, report: &mut Report) -> Option<NoReading> {
    match meaning(section, report)? {
        Meaning::Absent(reason) => Some(reason),
        Meaning::Fine | Meaning::Marked(_) => {
            section.fault(report, "its meaning is not an absence", "use one like not_available or sensor_disconnected");
            None
        }
    }
}

/// A text or number that a publisher sends instead of a value.
#[derive(Debug)]
pub(crate) struct AbsenceCode {
    text: Box<str>,
    number: Option<Decimal>,
    /// What it means.
    pub(crate) reason: NoReading,
}

impl AbsenceCode {
    /// Whether the number is the code, however many zeros either is written with.
    pub(crate) fn is_number(&self, number: Decimal) -> bool {
        self.number == Some(number)
    }

    /// Whether the text is the code.
    pub(crate) fn is_text(&self, text: &str) -> bool {
        *self.text == *text
    }
}

/// Reads `absent = [{ code = "...", means = "..." }]`.
pub(crate) fn absence_codes(section: &mut Section<'_>, report: &mut Report) -> Box<[AbsenceCode]> {
    let mut codes = Vec::new();
    for mut entry in bounded(section.sections(report, "absent"), report) {
        let code = entry.required_text(report, "code");
        let reason = absence(&mut entry, report);
        if let (Some(code), Some(reason)) = (code, reason) {
            codes.push(AbsenceCode { text: code.value.into(), number: number::decimal(code.value), reason });
        }
        entry.close(report);
    }
    codes.into()
}

/// The list, cut to what a profile may hold; the rest is a fault.
pub(crate) fn bounded<'d>(mut sections: Vec<Section<'d>>, report: &mut Report) -> Vec<Section<'d>> {
    if let Some(surplus) = sections.get(CODES_MAX) {
        surplus.fault(report, format!("the list has more than {CODES_MAX} entries"), "split the profile");
    }
    sections.truncate(CODES_MAX);
    sections
}

/// Reads the required `metric`: one of the catalogue that has a value of its own.
pub(crate) fn metric(section: &mut Section<'_>, report: &mut Report) -> Option<Metric> {
    let key = section.required_text(report, "metric")?;
    let metric = Metric::parse(key.value).filter(|metric| metric.definition().unit.is_some());
    if metric.is_none() {
        let known: Vec<_> = with_values().map(Metric::key).collect();
        report.at(&key, format!("{:?} is not a metric with a value", key.value), format!("use one of: {}", known.join(", ")));
    }
    metric
}

/// Every metric that has a value of its own; a panel has not.
pub(crate) fn with_values() -> impl Iterator<Item = Metric> {
    Metric::ALL.iter().copied().filter(|metric| metric.definition().unit.is_some())
}

/// Checks a unit text against the metric: a unit that cannot become the metric's own is a fault of the profile.
pub(crate) fn unit_of(metric: Metric, text: &At<&str>, report: &mut Report) -> Option<Unit> {
    let own = metric.definition().unit?;
    let Some(unit) = Unit::parse(text.value) else {
        let known: Vec<_> = Unit::ALL.iter().map(|unit| unit.ucum()).collect();
        report.at(text, format!("{:?} is not a known unit", text.value), format!("use a UCUM code of: {}", known.join(", ")));
        return None;
    };
    if (Quantity { value: Decimal::ONE, unit }).convert(own).is_err() {
        let problem = format!("{} cannot be converted to {}, the unit of {}", unit.ucum(), own.ucum(), metric.key());
        report.at(text, problem, "correct the unit, or use the metric that is given in it");
        return None;
    }
    Some(unit)
}
