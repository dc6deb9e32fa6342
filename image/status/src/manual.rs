//! The technician's manual says what the appliance says.

use vitalgate_layout::{Rejection, StateWord};

use crate::page::{Language, advice};

const MANUAL: &str = include_str!("../../../docs/technician.md");

/// The rows of the manual's tables: the cells of each.
fn rows() -> impl Iterator<Item = Vec<&'static str>> {
    MANUAL.lines().filter_map(|line| Some(line.strip_prefix('|')?.strip_suffix('|')?.split('|').map(str::trim).collect()))
}

/// Who reads a word on the console finds it, with the meaning that the page gives, and what to do;
/// the most urgent first, as the appliance ranks them.
#[test]
fn every_state_word_stands_in_the_manual() {
    let words: Vec<_> = rows()
        .filter(|cells| cells.len() == 3 && cells[0].starts_with('`') && StateWord::ALL.iter().any(|word| cells[0] == format!("`{word}`")))
        .collect();
    let mut expected = StateWord::ALL;
    expected.sort_unstable_by(|a, b| b.cmp(a));
    let in_manual: Vec<_> = words.iter().map(|cells| cells[0].trim_matches('`')).collect();
    assert_eq!(in_manual, expected.map(StateWord::word), "docs/technician.md, \"State words\"");
    for (word, cells) in expected.into_iter().zip(words) {
        assert_eq!(cells[1], advice::meaning(word, Language::English), "docs/technician.md, the meaning of {word}");
        assert!(!cells[2].is_empty(), "docs/technician.md says nothing to do about {word}");
    }
}

/// Who reads a number finds it, in the words that the appliance uses.
#[test]
fn every_refusal_stands_in_the_manual() {
    // Below 10 are the steps of the first start.
    let is_refusal = |cells: &Vec<&str>| cells.len() == 3 && cells[0].parse::<u16>().is_ok_and(|number| number >= 10);
    let numbered: Vec<_> = rows().filter(is_refusal).collect();
    assert_eq!(numbered.len(), Rejection::ALL.len(), "docs/technician.md, \"Refusals by number\"");
    for (rejection, cells) in Rejection::ALL.into_iter().zip(numbered) {
        assert_eq!(cells, [rejection.code().to_string().as_str(), rejection.meaning(), rejection.remedy()]);
    }
}

/// The sticks' labels and files are those that the appliance looks for.
#[test]
fn every_stick_stands_in_the_manual() {
    use vitalgate_layout::stick;
    let labels = [stick::PROVISION, stick::UPDATE, stick::SUPPORT, stick::RESET, stick::RECOVERY];
    let files = [
        stick::SITE_FILE,
        stick::PROVISION_REPORT,
        stick::COMMISSIONING_REPORT_TEXT,
        stick::RECOVERY_KEY,
        stick::UPDATE_REPORT,
        stick::SUPPORT_REQUEST,
        stick::RESET_REQUEST,
    ];
    for name in labels.into_iter().chain(files) {
        assert!(MANUAL.contains(&format!("`{name}`")), "docs/technician.md does not name {name}");
    }
}

/// The console's lines begin as the manual shows them.
#[test]
fn the_consoles_lines_stand_in_the_manual() {
    for beginning in [vitalgate_layout::state::CONSOLE_PREFIX, crate::console::PAGE_PREFIX, crate::console::KEY_PREFIX] {
        assert!(MANUAL.contains(beginning), "docs/technician.md does not show {beginning}");
    }
}

/// Who copies the manual's site file gets one that is right.
#[test]
fn the_manuals_site_file_is_right() {
    let text = MANUAL.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let site = vitalgate_site::SiteFile::check(text, "technician.md").unwrap();
    assert_eq!((site.devices.len(), site.destinations.len(), site.warnings()), (2, 1, Vec::new()));
}
