//! What is wrong with a profile, every fault of a file at once.

use std::fmt;

/// One fault of a profile file, with its place and remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProfileError {
    /// The file as it was named to [`crate::Profiles::load`].
    pub file: String,
    /// Line in the file, from 1.
    pub line: usize,
    /// The key, `polled.register[3].unit`, or empty for the file as a whole.
    pub place: String,
    /// What is wrong.
    pub problem: String,
    /// What to do about it.
    pub remedy: String,
}

impl fmt::Display for ProfileError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}: ", self.file, self.line)?;
        if !self.place.is_empty() {
            write!(formatter, "{}: ", self.place)?;
        }
        write!(formatter, "{}; {}", self.problem, self.remedy)
    }
}

/// Every fault of one profile file, in the order of its lines. Never empty.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ProfileErrors(pub Vec<ProfileError>);

impl fmt::Display for ProfileErrors {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                formatter.write_str("\n")?;
            }
            fmt::Display::fmt(error, formatter)?;
        }
        Ok(())
    }
}
