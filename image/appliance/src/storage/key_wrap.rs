//! The daemon's key-encryption key: for the daemon a credential that only this machine's TPM opens,
//! and beside it a copy that only the recovery key opens, since readings must outlive a TPM.

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use aws_lc_rs::rand;
use vitalgate_layout::path;
use zeroize::Zeroizing;

use super::StorageError;
use super::recovery_key::RecoveryKey;
use super::tpm;
use super::volume::{LITERAL_PCRS, SIGNED_PCRS};
use crate::command::{Call, Programs};
use crate::places::Places;

/// What to do where only the service manager's own rule speaks against a credential without a seal.
const REFUSED_REMEDY: &str = "the TPM is there and refuses to seal: clear it in the firmware, or switch it off, and start again";
const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 12;
const CONTEXT: &[u8] = b"vitalgate key-encryption key under the recovery key 1";

/// The key; wiped when dropped.
pub(super) struct KeyEncryptionKey(Zeroizing<[u8; KEY_BYTES]>);

impl KeyEncryptionKey {
    /// A new key.
    pub(super) fn generate() -> Result<Self, StorageError> {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        rand::fill(bytes.as_mut_slice()).map_err(|_| StorageError::NoRandomness)?;
        Ok(Self(bytes))
    }

    /// The credential for the daemon.
    pub(super) fn credential(&self, programs: &dyn Programs, places: &Places, sealed: bool) -> Result<Vec<u8>, StorageError> {
        let digits: Zeroizing<String> = Zeroizing::new(self.0.iter().map(|byte| format!("{byte:02x}")).collect());
        credential(programs, places, path::KEY_CREDENTIAL_NAME, digits.as_bytes(), sealed)
    }

    /// The copy for the recovery key.
    pub(super) fn wrapped(&self, recovery: &RecoveryKey) -> Result<Vec<u8>, StorageError> {
        wrap(CONTEXT, self.0.as_slice(), recovery)
    }

    /// Opens the copy.
    pub(super) fn unwrap(wrapped: &[u8], recovery: &RecoveryKey) -> Result<Self, StorageError> {
        let opened = unwrap(CONTEXT, wrapped, recovery)?;
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        if opened.len() != KEY_BYTES {
            return Err(StorageError::CopyDamaged);
        }
        bytes.copy_from_slice(&opened);
        Ok(Self(bytes))
    }
}

/// A secret as a credential for `LoadCredentialEncrypted=`. Without a seal it is only obscured (by a key of
/// zeros): the site file's signer has allowed that then, or storage opens by the recovery key only.
pub(crate) fn credential(
    programs: &dyn Programs,
    places: &Places,
    name: &str,
    secret: &[u8],
    sealed: bool,
) -> Result<Vec<u8>, StorageError> {
    let call = || {
        let call = Call::new("systemd-creds", "the TPM refuses to seal: switch it on in the firmware and start again")
            .arguments(["encrypt", &format!("--name={name}")]);
        let call = if sealed {
            call.arguments(["--with-key=tpm2", "--tpm2-device=auto"])
                .arguments([format!("--tpm2-pcrs={LITERAL_PCRS}"), format!("--tpm2-public-key-pcrs={SIGNED_PCRS}")])
                .arguments([format!("--tpm2-public-key={}", places.at(path::PCR_PUBLIC_KEY).display())])
                .arguments([format!("--tpm2-signature={}", places.at(path::PCR_SIGNATURE).display())])
        } else {
            call.arguments(["--with-key=tpm2-absent"])
        };
        call.arguments(["-", "-"]).input(secret)
    };
    let made = tpm::ask(programs, &call).map_err(StorageError::NotSealed)?.output;
    if !sealed {
        check_taken(programs, name, &made)?;
    }
    Ok(made)
}

/// Whether the service manager opens a credential without a seal: under Secure Boot it does so only where the firmware
/// has no TPM. The program asks the same question in the same way.
pub(super) fn check_taken(programs: &dyn Programs, name: &str, credential: &[u8]) -> Result<(), StorageError> {
    let call = || Call::new("systemd-creds", REFUSED_REMEDY).arguments(["decrypt", &format!("--name={name}"), "-", "-"]).input(credential);
    let opened = tpm::ask(programs, &call);
    opened.map(|answer| drop(Zeroizing::new(answer.output))).map_err(StorageError::NotSealed)
}

/// A secret for the recovery key: nonce, secret, tag. `context` says what it is, so that no copy passes as another.
pub(crate) fn wrap(context: &[u8], secret: &[u8], recovery: &RecoveryKey) -> Result<Vec<u8>, StorageError> {
    let mut sealed = Zeroizing::new(secret.to_vec());
    let nonce = derived(context, recovery)?.seal_in_place_append_tag(Aad::from(context), &mut *sealed);
    let nonce = nonce.map_err(|_| StorageError::NoRandomness)?;
    Ok([nonce.as_ref().as_slice(), sealed.as_slice()].concat())
}

/// Opens what [`wrap`] made.
pub(crate) fn unwrap(context: &[u8], wrapped: &[u8], recovery: &RecoveryKey) -> Result<Zeroizing<Vec<u8>>, StorageError> {
    let (nonce, sealed) = wrapped.split_at_checked(NONCE_BYTES).ok_or(StorageError::CopyDamaged)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| StorageError::CopyDamaged)?;
    let mut sealed = Zeroizing::new(sealed.to_vec());
    let opened = derived(context, recovery)?.open_in_place(nonce, Aad::from(context), &mut sealed);
    let opened = opened.map_err(|_| StorageError::CopyDamaged)?;
    Ok(Zeroizing::new(opened.to_vec()))
}

/// The key that wraps, made from the recovery key (HKDF, RFC 5869).
fn derived(context: &[u8], recovery: &RecoveryKey) -> Result<RandomizedNonceKey, StorageError> {
    let mut bytes = Zeroizing::new([0; KEY_BYTES]);
    let filled = Salt::new(HKDF_SHA256, &[])
        .extract(recovery.bytes())
        .expand(&[context], HKDF_SHA256)
        .and_then(|expanded| expanded.fill(bytes.as_mut_slice()));
    filled.map_err(|_| StorageError::NoRandomness)?;
    RandomizedNonceKey::new(&AES_256_GCM, bytes.as_slice()).map_err(|_| StorageError::NoRandomness)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The copy opens with its recovery key and with no other; a flipped bit is damage.
    #[test]
    fn the_copy_opens_with_its_recovery_key_only() {
        let recovery = RecoveryKey::generate().unwrap();
        let key = KeyEncryptionKey::generate().unwrap();
        let wrapped = key.wrapped(&recovery).unwrap();
        assert_eq!(KeyEncryptionKey::unwrap(&wrapped, &recovery).unwrap().0, key.0);
        assert!(KeyEncryptionKey::unwrap(&wrapped, &RecoveryKey::generate().unwrap()).is_err());
        for at in 0..wrapped.len() {
            let mut flipped = wrapped.clone();
            flipped[at] ^= 1;
            assert!(KeyEncryptionKey::unwrap(&flipped, &recovery).is_err(), "byte {at}");
        }
        assert!(KeyEncryptionKey::unwrap(&wrapped[1..], &recovery).is_err());
    }
}
