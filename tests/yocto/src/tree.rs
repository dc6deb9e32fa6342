//! The repository, or a copy of it.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// A tree of files with the layout of the repository.
#[derive(Debug, Clone)]
pub struct Tree {
    root: PathBuf,
}

impl Tree {
    /// The tree below `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The repository that this was built in.
    pub fn repository() -> Self {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        Self::new(here.ancestors().nth(2).unwrap_or(here))
    }

    /// Where `name` is.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// The text of a file; empty if there is none, so that a rule says what it misses.
    pub fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// Replaces a file.
    ///
    /// # Errors
    /// The file can not be written.
    pub fn write(&self, name: &str, text: &str) -> io::Result<()> {
        fs::write(self.path(name), text)
    }

    /// Whether there is a file, a folder or a link of that name.
    pub fn has(&self, name: &str) -> bool {
        self.path(name).symlink_metadata().is_ok()
    }

    /// All files and links below a folder, by their names from the root of the tree, in order.
    pub fn files(&self, folder: &str) -> Vec<String> {
        let mut found = Vec::new();
        let mut waiting = vec![folder.to_owned()];
        while let Some(folder) = waiting.pop() {
            for entry in fs::read_dir(self.path(&folder)).into_iter().flatten().flatten() {
                let name = format!("{folder}/{}", entry.file_name().to_string_lossy());
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    waiting.push(name);
                } else {
                    found.push(name);
                }
            }
        }
        found.sort();
        found
    }

    /// Files of the layer that bitbake reads.
    pub(crate) fn metadata(&self) -> Vec<String> {
        let endings = [".bb", ".bbappend", ".bbclass", ".inc", ".conf", ".wks.in"];
        self.files("yocto-layer").into_iter().filter(|name| endings.iter().any(|ending| name.ends_with(ending))).collect()
    }
}
