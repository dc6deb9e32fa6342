//! Logs on standard error: for a person, or as JSON lines. Never a value, a patient or a secret.

use std::io::{self, IsTerminal as _};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, fmt};

/// Starts logging. `level` is one of error, warn, info, debug, trace.
pub(crate) fn start(json: bool, level: &str) {
    let level: LevelFilter = level.parse().unwrap_or(LevelFilter::INFO);
    // The libraries below speak of frames and headers at debug: only ours may.
    let ours = tracing_subscriber::filter::filter_fn(|metadata| {
        metadata.target().starts_with("vitalgate") || *metadata.level() <= tracing::Level::WARN
    });
    let layer = if json {
        fmt::layer().json().flatten_event(true).with_writer(io::stderr).boxed()
    } else {
        fmt::layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal()).with_target(false).boxed()
    };
    tracing_subscriber::registry().with(layer.with_filter(level).with_filter(ours)).init();
}
