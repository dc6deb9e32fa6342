//! Waiting for a condition with a deadline, and ports that nobody else will take.

use std::fs::File;
use std::net::TcpListener;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;

/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Ports below the range from which the system takes ports for outgoing connections, so that a
/// port that is given up for a while is still free afterwards.
const PORTS: std::ops::Range<u16> = 17_000..32_000;
/// Ports that are tried before giving up.
const PORT_ATTEMPTS: usize = 200;

/// Locked files, one a port that was given out: the system lets go of them when this process ends.
static CLAIMS: Mutex<Vec<File>> = Mutex::new(Vec::new());

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

/// A free loopback port outside the system's own range for outgoing connections. No other caller gets it
/// while this process lives, neither here nor in another test's process.
///
/// # Errors
/// When none of many tried ports is free.
pub fn free_port() -> anyhow::Result<u16> {
    // Another account's files could not be locked.
    let folder = std::env::temp_dir().join(format!("vitalgate-ports-{}", nix::unistd::getuid()));
    std::fs::create_dir_all(&folder).with_context(|| format!("no folder {}", folder.display()))?;
    for _ in 0..PORT_ATTEMPTS {
        let port = fastrand::u16(PORTS);
        let Ok(claim) = File::create(folder.join(port.to_string())) else { continue };
        if claim.try_lock().is_ok() && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            CLAIMS.lock().unwrap_or_else(PoisonError::into_inner).push(claim);
            return Ok(port);
        }
    }
    anyhow::bail!("no free port found on loopback in {PORT_ATTEMPTS} attempts")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_condition_that_never_holds_ends_with_its_name() {
        let error = wait_until::<()>("rain", Duration::from_millis(30), async || None).await.unwrap_err();
        assert!(error.to_string().contains("rain"), "{error}");
    }

    #[test]
    fn no_port_is_given_out_twice() {
        let ports: Vec<u16> = (0..300).map(|_| free_port().unwrap()).collect();
        let different: std::collections::HashSet<&u16> = ports.iter().collect();
        assert_eq!(different.len(), ports.len());
    }
}
