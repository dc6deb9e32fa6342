//! The first program of the boot: finds the slot that fits the signed root hash, verifies it and hands over.
//!
//! The kernel image is signed and measured as a whole, this program and the root hash on its command
//! line with it. What the disk says is believed only where it fits that hash. Whatever fails ends
//! the program; the kernel then panics and restarts, and the boot loader counts one try less.

#![forbid(unsafe_code)]

mod console;
mod handover;
mod identity;
mod kernel_modules;
mod slots;
mod verity;

use std::{fs, io, path::Path, process::ExitCode};

use nix::mount::{MsFlags, mount};

/// Argument of the kernel's command line with the hash that the root must have.
const ROOT_HASH_ARGUMENT: &str = "vitalgate.roothash=";

/// Why the appliance can not start.
#[derive(Debug, thiserror::Error)]
enum BootError {
    #[error("the kernel's command line has no {ROOT_HASH_ARGUMENT}<64 hex digits>: the boot image was built wrongly")]
    NoRootHash,
    #[error("no slot on any disk fits the signed root hash {wanted}: found {found}; the root was damaged or belongs to another version")]
    NoSlot { wanted: String, found: String },
    #[error("{doing} failed")]
    System {
        doing: String,
        #[source]
        source: io::Error,
    },
    #[error("veritysetup could not open {data} with the signed root hash: {outcome}")]
    Verity { data: String, outcome: String },
}

impl BootError {
    fn system(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { doing: doing.into(), source }
    }
}

fn main() -> ExitCode {
    match boot() {
        Ok(never) => match never {},
        Err(error) => {
            console::report(&error);
            // The end of the first program is a kernel panic, and that a restart.
            ExitCode::FAILURE
        }
    }
}

fn boot() -> Result<std::convert::Infallible, BootError> {
    mount_kernel_folders()?;
    let root_hash = root_hash()?;
    let slot = kernel_modules::load_until(Path::new("/modules"), || slots::find(&root_hash))
        .map_err(BootError::system("loading drivers"))?
        .ok_or_else(|| BootError::NoSlot { wanted: verity::hex(&root_hash), found: slots::describe() })?;
    verity::open(&slot, &root_hash)?;
    handover::leave_notes(&slot, &root_hash)?;
    handover::switch()
}

fn mount_kernel_folders() -> Result<(), BootError> {
    let hardened = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let folders = [
        ("proc", "/proc", hardened, None),
        ("sysfs", "/sys", hardened, None),
        ("devtmpfs", "/dev", MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC, Some("mode=0755")),
        ("tmpfs", "/run", MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some("mode=0755")),
    ];
    for (kind, target, flags, options) in folders {
        fs::create_dir_all(target).map_err(BootError::system(format!("creating {target}")))?;
        mount(Some(kind), target, Some(kind), flags, options)
            .map_err(|error| BootError::system(format!("mounting {target}"))(error.into()))?;
    }
    Ok(())
}

fn root_hash() -> Result<[u8; 32], BootError> {
    let line = fs::read_to_string("/proc/cmdline").map_err(BootError::system("reading the kernel's command line"))?;
    line.split_ascii_whitespace()
        .find_map(|argument| argument.strip_prefix(ROOT_HASH_ARGUMENT))
        .and_then(verity::parse_hash)
        .ok_or(BootError::NoRootHash)
}
