//! HTTP delivery over TLS.
