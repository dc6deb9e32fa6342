//! Devices that replay real recordings over MQTT and Modbus.
