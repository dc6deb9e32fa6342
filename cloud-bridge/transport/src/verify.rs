//! Looking up on the server what an answer left open.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use vitalgate_domain::{Answer, Batch, ItemAnswer, ReadingId};
use vitalgate_fhir::{
    EncodeContext, Found, SearchError, Whose, WriteMode, find_observation, identifier_query, identifier_value, read_observation,
};

use crate::exchange::{Exchange, Request, Response, coded};
use crate::failure::Failure;

/// The search for an identifier as a URL carries it.
pub(crate) fn query(system: &str, value: &str) -> String {
    identifier_query(system, value).replace('|', "%7C")
}

/// What a look at the server told.
pub(crate) struct LookedUp {
    /// For each item of the batch.
    pub(crate) answers: Vec<ItemAnswer>,
    /// Why the server lets nobody look, fit for a log, where it does not.
    pub(crate) refused: Option<Arc<str>>,
}

/// Fills in every `None`: what the server shows with its identifier under the patient is accepted, under another one it
/// is refused, and what it does not show is to be sent again. A refused PUT is looked up too, and stays refused where the
/// server does not show the item. After `time`, or where the server refuses the look, nothing more is asked, and the rest is to be
/// sent again. `reference` is what the patient was written as.
pub(crate) async fn look_up(
    exchange: &Exchange,
    batch: &Batch,
    context: &EncodeContext,
    reference: &str,
    known: Vec<Option<ItemAnswer>>,
    time: Duration,
) -> LookedUp {
    let deadline = Instant::now() + time;
    let mut answers = Vec::with_capacity(known.len());
    let mut unseen: Option<Unseen> = None;
    let whose = Whose { patient: &batch.patient, reference };
    for (item, answer) in batch.items.iter().zip(known) {
        let answer = match answer {
            Some(answer) if !is_refused_put(&answer, context) => answer,
            refusal => match &unseen {
                Some(unseen) => unseen.answer(),
                None => match tokio::time::timeout_at(deadline, one(exchange, &item.id, context, whose)).await {
                    Ok(Ok(ItemAnswer::Transient { detail })) => refusal.unwrap_or(ItemAnswer::Transient { detail }),
                    Ok(Ok(answer)) => answer,
                    Ok(Err(why)) => unseen.insert(why).answer(),
                    Err(_) => unseen.insert(Unseen::Unreachable).answer(),
                },
            },
        };
        answers.push(answer);
    }
    let refused = match unseen {
        Some(Unseen::Refused(detail)) => Some(detail),
        _ => None,
    };
    LookedUp { answers, refused }
}

/// Why a look shows nothing.
enum Unseen {
    /// The server does not answer, or may do so another time.
    Unreachable,
    /// It lets nobody look; why, fit for a log.
    Refused(Arc<str>),
}

impl From<Failure> for Unseen {
    fn from(failure: Failure) -> Self {
        if failure.needs_mending { Self::Refused(failure.detail) } else { Self::Unreachable }
    }
}

impl Unseen {
    fn answer(&self) -> ItemAnswer {
        match self {
            Self::Unreachable => unsettled("the server could not be asked what it holds"),
            Self::Refused(detail) => ItemAnswer::Transient { detail: Arc::clone(detail) },
        }
    }
}

/// A server that wants every update to name a version refuses a resend of what it holds.
fn is_refused_put(answer: &ItemAnswer, context: &EncodeContext) -> bool {
    context.write == WriteMode::PutById && matches!(answer, ItemAnswer::Rejected { .. })
}

fn unsettled(detail: &str) -> ItemAnswer {
    ItemAnswer::Transient { detail: detail.into() }
}

async fn one(exchange: &Exchange, id: &ReadingId, context: &EncodeContext, whose: Whose<'_>) -> Result<ItemAnswer, Unseen> {
    let (system, value) = (&context.identifier_system, identifier_value(id));
    let of_another = || Ok(ItemAnswer::Rejected { detail: Arc::from(OF_ANOTHER) });
    match context.write {
        WriteMode::PutById => {
            let id = id.to_string();
            let response = exchange.send(&Request::get("verify", format!("/Observation/{id}"))).await?;
            match response.status {
                200 => match read_observation(&response.body, &id, system, &value, whose) {
                    Some(true) => Ok(ItemAnswer::Accepted { remote_id: None }),
                    Some(false) => of_another(),
                    None => Err(Unseen::Unreachable),
                },
                408 | 429 => Err(Unseen::Unreachable),
                // What we may not read, or what is not offered, is not taken for a reading that is there: a PUT may be sent again.
                400..=499 | 501 => Ok(unsettled(ABSENT)),
                _ => Err(Unseen::Unreachable),
            }
        }
        WriteMode::ConditionalCreate => {
            let path = format!("/Observation?{}&_count=2", query(system, &value));
            let pages = exchange.search("verify", "Observation", path).await?.map_err(|response| refused_search(&response))?;
            match find_observation(&pages, system, &value, whose) {
                Ok(Some(Found::One(id))) => Ok(ItemAnswer::Accepted { remote_id: Some(id) }),
                Ok(Some(Found::None)) => Ok(unsettled(ABSENT)),
                Ok(Some(Found::Several)) => Ok(ItemAnswer::AcceptedWithWarning { detail: Arc::from(DOUBLED) }),
                Ok(None) => of_another(),
                Err(SearchError::IdentifierIgnored) => Err(Unseen::Refused(Arc::from(NO_SEARCH))),
                Err(error @ SearchError::Unfinished) => Err(Unseen::Refused(error.to_string().into())),
                Err(SearchError::NotASearchset) => Err(Unseen::Unreachable),
            }
        }
    }
}

fn refused_search(response: &Response) -> Unseen {
    match response.status {
        408 | 421 | 425 | 429 => Unseen::Unreachable,
        // Sent again without a look it would be told the same, for ever.
        300..=499 | 501 => Unseen::Refused(coded(NO_SEARCH, response)),
        _ => Unseen::Unreachable,
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

const ABSENT: &str = "the server does not show it";
const NO_SEARCH: &str = "whether the server holds readings, and under whom, cannot be seen there: allow the gateway's account the \
                         search of Observation by identifier";
const DOUBLED: &str = "the server holds this identifier more than once; remove the surplus there";
const OF_ANOTHER: &str = "the EHR holds it under another patient; correct or remove it there, then replay";
