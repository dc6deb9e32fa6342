//! Waiting for a condition with a deadline, and ports that nobody else will take.

use std::net::TcpListener;
use std::time::Duration;

use anyhow::Context as _;

/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Ports below the range from which the system takes ports for outgoing connections, so that a
/// port that is given up for a while is still free afterwards.
const PORTS: std::ops::Range<u16> = 17_000..32_000;
/// Ports that are tried before giving up.
const PORT_ATTEMPTS: usize = 200;

/// Waits until `condition` gives a value.
///
/// # Errors
/// When it did not within `deadline`; the error names what was waited for.
pub async fn wait_until<T>(what: &str, deadline: Duration, mut condition: impl AsyncFnMut() -> Option<T>) -> anyhow::Result<T> {
    let mut tick = tokio::time::interval(LOOK_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let looking = async {
        loop {
            tick.tick().await;
            if let Some(value) = condition().await {
                return value;
            }
        }
    };
    tokio::time::timeout(deadline, looking).await.with_context(|| format!("waited {deadline:?} in vain for: {what}"))
}

/// A free loopback port outside the system's own range for outgoing connections.
///
/// # Errors
/// When none of many tried ports is free.
pub fn free_port() -> anyhow::Result<u16> {
    (0..PORT_ATTEMPTS)
        .map(|_| fastrand::u16(PORTS))
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .context("no free port found on loopback")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_condition_that_never_holds_ends_with_its_name() {
        let error = wait_until::<()>("rain", Duration::from_millis(30), async || None).await.unwrap_err();
        assert!(error.to_string().contains("rain"), "{error}");
    }
}
