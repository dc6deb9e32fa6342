//! Test support: an EHR with faults, proxies, oracles.
