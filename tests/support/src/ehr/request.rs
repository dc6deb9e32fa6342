//! From an HTTP request to an answer.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::{Method, Request, Response};
use serde_json::{Value, json};

use super::answer::{Answer, Cuttable};
use super::bundle::{Asked, Judge, Plan, carried_out};
use super::faults::{self, Fault};
use super::{BASE_PATH, Shared, null};

/// Most resources in one page of a search.
const PAGE_MAX: usize = 1_000;

/// The parts of a request that matter.
struct Asking {
    method: Method,
    /// Below the base: `Observation/x`, or empty for the base itself.
    path: String,
    query: Option<String>,
    if_none_exist: Option<String>,
    authorization: Option<String>,
    body: Bytes,
}

impl Asking {
    async fn read(request: Request<Incoming>) -> Option<Self> {
        let (head, body) = request.into_parts();
        let path = head.uri.path().strip_prefix(BASE_PATH).unwrap_or("?").trim_matches('/').to_owned();
        let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let body = body.collect().await.ok()?.to_bytes();
        Some(Self {
            method: head.method.clone(),
            path,
            query: head.uri.query().map(str::to_owned),
            if_none_exist: header("if-none-exist"),
            authorization: header("authorization"),
            body,
        })
    }

    fn is_write(&self) -> bool {
        matches!(self.method, Method::POST | Method::PUT)
    }

    fn is_bundle(&self) -> bool {
        self.method == Method::POST && self.path.is_empty()
    }

    fn kind(&self) -> faults::Request {
        match (self.is_bundle(), self.is_write()) {
            (true, _) => faults::Request::Bundle,
            (false, true) => faults::Request::Write,
            (false, false) => faults::Request::Read,
        }
    }
}

/// Answers one request; an error cuts the connection (or its HTTP/2 stream).
pub(crate) async fn answer(request: Request<Incoming>, shared: &Arc<Shared>) -> Result<Response<Cuttable>, std::io::Error> {
    let cut = || std::io::Error::from(std::io::ErrorKind::ConnectionReset);
    shared.counters.requests.fetch_add(1, Ordering::Relaxed);
    let asking = Asking::read(request).await.ok_or_else(cut)?;
    let fault = shared.faults().next(asking.kind());
    match fault {
        Some(Fault::Status(status)) => return Ok(refused_with(status).response(false)),
        Some(Fault::Busy { retry_after_s }) => {
            return Ok(Answer::outcome(429, "throttled", "too many requests")
                .header("retry-after", retry_after_s.to_string())
                .response(false));
        }
        Some(Fault::Hang) => std::future::pending::<()>().await,
        Some(Fault::Late(delay)) => tokio::time::sleep(delay).await,
        _ => {}
    }
    if asking.is_write() && shared.options.answer_delay > Duration::ZERO {
        tokio::time::sleep(shared.options.answer_delay).await;
    }
    let part_of_batch = match fault {
        Some(Fault::PartOfBatch { every, status }) => Some((every, status)),
        _ => None,
    };
    let answer = asking.answered(shared, part_of_batch);
    match fault {
        Some(Fault::ResetAfterStored) => Err(cut()),
        Some(Fault::TruncatedBody) if answer.is_success() => Ok(answer.truncated().response(false)),
        Some(Fault::CutBody) if answer.is_success() => Ok(answer.response(true)),
        _ => Ok(answer.response(false)),
    }
}

fn refused_with(status: u16) -> Answer {
    let code = match status {
        401 => "login",
        403 => "forbidden",
        404 | 410 => "not-found",
        408 | 504 => "timeout",
        409 => "conflict",
        412 => "multiple-matches",
        413 => "too-long",
        422 => "processing",
        429 => "throttled",
        _ => "exception",
    };
    Answer::outcome(status, code, "the server was told to say so")
}

impl Asking {
    fn answered(&self, shared: &Shared, part_of_batch: Option<(usize, u16)>) -> Answer {
        if let Some(token) = &shared.options.bearer_token
            && self.authorization.as_deref() != Some(&format!("Bearer {token}"))
        {
            return Answer::outcome(401, "login", "a bearer token is needed").header("www-authenticate", "Bearer".to_owned());
        }
        if self.method == Method::GET && self.path == "metadata" {
            return Answer::json(200, &capability(shared.options.update_create));
        }
        if shared.options.null {
            return self.counted(shared);
        }
        let mut parts = self.path.splitn(2, '/');
        let (kind, id) = (parts.next().unwrap_or(""), parts.next());
        match (&self.method, kind, id) {
            (&Method::POST, "", None) => self.bundle(shared, part_of_batch),
            (&Method::PUT, _, Some(_)) | (&Method::POST, _, None) => self.single(shared),
            (&Method::GET, kind, Some(id)) => match shared.records().get(kind, id) {
                Some(kept) => Answer::bytes(200, Bytes::from(kept.body.to_vec())).header("etag", format!("W/\"{}\"", kept.version)),
                None => Answer::outcome(404, "not-found", "there is no such resource"),
            },
            (&Method::GET, kind, None) if !kind.is_empty() && kind != "?" => self.search(shared, kind),
            _ => Answer::outcome(404, "not-found", "there is nothing at this address"),
        }
    }

    fn counted(&self, shared: &Shared) -> Answer {
        if self.method == Method::GET && self.path.contains('/') {
            return Answer::outcome(404, "not-found", "nothing is kept here");
        }
        if !self.is_bundle() {
            let status = if self.is_write() { 201 } else { 200 };
            return Answer::json(status, &json!({"resourceType": "Bundle", "type": "searchset", "total": 0}));
        }
        match null::count(&self.body) {
            Some((entries, transaction)) => {
                shared.counters.observations.fetch_add(entries as u64, Ordering::Relaxed);
                Answer::bytes(200, shared.null.accept(entries, transaction))
            }
            None => Answer::outcome(400, "structure", "not a JSON text"),
        }
    }

    fn judge<'a>(&self, shared: &'a Shared, part_of_batch: Option<(usize, u16)>) -> Judge<'a> {
        Judge { options: &shared.options, poison: shared.faults().poison.clone(), part_of_batch }
    }

    fn bundle(&self, shared: &Shared, part_of_batch: Option<(usize, u16)>) -> Answer {
        let Ok(bundle) = serde_json::from_slice::<Value>(&self.body) else {
            return Answer::outcome(400, "structure", "not a JSON text");
        };
        let entries = bundle["entry"].as_array().map_or(0, Vec::len);
        if shared.faults().entries_max.is_some_and(|max| entries > max) {
            return Answer::outcome(413, "too-long", "the bundle has too many entries");
        }
        let judge = self.judge(shared, part_of_batch);
        judge.bundle(&bundle, &mut shared.records())
    }

    fn single(&self, shared: &Shared) -> Answer {
        let Ok(resource) = serde_json::from_slice::<Value>(&self.body) else {
            return Answer::outcome(400, "structure", "not a JSON text");
        };
        let judge = self.judge(shared, None);
        let asked = Asked {
            method: self.method.as_str(),
            path: &self.path,
            if_none_exist: self.if_none_exist.as_deref(),
            resource: Some(&resource),
        };
        let mut records = shared.records();
        match judge.plan(&asked, &records) {
            Err(refused) => Answer::outcome(refused.status, refused.code, &refused.text),
            Ok(Plan::Get { .. }) => Answer::outcome(405, "not-supported", "not a write"),
            Ok(plan) => {
                let entry = carried_out(plan, &mut records);
                let status = if entry["response"]["status"] == "201 Created" { 201 } else { 200 };
                let location = entry["response"]["location"].as_str().unwrap_or("").to_owned();
                let id = location.trim_start_matches(BASE_PATH).split('/').nth(2).unwrap_or("").to_owned();
                let kind = self.path.split('/').next().unwrap_or("");
                let body = records.get(kind, &id).map_or_else(Bytes::new, |kept| Bytes::from(kept.body.to_vec()));
                Answer::bytes(status, body).header("location", location)
            }
        }
    }

    fn search(&self, shared: &Shared, kind: &str) -> Answer {
        let query = self.query.as_deref().unwrap_or("");
        let records = shared.records();
        let found: Vec<_> = match identifier_in(query) {
            Some(wanted) => {
                let all = wanted.split(',').flat_map(|one| records.find(kind, one));
                all.filter_map(|id| records.get(kind, &id)).collect()
            }
            None => records.all(kind),
        };
        let entries: Vec<Value> = found
            .iter()
            .take(PAGE_MAX)
            .map(|kept| json!({"fullUrl": format!("{}/{kind}/{}", shared.base_url, kept.id), "resource": kept.json(), "search": {"mode": "match"}}))
            .collect();
        Answer::json(200, &json!({"resourceType": "Bundle", "type": "searchset", "total": found.len(), "entry": entries}))
    }
}

/// The value of `identifier` in the query part of a URL, percent-decoded.
pub(crate) fn identifier_in(query: &str) -> Option<String> {
    let query = query.rsplit('?').next().unwrap_or(query);
    query.split('&').find_map(|pair| pair.strip_prefix("identifier=")).map(percent_decoded)
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|pair| std::str::from_utf8(pair).ok()).and_then(|pair| u8::from_str_radix(pair, 16).ok());
        match (first, hex) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            (b'+', _) => {
                bytes.push(b' ');
                rest = after;
            }
            _ => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn capability(update_create: bool) -> Value {
    let resource = |kind: &str| {
        json!({
            "type": kind, "interaction": [{"code": "read"}, {"code": "create"}, {"code": "update"}, {"code": "search-type"}],
            "updateCreate": update_create, "conditionalCreate": true, "searchParam": [{"name": "identifier", "type": "token"}],
        })
    };
    json!({
        "resourceType": "CapabilityStatement", "status": "active", "date": "2026-01-01", "kind": "instance", "fhirVersion": "4.0.1",
        "format": ["application/fhir+json"],
        "rest": [{"mode": "server", "resource": [resource("Observation"), resource("Device"), resource("Patient")],
            "interaction": [{"code": "transaction"}, {"code": "batch"}]}],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identifier_is_found_in_a_condition_however_it_is_written() {
        assert_eq!(identifier_in("identifier=s|v").as_deref(), Some("s|v"));
        assert_eq!(identifier_in("Observation?_count=1&identifier=urn:x%7Cv%2B1").as_deref(), Some("urn:x|v+1"));
        assert_eq!(identifier_in("code=1"), None);
    }
}
