//! Answers: JSON with a status, and the two ways in which an answer can be cut.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use hyper::{Response, StatusCode};
use serde_json::{Value, json};

/// A body that may break in the middle.
pub(crate) struct Cuttable {
    rest: Option<Bytes>,
    breaks: bool,
    announced: u64,
}

impl Cuttable {
    pub(crate) fn whole(bytes: Bytes) -> Self {
        Self { announced: bytes.len() as u64, rest: Some(bytes), breaks: false }
    }

    /// Announces the whole length, sends half and then breaks the connection.
    pub(crate) fn broken(bytes: &Bytes) -> Self {
        Self { announced: bytes.len() as u64, rest: Some(bytes.slice(..bytes.len() / 2)), breaks: true }
    }
}

impl Body for Cuttable {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        if let Some(bytes) = self.rest.take() {
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        if std::mem::take(&mut self.breaks) {
            return Poll::Ready(Some(Err(std::io::ErrorKind::ConnectionReset.into())));
        }
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_none() && !self.breaks
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.announced)
    }
}

/// An answer before it is put on the wire.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Bytes,
    pub(crate) headers: Vec<(&'static str, String)>,
}

impl Answer {
    pub(crate) fn json(status: u16, body: &Value) -> Self {
        Self { status, body: Bytes::from(body.to_string()), headers: Vec::new() }
    }

    pub(crate) fn bytes(status: u16, body: Bytes) -> Self {
        Self { status, body, headers: Vec::new() }
    }

    pub(crate) fn outcome(status: u16, code: &str, diagnostics: &str) -> Self {
        Self::json(status, &outcome(code, diagnostics))
    }

    pub(crate) fn header(mut self, name: &'static str, value: String) -> Self {
        self.headers.push((name, value));
        self
    }

    pub(crate) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The first half of the text with a length that fits it: a valid HTTP message, broken JSON.
    pub(crate) fn truncated(mut self) -> Self {
        self.body = self.body.slice(..self.body.len() / 2);
        self
    }

    pub(crate) fn response(self, cut: bool) -> Response<Cuttable> {
        let body = if cut { Cuttable::broken(&self.body) } else { Cuttable::whole(self.body) };
        let mut response = Response::new(body);
        *response.status_mut() = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert("content-type", hyper::header::HeaderValue::from_static("application/fhir+json"));
        for (name, value) in self.headers {
            if let Ok(value) = hyper::header::HeaderValue::from_str(&value) {
                headers.insert(name, value);
            }
        }
        response
    }
}

/// An OperationOutcome with one error.
pub(crate) fn outcome(code: &str, diagnostics: &str) -> Value {
    json!({"resourceType": "OperationOutcome", "issue": [{"severity": "error", "code": code, "diagnostics": diagnostics}]})
}
