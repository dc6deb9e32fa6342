//! The two listeners.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use vitalgate_domain::{DeviceId, UnixMs};

use crate::model::{ReadModel, ReadModelError, ResolveRequest, TraceQuery};

/// File mode of the administrator's socket: its owner and group.
const ADMIN_SOCKET_MODE: u32 = 0o660;
/// Time around the asked moment in which `trace --device --at` looks, in milliseconds, when none is given.
const TRACE_WINDOW_MS: u64 = 60_000;
/// Widest window a trace may ask for, in milliseconds (one day).
const TRACE_WINDOW_MS_MAX: u64 = 86_400_000;

/// Why a listener could not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The socket file could not be made.
    #[error("the administrator's socket {path} cannot be made; check that its folder exists and is writable")]
    Socket {
        /// The socket.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The listener stopped working.
    #[error("a local listener stopped")]
    Serve(#[source] io::Error),
}

type Model = Arc<dyn ReadModel>;

/// Serves `/health`, `/status` and `/metrics` until `shutdown` turns true. The listener is bound
/// to loopback by the configuration.
///
/// # Errors
/// When the listener stops working.
pub async fn serve_loopback(listener: TcpListener, model: Model, shutdown: watch::Receiver<bool>) -> Result<(), ServeError> {
    let router =
        Router::new().route("/health", get(health)).route("/status", get(status)).route("/metrics", get(metrics)).with_state(model);
    axum::serve(listener, router).with_graceful_shutdown(stopped(shutdown)).await.map_err(ServeError::Serve)
}

/// Serves the administrator's questions on a Unix socket until `shutdown` turns true.
///
/// # Errors
/// When the socket cannot be made or stops working.
pub async fn serve_admin(path: &Path, model: Model, shutdown: watch::Receiver<bool>) -> Result<(), ServeError> {
    let failed = |source| ServeError::Socket { path: path.to_owned(), source };
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(ADMIN_SOCKET_MODE)).map_err(failed)?;
    let router = Router::new()
        .route("/health", get(health))
        .route("/status", get(status))
        .route("/trace", get(trace))
        .route("/dead-letters", get(dead_letters))
        .route("/dead-letters/resolve", post(resolve))
        .with_state(model);
    axum::serve(listener, router).with_graceful_shutdown(stopped(shutdown)).await.map_err(ServeError::Serve)
}

async fn stopped(mut shutdown: watch::Receiver<bool>) {
    // A sender that went away means that the daemon is going away too.
    let _stopping = shutdown.wait_for(|stop| *stop).await;
}

async fn health(State(model): State<Model>) -> Response {
    let health = model.health();
    let code = if health.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(health)).into_response()
}

async fn status(State(model): State<Model>) -> Response {
    blocking(move || Json(model.status()).into_response()).await
}

async fn metrics(State(model): State<Model>) -> Response {
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    blocking(move || ([(header::CONTENT_TYPE, OPEN_METRICS)], model.metrics()).into_response()).await
}

#[derive(Debug, Deserialize)]
struct TraceParameters {
    id: Option<String>,
    device: Option<String>,
    at_unix_ms: Option<i64>,
    window_ms: Option<u64>,
}

impl TraceParameters {
    fn query(self) -> Result<TraceQuery, String> {
        match (self.id, self.device, self.at_unix_ms) {
            (Some(id), None, None) => {
                id.parse().map(TraceQuery::Id).map_err(|_error| format!("{id:?} is no reading id; it has the form of a UUID"))
            }
            (None, Some(device), Some(at)) => {
                let device = DeviceId::new(&device).map_err(|error| format!("device: {error}"))?;
                let window_ms = self.window_ms.unwrap_or(TRACE_WINDOW_MS).min(TRACE_WINDOW_MS_MAX);
                Ok(TraceQuery::Device { device, at: UnixMs(at), window_ms })
            }
            _ => Err("give either id, or device and at_unix_ms".to_owned()),
        }
    }
}

async fn trace(State(model): State<Model>, Query(parameters): Query<TraceParameters>) -> Response {
    match parameters.query() {
        Ok(query) => blocking(move || answer(model.trace(&query))).await,
        Err(message) => (StatusCode::BAD_REQUEST, message).into_response(),
    }
}

async fn dead_letters(State(model): State<Model>) -> Response {
    blocking(move || answer(model.dead_letters())).await
}

async fn resolve(State(model): State<Model>, Json(request): Json<ResolveRequest>) -> Response {
    blocking(move || answer(model.resolve(&request))).await
}

fn answer<T: serde::Serialize>(result: Result<T, ReadModelError>) -> Response {
    match result {
        Ok(value) => Json(value).into_response(),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, error.to_string()).into_response(),
    }
}

/// Store reads block; they must not hold up the listeners' tasks.
async fn blocking(work: impl FnOnce() -> Response + Send + 'static) -> Response {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_failed| StatusCode::INTERNAL_SERVER_ERROR.into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(id: Option<&str>, device: Option<&str>, at_unix_ms: Option<i64>) -> TraceParameters {
        TraceParameters { id: id.map(str::to_owned), device: device.map(str::to_owned), at_unix_ms, window_ms: None }
    }

    #[test]
    fn a_question_names_a_reading_or_a_device_and_a_moment() {
        assert!(parameters(Some("f3bb245b-6c6c-548b-9078-14754faa1ea6"), None, None).query().is_ok());
        assert!(parameters(None, Some("monitor-1"), Some(5)).query().is_ok());
        assert!(parameters(Some("17"), None, None).query().is_err());
        assert!(parameters(None, Some("monitor-1"), None).query().is_err());
        assert!(parameters(None, Some("../etc"), Some(5)).query().is_err());
    }
}
