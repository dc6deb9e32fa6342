//! End-to-end tests of the whole daemon: a ward of devices, the gateway as a process, an EHR, and
//! an oracle that compares what was acknowledged with what arrived.

#![forbid(unsafe_code)]

pub mod programs;
pub mod site;
pub mod ward;

pub use site::{Publishers, Site};
pub use ward::{Ward, WardOptions};
