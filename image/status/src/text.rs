//! Text from elsewhere, before it reaches a terminal or a page.

use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Longest text taken over from a state file or the daemon, in characters.
pub(crate) const TEXT_CHARS_MAX: usize = 500;

/// One line without control characters and without those that reorder what stands beside them;
/// cut at [`TEXT_CHARS_MAX`].
pub(crate) fn plain(text: &str) -> String {
    let mut line: String = text.chars().take(TEXT_CHARS_MAX).map(|c| if c.is_control() { ' ' } else { c }).filter(shown).collect();
    if text.chars().nth(TEXT_CHARS_MAX).is_some() {
        line.push('…');
    }
    line.truncate(line.trim_end().len());
    line
}

/// The same for a serial line: ASCII, cut at `chars_max`.
pub(crate) fn ascii(text: &str, chars_max: usize) -> String {
    let graphic = |c: char| if c == ' ' || c.is_ascii_graphic() { c } else { '?' };
    let line: String = plain(text).chars().map(graphic).collect();
    if line.len() <= chars_max { line } else { format!("{}...", line.chars().take(chars_max.saturating_sub(3)).collect::<String>()) }
}

/// Not one of the invisible characters that change the direction of writing.
fn shown(c: &char) -> bool {
    !matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// Reads a regular file of at most `bytes_max` bytes; never waits for a pipe or a device.
///
/// # Errors
/// When it cannot be opened, is no regular file, or is longer.
pub(crate) fn read_file(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let file = OpenOptions::new().read(true).custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits()).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut bytes = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        return Err(io::Error::other(format!("it has more than {bytes_max} bytes")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a state file says cannot move the cursor, ring the bell, or turn the line around.
    #[test]
    fn a_terminal_gets_one_harmless_line() {
        assert_eq!(plain("a\u{1b}[2Jb\nc\u{202e}d"), "a [2Jb cd");
        assert_eq!(ascii("Praxis Müller", 40), "Praxis M?ller");
        assert_eq!(ascii(&"x".repeat(50), 10), "xxxxxxx...");
        assert_eq!(plain(&"ä".repeat(TEXT_CHARS_MAX + 1)).chars().count(), TEXT_CHARS_MAX + 1);
    }
}
