//! Answers to a search or a read, looked at only for whether they show the resource that was asked for.
//!
//! A server that ignores a search parameter gives all it has. So nothing counts as found unless the resource
//! itself shows the identifier.

use std::sync::Arc;

use serde::Deserialize;

use crate::RESPONSE_BYTES_MAX;
use crate::answer::is_id;
use crate::bounded::First;

/// Entries of one search answer that are looked at.
const ENTRIES_MAX: usize = 256;
/// Identifiers of one resource that are looked at.
const IDENTIFIERS_MAX: usize = 64;

/// What a search by identifier found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    None,
    /// Exactly one, with its id.
    One(Arc<str>),
    /// More than one.
    Several,
}

/// Why a search answer says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SearchError {
    /// No complete search result.
    #[error("the server's answer to a search is no complete search result")]
    NotASearchset,
    /// It gave resources that do not carry the identifier: it does not search by it.
    #[error("the server does not search by identifier: it gave resources without it")]
    IdentifierIgnored,
}

#[derive(Deserialize)]
struct Searchset {
    #[serde(rename = "resourceType")]
    resource_type: String,
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    total: Option<u64>,
    #[serde(default)]
    entry: First<Entry, ENTRIES_MAX>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Entry {
    resource: Option<Resource>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Resource {
    #[serde(rename = "resourceType")]
    resource_type: String,
    id: String,
    identifier: Identifiers,
}

/// One identifier or a list of them, as the resource type has it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Identifiers {
    Many(First<Identifier, IDENTIFIERS_MAX>),
    One(Identifier),
}

impl Default for Identifiers {
    fn default() -> Self {
        Self::Many(First::default())
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Identifier {
    system: String,
    value: String,
}

impl Resource {
    fn carries(&self, system: &str, value: &str) -> bool {
        let matches = |identifier: &Identifier| identifier.system == system && identifier.value == value;
        match &self.identifier {
            Identifiers::Many(list) => list.0.iter().any(matches),
            Identifiers::One(one) => matches(one),
        }
    }
}

/// What the answer to `GET {resource_type}?identifier={system}|{value}` shows.
///
/// # Errors
/// When it is no search result, or shows that the server ignored the parameter.
pub fn find_in_search(body: &[u8], resource_type: &str, system: &str, value: &str) -> Result<Found, SearchError> {
    let body = if body.len() <= RESPONSE_BYTES_MAX { body } else { &[] };
    let set: Searchset = serde_json::from_slice(body).map_err(|_| SearchError::NotASearchset)?;
    if set.resource_type != "Bundle" || set.kind != "searchset" {
        return Err(SearchError::NotASearchset);
    }
    let resources = set.entry.0.iter().filter_map(|entry| entry.resource.as_ref());
    let mut ids: Vec<&str> = Vec::new();
    for resource in resources.filter(|resource| resource.resource_type == resource_type) {
        if !resource.carries(system, value) || !is_id(&resource.id) {
            return Err(SearchError::IdentifierIgnored);
        }
        if !ids.contains(&resource.id.as_str()) {
            ids.push(&resource.id);
        }
    }
    Ok(match ids.as_slice() {
        [] if set.total.unwrap_or(0) > 0 => return Err(SearchError::NotASearchset),
        [] => Found::None,
        [_] if set.total.unwrap_or(1) > 1 => Found::Several,
        [only] => Found::One(Arc::from(*only)),
        _ => Found::Several,
    })
}

/// Whether the answer to `GET {resource_type}/{id}` is that resource with that identifier.
#[must_use]
pub fn read_carries_identifier(body: &[u8], resource_type: &str, id: &str, system: &str, value: &str) -> bool {
    let body = if body.len() <= RESPONSE_BYTES_MAX { body } else { &[] };
    serde_json::from_slice::<Resource>(body)
        .is_ok_and(|resource| resource.resource_type == resource_type && resource.id == id && resource.carries(system, value))
}

/// The id of the resource of this type that an answer holds, or that a `Location` names.
#[must_use]
pub fn parse_resource_id(body: &[u8], location: Option<&str>, resource_type: &str) -> Option<Arc<str>> {
    let in_location = location.and_then(|location| {
        let (_, after) = location.rsplit_once(&format!("{resource_type}/"))?;
        after.split(['/', '?', '#']).next().filter(|id| is_id(id)).map(Arc::from)
    });
    in_location.or_else(|| {
        let body = if body.len() <= RESPONSE_BYTES_MAX { body } else { &[] };
        let resource: Resource = serde_json::from_slice(body).ok()?;
        (resource.resource_type == resource_type && is_id(&resource.id)).then(|| Arc::from(resource.id.as_str()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: &str, value: &str) -> String {
        format!(r#"{{"resource":{{"resourceType":"Observation","id":"{id}","identifier":[{{"system":"s","value":"{value}"}}]}}}}"#)
    }

    fn found(entries: &[String], total: u64) -> Result<Found, SearchError> {
        let body = format!(r#"{{"resourceType":"Bundle","type":"searchset","total":{total},"entry":[{}]}}"#, entries.join(","));
        find_in_search(body.as_bytes(), "Observation", "s", "v")
    }

    #[test]
    fn only_a_resource_that_shows_the_identifier_counts_as_found() {
        assert_eq!(found(&[entry("a", "v")], 1), Ok(Found::One("a".into())));
        assert_eq!(found(&[], 0), Ok(Found::None));
        assert_eq!(found(&[entry("a", "v"), entry("b", "v")], 2), Ok(Found::Several));
        assert_eq!(found(&[entry("a", "v")], 2), Ok(Found::Several), "the rest is on another page");
        assert_eq!(found(&[entry("a", "other")], 1), Err(SearchError::IdentifierIgnored));
        assert_eq!(find_in_search(b"{\"resourceType\":\"Bundle\"", "Observation", "s", "v"), Err(SearchError::NotASearchset));
    }

    #[test]
    fn an_id_is_read_from_a_location_or_from_the_resource() {
        let id = |body: &str, location| parse_resource_id(body.as_bytes(), location, "Device");
        assert_eq!(id("", Some("https://ehr/fhir/Device/12/_history/1")).as_deref(), Some("12"));
        assert_eq!(id(r#"{"resourceType":"Device","id":"7"}"#, None).as_deref(), Some("7"));
        assert_eq!(id(r#"{"resourceType":"Patient","id":"7"}"#, Some("Device/a b")), None);
    }
}
