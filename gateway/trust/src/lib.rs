//! Trust: who may speak to this gateway, whom it speaks to, and the keys that prove it.
//!
//! The only crate that configures rustls. TLS 1.3 only, in both directions; the hybrid key
//! exchange X25519MLKEM768 is offered first. What must not be lost (the certificate authority, the
//! key-encryption key, the device registry) is kept in two sealed copies that heal each other.
//! Nothing here depends on a correct clock: see [`FLOOR_UNIX_S`].

#![forbid(unsafe_code)]

mod authority;
mod client;
mod clock;
mod file;
mod identity;
mod issue;
mod key_wrap;
mod password;
#[cfg(test)]
mod power_cut;
mod registry;
mod sealed;
mod secret;
mod self_signed;
mod tls;

pub use authority::{AuthorityError, DeviceCertificate, LocalAuthority, ServerCertificate};
pub use client::{CLIENT_CHAIN_MAX, ClientChain, ClientChainError, ClientIdentity, credential_file};
pub use clock::FLOOR_UNIX_S;
pub use file::FileError;
pub use identity::{device_identity, fingerprint};
pub use issue::IssueError;
pub use key_wrap::{CredentialKeyWrap, FileKeyWrap, KeyFileError};
pub use password::{PasswordHash, RandomError, generate_password};
pub use registry::{DeviceRegistry, RegisteredDevice, RegistryError};
pub use sealed::SealedError;
pub use secret::Secret;
pub use self_signed::{SelfSigned, SelfSignedError};
pub use tls::{
    ClientCertificate, ClientProfile, ServedCertificate, TlsError, client_config, plain_client_config, server_config, serving_config,
};

/// Lower-case hexadecimal.
fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Reads `N` bytes of lower-case hexadecimal.
fn unhex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let nibble = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    if text.len() != N * 2 {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        let [high, low] = pair else { return None };
        *byte = nibble(*high)? << 4 | nibble(*low)?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_reads_back_and_nothing_else_is_taken() {
        assert_eq!(unhex::<3>(hex(&[0, 0xab, 255]).as_bytes()), Some([0, 0xab, 255]));
        for bad in ["", "0", "00", "0g0000", "0A0000", "00000000"] {
            assert_eq!(unhex::<3>(bad.as_bytes()), None, "{bad}");
        }
    }
}
