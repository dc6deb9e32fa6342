//! Names of the facts that a part of the appliance shows besides its word ([`crate::state::PartState::facts`]).
//! One writes them, another reads or spells them; a name here is the same in both.

use crate::Slot;

/// The site's name ([`crate::state::Part::Provision`]).
pub const SITE: &str = "site";
/// The gateway's name.
pub const GATEWAY: &str = "gateway";
/// The serial number.
pub const SERIAL: &str = "serial";
/// Who commissions it.
pub const TECHNICIAN: &str = "technician";
/// When the site file was accepted.
pub const ACCEPTED: &str = "accepted";
/// Who signed the site file.
pub const SIGNED_BY: &str = "signed_by";
/// Why storage may go without a seal, by the site file.
pub const UNSEALED_REASON: &str = "unsealed_reason";
/// Fingerprint of the key that signs the appliance's reports.
pub const REPORT_KEY: &str = "report_key";
/// Where that key is.
pub const REPORT_KEY_PLACE: &str = "report_key_place";
/// Since when it is another one, and why.
pub const REPORT_KEY_NOTE: &str = "report_key_note";

/// Whether storage is sealed ([`crate::state::Part::Data`]): [`SEALED_YES`], [`SEALED_NO`], or a word more.
pub const SEALED: &str = "sealed";
/// The TPM opens storage.
pub const SEALED_YES: &str = "yes";
/// A key beside it opens storage.
pub const SEALED_NO: &str = "no";

/// What became of the damage that was found in its file system, where some is left; begins with [`FAILED`].
pub const FILE_SYSTEM: &str = "file_system";

/// How far the clock is trusted ([`crate::state::Part::Clock`]).
pub const TRUST: &str = "trust";
/// A source of time, before its number.
pub const SOURCE_PREFIX: &str = "source-";

/// The running slot and version ([`crate::state::Part::Slots`]).
pub const RUNNING: &str = "running";
/// The oldest version that may be installed.
pub const VERSION_FLOOR: &str = "version-floor";
/// Which version was left at the last rollback, and why.
pub const LAST_ROLLBACK: &str = "last-rollback";
/// When, in Unix milliseconds.
pub const LAST_ROLLBACK_UNIX_MS: &str = "last-rollback-unix-ms";

/// The version that is being installed ([`crate::state::Part::Update`]).
pub const VERSION: &str = "version";
/// How much of it is installed, in percent.
pub const PERCENT: &str = "percent";

/// A check of the self test that passed ([`crate::state::Part::SelfTest`]); the others begin with [`FAILED`] or say why they were skipped.
pub const OK: &str = "ok";
/// Beginning of a check that did not pass.
pub const FAILED: &str = "failed";
/// The root is verified.
pub const VERITY: &str = "verity";
/// Secure Boot is on.
pub const SECURE_BOOT: &str = "secure_boot";
/// There is a TPM.
pub const TPM: &str = "tpm";
/// Storage keeps what is written to it.
pub const DISK: &str = "disk";
/// A cable is plugged in.
pub const INTERFACES: &str = "interfaces";
/// The time is known.
pub const CLOCK: &str = "clock";
/// How many devices were reached, were not, or come by themselves.
pub const DEVICES: &str = "devices";
/// A polled device is reached, before its name.
pub const DEVICE_PREFIX: &str = "device_";

/// Where the status page is ([`crate::state::Part::Status`]).
pub const URL: &str = "url";
/// Its port.
pub const PORT: &str = "port";
/// SHA-256 of its certificate.
pub const FINGERPRINT: &str = "fingerprint";
/// The day on which that ends.
pub const CERTIFICATE_ENDS: &str = "certificate_ends";
/// Whether that is kept or temporary.
pub const CERTIFICATE: &str = "certificate";

/// What is in a slot.
pub const fn slot(slot: Slot) -> &'static str {
    match slot {
        Slot::A => "slot-a",
        Slot::B => "slot-b",
    }
}
