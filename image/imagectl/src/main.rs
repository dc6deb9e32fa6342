//! The technician's tool on the host: verify, flash, provision, bundle, report.

#![forbid(unsafe_code)]

fn main() {}
