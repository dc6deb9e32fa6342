//! What systemd is told (sd_notify(3)): ready, alive. Without systemd there is nobody to tell.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Says `READY=1` or `WATCHDOG=1`.
pub(crate) fn tell(what: &str) {
    let Some(name) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let bytes = name.as_encoded_bytes();
    let address = match bytes.strip_prefix(b"@") {
        Some(rest) => SocketAddr::from_abstract_name(rest),
        None => SocketAddr::from_pathname(&name),
    };
    if let (Ok(address), Ok(socket)) = (address, UnixDatagram::unbound()) {
        // A full or missing socket costs at most a restart by the watchdog.
        let _ = socket.set_nonblocking(true).and_then(|()| socket.send_to_addr(what.as_bytes(), &address));
    }
}
