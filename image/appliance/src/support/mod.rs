//! The support bundle.
