//! What systemd is told: how long the start may take, ready, alive, stopping.

use std::time::Duration;

/// What a start takes at most besides the opening of the store.
const START_REST: Duration = Duration::from_secs(60);

/// Asks systemd for the time that the store's opening may take: one that is cut off begins anew each time. A longer time that the
/// unit gives (`TimeoutStartSec=`) stays. The watchdog begins only with [`ready`].
pub(crate) fn opening(patience: Duration) {
    send("EXTEND_TIMEOUT_USEC", &(patience + START_REST).as_micros().to_string());
}

/// Tells systemd that readings are taken.
pub(crate) fn ready() {
    send("READY", "1");
}

/// Tells systemd that every loop moved.
pub(crate) fn alive() {
    send("WATCHDOG", "1");
}

/// Tells systemd that the gateway drains to disk.
pub(crate) fn stopping() {
    send("STOPPING", "1");
}

#[cfg(feature = "systemd")]
fn send(key: &str, value: &str) {
    // Without systemd there is no socket to tell; that is no fault.
    let _told = systemd::daemon::notify([(key, value)].iter());
}

#[cfg(not(feature = "systemd"))]
fn send(_key: &str, _value: &str) {}

#[cfg(all(test, feature = "systemd"))]
mod tests {
    use std::os::unix::net::UnixDatagram;
    use std::process::{Command, Stdio};

    use vitalgate_config::Config;
    use vitalgate_store::keyed::KeyedOptions;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(120);

    /// Promise: a start is never cut off by systemd before the store's own deadlines: they are asked for before the store is opened.
    #[test]
    fn systemd_is_asked_for_the_time_of_the_opening_before_it_is_told_ready() {
        const NAME: &str = "notify::tests::systemd_is_asked_for_the_time_of_the_opening_before_it_is_told_ready";
        const CONFIG: &str = "VITALGATE_TEST_CONFIG";
        if let Some(path) = std::env::var_os(CONFIG) {
            let config = Config::load(path.as_ref()).unwrap_or_else(|errors| panic!("{errors:?}"));
            crate::run::run(&config).unwrap();
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let (path, state) = (folder.path().join("vitalgate.toml"), folder.path().join("state"));
        let text = format!("[gateway]\nname = \"gateway-01\"\nstate_dir = {state:?}\n[console]\nlisten = \"127.0.0.1:0\"\n");
        std::fs::write(&path, text).unwrap();
        let socket = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        // Where systemd listens comes from the environment, which can be another one only in a process of its own.
        let mut gateway = Command::new(std::env::current_exe().unwrap());
        gateway.args(["--exact", NAME]).env(CONFIG, &path).env("NOTIFY_SOCKET", folder.path().join("notify"));
        let mut gateway = gateway.stdout(Stdio::null()).spawn().unwrap();
        let mut told = Vec::new();
        let mut message = [0; 64];
        while told.last().is_none_or(|last| last != "READY=1") {
            let Ok(length) = socket.recv(&mut message) else { break };
            told.push(String::from_utf8_lossy(&message[..length]).into_owned());
        }
        gateway.kill().unwrap();
        gateway.wait().unwrap();
        let [asked, ready] = told.as_slice() else { panic!("{told:?}") };
        assert_eq!(ready, "READY=1");
        let micros: u64 = asked.strip_prefix("EXTEND_TIMEOUT_USEC=").unwrap().parse().unwrap();
        let patience = KeyedOptions::new(&state).open_patience();
        assert_eq!(Duration::from_micros(micros), patience + START_REST, "nothing was stored yet");
    }
}
