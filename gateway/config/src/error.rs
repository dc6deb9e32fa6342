//! One thing that is wrong with a configuration.

use std::fmt;

/// What is wrong, where, and what to do. Reads `file:line: message; remedy`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The file as it was named.
    pub file: String,
    /// The line, counted from 1; 0 when the whole file is meant.
    pub line: u32,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(formatter, "{}: {}; {}", self.file, self.message, self.remedy),
            line => write!(formatter, "{}:{line}: {}; {}", self.file, self.message, self.remedy),
        }
    }
}

impl std::error::Error for ConfigError {}
