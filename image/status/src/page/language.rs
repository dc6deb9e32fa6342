//! The two languages of the page.

/// A language.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// English, where nothing else is asked for.
    English,
    /// German.
    German,
}

impl Language {
    /// The language of a tag such as `de` or `en-GB`.
    #[must_use]
    pub fn from_tag(tag: &str) -> Option<Self> {
        let primary = tag.trim().split('-').next().unwrap_or_default();
        match primary {
            _ if primary.eq_ignore_ascii_case("de") => Some(Self::German),
            _ if primary.eq_ignore_ascii_case("en") => Some(Self::English),
            _ => None,
        }
    }

    /// The one of ours that an `Accept-Language` header (RFC 9110 section 12.5.4) wants most.
    #[must_use]
    pub fn from_accept(header: &str) -> Self {
        let mut best = (Self::English, 0.0);
        for entry in header.split(',') {
            let mut fields = entry.split(';');
            let Some(language) = Self::from_tag(fields.next().unwrap_or_default()) else { continue };
            let weight = fields.find_map(|field| field.trim().strip_prefix("q=")).map_or(1.0, |q| q.parse().unwrap_or(0.0));
            if weight > best.1 {
                best = (language, weight);
            }
        }
        best.0
    }

    /// The tag of the language.
    pub(crate) const fn tag(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::German => "de",
        }
    }

    /// The one of two texts that is in this language.
    pub(crate) const fn pick<'a>(self, english: &'a str, german: &'a str) -> &'a str {
        match self {
            Self::English => english,
            Self::German => german,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_language_that_is_wanted_most_is_spoken() {
        for (header, language) in [
            ("de", Language::German),
            ("de-CH, en;q=0.9", Language::German),
            ("fr, de;q=0.4, en;q=0.8", Language::English),
            ("en;q=0.1,DE;q=0.2", Language::German),
            ("de;q=0", Language::English),
            ("de;q=x", Language::English),
            (",;q=,;", Language::English),
            ("", Language::English),
        ] {
            assert_eq!(Language::from_accept(header), language, "{header:?}");
        }
    }
}
