//! Writes the layer's list of crates from Cargo.lock: `make yocto-crates`.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use vitalgate_yocto_checks::{Tree, crates};

#[allow(clippy::print_stderr, reason = "a program for the command line")]
fn main() -> ExitCode {
    match crates::write_list(&Tree::repository()) {
        Ok(count) => {
            eprintln!("{}: {count} crates", crates::LIST);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{}: {error}", crates::LIST);
            ExitCode::FAILURE
        }
    }
}
