//! The commissioning report.
