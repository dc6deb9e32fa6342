//! The read-only status page over HTTPS and the state word on the console.

#![forbid(unsafe_code)]

fn main() {}
