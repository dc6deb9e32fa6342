//! Devices that replay real recordings over real MQTT and Modbus, and a load generator.
//!
//! The product does not depend on this crate. A monitor here behaves as a careful device does: it
//! keeps what was not acknowledged and sends it again, for ever.

#![forbid(unsafe_code)]

pub mod connection;
pub mod load;
pub mod message;
pub mod modbus;
pub mod monitor;
pub mod protocol;
pub mod recording;
pub mod replay;

pub use connection::{ConnectError, Transport};
pub use load::{Load, LoadError, LoadPayload, LoadReport};
pub use message::{Message, StatedReading, TimeSeries};
pub use modbus::{ModbusFault, ModbusMonitor, ReadSet, SERVED_METRICS, ServedSet};
pub use monitor::{Acknowledged, MonitorReport, MqttMonitor};
pub use protocol::ProtocolVersion;
pub use recording::{ChartedSet, ChartedValue, Recording, RecordingError};
pub use replay::Replay;
