//! The key-encryption key survives the loss of either copy and is never silently made anew.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a helper of tests fails loudly")]

use std::fs;
use std::os::unix::fs::PermissionsExt;

use vitalgate_domain::{KeyWrap, KeyWrapError};
use vitalgate_trust::{CredentialKeyWrap, FileKeyWrap, KeyFileError, SealedError};

const DATA_KEY: [u8; 32] = [0x42; 32];

#[test]
fn damage_at_any_byte_of_either_copy_heals_and_the_stored_keys_still_open() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kek");
    let copy = folder.path().join("kek.copy");
    let wrapped = FileKeyWrap::open_or_create(&path).unwrap().wrap(&DATA_KEY).unwrap();
    let sound = fs::read(&path).unwrap();
    assert_eq!(fs::read(&copy).unwrap(), sound);
    for file in [&path, &copy] {
        for at in 0..sound.len() {
            let mut damaged = sound.clone();
            damaged[at] ^= 1 << (at % 8);
            for damaged in [damaged.as_slice(), &sound[..at]] {
                fs::write(file, damaged).unwrap();
                let opened = FileKeyWrap::open_or_create(&path).unwrap();
                assert_eq!(opened.healed(), Some(file.as_path()), "byte {at}");
                assert_eq!(opened.unwrap(&wrapped), Ok(DATA_KEY));
                assert_eq!(fs::read(file).unwrap(), sound, "byte {at} is whole again");
            }
        }
    }
    assert_eq!(FileKeyWrap::open_or_create(&path).unwrap().healed(), None);
}

#[test]
fn with_both_copies_damaged_or_different_there_is_an_error_and_no_new_key() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kek");
    let copy = folder.path().join("kek.copy");
    FileKeyWrap::open_or_create(&path).unwrap();
    let sound = fs::read(&path).unwrap();
    for (first, second) in [(Some(&b"x"[..]), Some(&b"y"[..])), (Some(b""), None), (None, Some(b""))] {
        for (file, bytes) in [(&path, first), (&copy, second)] {
            let _ = fs::remove_file(file);
            if let Some(bytes) = bytes {
                fs::write(file, bytes).unwrap();
            }
        }
        let error = FileKeyWrap::open_or_create(&path).unwrap_err();
        assert!(matches!(error, KeyFileError::Sealed(SealedError::Damaged { .. })), "{error:?}");
        assert!(error.to_string().contains("restore"), "{error}");
        assert_eq!(fs::read(&path).ok().as_deref(), first);
    }
    fs::write(&path, &sound).unwrap();
    let other = folder.path().join("other");
    FileKeyWrap::open_or_create(&other).unwrap();
    fs::copy(&other, &copy).unwrap();
    let error = FileKeyWrap::open_or_create(&path).unwrap_err();
    assert!(matches!(error, KeyFileError::Sealed(SealedError::Differ { .. })), "{error:?}");
}

#[test]
fn a_key_that_must_be_there_is_not_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys/kek");
    assert!(matches!(FileKeyWrap::open(&path), Err(KeyFileError::Missing(_))));
    let wrapped = FileKeyWrap::open_or_create(&path).unwrap().wrap(&DATA_KEY).unwrap();
    fs::remove_file(&path).unwrap();
    assert_eq!(FileKeyWrap::open(&path).unwrap().unwrap(&wrapped), Ok(DATA_KEY), "the copy is enough");
    fs::remove_file(&path).unwrap();
    fs::remove_file(folder.path().join("keys/kek.copy")).unwrap();
    let error = FileKeyWrap::open(&path).unwrap_err();
    assert!(matches!(error, KeyFileError::Missing(_)) && error.to_string().contains("backup"), "{error}");
    assert!(!path.exists());
}

#[test]
fn a_wrapped_key_opens_with_its_own_key_only_and_not_when_altered() {
    let folder = tempfile::tempdir().unwrap();
    let one = FileKeyWrap::open_or_create(&folder.path().join("one")).unwrap();
    let two = FileKeyWrap::open_or_create(&folder.path().join("two")).unwrap();
    let wrapped = one.wrap(&DATA_KEY).unwrap();
    assert!(wrapped.len() <= 256, "the store keeps at most that");
    assert_ne!(one.wrap(&DATA_KEY).unwrap(), wrapped, "a nonce is never used twice");
    assert_eq!(one.unwrap(&wrapped), Ok(DATA_KEY));
    assert_eq!(two.unwrap(&wrapped), Err(KeyWrapError::DoesNotOpen));
    for at in 0..wrapped.len() {
        let mut altered = wrapped.clone();
        altered[at] ^= 1;
        assert_eq!(one.unwrap(&altered), Err(KeyWrapError::DoesNotOpen), "byte {at}");
        assert_eq!(one.unwrap(&wrapped[..at]), Err(KeyWrapError::DoesNotOpen), "{at} bytes");
    }
}

#[test]
fn the_key_file_is_for_its_owner_only_and_the_key_is_printed_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kek");
    let wrap = FileKeyWrap::open_or_create(&path).unwrap();
    for file in ["kek", "kek.copy"] {
        assert_eq!(fs::metadata(folder.path().join(file)).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let text = fs::read_to_string(&path).unwrap();
    let key = text.lines().nth(1).unwrap();
    assert_eq!(key.len(), 64);
    assert!(!format!("{wrap:?}").contains(key));
}

#[test]
fn a_leftover_of_an_interrupted_write_is_no_obstacle() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kek");
    fs::write(folder.path().join("kek.new"), b"torn").unwrap();
    let wrapped = FileKeyWrap::open_or_create(&path).unwrap().wrap(&DATA_KEY).unwrap();
    fs::write(folder.path().join("kek.copy.new"), b"torn").unwrap();
    fs::remove_file(folder.path().join("kek.copy")).unwrap();
    assert_eq!(FileKeyWrap::open_or_create(&path).unwrap().unwrap(&wrapped), Ok(DATA_KEY));
    assert!(folder.path().join("kek.copy").exists());
}

#[test]
fn a_credential_may_be_a_copied_key_file_raw_bytes_or_their_digits() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kek");
    let file = FileKeyWrap::open_or_create(&path).unwrap();
    let wrapped = file.wrap(&DATA_KEY).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    let digits = text.lines().nth(1).unwrap();
    let raw: Vec<u8> = (0..32).map(|at| u8::from_str_radix(&digits[at * 2..at * 2 + 2], 16).unwrap()).collect();
    fs::write(folder.path().join("digits"), format!("{digits}\n")).unwrap();
    fs::write(folder.path().join("raw"), raw).unwrap();
    for name in ["kek", "digits", "raw"] {
        assert_eq!(CredentialKeyWrap::open_in(folder.path(), name).unwrap().unwrap(&wrapped), Ok(DATA_KEY), "{name}");
    }
    fs::write(folder.path().join("short"), &digits[1..]).unwrap();
    for (name, said) in [("short", "holds no key-encryption key"), ("absent", "LoadCredentialEncrypted")] {
        let error = CredentialKeyWrap::open_in(folder.path(), name).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
}
