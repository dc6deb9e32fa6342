//! The only place that reads a clock.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use anyhow::Context as _;
use nix::time::{ClockId, clock_gettime};
use vitalgate_domain::{BootId, ClockTrust, Received, UnixMs};

/// A wall clock before this moment (2026-01-01) was never set: no device of ours is older.
const EPOCH_FLOOR: UnixMs = UnixMs(1_767_225_600_000);
/// systemd-timesyncd makes this file once it follows a server.
const TIMESYNC_MARK: &str = "/run/systemd/timesync/synchronized";
/// The appliance's time service writes its word here: authenticated, synchronised, free or unset.
const TRUST_WORD_FILE: &str = "/run/vitalgate/clock-trust";
/// Where the kernel says which power-on this is.
const BOOT_ID_FILE: &str = "/proc/sys/kernel/random/boot_id";

/// Wall and monotonic time with the trust in them.
#[derive(Debug, Clone)]
pub(crate) struct Clock(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    boot: BootId,
    trust: AtomicU8,
}

impl Clock {
    /// Reads the boot id and looks at the clock's trust once.
    pub(crate) fn start() -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(BOOT_ID_FILE).with_context(|| format!("cannot read {BOOT_ID_FILE}"))?;
        let boot = text.parse().with_context(|| format!("{BOOT_ID_FILE} holds no boot id"))?;
        let clock = Self(Arc::new(Inner { boot, trust: AtomicU8::new(0) }));
        clock.refresh_trust();
        Ok(clock)
    }

    /// The present.
    pub(crate) fn now(&self) -> Received {
        let wall = wall();
        let trust = if wall < EPOCH_FLOOR { ClockTrust::Unset } else { decode(self.0.trust.load(Ordering::Relaxed)) };
        Received { wall, monotonic_ms: monotonic_ms(), boot: self.0.boot, trust }
    }

    /// Looks again at what the time service says; called once a second.
    pub(crate) fn refresh_trust(&self) {
        self.0.trust.store(encode(service_trust()), Ordering::Relaxed);
    }
}

fn wall() -> UnixMs {
    let now = clock_gettime(ClockId::CLOCK_REALTIME).unwrap_or(nix::sys::time::TimeSpec::new(0, 0));
    UnixMs(now.tv_sec().saturating_mul(1_000).saturating_add(now.tv_nsec() / 1_000_000))
}

/// Milliseconds since power-on, time in suspend included.
pub(crate) fn monotonic_ms() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).unwrap_or(nix::sys::time::TimeSpec::new(0, 0));
    u64::try_from(now.tv_sec().saturating_mul(1_000).saturating_add(now.tv_nsec() / 1_000_000)).unwrap_or(0)
}

fn service_trust() -> ClockTrust {
    match std::fs::read_to_string(TRUST_WORD_FILE).as_deref().map(str::trim) {
        Ok("authenticated") => ClockTrust::Authenticated,
        Ok("synchronised") => ClockTrust::Synchronised,
        Ok("unset") => ClockTrust::Unset,
        Ok(_) => ClockTrust::Free,
        Err(_) if PathBuf::from(TIMESYNC_MARK).exists() => ClockTrust::Synchronised,
        Err(_) => ClockTrust::Free,
    }
}

fn encode(trust: ClockTrust) -> u8 {
    match trust {
        ClockTrust::Unset => 0,
        ClockTrust::Free => 1,
        ClockTrust::Synchronised => 2,
        ClockTrust::Authenticated => 3,
    }
}

fn decode(number: u8) -> ClockTrust {
    match number {
        3 => ClockTrust::Authenticated,
        2 => ClockTrust::Synchronised,
        1 => ClockTrust::Free,
        _ => ClockTrust::Unset,
    }
}
