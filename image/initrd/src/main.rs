//! The first program of the boot: finds the slot that fits the signed root hash, verifies it and hands over.

#![forbid(unsafe_code)]

fn main() {}
