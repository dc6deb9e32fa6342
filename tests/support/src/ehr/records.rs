//! What the server holds: resources by type and id, found again by identifier.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use serde_json::Value;
use uuid::Uuid;
use vitalgate_domain::UnixMs;

/// What an Observation or one of its components says.
#[derive(Debug, Clone, PartialEq)]
pub enum Stated {
    /// A number with the UCUM code of its unit.
    Number(f64, String),
    /// No value, with the code of the reason.
    Absent(String),
}

/// One reading as the server holds it.
#[derive(Debug, Clone, PartialEq)]
pub struct Sighting {
    /// The id of the reading: the Observation's identifier, or the element id of the component.
    pub reading: Uuid,
    /// The id of the resource it was found in.
    pub resource: Arc<str>,
    /// Display of the device.
    pub device: String,
    /// The reference that says whose it is.
    pub subject: String,
    /// Every code of what was observed, whatever its system.
    pub codes: Vec<String>,
    /// The moment it holds for.
    pub effective: Option<UnixMs>,
    /// Value or absence.
    pub stated: Stated,
}

/// A stored resource.
#[derive(Debug, Clone)]
pub struct Kept {
    /// Its id.
    pub id: Arc<str>,
    /// 1 when created, one more for each write since.
    pub version: u64,
    /// Whether a later write said something else than the first one.
    pub altered: bool,
    /// The JSON of the last write.
    pub body: Arc<[u8]>,
    /// When it first came.
    pub arrived: Instant,
}

impl Kept {
    /// The resource as JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }
}

/// An accepted write.
pub(crate) struct Written {
    pub(crate) id: Arc<str>,
    pub(crate) version: u64,
    pub(crate) created: bool,
}

#[derive(Default)]
struct Kind {
    order: Vec<Arc<str>>,
    kept: HashMap<Arc<str>, Kept>,
    by_identifier: BTreeMap<String, BTreeSet<Arc<str>>>,
    sightings: HashMap<Arc<str>, Vec<Sighting>>,
}

/// Everything.
#[derive(Default)]
pub(crate) struct Records {
    kinds: HashMap<String, Kind>,
    /// Every reading that any Observation ever stated.
    readings: HashSet<Uuid>,
}

/// `system|value` of every identifier of a resource.
pub(crate) fn identifiers(resource: &Value) -> Vec<String> {
    let list = resource.get("identifier").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    list.iter()
        .filter_map(|identifier| Some(format!("{}|{}", identifier["system"].as_str().unwrap_or(""), identifier["value"].as_str()?)))
        .collect()
}

impl Records {
    pub(crate) fn find(&self, kind: &str, identifier: &str) -> Vec<Arc<str>> {
        let Some(kind) = self.kinds.get(kind) else { return Vec::new() };
        if identifier.contains('|') {
            return kind.by_identifier.get(identifier).into_iter().flatten().cloned().collect();
        }
        // Without a system any system matches (FHIR R4 search, token).
        let suffix = format!("|{identifier}");
        kind.by_identifier.iter().filter(|(key, _)| key.ends_with(&suffix)).flat_map(|(_, ids)| ids.iter().cloned()).collect()
    }

    pub(crate) fn get(&self, kind: &str, id: &str) -> Option<&Kept> {
        self.kinds.get(kind)?.kept.get(id)
    }

    /// Every resource of a kind in the order of arrival.
    pub(crate) fn all(&self, kind: &str) -> Vec<&Kept> {
        let Some(kind) = self.kinds.get(kind) else { return Vec::new() };
        kind.order.iter().filter_map(|id| kind.kept.get(id)).collect()
    }

    /// Stores a resource under `id`, a new one when `None`.
    pub(crate) fn write(&mut self, kind: &str, id: Option<&str>, mut resource: Value) -> Written {
        let id: Arc<str> = id.map_or_else(|| Arc::from(Uuid::new_v4().to_string()), Arc::from);
        if let Some(object) = resource.as_object_mut() {
            object.insert("id".to_owned(), Value::from(&*id));
        }
        let body: Arc<[u8]> = Arc::from(resource.to_string().into_bytes());
        let sightings = if kind == "Observation" { sightings_in(&resource, &id) } else { Vec::new() };
        self.readings.extend(sightings.iter().map(|sighting| sighting.reading));
        let kind = self.kinds.entry(kind.to_owned()).or_default();
        kind.sightings.insert(id.clone(), sightings);
        for identifier in identifiers(&resource) {
            kind.by_identifier.entry(identifier).or_default().insert(id.clone());
        }
        if let Some(kept) = kind.kept.get_mut(&id) {
            kept.version += 1;
            kept.altered |= kept.body != body;
            kept.body = body;
            return Written { id, version: kept.version, created: false };
        }
        kind.order.push(id.clone());
        kind.kept.insert(id.clone(), Kept { id: id.clone(), version: 1, altered: false, body, arrived: Instant::now() });
        Written { id, version: 1, created: true }
    }

    pub(crate) fn plant(&mut self, resource: Value) -> Option<String> {
        let kind = resource.get("resourceType")?.as_str()?.to_owned();
        let id = resource.get("id").and_then(Value::as_str).map(str::to_owned);
        Some(self.write(&kind, id.as_deref(), resource).id.to_string())
    }

    pub(crate) fn observation_count(&self) -> usize {
        self.kinds.get("Observation").map_or(0, |kind| kind.order.len())
    }

    pub(crate) fn observations_since(&self, known: usize) -> Vec<Kept> {
        let Some(kind) = self.kinds.get("Observation") else { return Vec::new() };
        kind.order.iter().skip(known).filter_map(|id| kind.kept.get(id)).cloned().collect()
    }

    pub(crate) fn duplicated_identifiers(&self) -> Vec<String> {
        let Some(kind) = self.kinds.get("Observation") else { return Vec::new() };
        kind.by_identifier.iter().filter(|(_, ids)| ids.len() > 1).map(|(identifier, _)| identifier.clone()).collect()
    }

    pub(crate) fn altered(&self) -> Vec<Arc<str>> {
        self.all("Observation").into_iter().filter(|kept| kept.altered).map(|kept| kept.id.clone()).collect()
    }

    pub(crate) fn sightings(&self) -> Vec<Sighting> {
        let Some(kind) = self.kinds.get("Observation") else { return Vec::new() };
        kind.order.iter().filter_map(|id| kind.sightings.get(id)).flatten().cloned().collect()
    }

    pub(crate) fn has_reading(&self, reading: &Uuid) -> bool {
        self.readings.contains(reading)
    }
}

/// The readings that an Observation states.
#[must_use]
pub fn sightings_in(observation: &Value, resource: &Arc<str>) -> Vec<Sighting> {
    let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
    let sighting = |id: Option<&str>, part: &Value| {
        Some(Sighting {
            reading: Uuid::parse_str(id?.trim_start_matches("urn:uuid:")).ok()?,
            resource: resource.clone(),
            device: text(&observation["device"]["display"]),
            subject: text(&observation["subject"]["reference"]),
            codes: part["code"]["coding"].as_array().into_iter().flatten().map(|coding| text(&coding["code"])).collect(),
            effective: observation["effectiveDateTime"].as_str().and_then(UnixMs::parse_rfc3339),
            stated: stated(part)?,
        })
    };
    match observation.get("component").and_then(Value::as_array) {
        Some(components) => components.iter().filter_map(|component| sighting(component["id"].as_str(), component)).collect(),
        None => sighting(observation["identifier"][0]["value"].as_str(), observation).into_iter().collect(),
    }
}

fn stated(part: &Value) -> Option<Stated> {
    if let Some(number) = part["valueQuantity"]["value"].as_f64() {
        return Some(Stated::Number(number, part["valueQuantity"]["code"].as_str().unwrap_or("").to_owned()));
    }
    part["dataAbsentReason"]["coding"][0]["code"].as_str().map(|code| Stated::Absent(code.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_second_resource_with_the_same_identifier_is_a_duplicate_and_a_second_write_is_not() {
        let mut records = Records::default();
        let observation = json!({"resourceType": "Observation", "identifier": [{"system": "s", "value": "v"}]});
        records.write("Observation", Some("a"), observation.clone());
        let again = records.write("Observation", Some("a"), observation.clone());
        assert_eq!((again.version, again.created), (2, false));
        assert!(records.duplicated_identifiers().is_empty());
        assert!(records.altered().is_empty());
        records.write("Observation", None, observation);
        assert_eq!(records.duplicated_identifiers(), ["s|v"]);
    }

    #[test]
    fn a_later_write_with_other_content_is_remembered_though_the_first_content_comes_back() {
        let mut records = Records::default();
        for status in ["final", "amended", "final"] {
            records.write("Observation", Some("a"), json!({"resourceType": "Observation", "status": status}));
        }
        assert_eq!(records.altered(), [Arc::from("a")]);
    }

    #[test]
    fn the_parts_of_a_panel_are_found_by_their_own_ids() {
        let panel = json!({"device": {"display": "m"}, "subject": {"reference": "Patient/1"}, "effectiveDateTime": "1970-01-01T01:00:00.120+01:00", "identifier": [{"value": "urn:uuid:00000000-0000-0000-0000-000000000001"}], "component": [
            {"id": "00000000-0000-0000-0000-000000000002", "code": {"coding": [{"code": "8480-6"}]}, "valueQuantity": {"value": 120, "code": "mm[Hg]"}},
            {"dataAbsentReason": {"coding": [{"code": "unknown"}]}},
        ]});
        let found = sightings_in(&panel, &Arc::from("x"));
        assert_eq!(found.len(), 1, "a part that never arrived is no reading");
        assert_eq!((found[0].reading.as_u128(), found[0].stated.clone()), (2, Stated::Number(120.0, "mm[Hg]".into())));
        assert_eq!((found[0].device.as_str(), found[0].subject.as_str()), ("m", "Patient/1"));
        assert_eq!((found[0].codes.clone(), found[0].effective), (vec!["8480-6".to_owned()], Some(UnixMs(120))));
    }
}
