//! The encrypted volume on the data partition: LUKS2, opened by the TPM or by the recovery key.
//!
//! Keys have 256 random bits, so that stretching them would only cost time: PBKDF2 with its least
//! number of rounds.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use vitalgate_layout::{partition, path};

use super::StorageError;
use super::recovery_key::RecoveryKey;
use super::tpm;
use crate::command::{Call, CommandError, Programs};
use crate::places::Places;

/// Rounds of PBKDF2: the least that cryptsetup takes.
const KEY_ROUNDS: &str = "1000";
/// What making a file system may take, in seconds: a large disk without discard.
const MKFS_DEADLINE_S: u64 = 600;
const DISK_REMEDY: &str = "the disk refuses to write or is damaged: replace it";
const TPM_REMEDY: &str = "switch the TPM on in the firmware; when it was cleared or replaced, the recovery key opens the data";
const ATTACH: &str = "/lib/systemd/systemd-cryptsetup";
/// PCR 7: Secure Boot's own keys.
pub(super) const LITERAL_PCRS: &str = "7";
/// PCR 11: the signed kernel image; its future values are signed by whoever builds it.
pub(super) const SIGNED_PCRS: &str = "11";

/// Works on one partition.
pub(super) struct Volume<'a> {
    pub(super) programs: &'a dyn Programs,
    pub(super) places: &'a Places,
    pub(super) device: &'a Path,
}

impl Volume<'_> {
    /// Where the opened volume is.
    pub(super) fn mapping(places: &Places) -> PathBuf {
        places.at("/dev/mapper").join(partition::DATA_MAPPING)
    }

    /// Makes a new, empty volume that the recovery key opens. Whatever was there is gone after that.
    pub(super) fn format(&self, recovery: &RecoveryKey) -> Result<(), StorageError> {
        let call = Call::new("cryptsetup", DISK_REMEDY)
            .arguments(["luksFormat", "--batch-mode", "--type", "luks2", "--label", "vitalgate-data"])
            .arguments(["--cipher", "aes-xts-plain64", "--key-size", "512", "--hash", "sha256"])
            .arguments(["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", KEY_ROUNDS, "--key-file", "-"])
            .arguments([self.device])
            .deadline(tpm::DEADLINE);
        self.programs.run(call.input(recovery.text().as_bytes()))?;
        Ok(())
    }

    /// Lets the TPM open the volume from now on, and takes older seals away.
    pub(super) fn seal(&self, recovery: &RecoveryKey) -> Result<(), StorageError> {
        let call = || {
            Call::new("systemd-cryptenroll", TPM_REMEDY)
                .arguments(["--wipe-slot=tpm2", "--tpm2-device=auto"])
                .arguments([format!("--tpm2-pcrs={LITERAL_PCRS}"), format!("--tpm2-public-key-pcrs={SIGNED_PCRS}")])
                .arguments([option("--tpm2-public-key=", self.places, path::PCR_PUBLIC_KEY)])
                .arguments([option("--tpm2-signature=", self.places, path::PCR_SIGNATURE)])
                .arguments([self.device])
                // The only way in this release that needs no file; the environment of a root's process is root's own.
                .environment("PASSWORD", recovery.text().as_str())
        };
        tpm::ask(self.programs, &call).map_err(StorageError::NotSealed)?;
        Ok(())
    }

    /// Takes every seal away. A seal of another TPM must go before a new one is made: systemd-cryptenroll compares
    /// policies only, takes the old one for the new one, and does nothing.
    pub(super) fn unseal(&self, recovery: &RecoveryKey) -> Result<(), StorageError> {
        let call = Call::new("systemd-cryptenroll", DISK_REMEDY)
            .arguments(["--wipe-slot=tpm2"])
            .arguments([self.device])
            .environment("PASSWORD", recovery.text().as_str())
            .deadline(tpm::DEADLINE);
        self.programs.run(call).map_err(StorageError::NotSealed)?;
        Ok(())
    }

    /// Opens by the TPM.
    pub(super) fn attach(&self) -> Result<(), StorageError> {
        let signature = option("tpm2-signature=", self.places, path::PCR_SIGNATURE);
        let call = || {
            Call::new(ATTACH, TPM_REMEDY)
                .arguments(["attach", partition::DATA_MAPPING])
                .arguments([self.device])
                .arguments(["-", &format!("tpm2-device=auto,{signature},headless=true,token-timeout=15s,luks")])
                .environment("SYSTEMD_CRYPTSETUP_USE_TOKEN_MODULE", "0")
        };
        tpm::ask(self.programs, &call).map_err(StorageError::DoesNotOpen)?;
        Ok(())
    }

    /// Opens by a key.
    pub(super) fn open_by_key(&self, key: &[u8]) -> Result<(), CommandError> {
        let call = Call::new("cryptsetup", "compare the key with the label: every appliance has its own")
            .arguments(["open", "--type", "luks2", "--batch-mode", "--key-file", "-"])
            .arguments([self.device])
            .arguments([partition::DATA_MAPPING]);
        self.programs.run(call.input(key)).map(drop)
    }

    /// Closes it.
    pub(super) fn close(&self) -> Result<(), StorageError> {
        let call = Call::new("cryptsetup", "restart the appliance").arguments(["close", partition::DATA_MAPPING]);
        self.programs.run(call)?;
        Ok(())
    }

    /// Makes the file system in the opened volume, with what is in a folder, and waits until the disk has it.
    pub(super) fn fill(&self, content: &Path) -> Result<(), StorageError> {
        let mapping = Self::mapping(self.places);
        let call = Call::new("mkfs.ext4", DISK_REMEDY)
            .arguments(["-q", "-F", "-L", "vitalgate-data", "-m", "1", "-d"])
            .arguments([content, &mapping])
            .deadline(Duration::from_secs(MKFS_DEADLINE_S));
        self.programs.run(call)?;
        synchronise(&mapping).and_then(|()| synchronise(self.device)).map_err(StorageError::Synchronise)
    }
}

/// Waits until the disk has what was written to a device.
fn synchronise(device: &Path) -> io::Result<()> {
    File::open(device)?.sync_all()
}

/// Whether the machine has a TPM that the kernel can use.
pub(crate) fn has_tpm(places: &Places) -> bool {
    fs::read_dir(places.at("/sys/class/tpmrm")).is_ok_and(|mut found| found.next().is_some())
}

fn option(name: &str, places: &Places, file: &str) -> String {
    format!("{name}{}", places.at(file).display())
}

#[cfg(test)]
mod tests {
    use super::super::content::Skeleton;
    use super::*;
    use crate::command::System;

    /// With the real programs on plain files: the recovery key's printed text is the passphrase, and the
    /// file system is made with its folders and keys, without ever being mounted.
    #[test]
    fn a_volume_is_made_whole_by_the_real_programs() {
        let folder = tempfile::tempdir().unwrap();
        let places = Places::under(folder.path());
        fs::create_dir_all(places.at("/dev/mapper")).unwrap();
        fs::create_dir_all(places.at("/run")).unwrap();
        let device = places.at("/dev/vda6");
        File::create(&device).unwrap().set_len(64 << 20).unwrap();
        let volume = Volume { programs: &System, places: &places, device: &device };
        let recovery = RecoveryKey::generate().unwrap();
        volume.format(&recovery).unwrap();
        let call = || Call::new("cryptsetup", "").arguments(["open", "--test-passphrase", "--key-file", "-"]).arguments([&device]);
        assert!(System.attempt(call().input(recovery.text().as_bytes())).unwrap().success);
        assert!(!System.attempt(call().input("another")).unwrap().success);
        let dump = System.run(Call::new("cryptsetup", "").arguments(["luksDump"]).arguments([&device])).unwrap().text();
        assert!(dump.contains("aes-xts-plain64") && dump.contains("pbkdf2") && !dump.contains("argon2"), "{dump}");

        let mapping = Volume::mapping(&places);
        File::create(&mapping).unwrap().set_len(64 << 20).unwrap();
        let text = recovery.text();
        let skeleton = Skeleton::new(&places, &[(path::RECOVERY_KEY, text.as_bytes())]).unwrap();
        volume.fill(&skeleton.folder()).unwrap();
        let ask = |question: &str| System.run(Call::new("debugfs", "").arguments(["-R", question]).arguments([&mapping])).unwrap().text();
        assert!(ask("ls /").contains("appliance") && ask("ls /").contains("journal"));
        assert_eq!(ask("cat /appliance/recovery-key"), text.as_str());
        assert!(ask("stat /appliance/recovery-key").contains("Mode:  0600"));
        assert!(ask("stat /appliance").contains("Mode:  0700"));
    }
}
