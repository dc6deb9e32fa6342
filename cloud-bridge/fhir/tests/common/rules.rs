//! The rules of the R4 vital-signs profiles as a small checker, written from the profiles' tables and
//! independent of the catalogue.
#![allow(dead_code, unreachable_pub, missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Test code, used in parts.

use serde_json::Value as Json;

const UCUM: &str = "http://unitsofmeasure.org";
/// R4 value set `ucum-vitals-common`, required for components of vital signs.
const VITALS_COMMON: [&str; 12] = ["%", "cm", "[in_i]", "kg", "g", "[lb_av]", "Cel", "[degF]", "mm[Hg]", "/min", "kg/m2", "m2"];

struct Profile {
    loinc: &'static str,
    name: &'static str,
    units: &'static [&'static str],
}

const PROFILES: [Profile; 7] = [
    Profile { loinc: "8867-4", name: "heartrate", units: &["/min"] },
    Profile { loinc: "9279-1", name: "resprate", units: &["/min"] },
    Profile { loinc: "2708-6", name: "oxygensat", units: &["%"] },
    Profile { loinc: "8310-5", name: "bodytemp", units: &["Cel", "[degF]"] },
    Profile { loinc: "29463-7", name: "bodyweight", units: &["kg", "[lb_av]", "g"] },
    Profile { loinc: "8302-2", name: "bodyheight", units: &["cm", "[in_i]"] },
    Profile { loinc: "85354-9", name: "bp", units: &["mm[Hg]"] },
];

fn codes<'a>(concept: &'a Json, system: &str) -> Vec<&'a str> {
    let codings = concept["coding"].as_array().map(Vec::as_slice).unwrap_or_default();
    codings.iter().filter(|coding| coding["system"] == system).filter_map(|coding| coding["code"].as_str()).collect()
}

fn present(json: &Json, member: &str) -> bool {
    !json[member].is_null()
}

fn has_value(json: &Json) -> bool {
    present(json, "valueQuantity")
}

fn check_quantity(quantity: &Json, units: &[&str], found: &mut Vec<String>) {
    if !quantity["value"].is_number() {
        found.push("a quantity needs a value".into());
    }
    if quantity["unit"].as_str().is_none_or(str::is_empty) {
        found.push("a quantity needs a unit for people".into());
    }
    if quantity["system"] != UCUM {
        found.push("a quantity's system is UCUM".into());
    }
    if !quantity["code"].as_str().is_some_and(|code| units.contains(&code)) {
        found.push(format!("unit code {} is not one of {units:?}", quantity["code"]));
    }
}

/// Every rule of the base profile and of the one for the vital sign that the Observation breaks.
pub fn broken_rules(observation: &Json) -> Vec<String> {
    let mut found = Vec::new();
    if observation["resourceType"] != "Observation" || observation["status"] != "final" {
        found.push("a final Observation".into());
    }
    if observation["subject"]["reference"].as_str().is_none_or(|reference| !reference.starts_with("Patient/")) {
        found.push("subject 1..1".into());
    }
    if observation["identifier"].as_array().is_none_or(|list| list.is_empty()) {
        found.push("an identifier on every Observation".into());
    }
    check_effective(observation, &mut found);
    let categories: Vec<&str> = observation["category"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default()
        .iter()
        .flat_map(|category| codes(category, "http://terminology.hl7.org/CodeSystem/observation-category"))
        .collect();
    let loinc = codes(&observation["code"], "http://loinc.org");
    let profile = PROFILES.iter().find(|profile| loinc.contains(&profile.loinc));
    if let Some(profile) = profile {
        if categories != ["vital-signs"] {
            found.push("category:VSCat 1..1".into());
        }
        check_vital_sign(observation, profile, &mut found);
    } else if loinc.iter().any(|code| ["41653-7", "14743-9", "2339-0"].contains(code)) {
        if categories != ["laboratory"] || present(&observation["meta"], "profile") {
            found.push("glucose is laboratory and no vital sign".into());
        }
    } else {
        found.push(format!("code {loinc:?} is none of the table"));
    }
    found
}

fn check_effective(observation: &Json, found: &mut Vec<String>) {
    let effective = observation["effectiveDateTime"].as_str().unwrap_or_default();
    // vs-1, and FHIR's own form of dateTime with an offset.
    let pattern = "dddd-dd-ddTdd:dd:dd.ddd?dd:dd";
    let fits = effective.len() == pattern.len()
        && effective.bytes().zip(pattern.bytes()).all(|(byte, wanted)| match wanted {
            b'd' => byte.is_ascii_digit(),
            b'?' => byte == b'+' || byte == b'-',
            other => byte == other,
        });
    if !fits {
        found.push(format!("vs-1: effective {effective:?}"));
    }
}

fn check_vital_sign(observation: &Json, profile: &Profile, found: &mut Vec<String>) {
    let claimed = &observation["meta"]["profile"];
    if present(&observation["meta"], "profile")
        && *claimed != serde_json::json!([format!("http://hl7.org/fhir/StructureDefinition/{}", profile.name)])
    {
        found.push(format!("claims {claimed}, is {}", profile.name));
    }
    let components = observation["component"].as_array().map(Vec::as_slice).unwrap_or_default();
    let absent = present(observation, "dataAbsentReason");
    if components.is_empty() && !has_value(observation) && !absent {
        found.push("vs-2: value or dataAbsentReason".into());
    }
    if has_value(observation) && absent {
        found.push("obs-6: dataAbsentReason only without a value".into());
    }
    for component in components {
        if has_value(component) == present(component, "dataAbsentReason") {
            found.push("vs-3: each component has either a value or a dataAbsentReason".into());
        }
        if has_value(component) {
            check_quantity(&component["valueQuantity"], &VITALS_COMMON, found);
        }
    }
    if profile.name == "bp" {
        return check_blood_pressure(observation, components, found);
    }
    if has_value(observation) {
        check_quantity(&observation["valueQuantity"], profile.units, found);
    }
}

fn check_blood_pressure(observation: &Json, components: &[Json], found: &mut Vec<String>) {
    if has_value(observation) {
        found.push("bp: no value of its own".into());
    }
    if components.len() < 2 {
        found.push("bp: component 2..*".into());
    }
    for wanted in ["8480-6", "8462-4"] {
        let count = components.iter().filter(|component| codes(&component["code"], "http://loinc.org").contains(&wanted)).count();
        if count != 1 {
            found.push(format!("bp: component {wanted} 1..1, found {count}"));
        }
    }
    for component in components.iter().filter(|component| has_value(component)) {
        check_quantity(&component["valueQuantity"], &["mm[Hg]"], found);
    }
}
