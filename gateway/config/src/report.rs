//! Collects what is wrong with a text, with lines.

use crate::error::ConfigError;

/// Most errors that are listed; more than that is another kind of file.
const ERRORS_MAX: usize = 200;

/// Everything found wrong with one file so far.
#[derive(Debug)]
pub struct Report {
    file: String,
    /// Byte offset of the start of each line.
    starts: Vec<usize>,
    errors: Vec<ConfigError>,
}

impl Report {
    /// Nothing yet. `file` is how it is named in the errors, `text` what it holds.
    #[must_use]
    pub fn new(file: &str, text: &str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { file: file.to_owned(), starts, errors: Vec::new() }
    }

    /// The line of a byte offset, counted from 1.
    #[must_use]
    pub fn line(&self, offset: usize) -> u32 {
        u32::try_from(self.starts.partition_point(|start| *start <= offset)).unwrap_or(u32::MAX)
    }

    /// Notes an error at a byte offset.
    pub fn at(&mut self, offset: usize, message: impl Into<String>, remedy: impl Into<String>) {
        self.on_line(self.line(offset), message, remedy);
    }

    /// Notes an error on a line; 0 is the whole file.
    pub fn on_line(&mut self, line: u32, message: impl Into<String>, remedy: impl Into<String>) {
        self.errors.push(ConfigError { file: self.file.clone(), line, message: message.into(), remedy: remedy.into() });
    }

    /// Everything, by line; empty when nothing is wrong.
    #[must_use]
    pub fn into_errors(mut self) -> Vec<ConfigError> {
        self.errors.sort_by_key(|error| error.line);
        let more = self.errors.len().saturating_sub(ERRORS_MAX);
        self.errors.truncate(ERRORS_MAX);
        if more > 0 {
            let line = self.errors.last().map_or(0, |last| last.line);
            self.on_line(line, format!("{more} more errors follow"), "correct those above first");
        }
        self.errors
    }

    /// Whether nothing was found.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.errors.is_empty()
    }

    /// How many there are so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.errors.len()
    }
}
