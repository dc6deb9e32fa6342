//! Factory reset and decommissioning.
