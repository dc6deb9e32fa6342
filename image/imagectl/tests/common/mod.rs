//! Runs the tool as a technician would.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    dead_code,
    reason = "a helper of tests fails loudly; not every test uses all"
)]

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// What the tool said.
pub(crate) struct Said {
    /// Exit code.
    pub(crate) code: i32,
    /// Results.
    pub(crate) out: String,
    /// Everything else.
    pub(crate) err: String,
}

/// Runs the tool with nobody there to answer.
pub(crate) fn run<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Said {
    said(Command::new(env!("CARGO_BIN_EXE_imagectl")).args(arguments).stdin(Stdio::null()).output().unwrap())
}

/// Runs the tool with somebody there who gives these answers, one a line, and then no more.
pub(crate) fn answered<A: AsRef<OsStr>>(answers: &str, arguments: impl IntoIterator<Item = A>) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_imagectl"));
    let mut child = command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // One that refuses at once reads none of them.
    let _ = child.stdin.take().unwrap().write_all(answers.as_bytes());
    said(child.wait_with_output().unwrap())
}

fn said(output: Output) -> Said {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Said { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
}

/// It did what it should.
pub(crate) fn ok<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> String {
    let said = run(arguments);
    assert_eq!(said.code, 0, "{}{}", said.out, said.err);
    said.out
}

/// It refused with this code, for this reason, and with a remedy.
pub(crate) fn refused<A: AsRef<OsStr>>(code: i32, why: &str, arguments: impl IntoIterator<Item = A>) {
    let said = run(arguments);
    assert_eq!(said.code, code, "{}{}", said.out, said.err);
    let line = said.err.lines().last().unwrap();
    assert!(said.err.contains(why) && line.contains("; "), "{why}, in: {}", said.err);
}

/// A folder that cleans up after itself.
pub(crate) struct Folder(TempDir);

impl Folder {
    /// An empty one.
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// A path in it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The same as text.
    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// Writes a file.
    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        std::fs::write(self.path(name), bytes).unwrap();
        self.text(name)
    }

    /// Reads a file.
    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    /// Makes a key pair and returns its private file.
    pub(crate) fn key(&self, name: &str) -> String {
        ok(["provision", "keygen", &self.text(name)]);
        self.text(&format!("{name}.key"))
    }
}

/// A file's bytes with one changed.
pub(crate) fn with_a_changed_byte(path: &Path, at: usize) -> Vec<u8> {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 0x40;
    bytes
}
