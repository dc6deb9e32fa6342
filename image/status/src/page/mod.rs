//! The page: six panels, one document, no script, nothing from elsewhere.

pub(crate) mod advice;
mod html;
mod language;
pub(crate) mod panel;
mod panels;
mod spell;

use std::sync::LazyLock;

use aws_lc_rs::digest;
use bytes::Bytes;
use serde_json::json;

pub use language::Language;

use crate::snapshot::Snapshot;

/// The style of the page; the only one that the browser may apply.
const STYLE: &str = include_str!("style.css");

/// What visitors get, made once a look.
#[derive(Debug, Clone, Default)]
pub struct Rendered {
    /// The page in English.
    pub english: Bytes,
    /// The page in German.
    pub german: Bytes,
    /// Everything, for programs.
    pub json: Bytes,
    /// The short answer, for programs.
    pub health: Bytes,
    /// Whether readings are taken and stored.
    pub in_service: bool,
}

impl Rendered {
    /// Makes all of it.
    #[must_use]
    pub fn of(snapshot: &Snapshot) -> Self {
        let overall = &snapshot.overall;
        let health = json!({ "ready": overall.in_service, "word": overall.word, "code": overall.code, "detail": overall.detail });
        Self {
            english: html::document(snapshot, Language::English).into(),
            german: html::document(snapshot, Language::German).into(),
            // Numbers and text always have a form in JSON.
            json: serde_json::to_vec(snapshot).unwrap_or_default().into(),
            health: health.to_string().into(),
            in_service: overall.in_service,
        }
    }

    /// The page in a language.
    #[must_use]
    pub fn html(&self, language: Language) -> Bytes {
        match language {
            Language::English => self.english.clone(),
            Language::German => self.german.clone(),
        }
    }
}

/// The policy that comes with every answer: our one style, and nothing else.
pub(crate) fn content_security_policy() -> &'static str {
    static POLICY: LazyLock<String> = LazyLock::new(|| {
        let style = base64(digest::digest(&digest::SHA256, STYLE.as_bytes()).as_ref());
        format!(
            "default-src 'none'; style-src 'sha256-{style}'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
    });
    &POLICY
}

/// Base64 with padding (RFC 4648 section 4).
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            let index = (bits >> (18 - 6 * place)) & 63;
            let letter = ALPHABET.get(index as usize).copied().unwrap_or(b'=');
            text.push(if place > chunk.len() { '=' } else { char::from(letter) });
        }
    }
    text
}

#[cfg(test)]
mod tests;
