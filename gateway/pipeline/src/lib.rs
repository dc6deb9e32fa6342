//! Admit, batch, retry and settle as state machines.
