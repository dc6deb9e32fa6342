//! The port through which the store has its data keys wrapped.

/// Why a key could not be wrapped or unwrapped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyWrapError {
    /// The wrapped key does not belong to this key-encryption key, or was altered.
    #[error("the wrapped key does not open with this gateway's key-encryption key")]
    DoesNotOpen,
    /// The key-encryption key cannot be used.
    #[error("the key-encryption key cannot be used: {0}")]
    Unavailable(String),
}

/// Wraps the store's data keys with a key that lives elsewhere: a file, a systemd credential, a TPM.
pub trait KeyWrap: Send + Sync {
    /// Wraps a 32-byte data key; the result is at most 256 bytes and carries its own integrity.
    ///
    /// # Errors
    /// When the key-encryption key cannot be used.
    fn wrap(&self, data_key: &[u8; 32]) -> Result<Vec<u8>, KeyWrapError>;

    /// Gives back what [`KeyWrap::wrap`] took.
    ///
    /// # Errors
    /// When it was altered, belongs to another key, or the key-encryption key cannot be used.
    fn unwrap(&self, wrapped: &[u8]) -> Result<[u8; 32], KeyWrapError>;
}
