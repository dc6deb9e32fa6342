//! Transactions (all or nothing) and batches (each on its own).
//!
//! Source: HL7 FHIR R4 (4.0.1) http.html, 3.1.0.11.

use std::sync::Arc;

use serde_json::{Value, json};

use super::answer::{Answer, outcome};
use super::faults::Poison;
use super::records::Records;
use super::rules::broken_rule;
use super::{BASE_PATH, EhrOptions};

/// What decides whether an entry is taken, besides the records.
pub(crate) struct Judge<'a> {
    pub(crate) options: &'a EhrOptions,
    pub(crate) poison: Option<Poison>,
    /// Every so many entries of a batch get this status instead.
    pub(crate) part_of_batch: Option<(usize, u16)>,
}

/// Why an entry was not taken.
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    pub(crate) code: &'static str,
    pub(crate) text: String,
}

fn refusal(status: u16, code: &'static str, text: impl Into<String>) -> Refusal {
    Refusal { status, code, text: text.into() }
}

/// What an entry will do.
#[derive(Debug, Clone)]
pub(crate) enum Plan {
    Write { kind: String, id: Option<String>, resource: Value },
    Already { kind: String, id: Arc<str> },
    Get { kind: String, id: String },
}

/// One write: where to, with which condition, of what.
pub(crate) struct Asked<'a> {
    pub(crate) method: &'a str,
    /// `Observation` or `Observation/{id}`.
    pub(crate) path: &'a str,
    pub(crate) if_none_exist: Option<&'a str>,
    pub(crate) resource: Option<&'a Value>,
}

impl Judge<'_> {
    /// Whether a write may be made and what it will do.
    pub(crate) fn plan(&self, asked: &Asked<'_>, records: &Records) -> Result<Plan, Refusal> {
        let mut parts = asked.path.trim_start_matches('/').splitn(2, '/');
        let kind = parts.next().unwrap_or("").to_owned();
        let id = parts.next().filter(|id| !id.is_empty());
        if asked.method == "GET" {
            let id = id.ok_or_else(|| refusal(400, "not-supported", "only GET by id in a bundle"))?;
            return Ok(Plan::Get { kind, id: id.to_owned() });
        }
        let resource = asked.resource.ok_or_else(|| refusal(400, "required", "no resource"))?;
        if resource["resourceType"] != kind.as_str() {
            return Err(refusal(400, "invalid", format!("the resource is not a {kind}")));
        }
        match (asked.method, id) {
            ("PUT", Some(id)) => self.plan_put(kind, id, resource, records),
            ("POST", None) => self.plan_post(kind, asked.if_none_exist, resource, records),
            (method, _) => Err(refusal(405, "not-supported", format!("{method} {} is not offered", asked.path))),
        }
    }

    fn plan_put(&self, kind: String, id: &str, resource: &Value, records: &Records) -> Result<Plan, Refusal> {
        if resource["id"] != id {
            return Err(refusal(400, "invalid", "the id of the resource is not the id of the URL"));
        }
        if !self.options.update_create && records.get(&kind, id).is_none() {
            return Err(refusal(405, "not-supported", "this server chooses the ids of new resources"));
        }
        self.judge(&kind, resource)?;
        Ok(Plan::Write { kind, id: Some(id.to_owned()), resource: resource.clone() })
    }

    fn plan_post(&self, kind: String, condition: Option<&str>, resource: &Value, records: &Records) -> Result<Plan, Refusal> {
        if let Some(condition) = condition {
            let identifier = super::request::identifier_in(condition)
                .ok_or_else(|| refusal(400, "invalid", "the condition is no search by identifier"))?;
            let found = records.find(&kind, &identifier);
            match found.as_slice() {
                [] => {}
                [one] => return Ok(Plan::Already { kind, id: one.clone() }),
                _ => return Err(refusal(412, "multiple-matches", "the condition matches more than one resource")),
            }
        }
        self.judge(&kind, resource)?;
        Ok(Plan::Write { kind, id: None, resource: resource.clone() })
    }

    fn judge(&self, kind: &str, resource: &Value) -> Result<(), Refusal> {
        if kind != "Observation" {
            return Ok(());
        }
        if let Some(text) = self.poison.as_ref().and_then(|poison| poison(resource)) {
            return Err(refusal(422, "processing", text));
        }
        if self.options.vital_sign_rules
            && let Some(text) = broken_rule(resource)
        {
            return Err(refusal(422, "invariant", text));
        }
        Ok(())
    }

    /// Answers a whole bundle and stores what it takes of it.
    pub(crate) fn bundle(&self, bundle: &Value, records: &mut Records) -> Answer {
        let entries = bundle["entry"].as_array().map(Vec::as_slice).unwrap_or_default();
        match bundle["type"].as_str() {
            Some("transaction") => self.transaction(entries, records),
            Some("batch") => self.batch(entries, records),
            _ => Answer::outcome(400, "invalid", "a Bundle of type transaction or batch is expected"),
        }
    }

    fn transaction(&self, entries: &[Value], records: &mut Records) -> Answer {
        if self.part_of_batch.is_some() {
            return Answer::outcome(422, "processing", "one of the entries cannot be processed");
        }
        let mut plans = Vec::with_capacity(entries.len());
        for (index, entry) in entries.iter().enumerate() {
            match self.plan(&asked(entry), records) {
                Ok(plan) => plans.push(plan),
                Err(refused) => {
                    return Answer::outcome(refused.status, refused.code, &format!("Bundle.entry[{index}]: {}", refused.text));
                }
            }
        }
        let answers: Vec<Value> = plans.into_iter().map(|plan| carried_out(plan, records)).collect();
        Answer::json(200, &json!({"resourceType": "Bundle", "type": "transaction-response", "entry": answers}))
    }

    fn batch(&self, entries: &[Value], records: &mut Records) -> Answer {
        let mut answers = Vec::with_capacity(entries.len());
        for (index, entry) in entries.iter().enumerate() {
            let hit = self.part_of_batch.filter(|(every, _)| (index + 1).is_multiple_of((*every).max(1)));
            let planned = match hit {
                Some((_, status)) => Err(refusal(status, "transient", "this entry has to wait")),
                None => self.plan(&asked(entry), records),
            };
            answers.push(match planned {
                Ok(plan) => carried_out(plan, records),
                Err(refused) => {
                    json!({"response": {"status": refused.status.to_string(), "outcome": outcome(refused.code, &refused.text)}})
                }
            });
        }
        Answer::json(200, &json!({"resourceType": "Bundle", "type": "batch-response", "entry": answers}))
    }
}

fn asked(entry: &Value) -> Asked<'_> {
    let request = &entry["request"];
    Asked {
        method: request["method"].as_str().unwrap_or(""),
        path: request["url"].as_str().unwrap_or(""),
        if_none_exist: request["ifNoneExist"].as_str(),
        resource: entry.get("resource"),
    }
}

/// Does what was planned and gives the `response` entry.
pub(crate) fn carried_out(plan: Plan, records: &mut Records) -> Value {
    match plan {
        Plan::Write { kind, id, resource } => {
            let written = records.write(&kind, id.as_deref(), resource);
            let status = if written.created { "201 Created" } else { "200 OK" };
            response(status, &kind, &written.id, written.version)
        }
        Plan::Already { kind, id } => {
            let version = records.get(&kind, &id).map_or(1, |kept| kept.version);
            response("200 OK", &kind, &id, version)
        }
        Plan::Get { kind, id } => match records.get(&kind, &id) {
            Some(kept) => json!({"resource": kept.json(), "response": {"status": "200 OK"}}),
            None => json!({"response": {"status": "404 Not Found", "outcome": outcome("not-found", "there is no such resource")}}),
        },
    }
}

fn response(status: &str, kind: &str, id: &str, version: u64) -> Value {
    json!({"response": {"status": status, "location": format!("{BASE_PATH}/{kind}/{id}/_history/{version}"), "etag": format!("W/\"{version}\"")}})
}
