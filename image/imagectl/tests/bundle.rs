//! Update bundles: signature and content, with a bundle made here from the format's description.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a helper of tests fails loudly")]

mod common;

use std::process::Command;

use common::{Folder, ok, refused};

/// Root hash that `veritysetup format --hash=sha256 --data-block-size=4096 --hash-block-size=4096 --salt=<32 times 01>`
/// prints for 300 blocks, the first full of ones, the second of twos and so on (a byte each).
const ROOT_HASH: &str = "6aa35a739a15110e90b33265d0f42fd71948e326552d03a4871ad979e0ee603a";
const BLOCKS: usize = 300;

fn openssl(arguments: &[&str]) {
    let output = Command::new("openssl").args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn content() -> Vec<u8> {
    (0..BLOCKS).flat_map(|block| vec![(block + 1) as u8; 4096]).collect()
}

/// The hash tree of the content, the top level first, each level filled up to whole blocks.
fn tree() -> Vec<u8> {
    let level = |below: &[u8]| -> Vec<u8> {
        let hash = |block: &[u8]| aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &[&[1; 32], block].concat());
        let mut hashes: Vec<u8> = below.chunks(4096).flat_map(|block| hash(block).as_ref().to_vec()).collect();
        hashes.resize(hashes.len().next_multiple_of(4096), 0);
        hashes
    };
    let lower = level(&content());
    [level(&lower), lower].concat()
}

/// A bundle, its authority beside it.
fn bundle(folder: &Folder) -> String {
    let (key, ca) = (folder.text("ca.key"), folder.text("ca.pem"));
    openssl(&[
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-subj",
        "/CN=x",
        "-days",
        "30",
        "-keyout",
        &key,
        "-out",
        &ca,
    ]);
    let tree = tree();
    assert_eq!(tree.len(), 4 * 4096);
    let manifest = folder.write(
        "manifest",
        format!(
            "[update]\ncompatible=vitalgate-amd64\nversion=0.2.0\n\n[bundle]\nformat=verity\nverity-hash={ROOT_HASH}\nverity-salt={}\nverity-size={}\n\n[image.rootfs]\nsha256=ab\nfilename=rootfs.img\n",
            "01".repeat(32),
            tree.len()
        ),
    );
    openssl(&[
        "cms",
        "-sign",
        "-in",
        &manifest,
        "-binary",
        "-nodetach",
        "-nosmimecap",
        "-outform",
        "DER",
        "-signer",
        &ca,
        "-inkey",
        &key,
        "-out",
        &folder.text("cms"),
    ]);
    let signature = folder.read("cms");
    let mut bytes = content();
    bytes.extend(tree);
    bytes.extend(&signature);
    bytes.extend((signature.len() as u64).to_be_bytes());
    folder.write("vitalgate-amd64-0.2.0.raucb", bytes)
}

#[test]
fn a_bundle_is_proven_to_its_last_byte() {
    let folder = Folder::new();
    let file = bundle(&folder);
    let ca = folder.text("ca.pem");
    let said = ok(["bundle", "verify", &file, "--ca", &ca, "--machine", "amd64"]);
    for line in ["machine    vitalgate-amd64", "version    0.2.0", "signature  OK", "content    OK"] {
        assert!(said.contains(line), "{line}, in {said}");
    }
    assert!(ok(["bundle", "info", &file]).contains("NOT checked"));
    refused(1, "not for vitalgate-arm64", ["bundle", "verify", &file, "--ca", &ca, "--machine", "arm64"]);
    let changed = folder.write("changed.raucb", common::with_a_changed_byte(file.as_ref(), 4096 * 299));
    refused(1, "not what was signed", ["bundle", "verify", &changed, "--ca", &ca]);
    // The appliance reads the content through its tree: where that is damaged nothing of the bundle can be read.
    for at in [0, 95, 4095, 4096, 4 * 4096 - 1] {
        let changed = folder.write("changed.raucb", common::with_a_changed_byte(file.as_ref(), 4096 * BLOCKS + at));
        refused(1, "its hash tree is not that of its content", ["bundle", "verify", &changed, "--ca", &ca]);
    }
    let signature = folder.read("vitalgate-amd64-0.2.0.raucb").len() - 100;
    let changed = folder.write("changed.raucb", common::with_a_changed_byte(file.as_ref(), signature));
    refused(1, "", ["bundle", "verify", &changed, "--ca", &ca]);
    let stranger = Folder::new();
    bundle(&stranger);
    refused(1, "does not hold", ["bundle", "verify", &file, "--ca", &stranger.text("ca.pem")]);
}

/// A bundle that `rauc` itself makes.
#[test]
fn a_bundle_of_rauc_is_taken() {
    let folder = Folder::new();
    bundle(&folder);
    std::fs::create_dir(folder.path("in")).unwrap();
    // What cannot be packed fills more than one block of the bundle's own file system.
    let mut state = 1_u32;
    let noise = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    });
    folder.write("in/rootfs.img", noise.take(700_000).collect::<Vec<_>>());
    folder.write(
        "in/manifest.raucm",
        "[update]\ncompatible=vitalgate-amd64\nversion=0.3.0\n[bundle]\nformat=verity\n[image.rootfs]\nfilename=rootfs.img\n",
    );
    let (key, ca, file) = (folder.text("ca.key"), folder.text("ca.pem"), folder.text("x.raucb"));
    let output = Command::new("rauc").args(["bundle", "--cert", &ca, "--key", &key, &folder.text("in"), &file]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = ok(["bundle", "verify", &file, "--ca", &ca]);
    assert!(said.contains("version    0.3.0") && said.contains("image      rootfs") && said.contains("content    OK"), "{said}");
    let changed = folder.write("changed.raucb", common::with_a_changed_byte(file.as_ref(), 5000));
    refused(1, "not what was signed", ["bundle", "verify", &changed, "--ca", &ca]);
}

#[test]
fn what_is_no_bundle_is_refused() {
    let folder = Folder::new();
    for bytes in [vec![], vec![0; 8], vec![0xff; 4096], [vec![1; 100], 50_u64.to_be_bytes().to_vec()].concat()] {
        let file = folder.write("x.raucb", bytes);
        refused(1, "", ["bundle", "info", &file]);
    }
}
