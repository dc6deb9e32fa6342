//! The FHIR R4 (4.0.1) vital-signs rules that an EHR checks: base profile, fixed codes and units.

use serde_json::Value;

const LOINC: &str = "http://loinc.org";
const UCUM: &str = "http://unitsofmeasure.org";
/// LOINC code that the profile fixes, and the UCUM codes that it allows.
const VITAL_SIGNS: &[(&str, &[&str])] = &[
    ("8867-4", &["/min"]),
    ("9279-1", &["/min"]),
    ("2708-6", &["%"]),
    ("8310-5", &["Cel", "[degF]"]),
    ("29463-7", &["kg", "[lb_av]", "g"]),
    ("8302-2", &["cm", "[in_i]"]),
    ("8480-6", &["mm[Hg]"]),
    ("8462-4", &["mm[Hg]"]),
    ("8478-0", &["mm[Hg]"]),
];
/// Blood pressure panel, and the parts that it must name.
const BLOOD_PRESSURE: (&str, [&str; 2]) = ("85354-9", ["8480-6", "8462-4"]);

fn codes(concept: &Value) -> impl Iterator<Item = &str> {
    let codings = concept["coding"].as_array().map(Vec::as_slice).unwrap_or_default();
    codings.iter().filter(|coding| coding["system"] == LOINC).filter_map(|coding| coding["code"].as_str())
}

/// The first rule that an Observation breaks.
pub(crate) fn broken_rule(observation: &Value) -> Option<String> {
    for required in ["status", "category", "code", "subject", "effectiveDateTime", "identifier"] {
        if observation.get(required).is_none_or(Value::is_null) {
            return Some(format!("Observation.{required} is missing"));
        }
    }
    if observation["effectiveDateTime"].as_str().is_none_or(|text| text.len() < 8) {
        return Some("vs-1: effectiveDateTime has no day".to_owned());
    }
    if observation["subject"]["reference"].as_str().is_none_or(|reference| !reference.starts_with("Patient/")) {
        return Some("Observation.subject refers to no Patient".to_owned());
    }
    let category = observation["category"][0]["coding"][0]["code"].as_str();
    match category {
        Some("vital-signs") => vital_sign(observation),
        Some(_) => value_or_reason(observation, "Observation"),
        None => Some("Observation.category has no code".to_owned()),
    }
}

fn vital_sign(observation: &Value) -> Option<String> {
    let components = observation.get("component").and_then(Value::as_array);
    let Some(components) = components else {
        if codes(&observation["code"]).any(|code| code == BLOOD_PRESSURE.0) {
            return Some("bp: no component".to_owned());
        }
        return value_or_reason(observation, "vs-2: Observation").or_else(|| unit(observation));
    };
    if observation.get("valueQuantity").is_some() {
        return Some("bp: a panel has no value of its own".to_owned());
    }
    for part in BLOOD_PRESSURE.1 {
        let named = components.iter().filter(|component| codes(&component["code"]).any(|code| code == part)).count();
        if named != 1 {
            return Some(format!("bp: component {part} is there {named} times"));
        }
    }
    components.iter().find_map(|component| value_or_reason(component, "vs-3: component").or_else(|| unit(component)))
}

fn value_or_reason(part: &Value, place: &str) -> Option<String> {
    let has = |name: &str| part.get(name).is_some_and(|value| !value.is_null());
    (has("valueQuantity") == has("dataAbsentReason")).then(|| format!("{place} needs either a value or the reason why there is none"))
}

fn unit(part: &Value) -> Option<String> {
    let quantity = part.get("valueQuantity")?;
    let complete = quantity["value"].is_number() && quantity["unit"].is_string() && quantity["system"] == UCUM;
    if !complete {
        return Some("a Quantity needs value, unit, system and code".to_owned());
    }
    let Some((_, allowed)) = VITAL_SIGNS.iter().find(|(loinc, _)| codes(&part["code"]).any(|code| code == *loinc)) else {
        return Some("code: none of the LOINC codes of the vital-signs profiles".to_owned());
    };
    let code = quantity["code"].as_str().unwrap_or("");
    (!allowed.contains(&code)).then(|| format!("the unit {code:?} is not allowed here"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn heart_rate() -> Value {
        json!({
            "status": "final", "identifier": [{"value": "x"}], "subject": {"reference": "Patient/1"}, "effectiveDateTime": "2026-11-22T10:00:00Z",
            "category": [{"coding": [{"code": "vital-signs"}]}], "code": {"coding": [{"system": LOINC, "code": "8867-4"}]},
            "valueQuantity": {"value": 72, "unit": "/min", "system": UCUM, "code": "/min"},
        })
    }

    #[test]
    fn a_right_heart_rate_is_taken_and_each_broken_rule_is_named() {
        assert_eq!(broken_rule(&heart_rate()), None);
        for (path, wrong) in [("/valueQuantity/code", json!("bpm")), ("/subject", Value::Null), ("/valueQuantity", Value::Null)] {
            let mut observation = heart_rate();
            *observation.pointer_mut(path).unwrap() = wrong;
            assert!(broken_rule(&observation).is_some(), "{path}");
        }
    }
}
