//! Faults against the store: damage, power cuts, a full disk.
