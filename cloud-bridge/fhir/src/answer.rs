//! An HTTP answer to a bundle as an outcome.
//!
//! An item counts as delivered only when the answer is 2xx *and* a complete `*-response` bundle with as
//! many entries as were sent *and* its own entry says 200 or 201 (FHIR R4 http.html 3.1.0.11.2). An answer that
//! leaves this open asks for a look at the server, and so does a conditional create that made nothing: what was there already
//! may be there under the patient of before. A refusal without an OperationOutcome may come from whoever stands
//! before the server, and blames no reading. No decision rests on free text, with four exceptions that only
//! choose between two safe ways: a limit on the size, a missing patient, a missing device, an answer that a proxy lost.

use std::sync::Arc;

use serde::Deserialize;
use uuid::Uuid;
use vitalgate_domain::{Answer, Batch, BatchMode, Item, ItemAnswer, limits::BATCH_ITEMS_MAX};

use crate::RESPONSE_BYTES_MAX;
use crate::bounded::{AtMost, Text};
use crate::context::{EncodeContext, WriteMode};
use crate::outcome::{Issue, Outcome};

/// Longest id of a resource (R4 datatypes, id).
const ID_BYTES_MAX: usize = 64;
/// What Envoy, and a mesh that is built on it, writes into a 503 where the connection to the server failed.
const ENVOY_RESET: &str = "disconnect/reset before headers";
/// What it adds where there was no connection.
const ENVOY_NOT_CONNECTED: &str = "connection failure";

/// What an answer says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Classified {
    /// All that is needed.
    Answer(Answer),
    /// The answer does not say what became of every item: each `None` must be looked up by its identifier
    /// before it is settled. What is then not there is sent again. With PUT by id a refusal is looked up as well, and
    /// stands unless the item is there: the first PUT may have put it there, and only the second one be refused.
    VerifyById {
        /// What is known already, in the order of the batch.
        known: Vec<Option<ItemAnswer>>,
        /// Why, fit for a log.
        detail: Arc<str>,
    },
    /// The server may still be at work on it, and nobody will hear what becomes of it: a second conditional create
    /// beside it could make a second resource. To be waited for, then every item must be looked up.
    Ongoing {
        /// Status and codes, fit for a log.
        detail: Arc<str>,
    },
    /// The server does not know a Device that items name: put it there again, then send all of them again.
    DevicesUnknown {
        /// What it said, without patient data.
        detail: Arc<str>,
    },
}

/// Classifies the answer to the bundle of `batch`. Never panics, whatever the body holds.
///
/// `retry_after_ms` is what the header `Retry-After` asked for. Details of `Rejected` and `RejectedWhole`
/// repeat the server's text, bounded and with patient references blanked, and belong into a dead letter only; all
/// others hold codes and are fit for a log.
#[must_use]
pub fn classify(status: u16, retry_after_ms: Option<u64>, body: &[u8], batch: &Batch, context: &EncodeContext) -> Classified {
    let body = if body.len() <= RESPONSE_BYTES_MAX { body } else { &[] };
    if (200..=299).contains(&status) {
        return accepted(status, body, batch, context);
    }
    let refusal = Refusal { status, outcome: Outcome::parse(body), batch };
    if context.write == WriteMode::ConditionalCreate && (gave_up(status, &refusal.outcome) || refusal.lost_its_answer(body)) {
        return Classified::Ongoing { detail: refusal.codes() };
    }
    let answer = match status {
        400 | 422 => return refusal.refused(context),
        404 | 410 => return refusal.not_found(),
        409 => return refusal.conflict(retry_after_ms),
        412 => return refusal.precondition(context),
        413 if batch.items.len() > 1 => Answer::TooLarge { detail: refusal.codes() },
        413 => refusal.paused("even one Observation is too large for the server or a proxy before it; raise its limit for a request"),
        401 => refusal.paused("the server refuses our credentials; check the token or the client certificate"),
        403 => refusal.paused("the server forbids writing; check the rights of the gateway's account"),
        408 | 421 | 425 | 429 => refusal.transient(retry_after_ms),
        300..=399 => refusal.paused("the server points to another address; readings are never sent after a redirect, enter the final URL"),
        501 | 505 => refusal.paused("the server does not offer bundles of this kind; check the URL and what the server supports"),
        500..=599 => refusal.transient(retry_after_ms),
        400..=499 => refusal.paused("the server does not take this kind of request; check the URL and what stands before the server"),
        _ => refusal.transient(retry_after_ms),
    };
    Classified::Answer(answer)
}

/// A whole answer that is not 2xx.
struct Refusal<'a> {
    status: u16,
    outcome: Outcome,
    batch: &'a Batch,
}

impl Refusal<'_> {
    fn codes(&self) -> Arc<str> {
        coded(self.status, &self.outcome)
    }

    fn explained(&self) -> Arc<str> {
        explained(self.status, &self.outcome, self.batch)
    }

    fn paused(&self, remedy: &str) -> Answer {
        Answer::Paused { detail: format!("{}: {remedy}", self.codes()).into() }
    }

    fn transient(&self, retry_after_ms: Option<u64>) -> Answer {
        Answer::Transient { retry_after_ms, detail: self.codes() }
    }

    fn patient_unknown(&self) -> Answer {
        Answer::PatientUnknown {
            detail: format!("{}: the server does not know the patient that the device is associated with", self.codes()).into(),
        }
    }

    /// Whether a mesh says that the server's answer broke off on its way. That it did not reach the server is no reason to wait.
    fn lost_its_answer(&self, body: &[u8]) -> bool {
        let says_so = |text: &str| text.contains(ENVOY_RESET) && !text.contains(ENVOY_NOT_CONNECTED);
        self.status == 503 && !self.outcome.is_stated() && std::str::from_utf8(body).is_ok_and(says_so)
    }

    fn refused(&self, context: &EncodeContext) -> Classified {
        match missing_reference(&self.outcome) {
            Some(Missing::Patient) => return Classified::Answer(self.patient_unknown()),
            Some(Missing::Device) => return Classified::DevicesUnknown { detail: self.codes() },
            None => {}
        }
        let answer = if !self.outcome.is_stated() {
            // A proxy that does not accept our client certificate says 400 (nginx), and means no reading.
            self.paused(
                "the answer is not that of a FHIR server; check what stands before the server and whether it accepts our client \
                 certificate",
            )
        } else if self.batch.items.len() > 1 && names_a_limit(&self.outcome) {
            Answer::TooLarge { detail: self.codes() }
        } else if self.status == 400 && context.write == WriteMode::PutById && self.is_alone() {
            let known = vec![Some(ItemAnswer::Rejected { detail: self.explained() })];
            return Classified::VerifyById { known, detail: self.codes() };
        } else {
            Answer::RejectedWhole { detail: self.explained() }
        };
        Classified::Answer(answer)
    }

    /// Whether a refusal as a whole is the last word on the one item.
    fn is_alone(&self) -> bool {
        self.batch.mode == BatchMode::Separately && self.batch.items.len() == 1
    }

    fn not_found(&self) -> Classified {
        let answer = match missing_reference(&self.outcome) {
            Some(Missing::Patient) => self.patient_unknown(),
            Some(Missing::Device) => return Classified::DevicesUnknown { detail: self.codes() },
            // A FHIR server speaks of one entry: an Observation that was deleted there, say. Isolate it.
            None if self.outcome.is_stated() && self.batch.mode == BatchMode::Together => {
                Answer::RejectedWhole { detail: self.explained() }
            }
            None => self.paused("there is no FHIR server at this address, or it takes no bundles; check the URL"),
        };
        Classified::Answer(answer)
    }

    fn conflict(&self, retry_after_ms: Option<u64>) -> Classified {
        if !self.outcome.has_code("duplicate") {
            return match missing_reference(&self.outcome) {
                Some(Missing::Patient) => Classified::Answer(self.patient_unknown()),
                Some(Missing::Device) => Classified::DevicesUnknown { detail: self.codes() },
                None => Classified::Answer(self.transient(retry_after_ms)),
            };
        }
        self.already_there()
    }

    fn precondition(&self, context: &EncodeContext) -> Classified {
        match context.write {
            // A server that wants to be told the version of what an update replaces: so it is there.
            WriteMode::PutById => self.left_open(),
            WriteMode::ConditionalCreate => self.already_there(),
        }
    }

    /// Some identity of the batch is there already, perhaps more than once: isolate it, then look.
    fn already_there(&self) -> Classified {
        match self.batch.mode {
            BatchMode::Together if self.batch.items.len() > 1 => Classified::Answer(Answer::RejectedWhole { detail: self.explained() }),
            _ => self.left_open(),
        }
    }

    fn left_open(&self) -> Classified {
        Classified::VerifyById { known: vec![None; self.batch.items.len()], detail: self.codes() }
    }
}

/// Whether somebody before the server, or the server itself, only stopped waiting for it, and a second conditional create beside it
/// could make a second resource. A FHIR server that says what is wrong is done with it.
fn gave_up(status: u16, outcome: &Outcome) -> bool {
    match status {
        // The last two are a CDN's words for an answer that it lost or did not wait for.
        502 | 504 | 520 | 524 => true,
        408 => !outcome.is_stated(),
        _ => false,
    }
}

fn coded(status: u16, outcome: &Outcome) -> Arc<str> {
    let codes = outcome.codes();
    if codes.is_empty() { format!("HTTP {status}").into() } else { format!("HTTP {status} {codes}").into() }
}

fn explained(status: u16, outcome: &Outcome, batch: &Batch) -> Arc<str> {
    let text = outcome.explanation(&batch.patient);
    if text.is_empty() { format!("HTTP {status} without an explanation").into() } else { format!("HTTP {status} {text}").into() }
}

/// A 400 can also mean "too many entries" (Microsoft FHIR service) or "too much".
fn names_a_limit(outcome: &Outcome) -> bool {
    if outcome.has_code("too-costly") || outcome.has_code("too-long") {
        return true;
    }
    let words = outcome.words();
    let about_the_bundle = ["entries", "bundle", "batch", "transaction", "request", "payload"].iter().any(|word| words.contains(word));
    let about_a_limit = ["limit", "maximum", "too many", "too large", "exceed"].iter().any(|word| words.contains(word));
    about_the_bundle && about_a_limit
}

enum Missing {
    Patient,
    Device,
}

/// Whether the server says that a resource which the Observations refer to is not there. A warning beside the error refuses nothing,
/// and what one issue says is no word about the place that another one names.
fn missing_reference(outcome: &Outcome) -> Option<Missing> {
    outcome.errors().filter_map(missing_in).min_by_key(|missing| matches!(missing, Missing::Device))
}

fn missing_in(issue: &Issue) -> Option<Missing> {
    let words = issue.words();
    let phrases = [
        "not found",
        "not exist",
        "unknown",
        "not known",
        "no such",
        "deleted",
        "unresolv",
        "not resolv",
        "cannot resolve",
        "unable to resolve",
        "not be resolved",
        "invalid reference",
    ];
    if !issue.has_code("not-found") && !phrases.iter().any(|phrase| words.contains(phrase)) {
        return None;
    }
    if words.contains("patient/") || words.contains(".subject") {
        Some(Missing::Patient)
    } else if words.contains("device/") {
        Some(Missing::Device)
    } else {
        None
    }
}

#[derive(Deserialize)]
struct ResponseBundle<'a> {
    #[serde(rename = "resourceType", borrow)]
    resource_type: Text<'a>,
    #[serde(rename = "type", borrow)]
    kind: Text<'a>,
    #[serde(borrow, default)]
    entry: AtMost<ResponseEntry<'a>, BATCH_ITEMS_MAX>,
}

#[derive(Deserialize)]
struct ResponseEntry<'a> {
    #[serde(borrow)]
    response: EntryResponse<'a>,
}

#[derive(Deserialize)]
struct EntryResponse<'a> {
    #[serde(borrow)]
    status: Text<'a>,
    #[serde(borrow, default)]
    location: Option<Text<'a>>,
}

impl EntryResponse<'_> {
    /// The three digits that the status begins with ("201 Created").
    fn code(&self) -> Option<u16> {
        let text = self.status.0.trim_start();
        let digits = text.get(..3).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
        let ends = text.as_bytes().get(3).is_none_or(|next| !next.is_ascii_digit());
        digits.parse().ok().filter(|_| ends)
    }
}

/// Only what the entries say of refusals, read in a second pass: the usual answer holds none.
#[derive(Deserialize, Default)]
#[serde(default)]
struct RefusalBundle {
    entry: AtMost<RefusalEntry, BATCH_ITEMS_MAX>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RefusalEntry {
    response: RefusalResponse,
    resource: Option<Outcome>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RefusalResponse {
    outcome: Option<Outcome>,
}

fn accepted(status: u16, body: &[u8], batch: &Batch, context: &EncodeContext) -> Classified {
    let unread = |why: &str| {
        let detail = format!("HTTP {status} with {why}: looked up on the server").into();
        // "Accepted" alone says that the server is still at work on it.
        if status == 202 && context.write == WriteMode::ConditionalCreate {
            return Classified::Ongoing { detail };
        }
        Classified::VerifyById { known: vec![None; batch.items.len()], detail }
    };
    let Ok(bundle) = serde_json::from_slice::<ResponseBundle<'_>>(body) else {
        return unread("a body that is no complete bundle");
    };
    let expected = context.bundle_type(batch.mode);
    if bundle.resource_type.0 != "Bundle" || bundle.kind.0.strip_suffix("-response") != Some(expected) {
        return unread("another resource than the response bundle");
    }
    if bundle.entry.0.len() != batch.items.len() {
        return unread("another number of entries than was sent");
    }
    let names_another = |(entry, item): (&ResponseEntry<'_>, &Item)| remote_id(entry, item).is_some();
    if context.write == WriteMode::PutById && bundle.entry.0.iter().zip(&batch.items).any(names_another) {
        return unread("an entry for another Observation than was sent in its place");
    }
    let mut statuses = Vec::with_capacity(batch.items.len());
    for entry in &bundle.entry.0 {
        match entry.response.code() {
            Some(code) => statuses.push(code),
            None => return unread("an entry without a status"),
        }
    }
    if statuses.iter().all(|&code| matches!(code, 200 | 201)) {
        let entries = bundle.entry.0.iter().zip(&batch.items).zip(&statuses);
        return each_known(entries.map(|((entry, item), &code)| taken(code, entry, item, context)).collect());
    }
    let outcomes = serde_json::from_slice::<RefusalBundle>(body).unwrap_or_default().entry.0;
    let entries = EntryOutcomes { statuses: &statuses, outcomes, batch };
    if context.write == WriteMode::ConditionalCreate
        && let Some(ongoing) = entries.ongoing()
    {
        return ongoing;
    }
    match batch.mode {
        BatchMode::Together => entries.broken_transaction(),
        BatchMode::Separately => entries.each(&bundle.entry.0, context),
    }
}

struct EntryOutcomes<'a> {
    statuses: &'a [u16],
    outcomes: Vec<RefusalEntry>,
    batch: &'a Batch,
}

impl EntryOutcomes<'_> {
    fn outcome(&self, index: usize) -> &Outcome {
        static NONE: std::sync::LazyLock<Outcome> = std::sync::LazyLock::new(Outcome::default);
        let entry = self.outcomes.get(index);
        entry.and_then(|entry| entry.response.outcome.as_ref().or(entry.resource.as_ref())).unwrap_or(&NONE)
    }

    /// An entry that nobody waited for to the end: all of them are looked up once it must be done.
    fn ongoing(&self) -> Option<Classified> {
        let (index, &status) = self.statuses.iter().enumerate().find(|&(index, &status)| gave_up(status, self.outcome(index)))?;
        Some(Classified::Ongoing { detail: coded(status, self.outcome(index)) })
    }

    /// A transaction that claims success with a refused entry: nobody knows what was stored. Ask again for
    /// each on its own, which cannot double anything.
    fn broken_transaction(&self) -> Classified {
        let bad = |code: &u16| !matches!(code, 200 | 201);
        let index = self.statuses.iter().position(bad).unwrap_or(0);
        let status = self.statuses.get(index).copied().unwrap_or(0);
        let passing = |code: &u16| matches!(code, 200 | 201 | 408 | 409 | 425 | 429 | 500..=599);
        let answer = if self.statuses.iter().all(passing) {
            Answer::Transient { retry_after_ms: None, detail: coded(status, self.outcome(index)) }
        } else {
            Answer::RejectedWhole { detail: explained(status, self.outcome(index), self.batch) }
        };
        Classified::Answer(answer)
    }

    fn each(&self, entries: &[ResponseEntry<'_>], context: &EncodeContext) -> Classified {
        if let Some(whole) = self.all_alike(context) {
            return whole;
        }
        if context.refers_to_devices
            && let Some(index) = (0..self.statuses.len()).find(|&index| matches!(self.missing(index), Some(Missing::Device)))
        {
            // Its readings are not to blame, whoever else's are in the batch.
            let status = self.statuses.get(index).copied().unwrap_or(0);
            return Classified::DevicesUnknown { detail: coded(status, self.outcome(index)) };
        }
        let known = entries.iter().enumerate().map(|(index, entry)| self.one(index, entry, context)).collect();
        if context.write == WriteMode::PutById && self.statuses.contains(&400) {
            return Classified::VerifyById { known, detail: "HTTP 400 for an entry, which may be there already".into() };
        }
        each_known(known)
    }

    /// What is wrong with all of them is wrong with the patient, the rights or the server, not with an entry.
    fn all_alike(&self, context: &EncodeContext) -> Option<Classified> {
        let status = self.statuses.first().copied()?;
        let all = |wanted: &[u16]| self.statuses.iter().all(|code| wanted.contains(code));
        let refusal = |remedy: &str| {
            let detail = format!("{}: {remedy}", coded(status, self.outcome(0))).into();
            Some(Classified::Answer(Answer::Paused { detail }))
        };
        if all(&[401, 403]) {
            return refusal("the server forbids writing; check the rights of the gateway's account");
        }
        if all(&[405, 501]) {
            return refusal("the server does not take Observations in this way; check what it supports");
        }
        let missing: Vec<Option<Missing>> = (0..self.statuses.len()).map(|index| self.missing(index)).collect();
        if missing.iter().all(|missing| matches!(missing, Some(Missing::Patient))) {
            let detail =
                format!("{}: the server does not know the patient that the device is associated with", coded(status, self.outcome(0)));
            return Some(Classified::Answer(Answer::PatientUnknown { detail: detail.into() }));
        }
        if missing.iter().all(|missing| matches!(missing, Some(Missing::Device))) {
            return Some(Classified::DevicesUnknown { detail: coded(status, self.outcome(0)) });
        }
        if context.write == WriteMode::PutById && missing.iter().all(Option::is_none) && all(&[404]) {
            return refusal(
                "the server does not create Observations under ids of ours; enable that there, or set `write` to \"conditional\"",
            );
        }
        None
    }

    /// What an entry is refused for that it refers to, and that is not there.
    fn missing(&self, index: usize) -> Option<Missing> {
        let is_refused = matches!(self.statuses.get(index), Some(400 | 404 | 409 | 410 | 422));
        missing_reference(self.outcome(index)).filter(|_| is_refused)
    }

    /// The answer for one entry; `None` where only a look at the server can tell.
    fn one(&self, index: usize, entry: &ResponseEntry<'_>, context: &EncodeContext) -> Option<ItemAnswer> {
        let status = self.statuses.get(index).copied()?;
        let outcome = self.outcome(index);
        let transient = || ItemAnswer::Transient { detail: coded(status, outcome) };
        match status {
            200 | 201 => taken(status, entry, self.batch.items.get(index)?, context),
            202..=399 => None,
            401 | 403 | 408 | 421 | 425 | 429 | 500..=599 => Some(transient()),
            409 if outcome.has_code("duplicate") => None,
            409 => Some(transient()),
            412 => None,
            // All of them are that patient's: sent again without those that are settled, it is said of all.
            _ if matches!(self.missing(index), Some(Missing::Patient)) => Some(transient()),
            400..=499 => Some(ItemAnswer::Rejected { detail: explained(status, outcome, self.batch) }),
            _ => None,
        }
    }
}

/// `None` for items that must be looked up.
fn each_known(known: Vec<Option<ItemAnswer>>) -> Classified {
    if known.iter().all(Option::is_some) {
        return Classified::Answer(Answer::Items(known.into_iter().flatten().collect()));
    }
    Classified::VerifyById { known, detail: "an entry's status leaves open whether it is stored for its patient".into() }
}

/// The answer for an entry with 200 or 201. What a conditional create found there may have been sent for another patient before the
/// device's association was corrected.
fn taken(status: u16, entry: &ResponseEntry<'_>, item: &Item, context: &EncodeContext) -> Option<ItemAnswer> {
    let was_there = status == 200 && context.write == WriteMode::ConditionalCreate;
    (!was_there).then(|| ItemAnswer::Accepted { remote_id: remote_id(entry, item) })
}

/// The id that the server chose, where it is not ours.
fn remote_id(entry: &ResponseEntry<'_>, item: &Item) -> Option<Arc<str>> {
    let id = id_in_location(&entry.response.location.as_ref()?.0)?;
    let mut own = [0_u8; uuid::fmt::Hyphenated::LENGTH];
    let own = Uuid::from_bytes(*item.id.as_bytes()).hyphenated().encode_lower(&mut own);
    (id != own).then(|| Arc::from(id))
}

/// The id in `Observation/{id}/_history/1`, relative or absolute.
fn id_in_location(location: &str) -> Option<&str> {
    let (_, after) = location.rsplit_once("Observation/")?;
    let id = after.split(['/', '?', '#']).next()?;
    is_id(id).then_some(id)
}

/// Whether the text is a FHIR id (R4 datatypes, id).
pub(crate) fn is_id(text: &str) -> bool {
    (1..=ID_BYTES_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'))
}
