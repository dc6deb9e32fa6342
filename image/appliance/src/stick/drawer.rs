//! Sticks for tests: folders that are plugged in one after the other.

use std::cell::{Cell, RefCell};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::port::{Mounted, Plugged, StickError, Sticks};

/// A drawer of sticks. The first one is plugged in; a pause takes it out and plugs in the next. When
/// there is none left, whoever still waits fails the test.
#[derive(Default)]
pub(crate) struct Drawer {
    sticks: RefCell<Vec<(&'static str, PathBuf)>>,
    moment: Cell<i64>,
    protected: Cell<bool>,
}

impl Drawer {
    /// Sticks by label and folder.
    pub(crate) fn of(sticks: impl IntoIterator<Item = (&'static str, PathBuf)>) -> Self {
        Self { sticks: RefCell::new(sticks.into_iter().collect()), ..Self::default() }
    }

    /// All of them are write-protected.
    pub(crate) fn protected(self) -> Self {
        self.protected.set(true);
        self
    }
}

impl Sticks for Drawer {
    fn find(&self, label: &str) -> Option<Plugged> {
        let sticks = self.sticks.borrow();
        let (_, folder) = sticks.first().filter(|(name, _)| *name == label)?;
        Some(Plugged { label: label.to_owned(), device: folder.clone(), moment: self.moment.get() })
    }

    fn mount(&self, stick: &Plugged) -> Result<Box<dyn Mounted>, StickError> {
        let device = stick.device.as_path();
        if !device.is_dir() {
            return Err(StickError::Mount { device: device.to_owned(), reason: io::Error::other("no FAT") });
        }
        Ok(Box::new(Folder { folder: device.to_owned(), protected: self.protected.get() }))
    }

    fn pause(&self) {
        self.moment.set(self.moment.get() + 1);
        let mut sticks = self.sticks.borrow_mut();
        assert!(!sticks.is_empty(), "still waiting with no stick left");
        sticks.remove(0);
    }
}

/// A folder in place of a mounted stick.
pub(crate) struct Folder {
    pub(crate) folder: PathBuf,
    pub(crate) protected: bool,
}

impl Mounted for Folder {
    fn folder(&self) -> &Path {
        &self.folder
    }

    fn check_writable(&self) -> Result<(), StickError> {
        if self.protected { Err(StickError::NotWritable(io::Error::other("protected"))) } else { Ok(()) }
    }

    fn finish(self: Box<Self>) -> Result<(), StickError> {
        Ok(())
    }
}

/// A stick with one file.
pub(crate) fn stick_with(folder: &Path, name: &str, file: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
    let stick = folder.join(name);
    fs::create_dir_all(&stick).unwrap();
    fs::write(stick.join(file), bytes).unwrap();
    stick
}
