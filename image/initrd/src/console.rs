//! One line for the person in front of the machine.

use std::{error::Error, fs::OpenOptions, io::Write};

/// Prefix of the line, for people and for the boot tests.
const PREFIX: &str = "VITALGATE BOOT FAILED:";

/// Writes an error with its causes to the kernel's log, which every console shows.
pub(crate) fn report(error: &dyn Error) {
    let mut line = format!("{PREFIX} {error}");
    let mut cause = error.source();
    while let Some(next) = cause {
        line.push_str(": ");
        line.push_str(&next.to_string());
        cause = next.source();
    }
    // <2>: critical, shown on the consoles even with `quiet`.
    let written = OpenOptions::new().write(true).open("/dev/kmsg").and_then(|mut log| log.write_all(format!("<2>{line}\n").as_bytes()));
    if written.is_err() {
        // The standard output is the console; there is nobody left to tell if that fails too.
        let _ = writeln!(std::io::stdout(), "{line}");
    }
}
