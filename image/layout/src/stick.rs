//! USB sticks, by the label of their file system (vfat).

/// Site file; takes reports and device credentials back.
pub const PROVISION: &str = "PROVISION";
/// An update bundle.
pub const UPDATE: &str = "UPDATE";
/// A signed request for a support bundle.
pub const SUPPORT: &str = "SUPPORT";
/// A signed request for a factory reset or the decommissioning.
pub const RESET: &str = "RESET";
/// The recovery key, for data that the TPM no longer opens.
pub const RECOVERY: &str = "RECOVERY";
/// A certificate for the appliance's own key, in a signed request.
pub const CERTIFICATE: &str = "CERTIFICATE";

/// A signed request to send dead letters again.
pub const REPLAY: &str = "REPLAY";

/// The signed site file on `PROVISION`.
pub const SITE_FILE: &str = "site.provision";
/// Largest site file, in bytes.
pub const SITE_FILE_BYTES_MAX: u64 = 64 * 1024;
/// What became of the site file, for a person, on `PROVISION`.
pub const PROVISION_REPORT: &str = "provision-report.txt";
/// The signed commissioning report on `PROVISION`.
pub const COMMISSIONING_REPORT: &str = "commissioning-report.json";
/// The same for a person.
pub const COMMISSIONING_REPORT_TEXT: &str = "commissioning-report.txt";
/// Folder on `PROVISION` with one folder of credentials a device.
pub const DEVICES: &str = "devices";
/// The recovery key: written to `PROVISION` once, read from `RECOVERY`.
pub const RECOVERY_KEY: &str = "recovery-key.txt";
/// What became of an update, on `UPDATE`.
pub const UPDATE_REPORT: &str = "update-report.txt";
/// The signed request on `SUPPORT`.
pub const SUPPORT_REQUEST: &str = "support.request";
/// The signed request on `RESET`.
pub const RESET_REQUEST: &str = "reset.request";
/// The signed request on `CERTIFICATE`.
pub const CERTIFICATE_REQUEST: &str = "certificate.request";
/// What became of it, and the appliance's own request to an authority, on `CERTIFICATE`.
pub const CERTIFICATE_REPORT: &str = "certificate-report.txt";
/// The signed request on `REPLAY`.
pub const REPLAY_REQUEST: &str = "replay.request";
/// What became of the dead letters, on `REPLAY`.
pub const REPLAY_REPORT: &str = "replay-report.txt";
