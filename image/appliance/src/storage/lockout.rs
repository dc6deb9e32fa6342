//! Keeps the TPM from locking itself after power cuts.
//!
//! A TPM counts every power cut that follows the use of a sealed object as a possible guess, and at a
//! number that its maker chose (3 for some) opens nothing for a quarter of an hour or longer (Trusted
//! Platform Module Library, part 1, section 19.8 "Dictionary attack protection"). What this appliance
//! seals has no password that could be guessed, only a policy. So every start forgets the count, and
//! lets the TPM wait for many more.

use crate::places::Places;
use crate::tpm::{Device, TpmError, ask_as, open};

/// Power cuts without a start in between that got this far; each start forgets them.
const TRIES_MAX: u32 = 1000;
/// After which time the TPM forgets one try by itself, in seconds.
const FORGETS_AFTER_S: u32 = 10;
/// How long the TPM refuses the owner of the lockout after a wrong password, in seconds.
const OWNER_WAITS_S: u32 = 10;
/// `TPM_CC_DictionaryAttackLockReset` (part 2, section 6.5.2).
const LOCK_RESET: u32 = 0x0000_0139;
/// `TPM_CC_DictionaryAttackParameters`.
const PARAMETERS: u32 = 0x0000_013A;
/// `TPM_RH_LOCKOUT`.
const LOCKOUT: u32 = 0x4000_000A;

/// Why the TPM still counts.
#[derive(Debug, thiserror::Error)]
pub(super) enum LockoutError {
    /// It refused.
    #[error(
        "the TPM keeps its count of power cuts (it answers {0:#x}); clear it in the firmware: after several power cuts it may ask for the recovery key"
    )]
    Refused(u32),
    /// It did not answer, or something else.
    #[error(transparent)]
    Tpm(TpmError),
}

/// Makes the TPM forget the power cuts so far. A machine without a TPM has nothing to forget.
///
/// # Errors
/// When the TPM refuses: somebody else owns its lockout.
pub(super) fn lift(places: &Places) -> Result<(), LockoutError> {
    let told = |error| match error {
        TpmError::Refused(code) => LockoutError::Refused(code),
        other => LockoutError::Tpm(other),
    };
    match open(places).map_err(told)? {
        Some(mut device) => forgive(&mut *device).map_err(told),
        None => Ok(()),
    }
}

fn forgive(device: &mut dyn Device) -> Result<(), TpmError> {
    let parameters = [TRIES_MAX, FORGETS_AFTER_S, OWNER_WAITS_S].map(u32::to_be_bytes).concat();
    ask_as(device, LOCKOUT, LOCK_RESET, &[])?;
    ask_as(device, LOCKOUT, PARAMETERS, &parameters)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tpm::software::SoftwareTpm;

    /// After a few power cuts a TPM opens nothing; lifting the lockout, it opens what it sealed, and
    /// does so after many more.
    #[test]
    fn power_cuts_do_not_lock_what_is_sealed() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        std::fs::write(at("secret"), "sealed").unwrap();
        let (parent, public, private, sealed) = (at("parent"), at("public"), at("private"), at("sealed"));
        let powered = || SoftwareTpm::in_place(folder.path());
        let (first, places) = powered();
        first.run("tpm2_createprimary", &["-Q", "-c", &parent]);
        first.run("tpm2_create", &["-Q", "-C", &parent, "-i", &at("secret"), "-u", &public, "-r", &private]);
        drop(first);
        let opens = |tpm: &SoftwareTpm| {
            tpm.run("tpm2_createprimary", &["-Q", "-c", &parent]);
            // No resource manager stands before this TPM: it has room for three objects.
            tpm.run("tpm2_flushcontext", &["-t"]);
            let loaded = tpm.tool("tpm2_load", &["-Q", "-C", &parent, "-u", &public, "-r", &private, "-c", &sealed]);
            tpm.run("tpm2_flushcontext", &["-t"]);
            loaded.status.success() && tpm.tool("tpm2_unseal", &["-c", &sealed]).stdout == b"sealed"
        };
        let cuts_until_locked = (1..=8).find(|_| !opens(&powered().0));
        assert!(cuts_until_locked.is_some_and(|cuts| cuts > 1), "this TPM does not lock: {cuts_until_locked:?}");

        for cut in 0..8 {
            let (tpm, _) = powered();
            lift(&places).unwrap();
            assert!(opens(&tpm), "locked after {cut} more power cuts");
        }
    }

    /// Somebody else's TPM refuses, and the error says what that means.
    #[test]
    fn a_tpm_with_another_owner_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let (tpm, places) = SoftwareTpm::in_place(folder.path());
        tpm.run("tpm2_changeauth", &["-c", "lockout", "another"]);
        let told = lift(&places).unwrap_err();
        assert!(matches!(told, LockoutError::Refused(_)) && told.to_string().contains("recovery key"), "{told}");
    }
}
