//! One request and its answer, bounded in time and size.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use http::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION};
use reqwest::Url;
use rustls::ClientConfig;
use tokio::time::Instant;
use vitalgate_fhir::{FHIR_JSON, RESPONSE_BYTES_MAX, next_page};

use crate::endpoint::{Base, EndpointError, FhirEndpoint};
use crate::failure::Failure;
use crate::metrics::{TransportMetrics, status_class};
use crate::retry_after::retry_after_ms;
use crate::token::Token;

/// What this client calls itself.
const USER_AGENT: &str = concat!("vitalgate/", env!("CARGO_PKG_VERSION"));
/// How long an idle connection is kept, in milliseconds: shorter than the minute after which servers
/// commonly close it, so that a request does not meet a closing connection.
const IDLE_CONNECTION_MS: u64 = 30_000;
/// How often an HTTP/2 connection under use is asked whether it lives, in milliseconds.
const PING_INTERVAL_MS: u64 = 15_000;
/// How often TCP asks an idle peer, in milliseconds.
const TCP_KEEPALIVE_MS: u64 = 30_000;
/// Most pages of one search that are read. We ask for one resource, so each but the last is a page that the server made short.
const SEARCH_PAGES_MAX: usize = 4;
/// Longest link to the next page of a search that is followed, in bytes.
const LINK_BYTES_MAX: usize = 8 * 1024;
const IDENTITY: &str = "identity";
/// Codings of an answer that are named in a message; any other could carry data.
const CODINGS: [&str; 5] = ["gzip", "br", "deflate", "zstd", "compress"];
const IF_NONE_EXIST: HeaderName = HeaderName::from_static("if-none-exist");
const PREFER: HeaderName = HeaderName::from_static("prefer");

/// A request, as often as it must be sent.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// For the metrics, from a fixed list.
    pub(crate) purpose: &'static str,
    pub(crate) method: Method,
    /// What comes after the base URL, with its slash.
    pub(crate) path: String,
    pub(crate) body: Option<Bytes>,
    /// `If-None-Exist`.
    pub(crate) if_none_exist: Option<String>,
    /// Longest answer that is read, in bytes.
    pub(crate) answer_bytes_max: usize,
}

impl Request {
    pub(crate) fn get(purpose: &'static str, path: String) -> Self {
        Self { purpose, method: Method::GET, path, body: None, if_none_exist: None, answer_bytes_max: RESPONSE_BYTES_MAX }
    }

    pub(crate) fn send(purpose: &'static str, method: Method, path: String, body: Vec<u8>) -> Self {
        Self { method, body: Some(body.into()), ..Self::get(purpose, path) }
    }
}

/// An answer whose head arrived.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) retry_after_ms: Option<u64>,
    pub(crate) location: Option<String>,
    /// The body; empty where it broke off, since half an answer proves nothing. Where it is longer than allowed, longer than that, so
    /// that whoever reads it refuses it.
    pub(crate) body: Vec<u8>,
}

/// The way to one server.
pub(crate) struct Exchange {
    http: reqwest::Client,
    base: Base,
    token: Token,
    metrics: TransportMetrics,
}

impl Exchange {
    pub(crate) fn new(endpoint: &FhirEndpoint, mut tls: ClientConfig, metrics: TransportMetrics) -> Result<Self, EndpointError> {
        let base = endpoint.checked_base()?;
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let request_timeout = Duration::from_millis(endpoint.request_timeout_ms.max(1));
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .https_only(base.tls)
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .no_proxy()
            .user_agent(USER_AGENT)
            .connect_timeout(Duration::from_millis(endpoint.connect_timeout_ms.max(1)).min(request_timeout))
            .timeout(request_timeout)
            .pool_idle_timeout(Duration::from_millis(IDLE_CONNECTION_MS))
            .pool_max_idle_per_host(endpoint.requests_in_flight_max.max(1))
            .tcp_keepalive(Duration::from_millis(TCP_KEEPALIVE_MS))
            .tcp_nodelay(true)
            .http2_adaptive_window(true)
            .http2_keep_alive_interval(Duration::from_millis(PING_INTERVAL_MS))
            .http2_keep_alive_timeout(Duration::from_millis(PING_INTERVAL_MS))
            .build()
            .map_err(EndpointError::Client)?;
        Ok(Self { http, base, token: Token::new(endpoint.bearer_token_file.clone()), metrics })
    }

    pub(crate) fn count_by(&mut self, metrics: TransportMetrics) {
        self.metrics = metrics;
    }

    /// Sends the request. After a 401 the token is read again; only if another one stands there now, it is sent a
    /// second time.
    pub(crate) async fn send(&self, request: &Request) -> Result<Response, Failure> {
        let token = self.token.current().await?;
        let first = self.once(request, token.as_deref()).await?;
        if first.status != 401 {
            return Ok(first);
        }
        match self.token.after_refusal(token.as_deref()).await {
            Some(renewed) => self.once(request, Some(&renewed)).await,
            None => Ok(first),
        }
    }

    /// Searches for resources of this type, and reads on where the answer goes on at another page of this server. Gives the pages, or the
    /// answer that refuses one.
    pub(crate) async fn search(
        &self,
        purpose: &'static str,
        resource_type: &str,
        path: String,
    ) -> Result<Result<Vec<Vec<u8>>, Response>, Failure> {
        let mut pages = Vec::new();
        let mut next = Some(path);
        while let Some(path) = next.filter(|_| pages.len() < SEARCH_PAGES_MAX) {
            let response = self.send(&Request::get(purpose, path.clone())).await?;
            match response.status {
                200 => {}
                // The search itself is allowed, and its link leads to nothing: a page that is not read.
                400 | 404 | 410 if !pages.is_empty() => break,
                _ => return Ok(Err(response)),
            }
            next = next_page(&response.body, resource_type).and_then(|link| self.path_of(&path, &link));
            pages.push(response.body);
        }
        Ok(Ok(pages))
    }

    /// What comes after the base URL in a link of the page at `path`; `None` where it leads elsewhere, since our credentials go to
    /// this server only, or nowhere: an empty one is that page again.
    fn path_of(&self, path: &str, link: &str) -> Option<String> {
        if link.is_empty() {
            return None;
        }
        let url = Url::parse(&format!("{}{path}", self.base.text)).ok()?.join(link).ok()?;
        let path = url.as_str().strip_prefix(&self.base.text)?;
        (path.starts_with(['/', '?']) && path.len() <= LINK_BYTES_MAX).then(|| path.to_owned())
    }

    async fn once(&self, request: &Request, token: Option<&HeaderValue>) -> Result<Response, Failure> {
        let started = Instant::now();
        let result = self.exchange(request, token).await;
        let (class, received) = match &result {
            Ok(response) => (status_class(response.status), response.body.len()),
            Err(failure) => (failure.class, 0),
        };
        let seconds = started.elapsed().as_secs_f64();
        let sent = request.body.as_ref().map_or(0, Bytes::len);
        self.metrics.request(request.purpose, class, seconds, sent, received);
        tracing::debug!(server = %self.base.place, purpose = request.purpose, class, milliseconds = seconds * 1_000.0, "request");
        result
    }

    async fn exchange(&self, request: &Request, token: Option<&HeaderValue>) -> Result<Response, Failure> {
        let mut builder = self.http.request(request.method.clone(), format!("{}{}", self.base.text, request.path));
        // Where nothing is said of codings, any may be used (RFC 9110 section 12.5.3), and none is read here.
        builder = builder.header(ACCEPT, FHIR_JSON).header(ACCEPT_ENCODING, IDENTITY);
        if let Some(token) = token {
            builder = builder.header(AUTHORIZATION, token);
        }
        if let Some(condition) = &request.if_none_exist {
            builder = builder.header(IF_NONE_EXIST, condition);
        }
        if let Some(body) = &request.body {
            builder = builder.header(CONTENT_TYPE, FHIR_JSON).header(PREFER, "return=minimal").body(body.clone());
        }
        let mut response = builder.send().await.map_err(|error| Failure::from_error(&error, &self.base.place))?;
        let headers = response.headers();
        if let Some(coding) = coding(headers).filter(|_| is_told_by_the_body(response.status().as_u16())) {
            return Err(Failure::coded(coding, &self.base.place));
        }
        let location = headers.get(LOCATION).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let mut answer =
            Response { status: response.status().as_u16(), retry_after_ms: retry_after_ms(headers), location, body: Vec::new() };
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) => {
                    answer.body.extend_from_slice(&chunk);
                    if answer.body.len() > request.answer_bytes_max {
                        return Ok(answer);
                    }
                }
                Ok(None) => return Ok(answer),
                // It did not arrive in time, so that the server may still be at work.
                Err(error) if error.is_timeout() => return Err(Failure::from_error(&error, &self.base.place)),
                Err(_) => {
                    answer.body = Vec::new();
                    return Ok(answer);
                }
            }
        }
    }

    /// The path that bundles go to.
    pub(crate) fn bundle_path(&self) -> String {
        self.base.bundle_path.to_owned()
    }

    /// Host and port, for messages.
    pub(crate) fn place(&self) -> &str {
        &self.base.place
    }
}

/// Whether only the body says what the status means. A 202 says by itself that the server may still be at work.
fn is_told_by_the_body(status: u16) -> bool {
    matches!(status, 200 | 201 | 400 | 404 | 409 | 410 | 412 | 422)
}

/// How the body was coded, though we ask for it as it is.
fn coding(headers: &HeaderMap) -> Option<&'static str> {
    let said = headers.get(CONTENT_ENCODING)?.to_str().unwrap_or_default().trim();
    let is = |name: &&str| said.eq_ignore_ascii_case(name);
    (!is(&IDENTITY) && !said.is_empty()).then(|| CODINGS.into_iter().find(is).unwrap_or("a coding of its own"))
}

/// The detail of an answer that leads to another try or to a pause: status and codes only.
pub(crate) fn coded(what: &str, response: &Response) -> Arc<str> {
    let codes = vitalgate_fhir::outcome_codes(&response.body);
    format!("{what}: HTTP {} {codes}", response.status).trim_end().into()
}
