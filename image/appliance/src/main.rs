//! The appliance's privileged steps: sealed storage, provisioning, updates, health gate, support, reset.

#![forbid(unsafe_code)]

fn main() {}
