//! The question before something is erased: which disk, or which file.

use std::path::Path;

use super::disks::Disk;
use crate::failure::{Failure, Outcome};
use crate::say;

/// What is erased, and what names it.
pub(crate) struct Erased {
    kind: &'static str,
    shown: String,
    /// What it is called in `--erase` first; none is empty.
    names: Vec<String>,
    question: String,
    remedy: &'static str,
}

impl Erased {
    /// A whole disk, whatever it holds.
    pub(crate) fn disk(disk: &Disk) -> Self {
        Self {
            kind: "disk",
            shown: disk.to_string(),
            names: [&disk.serial, &disk.name].into_iter().filter(|name| !name.is_empty()).cloned().collect(),
            question: format!("type its serial number or its name ({}) to go on:", disk.name),
            remedy: "compare the list of imagectl flash --list with the label on the disk",
        }
    }

    /// A file that holds something.
    pub(crate) fn file(path: &Path) -> Self {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        Self {
            kind: "file",
            shown: path.display().to_string(),
            question: format!("type its name ({name}) to go on:"),
            names: vec![name, path.display().to_string()],
            remedy: "name the file that shall be erased, or another target with --to",
        }
    }

    fn is_meant(&self, answer: &str) -> bool {
        self.names.iter().any(|name| name == answer)
    }

    fn name(&self) -> &str {
        self.names.first().map_or("", String::as_str)
    }
}

/// Asks for a line; nothing where no answer comes.
pub(crate) type Ask<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Erased is only what somebody names: beforehand, or when asked. `ask` is nothing where nobody is there.
pub(crate) fn confirm(erased: &Erased, named: Option<&str>, ask: Option<Ask<'_>>) -> Outcome {
    let beforehand = || format!("add --erase {}", erased.name());
    let answer = match (named, ask) {
        (Some(named), _) => named.to_owned(),
        (None, Some(ask)) => {
            say::note(format_args!("everything on this {} is erased: {}", erased.kind, erased.shown));
            ask(&erased.question).ok_or_else(|| Failure::target("no answer came", beforehand()))?
        }
        (None, None) => {
            let what = format!("nobody is there to confirm that {} is erased", erased.name());
            return Err(Failure::target(what, beforehand()));
        }
    };
    if erased.is_meant(&answer) {
        return Ok(());
    }
    Err(Failure::target(format!("\"{answer}\" is not this {}: {}", erased.kind, erased.shown), erased.remedy))
}

#[cfg(test)]
mod tests {
    use std::process::ExitCode;

    use super::*;
    use crate::flash::disks::IMAGE_SECTOR_BYTES;

    fn disk(serial: &str) -> Erased {
        Erased::disk(&Disk {
            name: "sdb".to_owned(),
            bytes: 1,
            removable: true,
            read_only: false,
            sector_bytes: IMAGE_SECTOR_BYTES,
            model: "x".to_owned(),
            serial: serial.to_owned(),
            used_by: None,
        })
    }

    /// A disk without a serial number is not named by saying nothing.
    #[test]
    fn only_its_own_name_or_number_lets_a_disk_be_erased() {
        assert!(disk("AA11").is_meant("AA11") && disk("AA11").is_meant("sdb") && disk("").is_meant("sdb"));
        for answer in ["", "y", "yes", "sda", "AA1", "sdb1"] {
            assert!(!disk("AA11").is_meant(answer) && !disk("").is_meant(answer), "{answer}");
        }
    }

    /// A question that is ended without an answer (Ctrl-D) erases nothing, and says how to answer beforehand.
    #[test]
    fn no_answer_erases_nothing_and_names_the_remedy() {
        for (erased, name) in [(disk("AA11"), "AA11"), (disk(""), "sdb"), (Erased::file(Path::new("/x/disk.img")), "disk.img")] {
            let none: Ask<'_> = &|_| None;
            for ask in [Some(none), None] {
                let failure = confirm(&erased, None, ask).unwrap_err();
                assert_eq!(failure.exit_code(), ExitCode::from(3), "{failure}");
                assert!(failure.to_string().ends_with(&format!("; add --erase {name}")), "{failure}");
            }
            let wrong = confirm(&erased, None, Some(&|_| Some(String::new()))).unwrap_err();
            assert_eq!(wrong.exit_code(), ExitCode::from(3), "{wrong}");
            confirm(&erased, None, Some(&|_| Some(name.to_owned()))).unwrap();
        }
    }
}
