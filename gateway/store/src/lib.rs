//! The outbox: journal and keyed store.
