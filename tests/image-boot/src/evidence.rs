//! What a case did and found: printed as it happens, kept in a folder, counted at the end.

use std::cell::RefCell;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context as _;
use serde_json::{Map, Value};

/// Folder of all evidence.
pub(crate) const FOLDER: &str = "target/image-boot";
/// The figures of all cases.
const REPORT: &str = "target/image-report.json";

/// One case.
pub(crate) struct Evidence {
    folder: PathBuf,
    part: Option<String>,
    asked: RefCell<Vec<String>>,
    began: Instant,
    passed: u32,
    failed: Vec<String>,
}

impl Evidence {
    /// Begins a case; what an earlier run of it left is deleted.
    ///
    /// # Errors
    /// When its folder cannot be made.
    pub(crate) fn begin(case: &str, part: Option<String>) -> anyhow::Result<Self> {
        let folder = Path::new(FOLDER).join(case);
        if folder.exists() {
            std::fs::remove_dir_all(&folder).context("the old evidence cannot be deleted")?;
        }
        std::fs::create_dir_all(&folder).context("no folder for evidence")?;
        let evidence = Self { folder, part, asked: RefCell::default(), began: Instant::now(), passed: 0, failed: Vec::new() };
        evidence.say(&format!("=== {case}"));
        Ok(evidence)
    }

    /// Whether this part of the case is wanted.
    pub(crate) fn wants(&self, part: &str) -> bool {
        let wanted = self.part.as_ref().is_none_or(|wanted| wanted == part);
        self.asked.borrow_mut().push(part.to_owned());
        if wanted {
            self.say(&format!("--- {part}"));
        }
        wanted
    }

    /// What is wrong with the part that was asked for: a case that has no such part tried nothing.
    pub(crate) fn unknown_part(&self) -> Option<String> {
        let (part, asked) = (self.part.as_ref()?, self.asked.borrow());
        let known = if asked.is_empty() { "it has none".to_owned() } else { format!("it has {}", asked.join(", ")) };
        (!asked.contains(part)).then(|| format!("this case has no part `{part}`: {known}"))
    }

    /// Its folder.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Prints and keeps a line.
    pub(crate) fn say(&self, text: &str) {
        let line = format!("{:7.1}  {text}\n", self.began.elapsed().as_secs_f64());
        // A terminal that is gone or a full disk must not end a test that says something else.
        let _ = std::io::stdout().write_all(line.as_bytes());
        let log = std::fs::File::options().create(true).append(true).open(self.folder.join("story.log"));
        let _ = log.and_then(|mut log| log.write_all(line.as_bytes()));
    }

    /// Notes whether something holds.
    pub(crate) fn check(&mut self, what: &str, holds: bool) {
        self.say(&format!("{} {what}", if holds { "ok  " } else { "FAIL" }));
        if holds {
            self.passed += 1;
        } else {
            self.failed.push(what.to_owned());
        }
    }

    /// Notes whether a step went through.
    pub(crate) fn outcome<T>(&mut self, what: &str, outcome: anyhow::Result<T>) -> Option<T> {
        match outcome {
            Ok(value) => {
                self.check(what, true);
                Some(value)
            }
            Err(error) => {
                self.check(&format!("{what}: {error:#}"), false);
                None
            }
        }
    }

    /// Keeps a file.
    pub(crate) fn keep(&self, name: &str, contents: impl AsRef<[u8]>) {
        if let Err(error) = std::fs::write(self.folder.join(name), contents) {
            self.say(&format!("{name} could not be kept: {error}"));
        }
    }

    /// What passed, and what did not.
    pub(crate) fn end(self) -> (u32, Vec<String>) {
        (self.passed, self.failed)
    }
}

/// Puts a figure into the report of all cases.
///
/// # Errors
/// When the report cannot be written.
pub(crate) fn figure(name: &str, value: impl Into<Value>) -> anyhow::Result<()> {
    let old = std::fs::read(REPORT).ok().and_then(|text| serde_json::from_slice::<Map<String, Value>>(&text).ok());
    let mut all = old.unwrap_or_default();
    all.insert(name.to_owned(), value.into());
    let text = serde_json::to_string_pretty(&all)?;
    std::fs::write(REPORT, text + "\n").context("the report cannot be written")
}

/// Rounded to a tenth.
pub(crate) fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked_for(part: Option<&str>) -> Evidence {
        Evidence {
            folder: std::env::temp_dir(),
            part: part.map(str::to_owned),
            asked: RefCell::new(vec!["cuts".to_owned(), "full".to_owned()]),
            began: Instant::now(),
            passed: 0,
            failed: Vec::new(),
        }
    }

    /// A part that is written wrongly is an error, and not a case that passed.
    #[test]
    fn a_part_that_no_case_has_is_told() {
        assert_eq!(asked_for(Some("cut")).unknown_part().unwrap(), "this case has no part `cut`: it has cuts, full");
        assert_eq!(asked_for(Some("cuts")).unknown_part(), None);
        assert_eq!(asked_for(None).unknown_part(), None);
    }
}
