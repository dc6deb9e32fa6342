//! An appliance with keys of its own and signed requests, for tests.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::PathBuf;

use nix::sys::stat::{major, minor};
use vitalgate_layout::path;
use vitalgate_site::age::Identity;
use vitalgate_site::{Action, Day, Discard, Request, Serial, Signer, SigningKey, sign_request};

use super::drawer::{Folder, stick_with};
use super::managed::{DEVICES, LABELS, NUMBER, STICKS};
use super::port::Mounted;
use crate::places::Places;

/// Plugs a stick in, as udev and the service manager show it; gives the folder in place of what is mounted.
pub(crate) fn plug(places: &Places, label: &str) -> PathBuf {
    let (links, device, folder) = (places.at(LABELS), places.at(DEVICES).join("sdb1"), places.at(STICKS).join(label));
    for folder in [&links, &device, &folder] {
        fs::create_dir_all(folder).unwrap();
    }
    symlink("../../sdb1", links.join(label)).unwrap();
    let number = fs::metadata(&folder).unwrap().dev();
    fs::write(device.join(NUMBER), format!("{}:{}\n", major(number), minor(number))).unwrap();
    folder
}

/// A folder in place of an appliance.
pub(crate) struct Rig {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) places: Places,
    pub(crate) support: Identity,
}

impl Rig {
    /// With a serial number, keys and a place for its boot loader.
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let places = Places::under(folder.path());
        let support = Identity::generate().unwrap();
        let rig = Self { folder, places, support };
        let root = SigningKey::parse(&"01".repeat(32)).unwrap().public().to_hex();
        rig.put("/sys/class/dmi/id/product_serial", "VG-0001\n");
        rig.put("/usr/lib/os-release", "IMAGE_VERSION=0.1.0\n");
        rig.put("/usr/lib/vitalgate/trust/site-root.pub", &root);
        rig.put("/usr/lib/vitalgate/trust/support.age", &format!("{}\n", rig.support.recipient().unwrap()));
        fs::create_dir_all(rig.places.at(path::ESP)).unwrap();
        rig
    }

    /// Writes a file of the appliance.
    pub(crate) fn put(&self, file: &str, text: &str) {
        let file = self.places.at(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }

    /// A signed request.
    pub(crate) fn request(action: Action, id: u8, signer: u8) -> String {
        Self::request_with(action, id, signer, None)
    }

    /// The same, with what is discarded.
    pub(crate) fn request_with(action: Action, id: u8, signer: u8, discard: Option<Discard>) -> String {
        let request = Request {
            action,
            id: format!("{id:02x}").repeat(16),
            serial: Serial::Any,
            expires: Day::parse("2099-12-31").unwrap(),
            technician: "A. Example".into(),
            reason: "a test".into(),
            certificate_pem: None,
            discard,
        };
        sign_request(&request, &Signer::root(SigningKey::parse(&format!("{signer:02x}").repeat(32)).unwrap())).unwrap()
    }

    /// A stick with this file, mounted.
    pub(crate) fn stick(&self, name: &str, file: &str, text: &str) -> (PathBuf, Box<dyn Mounted>) {
        let folder = stick_with(self.folder.path(), name, file, text);
        (folder.clone(), Box::new(Folder { folder, protected: false }))
    }
}
