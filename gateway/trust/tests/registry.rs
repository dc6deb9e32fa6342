//! The registry says who may connect; what the command line changes the daemon follows.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a helper of tests fails loudly")]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use vitalgate_domain::DeviceId;
use vitalgate_trust::{DeviceRegistry, PasswordHash, RegistryError, generate_password};

fn id(text: &str) -> DeviceId {
    DeviceId::new(text).unwrap()
}

fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("devices.json");
    (folder, path)
}

fn open(path: &Path) -> DeviceRegistry {
    DeviceRegistry::open(path).unwrap()
}

#[test]
fn nobody_is_admitted_who_was_not_added_and_only_by_what_was_given() {
    let (_folder, path) = folder();
    let registry = open(&path);
    let (password, hash) = generate_password().unwrap();
    let word = password.expose().as_bytes();
    assert!(!registry.is_admitted(&id("m1"), None) && !registry.is_admitted(&id("m1"), Some(&[1; 32])));
    assert!(registry.verify_password(&id("m1"), word).is_none());
    registry.add(&id("m1"), Some([1; 32]), None).unwrap();
    registry.add(&id("m2"), None, Some(hash)).unwrap();
    assert!(registry.is_admitted(&id("m1"), Some(&[1; 32])));
    assert!(!registry.is_admitted(&id("m1"), Some(&[2; 32])), "another certificate");
    assert!(!registry.is_admitted(&id("m1"), None), "it has no password");
    assert!(registry.verify_password(&id("m1"), word).is_none(), "another device's password");
    assert!(registry.is_admitted(&id("m2"), None) && registry.verify_password(&id("m2"), word).is_some());
    assert!(!registry.is_admitted(&id("m2"), Some(&[1; 32])), "another device's certificate");
    assert!(matches!(registry.add(&id("m3"), None, None), Err(RegistryError::NoCredential(_))));
}

#[test]
fn a_new_certificate_works_beside_the_old_one_until_the_device_is_revoked() {
    let (_folder, path) = folder();
    let registry = open(&path);
    registry.add(&id("m1"), Some([1; 32]), None).unwrap();
    registry.add(&id("m1"), Some([2; 32]), None).unwrap();
    registry.add(&id("m1"), Some([2; 32]), None).unwrap();
    assert!(registry.is_admitted(&id("m1"), Some(&[1; 32])) && registry.is_admitted(&id("m1"), Some(&[2; 32])));
    registry.revoke(&id("m1")).unwrap();
    assert!(!registry.is_admitted(&id("m1"), Some(&[1; 32])) && !registry.is_admitted(&id("m1"), Some(&[2; 32])));
    assert!(registry.list()[0].revoked);
    registry.add(&id("m1"), Some([3; 32]), None).unwrap();
    assert!(registry.is_admitted(&id("m1"), Some(&[3; 32])));
    assert!(!registry.is_admitted(&id("m1"), Some(&[1; 32])), "what was revoked stays so");
    assert!(matches!(registry.revoke(&id("m9")), Err(RegistryError::Unknown(_))));
    for more in 4..7 {
        registry.add(&id("m1"), Some([more; 32]), None).unwrap();
    }
    assert!(matches!(registry.add(&id("m1"), Some([7; 32]), None), Err(RegistryError::TooManyCertificates(_))));
}

/// Whoever tries often leaves nothing behind that still opens, and meets no limit.
#[test]
fn replacing_lets_nothing_in_that_was_there_before() {
    let (_folder, path) = folder();
    let registry = open(&path);
    let mut before: Option<([u8; 32], String)> = None;
    for number in 0..20 {
        let (password, hash) = generate_password().unwrap();
        let certificate = [number; 32];
        registry.replace(&id("m1"), Some(certificate), Some(hash)).unwrap();
        for registry in [&registry, &open(&path)] {
            assert!(registry.is_admitted(&id("m1"), Some(&certificate)));
            assert!(registry.verify_password(&id("m1"), password.expose().as_bytes()).is_some());
            if let Some((certificate, password)) = &before {
                assert!(!registry.is_admitted(&id("m1"), Some(certificate)), "try {number}");
                assert!(registry.verify_password(&id("m1"), password.as_bytes()).is_none(), "try {number}");
            }
        }
        before = Some((certificate, password.expose().to_owned()));
    }
    registry.replace(&id("m1"), Some([99; 32]), None).unwrap();
    assert!(!registry.is_admitted(&id("m1"), None), "the password of before is gone as well");
    assert!(matches!(registry.replace(&id("m1"), None, None), Err(RegistryError::NoCredential(_))));
    assert!(registry.is_admitted(&id("m1"), Some(&[99; 32])), "what is refused changes nothing");
    registry.revoke(&id("m1")).unwrap();
    registry.replace(&id("m1"), Some([100; 32]), None).unwrap();
    assert!(registry.is_admitted(&id("m1"), Some(&[100; 32])) && !registry.is_admitted(&id("m1"), Some(&[99; 32])));
}

/// What was let in by a password is known to be out as soon as another password takes its place, however it came to that.
#[test]
fn the_stamp_of_a_password_ends_with_it() {
    let (_folder, path) = folder();
    let registry = open(&path);
    let given = || {
        let (password, hash) = generate_password().unwrap();
        (password.expose().to_owned(), hash)
    };
    let (mut known, first) = given();
    registry.add(&id("m1"), Some([1; 32]), Some(first)).unwrap();
    type Change = fn(&DeviceRegistry, PasswordHash);
    let changes: [(&str, Change); 3] = [
        ("replaced", |registry, hash| registry.replace(&id("m1"), None, Some(hash)).unwrap()),
        ("added", |registry, hash| registry.add(&id("m1"), None, Some(hash)).unwrap()),
        ("revoked and added", |registry, hash| {
            registry.revoke(&id("m1")).unwrap();
            registry.add(&id("m1"), None, Some(hash)).unwrap();
        }),
    ];
    for (how, change) in changes {
        let stamp = registry.verify_password(&id("m1"), known.as_bytes()).unwrap();
        registry.add(&id("m1"), Some([2; 32]), None).unwrap();
        assert!(registry.has_password(&id("m1"), &stamp), "a new certificate leaves the password alone");
        assert!(open(&path).has_password(&id("m1"), &stamp), "another start leaves it alone");
        assert!(!registry.has_password(&id("m2"), &stamp), "another device's password");
        let (next, hash) = given();
        change(&registry, hash);
        assert!(!registry.has_password(&id("m1"), &stamp), "{how}");
        known = next;
    }
    let stamp = registry.verify_password(&id("m1"), known.as_bytes()).unwrap();
    registry.revoke(&id("m1")).unwrap();
    assert!(!registry.has_password(&id("m1"), &stamp), "revoked");
}

#[test]
fn whoever_does_not_stay_is_shut_out_for_good_and_nothing_is_written_when_all_do() {
    let (_folder, path) = folder();
    let registry = open(&path);
    let (password, hash) = generate_password().unwrap();
    registry.add(&id("m1"), Some([1; 32]), None).unwrap();
    registry.add(&id("m2"), Some([2; 32]), Some(hash)).unwrap();
    registry.add(&id("m3"), Some([3; 32]), None).unwrap();
    registry.revoke(&id("m3")).unwrap();
    assert_eq!(registry.revoke_others(|device| *device == id("m1")).unwrap(), [id("m2")]);
    let written = fs::metadata(&path).unwrap().ino();
    assert_eq!(registry.revoke_others(|device| *device == id("m1")).unwrap(), []);
    assert_eq!(fs::metadata(&path).unwrap().ino(), written, "written once more");
    // The next one in whose configuration it stands again.
    let next = open(&path);
    assert_eq!(next.revoke_others(|_| true).unwrap(), []);
    assert!(next.is_admitted(&id("m1"), Some(&[1; 32])));
    assert!(!next.is_admitted(&id("m2"), Some(&[2; 32])) && !next.is_admitted(&id("m2"), None));
    assert!(next.verify_password(&id("m2"), password.expose().as_bytes()).is_none());
    next.add(&id("m2"), Some([4; 32]), None).unwrap();
    assert!(next.is_admitted(&id("m2"), Some(&[4; 32])) && !next.is_admitted(&id("m2"), Some(&[2; 32])));
}

#[test]
fn the_daemon_sees_what_the_command_line_changed_and_reads_nothing_when_nothing_did() {
    let (_folder, path) = folder();
    let (daemon, command) = (open(&path), open(&path));
    assert!(!daemon.reload_if_changed().unwrap());
    command.add(&id("m1"), Some([1; 32]), None).unwrap();
    assert!(daemon.reload_if_changed().unwrap());
    assert!(daemon.is_admitted(&id("m1"), Some(&[1; 32])));
    assert!(!daemon.reload_if_changed().unwrap());
    command.revoke(&id("m1")).unwrap();
    assert!(daemon.reload_if_changed().unwrap());
    assert!(!daemon.is_admitted(&id("m1"), Some(&[1; 32])));
}

#[test]
fn two_that_change_it_at_once_do_not_undo_each_other() {
    let (_folder, path) = folder();
    std::thread::scope(|scope| {
        for writer in 0..4_u8 {
            let path = &path;
            scope.spawn(move || {
                let registry = open(path);
                for number in 0..8 {
                    registry.add(&id(&format!("w{writer}-{number}")), Some([writer; 32]), None).unwrap();
                }
            });
        }
    });
    assert_eq!(open(&path).list().len(), 32);
}

#[test]
fn damage_heals_from_the_copy_and_what_cannot_be_healed_changes_nothing_in_force() {
    let (_folder, path) = folder();
    let registry = open(&path);
    let (_, hash) = generate_password().unwrap();
    registry.add(&id("m1"), Some([1; 32]), Some(hash)).unwrap();
    let known = registry.list();
    let sound = fs::read(&path).unwrap();
    serde_json::from_slice::<serde_json::Value>(&sound).expect("the file is JSON");
    let copy = path.with_file_name("devices.json.copy");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    for file in [&path, &copy] {
        for at in 0..sound.len() {
            let mut damaged = sound.clone();
            damaged[at] ^= 1 << (at % 8);
            fs::write(file, &damaged).unwrap();
            assert_eq!(open(&path).list(), known, "byte {at}");
            assert_eq!(fs::read(file).unwrap(), sound);
        }
    }
    let huge = vec![b' '; 5 * 1024 * 1024];
    for (first, second) in [(&b"{}"[..], &b""[..]), (&huge, &huge)] {
        fs::write(&path, first).unwrap();
        fs::write(&copy, second).unwrap();
        let error = registry.reload_if_changed().unwrap_err().to_string();
        assert!(error.contains("devices.json") && error.contains("backup"), "{error}");
        assert!(DeviceRegistry::open(&path).is_err());
        assert!(registry.is_admitted(&id("m1"), Some(&[1; 32])), "what was known stays in force");
    }
    fs::remove_file(&path).unwrap();
    fs::remove_file(&copy).unwrap();
    assert!(registry.reload_if_changed().is_err(), "a vanished registry locks nobody out");
    assert!(registry.is_admitted(&id("m1"), Some(&[1; 32])));
}

#[test]
fn a_cut_between_the_two_copies_keeps_the_newer_state() {
    let (_folder, path) = folder();
    let registry = open(&path);
    registry.add(&id("m1"), Some([1; 32]), None).unwrap();
    let copy = path.with_file_name("devices.json.copy");
    let old = fs::read(&copy).unwrap();
    registry.revoke(&id("m1")).unwrap();
    fs::write(&copy, old).unwrap();
    assert!(open(&path).list()[0].revoked, "a revocation is not undone");
    assert_eq!(fs::read(&copy).unwrap(), fs::read(&path).unwrap());
}

/// Whoever is told that nothing has changed keeps the old credentials, or sees no need to revoke once more: what counts is told as done.
#[test]
fn a_change_that_counts_is_no_failure_where_its_second_copy_is_not_written() {
    let (_folder, path) = folder();
    let registry = open(&path);
    registry.add(&id("m1"), Some([1; 32]), None).unwrap();
    registry.add(&id("m2"), Some([3; 32]), None).unwrap();
    let in_the_way = path.with_file_name("devices.json.copy.new");
    fs::create_dir(&in_the_way).unwrap();
    registry.replace(&id("m1"), Some([2; 32]), None).unwrap();
    registry.revoke(&id("m2")).unwrap();
    for registry in [&registry, &open(&path)] {
        assert!(registry.is_admitted(&id("m1"), Some(&[2; 32])) && !registry.is_admitted(&id("m1"), Some(&[1; 32])));
        assert!(!registry.is_admitted(&id("m2"), Some(&[3; 32])));
    }
    fs::remove_dir(&in_the_way).unwrap();
    open(&path);
    assert_eq!(fs::read(path.with_file_name("devices.json.copy")).unwrap(), fs::read(&path).unwrap());

    fs::create_dir(path.with_file_name("devices.json.new")).unwrap();
    assert!(registry.revoke(&id("m1")).is_err());
    assert!(registry.is_admitted(&id("m1"), Some(&[2; 32])) && open(&path).is_admitted(&id("m1"), Some(&[2; 32])));
}

#[test]
fn no_password_stands_in_the_file_or_the_list() {
    let (_folder, path) = folder();
    let registry = open(&path);
    let (password, hash) = generate_password().unwrap();
    registry.add(&id("m1"), None, Some(hash)).unwrap();
    assert!(!fs::read_to_string(&path).unwrap().contains(password.expose()));
    assert!(!format!("{registry:?}{:?}", registry.list()).contains(password.expose()));
}
