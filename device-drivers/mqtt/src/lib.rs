//! The MQTT endpoint that devices publish to.
