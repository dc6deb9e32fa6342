//! Logs on standard error: for a person, or as JSON lines. Never a value, a patient or a secret.

use std::io::{self, IsTerminal as _};

use tracing::level_filters::LevelFilter;
use tracing::{Level, Metadata};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, fmt};

/// Starts logging. `level` is one of error, warn, info, debug, trace.
pub(crate) fn start(json: bool, level: &str) {
    let level: LevelFilter = level.parse().unwrap_or(LevelFilter::INFO);
    let layer = if json {
        fmt::layer().json().flatten_event(true).with_writer(io::stderr).boxed()
    } else {
        fmt::layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal()).with_target(false).boxed()
    };
    tracing_subscriber::registry().with(layer.with_filter(level).with_filter(filter_fn(may_be_written))).init();
}

/// The libraries below speak of frames and headers at debug: only ours may.
fn may_be_written(metadata: &Metadata<'_>) -> bool {
    metadata.target().starts_with("vitalgate") || *metadata.level() <= Level::WARN
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// What was logged.
    #[derive(Clone, Default)]
    pub(crate) struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Lines {
        pub(crate) fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Promise 5: whatever level the log is set to, what libraries say of requests, with their tokens and patients, is never in it.
    #[test]
    fn what_libraries_say_of_requests_is_not_written() {
        let lines = Lines::default();
        let writer = lines.clone();
        let layer = fmt::layer().with_ansi(false).with_writer(move || writer.clone()).with_filter(filter_fn(may_be_written));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            tracing::trace!(target: "h2::codec", "secret frame");
            tracing::debug!(target: "hyper::proto", "secret header");
            tracing::info!(target: "reqwest::connect", "secret address");
            tracing::warn!(target: "rustls::conn", "an alert");
            tracing::debug!(target: "vitalgate_transport::client", "a request");
        });
        let written = lines.text();
        assert!(written.lines().count() == 2 && !written.contains("secret"), "{written}");
        assert!(written.contains("an alert") && written.contains("a request"), "{written}");
    }
}
