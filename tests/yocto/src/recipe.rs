//! Just enough of bitbake's syntax: assignments with continued lines, and words.

use crate::Tree;

/// The assignments of a file: name with overrides and flags, operator, value.
pub(crate) fn assignments(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut line = String::new();
    for part in text.lines() {
        if line.is_empty() && (part.starts_with('#') || part.starts_with([' ', '\t'])) {
            continue;
        }
        match part.strip_suffix('\\') {
            Some(start) => line.push_str(start),
            None => {
                line.push_str(part);
                found.extend(assignment(&line));
                line.clear();
            }
        }
    }
    found
}

fn assignment(line: &str) -> Option<(String, String)> {
    let (name, value) = line.split_once('=')?;
    let name = name.trim().trim_end_matches([':', '?', '+', '.']).trim();
    let value = value.trim().trim_start_matches(['+', '.', '=']).trim();
    let quoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'))?;
    let is_name = !name.is_empty() && name.chars().all(|letter| letter.is_ascii_alphanumeric() || "_-:.[]${}/".contains(letter));
    is_name.then(|| (name.to_owned(), quoted.to_owned()))
}

/// The value of a variable in a file of the layer; empty if it has none there.
pub(crate) fn value(tree: &Tree, file: &str, name: &str) -> String {
    assignments(&tree.text(file)).into_iter().filter(|(found, _)| found == name).map(|(_, value)| value).next_back().unwrap_or_default()
}
