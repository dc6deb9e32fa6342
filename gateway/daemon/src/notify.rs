//! What systemd is told: ready, alive, stopping.

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
