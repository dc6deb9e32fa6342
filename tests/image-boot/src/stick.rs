//! USB sticks: a file with a FAT file system, written and read with mtools.

use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use vitalgate_test_support::wait_until;

use crate::command;
use crate::machine::patience;

/// Smallest stick in KiB.
const SMALLEST_KIB: u64 = 16 * 1024;

/// Where FAT16, which sticks of this size have, notes that somebody writes to it, and the bit (Linux, `msdos_fs.h`, `fat16.state`).
const STATE_BYTE: u64 = 0x25;
const STATE_IN_USE: u8 = 1;

/// A stick while it is not plugged in.
#[derive(Debug, Clone)]
pub(crate) struct Stick {
    file: PathBuf,
}

impl Stick {
    /// A stick with this label and these files (name on the stick, file of the host).
    ///
    /// # Errors
    /// When a tool is missing or a file cannot be read.
    pub(crate) async fn new(file: &Path, label: &str, contents: &[(&str, &Path)]) -> anyhow::Result<Self> {
        let mut bytes = 0;
        for (_, path) in contents {
            bytes += std::fs::metadata(path).with_context(|| format!("{} is missing", path.display()))?.len();
        }
        let kib = (bytes / 1024 * 11 / 10 + SMALLEST_KIB).next_multiple_of(1024);
        let stick = Self::blank(file, kib)?;
        command::run("mkfs.vfat", ["-n", label, stick.name()?]).await?;
        for (name, path) in contents {
            stick.put(name, path).await?;
        }
        Ok(stick)
    }

    /// A stick of random bytes.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn garbage(file: &Path, seed: u64) -> anyhow::Result<Self> {
        let mut random = fastrand::Rng::with_seed(seed);
        let bytes: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(8 * 1024 * 1024).collect();
        std::fs::write(file, bytes).context("the stick cannot be written")?;
        Ok(Self { file: file.to_owned() })
    }

    fn blank(file: &Path, kib: u64) -> anyhow::Result<Self> {
        if file.exists() {
            std::fs::remove_file(file)?;
        }
        std::fs::File::create(file).and_then(|created| created.set_len(kib * 1024)).context("the stick cannot be made")?;
        Ok(Self { file: file.to_owned() })
    }

    fn name(&self) -> anyhow::Result<&str> {
        self.file.to_str().context("a path that is not UTF-8")
    }

    /// The file that holds it.
    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    /// Writes a file of the host to the stick.
    ///
    /// # Errors
    /// When mtools fails.
    pub(crate) async fn put(&self, name: &str, from: &Path) -> anyhow::Result<()> {
        let from = from.to_str().context("a path that is not UTF-8")?;
        command::run("mcopy", ["-o", "-i", self.name()?, from, &format!("::{name}")]).await.map(drop)
    }

    /// Deletes a file on the stick.
    ///
    /// # Errors
    /// When mtools fails.
    pub(crate) async fn remove(&self, name: &str) -> anyhow::Result<()> {
        command::run("mdel", ["-i", self.name()?, &format!("::{name}")]).await.map(drop)
    }

    /// Copies everything on the stick into a new folder.
    ///
    /// # Errors
    /// When mtools fails.
    pub(crate) async fn read_back(&self, folder: &Path) -> anyhow::Result<()> {
        if folder.exists() {
            std::fs::remove_dir_all(folder)?;
        }
        std::fs::create_dir_all(folder)?;
        let to = folder.to_str().context("a path that is not UTF-8")?;
        command::run("mcopy", ["-s", "-n", "-m", "-i", self.name()?, "::*", to]).await.map(drop)
    }

    /// Waits until the appliance has written a file to the stick and let go of it; the file's text.
    ///
    /// # Errors
    /// When it has not in time.
    pub(crate) async fn written(&self, name: &str, within: Duration) -> anyhow::Result<String> {
        let done = async || if self.in_use() { None } else { self.text(name).await };
        wait_until(&format!("{name} on the stick"), patience(within), done).await
    }

    fn in_use(&self) -> bool {
        let mut state = [0];
        let read = std::fs::File::open(&self.file).and_then(|file| file.read_exact_at(&mut state, STATE_BYTE));
        read.is_err() || state[0] & STATE_IN_USE != 0
    }

    /// The text of a file on the stick; `None` when it is not there.
    pub(crate) async fn text(&self, name: &str) -> Option<String> {
        command::run("mtype", ["-i", self.name().ok()?, &format!("::{name}")]).await.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_put_on_a_stick_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("hello");
        std::fs::write(&file, "good day").unwrap();
        let stick = Stick::new(&folder.path().join("stick.img"), "PROVISION", &[("hello.txt", &file)]).await.unwrap();
        assert_eq!(stick.text("hello.txt").await.as_deref(), Some("good day"));
        stick.read_back(&folder.path().join("back")).await.unwrap();
        assert_eq!(std::fs::read_to_string(folder.path().join("back/hello.txt")).unwrap(), "good day");
    }
}
