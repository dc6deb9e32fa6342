//! What is wrong with a text, line by line: told as of the daemon's configuration.

pub use vitalgate_config::ConfigError as SiteError;
pub(crate) use vitalgate_config::Report as Findings;
