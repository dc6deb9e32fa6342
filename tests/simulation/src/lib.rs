//! A seeded simulation of the pipeline with a virtual clock.
//!
//! The real [`vitalgate_pipeline::Admission`] and [`vitalgate_pipeline::Delivery`] run against a model
//! of the journal, devices that resend, and a destination that misbehaves in every way that issue
//! trackers know of. The gateway is killed at random moments; what was durable is all that it keeps.
//! At the end an oracle compares what was acknowledged with what the destination holds, and asks of
//! everything that was held back whether it had a cause.
//!
//! A run is a function of its seed alone.

#![forbid(unsafe_code)]
// A test tool: a name that is wrong here is a mistake in the test, and says so.
#![allow(clippy::expect_used)]

mod destination;
mod device;
mod journal;
mod oracle;
mod sent;
mod world;

pub use oracle::Verdict;
pub use world::{Scenario, run};
