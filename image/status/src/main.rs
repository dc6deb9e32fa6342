//! The read-only status page over HTTPS and the state word on the console.

#![forbid(unsafe_code)]

use std::io::Write as _;
use std::process::ExitCode;

use vitalgate_status::arguments::Arguments;
use vitalgate_status::run;

fn main() -> ExitCode {
    let result = Arguments::parse(std::env::args().skip(1)).and_then(run::run);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to tell when standard error is gone.
            let _ = writeln!(std::io::stderr(), "vitalgate-status: {error:#}");
            ExitCode::FAILURE
        }
    }
}
