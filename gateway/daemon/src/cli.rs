//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Where the configuration is looked for when none is named.
pub(crate) const CONFIGURATION_DEFAULT: &str = "/etc/vitalgate/vitalgate.toml";

/// The edge gateway that carries vital signs from devices to the patient's record.
#[derive(Debug, Parser)]
#[command(name = "vitalgate", version)]
pub(crate) struct Arguments {
    /// The configuration file.
    #[arg(long, short, global = true, default_value = CONFIGURATION_DEFAULT)]
    pub(crate) config: PathBuf,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the gateway in the foreground.
    Run,
    /// Check the configuration and say every error at once.
    Check,
    /// Ask the running gateway how it is.
    Status {
        /// Answer as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Ask where a reading is: by its id, or by its device and moment.
    Trace {
        /// The reading's id, as the EHR shows it in the Observation's identifier. Of a blood pressure the ids of its components find
        /// the parts in any case, its own id where that was noted; otherwise ask by --device and --at.
        reading_id: Option<String>,
        /// The device.
        #[arg(long, requires = "at", conflicts_with = "reading_id")]
        device: Option<String>,
        /// The moment, RFC 3339 with offset, for example 2026-11-22T10:00:00+01:00.
        #[arg(long, requires = "device")]
        at: Option<String>,
        /// Seconds before and after the moment to look in.
        #[arg(long, default_value_t = 60)]
        window_s: u64,
        /// Answer as JSON.
        #[arg(long)]
        json: bool,
    },
    /// What could not be delivered or understood.
    DeadLetters {
        /// What to do with them.
        #[command(subcommand)]
        action: DeadLetterAction,
    },
    /// Devices and their credentials.
    Device {
        /// What to do with them.
        #[command(subcommand)]
        action: DeviceAction,
    },
    /// The store on disk; the gateway must not be running.
    Store {
        /// What to do with it.
        #[command(subcommand)]
        action: StoreAction,
    },
}

/// What to do with dead letters.
#[derive(Debug, Subcommand)]
pub(crate) enum DeadLetterAction {
    /// List the newest.
    List {
        /// Answer as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Decode, admit and send them again.
    Replay {
        /// Their sequences; none means all.
        sequences: Vec<u64>,
    },
    /// Keep them on record as discarded.
    Discard {
        /// Their sequences; otherwise say which ones by kind, device or moment, or all.
        #[arg(required_unless_present_any = ["kind", "device", "before", "all"])]
        #[arg(conflicts_with_all = ["kind", "device", "before", "all", "count", "json"])]
        sequences: Vec<u64>,
        /// Which ones, where no sequences are given.
        #[command(flatten)]
        named: Named,
        /// Only say how many they would be.
        #[arg(long)]
        count: bool,
        /// Who wants it; `trace` shows it.
        #[arg(long)]
        by: Option<String>,
        /// Answer as JSON.
        #[arg(long)]
        json: bool,
        /// Seconds after which it ends with what was done until then. For the appliance's own use.
        #[arg(long, hide = true)]
        within_s: Option<u64>,
    },
}

/// Which dead letters: those that are all that is given here.
#[derive(Debug, Args)]
pub(crate) struct Named {
    /// Those of this kind, for example Undecodable.
    #[arg(long)]
    pub(crate) kind: Option<String>,
    /// Those of this device.
    #[arg(long)]
    pub(crate) device: Option<String>,
    /// Those received before this day (UTC) or moment, for example 2026-11-22 or 2026-11-22T10:00:00+01:00.
    #[arg(long)]
    pub(crate) before: Option<String>,
    /// All of them.
    #[arg(long, conflicts_with_all = ["kind", "device", "before"])]
    pub(crate) all: bool,
}

/// What to do with devices.
#[derive(Debug, Subcommand)]
pub(crate) enum DeviceAction {
    /// Admit a device and print its credentials, this once.
    Add {
        /// The device's name: 1 to 64 characters of A-Z, a-z, 0-9, '.', '_' and '-'.
        device: String,
        /// Write certificate.pem, key.pem and ca.pem into this folder instead of printing them.
        #[arg(long)]
        output_dir: Option<PathBuf>,
        /// Take back every certificate and the password that it has; without this the new certificate is good beside those.
        #[arg(long)]
        replace: bool,
    },
    /// List the admitted devices.
    List,
    /// Take a device's credentials back; it is disconnected within seconds.
    Revoke {
        /// The device's name.
        device: String,
    },
}

/// What to do with the store.
#[derive(Debug, Subcommand)]
pub(crate) enum StoreAction {
    /// Read everything, mend what the other copy can mend, and report.
    Check,
    /// Sizes, sequences, and when the oldest entry was received.
    Stats,
    /// Write every stored entry as JSON lines. The file holds patient data.
    Export {
        /// The file to make; it must not exist.
        file: PathBuf,
    },
    /// Open the keyed copy in this process and say whether that went well. For the daemon's own use.
    #[command(hide = true)]
    Probe {
        /// What to look at.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<std::ffi::OsString>,
    },
}
