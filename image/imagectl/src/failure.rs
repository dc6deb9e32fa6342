//! What went wrong, what to do, and the exit code.

use std::fmt;
use std::io;
use std::path::Path;
use std::process::ExitCode;

/// Exit codes, as `docs/imagectl.md` lists them. 2 is a wrong command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    /// A check failed: signature, hash, text.
    Refused = 1,
    /// The target cannot be written to, or must not be.
    Target = 3,
    /// A file cannot be read or written, a program is missing.
    Machine = 4,
}

/// A failure; reads `what; remedy`.
#[derive(Debug)]
pub(crate) struct Failure {
    code: Code,
    what: String,
    remedy: String,
}

impl Failure {
    pub(crate) fn refused(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { code: Code::Refused, what: what.into(), remedy: remedy.into() }
    }

    pub(crate) fn target(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { code: Code::Target, what: what.into(), remedy: remedy.into() }
    }

    pub(crate) fn machine(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { code: Code::Machine, what: what.into(), remedy: remedy.into() }
    }

    /// A file that cannot be read.
    pub(crate) fn unreadable(path: &Path, error: &io::Error) -> Self {
        Self::machine(format!("{} cannot be read ({error})", path.display()), "check the path, and that you may read it")
    }

    /// A file that cannot be written.
    pub(crate) fn unwritable(path: &Path, error: &io::Error) -> Self {
        Self::machine(format!("{} cannot be written ({error})", path.display()), "check the folder, and that there is room")
    }

    /// What went wrong, without the remedy.
    pub(crate) fn what(&self) -> &str {
        &self.what
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code as u8)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}; {}", self.what, self.remedy)
    }
}

impl std::error::Error for Failure {}

/// What every command returns.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;
