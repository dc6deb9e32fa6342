//! Test support: an EHR with faults, the real daemon as a process, and an oracle that compares
//! what was acknowledged with what arrived.

#![forbid(unsafe_code)]

pub mod ehr;
mod firewall;
pub mod gateway;
pub mod http;
pub mod oracle;
pub mod pinned;
mod polls;
mod small_disk;
pub mod wait;

pub use ehr::{Ehr, EhrOptions, Fault, FaultMix, Poison};
pub use firewall::firewall_objections;
pub use gateway::{ConfigText, DeviceLine, GatewayProcess};
pub use oracle::{Expected, Oracle, Verdict};
pub use polls::Polls;
pub use small_disk::SmallDisk;
pub use wait::{free_port, wait_until};
