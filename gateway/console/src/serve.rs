//! The two listeners.

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
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
use vitalgate_domain::dead_letter::RESOLVED_BY_BYTES_MAX;
use vitalgate_domain::{DeviceId, UnixMs};

use crate::model::{ReadModel, ReadModelError, ResolveRequest, TRACE_WINDOW_MS_MAX, TraceQuery};

/// File mode of the administrator's socket: its owner and group.
const ADMIN_SOCKET_MODE: u32 = 0o660;
/// Time around the asked moment in which `trace --device --at` looks, in milliseconds, when none is given.
const TRACE_WINDOW_MS: u64 = 60_000;

/// Why a listener could not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The socket file could not be made.
    #[error("the administrator's socket {path} cannot be made; check that the folder {folder} exists and is writable")]
    Socket {
        /// The socket.
        path: PathBuf,
        /// Its folder.
        folder: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// Something else is in its place.
    #[error(
        "the administrator's socket cannot be made: {path} is there and is no socket; move it away, or name another path in \
         admin_socket of [console]"
    )]
    Taken {
        /// What is there.
        path: PathBuf,
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

/// Makes the administrator's socket, in the place of one that an earlier run left.
///
/// # Errors
/// When it cannot be made, or when something that is no socket is in its place.
pub fn bind_admin(path: &Path) -> Result<UnixListener, ServeError> {
    let folder = path.parent().unwrap_or(path);
    let failed = |source| ServeError::Socket { path: path.to_owned(), folder: folder.to_owned(), source };
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => return Err(ServeError::Taken { path: path.to_owned() }),
        Ok(_) => std::fs::remove_file(path).map_err(failed)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(ADMIN_SOCKET_MODE)).map_err(failed)?;
    Ok(listener)
}

/// Serves the administrator's questions on a Unix socket until `shutdown` turns true.
///
/// # Errors
/// When the socket stops working.
pub async fn serve_admin(listener: UnixListener, model: Model, shutdown: watch::Receiver<bool>) -> Result<(), ServeError> {
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
                let window_ms = self.window_ms.unwrap_or(TRACE_WINDOW_MS);
                if window_ms > TRACE_WINDOW_MS_MAX {
                    return Err(format!("window_ms: at most {TRACE_WINDOW_MS_MAX}, a day before and after the moment"));
                }
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

#[derive(Debug, Deserialize)]
struct DeadLetterParameters {
    from: Option<u64>,
}

async fn dead_letters(State(model): State<Model>, Query(parameters): Query<DeadLetterParameters>) -> Response {
    blocking(move || answer(model.dead_letters(parameters.from))).await
}

async fn resolve(State(model): State<Model>, Json(request): Json<ResolveRequest>) -> Response {
    if !request.by.as_deref().is_none_or(is_name) {
        let message = format!("by is no name; write 1 to {RESOLVED_BY_BYTES_MAX} bytes in one line");
        return (StatusCode::BAD_REQUEST, message).into_response();
    }
    blocking(move || answer(model.resolve(&request))).await
}

fn is_name(by: &str) -> bool {
    (1..=RESOLVED_BY_BYTES_MAX).contains(&by.len()) && !by.chars().any(char::is_control)
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

    /// Promise 5: who resolves is one line of a trace and of the log.
    #[test]
    fn who_resolves_is_one_short_line() {
        assert!(is_name("A. Example (root key 77a0-3c1f-90de-4b52)") && is_name(&"x".repeat(RESOLVED_BY_BYTES_MAX)));
        for wrong in ["", "A\nREADY", &"x".repeat(RESOLVED_BY_BYTES_MAX + 1)] {
            assert!(!is_name(wrong), "{wrong:?}");
        }
    }

    #[test]
    fn a_question_names_a_reading_or_a_device_and_a_moment() {
        assert!(parameters(Some("f3bb245b-6c6c-548b-9078-14754faa1ea6"), None, None).query().is_ok());
        assert!(parameters(None, Some("monitor-1"), Some(5)).query().is_ok());
        assert!(parameters(Some("17"), None, None).query().is_err());
        assert!(parameters(None, Some("monitor-1"), None).query().is_err());
        assert!(parameters(None, Some("../etc"), Some(5)).query().is_err());
    }

    /// Promise 5: a window that is not searched as asked for is not answered as if it were.
    #[test]
    fn a_window_that_is_too_wide_is_refused_with_the_limit() {
        let wide = |window_ms| TraceParameters { window_ms: Some(window_ms), ..parameters(None, Some("monitor-1"), Some(5)) }.query();
        assert!(wide(TRACE_WINDOW_MS_MAX).is_ok());
        assert!(wide(TRACE_WINDOW_MS_MAX + 1).unwrap_err().contains("86400000"));
    }

    /// What an earlier run left gives way; a file of somebody else does not, and the error says where and what to do.
    #[tokio::test]
    async fn the_socket_takes_the_place_of_a_socket_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        drop(bind_admin(&path).unwrap());
        let bound = bind_admin(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, ADMIN_SOCKET_MODE);
        drop(bound);

        let file = folder.path().join("notes.txt");
        std::fs::write(&file, "mine").unwrap();
        let said = bind_admin(&file).unwrap_err().to_string();
        assert!(said.contains("notes.txt") && said.contains("move it away"), "{said}");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");

        let said = bind_admin(&folder.path().join("none/admin.sock")).unwrap_err().to_string();
        assert!(said.contains("/none exists and is writable"), "{said}");
    }
}
