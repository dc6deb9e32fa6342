//! From the text of a configuration file to a checked configuration.
//!
//! [`check`] is the only way to a [`Config`], and says everything that is wrong at once: file, line,
//! what, and what to do. Keys, units, defaults and ranges stand in [`schema`]; `docs/configuration.md`
//! describes them, and a test keeps the two the same.

#![forbid(unsafe_code)]

mod address;
mod config;
mod destinations;
mod devices;
mod error;
mod load;
mod report;
pub mod schema;
mod section;
mod sections;
mod suggestion;

pub use address::{canonical_url, is_dns_name};
pub use config::{
    ClientCertificate, Config, Console, Destination, DestinationKind, Device, DeviceSource, Fhir, Gateway, Log, LogFormat, LogLevel,
    ModbusDevice, Mqtt, NO_DESTINATION, Places, Profiles, Store, WriteMode,
};
pub use error::ConfigError;
pub use load::{KnownProfiles, ProfileKind, ProfileLookup, check, check_with_profiles};
pub use report::Report;
