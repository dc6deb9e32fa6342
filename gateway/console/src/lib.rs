//! Health, metrics and the local read model.
