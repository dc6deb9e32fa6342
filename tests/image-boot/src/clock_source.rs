//! A time server of the host (SNTP, RFC 4330 section 5), so that the appliance knows the time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use tokio::net::UdpSocket;
use tokio::task::AbortHandle;

/// Bytes of a packet without extensions.
const PACKET: usize = 48;
/// Seconds between 1900 and 1970.
const ERA: u64 = 2_208_988_800;

/// A running server; it stops when this is dropped.
pub(crate) struct ClockSource {
    port: u16,
    shift_s: Arc<AtomicI64>,
    task: AbortHandle,
}

impl Drop for ClockSource {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl ClockSource {
    /// Answers on this port of loopback.
    ///
    /// # Errors
    /// When the port cannot be listened on.
    pub(crate) async fn start(port: u16) -> anyhow::Result<Self> {
        let socket = UdpSocket::bind(SocketAddr::from(([127, 0, 0, 1], port)))
            .await
            .with_context(|| format!("the time server cannot listen on port {port}"))?;
        let shift_s = Arc::new(AtomicI64::new(0));
        Ok(Self { port, task: tokio::spawn(serve(socket, shift_s.clone())).abort_handle(), shift_s })
    }

    /// Says another time from now on, `seconds` from this host's.
    pub(crate) fn shift(&self, seconds: i64) {
        self.shift_s.store(seconds, Ordering::Relaxed);
    }

    /// Where it answers.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}

async fn serve(socket: UdpSocket, shift_s: Arc<AtomicI64>) {
    let mut question = [0; 512];
    while let Ok((length, from)) = socket.recv_from(&mut question).await {
        if length >= PACKET {
            // A lost answer is asked for again.
            let _ = socket.send_to(&answer(&question[..PACKET], now(shift_s.load(Ordering::Relaxed))), from).await;
        }
    }
}

/// Seconds since 1900 and their fraction, 32 bits each.
fn now(shift_s: i64) -> [u8; 8] {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let fraction = (u64::from(since.subsec_nanos()) << 32) / 1_000_000_000;
    (((since.as_secs() + ERA).saturating_add_signed(shift_s) << 32) | fraction).to_be_bytes()
}

fn answer(question: &[u8], now: [u8; 8]) -> [u8; PACKET] {
    let mut packet = [0; PACKET];
    // No warning, the asker's version, mode 4 (server); stratum 2; precision 2^-20 s.
    packet[0] = (question[0] & 0b0011_1000) | 4;
    packet[1] = 2;
    packet[2] = question[2];
    packet[3] = 0xEC;
    packet[7] = 16;
    packet[11] = 16;
    packet[12..16].copy_from_slice(&[127, 127, 1, 1]);
    packet[16..24].copy_from_slice(&now);
    packet[24..32].copy_from_slice(&question[40..48]);
    packet[32..40].copy_from_slice(&now);
    packet[40..48].copy_from_slice(&now);
    packet
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shifted_source_says_another_time() {
        let seconds = |shift| u64::from_be_bytes(now(shift)) >> 32;
        assert!((7_198..7_203).contains(&(seconds(7_200) - seconds(0))));
        assert!(seconds(-7_200) < seconds(0));
    }

    #[test]
    fn an_answer_repeats_the_askers_moment_and_says_ours() {
        let mut question = [0; PACKET];
        question[0] = 0b0010_0011;
        question[40..48].copy_from_slice(b"askedat!");
        let said = answer(&question, *b"our time");
        assert_eq!(said[0], 0b0010_0100, "version 4, mode server");
        assert_eq!(&said[24..32], b"askedat!");
        assert_eq!((&said[32..40], &said[40..48]), (&b"our time"[..], &b"our time"[..]));
    }
}
