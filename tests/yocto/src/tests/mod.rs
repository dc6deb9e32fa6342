//! All rules on the repository; each rule on a copy with a fault in it; the tools of both worlds.

mod drift;
mod lint;
mod repository;
mod shared;

use std::{fs, path::Path};

use tempfile::TempDir;

use crate::Tree;

/// A copy of what the rules look at.
struct Copy {
    tree: Tree,
    _folder: TempDir,
}

impl Copy {
    fn of_the_repository() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let original = Tree::repository();
        let tree = Tree::new(folder.path());
        let single = ["Cargo.toml", "Cargo.lock"].into_iter().map(str::to_owned);
        let names: Vec<_> = single.chain(original.files("yocto-layer")).chain(original.files("image")).collect();
        assert!(names.len() > 40, "only {} files found: the faults would be planted in nothing", names.len());
        for name in names {
            let (from, to) = (original.path(&name), tree.path(&name));
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            copy(&from, &to);
        }
        // Of these a recipe needs no more than that they are there.
        for name in ["gateway", "device-drivers", "cloud-bridge", "tests"] {
            fs::create_dir_all(tree.path(name)).unwrap();
        }
        Self { tree, _folder: folder }
    }

    /// Replaces a piece of a file.
    fn replace(&self, name: &str, old: &str, new: &str) {
        let text = self.tree.text(name);
        assert!(text.contains(old), "{name} has no `{old}`: the fault would not be planted");
        self.tree.write(name, &text.replace(old, new)).unwrap();
    }

    fn add(&self, name: &str, text: &str) {
        fs::create_dir_all(self.tree.path(name).parent().unwrap()).unwrap();
        self.tree.write(name, text).unwrap();
    }

    fn remove(&self, name: &str) {
        let path = self.tree.path(name);
        if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
    }
}

fn copy(from: &Path, to: &Path) {
    if from.is_symlink() {
        std::os::unix::fs::symlink(fs::read_link(from).unwrap(), to).unwrap();
    } else {
        fs::copy(from, to).unwrap();
    }
}
