//! TCP keep-alive: how the kernel finds out that a peer is gone although it never said so.

use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::TcpStream;

use crate::limits::{CONTEST_MS, PROBE_COUNT, PROBE_IDLE_S, PROBE_INTERVAL_S};

/// Unanswered bytes or probes for this long, in ms, end a connection.
pub(crate) const SILENCE_MS: u32 = 1_000 * (PROBE_IDLE_S + PROBE_INTERVAL_S * PROBE_COUNT);
/// The same while a second client waits for the answer.
pub(crate) const CONTESTED_SILENCE_MS: u32 = 2_500;

const _: () = assert!((CONTESTED_SILENCE_MS as u64) < CONTEST_MS);

fn set(stream: &TcpStream, idle_s: u32, interval_s: u32, count: u32, silence_ms: u32) {
    let results = [
        setsockopt(stream, sockopt::KeepAlive, &true),
        setsockopt(stream, sockopt::TcpKeepInterval, &interval_s),
        setsockopt(stream, sockopt::TcpKeepCount, &count),
        setsockopt(stream, sockopt::TcpUserTimeout, &silence_ms),
        setsockopt(stream, sockopt::TcpKeepIdle, &idle_s),
    ];
    if let Some(error) = results.into_iter().find_map(Result::err) {
        tracing::debug!(%error, "TCP keep-alive could not be set; a dead connection is found by MQTT keep-alive alone");
    }
}

/// Probes an idle peer from time to time; undoes [`challenge`].
pub(crate) fn watch(stream: &TcpStream) {
    set(stream, PROBE_IDLE_S, PROBE_INTERVAL_S, PROBE_COUNT, SILENCE_MS);
}

/// Probes the peer now and each second, and gives up soon.
pub(crate) fn challenge(stream: &TcpStream) {
    set(stream, 1, 1, 2, CONTESTED_SILENCE_MS);
}
