//! Files of the running appliance.

/// What the first program of the boot found: `VITALGATE_SLOT=a` and `VITALGATE_ROOT_HASH=...`.
pub const BOOT_ENV: &str = "/run/vitalgate/boot.env";
/// One JSON file for each part of the appliance that has something to say, see [`crate::state::Part`].
pub const STATE_FOLDER: &str = "/run/vitalgate/state";
/// The daemon's configuration, made from the site file at each boot.
pub const DAEMON_CONFIG: &str = "/run/vitalgate/vitalgate.toml";
/// Firewall rules made from the site file at each boot.
pub const FIREWALL: &str = "/run/vitalgate/nftables.conf";
/// Time sources made from the site file at each boot.
pub const TIME_SOURCES: &str = "/run/vitalgate/chrony.conf";
/// What is known of the clock: one word, `authenticated`, `synchronised`, `free` or `unset`.
pub const CLOCK_TRUST: &str = "/run/vitalgate/clock-trust";
/// Where the EFI system partition is mounted.
pub const ESP: &str = "/efi";
/// Where the data partition is mounted.
pub const DATA: &str = "/data";
/// The daemon's own folder: store, local authority, device registry.
pub const DAEMON_STATE: &str = "/data/vitalgate";
/// The appliance's own folder (root only).
pub const APPLIANCE: &str = "/data/appliance";
/// The accepted site file.
pub const SITE_FILE: &str = "/data/appliance/site.provision";
/// The same once more: a damaged one is mended from it.
pub const SITE_FILE_COPY: &str = "/data/appliance/site.provision.copy";
/// SHA-256 of the accepted site file, and the moment once more, a line each: where both are damaged, the same file is known by it.
pub const SITE_FILE_SHA256: &str = "/data/appliance/site.sha256";
/// When the site file was accepted: a moment (RFC 3339). Earlier versions left a name in a second line.
pub const SITE_FILE_ACCEPTED: &str = "/data/appliance/site.accepted";
/// What a `PROVISION` stick with the site file in service still gets: the signed report, and credentials for these devices, one a line.
pub const OWED_TO_STICK: &str = "/data/appliance/owed-to-stick";
/// SHA-256 of the site files that were in service before, one a line: none of them comes back.
pub const SITE_FILES_BEFORE: &str = "/data/appliance/site-files-before";
/// The provisioning window is closed; the file holds when.
pub const COMMISSIONED: &str = "/data/appliance/commissioned";
/// The report that the technician got, for the support bundle.
pub const COMMISSIONING_REPORT: &str = "/data/appliance/commissioning-report.json";
/// The key that signs reports, or what the TPM makes it from.
pub const REPORT_KEY: &str = "/data/appliance/report.key";
/// Since when that is another key than before.
pub const REPORT_KEY_RENEWED: &str = "/data/appliance/report.key-renewed";
/// The recovery key until it is taken away.
pub const RECOVERY_KEY: &str = "/data/appliance/recovery-key";
/// The last time that was known here, in Unix milliseconds.
pub const LAST_KNOWN_TIME: &str = "/data/appliance/last-known-time";
/// Why the last rollback happened.
pub const LAST_ROLLBACK: &str = "/data/appliance/rollback.json";
/// The oldest version that may be installed.
pub const VERSION_FLOOR: &str = "/data/appliance/version-floor";
/// The appliance as it was before an update: what the health gate expects of the new version.
pub const BEFORE_UPDATE: &str = "/data/appliance/before.json";
/// Where an update from the configured server is put, by an account that can do nothing else.
pub const FETCH: &str = "/data/fetch";
/// The update that is being installed.
pub const UPDATE_BUNDLE: &str = "/data/appliance/update.raucb";
/// Held while an update is fetched, waits, or is installed.
pub const UPDATE_LOCK: &str = "/run/vitalgate/update.lock";
/// Held while a version is written to the other slot, and while a new site file is taken: the restart for the one would cut off the other.
pub const CHANGE_LOCK: &str = "/run/vitalgate/change.lock";
/// Where the daemon answers `/health` and `/status` (its default).
pub const DAEMON_STATUS: &str = "127.0.0.1:9464";
/// The oldest version that this image lets be installed, in [`TRUST`]; kept in [`VERSION_FLOOR`] once it is healthy.
pub const IMAGE_VERSION_FLOOR: &str = "version-floor";
/// Public keys and certificates of the release: who may sign site files, bundles, requests.
pub const TRUST: &str = "/usr/lib/vitalgate/trust";
/// Public key (Ed25519, 32 bytes in hex) that site files and requests are checked against, in [`TRUST`].
pub const SITE_ROOT: &str = "site-root.pub";
/// Support's public key (age recipient), in [`TRUST`].
pub const SUPPORT_RECIPIENT: &str = "support.age";
/// Signature over PCR 11 that came with the signed kernel image.
pub const PCR_SIGNATURE: &str = "/run/systemd/tpm2-pcr-signature.json";
/// Public key of that signature.
pub const PCR_PUBLIC_KEY: &str = "/run/systemd/tpm2-pcr-public-key.pem";
/// Certificate authorities that the site file names, made at each boot: one PEM file each.
pub const SITE_AUTHORITIES: &str = "/run/vitalgate/authorities";
/// Network configuration made from the site file at each boot.
pub const NETWORK: &str = "/run/systemd/network";
/// The machine's name, made at each boot from what its maker wrote into it; `/etc/machine-id` points here.
pub const MACHINE_ID: &str = "/run/vitalgate/machine-id";
/// The daemon's key-encryption key, sealed to the TPM for `LoadCredentialEncrypted=`.
pub const KEY_CREDENTIAL: &str = "/data/appliance/kek.cred";
/// The same once more: a damaged one is mended from it.
pub const KEY_CREDENTIAL_COPY: &str = "/data/appliance/kek.cred.copy";
/// Name of that credential.
pub const KEY_CREDENTIAL_NAME: &str = "vitalgate-kek";
/// What the appliance identifies itself with to servers that demand a client certificate: made whole, or not there.
pub const IDENTITY: &str = "/data/appliance/identity";
/// Its private key, sealed to the TPM for `LoadCredentialEncrypted=`.
pub const CLIENT_KEY_CREDENTIAL: &str = "/data/appliance/identity/key.cred";
/// Name of that credential.
pub const CLIENT_KEY_CREDENTIAL_NAME: &str = "vitalgate-client-key";
/// The certificate that the daemon shows with that key, put here at each boot.
pub const CLIENT_CERTIFICATE: &str = "/run/vitalgate/client-certificate.pem";
/// A copy of that key under a key that is derived from the recovery key.
pub const KEY_COPY: &str = "/data/appliance/kek.recovery";
/// The key of storage that is not sealed, by its signer's leave.
pub const UNSEALED_KEY: &str = "/efi/vitalgate/data.key";
/// What the status page says of itself; linked from [`STATE_FOLDER`].
pub const STATUS_FILE: &str = "/run/vitalgate-status/status.json";
/// The status page's own folder: its certificate.
pub const STATUS_STATE: &str = "/data/status";
/// The journal that outlives a restart.
pub const JOURNAL: &str = "/data/journal";
/// Folder with one empty file, named as the disk that the appliance started from.
pub const BOOT_DISK: &str = "/run/vitalgate/disk";
