//! Rules of the repository as tests. Each test names the rule and says how to mend a breach.

#![forbid(unsafe_code)]
#![cfg(test)]

mod arrows;
mod documents;
mod image;
mod setup;
mod sources;

use std::path::{Path, PathBuf};
use std::process::Command;

/// The root of the repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().to_owned()
}

/// Every file under version control with its text, binary files left out.
fn tracked_files() -> Vec<(String, String)> {
    let listing = Command::new("git").args(["ls-files", "-z"]).current_dir(root()).output().unwrap();
    let reason = String::from_utf8_lossy(&listing.stderr);
    assert!(listing.status.success(), "the rules look at the files that git tracks: run them in a clone of your own. {reason}");
    let names = String::from_utf8(listing.stdout).unwrap();
    let files: Vec<_> = names
        .split('\0')
        .filter(|name| !name.is_empty())
        .filter_map(|name| std::fs::read(root().join(name)).ok().map(|bytes| (name.to_owned(), bytes)))
        .filter_map(|(name, bytes)| String::from_utf8(bytes).ok().map(|text| (name, text)))
        .collect();
    assert!(files.len() > 50, "only {} files found: the rules would pass for nothing", files.len());
    files
}

/// Fails with one line a breach.
fn assert_none(rule: &str, breaches: &[String]) {
    assert!(breaches.is_empty(), "{rule}\n{}", breaches.join("\n"));
}
