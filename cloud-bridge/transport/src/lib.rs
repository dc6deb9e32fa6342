//! Delivery of batches to a FHIR server over HTTP and TLS.
//!
//! # Exactly once
//! A reading's identity is fixed before it comes here, so a resend is always the same statement. What a resend does
//! depends on the server:
//! - *PUT by id*: the server's primary key decides. Whatever happened to the first request, the second one ends
//!   in the same single resource. Nothing more is needed.
//! - *Conditional create*: the server looks the identifier up before it creates, and real servers race with
//!   themselves when two such requests overlap. Ours never overlap on purpose: the pipeline keeps one request per
//!   patient under way. They can overlap only when a request timed out here while the server still works on
//!   it. So a time-out is never followed by an immediate resend (the pipeline backs off first), and whenever the connection
//!   broke or the answer cannot be read, the server is *asked* which of the identifiers it holds before
//!   anything is sent again. What remains is a server that commits a request later than our time-out
//!   plus back-off and races with itself; there only PUT by id helps, and a doubled identifier is reported as a warning.
//!
//! A mode, once chosen in a process, is never changed from conditional create to PUT: a reading stored under
//! an id of the server's would be stored again under ours.
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
