//! The documentation says what the check does.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a helper of tests fails loudly")]

use std::path::Path;

use vitalgate_layout::Rejection;
use vitalgate_site::schema;

fn document(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name)).unwrap()
}

/// Every key stands in the table of its section with its unit, default and range, and no other key does.
#[test]
fn every_key_is_documented_as_it_is_checked() {
    let text = document("site-file.md");
    let mut wrong = Vec::new();
    for section in schema::SECTIONS.iter().filter(|section| !["[[device]]", "[ehr]"].contains(&section.title)) {
        let heading = text.lines().position(|line| line.starts_with("## ") && line.contains(&format!("`{}`", section.title)));
        let Some(heading) = heading else { panic!("no heading for {}", section.title) };
        let rows: Vec<&str> =
            text.lines().skip(heading + 1).take_while(|line| !line.starts_with("## ")).filter(|line| line.starts_with("| `")).collect();
        let documented: Vec<&str> = rows.iter().map(|row| row.split('`').nth(1).unwrap()).collect();
        assert_eq!(documented, section.keys.iter().map(|key| key.name).collect::<Vec<_>>(), "keys of {}", section.title);
        for (row, key) in rows.iter().zip(section.keys) {
            let end = format!("| {} | {} | {} |", key.unit(), key.default(), key.range()).replace("|  |", "| |");
            if !row.ends_with(&end) {
                wrong.push(format!("{} {}: {end}", section.title, key.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(text.contains(&vitalgate_layout::stick::SITE_FILE_BYTES_MAX.to_string()));
}

/// A number on the console is found in the manual with the words of the program.
#[test]
fn every_refusal_is_in_the_manual() {
    let text = document("imagectl.md");
    for rejection in Rejection::ALL {
        let row = format!("| {} | {} | {} |", rejection.code(), rejection.meaning(), rejection.remedy());
        assert!(text.contains(&row), "{row}");
    }
}
