//! A small file system of its own, to be filled.
#![allow(clippy::print_stdout, reason = "a test that was left out says so")]

use std::fs::File;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, ensure};
use nix::sys::statvfs::statvfs;
use nix::unistd::{Gid, Uid};
use tempfile::TempDir;

/// Set to 1 where loop devices are not to be had: the tests of a full disk are left out, and say so.
const LEFT_OUT: &str = "VITALGATE_NO_MOUNT";

/// An ext4 in a file; unmounted when this is dropped, in a panic too.
#[derive(Debug)]
pub struct SmallDisk {
    folder: TempDir,
}

impl SmallDisk {
    /// Makes and mounts one of so many bytes. `None` where `VITALGATE_NO_MOUNT=1` says that this machine cannot.
    ///
    /// # Errors
    /// Where neither this user nor `sudo` may mount.
    pub fn mounted(bytes: u64) -> anyhow::Result<Option<Self>> {
        if std::env::var_os(LEFT_OUT).is_some_and(|value| value == "1") {
            println!("NOT RUN: {LEFT_OUT}=1, so the full disk was not tried");
            return Ok(None);
        }
        let folder = tempfile::tempdir()?;
        let image = folder.path().join("image");
        File::create(&image)?.set_len(bytes)?;
        let image = image.display().to_string();
        // No space is kept for root: what runs on it may be root.
        run("mkfs.ext4", &["-q", "-F", "-m", "0", &image]).or_else(|_| run("/sbin/mkfs.ext4", &["-q", "-F", "-m", "0", &image]))?;
        let disk = Self { folder };
        std::fs::create_dir(disk.path())?;
        let target = disk.path().display().to_string();
        let remedy =
            || format!("no file system could be mounted: run as root, or with sudo, where loop devices are allowed, or set {LEFT_OUT}=1");
        as_root("mount", &["-o", "loop", &image, &target]).with_context(remedy)?;
        let owner = format!("{}:{}", Uid::current(), Gid::current());
        as_root("chown", &[&owner, &target])?;
        Ok(Some(disk))
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("disk")
    }

    /// Bytes that are free on it.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub fn free(&self) -> anyhow::Result<u64> {
        let space = statvfs(&self.path())?;
        Ok(space.blocks_available() * space.fragment_size())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a process that was just killed may hold it for a moment longer.
        if let Err(error) = as_root("umount", &["--lazy", &self.path().display().to_string()]) {
            println!("not unmounted: {error}");
        }
    }
}

fn as_root(program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    if Uid::effective().is_root() {
        return run(program, arguments);
    }
    let mut sudo = vec!["-n", program];
    sudo.extend(arguments);
    run("sudo", &sudo)
}

fn run(program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let output = Command::new(program).args(arguments).output().with_context(|| program.to_owned())?;
    ensure!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}
