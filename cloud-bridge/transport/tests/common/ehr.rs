//! What the server holds and how it answers: a small FHIR server with faults to order.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

/// What goes wrong with the next bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// This status, these headers and this body; nothing is stored.
    Answer(u16, Vec<(&'static str, String)>, String),
    /// No answer at all; nothing is stored.
    Hang,
    /// Everything is stored, then no answer.
    HangAfterStoring,
    /// The connection breaks; nothing is stored.
    Reset,
    /// Everything is stored, then the connection breaks.
    ResetAfterStoring,
    /// Everything is stored, half of the answer is sent, then the connection breaks.
    TruncateAfterStoring,
    /// Everything is stored, the answer is this body with 200.
    OtherBodyAfterStoring(String),
    /// This status, or no answer at all; everything is stored so much later, whatever came in between. With 200 the answer does
    /// not come to its end.
    StoreLate(Option<u16>, Duration),
}

#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    /// Path and query, percent-encoded as it came.
    pub target: String,
    pub authorization: Option<String>,
    pub accept_encoding: Option<String>,
    pub if_none_exist: Option<String>,
    pub body: Vec<u8>,
}

#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
    pub ending: Ending,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    Whole,
    Half,
    HalfThenNever,
    Nothing,
    Never,
}

#[derive(Debug, Default)]
pub struct State {
    /// Resources by type and id, oldest version first.
    pub stored: BTreeMap<(String, String), Vec<Json>>,
    pub faults: VecDeque<Fault>,
    pub requests: Vec<Request>,
    pub metadata: Option<(u16, Json)>,
    /// Identifier values of Observations that are refused with 422.
    pub poison: Vec<String>,
    /// What an update is refused with that names no version (`versioned-update`).
    pub versioned_update: Option<u16>,
    /// Whether only transactions are taken.
    pub no_batches: bool,
    /// What Device resources are refused with.
    pub no_devices: Option<u16>,
    /// Whether Devices are confirmed and then not found.
    pub loses_devices: bool,
    /// Whether references to Devices and Patients are checked, in this order.
    pub checks_references: bool,
    /// What a look at a Device is answered with, whatever is there.
    pub device_look: Option<Reply>,
    /// What a search for an Observation is answered with, whatever is there.
    pub observation_search: Option<Reply>,
    /// How many resources the first page of a search shows, and the base that its link to the rest begins with.
    pub first_page: Option<(usize, String)>,
    /// Whether what stands before the server compresses every answer, though nobody asked for it.
    pub compresses: bool,
    /// Whether the name that a new entry gives itself becomes the server's own reference wherever the entry has it.
    pub rewrites_full_urls: bool,
    /// Whether the base is there only with a slash at its end, and points there without one.
    pub base_ends_in_slash: bool,
    /// The only token that is let in, and the file that gets it when a wrong one comes.
    pub token: Option<String>,
    pub renews_token_in: Option<PathBuf>,
    /// What is still worked on, and until when: the identifiers of these bundles were looked up already.
    late: Vec<(Instant, Json)>,
    next_id: u64,
}

pub struct Ehr(Mutex<State>);

pub fn capability(observation: &Json) -> Json {
    let mut resource = observation.clone();
    resource["type"] = "Observation".into();
    json!({"resourceType": "CapabilityStatement", "fhirVersion": "4.0.1", "rest": [{
        "mode": "server", "interaction": [{"code": "transaction"}, {"code": "batch"}],
        "resource": [resource, {"type": "Device", "updateCreate": observation["updateCreate"], "conditionalCreate": true}]}]})
}

impl Ehr {
    pub fn new(update_create: bool) -> Self {
        let metadata = capability(&json!({"updateCreate": update_create, "conditionalCreate": true}));
        Self(Mutex::new(State { metadata: Some((200, metadata)), ..State::default() }))
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// How many Observations there are, and how many distinct identifiers they carry.
    pub fn observations(&self) -> (usize, usize) {
        let state = self.state();
        let all: Vec<&Json> =
            state.stored.iter().filter(|((kind, _), _)| kind == "Observation").filter_map(|(_, versions)| versions.last()).collect();
        let mut identifiers: Vec<String> = all.iter().map(|resource| resource["identifier"][0]["value"].to_string()).collect();
        identifiers.sort();
        identifiers.dedup();
        (all.len(), identifiers.len())
    }

    /// How many requests had this method and a target that begins so.
    pub fn count(&self, method: &str, target: &str) -> usize {
        self.state().requests.iter().filter(|request| request.method == method && request.target.starts_with(target)).count()
    }

    /// All that is still worked on is stored.
    pub fn finish_late(&self) {
        let mut state = self.state();
        let latest = state.late.iter().map(|(due, _)| *due).max();
        latest.into_iter().for_each(|latest| state.store_late(latest));
    }

    pub fn bundles(&self) -> usize {
        self.state().requests.iter().filter(|request| request.method == "POST" && request.target == "/fhir").count()
    }

    pub fn answer(&self, request: Request) -> Reply {
        let reply = self.uncompressed(request);
        if !self.state().compresses || reply.body.is_empty() {
            return reply;
        }
        // The head of a gzip stream; that it cannot be read is all that matters.
        let headers = reply.headers.into_iter().chain([("Content-Encoding", "gzip".to_owned())]).collect();
        Reply { headers, body: vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0], ..reply }
    }

    fn uncompressed(&self, request: Request) -> Reply {
        let mut state = self.state();
        state.store_late(Instant::now());
        state.requests.push(request.clone());
        if let Some(token) = &state.token
            && request.authorization.as_deref() != Some(&format!("Bearer {token}"))
        {
            if let Some(file) = &state.renews_token_in {
                std::fs::write(file, token).unwrap();
            }
            return reply(401, &Json::Null);
        }
        let target = request.target.replace("%7C", "|").replace("%3A", ":");
        let path = target.strip_prefix("/fhir").unwrap_or("/elsewhere").to_owned();
        match (request.method.as_str(), path.as_str()) {
            ("GET", "/metadata") => state.metadata.as_ref().map_or_else(|| reply(404, &Json::Null), |(status, body)| reply(*status, body)),
            ("POST", "") if state.base_ends_in_slash => {
                Reply { headers: vec![("Location", "/fhir/".to_owned())], ..reply(301, &Json::Null) }
            }
            ("POST", "/") if state.base_ends_in_slash => state.bundle(&request.body),
            ("POST", "") => state.bundle(&request.body),
            ("POST", "/Device") | ("PUT", _) if state.no_devices.is_some() => reply(state.no_devices.unwrap(), &Json::Null),
            ("POST", "/Device") => state.create("Device", &request),
            ("PUT", path) => state.put(path, &request.body),
            ("GET", path) if path.starts_with("/Device/") && state.device_look.is_some() => state.device_look.clone().unwrap(),
            ("GET", path) if path.starts_with("/Observation?") && state.observation_search.is_some() => {
                state.observation_search.clone().unwrap()
            }
            ("GET", path) => state.get(path),
            _ => reply(405, &Json::Null),
        }
    }
}

impl State {
    fn bundle(&mut self, body: &[u8]) -> Reply {
        let bundle: Json = serde_json::from_slice(body).unwrap();
        let fault = self.faults.pop_front();
        match fault {
            Some(Fault::Answer(status, headers, body)) => return Reply { status, headers, body: body.into_bytes(), ending: Ending::Whole },
            Some(Fault::Hang) => return Reply { ending: Ending::Never, ..reply(200, &Json::Null) },
            Some(Fault::StoreLate(status, after)) => {
                self.late.push((Instant::now() + after, bundle));
                let (ending, body) = match status {
                    Some(200) => (Ending::HalfThenNever, b"{}".to_vec()),
                    Some(_) => (Ending::Whole, Vec::new()),
                    None => (Ending::Never, Vec::new()),
                };
                return Reply { ending, body, ..reply(status.unwrap_or(200), &Json::Null) };
            }
            Some(Fault::Reset) => return Reply { ending: Ending::Nothing, ..reply(200, &Json::Null) },
            _ => {}
        }
        let answer = self.apply(&bundle);
        match fault {
            Some(Fault::HangAfterStoring) => Reply { ending: Ending::Never, ..answer },
            Some(Fault::ResetAfterStoring) => Reply { ending: Ending::Nothing, ..answer },
            Some(Fault::TruncateAfterStoring) => Reply { ending: Ending::Half, ..answer },
            Some(Fault::OtherBodyAfterStoring(body)) => Reply { body: body.into_bytes(), ..answer },
            _ => answer,
        }
    }

    /// A server that races with itself: nothing keeps an identifier from being there twice.
    fn store_late(&mut self, now: Instant) {
        let due: Vec<(Instant, Json)> = self.late.extract_if(.., |(due, _)| *due <= now).collect();
        for entry in due.iter().flat_map(|(_, bundle)| bundle["entry"].as_array().unwrap()) {
            self.store("Observation", entry["resource"].clone());
        }
    }

    fn apply(&mut self, bundle: &Json) -> Reply {
        let together = bundle["type"] == "transaction";
        if self.no_batches && !together {
            return reply(400, &outcome("not-supported", "batch"));
        }
        let before = self.stored.clone();
        let mut responses = Vec::new();
        for entry in bundle["entry"].as_array().unwrap() {
            let response = self.entry(&self.with_own_reference(entry));
            let refused = !response["status"].as_str().unwrap().starts_with("20");
            if refused && together {
                self.stored = before;
                return reply(response["status"].as_str().unwrap().parse().unwrap(), &response["outcome"]);
            }
            responses.push(json!({"response": response}));
        }
        let kind = if together { "transaction-response" } else { "batch-response" };
        reply(200, &json!({"resourceType": "Bundle", "type": kind, "entry": responses}))
    }

    fn with_own_reference(&self, entry: &Json) -> Json {
        match entry["fullUrl"].as_str() {
            Some(name) if self.rewrites_full_urls && entry["request"]["method"] == "POST" => {
                let own = format!("Observation/{}", 1_001 + self.next_id);
                serde_json::from_str(&entry.to_string().replace(name, &own)).unwrap()
            }
            _ => entry.clone(),
        }
    }

    fn entry(&mut self, entry: &Json) -> Json {
        let resource = &entry["resource"];
        let identifier = resource["identifier"][0]["value"].as_str().unwrap().to_owned();
        if self.poison.contains(&identifier) {
            return json!({"status": "422", "outcome": outcome("invalid", "Observation.value of Max Muster")});
        }
        if self.loses_devices && !resource["device"]["reference"].is_null() {
            return json!({"status": "400", "outcome": outcome("not-found", "Resource Device/1 not found")});
        }
        if self.checks_references {
            for reference in [&resource["device"]["reference"], &resource["subject"]["reference"]] {
                let (kind, id) = reference.as_str().unwrap().split_once('/').unwrap();
                if !self.stored.contains_key(&(kind.to_owned(), id.to_owned())) {
                    return json!({"status": "400", "outcome": outcome("processing", &format!("Resource {kind}/{id} not found"))});
                }
            }
        }
        if entry["request"]["method"] == "PUT" {
            let id = resource["id"].as_str().unwrap().to_owned();
            if let Some(status) = self.versioned_update
                && self.stored.contains_key(&("Observation".to_owned(), id.clone()))
            {
                return json!({"status": status.to_string(), "outcome": outcome("invalid", "If-Match is required")});
            }
            let versions = self.stored.entry(("Observation".into(), id.clone())).or_default();
            versions.push(resource.clone());
            return json!({"status": if versions.len() == 1 { "201 Created" } else { "200 OK" }, "location": format!("Observation/{id}/_history/{}", versions.len())});
        }
        assert_eq!(entry["request"]["ifNoneExist"], format!("identifier=urn:ietf:rfc:3986|{identifier}"));
        match self.with_identifier("Observation", &identifier).as_slice() {
            [] => {
                let id = self.store("Observation", resource.clone());
                json!({"status": "201 Created", "location": format!("http://ehr/fhir/Observation/{id}/_history/1")})
            }
            [id] => json!({"status": "200 OK", "location": format!("http://ehr/fhir/Observation/{id}/_history/1")}),
            _ => json!({"status": "412", "outcome": outcome("multiple-matches", "")}),
        }
    }

    pub fn store(&mut self, kind: &str, mut resource: Json) -> String {
        self.next_id += 1;
        let id = format!("{}", 1_000 + self.next_id);
        resource["id"] = id.clone().into();
        self.stored.insert((kind.to_owned(), id.clone()), vec![resource]);
        id
    }

    fn with_identifier(&self, kind: &str, value: &str) -> Vec<String> {
        let carries = |resource: &Json| resource["identifier"].as_array().unwrap().iter().any(|identifier| identifier["value"] == value);
        self.stored
            .iter()
            .filter(|((stored, _), versions)| stored == kind && carries(versions.last().unwrap()))
            .map(|((_, id), _)| id.clone())
            .collect()
    }

    fn create(&mut self, kind: &str, request: &Request) -> Reply {
        let resource: Json = serde_json::from_slice(&request.body).unwrap();
        let value = resource["identifier"][0]["value"].as_str().unwrap().to_owned();
        assert_eq!(request.if_none_exist, Some(format!("identifier=urn:ietf:rfc:3986|{value}")));
        let (status, id) = match self.with_identifier(kind, &value).first() {
            Some(id) => (200, id.clone()),
            None => (201, self.store(kind, resource)),
        };
        Reply { headers: vec![("Location", format!("http://ehr/fhir/{kind}/{id}/_history/1"))], ..reply(status, &Json::Null) }
    }

    fn put(&mut self, path: &str, body: &[u8]) -> Reply {
        let (kind, id) = path.trim_start_matches('/').split_once('/').unwrap();
        let versions = self.stored.entry((kind.to_owned(), id.to_owned())).or_default();
        versions.push(serde_json::from_slice(body).unwrap());
        reply(if versions.len() == 1 { 201 } else { 200 }, &Json::Null)
    }

    fn get(&mut self, path: &str) -> Reply {
        let path = path.trim_start_matches('/');
        if let Some((kind, query)) = path.split_once('?') {
            let value = query.split('&').next().unwrap().strip_prefix("identifier=").unwrap().split_once('|').unwrap().1;
            let ids = self.with_identifier(kind, value);
            let elements = query.split('&').find_map(|part| part.strip_prefix("_elements="));
            let shown = |id: &String| with_elements(self.stored[&(kind.to_owned(), id.clone())].last().unwrap(), elements);
            let mut entries: Vec<Json> = ids.iter().map(|id| json!({"resource": shown(id)})).collect();
            if let Some((count, base)) = &self.first_page {
                let rest = entries.split_off(entries.len().min(*count));
                if query.ends_with("&_page=2") {
                    return reply(200, &json!({"resourceType": "Bundle", "type": "searchset", "entry": rest}));
                }
                return reply(200, &going_on(&entries, &format!("{base}/{kind}?{query}&_page=2")));
            }
            return reply(200, &json!({"resourceType": "Bundle", "type": "searchset", "total": entries.len(), "entry": entries}));
        }
        let key = path.split_once('/').map(|(kind, id)| (kind.to_owned(), id.to_owned()));
        match key.and_then(|key| self.stored.get(&key)).and_then(|versions| versions.last()) {
            Some(resource) => reply(200, resource),
            None => reply(404, &outcome("not-found", "")),
        }
    }
}

/// A page of a search that is not the last one.
pub fn going_on(entries: &[Json], next: &str) -> Json {
    json!({"resourceType": "Bundle", "type": "searchset", "entry": entries, "link": [{"relation": "self"}, {"relation": "next", "url": next}]})
}

/// What a search shows of a resource: everything, or only these elements.
fn with_elements(resource: &Json, elements: Option<&str>) -> Json {
    let mut shown = resource.clone();
    if let Some(elements) = elements {
        let asked = |name: &str| ["resourceType", "id"].contains(&name) || elements.split(',').any(|element| element == name);
        shown.as_object_mut().unwrap().retain(|name, _| asked(name));
    }
    shown
}

pub fn outcome(code: &str, text: &str) -> Json {
    json!({"resourceType": "OperationOutcome", "issue": [{"severity": "error", "code": code, "diagnostics": text}]})
}

pub fn reply(status: u16, body: &Json) -> Reply {
    let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    Reply { status, headers: Vec::new(), body, ending: Ending::Whole }
}
