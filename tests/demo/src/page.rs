//! The local web page: one file, nothing from outside, and the state as JSON.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use axum::extract::State;
use axum::http::header;
use axum::response::{Html, IntoResponse};
use axum::routing::get;
use axum::{Json, Router};
use tokio::net::TcpListener;

use crate::ledger::Ledger;

const PAGE: &str = include_str!("page.html");

/// Nothing but the page itself may run or be loaded.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'";

/// Serves on loopback; on another port when the wanted one is taken.
pub(crate) async fn serve(port: u16, ledger: Arc<Ledger>) -> anyhow::Result<SocketAddr> {
    let listener = match TcpListener::bind(("127.0.0.1", port)).await {
        Ok(listener) => listener,
        Err(_) => TcpListener::bind(("127.0.0.1", 0)).await.context("no port for the page")?,
    };
    let address = listener.local_addr().context("no address for the page")?;
    let router = Router::new().route("/", get(page)).route("/state", get(state)).with_state(ledger);
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(address)
}

async fn page() -> impl IntoResponse {
    ([(header::CONTENT_SECURITY_POLICY, POLICY), (header::CACHE_CONTROL, "no-store")], Html(PAGE))
}

async fn state(State(ledger): State<Arc<Ledger>>) -> impl IntoResponse {
    ([(header::CACHE_CONTROL, "no-store")], Json(ledger.view()))
}
