//! What the technician sees: the state word on the console, and a read-only page over HTTPS.
//!
//! An unprivileged process that only reads: the state files of the appliance's parts, the daemon's
//! loopback status, the release file, the interfaces. It asks them once every few seconds, renders
//! everything at once, and serves what it rendered: a visitor costs a handshake and nothing more.
//! Nothing here carries a reading, a patient or a secret.

#![forbid(unsafe_code)]

pub mod arguments;
mod certificate;
mod console;
pub mod daemon;
mod led;
pub mod machine;
#[cfg(test)]
mod manual;
mod notify;
pub mod page;
pub mod parts;
pub mod run;
mod screen;
mod serve;
pub mod snapshot;
mod text;
mod turnstile;
pub mod word;
