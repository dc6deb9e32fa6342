//! The signed site file: its text, its check, its signature, and what the appliance makes of it.
//!
//! [`SiteFile::check`] says everything that is wrong with a text at once; [`sign`] signs only a text
//! that passes; [`open_signed`] is the only way in on the appliance and refuses with a number of the
//! manual ([`vitalgate_layout::Rejection`]). What is rendered from a [`Site`] is text: nothing here
//! touches a disk, a clock or a network.

#![forbid(unsafe_code)]

pub mod age;
mod check;
mod day;
mod error;
mod hosts;
mod key;
mod network;
mod notes;
mod passage;
mod reader;
mod refusal;
mod render;
mod report;
mod request;
pub mod schema;
mod secrets;
mod signature;
mod signed;
mod site;
mod successor;
mod window;

pub use day::Day;
pub use error::SiteError;
pub use hosts::Endpoint;
pub use key::{KeyError, PublicKey, SigningKey};
pub use network::{Network, Port, Prefix};
pub use refusal::SiteRefusal;
pub use render::{
    OwnCertificate, Places, extra_files, render_daemon_config, render_daemon_config_in, render_firewall, render_network, render_time,
};
pub use report::{REPORT_BYTES_MAX, Report, ReportError, open_report, seal_report_json, seal_report_text};
pub use request::{Action, Discard, Request, check_request, open_request, sign_request};
pub use signature::{Delegation, Purpose, SignElsewhere, SignedBy, Signer};
pub use signed::{SignError, open_for_any_serial, open_signed, sign};
pub use site::{Authority, Mqtt, Serial, Site, SiteFile, Storage, Time, Update};
pub use vitalgate_domain::DeadLetterSelector;
pub use window::Window;
