//! The only place that reads a clock.

use std::fs::OpenOptions;
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use anyhow::Context as _;
use nix::fcntl::OFlag;
use nix::time::{ClockId, clock_gettime};
use vitalgate_domain::{BootId, ClockTrust, Received, UnixMs};

/// A wall clock before this moment (2026-01-01) was never set: no device of ours is older.
const EPOCH_FLOOR: UnixMs = UnixMs(1_767_225_600_000);
/// systemd-timesyncd makes this file once it follows a server.
const TIMESYNC_MARK: &str = "/run/systemd/timesync/synchronized";
/// Longest word of a time service that is read, in bytes.
const TRUST_WORD_BYTES_MAX: u64 = 64;
/// Where the kernel says which power-on this is.
const BOOT_ID_FILE: &str = "/proc/sys/kernel/random/boot_id";

/// Where a time service says: authenticated, synchronised, free or unset.
#[derive(Debug, Clone)]
pub(crate) struct TrustFile {
    /// The file.
    pub(crate) path: PathBuf,
    /// Whether the configuration says that there is a time service that writes it.
    pub(crate) promised: bool,
}

/// Wall and monotonic time with the trust in them.
#[derive(Debug, Clone)]
pub(crate) struct Clock(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    boot: BootId,
    trust: AtomicU8,
    trust_file: TrustFile,
}

impl Clock {
    /// Reads the boot id and looks at the clock's trust once.
    pub(crate) fn start(trust_file: TrustFile) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(BOOT_ID_FILE).with_context(|| format!("cannot read {BOOT_ID_FILE}"))?;
        let boot = text.parse().with_context(|| format!("{BOOT_ID_FILE} holds no boot id"))?;
        let clock = Self(Arc::new(Inner { boot, trust: AtomicU8::new(0), trust_file }));
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
        let trust = self.0.trust_file.trust();
        let before = decode(self.0.trust.swap(encode(trust), Ordering::Relaxed));
        if trust != before {
            tracing::info!(?before, now = ?trust, "trust in the clock");
        }
    }
}

fn wall() -> UnixMs {
    let now = clock_gettime(ClockId::CLOCK_REALTIME).unwrap_or(nix::sys::time::TimeSpec::new(0, 0));
    UnixMs(now.tv_sec().saturating_mul(1_000).saturating_add(now.tv_nsec() / 1_000_000))
}

/// Milliseconds since power-on, time in suspend included.
pub(crate) fn monotonic_ms() -> u64 {
    since_power_on_ms(ClockId::CLOCK_BOOTTIME)
}

fn since_power_on_ms(clock: ClockId) -> u64 {
    let now = clock_gettime(clock).unwrap_or(nix::sys::time::TimeSpec::new(0, 0));
    u64::try_from(now.tv_sec().saturating_mul(1_000).saturating_add(now.tv_nsec() / 1_000_000)).unwrap_or(0)
}

/// Milliseconds since power-on without time in suspend: what timers go by, and so whoever judges loops that wait for them.
pub(crate) fn awake_ms() -> u64 {
    since_power_on_ms(ClockId::CLOCK_MONOTONIC)
}

impl TrustFile {
    fn trust(&self) -> ClockTrust {
        match trust_word(&self.path).as_deref().map(<[u8]>::trim_ascii) {
            Ok(b"authenticated") => ClockTrust::Authenticated,
            Ok(b"synchronised") => ClockTrust::Synchronised,
            Ok(b"unset") => ClockTrust::Unset,
            Ok(_) => ClockTrust::Free,
            Err(_) if Path::new(TIMESYNC_MARK).exists() => ClockTrust::Synchronised,
            // A time service that has not spoken yet may still find that the clock was never set.
            Err(_) if self.promised => ClockTrust::Unset,
            Err(_) => ClockTrust::Free,
        }
    }
}

/// The head of the file. It never waits: not on a pipe, not on a device.
fn trust_word(file: &Path) -> std::io::Result<Vec<u8>> {
    let file = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(file)?;
    if !file.metadata()?.is_file() {
        return Err(std::io::ErrorKind::InvalidInput.into());
    }
    let mut word = Vec::new();
    file.take(TRUST_WORD_BYTES_MAX).read_to_end(&mut word)?;
    Ok(word)
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine that slept has no loop that hangs: signs of life go by the clock that the loops' timers go by.
    #[test]
    fn signs_of_life_go_by_the_clock_of_timers() {
        let timers = || since_power_on_ms(ClockId::CLOCK_MONOTONIC);
        let (before, now, after) = (timers(), awake_ms(), timers());
        assert!((before..=after).contains(&now), "{before} {now} {after}");
    }

    /// A word that changes while the gateway runs is taken over at the next look; one that cannot be read trusts nobody.
    #[test]
    fn the_word_of_the_time_service_is_read_again_at_each_look() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("clock-trust");
        let clock = Clock::start(TrustFile { path: file.clone(), promised: false }).unwrap();
        let told = |word: &[u8]| {
            std::fs::write(&file, word).unwrap();
            clock.refresh_trust();
            clock.now().trust
        };
        assert_eq!(told(b"unset\n"), ClockTrust::Unset);
        assert_eq!(told(b"authenticated"), ClockTrust::Authenticated);
        assert_eq!(told(b" synchronised \n"), ClockTrust::Synchronised);
        assert_eq!(told(b"free\n"), ClockTrust::Free);
        assert_eq!(told(b"Authenticated or so"), ClockTrust::Free, "what is no word is no trust");
        assert_eq!(told(b"authenticated\n"), ClockTrust::Authenticated);
        assert_eq!(told(&b"authenticated ".repeat(100_000)), ClockTrust::Free, "only the head is read");
        assert_eq!(told(&[0xff; 8]), ClockTrust::Free);
    }

    /// A gateway that is up before its time service gives no reading a moment of a clock that may be wrong.
    #[test]
    fn a_time_service_that_has_not_spoken_yet_trusts_no_clock() {
        let folder = tempfile::tempdir().unwrap();
        let file = |promised| TrustFile { path: folder.path().join("clock-trust"), promised };
        if !Path::new(TIMESYNC_MARK).exists() {
            assert_eq!(file(true).trust(), ClockTrust::Unset);
            assert_eq!(file(false).trust(), ClockTrust::Free, "there is no time service to wait for");
        }
        std::fs::write(folder.path().join("clock-trust"), "free").unwrap();
        assert_eq!(file(true).trust(), ClockTrust::Free);
    }

    /// Whatever lies at the path, the look comes back.
    #[test]
    fn a_pipe_in_the_place_of_the_file_holds_nobody_up() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(trust_word(&pipe).is_err());
        assert!(trust_word(folder.path()).is_err());
        assert!(trust_word(&folder.path().join("missing")).is_err());
    }
}
