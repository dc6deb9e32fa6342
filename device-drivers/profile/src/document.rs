//! Reads a TOML document key by key and remembers the line of everything, so that all faults of a
//! file are told at once and no key is passed over in silence.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::error::{ProfileError, ProfileErrors};

/// Most faults that are told of one file; a file with more is not a profile.
const ERRORS_MAX: usize = 100;

/// The faults found so far in one file.
pub(crate) struct Report {
    file: String,
    line_starts: Vec<usize>,
    errors: Vec<ProfileError>,
}

/// A value with its place.
pub(crate) struct At<T> {
    pub(crate) value: T,
    pub(crate) line: usize,
    pub(crate) place: String,
}

impl Report {
    pub(crate) fn new(file: &str, text: &str) -> Self {
        let breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(index, _)| index + 1);
        Self { file: file.to_owned(), line_starts: std::iter::once(0).chain(breaks).collect(), errors: Vec::new() }
    }

    fn line(&self, offset: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= offset)
    }

    /// Notes a fault.
    pub(crate) fn add(&mut self, line: usize, place: &str, problem: impl Into<String>, remedy: impl Into<String>) {
        if self.errors.len() < ERRORS_MAX {
            let (file, place) = (self.file.clone(), place.to_owned());
            self.errors.push(ProfileError { file, line, place, problem: problem.into(), remedy: remedy.into() });
        }
    }

    /// Notes a fault of a value.
    pub(crate) fn at<T>(&mut self, at: &At<T>, problem: impl Into<String>, remedy: impl Into<String>) {
        self.add(at.line, &at.place, problem, remedy);
    }

    /// Parses the document; what cannot be parsed is noted.
    pub(crate) fn parse<'d>(&mut self, text: &'d str) -> Spanned<DeTable<'d>> {
        let (table, errors) = DeTable::parse_recoverable(text);
        for error in errors {
            let line = error.span().map_or(1, |span| self.line(span.start));
            self.add(line, "", error.message().to_owned(), "correct the TOML");
        }
        table
    }

    /// The outcome: the errors if there are any, else what was built.
    pub(crate) fn finish<T>(mut self, built: Option<T>) -> Result<T, ProfileErrors> {
        self.errors.sort_by_key(|error| error.line);
        match built {
            Some(built) if self.errors.is_empty() => Ok(built),
            _ => {
                if self.errors.is_empty() {
                    self.add(1, "", "the profile is incomplete", "compare it with a built-in profile");
                }
                Err(ProfileErrors(self.errors))
            }
        }
    }
}

/// A table being read. What is left unread when it is closed is a fault.
pub(crate) struct Section<'d> {
    pub(crate) path: String,
    pub(crate) line: usize,
    table: &'d DeTable<'d>,
    read: BTreeSet<&'static str>,
}

impl<'d> Section<'d> {
    pub(crate) fn root(table: &'d Spanned<DeTable<'d>>) -> Self {
        Self { path: String::new(), line: 1, table: table.get_ref(), read: BTreeSet::new() }
    }

    fn place(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    fn value(&mut self, report: &Report, key: &'static str) -> Option<At<&'d DeValue<'d>>> {
        self.read.insert(key);
        let (name, value) = self.table.iter().find(|(name, _)| name.get_ref() == key)?;
        Some(At { value: value.get_ref(), line: report.line(name.span().start), place: self.place(key) })
    }

    /// Whether the key is there; it still has to be read.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.table.iter().any(|(name, _)| name.get_ref() == key)
    }

    /// Notes a fault of the table as a whole.
    pub(crate) fn fault(&self, report: &mut Report, problem: impl Into<String>, remedy: impl Into<String>) {
        report.add(self.line, &self.path, problem, remedy);
    }

    fn missing(&self, report: &mut Report, key: &str) {
        report.add(self.line, &self.place(key), "is missing", "add it");
    }

    /// A text, where given.
    pub(crate) fn text(&mut self, report: &mut Report, key: &'static str) -> Option<At<&'d str>> {
        let at = self.value(report, key)?;
        match at.value {
            DeValue::String(text) if !text.trim().is_empty() => Some(At { value: text, line: at.line, place: at.place }),
            _ => {
                report.at(&at, "is not a text", "write it in quotes, not empty");
                None
            }
        }
    }

    /// A text that must be there.
    pub(crate) fn required_text(&mut self, report: &mut Report, key: &'static str) -> Option<At<&'d str>> {
        if !self.has(key) {
            self.missing(report, key);
        }
        self.text(report, key)
    }

    /// A text that may be empty: a JSON pointer to the whole message.
    pub(crate) fn pointer(&mut self, report: &mut Report, key: &'static str) -> Option<At<&'d str>> {
        let at = self.value(report, key)?;
        match at.value {
            DeValue::String(text) if text.is_empty() || text.starts_with('/') => Some(At { value: text, line: at.line, place: at.place }),
            _ => {
                report.at(&at, "is not a JSON pointer", "write it in quotes, starting with '/'");
                None
            }
        }
    }

    /// A JSON pointer that must be there.
    pub(crate) fn required_pointer(&mut self, report: &mut Report, key: &'static str) -> Option<At<&'d str>> {
        if !self.has(key) {
            self.missing(report, key);
        }
        self.pointer(report, key)
    }

    /// Where the statement comes from: every field and register must say so.
    pub(crate) fn source(&mut self, report: &mut Report) {
        if !self.has("source") {
            let remedy = "name the manual with section or page that says so";
            report.add(self.line, &self.place("source"), "is missing", remedy);
        }
        self.text(report, "source");
    }

    /// A whole number within a range, where given.
    pub(crate) fn integer(&mut self, report: &mut Report, key: &'static str, range: RangeInclusive<i64>) -> Option<At<i64>> {
        let at = self.value(report, key)?;
        match integer_of(at.value).filter(|number| range.contains(number)) {
            Some(value) => Some(At { value, line: at.line, place: at.place }),
            None => {
                report.at(&at, "is not a whole number in range", format!("give {} to {}", range.start(), range.end()));
                None
            }
        }
    }

    /// A whole number that must be there.
    pub(crate) fn required_integer(&mut self, report: &mut Report, key: &'static str, range: RangeInclusive<i64>) -> Option<At<i64>> {
        if !self.has(key) {
            self.missing(report, key);
        }
        self.integer(report, key, range)
    }

    /// Whole numbers within a range; empty where not given.
    pub(crate) fn integers(&mut self, report: &mut Report, key: &'static str, range: &RangeInclusive<i64>) -> Vec<i64> {
        let Some(at) = self.value(report, key) else { return Vec::new() };
        let numbers = match at.value {
            DeValue::Array(items) => items.iter().map(|item| integer_of(item.get_ref())).collect(),
            _ => None,
        };
        let numbers: Option<Vec<i64>> = numbers.filter(|numbers: &Vec<i64>| numbers.iter().all(|number| range.contains(number)));
        if numbers.is_none() {
            report.at(&at, "is not a list of whole numbers in range", format!("give {} to {}", range.start(), range.end()));
        }
        numbers.unwrap_or_default()
    }

    /// Texts; empty where not given.
    pub(crate) fn texts(&mut self, report: &mut Report, key: &'static str) -> Vec<At<&'d str>> {
        let Some(at) = self.value(report, key) else { return Vec::new() };
        let DeValue::Array(items) = at.value else {
            report.at(&at, "is not a list of texts", "write [\"...\", \"...\"]");
            return Vec::new();
        };
        let mut texts = Vec::with_capacity(items.len());
        for item in items.iter() {
            match item.get_ref() {
                DeValue::String(text) => {
                    texts.push(At { value: text.as_ref(), line: report.line(item.span().start), place: at.place.clone() })
                }
                _ => report.add(report.line(item.span().start), &at.place, "holds something else than texts", "put each in quotes"),
            }
        }
        texts
    }

    /// `true` or `false`; `false` where not given.
    pub(crate) fn flag(&mut self, report: &mut Report, key: &'static str) -> bool {
        let Some(at) = self.value(report, key) else { return false };
        match at.value {
            DeValue::Boolean(flag) => *flag,
            _ => {
                report.at(&at, "is neither true nor false", "write true or false without quotes");
                false
            }
        }
    }

    /// A table, where given.
    pub(crate) fn section(&mut self, report: &mut Report, key: &'static str) -> Option<Section<'d>> {
        let at = self.value(report, key)?;
        match at.value {
            DeValue::Table(table) => Some(Section { path: at.place, line: at.line, table, read: BTreeSet::new() }),
            _ => {
                report.at(&at, "is not a table", format!("write [{}]", at.place));
                None
            }
        }
    }

    /// A list of tables; empty where not given.
    pub(crate) fn sections(&mut self, report: &mut Report, key: &'static str) -> Vec<Section<'d>> {
        let Some(at) = self.value(report, key) else { return Vec::new() };
        let DeValue::Array(items) = at.value else {
            report.at(&at, "is not a list of tables", format!("write [[{}]]", at.place));
            return Vec::new();
        };
        let mut sections = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            let (path, line) = (format!("{}[{index}]", at.place), report.line(item.span().start));
            match item.get_ref() {
                DeValue::Table(table) => sections.push(Section { path, line, table, read: BTreeSet::new() }),
                _ => report.add(line, &path, "is not a table", "write { key = value, ... }"),
            }
        }
        sections
    }

    /// Ends the reading: a key that nobody asked for is a fault, most often a misspelling.
    pub(crate) fn close(self, report: &mut Report) {
        for (name, _) in self.table.iter().filter(|(name, _)| !self.read.contains(name.get_ref().as_ref())) {
            let known: Vec<_> = self.read.iter().copied().collect();
            let remedy = format!("take it out, or use one of: {}", known.join(", "));
            report.add(report.line(name.span().start), &self.place(name.get_ref()), "is not known here", remedy);
        }
    }
}

fn integer_of(value: &DeValue<'_>) -> Option<i64> {
    let integer = value.as_integer()?;
    i64::from_str_radix(integer.as_str(), integer.radix()).ok()
}
