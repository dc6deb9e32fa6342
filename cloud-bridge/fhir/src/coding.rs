//! The fixed parts of an Observation, rendered once per metric and unit.

use std::sync::LazyLock;

use vitalgate_domain::{Category, Metric, Unit};

use crate::json::{Commas, raw, string};

const LOINC: &str = "http://loinc.org";
/// Source: HL7 PHD; the code is the 32-bit decimal partition * 65536 + term.
const MDC: &str = "urn:iso:std:iso:11073:10101";

/// JSON members of one metric, without a comma at either end.
pub(crate) struct Fixed {
    /// `"category":[..],"code":{..}`
    pub(crate) category_and_code: Vec<u8>,
    /// `"code":{..}`, for a component.
    pub(crate) code: Vec<u8>,
}

static FIXED: LazyLock<Vec<Fixed>> = LazyLock::new(|| {
    let last = Metric::ALL.iter().map(|&metric| usize::from(u16::from(metric))).max().unwrap_or(0);
    let mut fixed: Vec<Fixed> = (0..=last).map(|_| Fixed { category_and_code: Vec::new(), code: Vec::new() }).collect();
    for &metric in Metric::ALL {
        if let Some(place) = fixed.get_mut(usize::from(u16::from(metric))) {
            *place = render(metric);
        }
    }
    fixed
});

static UNITS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let last = Unit::ALL.iter().map(|&unit| usize::from(u16::from(unit))).max().unwrap_or(0);
    let mut units = vec![Vec::new(); last + 1];
    for &unit in Unit::ALL {
        if let Some(place) = units.get_mut(usize::from(u16::from(unit))) {
            raw(place, r#""unit":"#);
            string(place, unit.text());
            raw(place, r#","system":"http://unitsofmeasure.org","code":"#);
            string(place, unit.ucum());
        }
    }
    units
});

/// The fixed members of a metric.
pub(crate) fn fixed(metric: Metric) -> &'static Fixed {
    static NONE: Fixed = Fixed { category_and_code: Vec::new(), code: Vec::new() };
    FIXED.get(usize::from(u16::from(metric))).unwrap_or(&NONE)
}

/// `"unit":..,"system":..,"code":..` of a Quantity: all three, since the vital-signs profiles demand them.
pub(crate) fn unit(unit: Unit) -> &'static [u8] {
    UNITS.get(usize::from(u16::from(unit))).map_or(&[], Vec::as_slice)
}

fn render(metric: Metric) -> Fixed {
    let definition = metric.definition();
    let mut code = Vec::new();
    raw(&mut code, r#""code":{"coding":["#);
    let mut commas = Commas::new();
    for (loinc, display) in definition.loinc {
        commas.next(&mut code);
        coding(&mut code, LOINC, loinc, display);
    }
    if let Some((number, reference_id)) = definition.mdc {
        commas.next(&mut code);
        coding(&mut code, MDC, &number.to_string(), reference_id);
    }
    raw(&mut code, "]}");
    let (category, display) = match definition.category {
        Category::VitalSigns => ("vital-signs", "Vital Signs"),
        Category::Laboratory => ("laboratory", "Laboratory"),
    };
    let mut category_and_code = Vec::new();
    raw(&mut category_and_code, r#""category":[{"coding":["#);
    coding(&mut category_and_code, "http://terminology.hl7.org/CodeSystem/observation-category", category, display);
    raw(&mut category_and_code, "]}],");
    category_and_code.extend_from_slice(&code);
    Fixed { category_and_code, code }
}

fn coding(out: &mut Vec<u8>, system: &str, code: &str, display: &str) {
    raw(out, r#"{"system":"#);
    string(out, system);
    raw(out, r#","code":"#);
    string(out, code);
    raw(out, r#","display":"#);
    string(out, display);
    raw(out, "}");
}

/// Whether a value of the metric in this unit may claim the metric's profile
/// (FHIR R4 vital signs: fixed codes, or the bindings `ucum-bodytemp`, `ucum-bodyweight`, `ucum-bodylength`).
pub(crate) fn conforms(metric: Metric, unit: Unit) -> bool {
    match metric {
        Metric::BodyTemperature => matches!(unit, Unit::Celsius | Unit::Fahrenheit),
        Metric::BodyWeight => matches!(unit, Unit::Kilogram | Unit::Gram | Unit::Pound),
        Metric::BodyHeight => matches!(unit, Unit::Centimetre | Unit::Inch),
        other => other.definition().unit == Some(unit),
    }
}
