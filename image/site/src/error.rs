//! What is wrong with a text, line by line.

use std::fmt;

/// Most errors that are listed; more than that is another kind of file.
const ERRORS_MAX: usize = 200;

/// What is wrong, where, and what to do. Reads `file:line: message; remedy`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiteError {
    /// The file as it was named.
    pub file: String,
    /// The line, counted from 1; 0 when the whole file is meant.
    pub line: u32,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
}

impl fmt::Display for SiteError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(formatter, "{}: {}; {}", self.file, self.message, self.remedy),
            line => write!(formatter, "{}:{line}: {}; {}", self.file, self.message, self.remedy),
        }
    }
}

impl std::error::Error for SiteError {}

/// Everything found wrong so far.
pub(crate) struct Findings {
    file: String,
    /// Byte offset of the start of each line.
    starts: Vec<usize>,
    errors: Vec<SiteError>,
}

impl Findings {
    pub(crate) fn new(file: &str, text: &str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { file: file.to_owned(), starts, errors: Vec::new() }
    }

    /// The line of a byte offset, counted from 1.
    pub(crate) fn line(&self, offset: usize) -> u32 {
        u32::try_from(self.starts.partition_point(|start| *start <= offset)).unwrap_or(u32::MAX)
    }

    /// Notes an error at a byte offset.
    pub(crate) fn at(&mut self, offset: usize, message: impl Into<String>, remedy: impl Into<String>) {
        self.on_line(self.line(offset), message, remedy);
    }

    /// Notes an error on a line; 0 is the whole file.
    pub(crate) fn on_line(&mut self, line: u32, message: impl Into<String>, remedy: impl Into<String>) {
        self.errors.push(SiteError { file: self.file.clone(), line, message: message.into(), remedy: remedy.into() });
    }

    /// Whether nothing was found.
    pub(crate) fn is_empty(&self) -> bool {
        self.errors.is_empty()
    }

    /// Everything, by line.
    pub(crate) fn into_errors(mut self) -> Vec<SiteError> {
        self.errors.sort_by_key(|error| error.line);
        let more = self.errors.len().saturating_sub(ERRORS_MAX);
        self.errors.truncate(ERRORS_MAX);
        if more > 0 {
            let line = self.errors.last().map_or(0, |last| last.line);
            self.on_line(line, format!("{more} more errors follow"), "correct those above first");
        }
        self.errors
    }
}
