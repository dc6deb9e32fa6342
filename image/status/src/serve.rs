//! The listener: TLS 1.3, HTTP/1.1, one answer a connection.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use crate::page::{Language, Rendered, content_security_policy};
use crate::turnstile::Turnstile;

/// Longest TLS handshake.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);
/// Longest wait for a whole request head.
const REQUEST_DEADLINE: Duration = Duration::from_secs(5);
/// Longest life of a connection, the answer included.
const CONNECTION_DEADLINE: Duration = Duration::from_secs(20);
/// Largest request head in bytes (the least that hyper allows).
const REQUEST_BYTES_MAX: usize = 8 * 1024;
/// Most headers of a request.
const REQUEST_HEADERS_MAX: usize = 48;
/// Pause after the system refused a new connection, so that a lack of descriptors is no busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// Seconds after which a browser asks again.
const REFRESH_S: &str = "15";

/// Binds; where the machine has no IPv6, all addresses means all of IPv4.
///
/// # Errors
/// When the port is taken.
pub(crate) async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    match TcpListener::bind(address).await {
        Err(_) if address.ip() == IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED) => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        bound => bound,
    }
}

/// Serves until the process ends.
pub(crate) async fn serve(listener: TcpListener, tls: watch::Receiver<Option<Arc<ServerConfig>>>, pages: watch::Receiver<Arc<Rendered>>) {
    let started = Instant::now();
    let turnstile = Turnstile::new(0);
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(_) => {
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let now_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let Some(config) = tls.borrow().clone() else { continue };
        let Some(place) = turnstile.enter(peer.ip(), now_ms) else { continue };
        let pages = pages.clone();
        tokio::spawn(async move {
            // What a visitor does wrong is the visitor's own business.
            let _ended = timeout(CONNECTION_DEADLINE, answer(stream, config, pages)).await;
            drop(place);
        });
    }
}

async fn answer(stream: TcpStream, config: Arc<ServerConfig>, pages: watch::Receiver<Arc<Rendered>>) {
    let Ok(Ok(stream)) = timeout(HANDSHAKE_DEADLINE, TlsAcceptor::from(config).accept(stream)).await else { return };
    let service = service_fn(|request: Request<Incoming>| {
        let rendered = Arc::clone(&pages.borrow());
        async move { Ok::<_, Infallible>(respond(&request, &rendered)) }
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(REQUEST_DEADLINE)
        .max_buf_size(REQUEST_BYTES_MAX)
        .max_headers(REQUEST_HEADERS_MAX)
        .keep_alive(false);
    // An error here is a visitor that left.
    let _ended = http.serve_connection(TokioIo::new(stream), service).await;
}

fn respond<B>(request: &Request<B>, rendered: &Rendered) -> Response<Full<Bytes>> {
    const HTML: &str = "text/html; charset=utf-8";
    const JSON: &str = "application/json";
    const TEXT: &str = "text/plain; charset=utf-8";
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut response = with_headers(StatusCode::METHOD_NOT_ALLOWED, TEXT, Bytes::from_static(b"this page is read-only\n"));
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match request.uri().path() {
        "/" => {
            let query = request.uri().query().unwrap_or_default();
            let page = rendered.html(language(request, query));
            let mut response = with_headers(StatusCode::OK, HTML, page);
            if !query.split('&').any(|pair| pair == "hold") {
                response.headers_mut().insert(header::REFRESH, HeaderValue::from_static(REFRESH_S));
            }
            response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept-language"));
            response
        }
        "/status.json" => with_headers(StatusCode::OK, JSON, rendered.json.clone()),
        "/health" => {
            let code = if rendered.in_service { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            with_headers(code, JSON, rendered.health.clone())
        }
        _ => with_headers(StatusCode::NOT_FOUND, TEXT, Bytes::from_static(b"there are /, /status.json and /health\n")),
    }
}

fn language<B>(request: &Request<B>, query: &str) -> Language {
    let asked = query.split('&').find_map(|pair| pair.strip_prefix("lang=")).and_then(Language::from_tag);
    asked.unwrap_or_else(|| {
        let accepted = request.headers().get(header::ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok());
        accepted.map_or(Language::English, Language::from_accept)
    })
}

/// Every answer is only for now, only for this tab, and may load nothing. There is no
/// Strict-Transport-Security: browsers ignore it for addresses, and for a name it would take away
/// the button by which a technician accepts the certificate whose fingerprint was compared.
fn with_headers(status: StatusCode, content_type: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    let fixed = [
        (header::CONTENT_TYPE, content_type),
        (header::CONTENT_SECURITY_POLICY, content_security_policy()),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (header::HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (header::HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=(), usb=()"),
        (header::HeaderName::from_static("x-robots-tag"), "noindex, nofollow"),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered() -> Rendered {
        Rendered { english: "english".into(), german: "german".into(), json: "{}".into(), health: "{}".into(), in_service: false }
    }

    fn get(target: &str, language: &str) -> Response<Full<Bytes>> {
        let request = Request::get(target).header(header::ACCEPT_LANGUAGE, language).body(()).unwrap();
        respond(&request, &rendered())
    }

    /// Nothing that is served may be kept, framed, or load anything from elsewhere.
    #[test]
    fn every_answer_carries_the_strict_headers() {
        for target in ["/", "/status.json", "/health", "/../etc/passwd", "/?lang=de&hold"] {
            let response = get(target, "en");
            let header = |name: &str| response.headers().get(name).unwrap().to_str().unwrap().to_owned();
            assert_eq!(header("cache-control"), "no-store", "{target}");
            let policy = header("content-security-policy");
            assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"), "{policy}");
            assert!(policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe") && !policy.contains("script-src"));
            assert_eq!(header("x-content-type-options"), "nosniff");
            assert!(response.headers().get("set-cookie").is_none());
            assert!(response.headers().get("strict-transport-security").is_none());
        }
    }

    /// The page refreshes without a script, holds still when asked, and speaks the browser's language.
    #[test]
    fn the_page_refreshes_and_speaks_the_readers_language() {
        assert_eq!(get("/", "en").headers()["refresh"], REFRESH_S);
        assert!(get("/?hold", "en").headers().get("refresh").is_none());
        let german = HeaderValue::from_static(HTML_LENGTH_GERMAN);
        let length = |target: &str, language: &str| {
            use hyper::body::Body as _;
            HeaderValue::from(get(target, language).body().size_hint().exact().unwrap())
        };
        assert_eq!(length("/", "de-AT,de;q=0.9,en;q=0.8"), german);
        assert_eq!(length("/?lang=de", "en"), german);
        assert_ne!(length("/", "fr"), german);
    }

    /// Bytes of "german".
    const HTML_LENGTH_GERMAN: &str = "6";

    #[test]
    fn only_reading_is_allowed_and_only_three_places_exist() {
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "CONNECT", "BREW"] {
            let request = Request::builder().method(method).uri("/").body(()).unwrap();
            assert_eq!(respond(&request, &rendered()).status(), StatusCode::METHOD_NOT_ALLOWED, "{method}");
        }
        assert_eq!(get("/health", "en").status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(get("/metrics", "en").status(), StatusCode::NOT_FOUND);
    }
}
