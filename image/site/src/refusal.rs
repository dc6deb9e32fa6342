//! Why a signed file is not taken.

use std::fmt;

use vitalgate_layout::Rejection;

use crate::error::SiteError;

/// A refusal: its number, what exactly, and the errors of the text where these are the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiteRefusal {
    rejection: Rejection,
    detail: String,
    errors: Vec<SiteError>,
}

impl SiteRefusal {
    /// A refusal with a number; `detail` may be empty and holds neither secrets nor patients.
    pub fn new(rejection: Rejection, detail: impl Into<String>) -> Self {
        Self { rejection, detail: detail.into(), errors: Vec::new() }
    }

    pub(crate) fn with_errors(rejection: Rejection, errors: Vec<SiteError>) -> Self {
        Self { rejection, detail: String::new(), errors }
    }

    /// The reason with its number, meaning and remedy.
    pub fn rejection(&self) -> Rejection {
        self.rejection
    }

    /// What exactly, where there is more to say than the reason's meaning.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// The same, or the reason's meaning where there is no more to say.
    pub fn exactly(&self) -> &str {
        if self.detail.is_empty() { self.rejection.meaning() } else { &self.detail }
    }

    /// Every error of the text, by line.
    pub fn errors(&self) -> &[SiteError] {
        &self.errors
    }
}

impl fmt::Display for SiteRefusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.rejection)?;
        if !self.detail.is_empty() {
            write!(formatter, ": {}", self.detail)?;
        }
        write!(formatter, "; {}", self.rejection.remedy())?;
        self.errors.iter().try_for_each(|error| write!(formatter, "\n{error}"))
    }
}

impl std::error::Error for SiteRefusal {}
