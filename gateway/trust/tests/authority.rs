//! The authority is made once, heals, and is never replaced behind anybody's back.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a helper of tests fails loudly")]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use vitalgate_domain::{DeviceId, GatewayId};
use vitalgate_trust::{AuthorityError, LocalAuthority, SealedError, device_identity};

fn open(folder: &Path) -> Result<LocalAuthority, AuthorityError> {
    LocalAuthority::open_or_create(folder, &GatewayId::new("practice-01").unwrap())
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn opened_again_it_is_the_same_authority_and_only_its_owner_can_read_the_key() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("a/b");
    let first = open(&folder).unwrap().ca_certificate_pem().to_owned();
    assert_eq!(open(&folder).unwrap().ca_certificate_pem(), first);
    assert_eq!(fs::read_to_string(folder.join("ca.crt")).unwrap(), first);
    assert!(!first.contains("PRIVATE"));
    open(&folder).unwrap().issue_server(&names(&["localhost"])).unwrap();
    for secret in ["authority.pem", "authority.pem.copy", "server.pem"] {
        assert_eq!(fs::metadata(folder.join(secret)).unwrap().permissions().mode() & 0o777, 0o600, "{secret}");
    }
    assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn damage_to_either_copy_heals_and_damage_to_both_makes_no_new_authority() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let whole = open(folder).unwrap().ca_certificate_pem().to_owned();
    let sound = fs::read(folder.join("authority.pem")).unwrap();
    for (file, other) in [("authority.pem", "authority.pem.copy"), ("authority.pem.copy", "authority.pem")] {
        for at in (0..sound.len()).step_by(7) {
            let mut damaged = sound.clone();
            damaged[at] ^= 1 << (at % 8);
            fs::write(folder.join(file), damaged).unwrap();
            let opened = open(folder).unwrap();
            assert_eq!(opened.ca_certificate_pem(), whole, "byte {at} of {file}");
            assert_eq!(opened.healed(), Some(folder.join(file).as_path()));
            assert_eq!(fs::read(folder.join(file)).unwrap(), sound, "{file} is whole again");
        }
        fs::remove_file(folder.join(file)).unwrap();
        assert_eq!(open(folder).unwrap().ca_certificate_pem(), whole);
        fs::write(folder.join(file), b"x").unwrap();
        fs::write(folder.join(other), b"").unwrap();
        let error = open(folder).unwrap_err();
        assert!(matches!(error, AuthorityError::Sealed(SealedError::Damaged { .. })), "{error:?}");
        assert!(error.to_string().contains("authority.pem") && error.to_string().contains("backup"), "{error}");
        assert_eq!(fs::read(folder.join(file)).unwrap(), b"x", "what is damaged stays for whoever repairs it");
        fs::write(folder.join(file), &sound).unwrap();
        fs::write(folder.join(other), &sound).unwrap();
    }
}

#[test]
fn two_authorities_in_one_folder_are_a_question_for_a_person() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    open(one.path()).unwrap();
    open(two.path()).unwrap();
    fs::copy(two.path().join("authority.pem"), one.path().join("authority.pem.copy")).unwrap();
    let error = open(one.path()).unwrap_err();
    assert!(matches!(error, AuthorityError::Sealed(SealedError::Differ { .. })), "{error:?}");
}

#[test]
fn many_processes_that_open_it_first_get_one_authority() {
    let folder = tempfile::tempdir().unwrap();
    let made: BTreeSet<String> = std::thread::scope(|scope| {
        let open_one = || scope.spawn(|| open(folder.path()).unwrap().ca_certificate_pem().to_owned());
        let opened: Vec<_> = (0..8).map(|_| open_one()).collect();
        opened.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(made.len(), 1);
}

#[test]
fn the_server_certificate_stays_until_its_names_change_or_it_is_damaged() {
    let folder = tempfile::tempdir().unwrap();
    let authority = open(folder.path()).unwrap();
    let first = authority.issue_server(&names(&["gateway.local", "192.0.2.7", "2001:db8::1"])).unwrap();
    assert!(first.reissued);
    let again = open(folder.path()).unwrap().issue_server(&names(&["2001:DB8:0::1", "GATEWAY.local", "192.0.2.7"])).unwrap();
    assert!(!again.reissued, "another order and spelling are the same names");
    assert_eq!(again.chain, first.chain);

    let more = authority.issue_server(&names(&["gateway.local", "192.0.2.8"])).unwrap();
    assert!(more.reissued);
    let path = folder.path().join("server.pem");
    let sound = fs::read(&path).unwrap();
    for damaged in [&sound[..sound.len() / 2], b"", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        fs::write(&path, damaged).unwrap();
        let renewed = authority.issue_server(&names(&["gateway.local", "192.0.2.8"])).unwrap();
        assert!(renewed.reissued);
    }
    let stranger = tempfile::tempdir().unwrap();
    open(stranger.path()).unwrap().issue_server(&names(&["gateway.local", "192.0.2.8"])).unwrap();
    fs::copy(stranger.path().join("server.pem"), &path).unwrap();
    assert!(authority.issue_server(&names(&["gateway.local", "192.0.2.8"])).unwrap().reissued, "another authority's is not ours");
}

#[test]
fn a_name_that_no_certificate_carries_leaves_the_certificate_in_use_alone() {
    let folder = tempfile::tempdir().unwrap();
    let authority = open(folder.path()).unwrap();
    authority.issue_server(&names(&["gateway.local"])).unwrap();
    let in_use = fs::read(folder.path().join("server.pem")).unwrap();
    for wrong in [names(&["no good"]), names(&["gateway.local", ""]), names(&["a..b"]), Vec::new()] {
        assert!(authority.issue_server(&wrong).is_err(), "{wrong:?}");
        assert_eq!(fs::read(folder.path().join("server.pem")).unwrap(), in_use);
    }
}

#[test]
fn a_damaged_certificate_names_no_device_or_the_same_and_never_panics() {
    let folder = tempfile::tempdir().unwrap();
    let device = open(folder.path()).unwrap().issue_device(&DeviceId::new("monitor-01").unwrap()).unwrap();
    assert!(!format!("{device:?}").contains("PRIVATE KEY"), "the key is printed nowhere");
    let der = rustls::pki_types::pem::PemObject::from_pem_slice(device.certificate_pem.as_bytes())
        .map(|der: rustls::pki_types::CertificateDer<'static>| der.to_vec())
        .unwrap();
    let (id, fingerprint) = device_identity(&der).unwrap();
    assert_eq!((id.as_str(), fingerprint), ("monitor-01", device.fingerprint));
    for at in 0..der.len() {
        for bit in 0..8 {
            let mut damaged = der.clone();
            damaged[at] ^= 1 << bit;
            if let Some((_, shown)) = device_identity(&damaged) {
                assert_ne!(shown, device.fingerprint, "byte {at}");
            }
        }
        assert!(device_identity(&der[..at]).is_none(), "{at} bytes");
    }
    assert!(device_identity(&[der.as_slice(), b"x"].concat()).is_none(), "something after the certificate");
}

/// `sudo vitalgate device add` must not leave files that the gateway's own user cannot read.
#[test]
fn what_root_writes_belongs_to_the_owner_of_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let _only_root_can = std::os::unix::fs::chown(folder.path(), Some(54_321), Some(54_321));
    let owner = fs::metadata(folder.path()).unwrap().uid();
    let inner = folder.path().join("authority");
    open(&inner).unwrap().issue_server(&names(&["localhost"])).unwrap();
    for path in ["", "authority.pem", "authority.pem.copy", "server.pem", "ca.crt", ".lock"] {
        assert_eq!(fs::metadata(inner.join(path)).unwrap().uid(), owner, "{path}");
    }
}
