//! What may never stand in a site file: private keys, passwords, tokens.

use toml::de::{DeTable, DeValue};

use crate::error::Findings;

/// Marks of a private key in any text.
const MARKS: &[&str] = &["PRIVATE KEY-----", "AGE-SECRET-KEY-", "PuTTY-User-Key-File"];
/// Parts of the name of a key that would hold a secret.
const NAMES: &[&str] =
    &["password", "passwort", "passwd", "passphrase", "secret", "token", "bearer", "private_key", "key_pem", "psk", "pin"];

/// Notes every secret; values are never repeated.
pub(crate) fn find(findings: &mut Findings, text: &str, root: &DeTable<'_>) {
    const REMEDY: &str = "remove it, the appliance makes its own keys; treat what stood here as known to others";
    for (at, _) in MARKS.iter().flat_map(|mark| text.match_indices(mark)) {
        findings.at(at, "a private key stands here", REMEDY);
    }
    let mut tables = vec![root];
    while let Some(table) = tables.pop() {
        for (name, value) in table {
            if names_a_secret(name.get_ref()) {
                findings.at(name.span().start, "this key would hold a secret", REMEDY);
            }
            push(value.get_ref(), &mut tables);
        }
    }
}

fn push<'a>(value: &'a DeValue<'a>, tables: &mut Vec<&'a DeTable<'a>>) {
    match value {
        DeValue::Table(table) => tables.push(table),
        DeValue::Array(items) => items.iter().for_each(|item| push(item.get_ref(), tables)),
        _ => {}
    }
}

fn names_a_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace('-', "_");
    let words: Vec<_> = name.split('_').collect();
    NAMES.iter().any(|secret| match *secret {
        // Short ones only as a word of their own.
        "psk" | "pin" => words.contains(secret),
        long => name.contains(long),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<u32> {
        let (root, _) = DeTable::parse_recoverable(text);
        let mut findings = Findings::new("x", text);
        find(&mut findings, text, root.get_ref());
        findings.into_errors().iter().map(|error| error.line).collect()
    }

    #[test]
    fn a_secret_is_found_wherever_it_stands() {
        assert_eq!(lines("[a]\npassword = \"x\"\n"), [2]);
        assert_eq!(lines("[[a]]\nb = [{ c = { Bearer-Token = 1 } }]\n"), [2]);
        assert_eq!(lines("# -----BEGIN RSA PRIVATE KEY-----\n"), [1]);
        assert_eq!(lines("broken = = \n-----BEGIN PRIVATE KEY-----"), [2]);
        assert_eq!(lines("[wifi]\npsk = 1\n"), [2]);
    }

    #[test]
    fn ordinary_keys_are_none() {
        assert!(lines("[mqtt]\nserver_names = []\npoll_interval_ms = 5\nca_pem = 'x'\npinned = 1\n").is_empty());
    }
}
