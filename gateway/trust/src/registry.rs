//! Which devices may connect, and by which certificate or password.
//!
//! One JSON file in two sealed copies, at most [`BYTES_MAX`] bytes:
//! `{"format":1,"devices":{"<id>":{"revoked":false,"certificates":["<sha256>"],"password":"sha256:<salt>:<sum>"}},"sha256":"<checksum>"}`.
//! The command line changes it, the daemon follows by [`DeviceRegistry::reload_if_changed`].

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use serde::{Deserialize, Serialize};
use vitalgate_domain::DeviceId;
use vitalgate_domain::limits::DEVICES_MAX;

use crate::file::{self, FileError};
use crate::password::PasswordHash;
use crate::sealed::{Seal, Sealed, SealedError, WhenDifferent, copy_of};
use crate::{hex, unhex};

/// Largest registry file, in bytes.
const BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Certificates that a device may have at one time: the one in use, and the next ones.
const CERTIFICATES_MAX: usize = 4;
/// Devices and revoked devices that are remembered; beyond it a revoked one is forgotten for a new one.
const ENTRIES_MAX: usize = 4 * DEVICES_MAX;
const FORMAT: u32 = 1;

/// Why the registry could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// Reading or writing failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// Both copies are damaged.
    #[error(transparent)]
    Sealed(#[from] SealedError),
    /// The file is whole, but cannot be read by this version.
    #[error("{path} is not a device registry that this version reads; restore it from a backup or update the gateway")]
    Format {
        /// Where.
        path: PathBuf,
        /// What the JSON parser said.
        #[source]
        source: Option<serde_json::Error>,
    },
    /// Too many devices.
    #[error("the registry holds {ENTRIES_MAX} devices already; a gateway serves {DEVICES_MAX}, use a second one")]
    Full,
    /// Neither a certificate nor a password was given.
    #[error("device {0} needs a certificate or a password; give it one")]
    NoCredential(DeviceId),
    /// Too many certificates.
    #[error("device {0} has {CERTIFICATES_MAX} certificates already; add it with --replace, or revoke the device and add it again")]
    TooManyCertificates(DeviceId),
    /// There is no such device.
    #[error("there is no device {0} in the registry; the list shows which there are")]
    Unknown(DeviceId),
}

/// What the registry tells about a device; no secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisteredDevice {
    /// The device.
    pub device: DeviceId,
    /// Whether it has been shut out.
    pub revoked: bool,
    /// SHA-256 of each certificate that it may show.
    pub certificates: Vec<[u8; 32]>,
    /// Whether it may connect by password.
    pub has_password: bool,
}

/// The device registry. Shared by reference; changes are durable when the call returns.
#[derive(Debug)]
pub struct DeviceRegistry {
    path: PathBuf,
    state: RwLock<State>,
}

#[derive(Debug)]
struct State {
    devices: BTreeMap<DeviceId, StoredDevice>,
    seen: Option<Stamp>,
}

/// Tells one version of the file from the next without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredFile {
    format: u32,
    devices: BTreeMap<DeviceId, StoredDevice>,
    /// Filled by the seal; read by it alone.
    #[serde(default, skip_serializing)]
    #[allow(dead_code)]
    sha256: String,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredDevice {
    revoked: bool,
    certificates: Vec<Fingerprint>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    password: Option<PasswordHash>,
}

impl StoredDevice {
    fn revoked() -> Self {
        Self { revoked: true, ..Self::default() }
    }
}

/// What becomes of the credentials that a device has when it gets others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Earlier {
    Stays,
    Goes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct Fingerprint([u8; 32]);

impl From<Fingerprint> for String {
    fn from(fingerprint: Fingerprint) -> Self {
        hex(&fingerprint.0)
    }
}

impl TryFrom<String> for Fingerprint {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        unhex(text.as_bytes()).map(Self).ok_or("a fingerprint is 64 hexadecimal digits in lower case")
    }
}

impl DeviceRegistry {
    /// Opens the registry; one that does not exist yet is empty.
    ///
    /// # Errors
    /// When both copies are damaged or this version cannot read them.
    pub fn open(path: &Path) -> Result<Self, RegistryError> {
        file::create_directory(file::parent(path))?;
        let _lock = file::lock(&lock_path(path))?;
        let seen = stamp(path);
        let devices = load(path)?;
        Ok(Self { path: path.to_owned(), state: RwLock::new(State { devices, seen }) })
    }

    /// Admits a device by a certificate, a password, or both. A new certificate is admitted beside those
    /// the device has; a new password replaces the old one. A revoked device is admitted again with only
    /// what is given now.
    ///
    /// # Errors
    /// When nothing was given, a limit is reached, or the file cannot be written; nothing has changed then.
    pub fn add(&self, device: &DeviceId, certificate: Option<[u8; 32]>, password: Option<PasswordHash>) -> Result<(), RegistryError> {
        self.admit(device, certificate, password, Earlier::Stays)
    }

    /// Admits a device by a certificate, a password, or both, and by nothing that it had before.
    ///
    /// # Errors
    /// When nothing was given, a limit is reached, or the file cannot be written; nothing has changed then.
    pub fn replace(&self, device: &DeviceId, certificate: Option<[u8; 32]>, password: Option<PasswordHash>) -> Result<(), RegistryError> {
        self.admit(device, certificate, password, Earlier::Goes)
    }

    fn admit(
        &self,
        device: &DeviceId,
        certificate: Option<[u8; 32]>,
        password: Option<PasswordHash>,
        earlier: Earlier,
    ) -> Result<(), RegistryError> {
        if certificate.is_none() && password.is_none() {
            return Err(RegistryError::NoCredential(device.clone()));
        }
        self.change(|devices| {
            if devices.len() >= ENTRIES_MAX && !devices.contains_key(device) {
                // Who is not listed is not admitted: to forget a revoked device lets nobody in.
                let forgotten = devices.iter().find(|(_, stored)| stored.revoked).map(|(revoked, _)| revoked.clone());
                devices.remove(&forgotten.ok_or(RegistryError::Full)?);
            }
            let entry = devices.entry(device.clone()).or_default();
            if entry.revoked || earlier == Earlier::Goes {
                *entry = StoredDevice::default();
            }
            if let Some(certificate) = certificate.map(Fingerprint).filter(|new| !entry.certificates.contains(new)) {
                if entry.certificates.len() >= CERTIFICATES_MAX {
                    return Err(RegistryError::TooManyCertificates(device.clone()));
                }
                entry.certificates.push(certificate);
            }
            if password.is_some() {
                entry.password = password;
            }
            Ok(())
        })
    }

    /// Shuts a device out: its certificates and its password open nothing any more.
    ///
    /// # Errors
    /// When there is no such device or the file cannot be written.
    pub fn revoke(&self, device: &DeviceId) -> Result<(), RegistryError> {
        self.change(|devices| {
            let entry = devices.get_mut(device).ok_or_else(|| RegistryError::Unknown(device.clone()))?;
            *entry = StoredDevice::revoked();
            Ok(())
        })
    }

    /// Shuts out every device that does not stay, in one change of the file; gives those. Writes nothing when there are none.
    ///
    /// # Errors
    /// When the file cannot be written; nothing has changed then.
    pub fn revoke_others(&self, stays: impl Fn(&DeviceId) -> bool) -> Result<Vec<DeviceId>, RegistryError> {
        let leaves = |device: &DeviceId, stored: &StoredDevice| !stored.revoked && !stays(device);
        let mut revoked = Vec::new();
        if !self.state().devices.iter().any(|(device, stored)| leaves(device, stored)) {
            return Ok(revoked);
        }
        self.change(|devices| {
            for (device, stored) in devices.iter_mut().filter(|(device, stored)| leaves(device, stored)) {
                *stored = StoredDevice::revoked();
                revoked.push(device.clone());
            }
            Ok(())
        })?;
        Ok(revoked)
    }

    /// Every device that was added, by id; of those that were revoked as many as are remembered.
    #[must_use]
    pub fn list(&self) -> Vec<RegisteredDevice> {
        let describe = |(device, stored): (&DeviceId, &StoredDevice)| RegisteredDevice {
            device: device.clone(),
            revoked: stored.revoked,
            certificates: stored.certificates.iter().map(|fingerprint| fingerprint.0).collect(),
            has_password: stored.password.is_some(),
        };
        self.state().devices.iter().map(describe).collect()
    }

    /// Reads the file again if it changed since it was last read. Costs one `stat` when it did not.
    ///
    /// # Errors
    /// When the new file cannot be used; what was known before stays in force.
    pub fn reload_if_changed(&self) -> Result<bool, RegistryError> {
        if self.state().seen == stamp(&self.path) {
            return Ok(false);
        }
        let _lock = file::lock(&lock_path(&self.path))?;
        let seen = stamp(&self.path);
        let devices = load(&self.path)?;
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        // A registry that vanished is damage, not the wish to lock every device out.
        if seen.is_none() && devices.is_empty() && !state.devices.is_empty() {
            return Err(SealedError::Damaged { path: self.path.clone(), copy: copy_of(&self.path) }.into());
        }
        *state = State { devices, seen };
        Ok(true)
    }

    /// If this is the device's password, the stamp that [`DeviceRegistry::has_password`] knows it by: not secret, another
    /// one for each password that was ever given. Takes the same time whether the device is known or not.
    #[must_use]
    pub fn verify_password(&self, device: &DeviceId, password: &[u8]) -> Option<[u8; 32]> {
        let stored = self.state().devices.get(device).filter(|stored| !stored.revoked).and_then(|stored| stored.password.clone());
        let known = stored.is_some();
        let hash = stored.unwrap_or(PasswordHash::of_nothing());
        (hash.verify(password) & known).then(|| hash.stamp())
    }

    /// Whether the password with this stamp is still the device's.
    #[must_use]
    pub fn has_password(&self, device: &DeviceId, stamp: &[u8; 32]) -> bool {
        self.state()
            .devices
            .get(device)
            .is_some_and(|stored| !stored.revoked && stored.password.as_ref().is_some_and(|password| password.stamp() == *stamp))
    }

    /// Whether a device may connect with this certificate or, without one, whether it has a password at all: which
    /// one was shown is for [`DeviceRegistry::verify_password`] and [`DeviceRegistry::has_password`].
    #[must_use]
    pub fn is_admitted(&self, device: &DeviceId, certificate: Option<&[u8; 32]>) -> bool {
        self.state().devices.get(device).is_some_and(|stored| {
            !stored.revoked
                && match certificate {
                    Some(shown) => stored.certificates.iter().any(|known| known.0 == *shown),
                    None => stored.password.is_some(),
                }
        })
    }

    /// Takes the file's newest state, changes it, writes it, and only then lets it count.
    fn change(&self, apply: impl FnOnce(&mut BTreeMap<DeviceId, StoredDevice>) -> Result<(), RegistryError>) -> Result<(), RegistryError> {
        let _lock = file::lock(&lock_path(&self.path))?;
        let mut devices = load(&self.path)?;
        apply(&mut devices)?;
        let stored = StoredFile { format: FORMAT, devices, sha256: String::new() };
        let mut body = serde_json::to_vec(&stored).map_err(|source| format_error(&self.path, Some(source)))?;
        body.pop(); // The seal closes the object.
        sealed(&self.path).write(&body)?;
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = State { devices: stored.devices, seen: stamp(&self.path) };
        Ok(())
    }

    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }
}

fn sealed(path: &Path) -> Sealed<'_> {
    Sealed { path, seal: Seal::Json, when_different: WhenDifferent::FirstIsNewer, bytes_max: BYTES_MAX }
}

fn load(path: &Path) -> Result<BTreeMap<DeviceId, StoredDevice>, RegistryError> {
    let Some(mut found) = sealed(path).read()? else { return Ok(BTreeMap::new()) };
    found.body.push(b'}');
    let file: StoredFile = serde_json::from_slice(&found.body).map_err(|source| format_error(path, Some(source)))?;
    if file.format != FORMAT || file.devices.len() > ENTRIES_MAX {
        return Err(format_error(path, None));
    }
    Ok(file.devices)
}

fn format_error(path: &Path, source: Option<serde_json::Error>) -> RegistryError {
    RegistryError::Format { path: path.to_owned(), source }
}

fn lock_path(path: &Path) -> PathBuf {
    file::with_suffix(path, ".lock")
}

fn stamp(path: &Path) -> Option<Stamp> {
    let found = fs::metadata(path).ok()?;
    Some(Stamp {
        inode: found.ino(),
        bytes: found.len(),
        modified: (found.mtime(), found.mtime_nsec()),
        changed: (found.ctime(), found.ctime_nsec()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate_password;

    fn id(text: &str) -> DeviceId {
        DeviceId::new(text).unwrap()
    }

    /// Years of coming and going do not fill the registry, and whoever was revoked stays out when it is forgotten.
    #[test]
    fn a_full_registry_forgets_revoked_devices_and_no_others() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("devices.json");
        let registry = DeviceRegistry::open(&path).unwrap();
        let (password, hash) = generate_password().unwrap();
        registry.add(&id("m1"), Some([1; 32]), Some(hash)).unwrap();
        let stamp = registry.verify_password(&id("m1"), password.expose().as_bytes()).unwrap();
        let admitted = StoredDevice { certificates: vec![Fingerprint([2; 32])], ..StoredDevice::default() };
        let many = (1..ENTRIES_MAX).map(|number| (id(&format!("n{number}")), admitted.clone()));
        let fill = |devices: &mut BTreeMap<_, _>| {
            devices.extend(many);
            Ok(())
        };
        registry.change(fill).unwrap();
        assert!(
            matches!(registry.add(&id("new"), Some([3; 32]), None), Err(RegistryError::Full)),
            "nobody is forgotten who was not revoked"
        );
        registry.add(&id("m1"), Some([4; 32]), None).unwrap();

        registry.revoke(&id("m1")).unwrap();
        registry.add(&id("new"), Some([3; 32]), None).unwrap();
        for registry in [&registry, &DeviceRegistry::open(&path).unwrap()] {
            assert_eq!(registry.list().len(), ENTRIES_MAX);
            assert!(registry.list().iter().all(|entry| !entry.revoked));
            assert!(registry.is_admitted(&id("new"), Some(&[3; 32])) && registry.is_admitted(&id("n1"), Some(&[2; 32])));
            assert!(!registry.is_admitted(&id("m1"), Some(&[1; 32])) && !registry.is_admitted(&id("m1"), None));
            assert!(registry.verify_password(&id("m1"), password.expose().as_bytes()).is_none());
            assert!(!registry.has_password(&id("m1"), &stamp));
        }
        assert!(matches!(registry.add(&id("one-more"), Some([5; 32]), None), Err(RegistryError::Full)));
    }
}
