//! From a file or its text to a checked configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::Path;

use toml::de::DeTable;

use crate::config::{Config, Places};
use crate::error::ConfigError;
use crate::report::Report;
use crate::schema::FILE_BYTES_MAX;
use crate::sections;

/// How a profile's devices are reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProfileKind {
    /// The device publishes.
    Publish,
    /// The device is polled.
    Polled,
}

/// The profiles that there are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KnownProfiles {
    /// Those that can be used, by id.
    pub kinds: BTreeMap<String, ProfileKind>,
    /// What is wrong with the others, one line each.
    pub faults: Vec<String>,
}

/// Given the folder of further profiles: what is known of all.
pub type ProfileLookup<'a> = &'a dyn Fn(Option<&Path>) -> KnownProfiles;

/// Checks the text of a configuration file. `file` is how errors name it; relative paths in the text are
/// relative to its folder. Profile ids are taken as they are.
///
/// # Errors
/// Everything that is wrong with it, by line.
pub fn check(text: &str, file: &str) -> Result<Config, Vec<ConfigError>> {
    checked(text, file, whole(None))
}

/// Like [`check`], and every device's profile must exist and fit how the device is reached.
///
/// # Errors
/// Everything that is wrong with it, by line.
pub fn check_with_profiles(text: &str, file: &str, profiles: ProfileLookup<'_>) -> Result<Config, Vec<ConfigError>> {
    checked(text, file, whole(Some(profiles)))
}

pub(crate) fn load(path: &Path, profiles: Option<ProfileLookup<'_>>) -> Result<Config, Vec<ConfigError>> {
    read_file(path, whole(profiles))
}

pub(crate) fn load_places(path: &Path) -> Result<Places, Vec<ConfigError>> {
    read_file(path, sections::read_places)
}

/// Reads every section.
fn whole(profiles: Option<ProfileLookup<'_>>) -> impl FnOnce(&mut Report, &DeTable<'_>, &str) -> Option<Config> {
    move |report, root, file| sections::read(report, root, file, profiles)
}

fn read_file<T>(path: &Path, sections: impl FnOnce(&mut Report, &DeTable<'_>, &str) -> Option<T>) -> Result<T, Vec<ConfigError>> {
    let name = path.display().to_string();
    let whole = |message: String, remedy: &str| vec![ConfigError { file: name.clone(), line: 0, message, remedy: remedy.to_owned() }];
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(|error| whole(format!("cannot be read ({error})"), "check the path, and that the gateway's user may read it"))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(whole(format!("has more than {FILE_BYTES_MAX} bytes"), "name the right file"));
    }
    let text = std::str::from_utf8(&bytes).map_err(|error| {
        let before = bytes.get(..error.valid_up_to()).unwrap_or_default();
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        let (message, remedy) = ("is not UTF-8 text".to_owned(), "save the file as UTF-8".to_owned());
        vec![ConfigError { file: name.clone(), line: u32::try_from(line).unwrap_or(u32::MAX), message, remedy }]
    })?;
    checked(text, &name, sections)
}

fn checked<T>(text: &str, file: &str, sections: impl FnOnce(&mut Report, &DeTable<'_>, &str) -> Option<T>) -> Result<T, Vec<ConfigError>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut report = Report::new(file, text);
    if text.len() as u64 > FILE_BYTES_MAX {
        report.on_line(0, format!("has more than {FILE_BYTES_MAX} bytes"), "name the right file");
        return Err(report.into_errors());
    }
    let (root, syntax) = DeTable::parse_recoverable(text);
    let readable = report_syntax(&mut report, &syntax);
    // What the parser made of broken text would only lead to errors that are none.
    let found = if readable { sections(&mut report, root.get_ref(), file) } else { None };
    match found {
        Some(found) if report.is_empty() => Ok(found),
        _ => Err(report.into_errors()),
    }
}

/// Reports broken TOML, once per line; says whether the rest of the file can still be judged.
fn report_syntax(report: &mut Report, errors: &[toml::de::Error]) -> bool {
    /// What follows a lost quote or bracket is mostly noise.
    const SYNTAX_LINES_MAX: usize = 20;
    let mut readable = true;
    let mut lines = BTreeSet::new();
    for error in errors {
        let at = error.span().map_or(0, |span| span.start);
        let (remedy, harmless) = syntax_remedy(error.message());
        readable &= harmless;
        if lines.len() < SYNTAX_LINES_MAX && lines.insert(report.line(at)) {
            report.at(at, format!("not valid TOML: {}", error.message().lines().next().unwrap_or_default()), remedy);
        }
    }
    readable
}

/// What to do, and whether the rest of the file can still be judged.
fn syntax_remedy(message: &str) -> (&'static str, bool) {
    if message.starts_with("duplicate key") {
        ("keep one of them; a section that may stand several times is written with two brackets, [[device]]", true)
    } else {
        ("write key = value, text in double quotes, sections in brackets", false)
    }
}
