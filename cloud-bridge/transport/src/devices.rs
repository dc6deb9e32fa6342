//! Device resources: each is made sure of once, never overwritten, since the EHR's keeper may have added to it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use http::Method;
use tokio::time::Instant;
use vitalgate_domain::{Answer, Batch, DeviceId, limits::DEVICES_MAX};
use vitalgate_fhir::{EncodeContext, EncodedDevice, Found, WriteMode, encode_device, encode_gateway, find_in_search, parse_resource_id};

use crate::exchange::{Exchange, Request, Response, coded};
use crate::failure::{Failure, Sent};

/// How long a server's refusal of Device resources is believed, in milliseconds.
const REFUSAL_MS: u64 = 3_600_000;
/// After so many questions in a row whose answer neither gives nor refuses a Device resource, or does not come, readings wait for it no
/// longer: the server may fail at Devices alone, and for ever.
const TROUBLES_MAX: u32 = 5;
/// How long it is left alone then, in milliseconds. Shorter than after a refusal: it may pass.
const TROUBLE_MS: u64 = 600_000;

/// Who a Device resource stands for; `None` is the gateway itself.
type Key = Option<DeviceId>;

#[derive(Clone)]
struct Known {
    /// `Device/{id}`; empty where the server takes no Device resources.
    reference: Arc<str>,
    /// Until when a refusal is believed.
    until: Option<Instant>,
    /// Whether it is empty after an answer that may pass, and not after a refusal.
    may_pass: bool,
}

/// The Device resources of one server.
#[derive(Default)]
pub(crate) struct Devices {
    known: RwLock<HashMap<Key, Known>>,
    /// One at a time: two batches of one new device must not both create it.
    creating: tokio::sync::Mutex<()>,
    /// Answers in a row that neither gave nor refused one, or did not come.
    troubles: AtomicU32,
    /// Until when nothing is asked, because the server was silent: each question takes the whole time-out, and all wait for it.
    left_alone_until: RwLock<Option<Instant>>,
}

/// Why a Device resource is not made sure of.
enum Unsure {
    /// No connection, or an answer that is not about Devices.
    Ends(Answer),
    /// An answer that may pass, or that nobody can make sense of.
    Trouble(Answer),
    /// The server was reached and did not answer. If it answers nothing at all, so does it to the readings.
    Silent(Answer),
}

impl From<Failure> for Unsure {
    fn from(failure: Failure) -> Self {
        if failure.sent == Sent::No {
            return Self::Ends(failure.answer());
        }
        let detail = format!("the Device resource: {}", failure.detail).into();
        Self::Silent(Answer::Transient { retry_after_ms: None, detail })
    }
}

impl Devices {
    /// The reference of the device, or of the gateway, if it was made sure of.
    pub(crate) fn reference(&self, key: &Key) -> Option<Arc<str>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let found = known.get(key)?;
        found.until.is_none_or(|until| Instant::now() < until).then(|| Arc::clone(&found.reference))
    }

    /// Makes sure of the resources of the gateway and of every device in the batch.
    pub(crate) async fn ensure(&self, exchange: &Exchange, batch: &Batch, context: &EncodeContext) -> Result<(), Answer> {
        let mut missing: Vec<Key> = Vec::new();
        let devices = batch.items.iter().filter_map(|item| item.readings.first()).map(|(_, reading)| Some(reading.device.clone()));
        for key in std::iter::once(None).chain(devices) {
            if !missing.contains(&key) && self.reference(&key).is_none() {
                missing.push(key);
            }
        }
        if missing.is_empty() || self.is_left_alone() {
            return Ok(());
        }
        let _one_at_a_time = self.creating.lock().await;
        for key in missing {
            if self.reference(&key).is_some() || self.is_left_alone() {
                continue;
            }
            let resource = key.as_ref().map_or_else(|| encode_gateway(context), |device| encode_device(device, context));
            let (reference, believed_ms, may_pass) = match make_sure(exchange, &resource, context).await {
                Ok(reference) => {
                    self.troubles.store(0, Ordering::Relaxed);
                    (reference, REFUSAL_MS, false)
                }
                Err(Unsure::Ends(answer)) => return Err(answer),
                Err(Unsure::Trouble(answer)) => {
                    self.go_on_without(answer)?;
                    (Arc::from(""), TROUBLE_MS, true)
                }
                Err(Unsure::Silent(answer)) => {
                    self.go_on_without(answer)?;
                    self.leave_alone();
                    continue;
                }
            };
            let until = reference.is_empty().then(|| Instant::now() + Duration::from_millis(believed_ms));
            let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
            if known.len() > DEVICES_MAX {
                known.clear();
            }
            known.insert(key, Known { reference, until, may_pass });
        }
        Ok(())
    }

    fn is_left_alone(&self) -> bool {
        self.left_alone_until.read().unwrap_or_else(PoisonError::into_inner).is_some_and(|until| Instant::now() < until)
    }

    fn leave_alone(&self) {
        let until = Instant::now() + Duration::from_millis(TROUBLE_MS);
        *self.left_alone_until.write().unwrap_or_else(PoisonError::into_inner) = Some(until);
    }

    /// Whether readings wait for it no longer; else the answer to them.
    fn go_on_without(&self, answer: Answer) -> Result<(), Answer> {
        let troubles = self.troubles.load(Ordering::Relaxed).saturating_add(1);
        self.troubles.store(troubles, Ordering::Relaxed);
        if troubles < TROUBLES_MAX {
            return Err(answer);
        }
        tracing::warn!(troubles, "the server fails at Device resources again and again; Observations name their device by identifier");
        Ok(())
    }

    /// The server did not take readings either: it is away as a whole, and that it failed at Devices says nothing of them. The troubles stay
    /// counted: where it does fail at Devices alone, readings wait for one more of them, and not for all again.
    pub(crate) fn was_away(&self) {
        *self.left_alone_until.write().unwrap_or_else(PoisonError::into_inner) = None;
        self.known.write().unwrap_or_else(PoisonError::into_inner).retain(|_, known| !known.may_pass);
    }

    /// From now on the gateway and the devices of the batch are named by identifier only, for as long as a refusal is believed.
    pub(crate) fn name_by_identifier(&self, batch: &Batch) {
        let until = Some(Instant::now() + Duration::from_millis(REFUSAL_MS));
        let devices = batch.items.iter().filter_map(|item| item.readings.first()).map(|(_, reading)| Some(reading.device.clone()));
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        for key in std::iter::once(None).chain(devices) {
            known.insert(key, Known { reference: Arc::from(""), until, may_pass: false });
        }
    }

    /// Forgets what was known: the server says that a Device is not there.
    pub(crate) fn forget(&self) {
        self.known.write().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

async fn make_sure(exchange: &Exchange, resource: &EncodedDevice, context: &EncodeContext) -> Result<Arc<str>, Unsure> {
    let id = resource.id.to_string();
    if context.write == WriteMode::PutById {
        let path = format!("/Device/{id}");
        let there = exchange.send(&Request::get("device", path.clone())).await?;
        match there.status {
            200 if parse_resource_id(&there.body, None, "Device").as_deref() == Some(id.as_str()) => {
                return Ok(format!("Device/{id}").into());
            }
            200 => {
                let detail = "the server's answer to a look at a Device resource is not that resource".into();
                return Err(Unsure::Trouble(Answer::Transient { retry_after_ms: None, detail }));
            }
            404 | 410 => {}
            _ => return refused(&there),
        }
        let request = Request::send("device", Method::PUT, path, resource.body.clone());
        let response = exchange.send(&request).await?;
        return match response.status {
            200 | 201 => Ok(format!("Device/{id}").into()),
            _ => refused(&response),
        };
    }
    let mut request = Request::send("device", Method::POST, "/Device".to_owned(), resource.body.clone());
    request.if_none_exist = Some(resource.query.clone());
    let response = exchange.send(&request).await?;
    if !matches!(response.status, 200 | 201 | 412) {
        return refused(&response);
    }
    if let Some(id) = parse_resource_id(&response.body, response.location.as_deref(), "Device") {
        return Ok(format!("Device/{id}").into());
    }
    look_up(exchange, resource, context).await
}

/// The id that the server gave it, where its answer did not say.
async fn look_up(exchange: &Exchange, resource: &EncodedDevice, context: &EncodeContext) -> Result<Arc<str>, Unsure> {
    let path = format!("/Device?{}", resource.query.replace('|', "%7C"));
    let pages = match exchange.search("device", "Device", path).await? {
        Ok(pages) => pages,
        Err(response) => return refused(&response),
    };
    match find_in_search(&pages, "Device", &context.identifier_system, &resource.identifier) {
        Ok(Found::One(id)) => Ok(format!("Device/{id}").into()),
        Ok(Found::None) | Err(_) => {
            let detail = "the Device resource cannot be found after it was created".into();
            Err(Unsure::Trouble(Answer::Transient { retry_after_ms: None, detail }))
        }
        // Named by identifier, it is still the right one.
        Ok(Found::Several) => Ok(Arc::from("")),
    }
}

/// A refusal for good means that the Observations name the device by identifier; readings do not wait for it.
fn refused(response: &Response) -> Result<Arc<str>, Unsure> {
    match response.status {
        401 => {
            let detail = coded("the server refuses our credentials; check the token or the client certificate", response);
            Err(Unsure::Ends(Answer::Paused { detail }))
        }
        408 | 409 | 421 | 425 | 429 | 500 | 502..=504 | 506..=599 => {
            let answer = Answer::Transient { retry_after_ms: response.retry_after_ms, detail: coded("the Device resource", response) };
            // That we are too fast says nothing of Devices.
            let is_trouble = matches!(response.status, 409 | 500..=599);
            Err(if is_trouble { Unsure::Trouble(answer) } else { Unsure::Ends(answer) })
        }
        status => {
            tracing::warn!(status, "the server takes no Device resources from us; Observations name their device by identifier");
            Ok(Arc::from(""))
        }
    }
}
