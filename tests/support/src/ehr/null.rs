//! Counting entries and accepting them all, as cheaply as possible.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

/// Found once in each entry of a transaction or batch (FHIR R4 Bundle, constraint bdl-3).
const ENTRY_MARK: &str = "\"request\":";
/// How an answer to one entry looks.
const ENTRY_ANSWER: &str = "{\"response\":{\"status\":\"201 Created\"}}";

/// Answers by kind and number of entries, made once.
#[derive(Default)]
pub(crate) struct Answers {
    made: Mutex<HashMap<(bool, usize), Bytes>>,
}

/// How many entries a bundle has and whether it is a transaction.
pub(crate) fn count(body: &[u8]) -> Option<(usize, bool)> {
    let text = std::str::from_utf8(body).ok()?;
    let head = text.get(..text.len().min(256)).unwrap_or(text);
    Some((text.matches(ENTRY_MARK).count(), head.contains("\"transaction\"")))
}

impl Answers {
    pub(crate) fn accept(&self, entries: usize, transaction: bool) -> Bytes {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        made.entry((transaction, entries))
            .or_insert_with(|| {
                let kind = if transaction { "transaction-response" } else { "batch-response" };
                let all = vec![ENTRY_ANSWER; entries].join(",");
                Bytes::from(format!("{{\"resourceType\":\"Bundle\",\"type\":\"{kind}\",\"entry\":[{all}]}}"))
            })
            .clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_counted_and_each_gets_its_answer() {
        let body = br#"{"resourceType":"Bundle","type":"batch","entry":[{"request":{"method":"PUT"}},{"request":{"method":"PUT"}}]}"#;
        let (entries, transaction) = count(body).unwrap();
        assert_eq!((entries, transaction), (2, false));
        let answer: serde_json::Value = serde_json::from_slice(&Answers::default().accept(entries, transaction)).unwrap();
        assert_eq!(answer["type"], "batch-response");
        assert_eq!(answer["entry"].as_array().unwrap().len(), 2);
    }
}
