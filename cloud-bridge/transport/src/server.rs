//! What the server can do, asked once and remembered.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;
use vitalgate_domain::{Answer, ItemAnswer};
use vitalgate_fhir::{CAPABILITY_BYTES_MAX, Capability, WriteMode, parse_capability};

use crate::endpoint::WritePolicy;
use crate::exchange::{Exchange, Request, coded};

/// How long an answer at `/metadata` is believed, in milliseconds: an hour, or until a connection fails.
const FRESH_MS: u64 = 3_600_000;
/// After so many answers in a row that took nothing, the server is asked at `/metadata` before anything goes to
/// it, and then gets one reading first: while it is away that is sent each second or two, and not fifty readings. One is not
/// enough: one patient's bundle may fail by itself between those of others.
const FAILURES_BEFORE_ASKING: u32 = 2;
/// For so long a server that answered at `/metadata` while it failed is not asked there again, in milliseconds: what it answers, perhaps
/// from a cache, says nothing of whether it takes readings, and can be long.
const ANSWERED_WHILE_FAILING_MS: u64 = 60_000;

/// Keeps beyond the process that readings are written by conditional create. Gives true once that is durable.
pub type KeepConditional = Box<dyn Fn() -> Pin<Box<dyn Future<Output = bool> + Send>> + Send + Sync>;

/// How to write to this server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ways {
    pub(crate) observation: WriteMode,
    pub(crate) device: WriteMode,
    /// Whether it takes transactions; false only if it says so.
    pub(crate) transaction: bool,
    /// Whether it takes batches; false only if it offers transactions and not them.
    pub(crate) batch: bool,
}

struct Known {
    ways: Ways,
    asked: Instant,
    /// Whether it was asked since it failed.
    while_failing: bool,
    stale: bool,
}

/// The probe of one server.
pub(crate) struct Server {
    policy: WritePolicy,
    known: Mutex<Option<Known>>,
    /// Readings may be there under ids of the server's: they must not be stored again under ours.
    conditional: AtomicBool,
    keep: Option<KeepConditional>,
    /// Answers in a row that took nothing.
    failures: AtomicU32,
}

impl Server {
    pub(crate) fn new(policy: WritePolicy, conditional: bool) -> Self {
        let conditional = AtomicBool::new(conditional);
        Self { policy, known: Mutex::new(None), conditional, keep: None, failures: AtomicU32::new(0) }
    }

    pub(crate) fn keep_with(&mut self, keep: KeepConditional) {
        self.keep = Some(keep);
    }

    /// How to write; asks the server where the configuration leaves it open.
    pub(crate) async fn ways(&self, exchange: &Exchange) -> Result<Ways, Answer> {
        let fixed = match self.policy {
            WritePolicy::Auto => None,
            WritePolicy::Put => Some(WriteMode::PutById),
            WritePolicy::Conditional => Some(WriteMode::ConditionalCreate),
        };
        if let Some(mode) = fixed {
            self.about_to_write(mode).await?;
            return Ok(Ways { observation: mode, device: mode, transaction: true, batch: true });
        }
        // Held while asking: whoever comes meanwhile waits for the one answer.
        let mut known = self.known.lock().await;
        if let Some(known) = known.as_ref().filter(|known| !known.stale && known.asked.elapsed() < Duration::from_millis(FRESH_MS)) {
            return Ok(known.ways);
        }
        let ways = ask(exchange, self.conditional.load(Ordering::Relaxed)).await?;
        self.about_to_write(ways.observation).await?;
        *known = Some(Known { ways, asked: Instant::now(), while_failing: self.is_failing(), stale: false });
        Ok(ways)
    }

    /// Before the first conditional create leaves, it is kept that there may be one: its answer can be lost with the process.
    async fn about_to_write(&self, mode: WriteMode) -> Result<(), Answer> {
        if mode == WriteMode::PutById || self.conditional.load(Ordering::Relaxed) {
            return Ok(());
        }
        if let Some(keep) = &self.keep
            && !keep().await
        {
            let detail = "nothing is sent until the way of writing is kept on disk".into();
            return Err(Answer::Transient { retry_after_ms: None, detail });
        }
        self.conditional.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// What became of a batch.
    pub(crate) async fn note(&self, answer: &Answer) {
        let took_nothing = match answer {
            Answer::Transient { .. } => true,
            Answer::Items(items) => items.iter().all(|item| matches!(item, ItemAnswer::Transient { .. })),
            _ => false,
        };
        if !took_nothing {
            self.failures.store(0, Ordering::Relaxed);
            return;
        }
        self.failures.fetch_add(1, Ordering::Relaxed);
        if self.is_failing()
            && let Some(known) = self.known.lock().await.as_mut()
            && !(known.while_failing && known.asked.elapsed() < Duration::from_millis(ANSWERED_WHILE_FAILING_MS))
        {
            known.stale = true;
        }
    }

    /// Whether its last answers took nothing.
    pub(crate) fn is_failing(&self) -> bool {
        self.failures.load(Ordering::Relaxed) >= FAILURES_BEFORE_ASKING
    }

    /// After a lost connection another server may stand there: ask again next time.
    pub(crate) async fn doubt(&self) {
        if let Some(known) = self.known.lock().await.as_mut() {
            known.stale = true;
        }
    }
}

async fn ask(exchange: &Exchange, conditional: bool) -> Result<Ways, Answer> {
    let mut request = Request::get("metadata", "/metadata".to_owned());
    request.answer_bytes_max = CAPABILITY_BYTES_MAX;
    let response = exchange.send(&request).await.map_err(|failure| failure.answer())?;
    let place = exchange.place();
    match response.status {
        200 => {}
        400 => {
            let what = coded("what answers at /metadata is no FHIR server", &response);
            return Err(paused(format!("{what}; check what stands before the server and whether it accepts our client certificate")));
        }
        401 | 403 => return Err(paused(format!("{} at {place}; check the credentials", coded("/metadata is refused", &response)))),
        404 | 410 | 300..=399 => {
            return Err(paused(format!("{}; check the URL of the FHIR server", coded("no FHIR server at this URL", &response))));
        }
        _ => {
            return Err(Answer::Transient { retry_after_ms: response.retry_after_ms, detail: coded("/metadata", &response) });
        }
    }
    if response.body.is_empty() {
        return Err(Answer::Transient { retry_after_ms: None, detail: "the answer at /metadata broke off".into() });
    }
    let capability = parse_capability(&response.body).map_err(|error| paused(error.to_string()))?;
    choose(&capability, conditional)
}

/// `conditional` where readings may be there by conditional create already: then it stays that way.
fn choose(capability: &Capability, conditional: bool) -> Result<Ways, Answer> {
    if !capability.speaks_r4() {
        return Err(paused(format!("the server speaks FHIR {}, Vitalgate speaks R4 (4.x)", capability.fhir_version)));
    }
    let observation = match (capability.update_create, capability.conditional_create) {
        (true, _) if !conditional => WriteMode::PutById,
        (true, Some(false)) => {
            return Err(paused(
                "readings were written by conditional create, which the server does not offer any more: enable it there; \
                 `write = \"put\"` goes on without it, and readings that it has and did not confirm are there twice then"
                    .to_owned(),
            ));
        }
        (false, Some(false)) => {
            return Err(paused(
                "the server offers neither updateCreate nor conditionalCreate for Observation: a resend would double readings; \
                 enable one of them there, or set `write` if its statement is wrong"
                    .to_owned(),
            ));
        }
        (_, None | Some(true)) => WriteMode::ConditionalCreate,
    };
    let device = if capability.device.update_create == Some(true) { WriteMode::PutById } else { WriteMode::ConditionalCreate };
    let transaction = capability.transaction.unwrap_or(true);
    Ok(Ways { observation, device, transaction, batch: !transaction || capability.batch.unwrap_or(true) })
}

fn paused(detail: String) -> Answer {
    Answer::Paused { detail: detail.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ways(resource: &str, conditional: bool) -> Result<Ways, Answer> {
        let body = format!(
            r#"{{"resourceType":"CapabilityStatement","fhirVersion":"4.0.1","rest":[{{"mode":"server","resource":[{{"type":"Observation"{resource}}}]}}]}}"#
        );
        choose(&parse_capability(body.as_bytes()).unwrap(), conditional)
    }

    #[test]
    fn put_is_chosen_where_it_is_offered_and_nothing_that_could_double() {
        let mode = |resource, conditional| ways(resource, conditional).unwrap().observation;
        assert_eq!(mode(r#","updateCreate":true"#, false), WriteMode::PutById);
        assert_eq!(mode(r#","updateCreate":true"#, true), WriteMode::ConditionalCreate, "it was before");
        assert_eq!(mode(r#","updateCreate":false,"conditionalCreate":true"#, false), WriteMode::ConditionalCreate);
        assert!(matches!(ways(r#","conditionalCreate":false"#, false), Err(Answer::Paused { .. })));
        assert!(matches!(ways(r#","updateCreate":true,"conditionalCreate":false"#, true), Err(Answer::Paused { .. })));
    }
}
