//! One section of the file: typed answers by key, errors to the findings.

use std::collections::BTreeSet;

use toml::Spanned;
use toml::de::{DeTable, DeValue};
use vitalgate_config::schema::{Bounds, Key, Kind, Need, SectionSpec};

use crate::error::Findings;
use crate::schema::{LIST_ITEMS_MAX, TEXT_BYTES_MAX};

/// A text with the byte offset that it stands at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Text<'a> {
    pub(crate) text: &'a str,
    pub(crate) at: usize,
}

/// One section and where it begins.
pub(crate) struct Section<'a> {
    pub(crate) spec: &'static SectionSpec,
    pub(crate) table: &'a DeTable<'a>,
    pub(crate) at: usize,
}

/// Reads the text as TOML; says whether the rest can still be judged.
pub(crate) fn parse<'a>(findings: &mut Findings, text: &'a str) -> (Spanned<DeTable<'a>>, bool) {
    /// What follows a lost quote or bracket is mostly noise.
    const SYNTAX_LINES_MAX: usize = 20;
    let (root, errors) = DeTable::parse_recoverable(text);
    let mut readable = true;
    let mut lines = BTreeSet::new();
    for error in &errors {
        let at = error.span().map_or(0, |span| span.start);
        let message = error.message().lines().next().unwrap_or_default();
        let twice = message.starts_with("duplicate key");
        readable &= twice;
        let remedy = if twice {
            "keep one of them; a section that may stand several times is written with two brackets, [[device]]"
        } else {
            "write key = value, text in double quotes, sections in brackets"
        };
        if lines.len() < SYNTAX_LINES_MAX && lines.insert(findings.line(at)) {
            findings.at(at, format!("not valid TOML: {message}"), remedy);
        }
    }
    (root, readable)
}

impl<'a> Section<'a> {
    /// Opens a section and reports the keys that it does not have.
    pub(crate) fn open(findings: &mut Findings, spec: &'static SectionSpec, table: &'a DeTable<'a>, at: usize) -> Self {
        for name in table.keys() {
            if !spec.keys.iter().any(|key| key.name == name.get_ref()) {
                let known: Vec<_> = spec.keys.iter().map(|key| key.name).collect();
                let message = format!("unknown key {} in {}", quoted(name.get_ref()), spec.title);
                findings.at(name.span().start, message, format!("remove or correct it; known are {}", known.join(", ")));
            }
        }
        Self { spec, table, at }
    }

    /// Notes that something is wrong with a key's value.
    pub(crate) fn wrong(&self, findings: &mut Findings, at: usize, name: &str, what: &str, remedy: impl Into<String>) {
        findings.at(at, format!("{name} in {} {what}", self.spec.title), remedy);
    }

    /// The value as it stands; reports it missing where it must be there.
    pub(crate) fn value(&self, findings: &mut Findings, name: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        let value = self.table.get(name);
        let required = || self.spec.keys.iter().find(|key| key.name == name && key.need == Need::Required);
        if value.is_none()
            && let Some(key) = required()
        {
            match key.kind {
                Kind::Table(title) => findings.at(self.at, format!("there is no section {title}"), format!("add {title}")),
                _ => findings.at(self.at, format!("{} has no {name}", self.spec.title), format!("add {name} = {}", example(key))),
            }
        }
        value
    }

    /// One line of text.
    pub(crate) fn text(&self, findings: &mut Findings, name: &'static str) -> Option<Text<'a>> {
        let value = self.value(findings, name)?;
        self.as_text(findings, name, value)
    }

    /// One line of text that is not empty.
    pub(crate) fn words(&self, findings: &mut Findings, name: &'static str) -> Option<Text<'a>> {
        let text = self.text(findings, name)?;
        if text.text.trim().is_empty() {
            self.wrong(findings, text.at, name, "is empty", "write what it stands for");
            return None;
        }
        Some(text)
    }

    /// Text of several lines.
    pub(crate) fn long_text(&self, findings: &mut Findings, name: &'static str) -> Option<Text<'a>> {
        let value = self.value(findings, name)?;
        match value.get_ref() {
            DeValue::String(text) => Some(Text { text, at: value.span().start }),
            _ => self.wrong_type(findings, name, value, "text"),
        }
    }

    /// A list of texts, or one text.
    pub(crate) fn list(&self, findings: &mut Findings, name: &'static str) -> Vec<Text<'a>> {
        let Some(value) = self.value(findings, name) else { return Vec::new() };
        match value.get_ref() {
            DeValue::Array(items) if items.len() > LIST_ITEMS_MAX => {
                let what = format!("has {} items", items.len());
                self.wrong(findings, value.span().start, name, &what, format!("keep at most {LIST_ITEMS_MAX}"));
                Vec::new()
            }
            DeValue::Array(items) => items.iter().filter_map(|item| self.as_text(findings, name, item)).collect(),
            DeValue::String(_) => self.as_text(findings, name, value).into_iter().collect(),
            _ => self.wrong_type::<()>(findings, name, value, "a list of texts").into_iter().flat_map(|()| None).collect(),
        }
    }

    /// `true` or `false`; `None` when it is missing.
    pub(crate) fn boolean(&self, findings: &mut Findings, name: &'static str) -> Option<bool> {
        let value = self.value(findings, name)?;
        match value.get_ref() {
            DeValue::Boolean(flag) => Some(*flag),
            _ => self.wrong_type(findings, name, value, "true or false"),
        }
    }

    /// A whole number within the key's bounds; its default, or `None` where it has none.
    pub(crate) fn integer(&self, findings: &mut Findings, name: &'static str) -> Option<u64> {
        let key = self.spec.keys.iter().find(|key| key.name == name)?;
        let Kind::Integer(bounds) = key.kind else { return None };
        let Some(value) = self.value(findings, name) else { return bounds.default };
        let DeValue::Integer(written) = value.get_ref() else {
            return self.wrong_type(findings, name, value, "a whole number");
        };
        let number = i128::from_str_radix(written.as_str(), written.radix()).ok().and_then(|number| u64::try_from(number).ok());
        let within = number.filter(|number| (bounds.min..=bounds.max).contains(number));
        if within.is_none() {
            let Bounds { min, max, unit, .. } = bounds;
            self.wrong(findings, value.span().start, name, "is outside its range", format!("write a number from {min} to {max} ({unit})"));
        }
        within
    }

    /// Reports a value of another type than the key's.
    pub(crate) fn wrong_type<T>(&self, findings: &mut Findings, name: &str, value: &Spanned<DeValue<'_>>, wanted: &str) -> Option<T> {
        let what = format!("must be {wanted}, not {}", value.get_ref().type_str());
        self.wrong(findings, value.span().start, name, &what, format!("write {wanted}"));
        None
    }

    fn as_text(&self, findings: &mut Findings, name: &'static str, value: &'a Spanned<DeValue<'a>>) -> Option<Text<'a>> {
        let at = value.span().start;
        let DeValue::String(text) = value.get_ref() else {
            return self.wrong_type(findings, name, value, "text");
        };
        if text.len() > TEXT_BYTES_MAX || text.chars().any(char::is_control) {
            let what = format!("is longer than {TEXT_BYTES_MAX} bytes or holds control characters");
            self.wrong(findings, at, name, &what, "write one line of text");
            return None;
        }
        Some(Text { text, at })
    }

    /// The tables of a section that may stand several times.
    pub(crate) fn tables(&self, findings: &mut Findings, name: &'static str) -> Vec<(&'a DeTable<'a>, usize)> {
        let Some(value) = self.value(findings, name) else { return Vec::new() };
        let DeValue::Array(items) = value.get_ref() else {
            findings.at(value.span().start, format!("[{name}] may stand several times"), format!("write [[{name}]]"));
            return Vec::new();
        };
        let mut tables = Vec::new();
        for item in items {
            match item.get_ref() {
                DeValue::Table(table) => tables.push((table, item.span().start)),
                _ => findings.at(item.span().start, format!("{name} is no section"), format!("write [[{name}]]")),
            }
        }
        tables
    }

    /// A section that stands once.
    pub(crate) fn section(&self, findings: &mut Findings, name: &'static str, spec: &'static SectionSpec) -> Option<Section<'a>> {
        let value = self.value(findings, name)?;
        match value.get_ref() {
            DeValue::Table(table) => Some(Section::open(findings, spec, table, value.span().start)),
            _ => {
                findings.at(value.span().start, format!("{name} must be a section"), format!("write {}, once", spec.title));
                None
            }
        }
    }
}

/// A text in quotes, safe to print.
pub(crate) fn quoted(text: &str) -> String {
    /// More than this of a value does not help to find it.
    const SHOWN_CHARS_MAX: usize = 80;
    format!("\"{}\"", text.chars().take(SHOWN_CHARS_MAX).flat_map(char::escape_debug).collect::<String>())
}

fn example(key: &Key) -> String {
    match key.kind {
        Kind::Text(rule) => format!("\"...\" ({rule})"),
        Kind::TextList(rule) => format!("[\"...\"] ({rule})"),
        Kind::OneOf(words) => format!("\"{}\"", words.join("\" or \"")),
        Kind::Integer(bounds) => format!("a number from {} to {}", bounds.min, bounds.max),
        _ => "...".to_owned(),
    }
}
