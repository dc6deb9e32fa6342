//! Delivery of batches to a FHIR server over HTTP and TLS.
//!
//! # Exactly once
//! A reading's identity is fixed before it comes here, so a resend is always the same statement. What a resend does
//! depends on the server:
//! - *PUT by id*: the server's primary key decides. Whatever happened to the first request, the second one ends
//!   in the same single resource. Nothing more is needed. A server that wants every update to name a version refuses the
//!   second one (400, 412): so a refusal is believed only where the server does not show the reading.
//! - *Conditional create*: the server looks the identifier up before it creates, and real servers race with
//!   themselves when two such requests overlap. Ours never overlap on purpose: the pipeline keeps one request per
//!   patient under way. They can overlap only when the server still works on a request that was given up, by us
//!   or by a proxy. So after a time-out, a 202, a 502, 504, 520 or 524, or a 408 that no FHIR server wrote, the time of a
//!   whole request is waited, and then, as whenever the connection broke or the answer cannot be read, the server is *asked* which of the identifiers it
//!   holds; only what it does not hold is sent again. A process that ended left its requests to the server too: what it
//!   can have sent waits for that time from the start of the next one. What remains is a server that commits a request
//!   later still, or after the connection broke or a proxy said 500 or 503 for it, and races with itself; there only PUT by id helps, and a doubled
//!   identifier is reported as a warning. What a search does not show counts as missing only where its last page was read; a link
//!   to another page is followed only below the URL of the destination, and for a few pages.
//!
//! Conditional create, once chosen, is never changed to PUT: a reading stored under an id of the server's would be
//! stored again under ours. The choice is kept beyond the process before the first such request leaves.
//!
//! # The right patient
//! A corrected reading keeps its identity. So an Observation that is there already counts as delivered only if the
//! server shows it with the patient of the batch as its subject: in every look-up, and wherever a conditional create made
//! nothing. Under another patient it is refused, for the EHR's keeper to correct it there. Where the server does not let us look,
//! it is held, and the right that is missing is named.
//!
//! A patient's record that is not in use, or that another one took the place of, gets nothing. Its link is not followed:
//! who is meant is for a person to say.
//!
//! # Privacy
//! Redirects are never followed, proxies of the environment are ignored, and URLs, bodies and server texts
//! never reach a log or a metric: they can hold patient identifiers.

#![forbid(unsafe_code)]

mod client;
mod devices;
mod endpoint;
mod exchange;
mod failure;
mod metrics;
mod patients;
mod retry_after;
mod server;
mod token;
mod verify;

pub use client::FhirClient;
pub use endpoint::{EndpointError, FhirEndpoint, WritePolicy};
pub use failure::tls_remedy;
pub use metrics::TransportMetrics;
pub use server::KeepConditional;
