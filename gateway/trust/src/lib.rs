//! TLS profiles, local certificate authority, identities and keys.
