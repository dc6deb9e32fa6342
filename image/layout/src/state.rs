//! State words: what the console, the status page and the manual call the appliance's condition.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Prefix of the line on the console: `VITALGATE STATE READY` or `VITALGATE STATE DEGRADED (monitor-01)`.
pub const CONSOLE_PREFIX: &str = "VITALGATE STATE";

/// One condition of the appliance, most urgent last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING-KEBAB-CASE")]
pub enum StateWord {
    /// In service.
    Ready,
    /// In service; the last update was undone.
    RolledBack,
    /// In service; a device is missing.
    Degraded,
    /// In service; a destination does not take readings, or not all of them; they are kept.
    OfflineBuffering,
    /// In service; the time is not known well enough.
    TimeUntrusted,
    /// Starting and testing itself. The words before this one all say that it is in service, which it is not yet.
    Selftest,
    /// Installing, or waiting for the restart into the new version.
    Updating,
    /// Waiting for a stick labelled `PROVISION`.
    AwaitProvision,
    /// Applying a site file.
    Enrolling,
    /// The site file was refused; the reason has a number.
    ProvisionRejected,
    /// Nothing is acknowledged until there is room.
    StoreFull,
    /// Sealed storage did not open, or a part of the appliance is not what it was.
    Tamper,
}

impl StateWord {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Ready,
        Self::RolledBack,
        Self::Degraded,
        Self::OfflineBuffering,
        Self::TimeUntrusted,
        Self::Selftest,
        Self::Updating,
        Self::AwaitProvision,
        Self::Enrolling,
        Self::ProvisionRejected,
        Self::StoreFull,
        Self::Tamper,
    ];

    /// The word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ready => "READY",
            Self::Selftest => "SELFTEST",
            Self::RolledBack => "ROLLED-BACK",
            Self::Degraded => "DEGRADED",
            Self::OfflineBuffering => "OFFLINE-BUFFERING",
            Self::TimeUntrusted => "TIME-UNTRUSTED",
            Self::Updating => "UPDATING",
            Self::AwaitProvision => "AWAIT-PROVISION",
            Self::Enrolling => "ENROLLING",
            Self::ProvisionRejected => "PROVISION-REJECTED",
            Self::StoreFull => "STORE-FULL",
            Self::Tamper => "TAMPER",
        }
    }
}

impl fmt::Display for StateWord {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.word())
    }
}

/// A part of the appliance that writes a state file of its own, `<part>.json` in [`crate::path::STATE_FOLDER`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// Sealed storage.
    Data,
    /// Site file and commissioning.
    Provision,
    /// Self test.
    SelfTest,
    /// Time sources.
    Clock,
    /// Installing an update.
    Update,
    /// Slots, health gate and the last rollback.
    Slots,
    /// The status page: its address and fingerprint.
    Status,
}

impl Part {
    /// All of them.
    pub const ALL: [Self; 7] = [Self::Data, Self::Provision, Self::SelfTest, Self::Clock, Self::Update, Self::Slots, Self::Status];

    /// The file in the state folder.
    pub const fn file_name(self) -> &'static str {
        match self {
            Self::Data => "data.json",
            Self::Provision => "provision.json",
            Self::SelfTest => "self-test.json",
            Self::Clock => "clock.json",
            Self::Update => "update.json",
            Self::Slots => "slots.json",
            Self::Status => "status.json",
        }
    }
}

/// Largest state file, in bytes; a larger one is not read.
pub const STATE_BYTES_MAX: u64 = 64 * 1024;
/// Most facts of a part that are shown.
pub const FACTS_MAX: usize = 64;

/// What a part says: its word, and a text without patient data and secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartState {
    /// The condition.
    pub word: StateWord,
    /// Number of the reason, where the word has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<u16>,
    /// For a person: reason and remedy; empty where the word says all.
    #[serde(default)]
    pub detail: String,
    /// When it began, in Unix milliseconds by the clock of that moment.
    pub since_unix_ms: i64,
    /// What else the part has to show on the status page, flat.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub facts: std::collections::BTreeMap<String, String>,
}
