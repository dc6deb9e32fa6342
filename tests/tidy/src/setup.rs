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

/// A rustup that has not the pinned toolchain and may not fetch it says so itself; what helps is named, and no second toolchain installed.
#[test]
fn a_rustup_without_the_toolchain_is_named_with_its_own_words() {
    let folder = tempfile::tempdir().unwrap();
    program(folder.path(), "rustc", "echo \"error: toolchain '1.95.0' is not installed\" >&2; exit 1");
    for name in ["cargo", "rustup"] {
        program(folder.path(), name, "exit 0");
    }
    program(folder.path(), "dpkg-query", "echo 'install ok installed'");
    program(folder.path(), "apt-cache", "exit 0");
    let path = format!("{}:/usr/bin:/bin", folder.path().display());
    let said = Command::new(root().join("tools/setup")).arg("build").env("PATH", path).output().unwrap();
    let words = String::from_utf8_lossy(&said.stderr);
    let pinned = std::fs::read_to_string(root().join("rust-toolchain.toml")).unwrap();
    let channel = pinned.lines().find_map(|line| line.strip_prefix("channel = ")).unwrap().trim_matches('"');
    let expected = format!("rustup toolchain install {channel}");
    assert!(!said.status.success() && words.contains("is not installed") && words.contains(&expected), "{words}");
}

/// What a command has just built is what it runs, wherever cargo was told to put it, and a blank in the path does not matter.
#[test]
fn what_runs_is_what_was_built() {
    let made = Command::new("make")
        .args(["--no-print-directory", "-n", "demo", "torture", "bench", "CARGO_TARGET_DIR=/x y"])
        .current_dir(root())
        .output()
        .unwrap();
    let recipes = String::from_utf8_lossy(&made.stdout);
    assert!(made.status.success() && recipes.contains("\"/x y/release/vitalgate-demo\""), "{recipes}");
    assert!(recipes.contains("\"/x y/release/vitalgate-bench\"") && recipes.contains("realpath \"/x y\""), "{recipes}");
    assert!(!recipes.contains("target/"), "{recipes}");
}
