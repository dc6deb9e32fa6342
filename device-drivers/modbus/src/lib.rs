//! The Modbus poller: one owner task per bus, which only ever reads.
//!
//! - Only the four read functions of Modbus are named here; there is no way to change a device.
//! - After a timeout, a protocol error or a cancelled request the connection is closed and opened
//!   anew, so that a late answer never meets the next question.
//! - A connection on which nothing is due for a while is closed and opened anew for the next poll: a firewall that forgot it
//!   meanwhile would swallow the question.
//! - A device that does not answer is asked less and less often, and all such devices together get a
//!   bounded share of the bus; the others keep their rhythm.
//! - What a device proved of its kind counts for a few seconds on one connection and not beyond a fault: behind a gateway
//!   another device may take its place while the connection stays.
//! - A poll counts when the commit says that its readings are on disk. A full intake queue stops the polling.

#![forbid(unsafe_code)]

mod bus;
mod config;
mod fault;
mod link;
mod schedule;
mod stats;

pub use bus::{Beacon, Clock, run_bus};
pub use config::{BusConfig, BusDevice, POLL_INTERVAL_MS_MIN, RESPONSE_TIMEOUT_MS_MIN};
pub use fault::PollFault;
pub use stats::{DeviceState, DeviceStatus, ModbusStats};
