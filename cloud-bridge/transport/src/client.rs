//! The way of a batch to a server.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use rustls::ClientConfig;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use vitalgate_domain::limits::BATCH_ITEMS_MAX;
use vitalgate_domain::{Answer, Batch, BatchMode, DeviceId, Item, ItemAnswer};
use vitalgate_fhir::{Classified, EncodeContext, ItemFault, WriteMode, classify, encode, faults};

use crate::devices::Devices;
use crate::endpoint::{EndpointError, FhirEndpoint};
use crate::exchange::{Exchange, Request};
use crate::failure::{Failure, Sent};
use crate::metrics::TransportMetrics;
use crate::patients::Patients;
use crate::server::{KeepConditional, Server, Ways};
use crate::verify::{LookedUp, look_up, report_doubled};

/// A client of one FHIR server. Shared by reference; every method may run several times at once.
pub struct FhirClient {
    endpoint: FhirEndpoint,
    exchange: Exchange,
    server: Server,
    patients: Patients,
    devices: Devices,
    in_flight: Semaphore,
    metrics: TransportMetrics,
    started: Instant,
}

impl std::fmt::Debug for FhirClient {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "FhirClient({})", self.exchange.place())
    }
}

impl FhirClient {
    /// A client of the endpoint over the given TLS configuration. Connects only when something is to be sent.
    ///
    /// # Errors
    /// When the URL cannot be used, or would send patient data unprotected.
    pub fn new(endpoint: FhirEndpoint, tls: ClientConfig) -> Result<Self, EndpointError> {
        let metrics = TransportMetrics::default();
        let exchange = Exchange::new(&endpoint, tls, metrics.clone())?;
        Ok(Self {
            exchange,
            server: Server::new(endpoint.write, endpoint.written_conditionally.is_some()),
            patients: Patients::default(),
            devices: Devices::default(),
            in_flight: Semaphore::new(endpoint.requests_in_flight_max.max(1)),
            metrics,
            started: Instant::now(),
            endpoint,
        })
    }

    /// The same client that has it kept before it writes by conditional create for the first time. The next process is told by
    /// [`FhirEndpoint::written_conditionally`].
    #[must_use]
    pub fn keeping(mut self, keep: KeepConditional) -> Self {
        self.server.keep_with(keep);
        self
    }

    /// The same client that counts there.
    #[must_use]
    pub fn counted_by(mut self, metrics: TransportMetrics) -> Self {
        self.exchange.count_by(metrics.clone());
        self.metrics = metrics;
        self
    }

    /// Delivers a batch and says what became of it. Waits while as many requests as allowed are under way.
    ///
    /// Items that cannot be encoded never hold back the others: each gets its own answer.
    pub async fn deliver(&self, batch: &Batch) -> Answer {
        // The semaphore is never closed, so there is always a permit in the end.
        let _permit = self.in_flight.acquire().await.ok();
        let answer = match self.try_deliver(batch).await {
            Ok(answer) | Err(answer) => answer,
        };
        // That nobody is found under an identifier says nothing of whether the server takes readings.
        if !matches!(answer, Answer::PatientUnknown { .. }) {
            self.server.note(&answer).await;
        }
        self.metrics.answered(&answer);
        report_doubled(&self.exchange, batch, &answer);
        answer
    }

    async fn try_deliver(&self, batch: &Batch) -> Result<Answer, Answer> {
        let faults = faults(batch);
        if batch.items.is_empty() {
            return Ok(Answer::Items(Vec::new()));
        }
        if batch.items.len() > BATCH_ITEMS_MAX {
            return Ok(Answer::TooLarge { detail: format!("a bundle holds at most {BATCH_ITEMS_MAX} items").into() });
        }
        if faults.is_empty() {
            return self.send(batch).await;
        }
        let is_faulty = |index: usize| faults.iter().find(|(faulty, _)| *faulty == index).map(|(_, fault)| *fault);
        let sound = batch.items.iter().enumerate().filter(|(index, _)| is_faulty(*index).is_none()).map(|(_, item)| item.clone());
        let sound = Batch { patient: batch.patient.clone(), items: sound.collect(), mode: batch.mode };
        let mut answers = match sound.items.is_empty() {
            true => Vec::new(),
            false => match self.send(&sound).await? {
                Answer::Items(answers) => answers,
                whole => return Ok(whole),
            },
        }
        .into_iter();
        let missing = || ItemAnswer::Transient { detail: "not sent".into() };
        let merged = (0..batch.items.len()).map(|index| match is_faulty(index) {
            Some(fault) => unsendable(fault),
            None => answers.next().unwrap_or_else(missing),
        });
        Ok(Answer::Items(merged.collect()))
    }

    async fn send(&self, batch: &Batch) -> Result<Answer, Answer> {
        let ways = match self.server.ways(&self.exchange).await {
            Ok(ways) => ways,
            Err(answer) => return Err(answer),
        };
        let mut batch = Cow::Borrowed(batch);
        if batch.mode == BatchMode::Together && !ways.transaction {
            batch.to_mut().mode = BatchMode::Separately;
        }
        if ways.observation == WriteMode::ConditionalCreate {
            self.outwait_earlier_process(&batch).await;
        }
        if batch.mode == BatchMode::Separately && !ways.batch && batch.items.len() > 1 {
            return self.one_by_one(&batch, ways).await;
        }
        if self.server.is_failing() && batch.items.len() > 1 {
            return self.first_alone(&batch, ways).await;
        }
        self.attempts(&batch, ways).await
    }

    /// One reading finds out whether a server that failed is back, and then the others follow: with all of them in each try an outage
    /// would be a flood.
    async fn first_alone(&self, batch: &Batch, ways: Ways) -> Result<Answer, Answer> {
        let part = |items: &[Item]| Batch { patient: batch.patient.clone(), items: items.to_vec(), mode: batch.mode };
        let Some((first, others)) = batch.items.split_first() else { return Ok(Answer::Items(Vec::new())) };
        let mut answers = match self.attempts(&part(std::slice::from_ref(first)), ways).await? {
            Answer::Items(answers) => answers,
            // It works, and which of them is to blame is found as always.
            Answer::RejectedWhole { .. } | Answer::TooLarge { .. } => return self.attempts(batch, ways).await,
            ended => return Ok(ended),
        };
        if let [ItemAnswer::Transient { detail }] = answers.as_slice() {
            return Ok(Answer::Transient { retry_after_ms: None, detail: Arc::clone(detail) });
        }
        match self.attempts(&part(others), ways).await {
            Ok(Answer::Items(more)) => answers.extend(more),
            // Not said of the first one: sent again without it, it is said of all.
            Ok(Answer::PatientUnknown { detail }) | Err(Answer::PatientUnknown { detail }) => {
                answers.resize_with(batch.items.len(), || ItemAnswer::Transient { detail: Arc::clone(&detail) });
            }
            // Sent again with them, the first one is found there.
            whole => return whole,
        }
        Ok(Answer::Items(answers))
    }

    /// The server takes no batches, and in one transaction they would stand or fall together. What is said of more than one of them
    /// ends it.
    async fn one_by_one(&self, batch: &Batch, ways: Ways) -> Result<Answer, Answer> {
        let mut answers = Vec::with_capacity(batch.items.len());
        for item in &batch.items {
            let alone = Batch { patient: batch.patient.clone(), items: vec![item.clone()], mode: batch.mode };
            match self.attempts(&alone, ways).await {
                Ok(Answer::Items(answer)) => answers.extend(answer),
                Ok(Answer::RejectedWhole { detail }) => answers.push(ItemAnswer::Rejected { detail }),
                ended if answers.is_empty() => return ended,
                Ok(_) | Err(_) => break,
            }
        }
        let missing = || ItemAnswer::Transient { detail: "not sent: what went before it was not answered".into() };
        answers.resize_with(batch.items.len(), missing);
        Ok(Answer::Items(answers))
    }

    /// A request that an earlier process left under way may still be worked on, and a conditional create beside it could make a second
    /// resource. So what may have been in it waits until the time of a whole request is over.
    async fn outwait_earlier_process(&self, batch: &Batch) {
        let Some(last) = self.endpoint.written_conditionally else { return };
        let perhaps_under_way = batch.items.iter().flat_map(|item| &item.readings).any(|(sequence, _)| *sequence <= last);
        let left = self.request_timeout().saturating_sub(self.started.elapsed());
        if perhaps_under_way && !left.is_zero() {
            let seconds = left.as_secs_f64();
            tracing::info!(server = self.exchange.place(), seconds, "waiting for what may have been under way before the start");
            tokio::time::sleep(left).await;
        }
    }

    /// What we remember of the server may be old: each is looked at again, once.
    async fn attempts(&self, batch: &Batch, ways: Ways) -> Result<Answer, Answer> {
        let (mut devices_forgotten, mut by_identifier, mut patient_forgotten) = (false, false, false);
        loop {
            match self.attempt(batch, ways).await? {
                Classified::DevicesUnknown { .. } if !devices_forgotten => {
                    devices_forgotten = true;
                    self.devices.forget();
                }
                Classified::DevicesUnknown { .. } if !by_identifier => {
                    // It confirms a Device and does not find it: readings do not wait for that.
                    by_identifier = true;
                    self.devices.name_by_identifier(batch);
                }
                Classified::Answer(Answer::PatientUnknown { .. }) if !patient_forgotten && self.patients.forget(&batch.patient) => {
                    patient_forgotten = true;
                }
                other => return Ok(settled(other)),
            }
        }
    }

    fn request_timeout(&self) -> Duration {
        Duration::from_millis(self.endpoint.request_timeout_ms)
    }

    async fn attempt(&self, batch: &Batch, ways: Ways) -> Result<Classified, Answer> {
        let patient = self.patients.reference(&self.exchange, &batch.patient).await?;
        let mut context = EncodeContext::new(self.endpoint.gateway.clone(), self.endpoint.device_namespace.clone(), ways.device);
        context.identifier_system.clone_from(&self.endpoint.identifier_system);
        self.devices.ensure(&self.exchange, batch, &context).await?;
        context.write = ways.observation;
        context.batches = ways.batch;
        context.gateway_reference = self.devices.reference(&None).unwrap_or_default().to_string();
        let reference = |device: &DeviceId| self.devices.reference(&Some(device.clone())).unwrap_or_default().to_string();
        let devices = batch.items.iter().flat_map(|item| &item.readings).map(|(_, reading)| &reading.device);
        context.refers_to_devices =
            !context.gateway_reference.is_empty() || devices.into_iter().any(|device| !reference(device).is_empty());
        let encoded =
            encode(batch, &context, &reference, &patient).map_err(|error| Answer::RejectedWhole { detail: error.to_string().into() })?;
        let request = Request::send("bundle", Method::POST, self.exchange.bundle_path(), encoded.body);
        let classified = match self.exchange.send(&request).await {
            Ok(response) => {
                // One bundle may fail by itself; the server is away where its last answers took nothing either.
                if response.status >= 500 && self.server.is_failing() {
                    self.devices.was_away();
                }
                classify(response.status, response.retry_after_ms, &response.body, batch, &context)
            }
            Err(failure) => {
                self.server.doubt().await;
                self.devices.was_away();
                after_failure(&failure, batch, ways)
            }
        };
        let time = self.request_timeout();
        let (known, detail) = match classified {
            Classified::VerifyById { known, detail } => (known, detail),
            Classified::Ongoing { detail } => {
                // A look before it is done would see nothing, and what is sent then would be there twice.
                tokio::time::sleep(time).await;
                (vec![None; batch.items.len()], detail)
            }
            other => return Ok(other),
        };
        tracing::warn!(server = self.exchange.place(), %detail, "the outcome of a request is open; asking the server what it holds");
        let LookedUp { answers, refused } = look_up(&self.exchange, batch, &context, &patient, known, time).await;
        let seen = answers.iter().find_map(|answer| match answer {
            ItemAnswer::Transient { detail } => Some(Arc::clone(detail)),
            _ => None,
        });
        let nothing_known = answers.iter().all(|answer| matches!(answer, ItemAnswer::Transient { .. }));
        Ok(Classified::Answer(match (refused, seen) {
            (Some(detail), _) if nothing_known => Answer::Paused { detail },
            (None, Some(seen)) if nothing_known => Answer::Transient { retry_after_ms: None, detail: format!("{detail}: {seen}").into() },
            _ => Answer::Items(answers),
        }))
    }
}

/// What no answer means: nothing where a resend cannot double anything, a question to the server where it could.
fn after_failure(failure: &Failure, batch: &Batch, ways: Ways) -> Classified {
    match (failure.sent, ways.observation) {
        (Sent::UnknownAndOngoing, WriteMode::ConditionalCreate) => Classified::Ongoing { detail: Arc::clone(&failure.detail) },
        (Sent::Unknown, WriteMode::ConditionalCreate) => {
            Classified::VerifyById { known: vec![None; batch.items.len()], detail: Arc::clone(&failure.detail) }
        }
        _ => Classified::Answer(failure.answer()),
    }
}

fn settled(classified: Classified) -> Answer {
    match classified {
        Classified::Answer(answer) => answer,
        Classified::DevicesUnknown { detail } => Answer::Transient {
            retry_after_ms: None,
            detail: format!("the server does not find a Device that it confirmed: {detail}").into(),
        },
        // Looked up already, so this cannot be; sending again is always safe.
        Classified::VerifyById { detail, .. } | Classified::Ongoing { detail } => Answer::Transient { retry_after_ms: None, detail },
    }
}

/// The answer for an item that must not be sent as it is.
fn unsendable(fault: ItemFault) -> ItemAnswer {
    match fault {
        // Its twin is on its way in this very bundle; next time it finds it there.
        ItemFault::DuplicateIdentity => ItemAnswer::Transient { detail: fault.to_string().into() },
        _ => ItemAnswer::Rejected { detail: fault.to_string().into() },
    }
}
