//! The vitalgate daemon and its command line.
