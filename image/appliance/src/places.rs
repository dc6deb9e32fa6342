//! Where files are: under `/`, or under a folder that stands in for it.

use std::path::{Path, PathBuf};

/// The root that the absolute paths of [`vitalgate_layout::path`] are taken from.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    root: PathBuf,
}

impl Places {
    /// The running appliance.
    pub(crate) fn system() -> Self {
        Self::under(Path::new("/"))
    }

    /// A folder in its place.
    pub(crate) fn under(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// Where an absolute path of the appliance is.
    pub(crate) fn at(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }
}
