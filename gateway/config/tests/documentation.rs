//! `docs/configuration.md` and the schema say the same.

#![allow(clippy::unwrap_used, reason = "a helper of tests fails loudly")]

use std::collections::BTreeMap;
use std::path::Path;

use vitalgate_config::{check, schema};

fn document() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md")).unwrap()
}

/// Section title to its rows: key, meaning, unit, default, range.
fn rows(document: &str) -> BTreeMap<String, Vec<[String; 5]>> {
    let mut sections: BTreeMap<String, Vec<[String; 5]>> = BTreeMap::new();
    let mut title = String::new();
    for line in document.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            title = heading.replace('`', "");
        } else if let Some(row) = line.strip_prefix("| `") {
            let cells: Vec<_> = row.trim_end_matches('|').split('|').map(|cell| cell.trim().replace('`', "")).collect();
            sections.entry(title.clone()).or_default().push(cells.try_into().unwrap());
        }
    }
    sections
}

#[test]
fn every_key_is_documented_as_it_is_and_nothing_else_is() {
    let documented = rows(&document());
    let titles: Vec<_> = schema::SECTIONS.iter().map(|section| section.title.to_owned()).collect();
    for title in documented.keys() {
        assert!(titles.contains(title), "{title} is documented but does not exist");
    }
    for section in schema::SECTIONS {
        let rows = documented.get(section.title).unwrap_or_else(|| panic!("{} is not documented", section.title));
        let names: Vec<_> = rows.iter().map(|row| row[0].as_str()).collect();
        let keys: Vec<_> = section.keys.iter().map(|key| key.name).collect();
        assert_eq!(names, keys, "{}", section.title);
        for (key, [name, meaning, unit, default, range]) in section.keys.iter().zip(rows) {
            let place = format!("{} {name}", section.title);
            assert!(meaning.len() > 10, "{place} has no meaning");
            assert_eq!((unit.as_str(), default, range), (key.unit(), &key.default(), &key.range()), "{place}");
        }
    }
}

#[test]
fn every_example_in_the_document_is_accepted() {
    let document = document();
    let examples: Vec<_> = document.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(!examples.is_empty());
    for example in examples {
        let errors = check(example, "example.toml").err().unwrap_or_default();
        assert!(errors.is_empty(), "{example}\n{}", errors.iter().map(|error| format!("{error}\n")).collect::<String>());
    }
}
