//! `imagectl verify`: a release is genuine, whole, for this machine and supported, or it is refused.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a helper of tests fails loudly")]

mod common;

use common::{Folder, ok, refused};

const FILES: [&str; 3] = ["vitalgate-amd64-0.1.0.img.zst", "vitalgate-amd64-0.1.0.bmap", "vitalgate-amd64-0.1.0.raucb"];

fn release(support_end: &str) -> Folder {
    let folder = Folder::new();
    std::fs::create_dir(folder.path("out")).unwrap();
    for name in FILES {
        folder.write(&format!("out/{name}"), name.repeat(100));
    }
    let key = folder.key("release");
    ok(["release", "sign", &folder.text("out"), "--key", &key, "--support-end", support_end]);
    folder
}

#[test]
fn a_genuine_release_is_verified_whole_or_in_part() {
    let folder = release("2099-12-31");
    let key = folder.text("release.pub");
    let said = ok(["verify", &folder.text("out"), "--key", &key, "--machine", "amd64"]);
    for line in ["signature  OK", "machine    amd64", "version    0.1.0", "support    until 2099-12-31"] {
        assert!(said.contains(line), "{line}, in {said}");
    }
    assert_eq!(said.matches("hash       OK").count(), 3);
    let one = ok(["verify", &folder.text(&format!("out/{}", FILES[2])), "--key", &key]);
    assert_eq!(one.matches("hash       OK").count(), 1);
}

#[test]
fn what_is_not_genuine_is_refused() {
    let folder = release("2099-12-31");
    let (out, key) = (folder.text("out"), folder.text("release.pub"));
    refused(1, "for amd64, not arm64", ["verify", &out, "--key", &key, "--machine", "arm64"]);
    refused(1, "no Ed25519 key", ["verify", &out, "--key", &folder.write("x", "no key")]);
    refused(1, "private key", ["verify", &out, "--key", &folder.text("release.key")]);
    let other = folder.key("other").replace(".key", ".pub");
    refused(1, "does not match", ["verify", &out, "--key", &other]);
    folder.write("out/vitalgate-amd64-0.1.0.extra", "x");
    refused(1, "not in SHA256SUMS", ["verify", &folder.text("out/vitalgate-amd64-0.1.0.extra"), "--key", &key]);
    folder.write(&format!("out/{}", FILES[0]), "changed");
    refused(1, "not what was signed", ["verify", &out, "--key", &key]);
    let list = String::from_utf8(folder.read("out/SHA256SUMS")).unwrap();
    folder.write("out/SHA256SUMS", list.replace("2099", "2199"));
    refused(1, "does not match", ["verify", &out, "--key", &key]);
    std::fs::remove_file(folder.path("out/SHA256SUMS.sig")).unwrap();
    refused(4, "cannot be read", ["verify", &out, "--key", &key]);
}

#[test]
fn a_release_whose_support_has_ended_is_refused_unless_told_otherwise() {
    let folder = release("2020-01-01");
    let (out, key) = (folder.text("out"), folder.text("release.pub"));
    refused(1, "ended on 2020-01-01", ["verify", &out, "--key", &key]);
    assert!(ok(["verify", &out, "--key", &key, "--unsupported"]).contains("ENDED"));
}

/// The signature is one that openssl checks, and one that openssl makes is taken.
#[test]
fn openssl_and_we_agree_on_signatures() {
    let openssl = |arguments: &[&str]| assert!(std::process::Command::new("openssl").args(arguments).output().unwrap().status.success());
    let folder = release("2099-12-31");
    let (list, signature) = (folder.text("out/SHA256SUMS"), folder.text("out/SHA256SUMS.sig"));
    openssl(&["pkeyutl", "-verify", "-rawin", "-inkey", &folder.text("release.key"), "-in", &list, "-sigfile", &signature]);
    let (key, public) = (folder.text("theirs.key"), folder.text("theirs.pub"));
    openssl(&["genpkey", "-algorithm", "ed25519", "-out", &key]);
    openssl(&["pkey", "-in", &key, "-pubout", "-out", &public]);
    openssl(&["pkeyutl", "-sign", "-rawin", "-inkey", &key, "-in", &list, "-out", &signature]);
    ok(["verify", &folder.text("out"), "--key", &public]);
}
