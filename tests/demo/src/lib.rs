//! The demonstration: devices, an EHR, an outage and the proof.
