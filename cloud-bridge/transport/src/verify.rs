//! Looking up on the server what an answer left open.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use vitalgate_domain::{Batch, ItemAnswer};
use vitalgate_fhir::{EncodeContext, Found, WriteMode, find_in_search, identifier_query, identifier_value, read_carries_identifier};

use crate::exchange::{Exchange, Request};

/// The search for an identifier as a URL carries it.
pub(crate) fn query(system: &str, value: &str) -> String {
    identifier_query(system, value).replace('|', "%7C")
}

/// Fills in every `None`: what the server shows with its identifier is accepted, what it does not show is
/// to be sent again. After `time` nothing more is asked, and the rest is to be sent again.
pub(crate) async fn look_up(
    exchange: &Exchange,
    batch: &Batch,
    context: &EncodeContext,
    known: Vec<Option<ItemAnswer>>,
    time: Duration,
) -> Vec<ItemAnswer> {
    let deadline = Instant::now() + time;
    let mut answers = Vec::with_capacity(known.len());
    let mut reachable = true;
    for (item, answer) in batch.items.iter().zip(known) {
        let answer = match answer {
            Some(answer) => answer,
            None if !reachable => unsettled("the server could not be asked what it holds"),
            None => {
                let asked =
                    tokio::time::timeout_at(deadline, one(exchange, &identifier_value(&item.id), &item.id.to_string(), context)).await;
                match asked {
                    Ok(Some(answer)) => answer,
                    Ok(None) | Err(_) => {
                        reachable = false;
                        unsettled("the server could not be asked what it holds")
                    }
                }
            }
        };
        answers.push(answer);
    }
    answers
}

fn unsettled(detail: &str) -> ItemAnswer {
    ItemAnswer::Transient { detail: detail.into() }
}

/// `None` where the server does not answer.
async fn one(exchange: &Exchange, value: &str, id: &str, context: &EncodeContext) -> Option<ItemAnswer> {
    let system = &context.identifier_system;
    let absent = || Some(unsettled("the server does not hold it"));
    match context.write {
        WriteMode::PutById => {
            let response = exchange.send(&Request::get("verify", format!("/Observation/{id}"))).await.ok()?;
            match response.status {
                200 if read_carries_identifier(&response.body, "Observation", id, system, value) => {
                    Some(ItemAnswer::Accepted { remote_id: None })
                }
                404 | 410 => absent(),
                _ => None,
            }
        }
        WriteMode::ConditionalCreate => {
            let path = format!("/Observation?{}&_count=2", query(system, value));
            let response = exchange.send(&Request::get("verify", path)).await.ok()?;
            if response.status != 200 {
                return None;
            }
            match find_in_search(&response.body, "Observation", system, value).ok()? {
                Found::One(id) => Some(ItemAnswer::Accepted { remote_id: Some(id) }),
                Found::None => absent(),
                Found::Several => Some(ItemAnswer::AcceptedWithWarning { detail: Arc::from(DOUBLED) }),
            }
        }
    }
}

const DOUBLED: &str = "the server holds this identifier more than once; remove the surplus there";
