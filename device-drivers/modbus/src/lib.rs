//! The Modbus poller.
