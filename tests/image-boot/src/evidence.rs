//! What a case did and found: printed as it happens, kept in a folder, counted at the end.

use std::cell::RefCell;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use anyhow::Context as _;
use serde_json::{Map, Value};

/// Folder of all evidence.
pub(crate) const FOLDER: &str = "target/image-boot";
/// The figures of all cases, each as its last run found them.
const REPORT: &str = "target/image-report.json";
/// The figures of one case, in its folder.
const FIGURES: &str = "figures.json";

/// Folder of the case that runs.
static RUNNING: Mutex<Option<PathBuf>> = Mutex::new(None);

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
    /// Begins a case; what an earlier run of it left is deleted, its figures in the report of all cases included.
    ///
    /// # Errors
    /// When its folder cannot be made or the report cannot be written.
    pub(crate) fn begin(case: &str, part: Option<String>) -> anyhow::Result<Self> {
        let folder = fresh(Path::new(FOLDER), case, Path::new(REPORT))?;
        *RUNNING.lock().unwrap_or_else(PoisonError::into_inner) = Some(folder.clone());
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

/// Puts a figure of the case that runs into the report of all cases.
///
/// # Errors
/// When no case runs, or the report cannot be written.
pub(crate) fn figure(name: &str, value: impl Into<Value>) -> anyhow::Result<()> {
    let running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner).clone().context("a figure of no case")?;
    found(&running, name, value.into())?;
    report(Path::new(FOLDER), Path::new(REPORT))
}

/// The folder of a case with nothing in it; no figure of an earlier run is in the report.
fn fresh(cases: &Path, case: &str, to: &Path) -> anyhow::Result<PathBuf> {
    let folder = cases.join(case);
    if folder.exists() {
        std::fs::remove_dir_all(&folder).context("the old evidence cannot be deleted")?;
    }
    std::fs::create_dir_all(&folder).context("no folder for evidence")?;
    report(cases, to)?;
    Ok(folder)
}

/// Puts a figure to those of the case with this folder.
fn found(case: &Path, name: &str, value: Value) -> anyhow::Result<()> {
    let mut figures = figures_in(&case.join(FIGURES));
    figures.insert(name.to_owned(), value);
    write(&case.join(FIGURES), &figures)
}

/// Writes the figures of all cases as one object. Of a figure that several cases found, the newest counts.
fn report(cases: &Path, to: &Path) -> anyhow::Result<()> {
    let of_case = |folder: std::io::Result<std::fs::DirEntry>| -> Option<(SystemTime, PathBuf)> {
        let file = folder.ok()?.path().join(FIGURES);
        Some((file.metadata().ok()?.modified().ok()?, file))
    };
    let mut files: Vec<_> = std::fs::read_dir(cases).context("no folder of evidence")?.filter_map(of_case).collect();
    files.sort();
    let all: Map<String, Value> = files.iter().flat_map(|(_, file)| figures_in(file)).collect();
    write(to, &all)
}

fn figures_in(file: &Path) -> Map<String, Value> {
    std::fs::read(file).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
}

fn write(file: &Path, figures: &Map<String, Value>) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(figures)?;
    std::fs::write(file, text + "\n").with_context(|| format!("{} cannot be written", file.display()))
}

/// Rounded to a tenth.
pub(crate) fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use serde_json::json;

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

    /// Promise: a case that breaks off leaves no figure of an earlier run of it in the report, `lost` 0 least of all.
    #[test]
    fn a_case_that_begins_again_has_no_figures() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let (cases, to) = (folder.path().join("image-boot"), folder.path().join("report.json"));
        // A report of which nobody knows whose its figures are.
        std::fs::write(&to, r#"{"lost": 0}"#)?;
        let day = fresh(&cases, "day", &to)?;
        assert_eq!(Value::from(figures_in(&to)), json!({}));
        found(&day, "acknowledged", json!(5))?;
        found(&day, "lost", json!(0))?;
        found(&fresh(&cases, "scan", &to)?, "packages", json!(7))?;
        report(&cases, &to)?;
        assert_eq!(Value::from(figures_in(&to)), json!({"acknowledged": 5, "lost": 0, "packages": 7}));
        fresh(&cases, "day", &to)?;
        assert_eq!(Value::from(figures_in(&to)), json!({"packages": 7}), "those of other cases stay");
        Ok(())
    }
}
