//! Users of the appliance's services, with fixed numbers (firewall rules name them).

/// The daemon.
pub const DAEMON: (&str, u32) = ("vitalgate", 901);
/// The status page.
pub const STATUS: (&str, u32) = ("vitalgate-status", 902);
/// Time.
pub const CHRONY: (&str, u32) = ("_chrony", 903);
/// Fetches updates from the configured server, and can do nothing else.
pub const FETCH: (&str, u32) = ("vitalgate-fetch", 904);
