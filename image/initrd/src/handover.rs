//! Notes for those who come after, and the change into the verified root.

use std::{
    convert::Infallible,
    fs,
    io::{self, ErrorKind},
    os::unix::{fs::chroot, process::CommandExt},
    path::Path,
    process::Command,
};

use nix::mount::{MsFlags, mount};
use vitalgate_layout::{partition::ROOT_MAPPING, path};

use crate::{BootError, identity, slots::FoundSlot, verity};

const NEW_ROOT: &str = "/sysroot";
const SYSTEMD: &str = "/usr/lib/systemd/systemd";
/// Where the boot stub leaves what came with the signed kernel image (systemd-stub(7)).
const STUB_FILES: [(&str, &str); 2] =
    [("/.extra/tpm2-pcr-signature.json", path::PCR_SIGNATURE), ("/.extra/tpm2-pcr-public-key.pem", path::PCR_PUBLIC_KEY)];
/// All that the initrd holds: freed before the change.
const INITRD_FOLDERS: [&str; 6] = ["/modules", "/usr", "/lib", "/lib64", "/.extra", "/init"];

/// Writes the slot, the root hash, the machine's name and what the stub handed over to `/run`.
///
/// # Errors
/// A file can not be written.
pub(crate) fn leave_notes(slot: &FoundSlot, root_hash: &[u8; 32]) -> Result<(), BootError> {
    let boot = format!("VITALGATE_SLOT={}\nVITALGATE_ROOT_HASH={}\n", slot.slot, verity::hex(root_hash));
    write(path::BOOT_ENV, &boot)?;
    fs::create_dir_all(path::STATE_FOLDER).map_err(BootError::system("creating the folder of states"))?;
    // By its name udev tells our partitions from those of a stick that bears the same labels.
    write(&format!("{}/{}", path::BOOT_DISK, slot.disk), "")?;
    write(path::MACHINE_ID, &format!("{}\n", identity::machine_id()))?;
    for (from, to) in STUB_FILES {
        match fs::read_to_string(from) {
            Ok(content) => write(to, &content)?,
            // A machine without a TPM gets none.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(BootError::system(format!("reading {from}"))(error)),
        }
    }
    Ok(())
}

fn write(file: &str, content: &str) -> Result<(), BootError> {
    let parent = Path::new(file).parent().map_or(Ok(()), fs::create_dir_all);
    parent.and_then(|()| fs::write(file, content)).map_err(BootError::system(format!("writing {file}")))
}

/// Makes the verified root the root and becomes systemd.
///
/// # Errors
/// Any step that fails; it does not return otherwise.
pub(crate) fn switch() -> Result<Infallible, BootError> {
    let device = format!("/dev/mapper/{ROOT_MAPPING}");
    fs::create_dir_all(NEW_ROOT).map_err(BootError::system("creating the mount point of the root"))?;
    mount(Some(device.as_str()), NEW_ROOT, Some("squashfs"), MsFlags::MS_RDONLY | MsFlags::MS_NODEV, None::<&str>)
        .map_err(|error| BootError::system(format!("mounting {device}"))(error.into()))?;
    for folder in ["/proc", "/sys", "/dev", "/run"] {
        move_mount(folder, &format!("{NEW_ROOT}{folder}")).map_err(BootError::system(format!("moving {folder}")))?;
    }
    for folder in INITRD_FOLDERS {
        // Memory that stays in use is no reason not to start.
        let _ = if folder == "/init" { fs::remove_file(folder) } else { fs::remove_dir_all(folder) };
    }
    let changed = std::env::set_current_dir(NEW_ROOT)
        .and_then(|()| move_mount(".", "/"))
        .and_then(|()| chroot("."))
        .and_then(|()| std::env::set_current_dir("/"));
    changed.map_err(BootError::system("changing into the root"))?;
    Err(BootError::system(format!("starting {SYSTEMD}"))(Command::new(SYSTEMD).env_clear().exec()))
}

fn move_mount(from: &str, to: &str) -> io::Result<()> {
    Ok(mount(Some(from), to, None::<&str>, MsFlags::MS_MOVE, None::<&str>)?)
}
