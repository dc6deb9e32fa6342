//! One section of the file: typed answers by key, errors to the report.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::report::Report;
use crate::schema::{Bounds, Key, Kind, Need, SECTIONS, SectionSpec, TEXT_BYTES_MAX};
use crate::suggestion::nearest;

/// Largest file that a configuration names (certificates, keys, tokens), in bytes (1 MiB).
const NAMED_FILE_BYTES_MAX: u64 = 1024 * 1024;
/// The bit that lets everyone on the machine read a file.
const READABLE_BY_ALL: u32 = 0o004;

/// A text with the byte offset that it stands at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Text<'a> {
    pub(crate) text: &'a str,
    pub(crate) at: usize,
}

/// What a named file must be besides readable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Secrecy {
    Public,
    Secret,
}

/// One section and where it begins.
pub(crate) struct Section<'a> {
    spec: &'static SectionSpec,
    /// How errors call it: `[store]`, or `[[device]] monitor-01` once the id is known.
    pub(crate) place: String,
    table: &'a DeTable<'a>,
    pub(crate) at: usize,
}

impl<'a> Section<'a> {
    /// Opens a section and reports the keys that it does not have.
    pub(crate) fn open(report: &mut Report, spec: &'static SectionSpec, table: &'a DeTable<'a>, at: usize) -> Self {
        let place = match table.get("id").and_then(|id| id.get_ref().as_str()) {
            Some(id) if spec.title.starts_with("[[") && id.len() <= TEXT_BYTES_MAX => format!("{} {}", spec.title, printable(id)),
            _ => spec.title.to_owned(),
        };
        for name in table.keys() {
            if spec.key(name.get_ref()).is_none() {
                let message = format!("unknown key {} in {place}", quoted(name.get_ref()));
                report.at(name.span().start, message, unknown_remedy(spec, name.get_ref()));
            }
        }
        Self { spec, place, table, at }
    }

    /// Takes the whole file, whatever else stands in it.
    pub(crate) fn unjudged(spec: &'static SectionSpec, table: &'a DeTable<'a>) -> Self {
        Self { spec, place: spec.title.to_owned(), table, at: 0 }
    }

    /// A text; reports it missing where it must be there.
    pub(crate) fn text(&self, report: &mut Report, name: &'static str) -> Option<Text<'a>> {
        let value = self.value(report, name)?;
        self.as_text(report, name, value, &format!("{name} = \"...\""))
    }

    /// A text that has a default.
    pub(crate) fn text_or_default(&self, report: &mut Report, name: &'static str) -> Text<'a> {
        let default = match self.key(name).map(|key| key.need) {
            Some(Need::Default(text)) => text,
            _ => "",
        };
        self.text(report, name).unwrap_or(Text { text: default, at: self.at })
    }

    /// One of the key's words.
    pub(crate) fn one_of(&self, report: &mut Report, name: &'static str) -> &'static str {
        let Some(Key { kind: Kind::OneOf(words), need, .. }) = self.key(name) else { return "" };
        let fallback = match need {
            Need::Default(text) => text,
            _ => "",
        };
        let Some(Text { text, at }) = self.text(report, name) else { return fallback };
        if let Some(word) = words.iter().find(|word| **word == text) {
            return word;
        }
        let remedy = match nearest(text, words.iter().copied()) {
            Some(word) => format!("did you mean \"{word}\"?"),
            None if words.len() == 1 => format!("write \"{}\"", words.concat()),
            None => format!("write one of {}", words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ")),
        };
        report.at(at, format!("{name} in {} is {}", self.place, quoted(text)), remedy);
        fallback
    }

    /// A whole number within the key's bounds.
    pub(crate) fn integer(&self, report: &mut Report, name: &'static str) -> u64 {
        let Some(Key { kind: Kind::Integer(bounds), .. }) = self.key(name) else { return 0 };
        let fallback = bounds.default.unwrap_or(bounds.min);
        let Some(value) = self.value(report, name) else { return fallback };
        let DeValue::Integer(written) = value.get_ref() else {
            self.wrong_type(report, name, value, "a whole number", &format!("{name} = {fallback}"));
            return fallback;
        };
        match i128::from_str_radix(written.as_str(), written.radix()).ok().and_then(|number| u64::try_from(number).ok()) {
            Some(number) if (bounds.min..=bounds.max).contains(&number) => number,
            _ => {
                let Bounds { min, max, unit, .. } = bounds;
                let message = format!("{name} in {} is {}, outside its range", self.place, shortened(written.as_str()));
                report.at(value.span().start, message, format!("write a number from {min} to {max} ({unit})"));
                fallback
            }
        }
    }

    /// `true` or `false`, which is the default.
    pub(crate) fn boolean(&self, report: &mut Report, name: &'static str) -> bool {
        let Some(value) = self.value(report, name) else { return false };
        match value.get_ref() {
            DeValue::Boolean(flag) => *flag,
            _ => {
                self.wrong_type(report, name, value, "true or false", &format!("{name} = false"));
                false
            }
        }
    }

    /// A list of texts; `None` when it is missing or no list.
    pub(crate) fn text_list(&self, report: &mut Report, name: &'static str) -> Option<Vec<Text<'a>>> {
        let example = format!("{name} = [\"...\"]");
        let value = self.value(report, name)?;
        let DeValue::Array(list) = value.get_ref() else {
            self.wrong_type(report, name, value, "a list of texts", &example);
            return None;
        };
        Some(list.iter().filter_map(|item| self.as_text(report, name, item, &example)).collect())
    }

    /// A path; what is relative is relative to the configuration file's folder.
    pub(crate) fn path(&self, report: &mut Report, name: &'static str, base: &Path) -> Option<(PathBuf, usize)> {
        let Text { text, at } = self.text(report, name)?;
        if text.is_empty() {
            report.at(at, format!("{name} in {} is empty", self.place), "write a path");
            return None;
        }
        Some((base.join(text), at))
    }

    /// The path and whether the file names it; else its default.
    pub(crate) fn path_or_default(&self, report: &mut Report, name: &'static str, base: &Path) -> (PathBuf, bool) {
        let default = match self.key(name).map(|key| key.need) {
            Some(Need::Default(text)) => text,
            _ => "",
        };
        self.path(report, name, base).map_or_else(|| (PathBuf::from(default), false), |(path, _)| (path, true))
    }

    /// A file that must be there and readable now.
    pub(crate) fn file(&self, report: &mut Report, name: &'static str, base: &Path, secrecy: Secrecy) -> Option<PathBuf> {
        let (path, at) = self.path(report, name, base)?;
        if let Err((what, remedy)) = usable(&path, secrecy) {
            // What stands in the place of a secret's file may be the secret itself: only what exists is a file's name.
            let is_named = secrecy == Secrecy::Public || path.exists();
            let file = if is_named { path.display().to_string() } else { "the file".to_owned() };
            report.at(at, format!("{name} in {}: {file} {what}", self.place), remedy);
        }
        Some(path)
    }

    /// A table inside this section.
    pub(crate) fn table(&self, report: &mut Report, name: &'static str) -> Option<(&'a DeTable<'a>, usize)> {
        let value = self.value(report, name)?;
        match value.get_ref() {
            DeValue::Table(table) => Some((table, value.span().start)),
            _ => {
                self.wrong_type(report, name, value, "a table", &format!("{name} = {{ ... }}"));
                None
            }
        }
    }

    /// The value as it stands; reports it missing where it must be there.
    pub(crate) fn value(&self, report: &mut Report, name: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        let value = self.table.get(name);
        if value.is_none()
            && let Some(key) = self.key(name)
            && key.need == Need::Required
        {
            match key.kind {
                Kind::Table(title) if title.starts_with('[') => {
                    report.at(self.at, format!("there is no section {title}"), format!("add {title}"))
                }
                _ => report.at(self.at, format!("{} has no {name}", self.place), format!("add {name} = {}", example(key))),
            }
        }
        value
    }

    /// Whether the key is there, whatever it holds.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.table.contains_key(name)
    }

    /// Reports a value of another type than the key's.
    pub(crate) fn wrong_type(&self, report: &mut Report, name: &str, value: &Spanned<DeValue<'_>>, wanted: &str, example: &str) {
        let found = value.get_ref().type_str();
        report.at(value.span().start, format!("{name} in {} must be {wanted}, not {found}", self.place), format!("write {example}"));
    }

    fn as_text(&self, report: &mut Report, name: &'static str, value: &'a Spanned<DeValue<'a>>, example: &str) -> Option<Text<'a>> {
        let at = value.span().start;
        let DeValue::String(text) = value.get_ref() else {
            self.wrong_type(report, name, value, "text", example);
            return None;
        };
        if text.len() > TEXT_BYTES_MAX || text.chars().any(char::is_control) {
            let message = format!("{name} in {} is longer than {TEXT_BYTES_MAX} bytes or holds control characters", self.place);
            report.at(at, message, "write one line of text");
            return None;
        }
        Some(Text { text, at })
    }

    fn key(&self, name: &str) -> Option<&'static Key> {
        self.spec.key(name)
    }
}

/// A text in quotes, safe to print.
pub(crate) fn quoted(text: &str) -> String {
    format!("\"{}\"", printable(text))
}

fn printable(text: &str) -> String {
    shortened(text).chars().flat_map(char::escape_debug).collect()
}

fn shortened(text: &str) -> &str {
    /// More than this of a value does not help to find it.
    const SHOWN_CHARS_MAX: usize = 80;
    text.char_indices().nth(SHOWN_CHARS_MAX).map_or(text, |(end, _)| &text[..end])
}

fn unknown_remedy(spec: &SectionSpec, name: &str) -> String {
    if let Some(meant) = nearest(name, spec.keys.iter().map(|key| key.name)) {
        return format!("did you mean {meant}?");
    }
    // Where either section stands several times, or the word is one of many uses, another key is meant.
    let stands_once = |section: &SectionSpec| !section.title.starts_with("[[");
    let home = SECTIONS.iter().find(|section| stands_once(section) && section.key(name).is_some());
    if let (Some(home), true) = (home, stands_once(spec) && !["name", "dir"].contains(&name)) {
        return format!("move it to {}", home.title);
    }
    format!("remove it; known are {}", spec.keys.iter().map(|key| key.name).collect::<Vec<_>>().join(", "))
}

fn example(key: &Key) -> String {
    match key.kind {
        Kind::Text(rule) => format!("\"...\" ({rule})"),
        Kind::OneOf(words) => format!("\"{}\"", words.join("\" or \"")),
        Kind::Integer(bounds) => format!("a number from {} to {}", bounds.min, bounds.max),
        Kind::Path => "\"/...\"".to_owned(),
        _ => "...".to_owned(),
    }
}

fn usable(path: &Path, secrecy: Secrecy) -> Result<(), (String, &'static str)> {
    let unreadable =
        |error: std::io::Error| (format!("cannot be opened ({error})"), "put the file there, or let the gateway's user read it");
    // What is no file is not opened: a pipe would wait for whoever writes to it.
    let found = std::fs::metadata(path).map_err(unreadable)?;
    if !found.is_file() {
        return Err(("is no file".to_owned(), "name a file"));
    }
    File::open(path).map_err(unreadable)?;
    if found.len() > NAMED_FILE_BYTES_MAX {
        return Err((format!("has more than {NAMED_FILE_BYTES_MAX} bytes"), "name the right file"));
    }
    if secrecy == Secrecy::Secret && found.mode() & READABLE_BY_ALL != 0 {
        return Err(("holds a secret and everyone on this machine may read it".to_owned(), "chmod o-rwx the file"));
    }
    Ok(())
}
