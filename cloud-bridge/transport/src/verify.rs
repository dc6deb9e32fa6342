//! Looking up on the server what an answer left open.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use vitalgate_domain::{Answer, Batch, ItemAnswer, ReadingId};
use vitalgate_fhir::{EncodeContext, Found, Whose, WriteMode, find_observation, identifier_query, identifier_value, read_observation};

use crate::exchange::{Exchange, Request};

/// The search for an identifier as a URL carries it.
pub(crate) fn query(system: &str, value: &str) -> String {
    identifier_query(system, value).replace('|', "%7C")
}

/// Fills in every `None`: what the server shows with its identifier under the patient is accepted, under another one it
/// is refused, and what it does not show is to be sent again. A refused PUT is looked up too, and stays refused where the
/// server does not show the item. After `time` nothing more is asked, and the rest is to be sent again. `reference` is what
/// the patient was written as.
pub(crate) async fn look_up(
    exchange: &Exchange,
    batch: &Batch,
    context: &EncodeContext,
    reference: &str,
    known: Vec<Option<ItemAnswer>>,
    time: Duration,
) -> Vec<ItemAnswer> {
    let deadline = Instant::now() + time;
    let mut answers = Vec::with_capacity(known.len());
    let mut reachable = true;
    let whose = Whose { patient: &batch.patient, reference };
    for (item, answer) in batch.items.iter().zip(known) {
        let answer = match answer {
            Some(answer) if !is_refused_put(&answer, context) => answer,
            _ if !reachable => unsettled("the server could not be asked what it holds"),
            refusal => match tokio::time::timeout_at(deadline, one(exchange, &item.id, context, whose)).await {
                Ok(Some(ItemAnswer::Transient { detail })) => refusal.unwrap_or(ItemAnswer::Transient { detail }),
                Ok(Some(answer)) => answer,
                Ok(None) | Err(_) => {
                    reachable = false;
                    unsettled("the server could not be asked what it holds")
                }
            },
        };
        answers.push(answer);
    }
    answers
}

/// A server that wants every update to name a version refuses a resend of what it holds.
fn is_refused_put(answer: &ItemAnswer, context: &EncodeContext) -> bool {
    context.write == WriteMode::PutById && matches!(answer, ItemAnswer::Rejected { .. })
}

fn unsettled(detail: &str) -> ItemAnswer {
    ItemAnswer::Transient { detail: detail.into() }
}

/// `None` where the server does not answer.
async fn one(exchange: &Exchange, id: &ReadingId, context: &EncodeContext, whose: Whose<'_>) -> Option<ItemAnswer> {
    let (system, value) = (&context.identifier_system, identifier_value(id));
    let absent = || Some(unsettled("the server does not hold it"));
    let of_another = || Some(ItemAnswer::Rejected { detail: Arc::from(OF_ANOTHER) });
    match context.write {
        WriteMode::PutById => {
            let id = id.to_string();
            let response = exchange.send(&Request::get("verify", format!("/Observation/{id}"))).await.ok()?;
            match response.status {
                200 => match read_observation(&response.body, &id, system, &value, whose)? {
                    true => Some(ItemAnswer::Accepted { remote_id: None }),
                    false => of_another(),
                },
                408 | 429 => None,
                // What we may not read, or what is not offered, is not taken for a reading that is there: a PUT may be sent again.
                400..=499 | 501 => absent(),
                _ => None,
            }
        }
        WriteMode::ConditionalCreate => {
            let path = format!("/Observation?{}&_count=2", query(system, &value));
            let response = exchange.send(&Request::get("verify", path)).await.ok()?;
            if response.status != 200 {
                return None;
            }
            match find_observation(&response.body, system, &value, whose).ok()? {
                Some(Found::One(id)) => Some(ItemAnswer::Accepted { remote_id: Some(id) }),
                Some(Found::None) => absent(),
                Some(Found::Several) => Some(ItemAnswer::AcceptedWithWarning { detail: Arc::from(DOUBLED) }),
                None => of_another(),
            }
        }
    }
}

/// Says which readings the server holds more than once: nothing else does, since they count as delivered.
pub(crate) fn report_doubled(exchange: &Exchange, batch: &Batch, answer: &Answer) {
    let Answer::Items(answers) = answer else { return };
    for (item, _) in batch.items.iter().zip(answers).filter(|(_, answer)| matches!(answer, ItemAnswer::AcceptedWithWarning { .. })) {
        let (server, identifier) = (exchange.place(), identifier_value(&item.id));
        for (_, reading) in &item.readings {
            tracing::warn!(server, reading = %reading.id, identifier, "{DOUBLED}");
        }
    }
}

const DOUBLED: &str = "the server holds this identifier more than once; remove the surplus there";
const OF_ANOTHER: &str = "the EHR holds it under another patient; correct or remove it there, then replay";
