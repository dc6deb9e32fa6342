//! What a person reads: an Observation as a short label, value and unit.

use serde::Serialize;
use serde_json::Value;

/// One value on a patient's chart.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Charted {
    /// Stable key of the column.
    pub(crate) key: &'static str,
    /// What was observed.
    pub(crate) label: &'static str,
    /// The number, `118/64` for a blood pressure, or `no value`.
    pub(crate) value: String,
    /// The unit.
    pub(crate) unit: String,
    /// When, as the EHR holds it.
    pub(crate) time: String,
    /// Whether there is a value.
    pub(crate) absent: bool,
}

/// Columns by LOINC code; the order is that of the chart.
pub(crate) const COLUMNS: &[(&str, &str, &str)] = &[
    ("8867-4", "hr", "Heart rate"),
    ("2708-6", "spo2", "SpO2"),
    ("9279-1", "rr", "Resp. rate"),
    ("abp", "abp", "Arterial pressure"),
    ("nibp", "nibp", "Cuff pressure"),
    ("8310-5", "temp", "Temperature"),
    ("29463-7", "weight", "Weight"),
];

const PANEL: &str = "85354-9";
/// MDC code of the invasive panel (150016), which tells it from the cuff's.
const INVASIVE: &str = "150016";

fn has_code(concept: &Value, code: &str) -> bool {
    concept["coding"].as_array().is_some_and(|codings| codings.iter().any(|coding| coding["code"] == code))
}

/// What an Observation says; `None` for one that has no column.
pub(crate) fn charted(observation: &Value) -> Option<Charted> {
    let code = &observation["code"];
    let panel = has_code(code, PANEL);
    let wanted = |loinc: &str| match loinc {
        "abp" => panel && has_code(code, INVASIVE),
        "nibp" => panel && !has_code(code, INVASIVE),
        loinc => has_code(code, loinc),
    };
    let (_, key, label) = COLUMNS.iter().find(|(loinc, _, _)| wanted(loinc))?;
    let (value, unit, absent) = if panel { pressure(observation) } else { quantity(observation) };
    let time = observation["effectiveDateTime"].as_str().unwrap_or("").to_owned();
    Some(Charted { key, label, value, unit, time, absent })
}

fn quantity(part: &Value) -> (String, String, bool) {
    let quantity = &part["valueQuantity"];
    match &quantity["value"] {
        Value::Number(number) => (short(number.as_f64().unwrap_or(0.0)), quantity["unit"].as_str().unwrap_or("").to_owned(), false),
        _ => {
            let reason = part["dataAbsentReason"]["text"].as_str().unwrap_or("no value");
            (reason.to_owned(), String::new(), true)
        }
    }
}

fn short(number: f64) -> String {
    let rounded = (number * 10.0).round() / 10.0;
    format!("{rounded}")
}

fn pressure(observation: &Value) -> (String, String, bool) {
    let components = observation["component"].as_array().map(Vec::as_slice).unwrap_or_default();
    let part = |loinc: &str| {
        components
            .iter()
            .find(|component| has_code(&component["code"], loinc))
            .and_then(|component| component["valueQuantity"]["value"].as_f64())
    };
    let text = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |value| format!("{}", value.round()));
    let (systolic, diastolic, mean) = (part("8480-6"), part("8462-4"), part("8478-0"));
    if systolic.is_none() && diastolic.is_none() && mean.is_none() {
        return components.first().map_or_else(|| quantity(observation), quantity);
    }
    let mut value = format!("{}/{}", text(systolic), text(diastolic));
    if mean.is_some() {
        value.push_str(&format!(" ({})", text(mean)));
    }
    (value, "mmHg".to_owned(), false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_blood_pressure_reads_as_a_clinician_writes_it() {
        let part =
            |code: &str, value: f64| json!({"code": {"coding": [{"code": code}]}, "valueQuantity": {"value": value, "unit": "mmHg"}});
        let panel = json!({"code": {"coding": [{"code": "85354-9"}, {"code": "150016"}]}, "effectiveDateTime": "t",
            "component": [part("8480-6", 118.0), part("8462-4", 64.0), part("8478-0", 81.5)]});
        let charted = charted(&panel).unwrap();
        assert_eq!((charted.key, charted.value.as_str(), charted.unit.as_str()), ("abp", "118/64 (82)", "mmHg"));
    }
}
