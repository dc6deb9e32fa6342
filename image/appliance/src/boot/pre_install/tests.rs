//! What is refused before a byte is written.

use std::collections::HashMap;

use vitalgate_layout::entry;

use super::super::disk::Mounted;
use super::super::kernel_image::kernel_image;
use super::*;

/// As `veritysetup format` writes it: superblock with a salt, then the topmost block of hashes.
fn hash_image() -> Vec<u8> {
    let mut image = vec![0; 2 * 4096];
    image[..8].copy_from_slice(b"verity\0\0");
    image[80..82].copy_from_slice(&32_u16.to_le_bytes());
    image[88..120].copy_from_slice(&[7; 32]);
    image[4096..].fill(9);
    image
}

struct Bundle {
    folder: tempfile::TempDir,
}

impl Bundle {
    fn new(manifest: &str, kernel: &[u8]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("bundle")).unwrap();
        fs::create_dir_all(folder.path().join("esp").join(entry::FOLDER)).unwrap();
        fs::write(folder.path().join("bundle").join(MANIFEST), manifest).unwrap();
        fs::write(folder.path().join("bundle").join(KERNEL_IMAGE), kernel).unwrap();
        fs::write(folder.path().join("bundle/verity.img"), hash_image()).unwrap();
        Self { folder }
    }

    fn prepare(&self, target: Slot, floor: Option<&str>) -> Result<Version, Refusal> {
        let disk = Mounted::at(&self.folder.path().join("esp"));
        let request = Request { bundle: self.folder.path().join("bundle"), target };
        let running = Running { slot: Slot::A, version: Version::parse("0.2.0").unwrap() };
        prepare(&request, running, floor.and_then(Version::parse), &Esp::on(&disk))
    }

    fn staged(&self) -> bool {
        self.folder.path().join("esp").join(entry::staged(Slot::B)).exists()
    }
}

fn manifest(version: &str) -> String {
    format!(
        "[update]\ncompatible={COMPATIBLE}\nversion = {version}\n\n[bundle]\nformat=verity\n\n[image.rootfs]\nfilename=root.img\n\n[image.verity]\nsha256=00\nfilename=verity.img\n"
    )
}

fn own_root() -> String {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("v"), hash_image()).unwrap();
    root_hash(&File::open(folder.path().join("v")).unwrap()).unwrap()
}

/// A bundle whose parts fit together is prepared, and only then.
#[test]
fn a_bundle_that_fits_is_prepared() {
    let bundle = Bundle::new(&manifest("0.3.0"), &kernel_image("0.3.0", &own_root()));
    assert_eq!(bundle.prepare(Slot::B, Some("0.3.0")).unwrap().to_string(), "0.3.0");
    assert!(bundle.staged());
}

/// Each refusal says what is wrong, and leaves nothing beside the boot entries.
#[test]
fn a_bundle_that_does_not_fit_is_refused() {
    let good = kernel_image("0.3.0", &own_root());
    let cases: [(String, Vec<u8>, &str); 7] = [
        (manifest("0.3.0").replace(COMPATIBLE, "vitalgate-other"), good.clone(), "vitalgate-other"),
        (manifest("0.1.9"), kernel_image("0.1.9", &own_root()), "older than 0.2.0"),
        (manifest("0.3.1"), good.clone(), "its kernel image 0.3.0"),
        (manifest("0.3.0"), kernel_image("0.3.0", &"0".repeat(64)), "does not belong to its root"),
        (manifest("0.3.0"), b"MZ".to_vec(), "kernel image"),
        (manifest("0.3.0").replace("verity.img", "../verity.img"), good.clone(), "manifest"),
        (manifest("next"), good, "version"),
    ];
    for (manifest, kernel, expected) in cases {
        let bundle = Bundle::new(&manifest, &kernel);
        let refusal = bundle.prepare(Slot::B, Some("0.2.0")).unwrap_err().to_string();
        assert!(refusal.contains(expected), "{refusal:?} names {expected:?}");
        assert!(!bundle.staged(), "{refusal}");
    }
    let running = Bundle::new(&manifest("0.3.0"), &kernel_image("0.3.0", &own_root()));
    assert!(matches!(running.prepare(Slot::A, None), Err(Refusal::Running(Slot::A))));
}

/// The variables as RAUC 1.8 sets them for two slots with a partition of hashes each.
#[test]
fn the_updater_s_variables_are_read() {
    let variables = HashMap::from([
        ("RAUC_BUNDLE_MOUNT_POINT", "/run/rauc/bundle"),
        ("RAUC_SLOTS", "1 2 3 4"),
        ("RAUC_TARGET_SLOTS", "2 3"),
        ("RAUC_SLOT_BOOTNAME_1", ""),
        ("RAUC_SLOT_BOOTNAME_2", ""),
        ("RAUC_SLOT_BOOTNAME_3", "b"),
        ("RAUC_SLOT_BOOTNAME_4", "a"),
    ]);
    let request = Request::read(|name| variables.get(name).map(|value| (*value).to_owned())).unwrap();
    assert_eq!((request.target, request.bundle.as_path()), (Slot::B, Path::new("/run/rauc/bundle")));
    assert!(Request::read(|_name| None).is_err());
}
