//! What is said: results on standard output, everything else on standard error.

use std::fmt::Display;
use std::io::{BufRead, IsTerminal, Write};

use crate::failure::{Failure, Outcome};

/// A result. A reader that went away (`| head`) is no failure.
pub(crate) fn result(text: impl Display) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// What others wrote, so that it cannot steer the terminal.
pub(crate) fn printable(text: &str) -> String {
    text.chars().filter(|one| !one.is_control()).collect()
}

/// Something to know on the way.
pub(crate) fn note(text: impl Display) {
    let _ = writeln!(std::io::stderr().lock(), "imagectl: {text}");
}

/// Why it ended.
pub(crate) fn error(failure: &Failure) {
    note(failure);
}

/// Whether a person is there to answer.
pub(crate) fn someone_is_there() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// Asks for one line.
pub(crate) fn ask(question: &str) -> Outcome<String> {
    line(question).ok_or_else(|| Failure::machine("no answer came", "answer the questions, or give a file with --from"))
}

/// The same; nothing where no answer comes.
pub(crate) fn line(question: &str) -> Option<String> {
    /// Longest answer in bytes.
    const ANSWER_BYTES_MAX: u64 = 4096;
    let mut error = std::io::stderr().lock();
    let _ = write!(error, "{question} ");
    let _ = error.flush();
    let mut line = String::new();
    let read = std::io::Read::take(std::io::stdin().lock(), ANSWER_BYTES_MAX).read_line(&mut line);
    match read {
        Ok(0) | Err(_) => None,
        Ok(_) => Some(line.trim().to_owned()),
    }
}
