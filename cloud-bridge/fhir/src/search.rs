//! Answers to a search or a read, looked at only for whether they show the resource that was asked for.
//!
//! A server that ignores a search parameter gives all it has. So nothing counts as found unless the resource
//! itself shows the identifier. And a reading can be there under the patient that it was sent for before it was
//! corrected: an Observation counts for a patient only if its own subject is that patient.
//!
//! A server may show fewer resources on a page than were asked for, and the others on the next one. So what a search
//! does not show counts as missing only where its last page was read.

use std::sync::Arc;

use serde::Deserialize;
use vitalgate_domain::PatientReference;

use crate::RESPONSE_BYTES_MAX;
use crate::answer::is_id;
use crate::bounded::First;

/// Entries of one page of a search answer that are looked at.
const ENTRIES_MAX: usize = 256;
/// Identifiers of one resource that are looked at.
const IDENTIFIERS_MAX: usize = 64;
/// Links of one page to others that are looked at.
const PAGE_LINKS_MAX: usize = 16;
/// Links of one patient's record to others that are looked at.
const LINKS_MAX: usize = 64;
const OBSERVATION: &str = "Observation";
const PATIENT: &str = "Patient";

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

/// Whom an Observation has to be about.
#[derive(Debug, Clone, Copy)]
pub struct Whose<'a> {
    /// The patient.
    pub patient: &'a PatientReference,
    /// The reference that its subject is written with, `Patient/{id}`.
    pub reference: &'a str,
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
    /// It goes on at a page that was not read.
    #[error(
        "the server's search result goes on at a page that is not read: its link must begin with the URL of the destination as it is \
         entered here and give that page, and the result must end after a few pages"
    )]
    Unfinished,
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
    #[serde(default)]
    link: First<PageLink, PAGE_LINKS_MAX>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct PageLink {
    relation: Option<String>,
    url: Option<String>,
}

impl Searchset {
    /// Where it goes on, unless that can tell nothing new: two different ones are there already, or one and the server says how many
    /// there are.
    fn next(&self, resource_type: &str) -> Option<&str> {
        let mut ids: Vec<&str> = self.resources(resource_type).map(|resource| resource.id.as_str()).collect();
        ids.sort_unstable();
        ids.dedup();
        let is_enough = match ids.len() {
            0 => false,
            1 => self.total.is_some_and(|total| total > 0),
            _ => true,
        };
        let link = self.link.0.iter().find(|link| link.relation.as_deref() == Some("next")).filter(|_| !is_enough)?;
        Some(link.url.as_deref().unwrap_or_default())
    }

    fn resources<'a>(&'a self, resource_type: &'a str) -> impl Iterator<Item = &'a Resource> {
        let resources = self.entry.0.iter().filter_map(|entry| entry.resource.as_ref());
        resources.filter(move |resource| resource.resource_type == resource_type)
    }
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
    subject: Option<Subject>,
    active: Option<bool>,
    link: First<Link, LINKS_MAX>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Link {
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Subject {
    reference: String,
    identifier: Option<Identifier>,
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

impl Identifier {
    fn is(&self, system: &str, value: &str) -> bool {
        self.system == system && self.value == value
    }
}

impl Resource {
    fn carries(&self, system: &str, value: &str) -> bool {
        match &self.identifier {
            Identifiers::Many(list) => list.0.iter().any(|identifier| identifier.is(system, value)),
            Identifiers::One(one) => one.is(system, value),
        }
    }

    /// Whether it is a patient's record that is not in use, or that another one has taken the place of.
    fn is_retired(&self) -> bool {
        self.active == Some(false) || self.link.0.iter().any(|link| link.kind == "replaced-by")
    }

    fn is_about(&self, whose: Whose<'_>) -> bool {
        let Some(subject) = &self.subject else { return false };
        match (patient_id(&subject.reference), whose.patient) {
            (Some(id), _) => patient_id(whose.reference) == Some(id),
            (None, PatientReference::Identifier { system, value }) => {
                subject.identifier.as_ref().is_some_and(|identifier| identifier.is(system, value))
            }
            (None, PatientReference::Literal(_)) => false,
        }
    }
}

/// The id in `Patient/{id}`, relative, absolute or with a version: a server may name itself by another host than we do.
fn patient_id(reference: &str) -> Option<&str> {
    let (before, after) = reference.rsplit_once("Patient/")?;
    let id = after.split(['/', '?', '#']).next()?;
    ((before.is_empty() || before.ends_with('/')) && is_id(id)).then_some(id)
}

/// The link to the page at which the answer to a search for resources of this type goes on, where that can tell more; empty where the
/// answer does not say where that is.
#[must_use]
pub fn next_page(body: &[u8], resource_type: &str) -> Option<String> {
    page(body).ok()?.next(resource_type).map(str::to_owned)
}

/// What the answer to `GET {resource_type}?identifier={system}|{value}` shows, page by page as it was read.
///
/// # Errors
/// When it is no search result, shows that the server ignored the parameter, or shows nothing and goes on.
pub fn find_in_search(pages: &[Vec<u8>], resource_type: &str, system: &str, value: &str) -> Result<Found, SearchError> {
    find(&searchset(pages)?, resource_type, system, value)
}

/// What the answer to `GET Patient?identifier={system}|{value}` shows; `None` where it shows a record that is not in use, or that
/// was replaced by another one, whether the other is shown beside it or not: which record is meant is for a person to say.
///
/// # Errors
/// As [`find_in_search`], and when it shows one and goes on: there may be another one.
pub fn find_patient(pages: &[Vec<u8>], system: &str, value: &str) -> Result<Option<Found>, SearchError> {
    let set = searchset(pages)?;
    let found = find(&set, PATIENT, system, value)?;
    if set.next(PATIENT).is_some() {
        return Err(SearchError::Unfinished);
    }
    Ok((!set.resources(PATIENT).any(Resource::is_retired)).then_some(found))
}

/// What the answer to `GET Observation?identifier={system}|{value}` shows; `None` where it shows one that is about
/// another patient, or does not say whom it is about.
///
/// # Errors
/// As [`find_in_search`].
pub fn find_observation(pages: &[Vec<u8>], system: &str, value: &str, whose: Whose<'_>) -> Result<Option<Found>, SearchError> {
    let set = searchset(pages)?;
    let found = find(&set, OBSERVATION, system, value)?;
    Ok(set.resources(OBSERVATION).all(|resource| resource.is_about(whose)).then_some(found))
}

/// Whether the Observation in the answer to `GET Observation/{id}` is about the patient; `None` unless it is that resource with
/// that identifier.
#[must_use]
pub fn read_observation(body: &[u8], id: &str, system: &str, value: &str, whose: Whose<'_>) -> Option<bool> {
    let body = if body.len() <= RESPONSE_BYTES_MAX { body } else { &[] };
    let resource: Resource = serde_json::from_slice(body).ok()?;
    let is_it = resource.resource_type == OBSERVATION && resource.id == id && resource.carries(system, value);
    is_it.then(|| resource.is_about(whose))
}

/// All pages as one.
fn searchset(pages: &[Vec<u8>]) -> Result<Searchset, SearchError> {
    let (first, others) = pages.split_first().ok_or(SearchError::NotASearchset)?;
    let mut set = page(first)?;
    for other in others {
        let Searchset { entry, link, .. } = page(other)?;
        set.entry.0.extend(entry.0);
        set.link = link;
    }
    Ok(set)
}

fn page(body: &[u8]) -> Result<Searchset, SearchError> {
    let body = if body.len() <= RESPONSE_BYTES_MAX { body } else { &[] };
    let set: Searchset = serde_json::from_slice(body).map_err(|_| SearchError::NotASearchset)?;
    if set.resource_type != "Bundle" || set.kind != "searchset" {
        return Err(SearchError::NotASearchset);
    }
    Ok(set)
}

fn find(set: &Searchset, resource_type: &str, system: &str, value: &str) -> Result<Found, SearchError> {
    let mut ids: Vec<&str> = Vec::new();
    for resource in set.resources(resource_type) {
        if !resource.carries(system, value) || !is_id(&resource.id) {
            return Err(SearchError::IdentifierIgnored);
        }
        if !ids.contains(&resource.id.as_str()) {
            ids.push(&resource.id);
        }
    }
    Ok(match ids.as_slice() {
        [] if set.next(resource_type).is_some() => return Err(SearchError::Unfinished),
        [] if set.total.unwrap_or(0) > 0 => return Err(SearchError::NotASearchset),
        [] => Found::None,
        [_] if set.total.unwrap_or(1) > 1 => Found::Several,
        [only] => Found::One(Arc::from(*only)),
        _ => Found::Several,
    })
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
        find_in_search(&[body.into_bytes()], "Observation", "s", "v")
    }

    #[test]
    fn only_a_resource_that_shows_the_identifier_counts_as_found() {
        assert_eq!(found(&[entry("a", "v")], 1), Ok(Found::One("a".into())));
        assert_eq!(found(&[], 0), Ok(Found::None));
        assert_eq!(found(&[entry("a", "v"), entry("b", "v")], 2), Ok(Found::Several));
        assert_eq!(found(&[entry("a", "v")], 2), Ok(Found::Several), "the rest is on another page");
        assert_eq!(found(&[entry("a", "other")], 1), Err(SearchError::IdentifierIgnored));
        assert_eq!(find_in_search(&[b"{\"resourceType\":\"Bundle\"".to_vec()], "Observation", "s", "v"), Err(SearchError::NotASearchset));
    }

    /// What a page does not show is missing only where it is the last one; two are several, and a server that counts has said how many.
    /// Two are two different ones of what was asked for.
    #[test]
    fn a_search_goes_on_only_where_that_can_tell_more() {
        let next = r#","link":[{"relation":"self","url":"a"},{"relation":"next","url":"b"}]"#;
        let page = |entries: &[String], more: &str| {
            format!(r#"{{"resourceType":"Bundle","type":"searchset","entry":[{}]{more}}}"#, entries.join(",")).into_bytes()
        };
        let found = |pages: &[Vec<u8>]| find_in_search(pages, "Observation", "s", "v");
        let outcome = r#"{"resource":{"resourceType":"OperationOutcome"}}"#.to_owned();
        let other = || entry("x", "v").replace("Observation", "Organization");
        for (entries, more, goes_on) in [
            (vec![], next.to_owned(), true),
            (vec![], String::new(), false),
            (vec![outcome, entry("a", "v")], next.to_owned(), true),
            (vec![entry("a", "v"), other()], next.to_owned(), true),
            (vec![other(), other()], next.to_owned(), true),
            (vec![entry("a", "v"), entry("a", "v")], next.to_owned(), true),
            (vec![entry("a", "v")], format!(r#"{next},"total":1"#), false),
            (vec![entry("a", "v")], format!(r#"{next},"total":2"#), false),
            (vec![entry("a", "v"), entry("b", "v")], next.to_owned(), false),
        ] {
            assert_eq!(next_page(&page(&entries, &more), "Observation").as_deref(), goes_on.then_some("b"), "{entries:?} {more}");
        }
        assert_eq!(found(&[page(&[], next)]), Err(SearchError::Unfinished));
        assert_eq!(found(&[page(&[], next), page(&[], "")]), Ok(Found::None));
        assert_eq!(found(&[page(&[], next), page(&[entry("a", "v")], "")]), Ok(Found::One("a".into())));
        assert_eq!(found(&[page(&[entry("a", "v")], next)]), Ok(Found::One("a".into())), "it is there, whatever follows");
        assert_eq!(found(&[page(&[entry("a", "v")], next), page(&[entry("b", "v")], "")]), Ok(Found::Several));
        let patient = entry("a", "v").replace("Observation", "Patient");
        let of_patient = |pages: &[Vec<u8>]| find_patient(pages, "s", "v");
        let goes_on = page(std::slice::from_ref(&patient), next);
        assert_eq!(of_patient(std::slice::from_ref(&goes_on)), Err(SearchError::Unfinished), "another may follow");
        assert_eq!(of_patient(&[goes_on.clone(), goes_on.clone()]), Err(SearchError::Unfinished), "the same one again");
        assert_eq!(of_patient(&[page(&[patient.clone(), other()], next)]), Err(SearchError::Unfinished), "one patient");
        assert_eq!(of_patient(&[goes_on, page(&[patient], "")]), Ok(Some(Found::One("a".into()))));
        assert_eq!(found(&[page(&[other(), other()], next)]), Err(SearchError::Unfinished), "nothing of what was asked for");
    }

    #[test]
    fn an_id_is_read_from_a_location_or_from_the_resource() {
        let id = |body: &str, location| parse_resource_id(body.as_bytes(), location, "Device");
        assert_eq!(id("", Some("https://ehr/fhir/Device/12/_history/1")).as_deref(), Some("12"));
        assert_eq!(id(r#"{"resourceType":"Device","id":"7"}"#, None).as_deref(), Some("7"));
        assert_eq!(id(r#"{"resourceType":"Patient","id":"7"}"#, Some("Device/a b")), None);
    }

    /// A reading counts as delivered for a patient only in that patient's record, however the server writes the reference.
    #[test]
    fn an_observation_counts_only_for_the_patient_that_it_shows() {
        let literal = PatientReference::Literal("Patient/7".into());
        let known = PatientReference::Identifier { system: "p".into(), value: "77".into() };
        let cases = [
            (r#"{"reference":"Patient/7"}"#, true, true),
            (r#"{"reference":"https://ehr.example/fhir/Patient/7"}"#, true, true),
            (r#"{"reference":"http://inside:8080/Patient/7/_history/3"}"#, true, true),
            (r#"{"identifier":{"system":"p","value":"77"}}"#, false, true),
            (r#"{"reference":"urn:uuid:1","identifier":{"system":"p","value":"77"}}"#, false, true),
            (r#"{"reference":"Patient/8"}"#, false, false),
            (r#"{"reference":"Patient/8","identifier":{"system":"p","value":"77"}}"#, false, false),
            (r#"{"reference":"https://ehr.example/fhir/Patient/70"}"#, false, false),
            (r#"{"reference":"https://ehr.example/NoPatient/7"}"#, false, false),
            (r##"{"reference":"#Patient/7x/y"}"##, false, false),
            (r#"{"reference":"Group/7"}"#, false, false),
            (r#"{"identifier":{"system":"q","value":"77"}}"#, false, false),
            ("{}", false, false),
            ("null", false, false),
        ];
        for (subject, as_literal, as_known) in cases {
            for (patient, expected) in [(&literal, as_literal), (&known, as_known)] {
                let whose = Whose { patient, reference: "Patient/7" };
                let resource =
                    format!(r#"{{"resourceType":"Observation","id":"a","identifier":[{{"system":"s","value":"v"}}],"subject":{subject}}}"#);
                let set = format!(r#"{{"resourceType":"Bundle","type":"searchset","entry":[{{"resource":{resource}}}]}}"#);
                let found = find_observation(&[set.into_bytes()], "s", "v", whose).unwrap();
                assert_eq!(found, expected.then(|| Found::One("a".into())), "{subject} for {patient:?}");
                assert_eq!(read_observation(resource.as_bytes(), "a", "s", "v", whose), Some(expected), "{subject} for {patient:?}");
                assert_eq!(read_observation(resource.as_bytes(), "b", "s", "v", whose), None);
            }
        }
    }
}
