//! What is said on standard output and on standard error.

use std::fmt::Arguments;
use std::io::{self, ErrorKind, Write as _};
use std::sync::OnceLock;

use anyhow::bail;

/// Why something could not be said, the first time.
static FAILED: OnceLock<io::Error> = OnceLock::new();

/// Says a line on standard output. A reader that has heard enough is no failure: nothing more is said, and the command goes on to
/// its end.
pub(super) fn line(text: Arguments<'_>) {
    if FAILED.get().is_none()
        && let Err(error) = writeln!(io::stdout(), "{text}")
    {
        let _the_first_stays = FAILED.set(error);
    }
}

/// Says a line on standard error; where that is closed too, nobody is left to hear it.
pub(super) fn error_line(text: Arguments<'_>) {
    let _nobody_hears = writeln!(io::stderr(), "{text}");
}

/// # Errors
/// When not everything could be said, and not because the reader has left.
pub(super) fn finished() -> anyhow::Result<()> {
    let flushed = io::stdout().flush();
    let failed = FAILED.get().or(flushed.as_ref().err());
    match failed.filter(|error| error.kind() != ErrorKind::BrokenPipe) {
        Some(error) => bail!("not all of the answer could be written: {error}"),
        None => Ok(()),
    }
}
