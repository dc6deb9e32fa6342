//! What `tools/setup` says of a machine.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use crate::root;

pub(crate) fn program(folder: &Path, name: &str, script: &str) {
    let path = folder.join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// `tools/setup build` where every package is installed already, no newer toolchain is to be had, and this one is found.
fn with_rust(version: &str) -> Output {
    let folder = tempfile::tempdir().unwrap();
    program(folder.path(), "rustc", &format!("echo 'rustc {version} (0123456789 2022-08-05)'"));
    program(folder.path(), "cargo", "exit 0");
    program(folder.path(), "dpkg-query", "echo 'install ok installed'");
    program(folder.path(), "apt-cache", "exit 100");
    let path = format!("{}:/usr/bin:/bin", folder.path().display());
    Command::new(root().join("tools/setup")).arg("build").env("PATH", path).output().unwrap()
}

/// An old toolchain is named with what is needed, before it fails with words about editions.
#[test]
fn an_old_toolchain_is_named_with_the_one_that_is_needed() {
    for version in ["1.94.0", "1.100.1"] {
        let enough = with_rust(version);
        assert!(enough.status.success(), "{version}: {}", String::from_utf8_lossy(&enough.stderr));
    }
    let old = with_rust("1.63.0");
    let said = String::from_utf8_lossy(&old.stderr);
    assert!(!old.status.success() && said.contains("Rust 1.94 or newer is needed, this machine has 1.63.0"), "{said}");
}
