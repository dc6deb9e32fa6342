//! TCP ports of the appliance itself.

/// The status page, HTTPS.
pub const STATUS_HTTPS: u16 = 8443;
/// Health and metrics of the daemon, loopback only.
pub const DAEMON_CONSOLE: u16 = 9464;
