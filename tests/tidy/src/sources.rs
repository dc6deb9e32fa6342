//! Rules about the text of our sources.

use crate::{assert_none, tracked_files};

/// Longest source file in lines. A longer one has a seam that was not cut.
const LINES_MAX: usize = 600;

/// Words that may not stand in the sources, with what to write instead. Spelled in halves so that
/// this file does not break its own rule.
const BANNED: &[(&str, &str, &str)] = &[
    ("measure", "ment", "reading, or observation for the FHIR resource"),
    ("tele", "metry", "readings or metrics"),
    ("data", "point", "reading"),
    ("TO", "DO", "do it, or say in docs/ what is missing"),
    ("FIX", "ME", "mend it"),
    ("#[ign", "ore", "a test runs or goes"),
    ("thread::sl", "eep", "wait on a condition with a deadline"),
    ("assert!(tr", "ue)", "a test that cannot fail is none"),
];

fn sources() -> impl Iterator<Item = (String, String)> {
    tracked_files().into_iter().filter(|(name, _)| name.ends_with(".rs"))
}

#[test]
fn a_source_file_is_short_enough_to_be_read() {
    let breaches: Vec<_> = sources()
        .map(|(name, text)| (name, text.lines().count()))
        .filter(|(_, lines)| *lines > LINES_MAX)
        .map(|(name, lines)| format!("{name}: {lines} lines, at most {LINES_MAX}; cut it at its seam"))
        .collect();
    assert_none("a file is too long", &breaches);
}

#[test]
fn banned_words_do_not_stand_in_the_sources() {
    let mut breaches = Vec::new();
    for (name, text) in sources() {
        for (number, line) in text.lines().enumerate() {
            let lower = line.to_lowercase();
            for (head, tail, instead) in BANNED {
                let word = format!("{head}{tail}");
                let found = if word.chars().any(char::is_uppercase) { line.contains(&word) } else { lower.contains(&word) };
                if found && !line.contains("disallowed") {
                    breaches.push(format!("{name}:{}: {word}; write {instead}", number + 1));
                }
            }
        }
    }
    assert_none("a banned word", &breaches);
}

/// The repository speaks of the product: no folder of a build machine, no registry's host.
#[test]
fn no_path_of_a_build_machine_stands_in_the_repository() {
    let needles = [format!("/{}/", "work/main"), format!("/{}/.", "root"), format!("/home{}", "/")];
    let mut breaches = Vec::new();
    for (name, text) in tracked_files().into_iter().filter(|(name, _)| !name.ends_with(".lock")) {
        for (number, line) in text.lines().enumerate() {
            if needles.iter().any(|needle| line.contains(needle.as_str())) {
                breaches.push(format!("{name}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    assert_none("a machine's own path", &breaches);
}

#[test]
fn every_library_forbids_unsafe_code() {
    let breaches: Vec<_> = sources()
        .filter(|(name, _)| name.ends_with("src/lib.rs") || name.ends_with("src/main.rs"))
        .filter(|(_, text)| !text.contains("#![forbid(unsafe_code)]"))
        .map(|(name, _)| format!("{name}: add #![forbid(unsafe_code)]"))
        .collect();
    assert_none("a crate may use unsafe code", &breaches);
}

/// A profile states where each of its fields or registers comes from.
#[test]
fn every_field_of_a_profile_names_its_source() {
    let profiles: Vec<_> = tracked_files()
        .into_iter()
        .filter(|(name, _)| name.starts_with("device-drivers/profile/profiles/") && name.ends_with(".toml"))
        .collect();
    assert!(!profiles.is_empty(), "no profile found");
    for (name, text) in profiles {
        assert!(text.contains("source = \""), "{name} names no source");
    }
}
